<?php

declare(strict_types=1);

namespace Provisor\Tests\Wisecp;

use PHPUnit\Framework\TestCase;

require_once __DIR__ . '/load.php';

/** What needs no gateway: pages appear, and every button has its method. */
final class ModuleTest extends TestCase
{
    /** @return list<array{bool}> */
    public static function kinds(): array
    {
        return [[false], [true]];
    }

    /** @dataProvider kinds */
    public function testPagesAppearWithoutTheGateway(bool $isProduct): void
    {
        $shop = new Shop($isProduct);
        $shop->connect('http://127.0.0.1:1', 'some-token');
        $id = $shop->order(['profile' => 'machines', 'plan' => '42']);
        $module = $shop->module($id);
        self::assertStringNotContainsString('127.0.0.1', $module->clientArea());
        self::assertSame([[], []], [$module->clientArea_buttons(), $module->adminArea_buttons()]);
        $options = $module->config_options(['plan' => 'machines|42']);
        self::assertSame('machines|42', $options['plan']['value']);
        $folder = dirname((string) (new \ReflectionClass($module))->getFileName()) . '/pages';
        $order = $shop->orders[$id];
        ob_start();
        foreach (glob("$folder/*.php") ?: [] as $page) {
            if (basename($page) !== 'configuration.php') {
                (static function (string $page, array $variables): void {
                    extract($variables);
                    require $page;
                })($page, ['module' => $module, 'order' => $order]);
            }
        }
        self::assertNotSame('', ob_get_clean());
    }

    public function testEveryButtonHasItsMethod(): void
    {
        foreach (['start', 'stop', 'reboot', 'reinstall', 'access', 'SingleSignOn'] as $name) {
            foreach (['clientArea', 'adminArea'] as $area) {
                self::assertTrue(method_exists(\Provisor_Module::class, "use_{$area}_$name"), "$area $name");
            }
        }
    }

    public function testTheServersAddress(): void
    {
        $cases = [
            [['ip' => '127.0.0.1', 'port' => '7070'], 'http://127.0.0.1:7070'],
            [['ip' => '192.0.2.7', 'name' => 'gateway.example', 'secure' => true, 'port' => ''], 'https://gateway.example:443'],
            [['ip' => '2001:db8::1', 'port' => 80], 'http://[2001:db8::1]:80'],
            [['ip' => '127.0.0.1', 'name' => 'unix:/run/provisor/gateway.sock'], 'unix:/run/provisor/gateway.sock'],
        ];
        foreach ($cases as [$server, $address]) {
            $settings = new \ReflectionMethod(\Provisor_Module::class, 'provisorSettings');
            $settings->setAccessible(true);
            $found = $settings->invoke(new \Provisor_Module($server));
            self::assertSame($address, is_array($found) ? $found['address'] : null);
        }
    }

    public function testEveryLanguageHasEveryText(): void
    {
        foreach (['Servers', 'Product'] as $kind) {
            $keys = [];
            foreach (['en', 'de', 'es'] as $language) {
                $texts = require dirname(__DIR__, 3) . "/plugins/wisecp/coremio/modules/$kind/Provisor/lang/$language.php";
                self::assertIsArray($texts);
                self::assertNotContains('', $texts);
                $keys[] = array_keys($texts);
            }
            self::assertSame([$keys[0], $keys[0]], [$keys[1], $keys[2]]);
        }
    }
}
