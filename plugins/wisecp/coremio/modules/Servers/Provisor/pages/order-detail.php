<?php

declare(strict_types=1);

/**
 * @var Provisor_Module|Provisor $module
 * @var array<string, mixed>     $order
 */

$options = is_array($order['options'] ?? null) ? $order['options'] : [];
$settings = is_array($options['creation_info'] ?? null) ? $options['creation_info'] : [];
echo '<div class="formcon">' . $module->adminArea_buttons_output() . '</div><div class="clear"></div>';
$module->config_options_output($module->adminArea_service_fields(), 'creation_info');
$module->config_options_output($module->config_options($settings), 'creation_info');
