<?php

declare(strict_types=1);

namespace Provisor\Tests\Versions;

use PHPUnit\Framework\TestCase;
use Provisor\Tests\Daemon;

/** Panels run on many a PHP: each of them reads our files, and the oldest and the newest do what this machine's does. */
final class VersionsTest extends TestCase
{
    /** By panel: what loads it, the class that drives it, and the oldest PHP that the panel itself runs on. */
    private const PANELS = [
        'whmcs' => ['whmcs/load.php', 'Provisor\Tests\Whmcs\Shop', '7.4'],
        'fossbilling' => ['fossbilling/load.php', 'Provisor\Tests\Fossbilling\Orders', '8.1'],
        'paymenter' => ['paymenter/load.php', 'Provisor\Tests\Paymenter\Shop', '8.2'],
        'blesta' => ['blesta/load.php', 'Provisor\Tests\Blesta\Shop', '7.4'],
        'clientexec' => ['clientexec/load.php', 'Provisor\Tests\Clientexec\Shop', '7.4'],
        'wisecp' => ['wisecp/load.php', 'Provisor\Tests\Wisecp\Shop', '7.4'],
    ];
    private const VERSIONS = ['7.4', '8.0', '8.1', '8.2', '8.3', '8.4', '8.5'];
    private static ?Daemon $daemon = null;

    public static function tearDownAfterClass(): void
    {
        if (self::$daemon !== null) {
            self::$daemon->stop();
            self::$daemon = null;
        }
    }

    /** @dataProvider versions */
    public function testEveryFileIsReadable(string $version): void
    {
        $root = dirname(__DIR__, 3) . '/plugins';
        $folders = ["$root/php"];
        foreach (self::PANELS as $panel => [, , $oldest]) {
            if (version_compare($version, $oldest, '>=')) {
                $folders[] = "$root/$panel";
            }
        }
        $files = [];
        foreach ($folders as $folder) {
            foreach (new \RecursiveIteratorIterator(new \RecursiveDirectoryIterator($folder, \FilesystemIterator::SKIP_DOTS)) as $file) {
                if ($file instanceof \SplFileInfo && $file->getExtension() === 'php') {
                    $files[] = $file->getPathname();
                }
            }
        }
        self::assertGreaterThan(10, count($files));
        self::assertSame('', self::on($version, 'lint.php', $files));
    }

    /** @return array<string, array{string}> */
    public function versions(): array
    {
        $cases = [];
        foreach (self::VERSIONS as $version) {
            $cases["PHP $version"] = [$version];
        }
        return $cases;
    }

    /** @dataProvider panels */
    public function testEveryCallDoesTheSame(string $panel, string $version): void
    {
        $daemon = self::$daemon ??= Daemon::start();
        [$load, $class] = self::PANELS[$panel];
        $arguments = [dirname(__DIR__) . "/$load", $class, $daemon->address(), $daemon->newToken("$panel-$version")];
        $expected = self::here('scenario.php', $arguments);
        self::assertStringContainsString("machines create: done\n", $expected);
        self::assertStringContainsString("firewalls terminate: done\n", $expected);
        $arguments[3] = $daemon->newToken("$panel-$version-other");
        self::assertSame($expected, self::on($version, 'scenario.php', $arguments));
    }

    /** @return array<string, array{string, string}> */
    public function panels(): array
    {
        $cases = [];
        foreach (self::PANELS as $panel => [, , $oldest]) {
            foreach ([$oldest, '8.5'] as $version) {
                $cases["$panel on PHP $version"] = [$panel, $version];
            }
        }
        return $cases;
    }

    /**
     * What a script of bin/ prints on another PHP.
     *
     * @param list<string> $arguments
     */
    private static function on(string $version, string $script, array $arguments): string
    {
        $bin = dirname(__DIR__) . '/bin';
        $modules = dirname(__DIR__, 3) . '/target/php/node_modules';
        self::assertDirectoryExists($modules, 'run this suite with `tests/php/run --versions`, which installs what it needs');
        return self::printed(array_merge(['node', "$bin/wasm.mjs", $modules, $version, "$bin/$script"], $arguments), []);
    }

    /** @param list<string> $arguments */
    private static function here(string $script, array $arguments): string
    {
        return self::printed([PHP_BINARY, dirname(__DIR__) . "/bin/$script"], ['ARGUMENTS' => (string) json_encode($arguments)]);
    }

    /**
     * @param list<string>          $command
     * @param array<string, string> $environment
     */
    private static function printed(array $command, array $environment): string
    {
        $process = proc_open($command, [1 => ['pipe', 'w'], 2 => ['redirect', 1]], $pipes, null, $environment + getenv());
        self::assertNotFalse($process);
        /** @var array{1: resource} $pipes */
        $output = (string) stream_get_contents($pipes[1]);
        self::assertSame(0, proc_close($process), $output);
        return $output;
    }
}
