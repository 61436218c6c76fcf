<?php

declare(strict_types=1);

namespace Provisor\Tests\Wisecp;

use Provisor\Tests\Conformance;
use Provisor\Tests\Panel;

require_once __DIR__ . '/load.php';

final class ProductTest extends Conformance
{
    protected function makePanel(): Panel
    {
        return new Shop(true);
    }

    public function testTheGatewayIsStoredOnceItIsSeenToWorkAndTheTokenEncoded(): void
    {
        $module = new \Provisor();
        $_POST = ['address' => self::daemon()->address(), 'token' => 'wrong', 'wait' => '25'];
        self::assertFalse(Shop::printed($module, 'controller_save')[0]);
        self::assertStringNotContainsString('wrong', print_r($module->config, true));
        $_POST = ['address' => self::daemon()->address(), 'token' => self::daemon()->token(), 'wait' => '999'];
        self::assertTrue(Shop::printed($module, 'controller_save')[0]);
        self::assertStringNotContainsString(self::daemon()->token(), print_r($module->config, true));
        self::assertStringNotContainsString(self::daemon()->token(), $module->configuration());
        $_POST = ['token' => '*****'] + $_POST;
        self::assertTrue(Shop::printed($module, 'controller_save')[0], 'the token stays');
        self::assertSame('110', \Provisor\Read::text(\Provisor\Read::map($module->config, 'settings'), 'wait'));
    }
}
