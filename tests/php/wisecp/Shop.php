<?php

declare(strict_types=1);

namespace Provisor\Tests\Wisecp;

use Provisor\Read;
use Provisor\Tests\Panel;
use Provisor\Tests\Result;

/** WISECP with one of the modules, as its queue and its pages drive it: a new module object for each call. */
final class Shop implements Panel
{
    /** @var array<array<string, mixed>> the orders, as in WISECP's table */
    public array $orders = [];
    private bool $isProduct;
    private string $address = '';
    private string $token = '';
    /** @var array<string> */
    private array $emails = [];
    /** @var array<string> */
    private array $waits = [];
    private static int $last = 0;

    public function __construct(bool $isProduct = false)
    {
        $this->isProduct = $isProduct;
        \ModuleStandIn::$written = '';
        $_POST = [];
    }

    public function connect(string $address, string $token): void
    {
        [$this->address, $this->token] = [$address, $token];
    }

    public function order(array $order): string
    {
        $id = (string) ++self::$last;
        $settings = ['plan' => "$order[profile]|$order[plan]", 'term' => '', 'option_quantity' => '', 'profile' => $order['profile']];
        // Each kind of module has a place of its own for it.
        $settings += $this->isProduct ? [] : ['wait' => (string) ($order['wait'] ?? '')];
        $this->orders[$id] = [
            'id' => $id,
            'status' => 'waiting',
            'duedate' => '2027-01-15 00:00:00',
            'options' => ['creation_info' => $settings, 'domain' => $order['domain'] ?? ''],
        ];
        $this->emails[$id] = $order['email'] ?? '';
        $this->waits[$id] = (string) ($order['wait'] ?? '');
        return $id;
    }

    public function amend(string $id, array $order): void
    {
        $settings = $this->settings($id);
        if (isset($order['plan'])) {
            $this->orders[$id]['options'] = ['creation_info' => ['plan' => Read::text($settings, 'profile') . "|$order[plan]"] + $settings];
        }
    }

    public function key(string $id): string
    {
        return "order-$id";
    }

    public function call(string $id, string $operation, array $with = []): Result
    {
        $module = $this->module($id);
        $states = ['create' => 'active', 'suspend' => 'suspended', 'unsuspend' => 'active', 'terminate' => 'cancelled'];
        $answer = $this->act($module, $id, $operation, $with);
        $isSuccess = $operation === 'create' ? is_array($answer) : $answer;
        if ($answer !== false && $isSuccess !== true || $answer === false && trim($module->error) === '') {
            throw new \LogicException("$operation answers with true, or with false and an error");
        }
        if ($isSuccess === true && isset($states[$operation])) {
            $this->orders[$id]['status'] = $states[$operation];
        }
        if (is_array($answer)) {
            $this->orders[$id]['options'] = $answer + Read::map($this->orders[$id], 'options');
        }
        return new Result($isSuccess === true, $isSuccess === true ? '' : $module->error);
    }

    public function callAsCustomer(string $id, string $operation, array $with = []): Result
    {
        $_POST = ['password' => $with['password'] ?? ''];
        [$answer, $printed] = self::printed($this->module($id), 'use_clientArea_' . str_replace('-', '_', $operation));
        $shown = Read::named(json_decode($printed, true));
        if (Read::text($shown, 'status') !== ($answer === true ? 'successful' : 'error')) {
            throw new \LogicException("a button answers with JSON: $printed");
        }
        return new Result($answer === true, Read::text($shown, 'message'));
    }

    public function offers(string $id): array
    {
        return array_merge(['suspend', 'unsuspend', 'terminate', 'renew', 'change-package'], array_keys($this->module($id)->adminArea_buttons()));
    }

    public function lacks(): array
    {
        return [];
    }

    public function isActive(string $id): bool
    {
        return $this->orders[$id]['status'] === 'active';
    }

    public function shown(string $id): string
    {
        $module = $this->module($id);
        return $module->clientArea() . print_r([$module->adminArea_service_fields(), $module->config_options($this->settings($id))], true);
    }

    public function written(): string
    {
        return \ModuleStandIn::$written . print_r(array_column($this->orders, 'options'), true);
    }

    /** @return \Provisor_Module|\Provisor */
    public function module(string $id = '')
    {
        if ($this->isProduct) {
            $module = new \Provisor();
            $token = \Crypt::encode($this->token, \Config::get('crypt/system'));
            $settings = ['address' => $this->address, 'token' => $token, 'token_encoded' => true, 'wait' => $this->waits[$id] ?? ''];
            $module->config = ['settings' => $settings] + $module->config;
        } else {
            $url = parse_url($this->address);
            $server = ['name' => 'gateway', 'ip' => $url['host'] ?? '', 'port' => $url['port'] ?? 0, 'secure' => false, 'access_hash' => $this->token, 'password' => ''];
            $module = new \Provisor_Module($server);
        }
        $module->order = $this->orders[$id] ?? [];
        $module->user = ['email' => $this->emails[$id] ?? ''];
        return $module;
    }

    /**
     * A method that prints, as WISECP calls it.
     *
     * @param \Provisor_Module|\Provisor $module
     * @return array{mixed, string}
     */
    public static function printed(object $module, string $method): array
    {
        ob_start();
        try {
            /** @var callable $call */
            $call = [$module, $method];
            return [$call(), (string) ob_get_contents()];
        } finally {
            ob_end_clean();
        }
    }

    /**
     * @param \Provisor_Module|\Provisor $module
     * @param array<string, string>      $with
     * @return array<string, mixed>|bool
     */
    private function act(object $module, string $id, string $operation, array $with)
    {
        switch ($operation) {
            case 'create':
                return $module->create(Read::map($this->orders[$id], 'options'));
            case 'suspend':
                $module->order = ['suspended_reason' => $with['reason'] ?? ''] + $this->orders[$id];
                return $module->suspend();
            case 'unsuspend':
                return $module->unsuspend();
            case 'terminate':
                return $this->isProduct ? $module->delete() : $module->terminate();
            case 'renew':
                $module->order = ['duedate' => ($with['due_at'] ?? '') . ' 00:00:00'] + $this->orders[$id];
                return $module->renewal(Read::map($this->orders[$id], 'options'));
            case 'change-package':
                $settings = $this->settings($id);
                return $module->apply_updowngrade($this->isProduct ? ['module_data' => json_encode($settings)] : ['creation_info' => $settings]);
            case 'change-password':
                return $module->change_password($with['password'] ?? '');
            default:
                return self::printed($module, "use_adminArea_$operation")[0] === true;
        }
    }

    /** @return array<string, mixed> */
    private function settings(string $id): array
    {
        return Read::map(Read::map($this->orders[$id], 'options'), 'creation_info');
    }
}
