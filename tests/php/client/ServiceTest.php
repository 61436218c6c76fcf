<?php

declare(strict_types=1);

namespace Provisor\Tests\Client;

use PHPUnit\Framework\TestCase;
use Provisor\Gateway;
use Provisor\Problem;
use Provisor\Read;
use Provisor\Service;
use Provisor\Tests\Daemon;

require_once dirname(__DIR__) . '/bootstrap.php';

/** What panels are spared: repeated charges, passwords to be made up, pages to be escaped. */
final class ServiceTest extends TestCase
{
    private static ?Daemon $daemon = null;
    private static int $last = 0;

    public static function setUpBeforeClass(): void
    {
        self::$daemon = Daemon::start();
    }

    public static function tearDownAfterClass(): void
    {
        self::daemon()->stop();
        self::$daemon = null;
    }

    public function testOnePlanIsPaidOnce(): void
    {
        $service = $this->firewall();
        $charges = [];
        foreach (['20k', '20k', '40k'] as $plan) {
            $before = self::daemon()->charged();
            self::assertSame($plan, Read::text($service->changePackage($plan), 'plan'));
            $charges[] = self::daemon()->charged() - $before;
        }
        self::assertGreaterThan(0, $charges[0]);
        self::assertSame(0, $charges[1], 'the same plan again');
        $operations = Read::maps(self::gateway(self::daemon()->token())->operations(['service' => 'service-' . self::$last]), 'operations');
        $sent = array_keys(array_column($operations, 'operation'), 'change-package', true);
        self::assertCount(2, $sent, 'the same plan again is not even asked for');
        self::assertGreaterThan(0, $charges[2]);
    }

    public function testAPlanThatAProviderCannotChangeIsRefused(): void
    {
        $service = $this->machine();
        $this->expectExceptionMessage('cannot change the plan');
        $service->changePackage('42');
    }

    public function testAnOrderNamesProfileAndPlan(): void
    {
        foreach ([['profile' => '', 'plan' => '42'], ['profile' => 'machines', 'plan' => '']] as $order) {
            try {
                $this->service()->create($order);
                self::fail('ordered');
            } catch (Problem $problem) {
                self::assertSame(['invalid', 0, true], [$problem->kind(), $problem->status(), $problem->isNotExecuted()]);
            }
        }
    }

    public function testOptionsOfTheOrderItselfAreNotSentAsOptions(): void
    {
        $service = $this->service();
        $options = ['plan' => '999999', 'profile' => 'firewalls', 'password' => 'x', 'quantity' => ' ', 'hostname' => 'a.example.com'];
        $made = $service->create(['profile' => 'machines', 'plan' => '42', 'options' => $options]);
        self::assertSame(['machines', '42'], [Read::text($made, 'profile'), Read::text($made, 'plan')]);
    }

    public function testTakesOverWhatIsThere(): void
    {
        // Around the journal: somebody ordered it in the provider's own pages.
        $made = self::daemon()->gateway(['call', '--profile', Daemon::MACHINES, 'create', '--plan', '42'])[0] ?? [];
        $remote = Read::text(Read::map($made, 'service'), 'remote_id');
        self::assertNotSame('', $remote);
        $charged = self::daemon()->charged();
        $service = $this->service();
        // An order becomes a service while we look, and then has another id.
        self::assertNotSame('', Read::text($service->adopt('machines', $remote), 'remote_id'));
        self::assertSame($charged, self::daemon()->charged(), 'nothing was ordered');
        self::assertSame('active', Read::text($service->view(), 'state'));
    }

    public function testOffersFollowProviderStateAndReader(): void
    {
        $machine = $this->machine();
        $view = $machine->view();
        self::assertSame(['start', 'stop', 'reboot', 'reinstall', 'change-password', 'access'], $machine->offers($view, false));
        self::assertSame(['start', 'stop', 'reboot', 'change-password', 'access'], $machine->offers($view, true));
        self::assertContains('reinstall', $machine->offers($view, true, true));
        $machine->suspend();
        self::assertSame([], $machine->offers($machine->view(), true, true), 'a suspended customer');
        $firewall = $this->firewall();
        self::assertSame(['change-password', 'sign-on'], $firewall->offers($firewall->view(), true));
    }

    public function testPages(): void
    {
        self::assertMatchesRegularExpression('~<table><tr><th>Username</th><td><code>[^<]+</code>~', $this->machine()->page('access', true));
        $page = $this->firewall()->page('sign-on', true);
        self::assertStringContainsString('action="https://login.example/enter"', $page);
        self::assertStringContainsString('submit()', $page);
        self::assertSame('https://login.example/enter', $this->firewall()->loginAddress(true));
        foreach (['sign-on', 'reboot', 'nothing'] as $what) {
            try {
                $this->machine()->page($what, true);
                self::fail("$what is no page of a machine");
            } catch (Problem $problem) {
                self::assertSame('unsupported', $problem->kind());
            }
        }
    }

    public function testRowsTellCustomersLess(): void
    {
        $service = ['state' => 'active', 'remote_id' => 'x/1', 'profile' => 'machines', 'addresses' => ['192.0.2.1'], 'drift' => ['kind' => 'gone', 'since' => 'now']];
        self::assertSame(['State' => 'active', 'Addresses' => '192.0.2.1'], Service::rows($service, true));
        self::assertSame('2027-01-15', Service::rows(['due_at' => '2027-01-15T02:38:31Z'], true)['Paid until']);
        self::assertSame('gone now', Service::rows($service, false)['Drift']);
        self::assertSame('x/1', Service::rows($service, false)['Provider\'s id']);
    }

    public function testMadeUpPasswordsDifferAndHaveEveryKindOfCharacter(): void
    {
        $passwords = [];
        for ($time = 0; $time < 200; $time++) {
            $password = Service::newPassword();
            self::assertMatchesRegularExpression('/^(?=.*[a-z])(?=.*[A-Z])(?=.*[0-9])(?=.*[-_])[A-Za-z0-9_-]{20}$/D', $password);
            $passwords[$password] = true;
        }
        self::assertCount(200, $passwords);
    }

    public function testNoMarkupSurvives(): void
    {
        self::assertSame('‹b›”’’', Service::plain('<b>"\'`'));
        self::assertSame('&lt;b&gt;&quot;&#039;', Service::html('<b>"\''));
    }

    public function testAChangeUnderWayIsNoSuccessAndNotUndone(): void
    {
        $slow = Daemon::start(['PROVISOR_SERVER__FULFILMENT__MODE' => 'manual']);
        try {
            $service = new Service(new Gateway($slow->address(), $slow->token()), 'slow-1', 'test', 0);
            $service->create(['profile' => 'machines', 'plan' => '42']);
            self::fail('it is not there yet');
        } catch (Problem $problem) {
            self::assertSame([Service::PENDING, false], [$problem->kind(), $problem->isNotExecuted()]);
            self::assertNotNull($problem->operationId());
            self::assertStringContainsString('in progress', $problem->customerText());
        } finally {
            $slow->stop();
        }
    }

    private function machine(): Service
    {
        $service = $this->service();
        $service->create(['profile' => 'machines', 'plan' => '42', 'email' => 'customer@example.com']);
        return $service;
    }

    private function firewall(): Service
    {
        $service = $this->service();
        $domain = 'site-' . bin2hex(random_bytes(6)) . '.example.com';
        // Without a password: one is made up.
        $service->create(['profile' => 'firewalls', 'plan' => '10k', 'domain' => $domain, 'email' => 'customer@example.com']);
        return $service;
    }

    private function service(): Service
    {
        return new Service(self::gateway(self::daemon()->token()), 'service-' . ++self::$last, 'test');
    }

    private static function gateway(string $token): Gateway
    {
        return new Gateway(self::daemon()->address(), $token);
    }

    private static function daemon(): Daemon
    {
        self::assertNotNull(self::$daemon);
        return self::$daemon;
    }
}
