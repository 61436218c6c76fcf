{* The module's part of a service's page in the client area. Every value is escaped: some come from the provider. *}
<div class="provisor">
  {if $provisor.problem}
    <p class="alert alert-info">{$provisor.problem|escape:'html':'UTF-8'}</p>
  {else}
    <dl>
      <dt>{$provisor.texts.state|escape:'html':'UTF-8'}</dt>
      <dd>{$provisor.state|escape:'html':'UTF-8'}</dd>
      {if $provisor.addresses}
        <dt>{$provisor.texts.addresses|escape:'html':'UTF-8'}</dt>
        {foreach $provisor.addresses as $address}
          <dd>{$address|escape:'html':'UTF-8'}</dd>
        {/foreach}
      {/if}
      {if $provisor.due}
        <dt>{$provisor.texts.due|escape:'html':'UTF-8'}</dt>
        <dd>{$provisor.due|escape:'html':'UTF-8'}</dd>
      {/if}
    </dl>
    {foreach $provisor.buttons as $label => $action}
      <form method="post" action="clientarea.php?action=productdetails" style="display: inline-block">
        <input type="hidden" name="token" value="{$token|default:''|escape:'html':'UTF-8'}">
        <input type="hidden" name="id" value="{$provisor.serviceid|escape:'html':'UTF-8'}">
        <input type="hidden" name="modop" value="custom">
        <input type="hidden" name="a" value="{$action|escape:'html':'UTF-8'}">
        <button class="btn btn-default">{$label|escape:'html':'UTF-8'}</button>
      </form>
    {/foreach}
    {if $provisor.signon}
      <a class="btn btn-primary" href="clientarea.php?action=productdetails&amp;id={$provisor.serviceid|escape:'url'}&amp;dosinglesignon=1">{$provisor.texts.sign_on|escape:'html':'UTF-8'}</a>
    {/if}
  {/if}
</div>
