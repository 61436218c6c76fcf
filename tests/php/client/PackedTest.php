<?php

declare(strict_types=1);

namespace Provisor\Tests\Client;

use PHPUnit\Framework\TestCase;
use Provisor\Tests\Daemon;

require_once dirname(__DIR__) . '/bootstrap.php';

/** What is installed: each zip alone, beside nothing of the repository but the panel's stand-ins. */
final class PackedTest extends TestCase
{
    private const LOADED = [
        'whmcs' => 'modules/servers/provisor/lib/load.php',
        'fossbilling' => 'library/Server/Manager/Provisor.php',
        'paymenter' => 'extensions/Servers/Provisor/Provisor.php',
        'blesta' => 'components/modules/provisor/provisor.php',
        'clientexec' => 'plugins/server/provisor/PluginProvisor.php',
        'wisecp' => 'coremio/modules/Product/Provisor/Provisor.php',
    ];
    private static string $folder = '';

    public static function setUpBeforeClass(): void
    {
        self::$folder = Daemon::temporaryFolder();
        $pack = dirname(__DIR__, 3) . '/plugins/pack';
        exec('CARGO_TARGET_DIR=' . escapeshellarg(self::$folder) . ' ' . escapeshellarg($pack) . ' 2>&1', $output, $code);
        self::assertSame(0, $code, implode("\n", $output));
    }

    public static function tearDownAfterClass(): void
    {
        Daemon::remove(self::$folder);
    }

    public function testEveryPanelIsPacked(): void
    {
        $panels = array_map('basename', array_map('dirname', glob(dirname(__DIR__, 3) . '/plugins/*/pack.txt') ?: []));
        self::assertEqualsCanonicalizing(array_keys(self::LOADED), $panels);
    }

    /** @dataProvider panels */
    public function testAZipNeedsNothingElse(string $panel, string $file): void
    {
        $zips = (array) glob(self::$folder . "/plugins/provisor-$panel-*.zip");
        self::assertCount(1, $zips);
        $unpacked = self::$folder . "/$panel";
        exec('unzip -q ' . escapeshellarg((string) $zips[0]) . ' -d ' . escapeshellarg($unpacked), $output, $code);
        self::assertSame(0, $code);
        $stubs = dirname(__DIR__) . "/stubs/$panel/$panel.php";
        $code = 'require $argv[1]; require $argv[2];'
            . 'foreach (["Gateway", "Service"] as $name) echo (new ReflectionClass("Provisor\\\\$name"))->getFileName(), "\n";';
        exec('php -d error_reporting=-1 -r ' . escapeshellarg($code) . ' ' . escapeshellarg($stubs) . ' ' . escapeshellarg("$unpacked/$file") . ' 2>&1', $loaded, $status);
        self::assertSame(0, $status, implode("\n", $loaded));
        self::assertCount(2, $loaded, implode("\n", $loaded));
        foreach ($loaded as $path) {
            self::assertStringStartsWith("$unpacked/", $path);
        }
        self::assertStringContainsString("\n5. ", (string) file_get_contents("$unpacked/README.md"), 'installed in five steps');
        self::assertStringNotContainsString("\n6. ", (string) file_get_contents("$unpacked/README.md"));
    }

    /** @return array<string, array{string, string}> */
    public static function panels(): array
    {
        $cases = [];
        foreach (self::LOADED as $panel => $file) {
            $cases[$panel] = [$panel, $file];
        }
        return $cases;
    }
}
