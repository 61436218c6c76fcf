<?php

// The parts of WHMCS that the module calls, as its developer documentation describes them; as little of each as the module uses.

declare(strict_types=1);

namespace WHMCS\Database {

    /** Tables in memory. */
    final class Capsule
    {
        /** @var array<string, array<array<string, mixed>>> */
        public static array $tables = [];

        public static function table(string $name): Query
        {
            return new Query(array_values(self::$tables[$name] ?? []));
        }
    }

    /** A select. Rows come back as stdClass objects. */
    final class Query
    {
        /** @var list<array<string, mixed>> */
        private array $rows;

        /** @param list<array<string, mixed>> $rows */
        public function __construct(array $rows)
        {
            $this->rows = $rows;
        }

        /** @param scalar $value */
        public function where(string $column, $value): self
        {
            return new self(array_values(array_filter($this->rows, static function (array $row) use ($column, $value): bool {
                return self::text($row[$column] ?? null) === self::text($value);
            })));
        }

        public function orderBy(string $column, string $direction = 'asc'): self
        {
            $rows = $this->rows;
            usort($rows, static function (array $a, array $b) use ($column, $direction): int {
                $order = strnatcmp(self::text($a[$column] ?? null), self::text($b[$column] ?? null));
                return $direction === 'desc' ? -$order : $order;
            });
            return new self($rows);
        }

        public function limit(int $rows): self
        {
            return new self(array_slice($this->rows, 0, $rows));
        }

        /** @return list<object> */
        public function get(): array
        {
            return array_map(static function (array $row): object {
                return (object) $row;
            }, $this->rows);
        }

        public function first(): ?object
        {
            return $this->get()[0] ?? null;
        }

        /** @param mixed $value */
        private static function text($value): string
        {
            return is_scalar($value) ? (string) $value : '';
        }
    }
}

namespace WHMCS\Service {

    final class Status
    {
        public const ACTIVE = 'Active';
        public const SUSPENDED = 'Suspended';
    }

    /** What `$params['model']` is, as far as service properties go. */
    final class Service
    {
        public Properties $serviceProperties;

        public function __construct()
        {
            $this->serviceProperties = new Properties();
        }
    }

    final class Properties
    {
        /** @var array<string, mixed> */
        public array $values = [];

        /** @param array<string, mixed> $values */
        public function save(array $values): void
        {
            $this->values = $values + $this->values;
        }

        /** @return mixed */
        public function get(string $name)
        {
            return $this->values[$name] ?? '';
        }
    }
}

namespace {

    use Provisor\Tests\Whmcs\Shop;

    const WHMCS = true;

    /**
     * @param mixed        $request
     * @param mixed        $response
     * @param mixed        $processed
     * @param list<string> $replaceVars
     */
    function logModuleCall(string $module, string $action, $request, $response, $processed = '', array $replaceVars = []): void
    {
        // The masking is left out: what the module hands over must need none.
        Shop::$log[] = [$module, $action, $request, $response, $processed];
    }

    /**
     * @param array<string, mixed> $values
     * @return array<string, mixed>
     */
    function localAPI(string $command, array $values): array
    {
        return Shop::api($command, $values);
    }

    function add_hook(string $point, int $priority, callable $function): void
    {
        Shop::$hooks[$point][] = $function;
    }
}
