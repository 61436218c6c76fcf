<?php

// Stand-ins of what FOSSBilling defines for its modules and server managers: the names and types that ours use, and no more.

declare(strict_types=1);

namespace Pimple {
    /** @implements \ArrayAccess<string, mixed> */
    class Container implements \ArrayAccess
    {
        /** @var array<string, mixed> */
        private array $values;

        /** @param array<string, mixed> $values */
        public function __construct(array $values = [])
        {
            $this->values = $values;
        }

        public function offsetExists($offset): bool
        {
            return isset($this->values[$offset]);
        }

        /** @return mixed */
        #[\ReturnTypeWillChange]
        public function offsetGet($offset)
        {
            if (!array_key_exists($offset, $this->values)) {
                throw new \LogicException("Identifier \"$offset\" is not defined.");
            }
            return $this->values[$offset];
        }

        public function offsetSet($offset, $value): void
        {
            $this->values[(string) $offset] = $value;
        }

        public function offsetUnset($offset): void
        {
            unset($this->values[$offset]);
        }
    }
}

namespace Doctrine\DBAL {
    /** The real one's two methods that we use, on a database in memory. */
    class Connection
    {
        private \PDO $pdo;

        public function __construct()
        {
            $this->pdo = new \PDO('sqlite::memory:');
            $this->pdo->setAttribute(\PDO::ATTR_ERRMODE, \PDO::ERRMODE_EXCEPTION);
        }

        /** @param array<string, mixed> $params */
        public function executeStatement(string $sql, array $params = []): int
        {
            $statement = $this->pdo->prepare($sql);
            $statement->execute($params);
            return $statement->rowCount();
        }

        /**
         * @param array<string, mixed> $params
         * @return array<string, mixed>|false
         */
        public function fetchAssociative(string $sql, array $params = [])
        {
            $statement = $this->pdo->prepare($sql);
            $statement->execute($params);
            /** @var array<string, mixed>|false $row */
            $row = $statement->fetch(\PDO::FETCH_ASSOC);
            return $row;
        }
    }
}

namespace Symfony\Component\HttpFoundation {
    class Response
    {
        public string $content;
        /** @var array<string, string> */
        public array $headers;

        /** @param array<string, string> $headers */
        public function __construct(string $content = '', int $status = 200, array $headers = [])
        {
            $this->content = $content;
            $this->headers = $headers;
        }
    }
}

namespace Psr\Log {
    interface LoggerInterface
    {
        /**
         * @param string|\Stringable $message
         * @param array<mixed>       $context
         */
        public function info($message, array $context = []): void;
    }
}

namespace FOSSBilling {
    interface InjectionAwareInterface
    {
        public function setDi(\Pimple\Container $di): void;
    }

    class Exception extends \Exception
    {
        /** @var array<string, string> */
        public static array $traces = [];

        /** @param ?array<string, string> $variables */
        public function __construct(string $message, ?array $variables = null, int $code = 0, bool $protected = false)
        {
            $message = strtr($message, $variables ?? []);
            if (!$protected) {
                // The real one writes the arguments of the stack into PHP's log where debugging is on.
                self::$traces[] = print_r(array_column(debug_backtrace(0), 'args'), true);
            }
            parent::__construct($message, $code);
        }
    }

    class InformationException extends Exception
    {
    }

    class Logger implements \Psr\Log\LoggerInterface
    {
        public string $written = '';

        public function info($message, array $context = []): void
        {
            $this->written .= $message . json_encode($context) . "\n";
        }
    }
}

namespace FOSSBilling\Api {
    class AbstractApi implements \FOSSBilling\InjectionAwareInterface
    {
        protected ?\Pimple\Container $di = null;
        protected ?object $service = null;
        protected ?object $identity = null;

        public function setDi(\Pimple\Container $di): void
        {
            $this->di = $di;
        }

        public function getDi(): ?\Pimple\Container
        {
            return $this->di;
        }

        public function setIdentity(object $identity): void
        {
            $this->identity = $identity;
        }

        public function getIdentity(): object
        {
            return $this->identity ?? new \stdClass();
        }

        public function setService(object $service): void
        {
            $this->service = $service;
        }

        public function getService(): object
        {
            if ($this->service === null) {
                throw new \FOSSBilling\Exception('Service object is not set for the API');
            }
            return $this->service;
        }
    }
}

namespace Box\Mod\Order\Entity {
    /** An order as newer versions have it. */
    class Order
    {
        /** @var array<string, mixed> */
        private array $row;

        /** @param array<string, mixed> $row */
        public function __construct(array $row)
        {
            $this->row = $row;
        }

        public function getId(): ?int
        {
            return (int) $this->text('id');
        }

        public function getClientId(): ?int
        {
            return (int) $this->text('client_id');
        }

        public function getConfig(): ?string
        {
            return $this->text('config');
        }

        public function getStatus(): ?string
        {
            return $this->text('status');
        }

        public function getExpiresAt(): ?\DateTime
        {
            return $this->text('expires_at') === '' ? null : new \DateTime($this->text('expires_at'));
        }

        private function text(string $name): string
        {
            $value = $this->row[$name] ?? '';
            return is_scalar($value) ? (string) $value : '';
        }
    }
}

namespace {
    class Box_App
    {
        /** @var array<string, array{string, string}> */
        public array $routes = [];

        /** @param ?array<string, string> $conditions */
        public function get(string $url, string $method, ?array $conditions, string $class): void
        {
            $this->routes[$url] = [$class, $method];
        }
    }

    class Server_Exception extends FOSSBilling\Exception
    {
        /** @param ?array<string, string> $variables */
        public function __construct(string $message, ?array $variables = null, int $code = 0)
        {
            parent::__construct($message, $variables, $code, true);
        }
    }

    class Server_Client
    {
        private ?string $email = null;

        /**
         * @param array<mixed> $arguments
         */
        public function __call(string $name, array $arguments): string
        {
            return '';
        }

        public function getEmail(): ?string
        {
            return $this->email;
        }

        public function setEmail(?string $email): self
        {
            $this->email = $email;
            return $this;
        }
    }

    class Server_Package
    {
        private ?string $name = 'FOSSBilling';
        /** @var array<string, ?string> */
        private array $custom = [];

        /**
         * @param array<mixed> $arguments
         */
        public function __call(string $name, array $arguments): string
        {
            return '';
        }

        /** @param array<string, ?string> $param */
        public function setCustomValues(array $param): self
        {
            $this->custom = $param;
            return $this;
        }

        public function getCustomValue(string $param): ?string
        {
            return $this->custom[$param] ?? null;
        }

        public function getName(): ?string
        {
            return $this->name;
        }

        public function setName(?string $name): self
        {
            $this->name = $name;
            return $this;
        }
    }

    class Server_Account
    {
        private ?string $username = null;
        private ?string $password = null;
        private ?string $domain = null;
        private ?string $ip = null;
        private ?Server_Client $client = null;
        private ?Server_Package $package = null;
        private ?bool $suspended = null;
        private ?string $note = null;

        public function getUsername(): ?string
        {
            return $this->username;
        }

        public function setUsername(?string $username): self
        {
            $this->username = $username;
            return $this;
        }

        public function getPassword(): ?string
        {
            return $this->password;
        }

        public function setPassword(?string $password): self
        {
            $this->password = $password;
            return $this;
        }

        public function getDomain(): ?string
        {
            return $this->domain;
        }

        public function setDomain(?string $domain): self
        {
            $this->domain = $domain;
            return $this;
        }

        public function getIp(): ?string
        {
            return $this->ip;
        }

        public function setIp(?string $ip): self
        {
            $this->ip = $ip;
            return $this;
        }

        public function getClient(): ?Server_Client
        {
            return $this->client;
        }

        public function setClient(?Server_Client $client): self
        {
            $this->client = $client;
            return $this;
        }

        public function getPackage(): ?Server_Package
        {
            return $this->package;
        }

        public function setPackage(?Server_Package $package): self
        {
            $this->package = $package;
            return $this;
        }

        public function getNote(): ?string
        {
            return $this->note;
        }

        public function setNote(?string $note): self
        {
            $this->note = $note;
            return $this;
        }

        public function getSuspended(): ?bool
        {
            return $this->suspended;
        }

        public function setSuspended(bool $suspended): self
        {
            $this->suspended = $suspended;
            return $this;
        }
    }

    abstract class Server_Manager
    {
        /** @var array<string, mixed> */
        protected array $_config = [
            'ip' => null,
            'host' => null,
            'secure' => false,
            'username' => null,
            'password' => null,
            'accesshash' => null,
            'config' => null,
            'port' => null,
            'passwordLength' => null,
        ];
        private ?Psr\Log\LoggerInterface $_log = null;

        /** @param array<string, mixed> $options */
        public function __construct(array $options)
        {
            $this->_config = array_intersect_key($options, $this->_config) + $this->_config;
            $this->init();
        }

        /** @return void */
        protected function init()
        {
        }

        /** @return string[] */
        public static function getSecretFields(): array
        {
            return [];
        }

        /** @return string */
        public function generateUsername(string $domain)
        {
            return substr($domain, 0, 7) . random_int(0, 9);
        }

        public function getLog(): ?Psr\Log\LoggerInterface
        {
            return $this->_log;
        }

        public function setLog(Psr\Log\LoggerInterface $value): self
        {
            $this->_log = $value;
            return $this;
        }

        /** @return string */
        abstract public function getLoginUrl(?Server_Account $account);

        /** @return string */
        abstract public function getResellerLoginUrl(?Server_Account $account);

        /** @return bool */
        abstract public function testConnection();

        /** @return bool */
        abstract public function createAccount(Server_Account $account);

        /** @return Server_Account */
        abstract public function synchronizeAccount(Server_Account $account);

        /** @return bool */
        abstract public function suspendAccount(Server_Account $account);

        /** @return bool */
        abstract public function unsuspendAccount(Server_Account $account);

        /** @return bool */
        abstract public function cancelAccount(Server_Account $account);

        /** @return bool */
        abstract public function changeAccountPassword(Server_Account $account, string $newPassword);

        /** @return bool */
        abstract public function changeAccountUsername(Server_Account $account, string $newUsername);

        /** @return bool */
        abstract public function changeAccountDomain(Server_Account $account, string $newDomain);

        /** @return bool */
        abstract public function changeAccountIp(Server_Account $account, string $newIp);

        /** @return bool */
        abstract public function changeAccountPackage(Server_Account $account, Server_Package $package);
    }
}
