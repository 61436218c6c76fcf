<?php

declare(strict_types=1);

namespace Provisor\Tests\Paymenter;

use App\Exceptions\DisplayException;
use App\Jobs;
use App\Models\Product;
use App\Models\Service;
use Illuminate\Support\Facades\Route;
use Paymenter\Extensions\Servers\Provisor\PageController;
use PHPUnit\Framework\TestCase;
use Provisor\Tests\Daemon;

require_once __DIR__ . '/load.php';

/** What needs no gateway: which saved services are renewals, and that pages appear without it. */
final class ExtensionTest extends TestCase
{
    private Shop $shop;
    private string $id;

    protected function setUp(): void
    {
        $this->shop = new Shop();
        $this->shop->connect('http://127.0.0.1:1', 'some-token');
        $this->id = $this->shop->order(['profile' => Daemon::MACHINES, 'plan' => '42']);
    }

    public function testAPaidTermIsARenewalOfTheDateBefore(): void
    {
        $this->shop->services[$this->id]->status = Service::STATUS_SUSPENDED;
        $this->shop->renew($this->id, '2027-01-15', '2027-02-20');
        self::assertCount(1, Jobs::$dispatched);
        self::assertSame('2027-01-15', Jobs::$dispatched[0]->dueDate);
        self::assertGreaterThan(1, Jobs::$dispatched[0]->tries);
    }

    public function testNoOtherSavedServiceIsARenewal(): void
    {
        $this->shop->renew($this->id, '2027-01-15', '2027-02-15');
        self::assertSame([], Jobs::$dispatched, 'the first payment');
        $this->shop->renew($this->id, '2027-02-15', '2027-02-15');
        $this->shop->renew($this->id, '2027-02-15', '2027-01-15');
        self::assertSame([], Jobs::$dispatched, 'no later date');
        self::assertNotNull($this->shop->services[$this->id]->product->server);
        $this->shop->services[$this->id]->product->server->extension = 'Other';
        $this->shop->renew($this->id, '2027-02-15', '2027-03-15');
        self::assertSame([], Jobs::$dispatched, 'not ours');
        $this->shop->services[$this->id]->product->server = null;
        $this->shop->renew($this->id, '2027-02-15', '2027-03-15');
        self::assertSame([], Jobs::$dispatched, 'no server');
    }

    public function testPagesAppearWithoutTheGateway(): void
    {
        self::assertStringContainsString('does not answer', (string) $this->shop->extension()->testConfig());
        $types = array_column($this->shop->extension()->getProductConfig(['profile' => 'machines']), 'type', 'name');
        self::assertSame(['text', 'text'], [$types['profile'], $types['plan']]);
        $actions = $this->shop->actions($this->id);
        self::assertSame(['text'], array_column($actions, 'type'));
        self::assertStringNotContainsString('127.0.0.1', $actions[0]['text']);
        $this->expectException(DisplayException::class);
        $this->shop->extension()->getCheckoutConfig(new Product(), [], ['profile' => 'machines']);
    }

    public function testPagesWithPasswordsAreTheOwnersAndNotKept(): void
    {
        self::assertContains(['web', 'auth', 'can:view,service'], Route::$routes);
        $service = $this->shop->services[$this->id];
        $service->status = Service::STATUS_ACTIVE;
        $response = (new PageController())->show('access', $service);
        self::assertSame('no-store', $response->headers['Cache-Control']);
        self::assertStringNotContainsString('127.0.0.1', $response->content);
        $service->status = Service::STATUS_CANCELLED;
        $this->expectExceptionCode(404);
        (new PageController())->show('access', $service);
    }

    public function testTheTokenIsKeptEncrypted(): void
    {
        $settings = array_column($this->shop->extension()->getConfig(), null, 'name');
        self::assertSame(['password', true], [$settings['token']['type'], $settings['token']['encrypted'] ?? false]);
    }
}
