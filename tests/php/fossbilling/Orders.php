<?php

declare(strict_types=1);

namespace Provisor\Tests\Fossbilling;

use Box\Mod\Order\Entity\Order;
use Box\Mod\Serviceprovisor\Api;
use Box\Mod\Serviceprovisor\Service;
use Doctrine\DBAL\Connection;
use FOSSBilling\Logger;
use Pimple\Container;
use Provisor\Read;
use Provisor\Tests\Panel;
use Provisor\Tests\Result;

/** FOSSBilling with the service module, as its order service drives it: newer versions with entities and arrays, 0.8 with plain objects. */
final class Orders implements Panel
{
    public Service $service;
    public Container $container;
    private Connection $db;
    private Logger $logger;
    private bool $isOld;
    /** @var array<string, string> */
    private array $settings = [];
    private string $history = '';
    private int $last = 0;
    private static int $orders = 0;

    public function __construct(bool $isOld = false)
    {
        $this->isOld = $isOld;
        \FOSSBilling\Exception::$traces = [];
        $this->db = new Connection();
        $this->logger = new Logger();
        $this->container = new Container([
            'dbal' => $this->db,
            'logger' => $this->logger,
            'mod_config' => function (string $name): array {
                return ['ext' => "mod_$name"] + $this->settings;
            },
            'mod_service' => static function (string $name): object {
                return new class () {
                    public function checkPermissionsAndThrowException(string $module, string $key): void
                    {
                        if ([$module, $key] !== ['serviceprovisor', 'manage']) {
                            throw new \FOSSBilling\Exception("no permission $key of $module");
                        }
                    }

                    /** @return array<string, mixed> */
                    public function getForm(int $id): array
                    {
                        return ['fields' => [['name' => 'domain', 'label' => 'Domain', 'required' => '1']]];
                    }
                };
            },
        ]);
        $this->service = new Service();
        $this->service->setDi($this->container);
        $this->db->executeStatement('CREATE TABLE client (id INTEGER, email TEXT)');
        $this->db->executeStatement(
            'CREATE TABLE client_order (id INTEGER, client_id INTEGER, service_id INTEGER, service_type TEXT, status TEXT, config TEXT, expires_at TEXT)'
        );
        $this->service->install();
        $this->service->install();
    }

    public function connect(string $address, string $token): void
    {
        // As FOSSBilling itself refuses it for a module that does not name this permission, whoever asks.
        if (!array_key_exists('manage_settings', $this->service->getModulePermissions())) {
            throw new \LogicException('nobody may save the settings');
        }
        $this->settings = ['address' => $address, 'token' => $token];
    }

    public function order(array $order): string
    {
        // One number for all tests, since they share a gateway.
        $this->last = ++self::$orders;
        $product = ['wait' => (string) ($order['wait'] ?? 25)] + array_intersect_key($order, array_flip(['profile', 'plan', 'options']));
        $asked = array_intersect_key($order, array_flip(['domain', 'password']));
        $config = $this->service->attachOrderConfig((object) ['config' => json_encode($product)], $asked);
        $this->db->executeStatement('INSERT INTO client VALUES (:id, :email)', ['id' => $this->last, 'email' => $order['email'] ?? '']);
        $this->db->executeStatement(
            "INSERT INTO client_order VALUES (:id, :id, NULL, 'provisor', 'pending_setup', :config, NULL)",
            ['id' => $this->last, 'config' => json_encode($config)]
        );
        return (string) $this->last;
    }

    public function amend(string $id, array $order): void
    {
        $config = $order + Read::named(json_decode(Read::text($this->row($id), 'config'), true));
        $this->set($id, 'config', (string) json_encode($config));
    }

    public function key(string $id): string
    {
        return "order-$id";
    }

    public function call(string $id, string $operation, array $with = []): Result
    {
        try {
            $this->act($id, $operation, $with);
            return new Result(true);
        } catch (\FOSSBilling\Exception $error) {
            $this->history .= $error->getMessage() . "\n";
            return new Result(false, $error->getMessage());
        }
    }

    public function callAsCustomer(string $id, string $operation, array $with = []): Result
    {
        try {
            if ($operation === 'change-password') {
                $password = $with['password'] ?? '';
                $this->api($id)->change_password(['order_id' => $id, 'password' => $password, 'password_confirm' => $password]);
            } else {
                $this->api($id)->power(['order_id' => $id, 'action' => $operation]);
            }
            return new Result(true);
        } catch (\FOSSBilling\Exception $error) {
            return new Result(false, $error->getMessage());
        }
    }

    public function offers(string $id): array
    {
        return array_merge(['suspend', 'unsuspend', 'terminate', 'renew', 'change-package'], $this->service->page($this->service->findOrder((int) $id), false)['offers']);
    }

    public function lacks(): array
    {
        return [];
    }

    public function isActive(string $id): bool
    {
        return Read::text($this->row($id), 'status') === 'active';
    }

    public function shown(string $id): string
    {
        $profile = Read::text(Read::named(json_decode(Read::text($this->row($id), 'config'), true)), 'profile');
        return print_r([$this->staff()->get_profiles(), $this->staff()->get_plans(['profile' => $profile])], true);
    }

    public function written(): string
    {
        $rows = '';
        for ($id = 1; $id <= $this->last; $id++) {
            $row = $this->db->fetchAssociative('SELECT * FROM service_provisor WHERE id = :id', ['id' => $id]);
            $rows .= json_encode($row === false ? [] : $this->service->toApiArray($row)) . "\n";
        }
        return $this->logger->written . $this->history . $rows . implode("\n", \FOSSBilling\Exception::$traces);
    }

    /** The API of the customer to whom an order belongs, or of another one. */
    public function api(string $client): Api\Client
    {
        $api = new Api\Client();
        $api->setDi($this->container);
        $api->setService($this->service);
        $api->setIdentity($this->isOld ? (object) ['id' => (int) $client] : new class ((int) $client) {
            private int $id;

            public function __construct(int $id)
            {
                $this->id = $id;
            }

            public function getId(): int
            {
                return $this->id;
            }
        });
        return $api;
    }

    public function staff(): Api\Admin
    {
        $api = new Api\Admin();
        $api->setDi($this->container);
        $api->setService($this->service);
        return $api;
    }

    public function set(string $id, string $column, ?string $value): void
    {
        $this->db->executeStatement("UPDATE client_order SET $column = :value WHERE id = :id", ['value' => $value, 'id' => $id]);
    }

    /** @return array<string, mixed> */
    public function row(string $id): array
    {
        $row = $this->db->fetchAssociative('SELECT * FROM client_order WHERE id = :id', ['id' => $id]);
        return $row === false ? [] : $row;
    }

    /** An order as this version of FOSSBilling hands it over. */
    public function object(string $id): object
    {
        return $this->isOld ? (object) $this->row($id) : new Order($this->row($id));
    }

    /** @param array<string, string> $with */
    private function act(string $id, string $operation, array $with): void
    {
        switch ($operation) {
            case 'create':
                $this->activate($id);
                break;
            case 'suspend':
            case 'unsuspend':
                self::assertTrue($this->onService($id, $operation));
                $this->set($id, 'status', $operation === 'suspend' ? 'suspended' : 'active');
                break;
            case 'terminate':
                self::assertTrue($this->onService($id, 'cancel'));
                $this->set($id, 'status', 'canceled');
                break;
            case 'renew':
                $this->set($id, 'expires_at', ($with['due_at'] ?? '') . ' 00:00:00');
                $this->renew($id);
                $this->set($id, 'expires_at', null);
                break;
            case 'change-package':
                $plan = Read::text(Read::named(json_decode(Read::text($this->row($id), 'config'), true)), 'plan');
                $this->staff()->change_plan(['order_id' => $id, 'plan' => $plan]);
                break;
            case 'change-password':
                $this->staff()->change_password(['order_id' => $id, 'password' => $with['password'] ?? '']);
                break;
            default:
                $this->staff()->power(['order_id' => $id, 'action' => $operation]);
        }
    }

    /** As createFromOrder() and uncancelFromOrder() do it. */
    private function activate(string $id): void
    {
        if (Read::text($this->row($id), 'status') === 'canceled') {
            self::assertTrue($this->onService($id, 'uncancel'));
            $this->set($id, 'status', 'active');
            return;
        }
        // A third-party module's row is no object in newer versions, so that create is called with each activation.
        $service = $this->onService($id, 'create');
        if (!is_object($service)) {
            throw new \LogicException('create() returned no object');
        }
        $this->set($id, 'service_id', Read::text(get_object_vars($service), 'id'));
        try {
            self::assertTrue($this->onService($id, 'activate'));
            $this->set($id, 'status', 'active');
        } catch (\FOSSBilling\Exception $error) {
            $this->set($id, 'status', 'failed_setup');
            throw $error;
        }
    }

    /** As renewFromOrder() does it. */
    private function renew(string $id): void
    {
        try {
            self::assertTrue($this->onService($id, 'renew'));
        } catch (\FOSSBilling\Exception $error) {
            $this->set($id, 'status', 'failed_renew');
            throw $error;
        }
        $this->set($id, 'status', 'active');
    }

    /** @return mixed */
    private function onService(string $id, string $action)
    {
        $row = $this->db->fetchAssociative('SELECT * FROM service_provisor WHERE id = :id', ['id' => Read::text($this->row($id), 'service_id')]);
        $none = Read::text($this->row($id), 'service_id') === '' ? null : $row;
        /** @var callable $method */
        $method = [$this->service, $action];
        return $method($this->object($id), $this->isOld && is_array($none) ? (object) $none : $none);
    }

    /** @param mixed $value */
    private static function assertTrue($value): void
    {
        if ($value !== true) {
            throw new \LogicException('a module answers true, or throws');
        }
    }
}
