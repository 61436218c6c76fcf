<?php

declare(strict_types=1);

namespace Provisor\Tests\Client;

use PHPUnit\Framework\TestCase;
use Provisor\Gateway;
use Provisor\Problem;
use Provisor\Read;
use Provisor\Tests\Daemon;

final class GatewayTest extends TestCase
{
    private static ?Daemon $daemon = null;

    public static function tearDownAfterClass(): void
    {
        if (self::$daemon !== null) {
            self::$daemon->stop();
            self::$daemon = null;
        }
    }

    public function testAChangeIsMadeOnceAndItsServiceRead(): void
    {
        $gateway = self::gateway();
        $order = ['profile' => Daemon::MACHINES, 'plan' => '42', 'domain' => null, 'options' => []];
        $answer = $gateway->change('client-1', 'create', $order);
        self::assertTrue($answer->isDone());
        self::assertFalse($answer->isPending());
        self::assertSame('create', $answer->operation()['operation']);
        self::assertSame('active', $gateway->service('client-1')['state']);
        self::assertSame('active', $gateway->service('client-1', true)['state']);
        self::assertSame($answer->operation()['id'], $gateway->operation(Read::text($answer->operation(), 'id'))['id']);
        self::assertSame('root', $gateway->credentials('client-1')['username']);
        self::assertNotSame([], Read::maps($gateway->invoices('client-1'), 'invoices'));
        self::assertCount(1, Read::maps($gateway->services(['profile' => Daemon::MACHINES, 'limit' => 1]), 'services'));
        self::assertTrue($gateway->check(Daemon::FIREWALLS)['ok']);
        self::assertContains('42', array_column(Read::maps($gateway->catalog(Daemon::MACHINES, true), 'plans'), 'id'));
        self::assertContains(Daemon::MACHINES, array_column($gateway->profiles(), 'name'));
    }

    public function testAKeyMakesTwoRequestsOneChange(): void
    {
        $gateway = self::gateway();
        $gateway->change('client-2', 'create', ['profile' => Daemon::MACHINES, 'plan' => '42']);
        $first = $gateway->change('client-2', 'power', ['action' => 'reboot'], 25, 'press-1');
        $again = $gateway->change('client-2', 'power', ['action' => 'reboot'], 25, 'press-1');
        $other = $gateway->change('client-2', 'power', ['action' => 'reboot'], 25, 'press-2');
        self::assertSame($first->operation()['id'], $again->operation()['id']);
        self::assertNotSame($first->operation()['id'], $other->operation()['id']);
    }

    public function testAProblemSaysWhatItIs(): void
    {
        $problem = self::problem(static function (): void {
            self::gateway()->change('client-3', 'create', ['profile' => Daemon::FIREWALLS, 'plan' => '10k', 'domain' => 'a.example.com', 'password' => 'Xk9!vQ2z-Lm4']);
        });
        self::assertSame(['invalid', 422, 'none', 'email'], [$problem->kind(), $problem->status(), $problem->effect(), $problem->field()]);
        self::assertTrue($problem->isNotExecuted());
        self::assertNotNull($problem->operationId());
        self::assertStringContainsString((string) $problem->operationId(), $problem->staffText());
        self::assertSame('Bitte warten.', $problem->customerText('Bitte warten.'));
        $unknown = self::problem(static function (): void {
            self::gateway()->change('client-unknown', 'terminate');
        });
        self::assertSame(['not-found', 404], [$unknown->kind(), $unknown->status()]);
    }

    public function testAWrongTokenIsUnauthorized(): void
    {
        $problem = self::problem(static function (): void {
            (new Gateway(self::daemon()->address(), 'MARKED-token'))->profiles();
        });
        self::assertSame(['unauthorized', 401, 'none'], [$problem->kind(), $problem->status(), $problem->effect()]);
        self::assertStringNotContainsString('MARKED', $problem->staffText() . $problem->customerText());
    }

    public function testALostAnswerLeavesItUnknown(): void
    {
        $lossy = self::daemon()->lossy();
        $gateway = new Gateway($lossy->address(), self::daemon()->token());
        $lossy->lose(1);
        $problem = self::problem(static function () use ($gateway): void {
            $gateway->change('client-4', 'create', ['profile' => Daemon::MACHINES, 'plan' => '42']);
        });
        self::assertSame(['unreachable', 0, 'unknown'], [$problem->kind(), $problem->status(), $problem->effect()]);
        self::assertFalse($problem->isNotExecuted());
        self::assertTrue($gateway->change('client-4', 'create', ['profile' => Daemon::MACHINES, 'plan' => '42'])->isDone());
    }

    /** @dataProvider unreachable */
    public function testWithoutAGatewayNothingWasDone(string $address): void
    {
        $problem = self::problem(static function () use ($address): void {
            (new Gateway($address, 'token', 0.5))->change('client-5', 'create', []);
        });
        self::assertSame(['unreachable', 0, 'none'], [$problem->kind(), $problem->status(), $problem->effect()]);
    }

    /** @return array<string, array{string}> */
    public function unreachable(): array
    {
        return [
            'nobody listens' => ['http://127.0.0.1:1'],
            'no such socket' => ['unix:/nonexistent/gateway.sock'],
            'no such host' => ['http://gateway.invalid'],
            'no TLS there' => ['https://' . substr(self::daemon()->address(), strlen('http://'))],
        ];
    }

    /** @dataProvider refused */
    public function testWhatCannotBeSentIsRefusedBefore(string $address, string $token, string $key, ?string $idempotencyKey): void
    {
        $problem = self::problem(static function () use ($address, $token, $key, $idempotencyKey): void {
            (new Gateway($address, $token))->change($key, 'suspend', [], 0, $idempotencyKey);
        });
        self::assertContains($problem->kind(), ['invalid', 'unauthorized']);
        self::assertSame([0, 'none'], [$problem->status(), $problem->effect()]);
    }

    /** @return array<string, array{string, string, string, ?string}> */
    public function refused(): array
    {
        $address = 'http://127.0.0.1:1';
        return [
            'no scheme' => ['127.0.0.1:7070', 'token', 'a', null],
            'another scheme' => ['ftp://127.0.0.1', 'token', 'a', null],
            'a user in it' => ['http://user:secret@127.0.0.1', 'token', 'a', null],
            'a line break in it' => ["http://127.0.0.1\n", 'token', 'a', null],
            'no token' => [$address, '', 'a', null],
            'a second header in the token' => [$address, "token\r\nX-Other: 1", 'a', null],
            'no key' => [$address, 'token', '', null],
            'a path as key' => [$address, 'token', '../profiles', null],
            'a line break in the key' => [$address, 'token', "a\n", null],
            'a long key' => [$address, 'token', str_repeat('a', 129), null],
            'a second header in the idempotency key' => [$address, 'token', 'a', "b\r\nX-Other: 1"],
        ];
    }

    /** Keys that are special in a path reach the gateway as what they are. */
    public function testKeysOfDotsAreKeys(): void
    {
        foreach (['.', '..', 'a:b', 'a..b'] as $key) {
            $problem = self::problem(static function () use ($key): void {
                self::gateway()->service($key);
            });
            self::assertSame(404, $problem->status());
            self::assertStringContainsString("`$key`", $problem->staffText(), 'the gateway was asked for this key');
        }
    }

    public function testAnotherServersAnswerIsNoSuccess(): void
    {
        // The provider's own server: it speaks HTTP and JSON, and knows none of our addresses.
        $problem = self::problem(static function (): void {
            (new Gateway(self::daemon()->providerAddress(), 'token'))->change('client-6', 'suspend');
        });
        self::assertSame(['protocol', 'none'], [$problem->kind(), $problem->effect()]);
    }

    public function testAUnixSocketServesAsWell(): void
    {
        $daemon = self::daemon();
        $daemon->restartGatewayOn("unix:{$daemon->folder()}/gateway.sock");
        try {
            self::assertNotSame([], self::gateway()->profiles());
        } finally {
            $daemon->restartGatewayOn('127.0.0.1:0');
        }
    }

    public function testNoPrintShowsTheToken(): void
    {
        $gateway = new Gateway('http://127.0.0.1:1', 'MARKED-token');
        ob_start();
        var_dump($gateway);
        $shown = ob_get_clean() . print_r($gateway, true);
        try {
            $gateway->change('a', 'reset-password', ['password' => 'MARKED-password']);
            self::fail('nobody listens');
        } catch (Problem $problem) {
            $shown .= $problem->getMessage();
            // Since PHP 8.2 traces leave marked arguments out.
            $shown .= PHP_VERSION_ID >= 80200 ? print_r($problem->getTrace(), true) : '';
        }
        self::assertStringNotContainsString('MARKED', $shown);
        $this->expectException(\LogicException::class);
        serialize($gateway);
    }

    public function testTextsAreCutAndCleaned(): void
    {
        self::assertSame('äöü<b>', Read::shortened("äöü<b>\x00\n", 10));
        self::assertSame('äöü…', Read::shortened('äöüäöü', 4));
        self::assertSame('äöüä', Read::shortened('äöüä', 4));
        self::assertSame('bad?', Read::shortened("bad\xff", 10));
        $problem = new Problem('refused', str_repeat('漢', 10240), 'unknown');
        self::assertLessThan(4096, strlen($problem->staffText()));
        self::assertSame(1, preg_match('//u', $problem->staffText()));
    }

    private static function daemon(): Daemon
    {
        return self::$daemon ??= Daemon::start();
    }

    private static function gateway(): Gateway
    {
        return new Gateway(self::daemon()->address(), self::daemon()->token());
    }

    private static function problem(callable $work): Problem
    {
        try {
            $work();
        } catch (Problem $problem) {
            return $problem;
        }
        self::fail('this should have failed');
    }
}
