<?php

declare(strict_types=1);

namespace Provisor\Tests\Whmcs;

use PHPUnit\Framework\TestCase;
use Provisor\Read;
use Provisor\Tests\Daemon;
use Smarty;

require_once __DIR__ . '/load.php';
require_once '/usr/share/php/smarty4/Smarty.class.php';

/** What a browser gets: the templates as WHMCS's template engine renders them, and the page that logs in, from the packed module. */
final class PagesTest extends TestCase
{
    private const EVIL = '<script>alert(1)</script>"\'&ünï {$x}';
    private static ?Daemon $daemon = null;
    private static string $folder = '';

    public static function setUpBeforeClass(): void
    {
        self::$folder = Daemon::temporaryFolder();
        self::$daemon = Daemon::start();
    }

    public static function tearDownAfterClass(): void
    {
        if (self::$daemon !== null) {
            self::$daemon->stop();
            self::$daemon = null;
        }
        Daemon::remove(self::$folder);
    }

    public function testTheOverviewShowsTheServiceAndItsButtons(): void
    {
        [$shop, $id] = $this->service(Daemon::MACHINES, '42');
        $page = Read::named($shop->asCustomer($id, 'ClientArea')['result']);
        self::assertSame('templates/overview.tpl', $page['tabOverviewModuleOutputTemplate']);
        $html = $this->render('overview', Read::map($page, 'templateVariables'));
        $document = self::parsed($html);
        self::assertStringContainsString('active', $html);
        self::assertStringContainsString('192.0.2.', $html);
        $actions = [];
        foreach (self::inputs($document, 'a') as $value) {
            $actions[] = $value;
        }
        self::assertSame(['start', 'stop', 'reboot', 'access', 'refresh'], $actions);
    }

    public function testTheOverviewOffersTheLoginWhereThereIsOne(): void
    {
        [$shop, $id] = $this->service(Daemon::FIREWALLS, '10k');
        $page = Read::named($shop->asCustomer($id, 'ClientArea')['result']);
        $html = $this->render('overview', Read::map($page, 'templateVariables'));
        self::assertStringContainsString("id=$id&amp;dosinglesignon=1", $html);
    }

    public function testThePageAppearsWithoutAGateway(): void
    {
        [$shop, $id] = $this->service(Daemon::MACHINES, '42');
        $shop->connect('http://127.0.0.1:1', 'token');
        $page = Read::named($shop->asCustomer($id, 'ClientArea')['result']);
        $html = $this->render('overview', Read::map($page, 'templateVariables'));
        self::assertStringContainsString('try again later', $html);
        self::assertStringNotContainsString('127.0.0.1', $html);
    }

    /**
     * Every value of every template, hostile.
     *
     * @dataProvider templates
     * @param array<string, mixed> $values
     */
    public function testTemplatesEscapeWhatTheyShow(string $template, array $values): void
    {
        $texts = array_map(static function (): string {
            return self::EVIL;
        }, (array) require dirname(__DIR__, 3) . '/plugins/whmcs/modules/servers/provisor/lang/english.php');
        $html = $this->render($template, ['token' => self::EVIL, 'provisor' => $values + ['texts' => $texts, 'serviceid' => self::EVIL]]);
        $document = self::parsed($html);
        self::assertSame(0, $document->getElementsByTagName('script')->length, $html);
        self::assertStringNotContainsString('<script', $html);
        foreach (self::inputs($document, 'token') as $token) {
            self::assertSame(self::EVIL, $token, 'shown, and shown as it is');
        }
        foreach ((new \DOMXPath($document))->query('//@*') ?: [] as $attribute) {
            self::assertStringStartsNotWith('on', strtolower($attribute->nodeName));
        }
    }

    /** @return array<string, array{string, array<string, mixed>}> */
    public function templates(): array
    {
        $shown = [
            'problem' => '',
            'state' => self::EVIL,
            'addresses' => [self::EVIL, self::EVIL],
            'due' => self::EVIL,
            'buttons' => [self::EVIL => self::EVIL],
            'signon' => true,
        ];
        return [
            'overview' => ['overview', $shown],
            'overview of a problem' => ['overview', ['problem' => str_repeat(self::EVIL, 200)] + $shown],
            'reinstall' => ['reinstall', ['confirm' => self::EVIL]],
            'access' => ['access', ['rows' => [self::EVIL => self::EVIL]]],
        ];
    }

    public function testTheLoginPageOfThePackedModulePostsTheFormOnce(): void
    {
        $www = $this->installed();
        [$shop, $id] = $this->service(Daemon::FIREWALLS, '10k');
        $answer = Read::named($shop->asCustomer($id, 'ServiceSingleSignOn')['result']);
        parse_str((string) parse_url(Read::text($answer, 'redirectTo'), PHP_URL_QUERY), $query);
        $ticket = Read::text($query, 'ticket');
        self::assertStringNotContainsString('example.com', print_r($_SESSION, true), 'the form is not in the session');
        $html = $this->visit($www, $ticket);
        $document = self::parsed($html);
        $form = $document->getElementsByTagName('form')->item(0);
        self::assertInstanceOf(\DOMElement::class, $form);
        self::assertSame(['https://login.example/enter', 'post'], [$form->getAttribute('action'), $form->getAttribute('method')]);
        $domain = $shop->params($id)['domain'];
        self::assertSame([$domain], self::inputs($document, 'username'));
        foreach ([$ticket, 'unknown', ''] as $bad) {
            $refused = $this->visit($www, $bad);
            self::assertStringNotContainsString('<form', $refused);
            self::assertStringContainsString('used already', $refused);
        }
    }

    public function testThePackedModuleBringsItsClient(): void
    {
        $module = $this->installed() . '/modules/servers/provisor';
        self::assertFileExists("$module/lib/client/Gateway.php");
        self::assertFileExists("$module/logo.png");
        $info = Read::named(json_decode((string) file_get_contents("$module/whmcs.json"), true));
        self::assertSame('whmcs-servers', $info['type']);
        self::assertFileExists($module . '/' . Read::text(Read::map($info, 'logo'), 'filename'));
        $sums = self::$folder . '/plugins/SHA256SUMS';
        self::assertFileExists($sums);
        foreach (file($sums, FILE_IGNORE_NEW_LINES) ?: [] as $line) {
            [$sum, $name] = explode('  ', $line);
            self::assertSame($sum, hash_file('sha256', self::$folder . "/plugins/$name"));
        }
    }

    /** @return array{Shop, string} */
    private function service(string $profile, string $plan): array
    {
        $daemon = self::$daemon ?? Daemon::start();
        $shop = new Shop();
        $shop->connect($daemon->address(), $daemon->token());
        $id = $shop->order([
            'profile' => $profile,
            'plan' => $plan,
            'domain' => 'site-' . bin2hex(random_bytes(6)) . '.example.com',
            'email' => 'customer@example.com',
            'password' => 'Passw0rd-xK9!vQ2z',
        ]);
        self::assertSame('', $shop->call($id, 'create')->text);
        return [$shop, $id];
    }

    /** @param array<string, mixed> $values */
    private function render(string $template, array $values): string
    {
        $smarty = new Smarty();
        $smarty->setCompileDir(self::$folder . '/smarty');
        $smarty->setTemplateDir(dirname(__DIR__, 3) . '/plugins/whmcs/modules/servers/provisor/templates');
        foreach ($values as $name => $value) {
            $smarty->assign($name, $value);
        }
        return $smarty->fetch("$template.tpl");
    }

    /** The packed module in a WHMCS of which there is only init.php. */
    private function installed(): string
    {
        $www = self::$folder . '/www';
        if (!is_dir($www)) {
            mkdir($www);
            $root = dirname(__DIR__, 3);
            $commands = [
                'CARGO_TARGET_DIR=' . escapeshellarg(self::$folder) . ' ' . escapeshellarg("$root/plugins/pack") . ' whmcs',
                'unzip -q ' . escapeshellarg(self::$folder) . '/plugins/provisor-whmcs-*.zip -d ' . escapeshellarg($www),
            ];
            foreach ($commands as $command) {
                exec("$command 2>&1", $output, $status);
                self::assertSame(0, $status, implode("\n", $output));
            }
            copy(__DIR__ . '/init.php', "$www/init.php");
        }
        return $www;
    }

    /** Opens signon.php, in the session and with the tables of now. */
    private function visit(string $www, string $ticket): string
    {
        $state = self::$folder . '/state.json';
        file_put_contents($state, json_encode(['session' => $_SESSION, 'tables' => \WHMCS\Database\Capsule::$tables, 'get' => ['ticket' => $ticket]]));
        $command = [PHP_BINARY, '-d', 'display_errors=1', "$www/modules/servers/provisor/signon.php"];
        $environment = ['WHMCS_STATE' => $state, 'WHMCS_LOAD' => __DIR__ . '/stand-ins.php'];
        $process = proc_open($command, [1 => ['pipe', 'w']], $pipes, null, $environment);
        self::assertIsResource($process);
        /** @var array{1: resource} $pipes */
        $html = (string) stream_get_contents($pipes[1]);
        self::assertSame(0, proc_close($process), $html);
        $_SESSION = Read::map(Read::named(json_decode((string) file_get_contents($state), true)), 'session');
        self::assertStringNotContainsString('Warning', $html);
        return $html;
    }

    private static function parsed(string $html): \DOMDocument
    {
        $document = new \DOMDocument();
        $document->loadHTML("<?xml encoding=\"utf-8\"?><body>$html</body>", LIBXML_NOERROR);
        return $document;
    }

    /** @return list<string> values of the inputs of this name */
    private static function inputs(\DOMDocument $document, string $name): array
    {
        $values = [];
        foreach ($document->getElementsByTagName('input') as $input) {
            if ($input->getAttribute('name') === $name) {
                $values[] = $input->getAttribute('value');
            }
        }
        return $values;
    }
}
