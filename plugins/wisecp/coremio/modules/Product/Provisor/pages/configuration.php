<?php

declare(strict_types=1);

/**
 * @var string                $m_name
 * @var string                $area_link
 * @var array<string, string> $lang
 * @var array<string, string> $settings
 */

use Provisor\Service;

?>
<form action="<?php echo Service::html($area_link); ?>" method="post" id="provisorSettings">
    <input type="hidden" name="operation" value="module_controller">
    <input type="hidden" name="module" value="<?php echo Service::html($m_name); ?>">
    <input type="hidden" name="controller" value="save">
    <?php foreach (['address' => 'text', 'token' => 'password', 'wait' => 'number'] as $name => $type) { ?>
    <div class="formcon">
        <div class="yuzde30"><?php echo Service::html($lang[$name] ?? $name); ?></div>
        <div class="yuzde70">
            <input type="<?php echo $type; ?>" name="<?php echo $name; ?>" value="<?php echo Service::html($settings[$name] ?? ''); ?>" autocomplete="off">
        </div>
    </div>
    <?php } ?>
    <a class="yesilbtn gonderbtn" id="provisorSettings_submit" href="javascript:void(0);"><?php echo Service::html($lang['save'] ?? 'Save'); ?></a>
</form>
<script type="text/javascript">
    $(document).ready(function () {
        $('#provisorSettings_submit').click(function () {
            MioAjaxElement($(this), {waiting_text: waiting_text, progress_text: progress_text, result: 'provisorSettings_saved'});
        });
    });
    function provisorSettings_saved(result) {
        var answer = getJson(result);
        if (answer !== false) {
            (answer.status == 'successful' ? alert_success : alert_error)(answer.message, {timer: 5000});
        }
    }
</script>
