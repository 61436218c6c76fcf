<?php

declare(strict_types=1);

namespace Provisor\Tests\Fossbilling;

use Box\Mod\Serviceprovisor\Controller;
use PHPUnit\Framework\TestCase;

require_once __DIR__ . '/load.php';

/** What needs no gateway: what customers may set, whose orders they reach, and that pages appear. */
final class ModuleTest extends TestCase
{
    private Orders $orders;

    protected function setUp(): void
    {
        $this->orders = new Orders(false);
        $this->orders->connect('http://127.0.0.1:1', 'some-token');
    }

    public function testACustomerCannotSetWhatTheProductDecides(): void
    {
        $product = (object) ['config' => '{"profile":"a","plan":"small"}'];
        $data = ['plan' => 'large', 'profile' => 'b', 'options' => ['ram' => '1024'], 'term' => '1y', 'import_id' => '7', 'domain' => 'a.example'];
        $config = $this->orders->service->attachOrderConfig($product, $data);
        self::assertSame(['domain' => 'a.example', 'profile' => 'a', 'plan' => 'small'], $config);
    }

    /** @dataProvider domains */
    public function testDomainsAreChecked(string $domain, bool $isGood): void
    {
        $data = ['domain' => $domain];
        if (!$isGood) {
            $this->expectException(\FOSSBilling\InformationException::class);
        }
        self::assertTrue($this->orders->service->validateOrderData($data));
    }

    /** @return list<array{string, bool}> */
    public static function domains(): array
    {
        return [
            ['', true],
            ['example.com', true],
            ['münchen.example', true],
            ['example', false],
            ['https://example.com', false],
            ["example.com\n", false],
            ['<b>.example', false],
            [str_repeat('a', 300) . '.example', false],
        ];
    }

    public function testARequiredAnswerMustBeThere(): void
    {
        $data = ['domain' => 'example.com'];
        $this->orders->service->validateCustomForm($data, ['form_id' => 1]);
        $this->orders->service->validateCustomForm($data, ['form_id' => null]);
        $data = [];
        $this->expectException(\FOSSBilling\InformationException::class);
        $this->orders->service->validateCustomForm($data, ['form_id' => '1']);
    }

    public function testARepeatedCreateFindsItsRow(): void
    {
        $id = $this->orders->order(['profile' => 'machines', 'plan' => '42']);
        foreach (['first', 'second'] as $time) {
            self::assertSame((int) $id, $this->orders->service->create($this->orders->object($id))->id, $time);
        }
    }

    public function testOnesOwnActiveOrdersOnly(): void
    {
        $id = $this->orders->order(['profile' => 'machines', 'plan' => '42']);
        $this->refused(fn (): array => $this->orders->api($id)->get(['order_id' => $id]), 'not activated');
        $this->orders->set($id, 'status', 'active');
        $this->orders->api($id)->get(['order_id' => $id]);
        $this->refused(fn (): array => $this->orders->api('999999')->get(['order_id' => $id]), 'not found');
        $this->orders->set($id, 'expires_at', '2020-01-01 00:00:00');
        $this->refused(fn (): array => $this->orders->api($id)->get(['order_id' => $id]), 'not activated');
        $this->orders->set($id, 'service_type', 'hosting');
        $this->refused(fn (): array => $this->orders->staff()->get(['order_id' => $id]), 'not found');
    }

    public function testNobodyReinstallsUnlessTheProductAllowsIt(): void
    {
        $id = $this->orders->order(['profile' => 'machines', 'plan' => '42']);
        $this->orders->set($id, 'status', 'active');
        $this->refused(fn (): bool => $this->orders->api($id)->power(['order_id' => $id, 'action' => 'reinstall']), 'no such action');
        $this->refused(fn (): bool => $this->orders->staff()->power(['order_id' => $id, 'action' => 'explode']), 'no such action');
    }

    public function testPagesAppearWithoutTheGateway(): void
    {
        $id = $this->orders->order(['profile' => 'machines', 'plan' => '42']);
        self::assertSame([], $this->orders->staff()->get_profiles());
        self::assertSame([], $this->orders->staff()->get_plans(['profile' => 'machines']));
        self::assertSame([], $this->orders->staff()->get_fields(['profile' => 'machines']));
        $page = $this->orders->service->page($this->orders->object($id), true);
        self::assertSame([[], []], [$page['rows'], $page['offers']]);
        self::assertStringNotContainsString('127.0.0.1', $page['problem']);
    }

    public function testPagesWithPasswordsAreNotKept(): void
    {
        foreach ([new Controller\Client(), new Controller\Admin()] as $controller) {
            $app = new \Box_App();
            $controller->register($app);
            self::assertSame(['/serviceprovisor/:what/:id' => [get_class($controller), 'get_page']], $app->routes);
            $api = new class () {
                /** @param array<string, string> $data */
                public function serviceprovisor_page(array $data): string
                {
                    return implode(',', $data);
                }
            };
            $controller->setDi(new \Pimple\Container(['api_client' => $api, 'api_admin' => $api]));
            $response = $controller->get_page($app, 'access', '7');
            self::assertSame(['7,access', 'no-store'], [$response->content, $response->headers['Cache-Control']]);
        }
    }

    public function testAUserNameIsMadeFromTheDomainAlone(): void
    {
        $manager = (new Hosting())->manager();
        self::assertSame($manager->generateUsername('Example.com'), $manager->generateUsername('example.com '));
        self::assertNotSame($manager->generateUsername('example.com'), $manager->generateUsername('example.org'));
        self::assertMatchesRegularExpression('/^p[a-z0-9]{12}$/D', $manager->generateUsername('münchen.example'));
        self::assertSame(['accesshash'], \Server_Manager_Provisor::getSecretFields());
    }

    private function refused(callable $call, string $text): void
    {
        try {
            $call();
            self::fail("not refused: $text");
        } catch (\FOSSBilling\Exception $error) {
            self::assertStringContainsString($text, $error->getMessage());
        }
    }
}
