<?php

declare(strict_types=1);

namespace Provisor\Tests\Clientexec;

use Provisor\Tests\Conformance;
use Provisor\Tests\Panel;
use UserPackage;

require_once __DIR__ . '/load.php';

final class ConformanceTest extends Conformance
{
    protected function makePanel(): Panel
    {
        return new Shop();
    }

    public function testButtonsFollowTheState(): void
    {
        $id = $this->panel->order($this->machine());
        self::assertSame(['create'], $this->panel->offers($id));
        $this->succeeds($id, 'create');
        self::assertSame(['suspend', 'terminate', 'start', 'stop', 'reboot'], $this->panel->offers($id));
        $this->succeeds($id, 'suspend');
        self::assertSame(['unsuspend', 'terminate'], $this->panel->offers($id));
        $this->succeeds($id, 'terminate');
        self::assertSame(['create'], $this->panel->offers($id));
    }

    public function testWithoutTheGatewayNoButtonCreates(): void
    {
        $id = $this->created($this->machine());
        $this->panel->connect('http://127.0.0.1:1', self::daemon()->token());
        self::assertSame([], $this->panel->offers($id));
    }

    public function testReinstallingIsOffUnlessTheServerSaysSo(): void
    {
        $id = $this->created($this->machine());
        $this->fails($id, 'reinstall');
        UserPackage::$packages[(int) $id]['server'] = ['plugin_provisor_Offer_Reinstall' => '1'];
        self::assertContains('reinstall', $this->panel->offers($id));
        $this->succeeds($id, 'reinstall');
    }

    public function testPlansOfAllProfilesAreOffered(): void
    {
        $plugin = (new Shop())->plugin(true);
        $plugin->testConnection(['server' => ['variables' => \Server::$variables]]);
        $plans = $plugin->getPlans(1);
        self::assertArrayHasKey('machines|42', $plans);
        self::assertArrayHasKey('firewalls|10k', $plans);
    }

    public function testTheLinkLeadsToTheLoginPage(): void
    {
        $id = (int) $this->created($this->firewall());
        $plugin = (new \ReflectionClass(\PluginProvisor::class))->newInstance();
        self::assertSame('https://login.example/enter', $plugin->getDirectLink(new UserPackage($id))['link']);
        self::assertSame('panellogin', $plugin->getDirectLink(new UserPackage($id), true, true)['cmd'] ?? '');
        self::assertSame('https://login.example/enter', $plugin->dopanellogin(['userPackageId' => (string) $id]));
        self::assertStringContainsString("packageId=$id", $plugin->getDirectLink(new UserPackage($id), false)['link']);
    }
}
