{* How to log in to the service. Every value is escaped: all come from the provider. *}
<dl class="provisor-access">
  {foreach $provisor.rows as $label => $value}
    <dt>{$label|escape:'html':'UTF-8'}</dt>
    <dd><code>{$value|escape:'html':'UTF-8'}</code></dd>
  {/foreach}
</dl>
<a class="btn btn-default" href="clientarea.php?action=productdetails&amp;id={$provisor.serviceid|escape:'url'}">{$provisor.texts.cancel|escape:'html':'UTF-8'}</a>
