<?php

// Provisor's provisioning module for WHMCS: every function that WHMCS may call, and only those that are of use. What can be done with a
// service is asked of the gateway; the provider behind it is not known here.

declare(strict_types=1);

use Provisor\Gateway;
use Provisor\Problem;
use Provisor\Read;
use WHMCS\Module\Server\Provisor\Account;
use WHMCS\Module\Server\Provisor\Accounts;
use WHMCS\Module\Server\Provisor\Command;
use WHMCS\Module\Server\Provisor\Page;
use WHMCS\Module\Server\Provisor\Server;
use WHMCS\Module\Server\Provisor\Settings;
use WHMCS\Module\Server\Provisor\SignOn;
use WHMCS\Module\Server\Provisor\Texts;

if (!defined('WHMCS')) {
    exit('This file cannot be accessed directly');
}

require_once __DIR__ . '/lib/load.php';

/** @return array<string, mixed> */
function provisor_MetaData(): array
{
    return [
        'DisplayName' => 'Provisor',
        'APIVersion' => '1.1',
        'RequiresServer' => true,
        'DefaultNonSSLPort' => '7070',
        'DefaultSSLPort' => '443',
        'ServiceSingleSignOnLabel' => Texts::get('sign_on'),
        'AdminSingleSignOnLabel' => Texts::get('sign_on_admin'),
        'ListAccountsUniqueIdentifierDisplayName' => 'Provisor ID',
        'ListAccountsUniqueIdentifierField' => 'customfield.Provisor ID',
        'ListAccountsProductField' => 'configoption2',
    ];
}

/**
 * The product's settings. WHMCS stores them by their place in this list, so that the list always has all 24: what a field shows may change
 * with what the gateway says, its place never.
 *
 * @param array<mixed> $params
 * @return array<string, array<string, mixed>>
 */
function provisor_ConfigOptions(array $params = []): array
{
    return Settings::all($params);
}

/**
 * Loader of the setting `profile`.
 *
 * @param array<mixed> $params
 * @return array<string, string>
 */
function provisor_profiles(array $params): array
{
    return Settings::profiles($params);
}

/**
 * Loader of the setting `plan`: those of the chosen profile, or of all as long as none is chosen.
 *
 * @param array<mixed> $params
 * @return array<string, string>
 */
function provisor_plans(array $params): array
{
    return Settings::plans($params);
}

/**
 * Loader of the setting `term`.
 *
 * @param array<mixed> $params
 * @return array<string, string>
 */
function provisor_terms(array $params): array
{
    return Settings::terms($params);
}

/**
 * Whether the gateway knows the token, and every provider behind it accepts its profile.
 *
 * @param array<mixed> $params
 * @return array{success: bool, error: string}
 */
function provisor_TestConnection(array $params): array
{
    try {
        $gateway = Server::gateway($params);
        foreach ($gateway->profiles() as $profile) {
            $name = Read::text($profile, 'name');
            try {
                $gateway->check($name);
            } catch (Problem $problem) {
                return ['success' => false, 'error' => Texts::plain("$name: {$problem->staffText()}")];
            }
        }
        return ['success' => true, 'error' => ''];
    } catch (Problem $problem) {
        return ['success' => false, 'error' => Texts::plain($problem->staffText())];
    }
}

/** @param array<mixed> $params */
function provisor_CreateAccount(array $params): string
{
    return Command::change(__FUNCTION__, $params, 'create', static function (Account $account, callable $description): array {
        return $account->order($description());
    });
}

/** @param array<mixed> $params */
function provisor_SuspendAccount(array $params): string
{
    return Command::change(__FUNCTION__, $params, 'suspend', static function (Account $account): array {
        return ['reason' => $account->reason()];
    });
}

/** @param array<mixed> $params */
function provisor_UnsuspendAccount(array $params): string
{
    return Command::change(__FUNCTION__, $params, 'unsuspend');
}

/** @param array<mixed> $params */
function provisor_TerminateAccount(array $params): string
{
    return Command::change(__FUNCTION__, $params, 'terminate');
}

/** @param array<mixed> $params */
function provisor_Renew(array $params): string
{
    return Command::change(__FUNCTION__, $params, 'renew', static function (Account $account): array {
        return ['due_at' => $account->dueDate()];
    });
}

/** @param array<mixed> $params */
function provisor_ChangePassword(array $params): string
{
    return Command::change(__FUNCTION__, $params, 'reset-password', static function (Account $account): array {
        return ['password' => $account->password()];
    });
}

/** @param array<mixed> $params */
function provisor_ChangePackage(array $params): string
{
    return Command::change(__FUNCTION__, $params, 'change-package', static function (Account $account, callable $description): array {
        return $account->package($description());
    });
}

/**
 * @param array<mixed> $params
 * @return array<string, string>
 */
function provisor_AdminCustomButtonArray(array $params = []): array
{
    $page = new Page($params);
    $buttons = $page->buttons() + [Texts::get('refresh') => 'refresh'];
    if ($page->isUnknown()) {
        $buttons[Texts::get('adopt')] = 'adopt';
    }
    return $buttons;
}

/**
 * WHMCS lets customers call exactly these.
 *
 * @param array<mixed> $params
 * @return array<string, string>
 */
function provisor_ClientAreaCustomButtonArray(array $params = []): array
{
    return (new Page($params))->customersButtons();
}

/** @param array<mixed> $params */
function provisor_start(array $params): string
{
    return Command::power(__FUNCTION__, $params, 'start');
}

/** @param array<mixed> $params */
function provisor_stop(array $params): string
{
    return Command::power(__FUNCTION__, $params, 'stop');
}

/** @param array<mixed> $params */
function provisor_reboot(array $params): string
{
    return Command::power(__FUNCTION__, $params, 'reboot');
}

/**
 * Loses the machine's data, and is therefore asked for twice: a customer confirms on a page of its own, staff by pressing again.
 *
 * @param array<mixed> $params
 * @return string|array<string, mixed>
 */
function provisor_reinstall(array $params)
{
    if (!Texts::isForCustomer()) {
        $confirmed = SignOn::isSecondPress('reinstall', $params);
        return $confirmed ? Command::power(__FUNCTION__, $params, 'reinstall') : Texts::get('reinstall_again');
    }
    $account = new Account($params);
    if (!$account->mayCustomerReinstall() || !$account->isActive()) {
        return Texts::get('neutral');
    }
    if (SignOn::isConfirmed('reinstall', $params, Read::text(Read::named($_POST), 'provisor_confirm'))) {
        return Command::power(__FUNCTION__, $params, 'reinstall');
    }
    return Page::custom('reinstall', $params, ['confirm' => SignOn::confirmation('reinstall', $params)]);
}

/**
 * Asks the provider how the service stands.
 *
 * @param array<mixed> $params
 */
function provisor_refresh(array $params): string
{
    return Command::ask(__FUNCTION__, $params, static function (Gateway $gateway, Account $account): void {
        $account->remember($gateway->service($account->key(), true));
    });
}

/**
 * Takes over what exists at the provider and was made before Provisor.
 *
 * @param array<mixed> $params
 */
function provisor_adopt(array $params): string
{
    return Command::change(__FUNCTION__, $params, 'adopt', static function (Account $account): array {
        return $account->adoption();
    });
}

/**
 * How to log in to the service, for its customer. The provider records each reading, so that it is a page of its own.
 *
 * @param array<mixed> $params
 * @return string|array<string, mixed>
 */
function provisor_access(array $params)
{
    if (Texts::isForCustomer() && !(new Account($params))->isActive()) {
        return Texts::get('neutral');
    }
    $found = [];
    $answer = Command::ask(__FUNCTION__, $params, static function (Gateway $gateway, Account $account) use (&$found): void {
        $login = $gateway->credentials($account->key());
        foreach (['username', 'password', 'port', 'url'] as $name) {
            $found[Texts::get($name)] = Read::text($login, $name);
        }
        $found = array_merge($found, Read::properties($login, 'properties'));
    });
    if ($answer !== 'success' || !Texts::isForCustomer()) {
        // Staff has no page here, and a password is nothing for a message.
        return $answer;
    }
    $rows = array_filter($found, static function (string $value): bool {
        return $value !== '';
    });
    return Page::custom('access', $params, ['rows' => $rows]);
}

/**
 * @param array<mixed> $params
 * @return array<string, mixed>
 */
function provisor_ServiceSingleSignOn(array $params): array
{
    try {
        $target = (new Page($params))->targets()[0] ?? null;
        if ($target === null) {
            // Also where the gateway does not answer: then this says so.
            Server::gateway($params)->service((new Account($params))->key());
            return ['success' => false, 'errorMsg' => Texts::get('no_sign_on')];
        }
        return ['success' => true, 'redirectTo' => SignOn::link($params, (new Account($params))->key(), $target)];
    } catch (Problem $problem) {
        return ['success' => false, 'errorMsg' => Texts::problem($problem)];
    }
}

/**
 * To the provider's own pages for resellers, where a profile has such a login. It is found by any of this panel's services.
 *
 * @param array<mixed> $params
 * @return array<string, mixed>
 */
function provisor_AdminSingleSignOn(array $params): array
{
    try {
        $description = Server::description($params);
        foreach (array_keys($description->profiles()) as $profile) {
            $staffs = array_diff($description->signOnTargets($profile, false), $description->signOnTargets($profile, true));
            $services = $staffs === [] ? [] : Server::gateway($params)->services(['profile' => $profile, 'limit' => 1]);
            $service = Read::maps($services, 'services')[0] ?? null;
            if ($service !== null) {
                $link = SignOn::link($params, Read::text($service, 'key'), (string) reset($staffs));
                return ['success' => true, 'redirectTo' => $link];
            }
        }
        return ['success' => false, 'errorMsg' => Texts::get('no_sign_on')];
    } catch (Problem $problem) {
        return ['success' => false, 'errorMsg' => Texts::problem($problem)];
    }
}

/**
 * @param array<mixed> $params
 * @return array<string, mixed>
 */
function provisor_ListAccounts(array $params): array
{
    try {
        return ['success' => true, 'accounts' => Accounts::all(Server::gateway($params))];
    } catch (Problem $problem) {
        return ['success' => false, 'error' => Texts::plain($problem->staffText())];
    }
}

/**
 * @param array<mixed> $params
 * @return array<string, string> label and HTML
 */
function provisor_AdminServicesTabFields(array $params): array
{
    $fields = [];
    foreach ((new Page($params))->rows() as $label => $text) {
        $fields[$label] = htmlspecialchars($text, ENT_QUOTES | ENT_SUBSTITUTE, 'UTF-8');
    }
    return $fields;
}

/**
 * @param array<mixed> $params
 * @return array<string, mixed>
 */
function provisor_ClientArea(array $params): array
{
    $page = new Page($params);
    $service = $page->service();
    return [
        'tabOverviewModuleOutputTemplate' => 'templates/overview.tpl',
        'templateVariables' => [
            'provisor' => [
                'texts' => Texts::all(),
                'problem' => $page->problem(),
                'state' => $service === [] ? '' : Texts::state(Read::text($service, 'state')),
                'addresses' => Read::texts($service, 'addresses'),
                'due' => substr(Read::text($service, 'due_at'), 0, 10),
                'buttons' => $page->customersButtons(),
                'signon' => $page->targets() !== [],
                'serviceid' => (int) Read::text($params, 'serviceid'),
            ],
        ],
    ];
}
