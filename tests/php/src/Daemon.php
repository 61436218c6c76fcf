<?php

declare(strict_types=1);

namespace Provisor\Tests;

use Provisor\Read;
use RuntimeException;

/**
 * The shipped binary, twice: a server that plays both providers on a book of its own, and the gateway under test with a profile for each.
 * Both on free ports of the loopback address, in a temporary folder, ended with this object.
 *
 * Profiles: `machines` has renewals by the provider itself and power actions; `firewalls` wants domain, e-mail address and password and
 * charges renewals when it is asked to.
 */
final class Daemon
{
    public const MACHINES = 'machines';
    public const FIREWALLS = 'firewalls';
    /** What the reseller starts with, in cents. */
    public const CREDIT = 10000000;
    private const START_TIMEOUT_S = 60;

    private string $folder;
    private string $token = '';
    private string $address = '';
    private string $server = '127.0.0.1:0';
    /** @var array<string, string> */
    private array $secrets = [];
    /** @var array<string, resource> */
    private array $processes = [];
    private ?Lossy $lossy = null;
    /** @var array<string, string> */
    private array $settings;

    /** @param array<string, string> $settings environment of the provider's process, such as PROVISOR_SERVER__FULFILMENT__MODE */
    private function __construct(array $settings)
    {
        $this->folder = self::temporaryFolder();
        $this->settings = $settings + [
            'PROVISOR_SERVER__LIMITS__PER_IP_PER_MINUTE' => '0',
            'PROVISOR_SERVER__FULFILMENT__DELAY_MS' => '0',
            // Two due dates are renewed in one test, not in two months.
            'PROVISOR_SERVER__GP__RENEW_DEDUPE' => 'false',
        ];
    }

    /** @param array<string, string> $settings */
    public static function start(array $settings = []): self
    {
        $daemon = new self($settings);
        // A test that dies must not leave processes behind.
        register_shutdown_function([$daemon, 'stop']);
        $daemon->openAccount();
        $daemon->startProvider();
        file_put_contents("{$daemon->folder}/gateway/provisor.toml", $daemon->profiles());
        $daemon->startGateway();
        return $daemon;
    }

    /** The gateway's address, as a panel is told it. */
    public function address(): string
    {
        return $this->address;
    }

    /** The folder of all its files, for sockets; gone when it stops. */
    public function folder(): string
    {
        return $this->folder;
    }

    /** Where the providers' own interfaces are. */
    public function providerAddress(): string
    {
        return "http://{$this->server}";
    }

    /** The panel's token. */
    public function token(): string
    {
        return $this->token;
    }

    /** The same gateway, over a way on which answers can be lost. */
    public function lossy(): Lossy
    {
        return $this->lossy ??= Lossy::start(substr($this->address, strlen('http://')), $this->folder);
    }

    /** Another panel's token. */
    public function newToken(string $name): string
    {
        return Read::text($this->run('gateway', ['panel', 'create', '--name', $name])[0] ?? [], 'token');
    }

    /**
     * A command on the gateway's data: the objects it prints.
     *
     * @param list<string> $arguments
     * @return list<array<string, mixed>>
     */
    public function gateway(array $arguments): array
    {
        return $this->run('gateway', $arguments);
    }

    /**
     * A command on the provider's data: the objects it prints.
     *
     * @param list<string> $arguments
     * @return list<array<string, mixed>>
     */
    public function provider(array $arguments): array
    {
        return $this->run('server', $arguments);
    }

    /** What both providers charged since the start, in cents. */
    public function charged(): int
    {
        return self::CREDIT - $this->balance();
    }

    /** Takes all credit, so that what is ordered waits for its payment. Returns how much it was, in cents. */
    public function takeCredit(): int
    {
        $balance = $this->balance();
        $this->credit(-$balance);
        return $balance;
    }

    /** Gives credit, in cents. */
    public function credit(int $cents): void
    {
        $this->provider(['reseller', 'credit', '1', sprintf('%.2f', $cents / 100)]);
    }

    /** The provider calls a product something else from now on. Plans that the gateway has read already keep their names for a while. */
    public function renameProduct(int $id, string $name): void
    {
        $file = "{$this->folder}/catalogue.toml";
        $name = json_encode($name, JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE);
        file_put_contents($file, "[[product]]\nid = $id\nname = $name\nfamily = \"kvm\"\nprices = [{ cycle = \"monthly\", currency = \"EUR\", price = \"9.90\" }]\n");
        $this->provider(['product', 'import', $file]);
    }

    /** What can be found of the providers' secrets and of the panel's token: nothing that a plug-in writes may hold them. */
    public function secrets(): string
    {
        return implode("\n", array_merge(array_values($this->secrets), [$this->token]));
    }

    /** All that the gateway logged. */
    public function log(): string
    {
        return (string) file_get_contents("{$this->folder}/gateway.log");
    }

    /** The provider goes away, in the middle of whatever it does. */
    public function killProvider(): void
    {
        $this->end('server');
    }

    /** The provider, on the address that it had before. */
    public function startProvider(): void
    {
        $listening = $this->serve('server', ['--server', $this->server]);
        $this->server = Read::text($listening, 'server');
    }

    /** The gateway, on a free port or on a socket, `unix:/path`. */
    public function startGateway(string $listen = '127.0.0.1:0'): void
    {
        $listening = Read::text($this->serve('gateway', ['--gateway', $listen]), 'gateway');
        $this->address = strncmp($listening, 'unix:', 5) === 0 ? $listening : "http://$listening";
        $this->token = $this->token !== '' ? $this->token : $this->newToken('panel');
        if ($this->token === '') {
            throw new RuntimeException('`provisor panel create` printed no token');
        }
    }

    /** The same gateway, elsewhere. */
    public function restartGatewayOn(string $listen): void
    {
        $this->killGateway();
        $this->startGateway($listen);
    }

    /** The gateway goes away. */
    public function killGateway(): void
    {
        $this->end('gateway');
    }

    public function stop(): void
    {
        foreach (array_keys($this->processes) as $name) {
            $this->end($name);
        }
        if ($this->lossy !== null) {
            $this->lossy->stop();
            $this->lossy = null;
        }
        self::remove($this->folder);
    }

    /** An empty folder that nobody else can read. */
    public static function temporaryFolder(): string
    {
        $folder = sys_get_temp_dir() . '/provisor-php-' . bin2hex(random_bytes(8));
        if (!mkdir($folder, 0700)) {
            throw new RuntimeException("cannot make $folder");
        }
        return $folder;
    }

    public static function remove(string $folder): void
    {
        if (!is_dir($folder)) {
            return;
        }
        $all = new \RecursiveIteratorIterator(
            new \RecursiveDirectoryIterator($folder, \FilesystemIterator::SKIP_DOTS),
            \RecursiveIteratorIterator::CHILD_FIRST
        );
        foreach ($all as $entry) {
            if ($entry instanceof \SplFileInfo) {
                $entry->isDir() && !$entry->isLink() ? rmdir($entry->getPathname()) : unlink($entry->getPathname());
            }
        }
        rmdir($folder);
    }

    private function openAccount(): void
    {
        mkdir("{$this->folder}/server", 0700);
        mkdir("{$this->folder}/gateway", 0700);
        $credit = sprintf('%.2f', self::CREDIT / 100);
        $this->provider(['reseller', 'create', '--name', 'Test', '--email', 'owner@example.com', '--credit', $credit]);
        $limits = ['--per-minute', '1000000', '--burst', '1000000', '--per-day', '100000000'];
        $signed = $this->provider(array_merge(['key', 'create', '--reseller', '1', '--provider', 'kernelhost', '--scopes', 'all'], $limits));
        $formed = $this->provider(array_merge(
            ['key', 'create', '--reseller', '1', '--provider', 'gp', '--scopes', 'all', '--ip', '127.0.0.1'],
            $limits
        ));
        $this->secrets = [
            'TEST_MACHINES_KEY' => Read::text($signed[0] ?? [], 'key'),
            'TEST_MACHINES_SECRET' => Read::text($signed[0] ?? [], 'secret'),
            'TEST_FIREWALLS_SECRET' => Read::text($formed[0] ?? [], 'api_key'),
        ];
    }

    private function profiles(): string
    {
        return <<<TOML
            [gateway]
            [profiles.machines]
            provider = "kernelhost"
            base_url = "http://{$this->server}/cp/kh_reseller_api"
            key = { env = "TEST_MACHINES_KEY" }
            secret = { env = "TEST_MACHINES_SECRET" }
            allow_private = true
            [profiles.firewalls]
            provider = "gp"
            base_url = "http://{$this->server}/api/v1"
            secret = { env = "TEST_FIREWALLS_SECRET" }
            settings = { login_url = "https://login.example/enter" }
            allow_private = true

            TOML;
    }

    private function balance(): int
    {
        return (int) round(100 * (float) Read::text($this->provider(['reseller', 'list'])[0] ?? [], 'balance'));
    }

    /**
     * @param list<string> $arguments
     * @return list<array<string, mixed>>
     */
    private function run(string $name, array $arguments): array
    {
        $streams = [1 => ['pipe', 'w'], 2 => ['pipe', 'w']];
        $process = proc_open($this->command($name, $arguments), $streams, $pipes, null, $this->environment($name));
        if (!is_resource($process)) {
            throw new RuntimeException('cannot start ' . self::binary());
        }
        /** @var array{1: resource, 2: resource} $pipes */
        // What a command prints is far below what a pipe holds, so that one after the other is enough.
        $output = (string) stream_get_contents($pipes[1]);
        $error = (string) stream_get_contents($pipes[2]);
        if (proc_close($process) !== 0) {
            throw new RuntimeException('provisor ' . implode(' ', $arguments) . ": $error");
        }
        $objects = [];
        foreach (array_filter(explode("\n", $output)) as $line) {
            $objects[] = Read::named(json_decode($line, true));
        }
        return $objects;
    }

    /**
     * Starts a process that prints one line of JSON once it listens.
     *
     * @param list<string> $arguments
     * @return array<string, mixed>
     */
    private function serve(string $name, array $arguments): array
    {
        $streams = [1 => ['pipe', 'w'], 2 => ['file', "{$this->folder}/$name.log", 'a']];
        // Whatever becomes of this process, the server does not outlive it.
        $command = array_merge(['setpriv', '--pdeathsig', 'KILL'], $this->command($name, array_merge(['serve'], $arguments)));
        $process = proc_open($command, $streams, $pipes, null, $this->environment($name));
        if (!is_resource($process)) {
            throw new RuntimeException('cannot start ' . self::binary());
        }
        $this->processes[$name] = $process;
        /** @var array{1: resource} $pipes */
        stream_set_timeout($pipes[1], self::START_TIMEOUT_S);
        $line = (string) fgets($pipes[1]);
        if ($line === '') {
            throw new RuntimeException("`$name` did not start:\n" . file_get_contents("{$this->folder}/$name.log"));
        }
        return Read::named(json_decode($line, true));
    }

    /**
     * @param list<string> $arguments
     * @return list<string>
     */
    private function command(string $name, array $arguments): array
    {
        return array_merge([self::binary(), '--json', '--data', "{$this->folder}/$name"], $arguments);
    }

    /** @return array<string, string> */
    private function environment(string $name): array
    {
        return ['PROVISOR_LOG' => 'debug'] + ($name === 'gateway' ? $this->secrets : $this->settings);
    }

    private function end(string $name): void
    {
        if (isset($this->processes[$name])) {
            proc_terminate($this->processes[$name], 9);
            proc_close($this->processes[$name]);
            unset($this->processes[$name]);
        }
    }

    private static function binary(): string
    {
        $binary = getenv('PROVISOR_BIN');
        $binary = is_string($binary) && $binary !== '' ? $binary : dirname(__DIR__, 3) . '/target/release/provisor';
        if (!is_executable($binary)) {
            throw new RuntimeException("$binary is missing: build it, or name another one with PROVISOR_BIN");
        }
        return $binary;
    }
}
