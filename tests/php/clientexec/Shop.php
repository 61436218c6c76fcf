<?php

declare(strict_types=1);

namespace Provisor\Tests\Clientexec;

use Provisor\Tests\Panel;
use Provisor\Tests\Result;
use UserPackage;

/** Clientexec with the plug-in, as its actions and pages drive it. */
final class Shop implements Panel
{
    private const METHODS = [
        'create' => 'doCreate',
        'suspend' => 'doSuspend',
        'unsuspend' => 'doUnSuspend',
        'terminate' => 'doDelete',
        'change-package' => 'doUpdate',
        'change-password' => 'doUpdate',
        'start' => 'doStart',
        'stop' => 'doStop',
        'reboot' => 'doReboot',
        'reinstall' => 'doReinstall',
    ];

    /** @var array<string, bool> */
    private array $active = [];
    private string $shown = '';
    private static int $last = 0;

    public function __construct()
    {
        \CE_Lib::$written = '';
        UserPackage::$packages = [];
    }

    public function connect(string $address, string $token): void
    {
        \Server::$variables = ['plugin_provisor_Gateway_Address' => $address, 'plugin_provisor_Token' => $token];
    }

    public function order(array $order): string
    {
        $id = ++self::$last;
        UserPackage::$packages[$id] = [
            'domain' => $order['domain'] ?? '',
            'email' => $order['email'] ?? '',
            'password' => $order['password'] ?? '',
            'variables' => ['plan' => "$order[profile]|$order[plan]", 'term' => '', 'options' => ''],
            'server' => ['plugin_provisor_Waiting_Time' => (string) ($order['wait'] ?? '')],
            'profile' => $order['profile'],
        ];
        return (string) $id;
    }

    public function amend(string $id, array $order): void
    {
        if (isset($order['plan'])) {
            $profile = UserPackage::$packages[(int) $id]['profile'];
            UserPackage::$packages[(int) $id]['variables'] = ['plan' => (is_string($profile) ? $profile : '') . "|$order[plan]"];
        }
    }

    public function key(string $id): string
    {
        return "package-$id";
    }

    public function call(string $id, string $operation, array $with = []): Result
    {
        $result = $this->act($this->plugin(true), $id, $operation, $with);
        if ($result->isSuccess && in_array($operation, ['create', 'suspend', 'unsuspend', 'terminate'], true)) {
            $this->active[$id] = in_array($operation, ['create', 'unsuspend'], true);
        }
        return $result;
    }

    public function callAsCustomer(string $id, string $operation, array $with = []): ?Result
    {
        if (!in_array($operation, ['start', 'stop', 'reboot'], true)) {
            return null;
        }
        return $this->act($this->plugin(false), $id, $operation, $with);
    }

    public function offers(string $id): array
    {
        $names = ['Delete' => 'terminate', 'UnSuspend' => 'unsuspend'];
        return array_map(static function (string $action) use ($names): string {
            return $names[$action] ?? strtolower($action);
        }, $this->plugin(true)->getAvailableActions(new UserPackage((int) $id)));
    }

    public function lacks(): array
    {
        return ['renew'];
    }

    public function isActive(string $id): bool
    {
        return $this->active[$id] ?? false;
    }

    public function shown(string $id): string
    {
        return print_r($this->plugin(true)->getPlans(1), true);
    }

    public function written(): string
    {
        return \CE_Lib::$written . $this->shown . print_r(array_column(UserPackage::$packages, 'fields'), true);
    }

    public function plugin(bool $isStaff): \PluginProvisor
    {
        $plugin = new \PluginProvisor();
        $plugin->user = new \CE_User();
        $plugin->user->isAdmin = $isStaff;
        return $plugin;
    }

    /** @param array<string, string> $with */
    private function act(\PluginProvisor $plugin, string $id, string $operation, array $with): Result
    {
        $changes = ['change-password' => ['password' => $with['password'] ?? ''], 'change-package' => ['package' => 2]];
        /** @var callable $method */
        $method = [$plugin, self::METHODS[$operation]];
        try {
            $sentence = $method(['userPackageId' => $id, 'changes' => $changes[$operation] ?? []]);
        } catch (\CE_Exception $error) {
            $this->shown .= $error->getMessage() . "\n";
            return new Result(false, $error->getMessage());
        }
        if (!is_string($sentence) || $sentence === '') {
            throw new \LogicException('an action answers with a sentence');
        }
        $this->shown .= "$sentence\n";
        return new Result(true);
    }
}
