{* Asks whether the customer means it. *}
<p class="alert alert-danger">{$provisor.texts.reinstall_warning|escape:'html':'UTF-8'}</p>
<form method="post" action="clientarea.php?action=productdetails">
  <input type="hidden" name="token" value="{$token|default:''|escape:'html':'UTF-8'}">
  <input type="hidden" name="id" value="{$provisor.serviceid|escape:'html':'UTF-8'}">
  <input type="hidden" name="modop" value="custom">
  <input type="hidden" name="a" value="reinstall">
  <input type="hidden" name="provisor_confirm" value="{$provisor.confirm|escape:'html':'UTF-8'}">
  <button class="btn btn-danger">{$provisor.texts.reinstall_confirm|escape:'html':'UTF-8'}</button>
  <a class="btn btn-default" href="clientarea.php?action=productdetails&amp;id={$provisor.serviceid|escape:'url'}">{$provisor.texts.cancel|escape:'html':'UTF-8'}</a>
</form>
