<?php

declare(strict_types=1);

namespace Provisor\Tests\Paymenter;

use Provisor\Read;
use Provisor\Tests\Conformance;
use Provisor\Tests\Panel;

require_once __DIR__ . '/load.php';

final class ConformanceTest extends Conformance
{
    protected function makePanel(): Panel
    {
        return new Shop();
    }

    public function testWhatIsOfferedAtTheProductComesFromTheGateway(): void
    {
        $shop = new Shop();
        $shop->connect(self::daemon()->address(), self::daemon()->token());
        self::assertTrue($shop->extension()->testConfig());
        $settings = array_column($shop->extension()->getProductConfig(['profile' => 'machines']), null, 'name');
        self::assertSame('select', $settings['profile']['type']);
        self::assertEqualsCanonicalizing(['machines', 'firewalls'], array_keys(Read::map($settings['profile'], 'options')));
        self::assertArrayHasKey('42', Read::map($settings['plan'], 'options'));
        self::assertArrayHasKey('option_quantity', $settings);
        self::assertArrayHasKey('option_hostname', $settings);
        $asked = $shop->extension()->getCheckoutConfig(new \App\Models\Product(), [], ['profile' => 'firewalls']);
        self::assertSame(['domain'], array_column($asked, 'name'));
        self::assertTrue($asked[0]['required']);
    }

    public function testAReinstallationIsConfirmed(): void
    {
        $shop = new Shop();
        $shop->connect(self::daemon()->address(), self::daemon()->token());
        $this->panel = $shop;
        $id = $this->created($this->machine());
        self::assertNotContains('reinstall', $shop->offers($id));
        $shop->services[$id]->product->settings['customer_may_reinstall'] = '1';
        self::assertFalse($shop->call($id, 'reinstallConfirmed')->isSuccess, 'not asked for');
        self::assertContains('reinstall', $shop->offers($id));
        self::assertTrue($shop->call($id, 'reinstall')->isSuccess);
        self::assertContains('reinstallConfirmed', $shop->offers($id));
        self::assertTrue($shop->call($id, 'reinstallConfirmed')->isSuccess);
        self::assertNotContains('reinstallConfirmed', $shop->offers($id));
    }
}
