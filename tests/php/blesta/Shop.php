<?php

declare(strict_types=1);

namespace Provisor\Tests\Blesta;

use Provisor\Read;
use Provisor\Tests\Panel;
use Provisor\Tests\Result;
use stdClass;

/** Blesta with the module, as its service model and its pages drive it: a new module object for each call. */
final class Shop implements Panel
{
    public string $written = '';
    /** @var array<stdClass> */
    public array $services = [];
    /** @var array<array<string, string>> the settings of each one's package */
    public array $settings = [];
    private string $address = '';
    private string $token = '';

    public function connect(string $address, string $token): void
    {
        [$this->address, $this->token] = [$address, $token];
    }

    public function order(array $order): string
    {
        $id = (string) (count($this->services) + 1);
        $this->settings[$id] = ['profile' => $order['profile'], 'plan' => $order['plan'], 'option_quantity' => '', 'test_wait' => (string) ($order['wait'] ?? 25)];
        \Loader::$clients[(int) $id] = (object) ['id' => (int) $id, 'email' => $order['email'] ?? ''];
        $vars = ['client_id' => $id, 'use_module' => 'false', 'provisor_key' => 'blesta-' . str_repeat('0', 32)] + array_filter(['domain' => $order['domain'] ?? '']);
        $this->services[$id] = (object) ['id' => (int) $id, 'client_id' => (int) $id, 'status' => 'pending', 'fields' => [], 'options' => []];
        $module = $this->module($id);
        // What markup and length the customer sent is refused before it is stored.
        $stored = $module->addService($this->package($id), $vars, null, null, 'pending');
        $this->store($id, $stored ?? []);
        $this->services[$id]->vars = $stored === null ? $vars : [];
        return $id;
    }

    public function amend(string $id, array $order): void
    {
        if (isset($order['plan'])) {
            $this->settings[$id]['plan'] = $order['plan'];
        }
    }

    public function key(string $id): string
    {
        return Read::text($this->fields($id), 'provisor_key', "service-$id");
    }

    public function call(string $id, string $operation, array $with = []): Result
    {
        $module = $this->module($id);
        $service = $this->services[$id];
        $package = $this->package($id);
        $null = null;
        switch ($operation) {
            case 'create':
                $vars = ['use_module' => 'true', 'client_id' => $id] + (array) $service->vars + $this->fields($id);
                $meta = $module->addService($package, $vars, null, null, 'active');
                if (($meta === null) !== is_array($module->Input->errors())) {
                    throw new \LogicException('fields to be stored, or errors');
                }
                $this->store($id, $meta ?? []);
                break;
            case 'suspend':
                $service->suspension_reason = $with['reason'] ?? null;
                $null = $module->suspendService($package, $service);
                break;
            case 'unsuspend':
                $null = $module->unsuspendService($package, $service);
                break;
            case 'terminate':
                $null = $module->cancelService($package, $service);
                break;
            case 'renew':
                $service->date_renews = ($with['due_at'] ?? '') . ' 00:00:00';
                $null = $module->renewService($package, $service);
                break;
            case 'change-package':
                $null = $module->changeServicePackage($package, $package, $service);
                break;
            case 'change-password':
                $null = $module->editService($package, $service, ['use_module' => 'true', 'provisor_password' => $with['password'] ?? '']);
                break;
            default:
                $module->tabService($package, $service, [], ['provisor_action' => $operation, 'provisor_sure' => 'true']);
        }
        if ($null !== null) {
            throw new \LogicException("$operation keeps the fields");
        }
        return $this->result($id, $operation, $module);
    }

    public function callAsCustomer(string $id, string $operation, array $with = []): Result
    {
        $module = $this->module($id);
        $post = ['provisor_action' => $operation, 'provisor_password' => $with['password'] ?? ''];
        $html = $module->tabClientService($this->package($id), $this->services[$id], [], $post);
        $errors = $module->Input->errors();
        return new Result($errors === false, $errors === false ? '' : self::firstOf($errors) . $html);
    }

    public function offers(string $id): array
    {
        $html = $this->module($id)->tabService($this->package($id), $this->services[$id]);
        preg_match_all('/name="provisor_action" value="([a-z-]+)"/', $html, $found);
        return array_merge(['suspend', 'unsuspend', 'terminate', 'renew', 'change-package'], $found[1]);
    }

    public function lacks(): array
    {
        return [];
    }

    public function isActive(string $id): bool
    {
        return $this->services[$id]->status === 'active';
    }

    public function shown(string $id): string
    {
        $fields = $this->module($id)->getPackageFields((object) ['module_row' => 1, 'meta' => (object) $this->settings[$id]])->all();
        $tab = $this->module($id)->tabService($this->package($id), $this->services[$id]);
        return $tab . print_r(array_column($fields, 'options', 'name'), true);
    }

    public function written(): string
    {
        return $this->written . print_r(array_column($this->services, 'fields'), true);
    }

    public function package(string $id): stdClass
    {
        return (object) ['id' => 1, 'module_row' => 1, 'module_group' => null, 'meta' => (object) $this->settings[$id]];
    }

    public function module(string $id): \Provisor
    {
        $module = new \Provisor();
        $wait = $this->settings[$id]['test_wait'] ?? '25';
        $meta = (object) ['address' => $this->address, 'token' => $this->token, 'wait' => $wait];
        $module->rows = [1 => (object) ['id' => 1, 'meta' => $meta]];
        return $module;
    }

    /** @return array<string, mixed> */
    public function fields(string $id): array
    {
        return Read::properties(['fields' => array_map(static function ($field): array {
            $field = Read::named((array) $field);
            return ['name' => $field['key'] ?? '', 'value' => $field['value'] ?? ''];
        }, (array) $this->services[$id]->fields)], 'fields');
    }

    /** @param list<array{key: string, value: string, encrypted: int}> $meta */
    private function store(string $id, array $meta): void
    {
        if ($meta !== []) {
            $this->services[$id]->fields = array_map(static function (array $field): stdClass {
                return (object) $field;
            }, $meta);
        }
    }

    private function result(string $id, string $operation, \Provisor $module): Result
    {
        $this->written .= $module->written;
        $errors = $module->Input->errors();
        if ($errors !== false) {
            return new Result(false, self::firstOf($errors));
        }
        $states = ['create' => 'active', 'suspend' => 'suspended', 'unsuspend' => 'active', 'terminate' => 'canceled'];
        $this->services[$id]->status = $states[$operation] ?? $this->services[$id]->status;
        return new Result(true);
    }

    /** @param array<string, array<string, string>> $errors */
    private static function firstOf(array $errors): string
    {
        $first = reset($errors);
        return $first === false ? '' : (string) reset($first);
    }
}
