<?php

declare(strict_types=1);

namespace Provisor\Tests\Wisecp;

use Provisor\Tests\Conformance;
use Provisor\Tests\Panel;

require_once __DIR__ . '/load.php';

final class ServersTest extends Conformance
{
    protected function makePanel(): Panel
    {
        return new Shop(false);
    }

    public function testTheServerIsTested(): void
    {
        $shop = $this->shop();
        $module = $shop->module();
        self::assertInstanceOf(\Provisor_Module::class, $module);
        self::assertTrue($module->testConnect());
        $shop->connect('http://127.0.0.1:1', 'some-token');
        $module = $shop->module();
        self::assertInstanceOf(\Provisor_Module::class, $module);
        self::assertFalse($module->testConnect());
        self::assertStringContainsString('does not answer', $module->error);
    }

    public function testTheStateIsShown(): void
    {
        $shop = $this->shop();
        $id = $this->created($this->machine());
        self::assertTrue($shop->module($id)->get_status());
        $this->succeeds($id, 'stop');
        self::assertFalse($shop->module($id)->get_status());
        self::assertStringContainsString('<th>State</th><td>active</td>', $shop->module($id)->clientArea());
        self::assertArrayHasKey('provisor_state', $shop->module($id)->adminArea_service_fields());
        self::assertMatchesRegularExpression('/^[0-9a-f.:]+$/', \Provisor\Read::text(\Provisor\Read::map($shop->orders[$id], 'options'), 'ip'));
    }

    public function testPagesWithPasswords(): void
    {
        $shop = $this->shop();
        $machine = $this->created($this->machine());
        [$isDone, $html] = Shop::printed($shop->module($machine), 'use_clientArea_access');
        self::assertTrue($isDone);
        self::assertStringContainsString('<table><tr>', $html);
        $firewall = $this->created($this->firewall());
        [$isDone, $html] = Shop::printed($shop->module($firewall), 'use_clientArea_SingleSignOn');
        self::assertTrue($isDone);
        self::assertStringContainsString('<form method="post" action="https://login.example/enter">', $html);
        self::assertFalse(Shop::printed($shop->module($machine), 'use_clientArea_SingleSignOn')[0]);
    }

    public function testAReinstallationIsAllowedAndConfirmed(): void
    {
        $shop = $this->shop();
        $id = $this->created($this->machine());
        $_POST = ['provisor_sure' => 'true'];
        self::assertFalse(Shop::printed($shop->module($id), 'use_clientArea_reinstall')[0], 'not allowed');
        $options = \Provisor\Read::map($shop->orders[$id], 'options');
        $shop->orders[$id]['options'] = ['creation_info' => ['reinstall' => '1'] + \Provisor\Read::map($options, 'creation_info')] + $options;
        $_POST = [];
        self::assertStringContainsString('<form', Shop::printed($shop->module($id), 'use_clientArea_reinstall')[1], 'asked first');
        $_POST = ['provisor_sure' => 'true'];
        self::assertStringContainsString('successful', Shop::printed($shop->module($id), 'use_clientArea_reinstall')[1]);
    }

    public function testAProductsSettingsComeFromTheGateway(): void
    {
        $module = $this->shop()->module();
        self::assertArrayHasKey('machines|42', \Provisor\Read::map($module->config_options()['plan'], 'options'));
        self::assertArrayHasKey('option_quantity', $module->config_options(['plan' => 'machines|42']));
        self::assertArrayNotHasKey('option_domain', $module->config_options(['plan' => 'firewalls|10k']));
    }

    private function shop(): Shop
    {
        self::assertInstanceOf(Shop::class, $this->panel);
        return $this->panel;
    }
}
