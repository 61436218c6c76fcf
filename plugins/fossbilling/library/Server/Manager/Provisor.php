<?php

declare(strict_types=1);

use Provisor\Description;
use Provisor\Gateway;
use Provisor\Problem;
use Provisor\Read;
use Provisor\Service;

require_once dirname(__DIR__, 3) . '/modules/Serviceprovisor/load.php';

/**
 * For the built-in product type "hosting". The product type "provisor" is the better one: FOSSBilling tells a server manager neither the
 * order's number nor a renewal, and takes a failed creation for a finished one when it is tried again.
 *
 * What stands in for the order's number is the user name, which is made from the domain and nothing else, with a digest of the customer's
 * address: two customers who order one domain get two services, and no one's is the other's.
 */
class Server_Manager_Provisor extends Server_Manager
{
    /** Seconds to wait for a new account, since FOSSBilling never asks again for one that it was told is not there yet. */
    private const CREATE_WAIT = 110;
    /** Pages of 200 services to be searched for one whose customer has another address now. */
    private const PAGES_MAX = 50;
    private const DIGEST_LENGTH = 12;

    /** @return array<string, mixed> */
    public static function getForm(): array
    {
        return [
            'label' => 'Provisor',
            'form' => [
                'credentials' => [
                    'fields' => [
                        ['name' => 'accesshash', 'type' => 'text', 'label' => 'Token', 'placeholder' => 'As printed by: provisor panel create', 'required' => true, 'secret' => true],
                        ['name' => 'username', 'type' => 'text', 'label' => 'Profile', 'placeholder' => 'For hosting plans without a parameter "profile"', 'required' => false],
                    ],
                ],
            ],
        ];
    }

    /** @return list<string> */
    public static function getSecretFields(): array
    {
        return ['accesshash'];
    }

    /**
     * The same for the same domain, always: a creation that is tried again finds what the first try has made.
     *
     * @param string $domain
     */
    public function generateUsername($domain): string
    {
        $domain = strtolower(trim($domain));
        $readable = (string) substr((string) preg_replace('/[^a-z0-9]/', '', $domain), 0, 6);
        return 'p' . $readable . substr(hash('sha256', $domain), 0, 12 - strlen($readable));
    }

    /** @return string where the provider's own page is; empty for the server as a whole */
    public function getLoginUrl(?Server_Account $account = null)
    {
        if ($account === null) {
            return '';
        }
        $url = '';
        $this->attempt('login', $account, function (string $key) use (&$url): void {
            $url = Read::text($this->gateway()->credentials($key), 'url');
            if (preg_match('~^https?://~i', $url) !== 1) {
                throw new Problem('unsupported', 'This provider has no login page.');
            }
        });
        return $url;
    }

    /** @return string */
    public function getResellerLoginUrl(?Server_Account $account = null)
    {
        return $this->getLoginUrl($account);
    }

    /** @throws Server_Exception */
    public function testConnection(): bool
    {
        try {
            $profile = $this->setting('username');
            $isGood = $profile === '' ? $this->gateway()->profiles() !== [] : Read::flag($this->gateway()->check($profile), 'ok');
        } catch (Problem $problem) {
            throw self::failure($problem);
        }
        if (!$isGood) {
            throw new Server_Exception('The token may use no profile, or the provider does not accept it.');
        }
        return true;
    }

    /** @throws Server_Exception */
    public function createAccount(Server_Account $account): bool
    {
        $this->attempt('creation', $account, function () use ($account): void {
            $package = $this->package($account->getPackage());
            $order = $package + [
                'domain' => (string) $account->getDomain(),
                'email' => self::email($account),
                'password' => (string) $account->getPassword(),
            ];
            $this->service(self::keyAtCreation($account), $account, self::CREATE_WAIT)->create($order);
        });
        return true;
    }

    /** @throws Server_Exception */
    public function synchronizeAccount(Server_Account $account): Server_Account
    {
        $new = clone $account;
        $this->attempt('synchronisation', $account, function (string $key) use ($new): void {
            $service = $this->gateway()->service($key, true);
            $new->setSuspended(Read::text($service, 'state') === 'suspended');
            $address = Read::texts($service, 'addresses')[0] ?? '';
            if ($address !== '') {
                $new->setIp($address);
            }
        });
        return $new;
    }

    /** @throws Server_Exception */
    public function suspendAccount(Server_Account $account): bool
    {
        $this->attempt('suspension', $account, function (string $key) use ($account): void {
            $this->service($key, $account)->suspend($account->getNote());
        });
        return true;
    }

    /** @throws Server_Exception */
    public function unsuspendAccount(Server_Account $account): bool
    {
        $this->attempt('unsuspension', $account, function (string $key) use ($account): void {
            $this->service($key, $account)->unsuspend();
        });
        return true;
    }

    /** @throws Server_Exception */
    public function cancelAccount(Server_Account $account): bool
    {
        $this->attempt('cancellation', $account, function (string $key) use ($account): void {
            $this->service($key, $account)->terminate();
        });
        return true;
    }

    /**
     * @param string $newPassword
     * @throws Server_Exception
     */
    public function changeAccountPassword(
        Server_Account $account,
        #[\SensitiveParameter]
        $newPassword
    ): bool {
        $this->attempt('password change', $account, function (string $key) use ($account, $newPassword): void {
            $this->service($key, $account)->resetPassword($newPassword);
        });
        return true;
    }

    /**
     * @param string $newUsername
     * @throws Server_Exception always: the name is what the service is known by
     */
    public function changeAccountUsername(Server_Account $account, $newUsername): bool
    {
        throw new Server_Exception('The user name of a service of Provisor cannot be changed.');
    }

    /**
     * @param string $newDomain
     * @throws Server_Exception always
     */
    public function changeAccountDomain(Server_Account $account, $newDomain): bool
    {
        throw new Server_Exception('The domain of a service of Provisor cannot be changed; order a new one.');
    }

    /**
     * @param string $newIp
     * @throws Server_Exception always
     */
    public function changeAccountIp(Server_Account $account, $newIp): bool
    {
        throw new Server_Exception('The address of a service of Provisor is given by its provider.');
    }

    /** @throws Server_Exception */
    public function changeAccountPackage(Server_Account $account, Server_Package $package): bool
    {
        $this->attempt('change of plan', $account, function (string $key) use ($account, $package): void {
            $wanted = $this->package($package);
            $this->service($key, $account)->changePackage($wanted['plan'], $wanted['options']);
        });
        return true;
    }

    /**
     * @param callable(string): void $change takes the service's key
     * @throws Server_Exception
     */
    private function attempt(string $what, Server_Account $account, callable $change): void
    {
        $name = (string) $account->getUsername();
        try {
            $change($what === 'creation' ? '' : $this->key($account));
            $this->note("Provisor: $what of $name done.");
        } catch (Problem $problem) {
            $this->note("Provisor: $what of $name failed ({$problem->kind()}): " . Service::plain($problem->staffText()));
            throw self::failure($problem);
        }
    }

    private static function failure(Problem $problem): Server_Exception
    {
        return new Server_Exception(':text', [':text' => Service::plain($problem->staffText())], $problem->status());
    }

    /** @throws Problem */
    private function gateway(): Gateway
    {
        $host = $this->setting('host') !== '' ? $this->setting('host') : $this->setting('ip');
        if (preg_match('~^(unix:|https?:)~', $host) === 1) {
            return new Gateway($host, trim($this->setting('accesshash')));
        }
        $isSecure = ($this->_config['secure'] ?? false) === true;
        $port = (int) $this->setting('port');
        $port = $port > 0 ? $port : ($isSecure ? 443 : 7070);
        // An IPv6 address stands in brackets.
        $host = substr_count($host, ':') > 1 && $host[0] !== '[' ? "[$host]" : $host;
        return new Gateway(($isSecure ? 'https' : 'http') . "://$host:$port", trim($this->setting('accesshash')));
    }

    /** @param int $waitDefault seconds, where the account's hosting plan does not say */
    private function service(string $key, Server_Account $account, int $waitDefault = Service::WAIT_DEFAULT): Service
    {
        $package = $account->getPackage();
        $wait = $package === null ? '' : trim((string) $package->getCustomValue('wait'));
        return new Service($this->gateway(), $key, 'fossbilling', $wait !== '' ? (int) $wait : $waitDefault);
    }

    /** @throws Problem */
    private static function keyAtCreation(Server_Account $account): string
    {
        return self::prefix($account) . substr(hash('sha256', self::email($account)), 0, self::DIGEST_LENGTH);
    }

    /**
     * The key of an account that is there: that of its customer's address, or of the address that they had.
     *
     * @throws Problem
     */
    private function key(Server_Account $account): string
    {
        $key = self::keyAtCreation($account);
        try {
            $this->gateway()->service($key);
            return $key;
        } catch (Problem $problem) {
            if ($problem->status() !== 404) {
                throw $problem;
            }
            return $this->keyByName($account, $problem);
        }
    }

    /** @throws Problem */
    private function keyByName(Server_Account $account, Problem $unknown): string
    {
        $found = [];
        $query = ['limit' => 200];
        for ($page = 0; $page < self::PAGES_MAX; $page++) {
            $answer = $this->gateway()->services($query);
            foreach (Read::maps($answer, 'services') as $service) {
                $key = Read::text($service, 'key');
                $prefix = self::prefix($account);
                $isOurs = strncmp($key, $prefix, strlen($prefix)) === 0 && strlen($key) === strlen($prefix) + self::DIGEST_LENGTH;
                if ($isOurs && Read::text($service, 'state') !== 'terminated') {
                    $found[] = $key;
                }
            }
            $next = Read::text($answer, 'next');
            if ($next === '') {
                break;
            }
            $query['cursor'] = $next;
        }
        if (count($found) > 1) {
            throw new Problem('wrong-state', 'Several services have this user name; give the customer the address they had when they ordered.');
        }
        if ($found === []) {
            throw $unknown;
        }
        return $found[0];
    }

    /** @throws Problem */
    private static function prefix(Server_Account $account): string
    {
        $name = (string) $account->getUsername();
        if ($name === '') {
            throw new Problem('invalid', 'FOSSBilling gave no user name.');
        }
        // One that staff has chosen may have characters that a key has not.
        $plain = (string) preg_replace('/[^A-Za-z0-9._-]/', '', (string) substr($name, 0, 64));
        return 'hosting-' . ($plain === $name ? $plain : (string) substr($plain, 0, 32) . '.' . substr(hash('sha256', $name), 0, 16)) . '-';
    }

    private static function email(Server_Account $account): string
    {
        $client = $account->getClient();
        return $client === null ? '' : strtolower(trim((string) $client->getEmail()));
    }

    /** @return array{profile: string, plan: string, term: string, options: array<string, string>} */
    private function package(?Server_Package $package): array
    {
        $custom = [];
        foreach (['profile', 'plan', 'term'] as $name) {
            $custom[$name] = $package === null ? '' : trim((string) $package->getCustomValue($name));
        }
        $options = [];
        $profile = $custom['profile'] !== '' ? $custom['profile'] : $this->setting('username');
        if ($package !== null && $profile !== '') {
            foreach ((new Description($this->gateway()->describe('fossbilling')))->orderFields($profile) as $field) {
                $name = Read::text($field, 'name');
                $options[$name] = trim((string) $package->getCustomValue($name));
            }
        }
        $plan = $custom['plan'] !== '' || $package === null ? $custom['plan'] : trim((string) $package->getName());
        return ['profile' => $profile, 'plan' => $plan, 'term' => $custom['term'], 'options' => $options];
    }

    private function setting(string $name): string
    {
        return trim(Read::text($this->_config, $name));
    }

    private function note(string $text): void
    {
        $log = $this->getLog();
        if ($log !== null) {
            $log->info($text);
        }
    }
}
