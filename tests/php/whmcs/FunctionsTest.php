<?php

declare(strict_types=1);

namespace Provisor\Tests\Whmcs;

use PHPUnit\Framework\TestCase;
use Provisor\Gateway;
use Provisor\Read;
use Provisor\Tests\Daemon;
use WHMCS\Database\Capsule;
use WHMCS\Service\Status;

require_once __DIR__ . '/load.php';

/** What WHMCS's documentation says of each function, beyond what holds for every panel. */
final class FunctionsTest extends TestCase
{
    private const PASSWORD = 'MARKED-Passw0rd-xK9!vQ2z';
    private static ?Daemon $daemon = null;
    private Shop $shop;

    public static function tearDownAfterClass(): void
    {
        if (self::$daemon !== null) {
            self::$daemon->stop();
            self::$daemon = null;
        }
    }

    protected function setUp(): void
    {
        $this->shop = new Shop();
        $this->shop->connect(self::daemon()->address(), self::daemon()->token());
    }

    /**
     * The checks of WHMCS's own sample module: the type of what each function answers, even to nothing at all.
     *
     * @dataProvider returnTypes
     */
    public function testEveryFunctionAnswersItsType(string $function, string $type): void
    {
        $answer = Shop::module($function, []);
        self::assertSame($type, gettype($answer));
    }

    /** @return array<string, array{string, string}> */
    public function returnTypes(): array
    {
        $types = [
            'array' => [
                'ConfigOptions', 'MetaData', 'TestConnection', 'AdminCustomButtonArray', 'ClientAreaCustomButtonArray', 'AdminServicesTabFields',
                'ServiceSingleSignOn', 'AdminSingleSignOn', 'ClientArea', 'ListAccounts',
            ],
            'string' => [
                'CreateAccount', 'SuspendAccount', 'UnsuspendAccount', 'TerminateAccount', 'ChangePassword', 'ChangePackage', 'Renew',
                'start', 'stop', 'reboot', 'reinstall', 'refresh', 'adopt', 'access',
            ],
        ];
        $cases = [];
        foreach ($types as $type => $functions) {
            foreach ($functions as $function) {
                $cases[$function] = [$function, $type];
            }
        }
        return $cases;
    }

    public function testNoOtherFunctionIsDefined(): void
    {
        // WHMCS shows a button for each function that is there: one that can never work must not be.
        $known = array_merge(array_column($this->returnTypes(), 0), ['profiles', 'plans', 'terms', 'finish_pending', 'report']);
        $defined = [];
        foreach (get_defined_functions()['user'] as $name) {
            if (strncmp($name, 'provisor_', 9) === 0) {
                $defined[] = substr($name, 9);
            }
        }
        sort($defined);
        $known = array_map('strtolower', $known);
        sort($known);
        self::assertSame($known, $defined);
    }

    public function testSettingsKeepTheirPlaces(): void
    {
        $unknown = Shop::module('ConfigOptions', []);
        $described = Shop::module('ConfigOptions', Shop::server());
        self::assertIsArray($unknown);
        self::assertIsArray($described);
        $names = ['profile', 'plan', 'term', 'wait', 'reinstall'];
        for ($slot = 1; $slot <= 19; $slot++) {
            $names[] = "slot$slot";
        }
        self::assertSame($names, array_keys($unknown));
        self::assertSame($names, array_keys($described));
        self::assertSame('Quantity', Read::text(Read::map($described, 'slot1'), 'FriendlyName'));
        self::assertSame('Host name', Read::text(Read::map($described, 'slot2'), 'FriendlyName'));
        self::assertSame('Option 1', Read::text(Read::map($unknown, 'slot1'), 'FriendlyName'));
        foreach ($described as $option) {
            $option = Read::named($option);
            self::assertContains($option['Type'], ['text', 'yesno', 'dropdown']);
            if (isset($option['Loader'])) {
                self::assertTrue(is_callable($option['Loader']));
            }
        }
    }

    public function testLoadersOfferWhatThereIs(): void
    {
        $profiles = Shop::module('profiles', Shop::server());
        self::assertIsArray($profiles);
        self::assertEqualsCanonicalizing([Daemon::MACHINES, Daemon::FIREWALLS], array_keys($profiles));
        $all = Shop::module('plans', Shop::server());
        $some = Shop::module('plans', ['configoption1' => Daemon::FIREWALLS] + Shop::server());
        self::assertIsArray($all);
        self::assertIsArray($some);
        self::assertArrayHasKey('42', $all);
        self::assertArrayHasKey('10k', $some);
        self::assertArrayNotHasKey('42', $some);
        self::assertSame('machines: KVM Rootserver S (9.90 EUR monthly, 29.70 EUR quarterly, 108.90 EUR annually)', $all['42']);
        $terms = Shop::module('terms', ['configoption1' => Daemon::MACHINES] + Shop::server());
        self::assertIsArray($terms);
        self::assertSame(['', 'monthly', 'quarterly', 'annually'], array_keys($terms));
    }

    /** @dataProvider loaders */
    public function testLoadersThrowWhatWhmcsShows(string $loader): void
    {
        $this->shop->connect('http://127.0.0.1:1', 'token');
        $this->expectException(\RuntimeException::class);
        $this->expectExceptionMessage('does not answer');
        Shop::module($loader, Shop::server());
    }

    /** @return list<array{string}> */
    public function loaders(): array
    {
        return [['profiles'], ['plans'], ['terms']];
    }

    public function testTestConnectionTellsTokenAddressAndProviderApart(): void
    {
        self::assertSame(['success' => true, 'error' => ''], Shop::module('TestConnection', Shop::server()));
        $errors = [];
        foreach ([['http://127.0.0.1:1', 'x'], [self::daemon()->address(), 'wrong']] as [$address, $token]) {
            $this->shop->connect($address, $token);
            $errors[] = $this->connectionError();
        }
        $this->shop->connect(self::daemon()->address(), self::daemon()->token());
        self::daemon()->killProvider();
        try {
            $errors[] = $this->connectionError();
        } finally {
            self::daemon()->startProvider();
        }
        self::assertStringContainsString('does not answer', $errors[0]);
        self::assertMatchesRegularExpression('/^(machines|firewalls): /', $errors[2]);
        self::assertCount(3, array_unique($errors));
    }

    public function testTheTokenMayStandInEitherField(): void
    {
        $server = ['serverpassword' => '', 'serveraccesshash' => " {$this->token()}\n"] + Shop::server();
        self::assertSame(['success' => true, 'error' => ''], Shop::module('TestConnection', $server));
    }

    public function testTheAddressMayStandInTheAccessHash(): void
    {
        $server = ['serverhostname' => 'gateway', 'serverport' => '1', 'serveraccesshash' => self::daemon()->address() . "\n"] + Shop::server();
        self::assertSame(['success' => true, 'error' => ''], Shop::module('TestConnection', $server));
        $answer = Shop::module('TestConnection', ['serverpassword' => ''] + $server);
        self::assertIsArray($answer);
        self::assertStringContainsString('token is missing', Read::text($answer, 'error'), 'an address is no token');
    }

    public function testAnAddonIsAServiceOfItsOwn(): void
    {
        $id = $this->created($this->machine());
        $this->shop->set($id, ['addonId' => (int) $id]);
        self::assertNotSame('success', Shop::module('SuspendAccount', $this->shop->params($id)), 'the addon was never created');
        self::assertSame('success', Shop::module('CreateAccount', $this->shop->params($id)));
        self::assertSame('success', Shop::module('SuspendAccount', $this->shop->params($id)));
        self::assertSame('active', $this->gateway()->service("service-$id")['state']);
        self::assertSame('suspended', $this->gateway()->service("addon-$id")['state']);
    }

    public function testTheProvidersIdAndAddressAreKept(): void
    {
        $id = $this->created($this->machine());
        $service = $this->gateway()->service("service-$id");
        self::assertSame($service['remote_id'], $this->shop->property($id, 'Provisor ID'));
        self::assertSame(Read::texts($service, 'addresses')[0], $this->shop->property($id, 'Dedicated IP'));
    }

    public function testOptionsComeByPlaceAndByName(): void
    {
        $id = $this->shop->order($this->machine());
        $this->shop->set($id, ['configoption7' => 'by-place.example.net', 'customfields' => ['Where did you hear of us?' => 'nowhere']]);
        self::assertTrue($this->shop->call($id, 'create')->isSuccess);
        self::assertSame('by-place.example.net', $this->gateway()->service("service-$id")['domain']);
        $id = $this->shop->order(['options' => ['hostname' => 'by-name.example.net', 'image' => 'debian-12', 'Support level' => 'gold']] + $this->machine());
        $this->shop->set($id, ['configoption7' => 'by-place.example.net']);
        self::assertSame('', $this->shop->call($id, 'create')->text);
        self::assertSame('by-name.example.net', $this->gateway()->service("service-$id")['domain'], 'the customer\'s choice counts');
    }

    public function testAnOptionThatNobodyCanDeliverIsNotSold(): void
    {
        $id = $this->shop->order($this->firewall());
        $this->shop->set($id, ['configoption6' => '2']);
        $result = $this->shop->call($id, 'create');
        self::assertFalse($result->isSuccess);
        self::assertStringContainsString('Option 1', $result->text);
        self::assertSame([], Read::maps($this->gateway()->operations(['service' => "service-$id"]), 'operations'));
    }

    public function testADomainMayComeFromACustomField(): void
    {
        $order = $this->firewall();
        $id = $this->shop->order(['domain' => ''] + $order);
        $this->shop->set($id, ['customfields' => ['domain' => $order['domain']]]);
        self::assertSame('', $this->shop->call($id, 'create')->text);
        self::assertSame($order['domain'], $this->gateway()->service("service-$id")['domain']);
    }

    public function testPersonalDataGoesOnlyWhereItIsAskedFor(): void
    {
        $this->created($this->machine());
        $log = $this->shop->written();
        self::assertStringContainsString('"profile":"machines"', $log);
        self::assertStringNotContainsString('customer@example.com', $log);
        $this->created($this->firewall());
        self::assertStringContainsString('"email":"customer@example.com"', $this->shop->written());
        self::assertStringContainsString('"password":"********"', $this->shop->written());
    }

    public function testTheDueDateIsThatOfThePaidRenewalInvoice(): void
    {
        $id = $this->created($this->firewall());
        $renewals = function () use ($id): array {
            return array_filter(Read::maps($this->gateway()->operations(['service' => "service-$id"]), 'operations'), static function (array $operation): bool {
                return $operation['operation'] === 'renew';
            });
        };
        // The order's own invoice, and one written in advance that is not paid yet.
        $this->shop->pay($id, '2026-12-15');
        $this->shop->setRow($id, ['nextduedate' => '2027-01-15']);
        $this->shop->pay($id, '2027-02-15', 'Unpaid');
        $before = self::daemon()->charged();
        self::assertSame('success', Shop::module('Renew', $this->shop->params($id)), 'staff renews by hand');
        $price = self::daemon()->charged() - $before;
        self::assertGreaterThan(0, $price);
        // That term's own invoice is paid after all, and WHMCS moves the due date on before it calls.
        $this->shop->pay($id, '2027-01-15');
        self::assertSame('success', Shop::module('Renew', $this->shop->params($id)));
        self::assertSame('success', Shop::module('Renew', $this->shop->params($id)));
        self::assertSame($before + $price, self::daemon()->charged(), 'that term was renewed already');
        self::assertCount(1, $renewals());
        // Now the next one is paid.
        Capsule::$tables['tblinvoices'][1]['status'] = 'Paid';
        self::assertSame('success', Shop::module('Renew', $this->shop->params($id)));
        self::assertSame($before + 2 * $price, self::daemon()->charged());
        self::assertCount(2, $renewals());
    }

    public function testAServiceWithoutADueDateIsNotRenewed(): void
    {
        $id = $this->created($this->firewall());
        $this->shop->setRow($id, ['nextduedate' => '0000-00-00']);
        $answer = Shop::module('Renew', $this->shop->params($id));
        self::assertIsString($answer);
        self::assertStringContainsString('no due date', $answer);
    }

    public function testAChangeOfPackageWhoseAnswerIsLostIsPaidOnce(): void
    {
        $id = $this->created($this->firewall());
        $change = function (string $plan) use ($id): array {
            $this->shop->amend($id, ['plan' => $plan]);
            $before = self::daemon()->charged();
            $answer = Shop::module('ChangePackage', $this->shop->params($id));
            return [$answer, self::daemon()->charged() - $before];
        };
        $lossy = self::daemon()->lossy();
        $this->shop->connect($lossy->address(), self::daemon()->token());
        $lossy->lose(1);
        [$answer, $price] = $change('20k');
        self::assertNotSame('success', $answer);
        self::assertGreaterThan(0, $price, 'it was done all the same');
        self::assertSame(['success', 0], $change('20k'), 'the retry is the same change');
        self::assertSame('20k', $this->gateway()->service("service-$id")['plan']);
        self::assertSame('', $this->shop->property($id, 'Provisor Change'));
        $changes = array_column(Read::maps($this->gateway()->operations(['service' => "service-$id"]), 'operations'), 'operation');
        self::assertSame(['change-package', 'create'], $changes, 'one change, newest first');
        // The provider moves nobody down; what was refused is not kept, so that it may be asked again.
        [$answer, $price] = $change('10k');
        self::assertIsString($answer);
        self::assertStringContainsString('Downgrade', $answer);
        self::assertSame([0, ''], [$price, $this->shop->property($id, 'Provisor Change')]);
        [$answer, $price] = $change('40k');
        self::assertSame('success', $answer);
        self::assertGreaterThan(0, $price);
        self::assertSame('40k', $this->gateway()->service("service-$id")['plan']);
    }

    public function testButtonsAreThoseTheProviderHas(): void
    {
        $machine = $this->created($this->machine());
        $firewall = $this->created($this->firewall());
        $new = $this->shop->order($this->machine());
        $admin = function (string $id): array {
            $buttons = Shop::module('AdminCustomButtonArray', $this->shop->params($id));
            self::assertIsArray($buttons);
            return array_values($buttons);
        };
        self::assertSame(['start', 'stop', 'reboot', 'reinstall', 'refresh'], $admin($machine));
        self::assertSame(['refresh'], $admin($firewall));
        self::assertContains('adopt', $admin($new));
        foreach ([[$machine, ['start', 'stop', 'reboot', 'access', 'refresh']], [$firewall, ['refresh']]] as [$id, $expected]) {
            self::assertSame($expected, array_values((array) $this->shop->asCustomer($id, 'ClientAreaCustomButtonArray')['result']));
        }
        $this->shop->set($machine, ['configoption5' => 'on']);
        self::assertContains('reinstall', (array) $this->shop->asCustomer($machine, 'ClientAreaCustomButtonArray')['result']);
        // Suspended: nothing that would bring it back.
        self::assertTrue($this->shop->call($machine, 'suspend')->isSuccess);
        self::assertSame(['refresh'], array_values((array) $this->shop->asCustomer($machine, 'ClientAreaCustomButtonArray')['result']));
    }

    public function testPowerActionsAreCarriedOut(): void
    {
        $id = $this->created($this->machine());
        foreach (['stop' => 'stopped', 'start' => 'running', 'reboot' => 'running'] as $action => $power) {
            self::assertSame('', $this->shop->call($id, $action)->text);
            self::assertSame($power, Read::properties($this->gateway()->service("service-$id", true), 'properties')['power'] ?? '');
        }
        $result = $this->shop->callAsCustomer($id, 'reboot');
        self::assertTrue($result->isSuccess, $result->text);
    }

    public function testStaffReinstallsWithASecondPress(): void
    {
        $id = $this->created($this->machine());
        $other = $this->created($this->machine());
        $press = function (string $id): string {
            $answer = Shop::module('reinstall', $this->shop->params($id));
            self::assertIsString($answer);
            return $answer;
        };
        self::assertStringContainsString('erases all data', $press($id));
        self::assertStringContainsString('erases all data', $press($other), 'another service, another first press');
        self::assertSame('success', $press($id));
        self::assertStringContainsString('erases all data', $press($id), 'a second press counts once');
    }

    public function testCustomersReinstallOnlyWhereTheyMayAndConfirm(): void
    {
        $id = $this->created($this->machine());
        $other = $this->created($this->machine());
        $done = function () use ($id): int {
            $all = Read::maps($this->gateway()->operations(['service' => "service-$id"]), 'operations');
            return count(array_filter($all, static function (array $operation): bool {
                return $operation['operation'] === 'power';
            }));
        };
        self::assertIsString($this->shop->asCustomer($id, 'reinstall')['result'], 'the product does not allow it');
        $this->shop->set($id, ['configoption5' => 'on']);
        $this->shop->set($other, ['configoption5' => 'on']);
        $page = Read::named($this->shop->asCustomer($id, 'reinstall')['result']);
        self::assertSame('templates/reinstall', $page['templatefile']);
        $confirm = Read::text(Read::map(Read::map($page, 'vars'), 'provisor'), 'confirm');
        self::assertMatchesRegularExpression('/^[0-9a-f]{32}$/', $confirm);
        self::assertIsArray($this->shop->asCustomer($id, 'reinstall', [], ['provisor_confirm' => str_repeat('0', 32)])['result']);
        self::assertIsArray($this->shop->asCustomer($other, 'reinstall', [], ['provisor_confirm' => $confirm])['result'], 'not for another service');
        self::assertSame(0, $done());
        $page = Read::named($this->shop->asCustomer($id, 'reinstall')['result']);
        $confirm = Read::text(Read::map(Read::map($page, 'vars'), 'provisor'), 'confirm');
        self::assertSame('success', $this->shop->asCustomer($id, 'reinstall', [], ['provisor_confirm' => $confirm])['result']);
        self::assertIsArray($this->shop->asCustomer($id, 'reinstall', [], ['provisor_confirm' => $confirm])['result'], 'used up');
        self::assertSame(1, $done());
    }

    public function testAccessDataIsAPageOfTheCustomers(): void
    {
        $id = $this->created($this->machine());
        $page = Read::named($this->shop->asCustomer($id, 'access')['result']);
        $rows = Read::map(Read::map(Read::map($page, 'vars'), 'provisor'), 'rows');
        self::assertSame('root', $rows['User name']);
        $password = Read::text($rows, 'Password');
        self::assertNotSame('', $password);
        self::assertStringNotContainsString($password, $this->shop->written());
        $staffs = Shop::module('access', $this->shop->params($id));
        self::assertSame('success', $staffs, 'no password in a message');
        self::assertTrue($this->shop->call($id, 'suspend')->isSuccess);
        self::assertIsString($this->shop->asCustomer($id, 'access')['result'], 'not while it is suspended');
    }

    public function testSignOnIsATicketForOnePage(): void
    {
        $firewall = $this->created($this->firewall());
        $answer = Read::named(Shop::module('ServiceSingleSignOn', $this->shop->params($firewall)));
        self::assertTrue($answer['success']);
        $link = Read::text($answer, 'redirectTo');
        self::assertMatchesRegularExpression('~^https://shop\.example/modules/servers/provisor/signon\.php\?ticket=[0-9a-f]{32}$~', $link);
        $machine = $this->created($this->machine());
        $none = Read::named(Shop::module('ServiceSingleSignOn', $this->shop->params($machine)));
        self::assertFalse($none['success']);
        self::assertNotSame('', Read::text($none, 'errorMsg'));
        $this->shop->connect('http://127.0.0.1:1', 'token');
        foreach (['ServiceSingleSignOn', 'AdminSingleSignOn'] as $function) {
            $failed = Read::named(Shop::module($function, Shop::server() + $this->shop->params($firewall)));
            self::assertFalse($failed['success']);
            self::assertStringContainsString('does not answer', Read::text($failed, 'errorMsg'));
        }
    }

    public function testSignOnForStaffWhereTheProfileHasNone(): void
    {
        $this->created($this->firewall());
        $answer = Read::named(Shop::module('AdminSingleSignOn', Shop::server()));
        // The profile of the tests has no credentials for staff's pages.
        self::assertFalse($answer['success']);
        self::assertNotSame('', Read::text($answer, 'errorMsg'));
    }

    public function testListAccountsListsWhatLives(): void
    {
        $live = $this->created($this->machine());
        $suspended = $this->created($this->machine());
        $ended = $this->created($this->machine());
        self::assertTrue($this->shop->call($suspended, 'suspend')->isSuccess);
        self::assertTrue($this->shop->call($ended, 'terminate')->isSuccess);
        $answer = Read::named(Shop::module('ListAccounts', Shop::server()));
        self::assertTrue($answer['success']);
        $status = array_column(Read::maps($answer, 'accounts'), 'status', 'uniqueIdentifier');
        self::assertSame(Status::ACTIVE, $status[$this->shop->property($live, 'Provisor ID')]);
        self::assertSame(Status::SUSPENDED, $status[$this->shop->property($suspended, 'Provisor ID')]);
        self::assertArrayNotHasKey($this->shop->property($ended, 'Provisor ID'), $status);
        foreach (Read::maps($answer, 'accounts') as $account) {
            $names = ['email', 'username', 'domain', 'uniqueIdentifier', 'product', 'primaryip', 'created', 'status'];
            self::assertSame($names, array_keys($account));
            self::assertMatchesRegularExpression('/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/', Read::text($account, 'created'));
        }
        $this->shop->connect('http://127.0.0.1:1', 'token');
        $failed = Read::named(Shop::module('ListAccounts', Shop::server()));
        self::assertFalse($failed['success']);
        self::assertNotSame('', Read::text($failed, 'error'));
    }

    public function testListAccountsReadsEveryPage(): void
    {
        $token = self::daemon()->newToken('many');
        $gateway = new Gateway(self::daemon()->address(), $token);
        for ($number = 1; $number <= 201; $number++) {
            $gateway->change("many-$number", 'create', ['profile' => Daemon::MACHINES, 'plan' => '42'], 0);
        }
        for ($time = 0; $time < 60 && Read::maps($gateway->services(['state' => 'pending']), 'services') !== []; $time++) {
            sleep(1);
        }
        $this->shop->connect(self::daemon()->address(), $token);
        self::assertCount(201, Read::maps(Read::named(Shop::module('ListAccounts', Shop::server())), 'accounts'));
    }

    public function testStaffSeesHowItStands(): void
    {
        $id = $this->created($this->machine());
        $fields = Read::named(Shop::module('AdminServicesTabFields', $this->shop->params($id)));
        self::assertSame(['State', 'Drift', 'Last operation', 'Paid until', 'At the provider', 'Checked'], array_keys($fields));
        self::assertSame('active', $fields['State']);
        self::assertSame('none', $fields['Drift']);
        self::assertStringStartsWith('create: done, ', Read::text($fields, 'Last operation'));
        $new = $this->shop->order($this->machine());
        self::assertSame(['State' => 'Not created yet.'], Shop::module('AdminServicesTabFields', $this->shop->params($new)));
        $this->shop->connect('http://127.0.0.1:1', 'token');
        $silent = Read::named(Shop::module('AdminServicesTabFields', $this->shop->params($id)));
        self::assertStringContainsString('does not answer', Read::text($silent, 'State'));
    }

    public function testNoMarkupReachesAPage(): void
    {
        $evil = '<img src=x onerror=alert(1)>"\'{$x}';
        $id = $this->shop->order(['profile' => $evil] + $this->machine());
        $answers = [$this->shop->call($id, 'create')->text];
        self::assertStringContainsString('onerror', $answers[0], 'the gateway repeats the name');
        foreach (Read::named(Shop::module('AdminServicesTabFields', $this->shop->params($id))) as $html) {
            $answers[] = $html;
        }
        foreach ($answers as $answer) {
            self::assertIsString($answer);
            self::assertDoesNotMatchRegularExpression('/[<>"\']/', $answer);
        }
    }

    public function testAdoptTakesOverWhatExists(): void
    {
        $order = $this->firewall();
        // Made by hand at the provider, before there was a gateway.
        $arguments = ['call', '--profile', Daemon::FIREWALLS, 'create', '--plan', '10k', '--domain', $order['domain']];
        $values = ['--set', 'email=owner@example.com', '--set', 'password=Xk9!vQ2z-Lm4-Rt7'];
        self::daemon()->gateway(array_merge($arguments, $values));
        $id = $this->shop->order($order);
        $before = self::daemon()->charged();
        self::assertSame('success', Shop::module('adopt', $this->shop->params($id)));
        self::assertSame('active', $this->gateway()->service("service-$id")['state']);
        self::assertSame($before, self::daemon()->charged());
    }

    public function testRefreshAsksTheProvider(): void
    {
        $id = $this->created($this->machine());
        self::assertSame('success', Shop::module('refresh', $this->shop->params($id)));
        self::assertNotNull($this->gateway()->service("service-$id")['checked_at']);
    }

    public function testChangePasswordTellsCustomersNoDetails(): void
    {
        $id = $this->created($this->machine());
        $this->shop->connect('http://127.0.0.1:1', 'token');
        $staffs = $this->shop->call($id, 'change-password', ['password' => self::PASSWORD])->text;
        $customers = $this->shop->callAsCustomer($id, 'change-password', ['password' => self::PASSWORD]);
        self::assertStringContainsString('127.0.0.1', $staffs);
        self::assertStringNotContainsString('127.0.0.1', $customers->text);
    }

    public function testEveryoneReadsTheirLanguage(): void
    {
        $id = $this->created($this->machine());
        $_SESSION['adminlang'] = 'german';
        self::assertContains('Zustand', array_keys(Read::named(Shop::module('AdminServicesTabFields', $this->shop->params($id)))));
        $_SESSION['adminlang'] = '../../etc/passwd';
        self::assertContains('State', array_keys(Read::named(Shop::module('AdminServicesTabFields', $this->shop->params($id)))));
        $_SESSION['Language'] = 'spanish';
        self::assertArrayHasKey('Actualizar', (array) $this->shop->asCustomer($id, 'ClientAreaCustomButtonArray')['result']);
        $_SESSION = [];
    }

    public function testLanguagesSayTheSame(): void
    {
        $folder = dirname(__DIR__, 3) . '/plugins/whmcs/modules/servers/provisor/lang';
        $english = require "$folder/english.php";
        self::assertIsArray($english);
        foreach (['german', 'spanish'] as $language) {
            $texts = require "$folder/$language.php";
            self::assertIsArray($texts);
            self::assertSame(array_keys($english), array_keys($texts), $language);
            foreach ($english as $name => $text) {
                self::assertIsString($text);
                self::assertIsString($texts[$name]);
                self::assertSame(self::places($text), self::places($texts[$name]), "$language: $name");
            }
        }
    }

    public function testTheCronJobFinishesWhatWasInProgress(): void
    {
        $daemon = Daemon::start(['PROVISOR_SERVER__FULFILMENT__MODE' => 'manual']);
        try {
            $this->shop->connect($daemon->address(), $daemon->token());
            $never = $this->shop->order($this->machine());
            $id = $this->shop->order(['wait' => 1] + $this->machine());
            $result = $this->shop->call($id, 'create');
            self::assertStringStartsWith('In progress', $result->text);
            Shop::hook('AfterCronJob');
            self::assertFalse($this->shop->isActive($id));
            $daemon->provider(['order', 'fulfil', '1']);
            for ($time = 0; $time < 60 && !$this->shop->isActive($id); $time++) {
                sleep(1);
                Shop::hook('AfterCronJob');
            }
            self::assertTrue($this->shop->isActive($id), 'WHMCS ran its own ModuleCreate');
            self::assertFalse($this->shop->isActive($never), 'nobody paid for that one');
            self::assertContains(['ModuleCreate', ['serviceid' => (int) $id]], Shop::$calls);
            self::assertNotContains(['ModuleCreate', ['serviceid' => (int) $never]], Shop::$calls);
        } finally {
            $daemon->stop();
        }
    }

    public function testStaffGetsOneMailADayAboutWhatIsWrong(): void
    {
        $token = self::daemon()->newToken('report');
        $this->shop->connect(self::daemon()->address(), $token);
        $id = $this->created($this->machine());
        Shop::hook('DailyCronJob');
        self::assertSame([], $this->mails(), 'nothing to say');
        $gateway = new Gateway(self::daemon()->address(), $token);
        $remote = Read::text($gateway->service("service-$id"), 'remote_id');
        self::daemon()->gateway(['call', '--profile', Daemon::MACHINES, 'terminate', '--service', $remote]);
        $gateway->service("service-$id", true);
        Shop::hook('DailyCronJob');
        $mails = $this->mails();
        self::assertCount(1, $mails);
        self::assertStringContainsString("service-$id", Read::text($mails[0], 'custommessage'));
    }

    public function testAHookSurvivesAnUnreachableGateway(): void
    {
        $this->shop->connect('http://127.0.0.1:1', 'token');
        $this->shop->order($this->machine());
        Shop::hook('AfterCronJob');
        Shop::hook('DailyCronJob');
        self::assertCount(1, $this->mails());
    }

    public function testOddParametersDoNoHarm(): void
    {
        foreach ([null, [], ['a' => 'b'], 17, true, "\xff\x00", new \stdClass()] as $odd) {
            $params = ['serviceid' => $odd, 'domain' => $odd, 'configoption1' => $odd, 'configoptions' => $odd, 'clientsdetails' => $odd, 'model' => $odd]
                + $this->shop->params($this->shop->order($this->machine()));
            self::assertIsString(Shop::module('SuspendAccount', $params));
            self::assertIsString(Shop::module('ChangePackage', $params));
            self::assertIsArray(Shop::module('ClientArea', $params));
        }
    }

    /**
     * @phpstan-impure
     * @return list<array<string, mixed>>
     */
    private function mails(): array
    {
        $mails = [];
        foreach (Shop::$calls as [$command, $values]) {
            if ($command === 'SendAdminEmail') {
                $mails[] = $values;
            }
        }
        return $mails;
    }

    private function connectionError(): string
    {
        $answer = Read::named(Shop::module('TestConnection', Shop::server()));
        self::assertFalse($answer['success']);
        return Read::text($answer, 'error');
    }

    /** @return list<string> */
    private static function places(string $text): array
    {
        preg_match_all('/\{[a-z]+\}/', $text, $places);
        sort($places[0]);
        return $places[0];
    }

    /** @return array{profile: string, plan: string, email: string, wait: int} */
    private function machine(): array
    {
        return ['profile' => Daemon::MACHINES, 'plan' => '42', 'email' => 'customer@example.com', 'wait' => 20];
    }

    /** @return array{profile: string, plan: string, domain: string, email: string, password: string, wait: int} */
    private function firewall(): array
    {
        $domain = 'site-' . bin2hex(random_bytes(6)) . '.example.com';
        return ['profile' => Daemon::FIREWALLS, 'plan' => '10k', 'domain' => $domain, 'password' => self::PASSWORD] + $this->machine();
    }

    /** @param array{profile: string, plan: string, domain?: string, email?: string, password?: string, wait?: int} $order */
    private function created(array $order): string
    {
        $id = $this->shop->order($order);
        self::assertSame('', $this->shop->call($id, 'create')->text);
        return $id;
    }

    private function token(): string
    {
        return self::daemon()->token();
    }

    private function gateway(): Gateway
    {
        return new Gateway(self::daemon()->address(), self::daemon()->token());
    }

    private static function daemon(): Daemon
    {
        return self::$daemon ??= Daemon::start();
    }
}
