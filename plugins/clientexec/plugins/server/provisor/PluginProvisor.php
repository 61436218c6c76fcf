<?php

declare(strict_types=1);

use Provisor\Description;
use Provisor\Gateway;
use Provisor\Problem;
use Provisor\Read;
use Provisor\Service;

// Clientexec's own loader may have brought it already.
if (!class_exists('ServerPlugin')) {
    require_once 'modules/admin/models/ServerPlugin.php';
}
require_once __DIR__ . '/load.php';

/**
 * Clientexec calls do<Action>() for each of the actions that getVariables() names. A sentence is shown and the package takes its new state; a
 * CE_Exception is shown and it keeps the old one.
 */
class PluginProvisor extends ServerPlugin
{
    /** @var array<string, bool> */
    public $features = [
        'packageName' => false,
        'testConnection' => true,
        'showNameservers' => false,
        'directlink' => true,
        'upgrades' => true,
    ];

    /** Under which Clientexec stores a setting: our name of it with underscores, after this. */
    private const PREFIX = 'plugin_provisor_';
    /** Where Clientexec's plug-ins keep the provider's id of a package. */
    private const REMOTE_ID = 'Server Acct Properties';
    /** A plan's name in the product's settings: the profile and the provider's plan. */
    private const SEPARATOR = '|';
    /** Seconds for which a list of packages does not ask a gateway again that did not answer. */
    private const SILENCE = 10;

    /** @var array<string, int> when gateways did not answer, by address */
    private static array $silent = [];

    /** Our action's names for what the gateway calls power actions. */
    private const POWER = ['Start' => 'start', 'Stop' => 'stop', 'Reboot' => 'reboot', 'Reinstall' => 'reinstall'];

    /** @return array<string, array<string, mixed>> */
    public function getVariables()
    {
        $text = static function (string $description, string $value = ''): array {
            return ['type' => 'text', 'description' => lang($description), 'value' => $value];
        };
        $hidden = static function (string $description, $value): array {
            return ['type' => 'hidden', 'description' => lang($description), 'value' => $value];
        };
        return [
            lang('Name') => $hidden('Used by CE to show plugin - must match how you call the action function names', 'Provisor'),
            lang('Description') => $hidden('Description viewable by admin in server settings', lang('Sells services of any provider that your Provisor gateway knows.')),
            lang('Gateway Address') => $text('https://gateway.example, http://127.0.0.1:7070 or unix:/run/provisor/gateway.sock'),
            lang('Token') => ['encryptable' => true] + $text('As printed by: provisor panel create'),
            lang('Waiting Time') => $text('Seconds to wait for the end of a change, at most 110', (string) Service::WAIT_DEFAULT),
            lang('Custom Fields') => $text('Customers\' answers that are passed on: the provider\'s field = the name of the package\'s custom field, such as hostname = Host name; with semicolons between'),
            lang('Offer Reinstall') => ['type' => 'yesno', 'description' => lang('Staff may reinstall, which deletes all data of the service'), 'value' => '0'],
            lang('Actions') => $hidden('Current actions that are active for this plugin per server', 'Create,Delete,Suspend,UnSuspend,Start,Stop,Reboot,Reinstall'),
            lang('Registered Actions For Customer') => $hidden('Current actions that are active for this plugin per server for customers', 'Start,Stop,Reboot'),
            lang('reseller') => $hidden('Whether this server plugin can set reseller accounts', '0'),
            lang('package_addons') => $hidden('Supported signup addons variables', []),
            lang('package_vars') => $hidden('Whether package settings are set', '1'),
            lang('package_vars_values') => $hidden('Service parameters', [
                'plan' => ['type' => 'dropdown', 'multiple' => false, 'getValues' => 'getPlans', 'label' => lang('Plan'), 'description' => lang('The profile and its plan'), 'value' => ''],
                'term' => ['type' => 'text', 'label' => lang('Term'), 'description' => lang('If the provider sells more than one'), 'value' => ''],
                'options' => ['type' => 'text', 'label' => lang('Options'), 'description' => lang('The provider\'s own, such as quantity = 2; with semicolons between'), 'value' => ''],
            ]),
        ];
    }

    /**
     * All plans of all profiles that the token may use, for the product's settings.
     *
     * @param int|string $serverId
     * @return array<string, string>
     */
    public function getPlans($serverId)
    {
        $plans = ['' => lang('-- Select a plan --')];
        try {
            $server = new Server($serverId);
            $gateway = self::gateway(['server' => ['variables' => $server->getAllServerPluginVariables($this->user, 'provisor')]]);
            foreach ((new Description($gateway->describe('clientexec')))->profiles() as $profile => $provider) {
                foreach (Read::maps($gateway->catalog($profile), 'plans') as $plan) {
                    $id = Read::text($plan, 'id');
                    $plans[$profile . self::SEPARATOR . $id] = Service::caption("$profile ($provider): " . Read::text($plan, 'name', $id));
                }
            }
        } catch (Problem $problem) {
            self::note('plans', '', $problem);
            $plans[''] = '-- ' . Service::plain($problem->staffText()) . ' --';
        }
        return $plans;
    }

    /**
     * Clientexec asks at the order whether a user name will do; providers make their own.
     *
     * @param array<mixed> $args
     * @return string
     */
    public function validateCredentials($args)
    {
        return Read::text(Read::map($args, 'package'), 'username');
    }

    /**
     * @param array<mixed> $args
     * @return void
     * @throws CE_Exception
     */
    public function testConnection($args)
    {
        try {
            if (self::gateway($args)->profiles() === []) {
                throw new Problem('unauthorized', 'The token may use no profile.');
            }
        } catch (Problem $problem) {
            throw self::failure($problem, false);
        }
    }

    /**
     * @param array<mixed> $args
     * @return string
     * @throws CE_Exception
     */
    public function doCreate($args)
    {
        return $this->perform($args, 'create', 'created');
    }

    /**
     * @param array<mixed> $args
     * @return string
     * @throws CE_Exception
     */
    public function doUpdate($args)
    {
        return $this->perform($args, 'update', 'updated');
    }

    /**
     * @param array<mixed> $args
     * @return string
     * @throws CE_Exception
     */
    public function doDelete($args)
    {
        return $this->perform($args, 'delete', 'deleted');
    }

    /**
     * @param array<mixed> $args
     * @return string
     * @throws CE_Exception
     */
    public function doSuspend($args)
    {
        return $this->perform($args, 'suspend', 'suspended');
    }

    /**
     * @param array<mixed> $args
     * @return string
     * @throws CE_Exception
     */
    public function doUnSuspend($args)
    {
        return $this->perform($args, 'unsuspend', 'unsuspended');
    }

    /**
     * @param array<mixed> $args
     * @return string
     * @throws CE_Exception
     */
    public function doStart($args)
    {
        return $this->perform($args, 'start', 'started');
    }

    /**
     * @param array<mixed> $args
     * @return string
     * @throws CE_Exception
     */
    public function doStop($args)
    {
        return $this->perform($args, 'stop', 'stopped');
    }

    /**
     * @param array<mixed> $args
     * @return string
     * @throws CE_Exception
     */
    public function doReboot($args)
    {
        return $this->perform($args, 'reboot', 'rebooted');
    }

    /**
     * @param array<mixed> $args
     * @return string
     * @throws CE_Exception
     */
    public function doReinstall($args)
    {
        return $this->perform($args, 'reinstall', 'reinstalled');
    }

    /**
     * @param array<mixed> $args of buildParams(), as all that follow
     * @return void
     * @throws CE_Exception
     */
    public function create($args)
    {
        $made = self::attempt($args, 'create', function (Service $service) use ($args): array {
            return $service->create($this->order($args));
        });
        $userPackage = new UserPackage((int) self::id($args));
        $userPackage->setCustomField(self::REMOTE_ID, Read::text($made, 'remote_id'));
        $address = Read::texts($made, 'addresses')[0] ?? '';
        if ($address !== '') {
            $userPackage->setCustomField('IP Address', $address);
            $userPackage->setCustomField('Shared', 0);
        }
    }

    /**
     * What was changed in the package, of what a provider can change.
     *
     * @param array<mixed> $args
     * @return void
     * @throws CE_Exception
     */
    public function update($args)
    {
        $changes = Read::map($args, 'changes');
        self::attempt($args, 'update', function (Service $service) use ($args, $changes): array {
            foreach (['username', 'domain', 'ip'] as $fixed) {
                if (Read::text($changes, $fixed) !== '') {
                    throw new Problem('unsupported', "The $fixed of a service of Provisor cannot be changed here.", 'none', 0, null, $fixed);
                }
            }
            if (Read::text($changes, 'password') !== '') {
                $service->resetPassword(Read::text($changes, 'password'));
            }
            if (isset($changes['package'])) {
                $order = $this->order($args);
                return $service->changePackage(Read::text($order, 'plan'), self::pairs(self::variable($args, 'options')));
            }
            return [];
        });
    }

    /**
     * @param array<mixed> $args
     * @return void
     * @throws CE_Exception
     */
    public function delete($args)
    {
        self::attempt($args, 'delete', static function (Service $service): array {
            $service->terminate();
            return [];
        });
        (new UserPackage((int) self::id($args)))->setCustomField(self::REMOTE_ID, '');
    }

    /**
     * @param array<mixed> $args
     * @return void
     * @throws CE_Exception
     */
    public function suspend($args)
    {
        self::attempt($args, 'suspend', static function (Service $service): array {
            $service->suspend();
            return [];
        });
    }

    /**
     * @param array<mixed> $args
     * @return void
     * @throws CE_Exception
     */
    public function unsuspend($args)
    {
        self::attempt($args, 'unsuspend', static function (Service $service): array {
            $service->unsuspend();
            return [];
        });
    }

    /**
     * Which buttons there are. Called for each page of a package, so that it never fails: without the gateway there is no button, and in
     * particular none that creates.
     *
     * @param UserPackage $userPackage
     * @return list<string>
     */
    public function getAvailableActions($userPackage)
    {
        $args = $this->buildParams($userPackage);
        $address = self::setting($args, 'Gateway_Address');
        if (time() - (self::$silent[$address] ?? 0) < self::SILENCE) {
            return [];
        }
        try {
            $service = self::service($args);
            $view = $service->view();
            $actions = self::lifecycle(Read::text($view, 'state'));
            // Whoever looks, staff or the customer: Clientexec shows customers only those registered for them.
            $offers = $service->offers($view, false);
            foreach (self::POWER as $action => $power) {
                $isAllowed = $power !== 'reinstall' || self::isYes(self::setting($args, 'Offer_Reinstall'));
                if ($isAllowed && in_array($power, $offers, true) && in_array('Suspend', $actions, true)) {
                    $actions[] = $action;
                }
            }
            return $actions;
        } catch (Problem $problem) {
            if ($problem->kind() === 'unreachable' && $problem->status() === 0) {
                self::$silent[$address] = time();
            }
            return $problem->status() === 404 ? ['Create'] : [];
        }
    }

    /**
     * The link to the provider's pages. A login that needs a form posted cannot be a link; it leads to the login page then.
     *
     * @param UserPackage $userPackage
     * @param bool        $getRealLink whether the address is asked for, or where to ask for it
     * @param bool        $fromAdmin
     * @param bool        $isReseller
     * @return array<string, string>
     * @throws CE_Exception
     */
    public function getDirectLink($userPackage, $getRealLink = true, $fromAdmin = false, $isReseller = false)
    {
        $label = lang('Log in');
        if ($fromAdmin) {
            return ['cmd' => 'panellogin', 'label' => $label];
        }
        $link = 'index.php?fuse=clients&controller=products&action=openpackagedirectlink&packageId=' . $userPackage->getId()
            . '&sessionHash=' . CE_Lib::getSessionHash();
        if ($getRealLink) {
            $link = Read::text(self::attempt($this->buildParams($userPackage), 'login', static function (Service $service): array {
                return ['url' => $service->loginAddress(true)];
            }, true), 'url');
        }
        return ['fa' => 'fa fa-user fa-fw', 'link' => $link, 'text' => $label, 'form' => ''];
    }

    /**
     * @param array<mixed> $args
     * @return string
     * @throws CE_Exception
     */
    public function dopanellogin($args)
    {
        return $this->getDirectLink(new UserPackage((int) Read::text($args, 'userPackageId')))['link'];
    }

    /**
     * @param array<mixed> $args
     * @throws CE_Exception
     */
    private function perform(array $args, string $what, string $done): string
    {
        $userPackage = new UserPackage((int) Read::text($args, 'userPackageId'));
        $params = $this->buildParams($userPackage, $args);
        $power = self::POWER[ucfirst($what)] ?? null;
        if ($power === 'reinstall' && !self::isYes(self::setting($params, 'Offer_Reinstall'))) {
            throw new CE_Exception(lang('Reinstalling is turned off for this server.'));
        }
        if ($power !== null) {
            $isForCustomer = $this->isForCustomer();
            self::attempt($params, $power, static function (Service $service) use ($power, $isForCustomer): array {
                $isForCustomer ? $service->powerForCustomer($power) : $service->power($power);
                return [];
            }, $isForCustomer);
        } else {
            /** @var callable $method */
            $method = [$this, $what];
            $method($params);
        }
        $name = self::packageName($params);
        return ($name !== '' ? Service::plain($name) : self::key($params)) . " has been $done.";
    }

    /**
     * Does it, writes down that it was done or why not, and tells a failure in Clientexec's way.
     *
     * @param array<mixed>                            $args
     * @param callable(Service): array<string, mixed> $change
     * @return array<string, mixed>
     * @throws CE_Exception
     */
    private static function attempt(array $args, string $what, callable $change, bool $isForCustomer = false): array
    {
        $key = self::key($args);
        try {
            $result = $change(self::service($args));
        } catch (Problem $problem) {
            self::note($what, $key, $problem);
            throw self::failure($problem, $isForCustomer);
        }
        self::note($what, $key, null);
        return $result;
    }

    private static function failure(Problem $problem, bool $isForCustomer): CE_Exception
    {
        return new CE_Exception(Service::plain($isForCustomer ? $problem->customerText() : $problem->staffText()));
    }

    private static function note(string $what, string $key, ?Problem $problem): void
    {
        $result = $problem === null ? 'done' : "failed ({$problem->kind()}): " . Service::plain($problem->staffText());
        CE_Lib::log(4, trim("Provisor: $what $key") . " $result");
    }

    /** Whoever is not known to be staff is a customer, and told less. */
    private function isForCustomer(): bool
    {
        return $this->user === null || !$this->user->isAdmin();
    }

    /** @return list<string> */
    private static function lifecycle(string $state): array
    {
        switch ($state) {
            case 'terminated':
                return ['Create'];
            case 'suspended':
                return ['UnSuspend', 'Delete'];
            case 'pending':
            // Something may stand at the provider still, which has to be ended before it is made anew.
            case 'failed':
                return ['Create', 'Delete'];
            default:
                return ['Suspend', 'Delete'];
        }
    }

    /**
     * @param array<mixed> $args
     * @return array<string, mixed>
     */
    private function order(array $args): array
    {
        [$profile, $plan] = explode(self::SEPARATOR, self::variable($args, 'plan') . self::SEPARATOR, 3);
        $package = Read::map($args, 'package');
        $options = self::pairs(self::variable($args, 'options'));
        $userPackage = new UserPackage((int) self::id($args));
        foreach (self::pairs(self::setting($args, 'Custom_Fields')) as $name => $field) {
            $answer = $userPackage->getCustomField($field, CUSTOM_FIELDS_FOR_PACKAGE);
            $options[$name] = is_scalar($answer) ? trim((string) $answer) : '';
        }
        return [
            'profile' => $profile,
            'plan' => $plan,
            'term' => self::variable($args, 'term'),
            'domain' => Read::text($package, 'domain_name'),
            'email' => Read::text(Read::map($args, 'customer'), 'email'),
            'password' => Read::text($package, 'password'),
            'options' => $options,
        ];
    }

    /**
     * `name = value; name = value`.
     *
     * @return array<string, string>
     */
    private static function pairs(string $text): array
    {
        $pairs = [];
        foreach (explode(';', $text) as $pair) {
            [$name, $value] = array_map('trim', explode('=', "$pair=", 3));
            if ($name !== '' && $value !== '') {
                $pairs[$name] = $value;
            }
        }
        return $pairs;
    }

    /** @param array<mixed> $args */
    private static function packageName(array $args): string
    {
        return Read::text(Read::map($args, 'package'), 'domain_name');
    }

    /** @param array<mixed> $args */
    private static function id(array $args): string
    {
        return Read::text(Read::map($args, 'package'), 'id');
    }

    /** @param array<mixed> $args */
    private static function key(array $args): string
    {
        return 'package-' . (int) self::id($args);
    }

    /** @param array<mixed> $args */
    private static function variable(array $args, string $name): string
    {
        return trim(Read::text(Read::map(Read::map($args, 'package'), 'variables'), $name));
    }

    /** @param array<mixed> $args */
    private static function setting(array $args, string $name): string
    {
        return trim(Read::text(Read::map(Read::map($args, 'server'), 'variables'), self::PREFIX . $name));
    }

    private static function isYes(string $value): bool
    {
        return in_array($value, ['1', 'true', 'yes'], true);
    }

    /**
     * @param array<mixed> $args
     * @throws Problem
     */
    private static function service(array $args): Service
    {
        $wait = self::setting($args, 'Waiting_Time');
        if ((int) self::id($args) <= 0) {
            throw new Problem('invalid', 'Clientexec gave no package id.');
        }
        return new Service(self::gateway($args), self::key($args), 'clientexec', $wait !== '' ? (int) $wait : Service::WAIT_DEFAULT);
    }

    /**
     * @param array<mixed> $args
     * @throws Problem
     */
    private static function gateway(array $args): Gateway
    {
        return new Gateway(self::setting($args, 'Gateway_Address'), self::setting($args, 'Token'));
    }
}
