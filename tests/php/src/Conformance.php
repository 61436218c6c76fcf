<?php

declare(strict_types=1);

namespace Provisor\Tests;

use PHPUnit\Framework\TestCase;
use Provisor\Gateway;
use Provisor\Read;

/**
 * What must hold in every panel, line by line: one test per promise that the gateway and the plug-ins make together.
 *
 * A panel's own suite extends this class and says how the panel is driven (see Panel). Every test has services of its own on the class's
 * daemons, so that tests neither wait for nor see each other.
 */
abstract class Conformance extends TestCase
{
    protected const PASSWORD = 'MARKED-Passw0rd-xK9!vQ2z';
    /** What a change takes besides the service. */
    private const INPUTS = ['renew' => ['due_at' => '2027-01-15'], 'change-password' => ['password' => self::PASSWORD]];
    private const MARKUP = '<script>alert("x")</script> \'" &amp; {$smarty} ünïcödé 漢字 ';

    /** @var array<string, Daemon> by what is special about them */
    private static array $daemons = [];

    protected Panel $panel;

    abstract protected function makePanel(): Panel;

    public static function tearDownAfterClass(): void
    {
        foreach (self::$daemons as $daemon) {
            $daemon->stop();
        }
        self::$daemons = [];
    }

    protected function setUp(): void
    {
        $this->panel = $this->makePanel();
        $this->panel->connect(self::daemon()->address(), self::daemon()->token());
    }

    /** A daemon that makes what is ordered at once. */
    protected static function daemon(): Daemon
    {
        return self::$daemons['prompt'] ??= Daemon::start();
    }

    /** A daemon whose provider makes a paid order only when it is told to: `order fulfil`. */
    protected static function slowDaemon(): Daemon
    {
        return self::$daemons['slow'] ??= Daemon::start(['PROVISOR_SERVER__FULFILMENT__MODE' => 'manual']);
    }

    public function testCreateTwiceMakesOneService(): void
    {
        $id = $this->panel->order($this->machine());
        $before = self::daemon()->charged();
        $this->succeeds($id, 'create');
        $once = self::daemon()->charged();
        self::assertGreaterThan($before, $once, 'the provider was paid for something');
        $this->succeeds($id, 'create');
        self::assertSame($once, self::daemon()->charged(), 'the second create ordered nothing');
        self::assertTrue($this->panel->isActive($id));
        self::assertSame('active', $this->state($id));
    }

    public function testCreateAfterALostAnswerFindsTheFirst(): void
    {
        $id = $this->panel->order($this->machine());
        $lossy = self::daemon()->lossy();
        $this->panel->connect($lossy->address(), self::daemon()->token());
        $before = self::daemon()->charged();
        $lossy->lose(1);
        $this->fails($id, 'create');
        self::assertFalse($this->panel->isActive($id), 'a lost answer is no success');
        $once = self::daemon()->charged();
        self::assertGreaterThan($before, $once, 'it was done all the same');
        $this->succeeds($id, 'create');
        self::assertSame($once, self::daemon()->charged(), 'the retry ordered nothing');
        self::assertTrue($this->panel->isActive($id));
    }

    public function testARefusedCreateLeavesNothingAndARetryMakesIt(): void
    {
        $id = $this->panel->order(['plan' => '999999'] + $this->machine());
        $before = self::daemon()->charged();
        $this->fails($id, 'create');
        self::assertFalse($this->panel->isActive($id));
        self::assertSame($before, self::daemon()->charged());
        $this->panel->amend($id, ['plan' => $this->machine()['plan']]);
        $this->succeeds($id, 'create');
        self::assertGreaterThan($before, self::daemon()->charged());
    }

    public function testSuspendUnsuspendAndTerminateMayBeRepeated(): void
    {
        $id = $this->created($this->machine());
        foreach (['suspend' => 'suspended', 'unsuspend' => 'active', 'terminate' => 'terminated'] as $operation => $state) {
            foreach (['first', 'second'] as $time) {
                $this->succeeds($id, $operation, "$time $operation");
                self::assertSame($state, $this->state($id), "after the $time $operation");
            }
        }
    }

    public function testTerminateOfWhatIsGoneAtTheProviderSucceeds(): void
    {
        $id = $this->created($this->machine());
        // Around the journal: somebody ended it in the provider's own pages.
        $remote = Read::text($this->service($id), 'remote_id');
        self::daemon()->gateway(['call', '--profile', Daemon::MACHINES, 'terminate', '--service', $remote]);
        $this->succeeds($id, 'terminate');
        self::assertSame('terminated', $this->state($id));
    }

    public function testAChangeToAnUnknownKeySendsNothing(): void
    {
        $id = $this->panel->order($this->machine());
        $before = self::daemon()->charged();
        $operations = ['suspend', 'unsuspend', 'terminate', 'renew', 'change-password', 'change-package', 'stop'];
        foreach (array_diff($operations, $this->panel->lacks()) as $operation) {
            $result = $this->panel->call($id, $operation, self::INPUTS[$operation] ?? []);
            self::assertFalse($result->isSuccess, "$operation of what was never created");
            self::assertNotSame('', $result->text);
        }
        self::assertSame($before, self::daemon()->charged());
        self::assertSame([], $this->operations($id), 'nothing stands in the journal');
    }

    public function testADomainThatBelongsToAnotherServiceIsRefused(): void
    {
        $order = $this->firewall();
        $this->created($order);
        $id = $this->panel->order($order);
        $before = self::daemon()->charged();
        $this->fails($id, 'create');
        self::assertFalse($this->panel->isActive($id));
        self::assertSame($before, self::daemon()->charged());
    }

    public function testCreateAfterTerminateIsANewGeneration(): void
    {
        $id = $this->created($this->machine());
        $first = Read::text($this->service($id), 'remote_id');
        $this->succeeds($id, 'terminate');
        $before = self::daemon()->charged();
        $this->succeeds($id, 'create');
        self::assertGreaterThan($before, self::daemon()->charged());
        $service = $this->service($id);
        self::assertSame([2, 'active'], [$service['generation'] ?? null, $service['state'] ?? null]);
        self::assertNotSame($first, Read::text($service, 'remote_id'));
    }

    public function testOneDueDateIsRenewedOnce(): void
    {
        $this->needs('renew');
        $id = $this->created($this->firewall());
        $charges = [];
        foreach (['2027-01-15', '2027-01-15', '2027-02-15'] as $date) {
            $before = self::daemon()->charged();
            $this->succeeds($id, 'renew', "renewal of $date", ['due_at' => $date]);
            $charges[] = self::daemon()->charged() - $before;
        }
        self::assertGreaterThan(0, $charges[0]);
        self::assertSame([$charges[0], 0, $charges[0]], $charges, 'what each renewal cost');
    }

    public function testWhatTakesTooLongIsPendingAndSettlesLater(): void
    {
        $daemon = self::slowDaemon();
        $this->panel->connect($daemon->address(), $daemon->token());
        $id = $this->panel->order(['wait' => 1] + $this->machine());
        $this->fails($id, 'create');
        self::assertFalse($this->panel->isActive($id), 'it is under way, not there');
        $once = $daemon->charged();
        $this->fails($id, 'create');
        self::assertSame($once, $daemon->charged(), 'asking again orders nothing');
        $this->fulfilAll($daemon);
        $this->eventuallySucceeds($daemon, $id, 'create');
        self::assertTrue($this->panel->isActive($id));
        self::assertSame($once, $daemon->charged());
    }

    public function testEveryChangeThatIsUnderWayIsNoSuccessAndIsMadeOnce(): void
    {
        $daemon = Daemon::start();
        try {
            $this->panel->connect($daemon->address(), $daemon->token());
            $ids = [];
            foreach ([$this->machine(), $this->machine(), $this->firewall()] as $order) {
                $ids[] = $id = $this->panel->order(['wait' => 1] + $order);
                $this->eventuallySucceeds($daemon, $id, 'create');
            }
            $daemon->killProvider();
            $this->staysUnderWay($ids[0], ['reboot', 'suspend', 'change-package']);
            $this->staysUnderWay($ids[1], ['terminate']);
            $this->staysUnderWay($ids[2], ['change-password', 'renew']);
            $daemon->startProvider();
            $this->eventuallySucceeds($daemon, $ids[0], 'suspend');
            $this->eventuallySucceeds($daemon, $ids[1], 'terminate');
            self::assertSame('suspended', Read::text($this->service($ids[0], $daemon), 'state'));
            self::assertSame('terminated', Read::text($this->service($ids[1], $daemon), 'state'));
            if (!in_array('renew', $this->panel->lacks(), true)) {
                $this->eventuallySucceeds($daemon, $ids[2], 'renew', self::INPUTS['renew']);
                self::assertCount(1, $this->operations($ids[2], 'renew', $daemon));
            }
            self::assertTrue($this->panel->isActive($ids[2]));
            self::assertStringNotContainsString(self::PASSWORD, $this->panel->written());
        } finally {
            $daemon->stop();
        }
    }

    public function testAnUnpaidOrderIsFollowedAndNotRepeated(): void
    {
        $daemon = Daemon::start();
        try {
            $this->panel->connect($daemon->address(), $daemon->token());
            $id = $this->panel->order(['wait' => 1] + $this->machine());
            $daemon->takeCredit();
            $this->fails($id, 'create');
            $this->fails($id, 'create');
            self::assertFalse($this->panel->isActive($id));
            self::assertCount(1, $daemon->provider(['order', 'list']), 'one order waits for its payment');
            $daemon->credit(Daemon::CREDIT);
            $this->eventuallySucceeds($daemon, $id, 'create');
            self::assertCount(1, $daemon->provider(['order', 'list']));
            self::assertTrue($this->panel->isActive($id));
        } finally {
            $daemon->stop();
        }
    }

    public function testWhatTheProviderCannotDoIsNotOfferedOrSaysSo(): void
    {
        $machine = $this->created($this->machine());
        $firewall = $this->created($this->firewall());
        self::assertNotContains('reboot', $this->panel->offers($firewall), 'no power over a firewall');
        if (!in_array('reboot', $this->panel->lacks(), true)) {
            self::assertContains('reboot', $this->panel->offers($machine));
        }
        foreach ([[$firewall, 'reboot'], [$machine, 'change-package']] as [$id, $operation]) {
            if (!in_array($operation, $this->panel->lacks(), true)) {
                $before = self::daemon()->charged();
                $result = $this->panel->call($id, $operation);
                self::assertFalse($result->isSuccess, $operation);
                self::assertNotSame('', $result->text);
                self::assertSame($before, self::daemon()->charged());
            }
        }
    }

    public function testACustomerCannotStartWhatIsSuspended(): void
    {
        $id = $this->created($this->machine());
        $this->succeeds($id, 'suspend');
        $result = $this->panel->callAsCustomer($id, 'start');
        if ($result === null) {
            self::markTestSkipped('this panel gives customers no such thing');
        }
        self::assertFalse($result->isSuccess);
        self::assertNotSame('', trim($result->text));
        self::assertSame([], $this->operations($id, 'power'), 'nobody was asked');
        self::assertSame('suspended', Read::text(self::gateway()->service($this->panel->key($id), true), 'state'));
    }

    public function testAnUnreachableGatewayFailsInThePanelsOwnForm(): void
    {
        $this->failsEverywhere('http://127.0.0.1:1', self::daemon()->token());
    }

    public function testAWrongTokenFailsInThePanelsOwnForm(): void
    {
        $this->failsEverywhere(self::daemon()->address(), 'MARKED-wrong-token-0123456789abcdef');
        self::assertStringNotContainsString('MARKED-wrong-token', $this->panel->written());
    }

    public function testNoSecretIsWrittenAnywhere(): void
    {
        $this->panel->connect(self::daemon()->address(), self::daemon()->token());
        $id = $this->created($this->firewall());
        $texts = [];
        foreach (['change-password' => ['password' => self::PASSWORD], 'suspend' => ['reason' => 'late']] as $operation => $with) {
            if (!in_array($operation, $this->panel->lacks(), true)) {
                $texts[] = $this->panel->call($id, $operation, $with)->text;
            }
        }
        $refused = $this->panel->order(['password' => self::PASSWORD, 'plan' => 'none'] + $this->firewall());
        $texts[] = $this->panel->call($refused, 'create')->text;
        $everything = $this->panel->written() . implode("\n", $texts) . self::daemon()->log();
        self::assertNotSame('', $this->panel->written());
        foreach (array_merge([self::PASSWORD], explode("\n", self::daemon()->secrets())) as $secret) {
            $forms = [$secret, rawurlencode($secret), base64_encode($secret), htmlspecialchars($secret)];
            foreach ($forms as $form) {
                self::assertStringNotContainsString($form, $everything);
            }
        }
    }

    public function testEveryProblemHasATextForStaffAndNoSecretForCustomers(): void
    {
        $refused = $this->panel->order(['plan' => 'none', 'password' => self::PASSWORD] + $this->firewall());
        $result = $this->panel->call($refused, 'create');
        self::assertFalse($result->isSuccess);
        self::assertMatchesRegularExpression('/\p{L}{3}/u', $result->text);
        $machine = $this->created($this->machine());
        foreach (['reboot', 'change-password'] as $operation) {
            $this->panel->connect('http://127.0.0.1:1', self::daemon()->token());
            $shown = $this->panel->callAsCustomer($machine, $operation, ['password' => self::PASSWORD]);
            if ($shown !== null) {
                self::assertFalse($shown->isSuccess);
                self::assertMatchesRegularExpression('/\p{L}{3}/u', $shown->text);
                foreach ([self::PASSWORD, self::daemon()->token(), '127.0.0.1', 'http:'] as $secret) {
                    self::assertStringNotContainsString($secret, $shown->text);
                }
            }
        }
    }

    public function testMarkupUnicodeAndLengthDoNoHarm(): void
    {
        $long = str_repeat(self::MARKUP, (int) ceil(10240 / strlen(self::MARKUP)));
        $id = $this->created($this->machine());
        $this->succeeds($id, 'suspend', 'a reason of 10 kB', ['reason' => $long]);
        self::assertSame('suspended', $this->state($id));
        $this->succeeds($id, 'unsuspend');
        $odd = $this->panel->order(['plan' => $long, 'domain' => $long] + $this->machine());
        $result = $this->panel->call($odd, 'create');
        self::assertFalse($result->isSuccess, 'there is no such plan');
        self::assertLessThan(4096, strlen($result->text), 'a text for people');
        self::assertFalse($this->panel->isActive($odd));
    }

    public function testMarkupInAProvidersTextsIsShownAsText(): void
    {
        $daemon = Daemon::start();
        try {
            $daemon->renameProduct(42, str_repeat(self::MARKUP, (int) ceil(10240 / strlen(self::MARKUP))));
            $this->panel->connect($daemon->address(), $daemon->token());
            $id = $this->created($this->machine());
            $shown = $this->panel->shown($id);
            if ($shown === '') {
                self::markTestSkipped('this panel shows nothing of a provider\'s texts');
            }
            self::assertStringNotContainsString('<script', $shown);
            self::assertStringContainsString('ünïcödé 漢字', $shown, 'the name is shown');
            self::assertLessThan(10240, strlen($shown), 'and no longer than a line');
        } finally {
            $daemon->stop();
        }
    }

    /**
     * Some machine; as an order of the panel's customer.
     *
     * @return array{profile: string, plan: string, email: string, wait: int}
     */
    protected function machine(): array
    {
        return ['profile' => Daemon::MACHINES, 'plan' => '42', 'email' => 'customer@example.com', 'wait' => 20];
    }

    /**
     * Some firewall for a web site that nobody else has.
     *
     * @return array{profile: string, plan: string, domain: string, email: string, password: string, wait: int}
     */
    protected function firewall(): array
    {
        return [
            'profile' => Daemon::FIREWALLS,
            'plan' => '10k',
            'domain' => 'site-' . bin2hex(random_bytes(6)) . '.example.com',
            'email' => 'customer@example.com',
            'password' => self::PASSWORD,
            'wait' => 20,
        ];
    }

    /**
     * A service that the panel has made.
     *
     * @param array{profile: string, plan: string, domain?: string, email?: string, password?: string, wait?: int} $order
     */
    protected function created(array $order): string
    {
        $id = $this->panel->order($order);
        $this->succeeds($id, 'create');
        return $id;
    }

    /** @param array<string, string> $with */
    protected function succeeds(string $id, string $operation, string $what = '', array $with = []): void
    {
        $result = $this->panel->call($id, $operation, $with);
        self::assertTrue($result->isSuccess, ($what !== '' ? $what : $operation) . ": {$result->text}");
    }

    /** @param array<string, string> $with */
    protected function fails(string $id, string $operation, array $with = []): void
    {
        $result = $this->panel->call($id, $operation, $with);
        self::assertFalse($result->isSuccess, $operation);
        self::assertNotSame('', trim($result->text), 'staff is told why');
    }

    /** The test is about something that not every panel has words for. */
    protected function needs(string $operation): void
    {
        if (in_array($operation, $this->panel->lacks(), true)) {
            self::markTestSkipped("this panel has no $operation");
        }
    }

    /**
     * Straight from the gateway, not through the plug-in.
     *
     * @return array<string, mixed>
     */
    protected function service(string $id, ?Daemon $daemon = null): array
    {
        return self::gateway($daemon)->service($this->panel->key($id));
    }

    protected function state(string $id): string
    {
        return Read::text($this->service($id), 'state');
    }

    protected static function gateway(?Daemon $daemon = null): Gateway
    {
        $daemon ??= self::daemon();
        return new Gateway($daemon->address(), $daemon->token());
    }

    /** @return list<array<string, mixed>> those of one kind, or all */
    private function operations(string $id, string $kind = '', ?Daemon $daemon = null): array
    {
        $all = Read::maps(self::gateway($daemon)->operations(['service' => $this->panel->key($id)]), 'operations');
        return array_values(array_filter($all, static function (array $operation) use ($kind): bool {
            return $kind === '' || Read::text($operation, 'operation') === $kind;
        }));
    }

    /**
     * Each is told as one that is not done yet, and the panel goes on with the service as it was.
     *
     * @param list<string> $operations
     */
    private function staysUnderWay(string $id, array $operations): void
    {
        foreach (array_diff($operations, $this->panel->lacks()) as $operation) {
            $result = $this->panel->call($id, $operation, self::INPUTS[$operation] ?? []);
            self::assertFalse($result->isSuccess, $operation);
            self::assertNotSame('', trim($result->text), $operation);
            self::assertStringNotContainsString(self::PASSWORD, $result->text);
            // A renewal that is not done yet is a state of its own in some panels.
            self::assertTrue($operation === 'renew' || $this->panel->isActive($id), "still active after $operation");
        }
    }

    private function failsEverywhere(string $address, string $token): void
    {
        $id = $this->created($this->machine());
        $new = $this->panel->order($this->machine());
        $this->panel->connect($address, $token);
        $this->fails($new, 'create');
        self::assertFalse($this->panel->isActive($new));
        $operations = ['suspend', 'unsuspend', 'renew', 'change-password', 'change-package', 'reboot', 'terminate'];
        foreach (array_diff($operations, $this->panel->lacks()) as $operation) {
            $this->fails($id, $operation, self::INPUTS[$operation] ?? []);
        }
        self::assertSame('active', $this->state($id), 'nothing was done');
        self::assertStringNotContainsString(self::PASSWORD, $this->panel->written());
    }

    private function fulfilAll(Daemon $daemon): void
    {
        foreach ($daemon->provider(['order', 'list']) as $order) {
            if (Read::text($order, 'status') !== 'active') {
                $daemon->provider(['order', 'fulfil', Read::text($order, 'id')]);
            }
        }
    }

    /**
     * Asks as the panel's queue, or the gateway on its own account, would: again and again, for half a minute.
     *
     * @param array<string, string> $with
     */
    private function eventuallySucceeds(Daemon $daemon, string $id, string $operation, array $with = []): void
    {
        $result = new Result(false);
        for ($time = 0; $time < 30 && !$result->isSuccess; $time++) {
            $this->retryNow($daemon, $id);
            $result = $this->panel->call($id, $operation, $with);
        }
        self::assertTrue($result->isSuccess, $result->text);
    }

    /** The gateway looks again now, instead of when it next would. */
    private function retryNow(Daemon $daemon, string $id): void
    {
        foreach (Read::maps(self::gateway($daemon)->operations(['service' => $this->panel->key($id)]), 'operations') as $operation) {
            if (!in_array(Read::text($operation, 'state'), ['done', 'failed'], true)) {
                $this->post($daemon, '/v1/operations/' . Read::text($operation, 'id') . '/retry');
            }
        }
    }

    private function post(Daemon $daemon, string $path): void
    {
        $curl = curl_init($daemon->address() . $path);
        self::assertNotFalse($curl);
        curl_setopt_array($curl, [
            CURLOPT_POST => true,
            CURLOPT_POSTFIELDS => '{}',
            CURLOPT_RETURNTRANSFER => true,
            CURLOPT_TIMEOUT => 20,
            CURLOPT_HTTPHEADER => ["Authorization: Bearer {$daemon->token()}", 'Content-Type: application/json'],
        ]);
        curl_exec($curl);
    }
}
