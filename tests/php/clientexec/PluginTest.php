<?php

declare(strict_types=1);

namespace Provisor\Tests\Clientexec;

use PHPUnit\Framework\TestCase;

require_once __DIR__ . '/load.php';

/** What needs no gateway: that each action has its function, and what cannot be changed. */
final class PluginTest extends TestCase
{
    private Shop $shop;

    protected function setUp(): void
    {
        $this->shop = new Shop();
        $this->shop->connect('http://127.0.0.1:1', 'some-token');
    }

    public function testEveryActionHasItsFunction(): void
    {
        $variables = $this->shop->plugin(true)->getVariables();
        foreach (['Actions', 'Registered Actions For Customer'] as $name) {
            $actions = $variables[$name]['value'];
            self::assertIsString($actions);
            foreach (explode(',', $actions) as $action) {
                self::assertTrue(method_exists(\PluginProvisor::class, "do$action"), $action);
            }
        }
        self::assertStringNotContainsString('Reinstall', json_encode($variables['Registered Actions For Customer'], JSON_THROW_ON_ERROR));
        self::assertTrue($variables['Token']['encryptable']);
    }

    public function testUserNameDomainAndAddressStay(): void
    {
        $id = $this->shop->order(['profile' => 'machines', 'plan' => '42']);
        foreach (['username', 'domain', 'ip'] as $field) {
            try {
                $this->shop->plugin(true)->doUpdate(['userPackageId' => $id, 'changes' => [$field => 'other']]);
                self::fail("$field was changed");
            } catch (\CE_Exception $error) {
                self::assertStringContainsString($field, $error->getMessage());
            }
        }
    }

    public function testTheProductsPageAppearsWithoutTheGateway(): void
    {
        $plans = $this->shop->plugin(true)->getPlans('1');
        self::assertSame([''], array_keys($plans));
        self::assertStringContainsString('does not answer', $plans['']);
        $this->expectException(\CE_Exception::class);
        $this->shop->plugin(true)->testConnection(['server' => ['variables' => \Server::$variables]]);
    }
}
