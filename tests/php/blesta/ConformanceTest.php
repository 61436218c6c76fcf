<?php

declare(strict_types=1);

namespace Provisor\Tests\Blesta;

use Provisor\Tests\Conformance;
use Provisor\Tests\Panel;

require_once __DIR__ . '/load.php';

final class ConformanceTest extends Conformance
{
    protected function makePanel(): Panel
    {
        return new Shop();
    }

    public function testAGatewayIsStoredOnceItIsSeenToWork(): void
    {
        $module = (new Shop())->module('');
        $vars = ['server_name' => 'Main', 'address' => self::daemon()->address(), 'token' => self::daemon()->token(), 'wait' => '999'];
        $meta = array_column((array) $module->addModuleRow($vars), null, 'key');
        self::assertFalse($module->Input->errors());
        self::assertSame([1, 0, '110'], [$meta['token']['encrypted'], $meta['address']['encrypted'], $meta['wait']['value']]);
        $vars['token'] = 'wrong';
        self::assertNull($module->editModuleRow(new \stdClass(), $vars));
        self::assertIsArray($module->Input->errors());
    }

    public function testPackageAndServiceFieldsComeFromTheGateway(): void
    {
        $shop = new Shop();
        $shop->connect(self::daemon()->address(), self::daemon()->token());
        $fields = $shop->module('')->getPackageFields((object) ['module_row' => 1, 'meta' => ['profile' => 'machines']])->all();
        self::assertSame('select', $fields['meta[profile]']->type);
        self::assertArrayHasKey('42', $fields['meta[plan]']->options);
        self::assertArrayHasKey('meta[option_quantity]', $fields);
        $package = (object) ['module_row' => 1, 'meta' => (object) ['profile' => 'firewalls', 'plan' => '10k']];
        self::assertSame(['domain'], array_keys($shop->module('')->getClientAddFields($package)->all()));
        $staff = $shop->module('')->getAdminAddFields($package)->all();
        self::assertMatchesRegularExpression('/^blesta-[0-9a-f]{32}$/D', $staff['provisor_key']->value);
        $again = $shop->module('')->getAdminAddFields($package, (object) ['provisor_key' => $staff['provisor_key']->value])->all();
        self::assertSame($staff['provisor_key']->value, $again['provisor_key']->value, 'a form sent again is the same service');
    }

    public function testTheTabShowsAccessDataOfMachinesAndTheLoginOfFirewalls(): void
    {
        $shop = new Shop();
        $shop->connect(self::daemon()->address(), self::daemon()->token());
        $this->panel = $shop;
        foreach ([['access', $this->machine(), '<table><tr>'], ['sign-on', $this->firewall(), '<form method="post" action="https://login.example/enter">']] as [$action, $order, $html]) {
            $id = $this->created($order);
            $shown = $shop->module($id)->tabClientService($shop->package($id), $shop->services[$id], [], ['provisor_action' => $action]);
            self::assertStringContainsString($html, $shown);
        }
    }

    public function testACustomerDoesNotReinstallUnlessThePackageAllowsIt(): void
    {
        $shop = new Shop();
        $shop->connect(self::daemon()->address(), self::daemon()->token());
        $this->panel = $shop;
        $id = $this->created($this->machine());
        $post = ['provisor_action' => 'reinstall', 'provisor_sure' => 'true'];
        foreach ([['0', $post, false], ['1', ['provisor_action' => 'reinstall'], false], ['1', $post, true]] as [$may, $sent, $isDone]) {
            $shop->settings[$id]['reinstall'] = $may;
            $module = $shop->module($id);
            $module->tabClientService($shop->package($id), $shop->services[$id], [], $sent);
            self::assertSame($isDone, $module->Input->errors() === false);
        }
    }
}
