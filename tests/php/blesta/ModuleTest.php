<?php

declare(strict_types=1);

namespace Provisor\Tests\Blesta;

use PHPUnit\Framework\TestCase;

require_once __DIR__ . '/load.php';

/** What needs no gateway: keys, records without the module, and that pages appear. */
final class ModuleTest extends TestCase
{
    private Shop $shop;
    private string $id;

    protected function setUp(): void
    {
        $this->shop = new Shop();
        $this->shop->connect('http://127.0.0.1:1', 'some-token');
        $this->id = $this->shop->order(['profile' => 'machines', 'plan' => '42']);
    }

    public function testACustomerCannotChooseTheKey(): void
    {
        self::assertMatchesRegularExpression('/^blesta-[0-9a-f]{32}$/D', $this->shop->key($this->id));
        self::assertNotSame('blesta-' . str_repeat('0', 32), $this->shop->key($this->id));
        $other = $this->shop->order(['profile' => 'machines', 'plan' => '42']);
        self::assertNotSame($this->shop->key($this->id), $this->shop->key($other));
    }

    public function testWithoutTheModuleNothingIsAsked(): void
    {
        $module = $this->shop->module($this->id);
        foreach (['false', ''] as $use) {
            self::assertIsArray($module->addService($this->shop->package($this->id), ['use_module' => $use], null, null, 'active'));
            self::assertNull($module->editService($this->shop->package($this->id), $this->shop->services[$this->id], ['use_module' => $use, 'provisor_password' => 'x']));
        }
        self::assertSame([false, ''], [$module->Input->errors(), $module->written]);
    }

    public function testPagesAppearWithoutTheGateway(): void
    {
        $package = $this->shop->package($this->id);
        $module = $this->shop->module($this->id);
        $html = $module->tabClientService($package, $this->shop->services[$this->id]);
        self::assertStringNotContainsString('127.0.0.1', $html);
        self::assertStringContainsString('support', $html);
        $fields = $module->getPackageFields((object) ['meta' => ['profile' => 'machines', 'plan' => '42']])->all();
        self::assertSame(['text', '42'], [$fields['meta[plan]']->type, $fields['meta[plan]']->value]);
        self::assertSame([], $module->getClientAddFields($package)->all());
        self::assertSame(['provisor_password'], array_keys($module->getAdminEditFields($package)->all()));
    }

    public function testStaffsPagesEscapeWhatTheyShow(): void
    {
        $module = $this->shop->module($this->id);
        $vars = [];
        $row = (object) ['id' => 1, 'meta' => (object) ['server_name' => '<b>&"', 'address' => '<i>', 'token' => 'MARKED', 'wait' => '5']];
        $pages = [
            $module->manageModule((object) ['id' => 3, 'name' => 'Provisor', 'rows' => [$row], 'groups' => [(object) ['id' => 7, 'name' => '<u>']]], $vars),
            $module->manageAddRow($vars),
            $module->manageEditRow($row, $vars),
            $module->getAdminServiceInfo((object) ['fields' => [(object) ['key' => 'provisor_name', 'value' => '<b>']]], new \stdClass()),
        ];
        $all = implode('', $pages);
        foreach (['<b>', '<i>', '<u>', 'MARKED'] as $raw) {
            self::assertStringNotContainsString($raw, $all);
        }
        self::assertStringContainsString('&lt;b&gt;&amp;&quot;', $all);
    }

    public function testAPackageNamesProfileAndPlan(): void
    {
        $module = $this->shop->module($this->id);
        self::assertSame([], $module->addPackage(['meta' => ['profile' => 'machines', 'plan' => ' ']]));
        self::assertIsArray($module->Input->errors());
        $meta = $this->shop->module($this->id)->addPackage(['meta' => ['profile' => 'machines', 'plan' => '42', 'odd' => ['x']]]);
        self::assertSame(['profile', 'plan'], array_column($meta, 'key'));
    }

    public function testTheFirstRowOfAGroupIsTaken(): void
    {
        self::assertSame([1, 0], [$this->shop->module('')->selectModuleRow(7), $this->shop->module('')->selectModuleRow(8)]);
    }

    public function testEveryLanguageHasEveryText(): void
    {
        $keys = [];
        foreach (['en_us', 'de_de', 'es_es'] as $language) {
            $lang = [];
            require dirname(__DIR__, 3) . "/plugins/blesta/components/modules/provisor/language/$language/provisor.php";
            /** @var array<string, string> $lang */
            $keys[] = array_keys($lang);
            self::assertNotContains('', $lang);
        }
        self::assertSame([$keys[0], $keys[0]], [$keys[1], $keys[2]]);
    }
}
