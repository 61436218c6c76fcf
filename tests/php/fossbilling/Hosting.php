<?php

declare(strict_types=1);

namespace Provisor\Tests\Fossbilling;

use FOSSBilling\Logger;
use Provisor\Read;
use Provisor\Tests\Panel;
use Provisor\Tests\Result;

/** FOSSBilling with the server manager, as its product type "hosting" drives it. */
final class Hosting implements Panel
{
    private Logger $logger;
    /** @var array<string, mixed> */
    private array $config = [];
    /** @var array<array<string, mixed>> */
    private array $accounts = [];
    private static int $domains = 0;

    public function __construct()
    {
        $this->logger = new Logger();
    }

    public function connect(string $address, string $token): void
    {
        $url = parse_url($address);
        $this->config = ['host' => $url['host'] ?? '', 'port' => (string) ($url['port'] ?? ''), 'secure' => false, 'accesshash' => $token];
    }

    public function order(array $order): string
    {
        $id = (string) (count($this->accounts) + 1);
        // The type hosting has a domain for each account.
        $order += ['domain' => 'hosting-' . getmypid() . '-' . ++self::$domains . '.example.com'];
        $this->accounts[$id] = $order + ['active' => false, 'username' => ''];
        if (Read::text($this->accounts[$id], 'email') === 'customer@example.com') {
            $this->accounts[$id]['email'] = "customer-$id@example.com";
        }
        return $id;
    }

    public function amend(string $id, array $order): void
    {
        $this->accounts[$id] = $order + $this->accounts[$id];
    }

    public function key(string $id): string
    {
        $digest = substr(hash('sha256', Read::text($this->accounts[$id], 'email')), 0, 12);
        return 'hosting-' . $this->manager()->generateUsername(Read::text($this->accounts[$id], 'domain')) . "-$digest";
    }

    public function call(string $id, string $operation, array $with = []): Result
    {
        $account = $this->account($id);
        try {
            switch ($operation) {
                case 'create':
                    self::assertTrue($this->manager()->createAccount($account));
                    $this->accounts[$id]['active'] = true;
                    break;
                case 'suspend':
                    self::assertTrue($this->manager()->suspendAccount($account->setNote($with['reason'] ?? null)));
                    break;
                case 'unsuspend':
                    self::assertTrue($this->manager()->unsuspendAccount($account));
                    break;
                case 'terminate':
                    self::assertTrue($this->manager()->cancelAccount($account));
                    $this->accounts[$id]['active'] = false;
                    break;
                case 'change-password':
                    self::assertTrue($this->manager()->changeAccountPassword($account, $with['password'] ?? ''));
                    break;
                case 'change-package':
                    self::assertTrue($this->manager()->changeAccountPackage($account, $account->getPackage() ?? new \Server_Package()));
                    break;
                default:
                    throw new \LogicException("no $operation here");
            }
            return new Result(true);
        } catch (\Server_Exception $error) {
            return new Result(false, $error->getMessage());
        }
    }

    public function callAsCustomer(string $id, string $operation, array $with = []): ?Result
    {
        return null;
    }

    public function offers(string $id): array
    {
        return ['suspend', 'unsuspend', 'terminate', 'change-password', 'change-package'];
    }

    public function lacks(): array
    {
        return ['renew', 'start', 'stop', 'reboot', 'reinstall'];
    }

    public function isActive(string $id): bool
    {
        return $this->accounts[$id]['active'] === true;
    }

    public function shown(string $id): string
    {
        return '';
    }

    public function written(): string
    {
        return $this->logger->written;
    }

    public function manager(): \Server_Manager_Provisor
    {
        $manager = new \Server_Manager_Provisor($this->config);
        $manager->setLog($this->logger);
        return $manager;
    }

    public function account(string $id): \Server_Account
    {
        $account = $this->accounts[$id];
        $custom = ['profile' => Read::text($account, 'profile'), 'wait' => Read::text($account, 'wait')];
        return (new \Server_Account())
            ->setUsername($this->manager()->generateUsername(Read::text($account, 'domain')))
            ->setDomain(Read::text($account, 'domain'))
            ->setPassword(Read::text($account, 'password', 'Generated-' . bin2hex(random_bytes(6))))
            ->setClient((new \Server_Client())->setEmail(Read::text($account, 'email')))
            ->setPackage((new \Server_Package())->setName(Read::text($account, 'plan'))->setCustomValues($custom));
    }

    /** @param mixed $value */
    private static function assertTrue($value): void
    {
        if ($value !== true) {
            throw new \LogicException('a manager answers true, or throws');
        }
    }
}
