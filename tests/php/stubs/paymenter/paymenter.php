<?php

// Stand-ins of what Paymenter and Laravel define for a server extension: the names and types that ours uses, and no more.

declare(strict_types=1);

namespace App\Attributes {
    #[\Attribute(\Attribute::TARGET_CLASS)]
    class ExtensionMeta
    {
        public string $name;

        public function __construct(string $name, string $description, string $version, string $author, string $url = '', string $icon = '')
        {
            $this->name = $name;
        }
    }
}

namespace App\Classes\Extension {
    class Extension
    {
        /** @var array<string, mixed> */
        public $config;

        /** @param array<string, mixed> $config */
        public function __construct($config = [])
        {
            $this->config = $config;
        }

        /**
         * @param string $key
         * @return mixed
         */
        public function config($key)
        {
            return $this->config[$key] ?? null;
        }

        /**
         * @param array<mixed> $values
         * @return array<mixed>
         */
        public function getConfig($values = [])
        {
            return [];
        }

        /** @return void */
        public function boot()
        {
        }
    }

    class Server extends Extension
    {
    }
}

namespace App\Models {
    class Product
    {
        public ?Server $server = null;
        /** @var array<string, mixed> */
        public array $settings = [];
    }

    class Server
    {
        public string $extension = 'Provisor';
        /** @var array<string, mixed> */
        public array $settings = [];
    }

    class User
    {
        public string $email = '';
    }

    /** A service's properties, as a query on their table. */
    class Properties
    {
        /** @var array<string, array<string, string>> */
        public array $rows = [];
        private string $key = '';

        /**
         * @param array<string, string> $attributes
         * @param array<string, string> $values
         */
        public function updateOrCreate(array $attributes, array $values = []): void
        {
            $this->rows[$attributes['key']] = $values;
        }

        public function where(string $column, string $value): self
        {
            $this->key = $value;
            return $this;
        }

        public function delete(): int
        {
            $count = isset($this->rows[$this->key]) ? 1 : 0;
            unset($this->rows[$this->key]);
            return $count;
        }
    }

    class Service
    {
        public const STATUS_PENDING = 'pending';
        public const STATUS_ACTIVE = 'active';
        public const STATUS_CANCELLED = 'cancelled';
        public const STATUS_SUSPENDED = 'suspended';

        public int $id;
        public string $status = self::STATUS_PENDING;
        public ?\DateTimeInterface $expires_at = null;
        public ?User $user = null;
        public Product $product;
        /** @var array<string, mixed> */
        public array $original = [];
        private Properties $properties;

        public function __construct(int $id)
        {
            $this->id = $id;
            $this->product = new Product();
            $this->properties = new Properties();
        }

        public function properties(): Properties
        {
            return $this->properties;
        }

        /** @return mixed */
        public function getOriginal(string $key)
        {
            return $this->original[$key] ?? null;
        }
    }
}

namespace App\Events\Service {
    class Updated
    {
        public \App\Models\Service $service;

        public function __construct(\App\Models\Service $service)
        {
            $this->service = $service;
        }
    }
}

namespace App\Exceptions {
    class DisplayException extends \Exception
    {
    }
}

namespace App\Helpers {
    class ExtensionHelper
    {
        /**
         * @param array<mixed> $args
         * @return mixed
         */
        public static function callService(\App\Models\Service $service, string $function, array $args = [])
        {
            /** @var array<string, mixed> $settings */
            $settings = $service->product->server->settings ?? [];
            $properties = array_column($service->properties()->rows, 'value');
            /** @var callable $method */
            $method = [new \Paymenter\Extensions\Servers\Provisor\Provisor($settings), $function];
            return $method($service, $service->product->settings, array_combine(array_keys($service->properties()->rows), $properties), ...$args);
        }
    }
}

namespace Illuminate\Support\Facades {
    class Event
    {
        /** @var array<string, list<callable>> */
        public static array $listeners = [];

        public static function listen(string $event, callable $listener): void
        {
            self::$listeners[$event][] = $listener;
        }
    }

    class Log
    {
        public static string $written = '';

        public static function log(string $level, string $message): void
        {
            self::$written .= "$level: $message\n";
        }
    }

    class Session
    {
        /** @var array<string, array<string, string>> */
        public static array $values = [];

        /** @param array<string, string> $value */
        public static function put(string $key, array $value): void
        {
            self::$values[$key] = $value;
        }
    }

    class Route
    {
        /** @var list<array<mixed>> */
        public static array $routes = [];

        /** @param array{class-string, string} $action */
        public static function get(string $uri, array $action): self
        {
            self::$routes[] = [$uri, $action];
            return new self();
        }

        public function where(string $name, string $expression): self
        {
            self::$routes[] = ['where', $name, $expression];
            return $this;
        }

        /** @param list<string> $middleware */
        public function middleware(array $middleware): self
        {
            self::$routes[] = $middleware;
            return $this;
        }

        public function name(string $name): self
        {
            self::$routes[] = [$name];
            return $this;
        }
    }
}

namespace Illuminate\Http {
    class Response
    {
        public string $content;
        public int $status;
        /** @var array<string, string> */
        public array $headers;

        /** @param array<string, string> $headers */
        public function __construct(string $content, int $status, array $headers)
        {
            $this->content = $content;
            $this->status = $status;
            $this->headers = $headers;
        }
    }
}

namespace Illuminate\Contracts\Queue {
    interface ShouldQueue
    {
    }
}

namespace Illuminate\Bus {
    trait Queueable
    {
    }
}

namespace Illuminate\Queue {
    trait InteractsWithQueue
    {
    }

    trait SerializesModels
    {
    }
}

namespace Illuminate\Foundation\Bus {
    trait Dispatchable
    {
        /** @param mixed ...$arguments */
        public static function dispatch(...$arguments): void
        {
            /** @var \Paymenter\Extensions\Servers\Provisor\RenewJob $job */
            $job = new static(...$arguments); // @phpstan-ignore-line
            \App\Jobs::$dispatched[] = $job;
        }
    }
}

namespace App {
    /** The queue. */
    class Jobs
    {
        /** @var list<\Paymenter\Extensions\Servers\Provisor\RenewJob> */
        public static array $dispatched = [];
    }
}

namespace {
    /** @param array<string, mixed> $parameters */
    function route(string $name, array $parameters = []): string
    {
        return "https://panel.example/$name?" . http_build_query($parameters);
    }

    /** @param array<string, string> $headers */
    function response(string $content = '', int $status = 200, array $headers = []): Illuminate\Http\Response
    {
        return new Illuminate\Http\Response($content, $status, $headers);
    }

    /** @return never */
    function abort(int $code)
    {
        throw new RuntimeException("HTTP $code", $code);
    }
}
