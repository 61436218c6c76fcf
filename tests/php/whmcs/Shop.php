<?php

declare(strict_types=1);

namespace Provisor\Tests\Whmcs;

use PHPUnit\Framework\Assert;
use Provisor\Read;
use Provisor\Tests\Panel;
use Provisor\Tests\Result;
use RuntimeException;
use WHMCS\Database\Capsule;
use WHMCS\Service\Service;

/** A WHMCS with our module: its tables, the parameters it gives to functions, and what it makes of their answers. */
final class Shop implements Panel
{
    private const FUNCTIONS = [
        'create' => 'CreateAccount',
        'suspend' => 'SuspendAccount',
        'unsuspend' => 'UnsuspendAccount',
        'terminate' => 'TerminateAccount',
        'renew' => 'Renew',
        'change-password' => 'ChangePassword',
        'change-package' => 'ChangePackage',
    ];
    private const STATUS = ['create' => 'Active', 'suspend' => 'Suspended', 'unsuspend' => 'Active', 'terminate' => 'Terminated'];

    /** @var list<array<mixed>> what went to the module log */
    public static array $log = [];
    /** @var array<string, list<callable>> */
    public static array $hooks = [];
    /** @var list<array{string, array<string, mixed>}> */
    public static array $calls = [];
    private static ?self $current = null;
    private static int $lastId = 0;

    /** @var array<int, array<string, mixed>> parameters of each service */
    private array $services = [];

    public function __construct()
    {
        self::$current = $this;
        self::$log = self::$calls = [];
        $_SESSION = [];
        Capsule::$tables = [
            'tblservers' => [],
            'tblhosting' => [],
            'tblhostingaddons' => [],
            'tblinvoices' => [],
            'tblinvoiceitems' => [],
            'tblconfiguration' => [['setting' => 'SystemURL', 'value' => 'https://shop.example/']],
        ];
    }

    public function connect(string $address, string $token): void
    {
        $parts = (array) parse_url($address);
        Capsule::$tables['tblservers'] = [[
            'id' => 1,
            'type' => 'provisor',
            'disabled' => 0,
            'hostname' => $parts['host'] ?? '',
            'ipaddress' => '',
            'port' => (string) ($parts['port'] ?? ''),
            'secure' => '',
            'password' => "encrypted:$token",
            'accesshash' => '',
        ]];
    }

    public function order(array $order): string
    {
        // Other processes' services must not have the same number: they may ask the same gateway.
        $id = self::$lastId === 0 ? random_int(1, 1 << 30) : self::$lastId + 1;
        self::$lastId = $id;
        Capsule::$tables['tblhosting'][] = [
            'id' => $id,
            'server' => 1,
            'domainstatus' => 'Pending',
            'regdate' => '2026-12-15',
            'nextduedate' => '2027-01-15',
        ];
        $this->services[$id] = [
            'serviceid' => $id,
            'userid' => 7,
            'pid' => 3,
            'addonId' => 0,
            'domain' => $order['domain'] ?? '',
            'username' => 'custom',
            'password' => $order['password'] ?? '',
            'producttype' => 'other',
            'moduletype' => 'provisor',
            'configoption1' => $order['profile'],
            'configoption2' => $order['plan'],
            'configoption3' => '',
            'configoption4' => (string) ($order['wait'] ?? ''),
            'configoption5' => '',
            'clientsdetails' => ['email' => $order['email'] ?? '', 'firstname' => 'Ünï', 'lastname' => '<b>"quoted"</b>'],
            'customfields' => [],
            'configoptions' => $order['options'] ?? [],
            'model' => new Service(),
        ];
        return (string) $id;
    }

    public function amend(string $id, array $order): void
    {
        $this->set($id, array_filter(['configoption2' => $order['plan'] ?? null, 'domain' => $order['domain'] ?? null]));
    }

    public function key(string $id): string
    {
        return "service-$id";
    }

    public function call(string $id, string $operation, array $with = []): Result
    {
        $function = self::FUNCTIONS[$operation] ?? $operation;
        if (isset($with['due_at'])) {
            $this->pay($id, $with['due_at']);
        }
        $more = array_filter(['suspendreason' => $with['reason'] ?? null, 'password' => $with['password'] ?? null]);
        $text = self::module($function, $more + $this->params($id));
        Assert::assertIsString($text, "$function answers a string");
        if ($text === 'success') {
            $this->setStatus($id, self::STATUS[$operation] ?? null);
            return new Result(true);
        }
        if ($operation === 'reinstall') {
            // The first press only asks.
            $text = self::module($function, $this->params($id));
            Assert::assertIsString($text);
        }
        return new Result($text === 'success', $text);
    }

    public function callAsCustomer(string $id, string $operation, array $with = []): Result
    {
        $answer = $this->asCustomer($id, self::FUNCTIONS[$operation] ?? $operation, $with);
        Assert::assertIsString($answer['result']);
        return new Result($answer['result'] === 'success', $answer['result']);
    }

    /**
     * A function called in the client area: a process of its own, since WHMCS says where it is with a constant.
     *
     * @param array<string, mixed> $more parameters
     * @param array<string, mixed> $post
     * @return array{result: mixed, session: mixed}
     */
    public function asCustomer(string $id, string $function, array $more = [], array $post = []): array
    {
        $params = $more + $this->params($id);
        unset($params['model']);
        $asked = ['function' => $function, 'params' => $params, 'post' => $post, 'session' => $_SESSION, 'tables' => Capsule::$tables];
        $process = proc_open([PHP_BINARY, __DIR__ . '/customer.php'], [['pipe', 'r'], ['pipe', 'w'], ['pipe', 'w']], $pipes);
        if (!is_resource($process)) {
            throw new RuntimeException('cannot start customer.php');
        }
        /** @var array{resource, resource, resource} $pipes */
        fwrite($pipes[0], (string) json_encode($asked));
        fclose($pipes[0]);
        $output = (string) stream_get_contents($pipes[1]);
        Assert::assertSame('', stream_get_contents($pipes[2]), 'no notice, no warning');
        Assert::assertSame(0, proc_close($process), $output);
        $answer = Read::named(json_decode($output, true));
        $_SESSION = Read::map($answer, 'session');
        foreach (Read::maps($answer, 'log') as $line) {
            self::$log[] = $line;
        }
        return ['result' => $answer['result'] ?? null, 'session' => $answer['session'] ?? null];
    }

    public function offers(string $id): array
    {
        $buttons = self::module('AdminCustomButtonArray', $this->params($id));
        Assert::assertIsArray($buttons);
        $offers = array_values(array_filter($buttons, 'is_string'));
        $defined = get_defined_functions()['user'];
        foreach (self::FUNCTIONS as $operation => $function) {
            if (in_array(strtolower("provisor_$function"), $defined, true)) {
                $offers[] = $operation;
            }
        }
        return $offers;
    }

    public function lacks(): array
    {
        return [];
    }

    public function isActive(string $id): bool
    {
        return Read::text($this->row($id), 'domainstatus') === 'Active';
    }

    public function shown(string $id): string
    {
        $params = $this->params($id);
        $lists = [self::module('profiles', $params), self::module('plans', $params), self::module('terms', $params), self::module('ConfigOptions', $params)];
        return print_r(array_merge($lists, [self::module('AdminServicesTabFields', $params)]), true);
    }

    public function written(): string
    {
        $properties = array_map(static function (array $params): array {
            return $params['model'] instanceof Service ? $params['model']->serviceProperties->values : [];
        }, $this->services);
        // Calls of WHMCS's own API that decrypt the token are its own.
        $calls = array_filter(self::$calls, static function (array $call): bool {
            return $call[0] !== 'DecryptPassword';
        });
        return print_r([self::$log, $properties, $calls, $_SESSION], true);
    }

    /**
     * The parameters that WHMCS gives to a function of a service.
     *
     * @return array<string, mixed>
     */
    public function params(string $id): array
    {
        return $this->services[(int) $id] + ['status' => Read::text($this->row($id), 'domainstatus')] + self::server();
    }

    /**
     * The parameters of a function of a server.
     *
     * @return array<string, mixed>
     */
    public static function server(): array
    {
        $row = Capsule::$tables['tblservers'][0] ?? [];
        return [
            'server' => true,
            'serverid' => 1,
            'serverip' => '',
            'serverhostname' => Read::text($row, 'hostname'),
            'serverusername' => '',
            'serverpassword' => substr(Read::text($row, 'password'), strlen('encrypted:')),
            'serveraccesshash' => '',
            'serversecure' => false,
            'serverport' => Read::text($row, 'port'),
        ];
    }

    /** @param array<string, mixed> $params */
    public function set(string $id, array $params): void
    {
        $this->services[(int) $id] = $params + $this->services[(int) $id];
    }

    public function property(string $id, string $name): string
    {
        $model = $this->services[(int) $id]['model'];
        return $model instanceof Service ? Read::text($model->serviceProperties->values, $name) : '';
    }

    /**
     * @param array<mixed> $params
     * @return mixed
     */
    public static function module(string $function, array $params)
    {
        $name = "provisor_$function";
        Assert::assertTrue(is_callable($name), "$name exists");
        return $name($params);
    }

    public static function hook(string $point): void
    {
        foreach (self::$hooks[$point] ?? [] as $hook) {
            $hook([]);
        }
    }

    /**
     * @param array<string, mixed> $values
     * @return array<string, mixed>
     */
    public static function api(string $command, array $values): array
    {
        self::$calls[] = [$command, $values];
        if ($command === 'DecryptPassword') {
            return ['result' => 'success', 'password' => substr(Read::text($values, 'password2'), strlen('encrypted:'))];
        }
        if ($command === 'ModuleCreate' && self::$current !== null) {
            return ['result' => self::$current->call(Read::text($values, 'serviceid'), 'create')->isSuccess ? 'success' : 'error'];
        }
        return ['result' => 'success'];
    }

    /** An invoice for the term from this date on is paid: WHMCS moves the due date on before it calls the module. */
    public function pay(string $id, string $date, string $status = 'Paid'): void
    {
        foreach (Capsule::$tables['tblinvoiceitems'] as $item) {
            if (Read::text($item, 'relid') === $id && Read::text($item, 'duedate') === $date) {
                return;
            }
        }
        $invoice = count(Capsule::$tables['tblinvoices']) + 1;
        Capsule::$tables['tblinvoices'][] = ['id' => $invoice, 'status' => $status];
        Capsule::$tables['tblinvoiceitems'][] = ['invoiceid' => $invoice, 'type' => 'Hosting', 'relid' => (int) $id, 'duedate' => $date];
        if ($status === 'Paid') {
            $this->setRow($id, ['nextduedate' => date('Y-m-d', (int) strtotime("$date +1 month"))]);
        }
    }

    private function setStatus(string $id, ?string $status): void
    {
        if ($status !== null) {
            $this->setRow($id, ['domainstatus' => $status]);
        }
    }

    /** @param array<string, mixed> $values */
    public function setRow(string $id, array $values): void
    {
        foreach (Capsule::$tables['tblhosting'] as $number => $row) {
            if (Read::text($row, 'id') === $id) {
                Capsule::$tables['tblhosting'][$number] = $values + $row;
            }
        }
    }

    /** @return array<string, mixed> */
    private function row(string $id): array
    {
        return Read::named((array) Capsule::table('tblhosting')->where('id', $id)->first());
    }
}
