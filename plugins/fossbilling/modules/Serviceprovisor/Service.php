<?php

declare(strict_types=1);

namespace Box\Mod\Serviceprovisor;

use Provisor\Description;
use Provisor\Gateway;
use Provisor\Problem;
use Provisor\Read;
use Provisor\Service as Remote;

require_once __DIR__ . '/load.php';

/**
 * The product type "provisor". FOSSBilling calls what stands below for an order, by the names of its own actions; what returns was done,
 * and an exception makes the order a failed one that its cron tries again.
 *
 * Orders are objects with getters in newer versions and with properties in 0.8: both are read.
 */
class Service implements \FOSSBilling\InjectionAwareInterface
{
    /** What only the product may say; a customer's order is not asked. */
    private const PRODUCT_KEYS = ['profile', 'plan', 'term', 'options', 'email', 'wait', 'customer_fields', 'customer_may_reinstall', 'import_id'];
    /** The customer's own answers that are taken where the product does not say which. */
    private const CUSTOMER_FIELDS = 'domain,hostname';

    protected ?\Pimple\Container $di = null;

    public function setDi(\Pimple\Container $di): void
    {
        $this->di = $di;
    }

    public function getDi(): ?\Pimple\Container
    {
        return $this->di;
    }

    /** @return array<string, array<string, string>> */
    public function getModulePermissions(): array
    {
        return [
            'manage' => [
                'type' => 'bool',
                'display_name' => 'Manage services of Provisor',
                'description' => 'Allows the staff member to start, stop, reinstall and change services.',
            ],
            // Without this one FOSSBilling lets nobody save the module's settings. Its texts are FOSSBilling's own.
            'manage_settings' => [],
        ];
    }

    /** One row for each order, under the order's own number: a repeated activation finds it, and none is made twice. */
    public function install(): bool
    {
        $this->db()->executeStatement(
            'CREATE TABLE IF NOT EXISTS service_provisor (
                id BIGINT NOT NULL PRIMARY KEY,
                client_id BIGINT NOT NULL,
                profile VARCHAR(255) DEFAULT NULL,
                remote_id VARCHAR(255) DEFAULT NULL,
                created_at DATETIME DEFAULT NULL,
                updated_at DATETIME DEFAULT NULL
            )'
        );
        return true;
    }

    /** The services stay at their providers, and the gateway goes on knowing them. */
    public function uninstall(): bool
    {
        $this->db()->executeStatement('DROP TABLE IF EXISTS service_provisor');
        return true;
    }

    /**
     * What of a customer's order becomes the order's configuration: all but what the product decides.
     *
     * @param object       $product
     * @param array<mixed> $data
     * @return array<mixed>
     */
    public function attachOrderConfig($product, array $data): array
    {
        $config = Read::named(json_decode((string) self::value($product, 'config'), true));
        return array_merge(array_diff_key($data, array_flip(self::PRODUCT_KEYS)), $config);
    }

    /**
     * @param array<mixed> $data
     * @throws \FOSSBilling\InformationException
     */
    public function validateOrderData(array &$data): bool
    {
        $domain = Read::text($data, 'domain');
        // Letters of any script: the gateway turns them into what the provider takes.
        if ($domain !== '' && preg_match('/^[^\s\/:@<>"\'.][^\s\/:@<>"\']{0,251}\.[^\s\/:@<>"\'.]{2,63}$/Du', $domain) !== 1) {
            throw new \FOSSBilling\InformationException('The domain must be like example.com.');
        }
        return true;
    }

    /**
     * @param array<mixed> $data
     * @param array<mixed> $product
     * @throws \FOSSBilling\InformationException
     */
    public function validateCustomForm(array &$data, array $product): void
    {
        $id = (int) Read::text($product, 'form_id');
        $forms = $id > 0 ? $this->module('formbuilder') : null;
        if ($forms === null || !method_exists($forms, 'getForm')) {
            return;
        }
        foreach (Read::maps(Read::named($forms->getForm($id)), 'fields') as $field) {
            $isRequired = in_array(Read::text($field, 'required'), ['1', 'true'], true);
            if ($isRequired && trim(Read::text($data, Read::text($field, 'name'))) === '') {
                throw new \FOSSBilling\InformationException(':label is missing.', [':label' => Read::text($field, 'label')]);
            }
        }
    }

    /**
     * The row of an order, a new one or the one that is there: FOSSBilling asks again with every activation.
     *
     * @param object $order
     */
    public function create($order): \stdClass
    {
        $id = (int) self::value($order, 'id');
        if ($this->db()->fetchAssociative('SELECT id FROM service_provisor WHERE id = :id', ['id' => $id]) === false) {
            $this->db()->executeStatement(
                'INSERT INTO service_provisor (id, client_id, created_at, updated_at) VALUES (:id, :client, :now, :now)',
                ['id' => $id, 'client' => (int) self::value($order, 'client_id'), 'now' => self::now()]
            );
        }
        return (object) ['id' => $id];
    }

    /**
     * @param object $order
     * @param mixed  $row   what FOSSBilling read of our table; not needed
     * @throws \FOSSBilling\Exception
     */
    public function activate($order, $row = null): bool
    {
        $this->attempt($order, 'activation', function () use ($order): void {
            $config = $this->config($order);
            $import = Read::text($config, 'import_id');
            $remote = $this->remote($order);
            $service = $import !== ''
                ? $remote->adopt(Read::text($config, 'profile'), $import)
                : $remote->create($this->wishes($order, $config));
            $this->remember($order, $service);
        });
        return true;
    }

    /**
     * @param object $order
     * @param mixed  $row
     * @throws \FOSSBilling\Exception
     */
    public function renew($order, $row = null): bool
    {
        $this->attempt($order, 'renewal', function () use ($order): void {
            // FOSSBilling moves the date on only after this has returned.
            $this->remote($order)->renew((string) substr((string) self::value($order, 'expires_at'), 0, 10));
        });
        return true;
    }

    /**
     * @param object $order
     * @param mixed  $row
     * @throws \FOSSBilling\Exception
     */
    public function suspend($order, $row = null): bool
    {
        $this->attempt($order, 'suspension', function () use ($order): void {
            // FOSSBilling does not hand on a reason to modules such as this one.
            $this->remote($order)->suspend();
        });
        return true;
    }

    /**
     * @param object $order
     * @param mixed  $row
     * @throws \FOSSBilling\Exception
     */
    public function unsuspend($order, $row = null): bool
    {
        $this->attempt($order, 'unsuspension', function () use ($order): void {
            $this->remote($order)->unsuspend();
        });
        return true;
    }

    /**
     * @param object $order
     * @param mixed  $row
     * @throws \FOSSBilling\Exception
     */
    public function cancel($order, $row = null): bool
    {
        $this->attempt($order, 'cancellation', function () use ($order): void {
            $this->remote($order)->terminate();
        });
        return true;
    }

    /**
     * A new service: what was cancelled is gone.
     *
     * @param object $order
     * @param mixed  $row
     * @throws \FOSSBilling\Exception
     */
    public function uncancel($order, $row = null): bool
    {
        $this->create($order);
        return $this->activate($order);
    }

    /**
     * @param object $order
     * @param mixed  $row
     * @throws \FOSSBilling\Exception
     */
    public function delete($order, $row = null): bool
    {
        $this->attempt($order, 'deletion', function () use ($order): void {
            try {
                $this->remote($order)->terminate();
            } catch (Problem $problem) {
                // An order that was never activated has nothing to be ended.
                if ($problem->status() !== 404) {
                    throw $problem;
                }
            }
            $this->db()->executeStatement('DELETE FROM service_provisor WHERE id = :id', ['id' => (int) self::value($order, 'id')]);
        });
        return true;
    }

    /**
     * @param mixed $row      of our table: an array in newer versions, an object in 0.8
     * @param mixed $identity
     * @return array<string, mixed>
     */
    public function toApiArray($row, bool $deep = false, $identity = null): array
    {
        $shown = [];
        foreach (['id', 'client_id', 'profile', 'remote_id', 'created_at', 'updated_at'] as $name) {
            $shown[$name] = is_array($row) ? ($row[$name] ?? null) : self::value((object) $row, $name);
        }
        return $shown;
    }

    /**
     * What a page about an order shows; never an exception, so that the page appears also without the gateway.
     *
     * @param object $order
     * @return array{rows: array<string, string>, offers: list<string>, labels: array<string, string>, problem: string}
     */
    public function page($order, bool $isForCustomer): array
    {
        try {
            $remote = $this->remote($order);
            $service = $remote->view();
            $offers = $remote->offers($service, $isForCustomer, $this->mayCustomerReinstall($order));
            $labels = [];
            foreach ($offers as $offer) {
                $labels[$offer] = Remote::label($offer);
            }
            return ['rows' => Remote::rows($service, $isForCustomer), 'offers' => $offers, 'labels' => $labels, 'problem' => ''];
        } catch (Problem $problem) {
            $text = $problem->status() === 404 ? 'Nothing has been made yet.' : self::text($problem, $isForCustomer);
            return ['rows' => [], 'offers' => [], 'labels' => [], 'problem' => $text];
        }
    }

    /**
     * A power action.
     *
     * @param object $order
     * @throws \FOSSBilling\Exception
     */
    public function power($order, string $action, bool $isForCustomer): bool
    {
        if (!in_array($action, Description::POWER_ACTIONS, true) || ($isForCustomer && $action === 'reinstall' && !$this->mayCustomerReinstall($order))) {
            throw new \FOSSBilling\InformationException('There is no such action.');
        }
        $this->attempt($order, $action, function () use ($order, $action): void {
            $this->remote($order)->power($action);
        }, $isForCustomer);
        return true;
    }

    /**
     * @param object $order
     * @throws \FOSSBilling\Exception
     */
    public function changePassword(
        $order,
        #[\SensitiveParameter]
        string $password,
        bool $isForCustomer
    ): bool {
        $this->attempt($order, 'password change', function () use ($order, $password): void {
            $this->remote($order)->resetPassword($password);
        }, $isForCustomer);
        return true;
    }

    /**
     * Another plan, of the same profile; kept in the order once it is done.
     *
     * @param object $order
     * @throws \FOSSBilling\Exception
     */
    public function changePlan($order, string $plan): bool
    {
        $this->attempt($order, 'change of plan', function () use ($order, $plan): void {
            $this->remote($order)->changePackage($plan);
            $config = ['plan' => $plan] + $this->config($order);
            $this->db()->executeStatement(
                'UPDATE client_order SET config = :config WHERE id = :id',
                ['config' => json_encode($config), 'id' => (int) self::value($order, 'id')]
            );
        });
        return true;
    }

    /**
     * A page of its own: one that logs the reader in at the provider (`sign-on`), or says how to (`access`).
     *
     * @param object $order
     * @throws \FOSSBilling\Exception
     */
    public function secretPage($order, string $what, bool $isForCustomer): string
    {
        $page = '';
        $this->attempt($order, $what, function () use ($order, $what, $isForCustomer, &$page): void {
            $page = $this->remote($order)->page($what, $isForCustomer);
        }, $isForCustomer);
        return $page;
    }

    /**
     * The profiles to choose from, by name.
     *
     * @return array<string, string>
     * @throws \FOSSBilling\Exception
     */
    public function profiles(): array
    {
        $profiles = [];
        foreach ((new Description($this->ask('describe', 'fossbilling')))->profiles() as $name => $provider) {
            $profiles[$name] = Remote::caption("$name ($provider)");
        }
        return $profiles;
    }

    /**
     * The plans of a profile, by id.
     *
     * @return array<string, string>
     * @throws \FOSSBilling\Exception
     */
    public function plans(string $profile): array
    {
        $plans = [];
        foreach (Read::maps($this->ask('catalog', $profile), 'plans') as $plan) {
            $plans[Read::text($plan, 'id')] = Remote::caption(Read::text($plan, 'name', Read::text($plan, 'id')));
        }
        return $plans;
    }

    /**
     * What an order of a profile takes.
     *
     * @return list<array<string, mixed>>
     * @throws \FOSSBilling\Exception
     */
    public function fields(string $profile): array
    {
        return (new Description($this->ask('describe', 'fossbilling')))->orderFields($profile);
    }

    /**
     * Whether the gateway answers and the provider accepts the profile.
     *
     * @throws \FOSSBilling\Exception
     */
    public function check(string $profile): bool
    {
        if (!Read::flag($this->ask('check', $profile), 'ok')) {
            throw new \FOSSBilling\InformationException('The provider does not accept this profile.');
        }
        return true;
    }

    /**
     * An order by its number; of this product type, and of this customer where one is given.
     *
     * @throws \FOSSBilling\InformationException
     */
    public function findOrder(int $id, ?int $client = null): \stdClass
    {
        $row = $this->db()->fetchAssociative('SELECT * FROM client_order WHERE id = :id', ['id' => $id]);
        $row = $row === false ? [] : $row;
        if (Read::text($row, 'service_type') !== 'provisor' || ($client !== null && (int) Read::text($row, 'client_id') !== $client)) {
            throw new \FOSSBilling\InformationException('Order not found');
        }
        $isExpired = Read::text($row, 'expires_at') !== '' && strtotime(Read::text($row, 'expires_at')) <= time();
        if ($client !== null && (Read::text($row, 'status') !== 'active' || $isExpired)) {
            throw new \FOSSBilling\InformationException('Order is not activated');
        }
        return (object) $row;
    }

    /**
     * What the gateway is asked to make: the product's settings, the customer's answers that the product allows, and their address.
     *
     * @param object               $order
     * @param array<string, mixed> $config
     * @return array<string, mixed>
     */
    private function wishes($order, array $config): array
    {
        $options = Read::map($config, 'options');
        foreach (explode(',', Read::text($config, 'customer_fields', self::CUSTOMER_FIELDS)) as $name) {
            $answer = trim(Read::text($config, trim($name)));
            if ($answer !== '') {
                $options[trim($name)] = $answer;
            }
        }
        $client = $this->db()->fetchAssociative('SELECT email FROM client WHERE id = :id', ['id' => (int) self::value($order, 'client_id')]);
        return [
            'profile' => Read::text($config, 'profile'),
            'plan' => Read::text($config, 'plan'),
            'term' => Read::text($config, 'term'),
            'domain' => Read::text($config, 'domain'),
            'email' => Read::text($config, 'email', Read::text($client === false ? [] : $client, 'email')),
            'password' => Read::text($config, 'password'),
            'options' => $options,
        ];
    }

    /**
     * @param object               $order
     * @param array<string, mixed> $service
     */
    private function remember($order, array $service): void
    {
        $this->db()->executeStatement(
            'UPDATE service_provisor SET profile = :profile, remote_id = :remote, updated_at = :now WHERE id = :id',
            [
                'profile' => Read::text($service, 'profile'),
                'remote' => Read::optional($service, 'remote_id'),
                'now' => self::now(),
                'id' => (int) self::value($order, 'id'),
            ]
        );
    }

    /**
     * Does it, writes down that it was done or why not, and tells a failure in FOSSBilling's way.
     *
     * @param object           $order
     * @param callable(): void $change
     * @throws \FOSSBilling\Exception
     */
    private function attempt($order, string $what, callable $change, bool $isForCustomer = false): void
    {
        $key = self::key($order);
        try {
            $change();
            $this->log("Provisor: $what of $key done.");
        } catch (Problem $problem) {
            $this->log("Provisor: $what of $key failed ({$problem->kind()}): " . Remote::plain($problem->staffText()));
            throw $this->failure($problem, $isForCustomer);
        }
    }

    /**
     * @return array<string, mixed>
     * @throws \FOSSBilling\Exception
     */
    private function ask(string $question, string $about): array
    {
        try {
            $gateway = $this->gateway();
            return $question === 'describe' ? $gateway->describe($about) : ($question === 'check' ? $gateway->check($about) : $gateway->catalog($about));
        } catch (Problem $problem) {
            throw $this->failure($problem, false);
        }
    }

    /** The text as a variable, so that it is not looked up as a translation; its stack is not written down with values in it. */
    private function failure(Problem $problem, bool $isForCustomer): \FOSSBilling\Exception
    {
        return new \FOSSBilling\Exception(':text', [':text' => self::text($problem, $isForCustomer)], $problem->status(), true);
    }

    private static function text(Problem $problem, bool $isForCustomer): string
    {
        return Remote::plain($isForCustomer ? $problem->customerText() : $problem->staffText());
    }

    /**
     * @param object $order
     * @throws Problem
     */
    private function remote($order): Remote
    {
        $wait = Read::text($this->config($order), 'wait', Read::text($this->settings(), 'wait'));
        return new Remote($this->gateway(), self::key($order), 'fossbilling', $wait !== '' ? (int) $wait : Remote::WAIT_DEFAULT);
    }

    /** @throws Problem */
    private function gateway(): Gateway
    {
        $settings = $this->settings();
        return new Gateway(trim(Read::text($settings, 'address')), trim(Read::text($settings, 'token')));
    }

    /** @return array<string, mixed> of the module; FOSSBilling keeps them encrypted */
    private function settings(): array
    {
        $config = $this->container()['mod_config'];
        return is_callable($config) ? Read::named($config('serviceprovisor')) : [];
    }

    /** @param object $order */
    private function mayCustomerReinstall($order): bool
    {
        return in_array(Read::text($this->config($order), 'customer_may_reinstall'), ['1', 'true', 'on'], true);
    }

    /**
     * @param object $order
     * @return array<string, mixed>
     */
    private function config($order): array
    {
        return Read::named(json_decode((string) self::value($order, 'config'), true));
    }

    /** @param object $order */
    private static function key($order): string
    {
        return 'order-' . (int) self::value($order, 'id');
    }

    /**
     * A value of an order or product, whatever the version of FOSSBilling.
     *
     * @param object $from
     */
    private static function value($from, string $name): ?string
    {
        $getter = 'get' . str_replace('_', '', ucwords($name, '_'));
        $value = is_callable([$from, $getter]) && method_exists($from, $getter) ? $from->$getter() : ($from->$name ?? null);
        return $value instanceof \DateTimeInterface ? $value->format('Y-m-d H:i:s') : Read::optional([$name => $value], $name);
    }

    private function log(string $text): void
    {
        $logger = $this->container()['logger'];
        if (is_object($logger) && method_exists($logger, 'info')) {
            $logger->info($text);
        }
    }

    private function module(string $name): ?object
    {
        $modules = $this->container()['mod_service'];
        $module = is_callable($modules) ? $modules($name) : null;
        return is_object($module) ? $module : null;
    }

    private function db(): \Doctrine\DBAL\Connection
    {
        /** @var \Doctrine\DBAL\Connection $connection */
        $connection = $this->container()['dbal'];
        return $connection;
    }

    private function container(): \Pimple\Container
    {
        if ($this->di === null) {
            throw new \LogicException('FOSSBilling gave the module no container.');
        }
        return $this->di;
    }

    private static function now(): string
    {
        return date('Y-m-d H:i:s');
    }
}
