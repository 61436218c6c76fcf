<?php

declare(strict_types=1);

namespace Provisor\Tests\Fossbilling;

use PHPUnit\Framework\TestCase;
use Twig\Environment;
use Twig\Loader\FilesystemLoader;
use Twig\TwigFilter;
use Twig\TwigFunction;

require_once __DIR__ . '/load.php';
require_once '/usr/share/php/Twig/autoload.php';

/** The pages as FOSSBilling's template engine renders them, with its own filters and functions standing in. */
final class TemplatesTest extends TestCase
{
    private const MARKUP = '<script>alert("x")</script>\'&';

    /** @dataProvider areas */
    public function testThePageOfAServiceEscapesAllAndOffersWhatThereIs(string $area): void
    {
        $page = [
            'problem' => self::MARKUP,
            'rows' => [self::MARKUP => self::MARKUP],
            'offers' => ['start', 'reinstall', 'change-password', 'sign-on', 'access'],
            'labels' => ['start' => self::MARKUP, 'reinstall' => 'Reinstall', 'change-password' => 'x', 'sign-on' => 'Log in', 'access' => 'Access data'],
        ];
        $html = $this->rendered($area, 'manage', $area, ['serviceprovisor_get' => $page], ['order' => ['id' => 7, 'title' => self::MARKUP]]);
        self::assertStringContainsString('name="action" value="start"', $html);
        self::assertStringContainsString('type="checkbox" required', $html, 'a reinstallation is confirmed');
        self::assertSame(2, substr_count($html, 'target="_blank"'));
        self::assertSame(1, substr_count($html, 'name="password_confirm"'));
    }

    public function testThePageOfAServiceWithoutOffersHasNoForms(): void
    {
        $page = ['problem' => '', 'rows' => [], 'offers' => [], 'labels' => []];
        $html = $this->rendered('client', 'manage', 'client', ['serviceprovisor_get' => $page], ['order' => ['id' => 7, 'title' => 'x']]);
        self::assertStringNotContainsString('<form', $html);
    }

    public function testTheProductsSettings(): void
    {
        $answers = [
            'serviceprovisor_get_profiles' => ['machines' => self::MARKUP],
            'serviceprovisor_get_plans' => ['42' => self::MARKUP],
            'serviceprovisor_get_fields' => [
                ['name' => 'quantity', 'label' => self::MARKUP, 'default' => '1', 'help' => self::MARKUP],
                ['name' => 'domain', 'label' => 'Domain', 'default' => null, 'help' => null],
            ],
        ];
        $config = ['profile' => 'machines', 'plan' => self::MARKUP, 'options' => ['quantity' => '3'], 'customer_may_reinstall' => '1'];
        $html = $this->rendered('admin', 'config', 'admin', $answers, ['product' => ['id' => 3, 'config' => $config]]);
        self::assertStringContainsString('name="config[options][quantity]" value="3"', $html);
        self::assertStringNotContainsString('config[options][domain]', $html, 'the customer says it');
        self::assertStringContainsString('value="machines" selected', $html);
        $html = $this->rendered('admin', 'config', 'admin', array_map('array_filter', [
            'serviceprovisor_get_profiles' => [],
            'serviceprovisor_get_plans' => [],
            'serviceprovisor_get_fields' => [],
        ]), ['product' => ['id' => 3, 'config' => ['profile' => 'machines']]]);
        self::assertStringContainsString('value="machines" selected', $html, 'what was chosen stays, also without the gateway');
    }

    public function testTheSettingsDoNotPrintTheTokenAsText(): void
    {
        $answers = ['extension_config_get' => ['address' => 'https://gateway.example', 'token' => 'MARKED'], 'serviceprovisor_get_profiles' => []];
        $html = $this->rendered('admin', 'settings', 'admin', $answers, ['request' => ['ajax' => true]]);
        self::assertSame(1, substr_count($html, 'MARKED'));
        self::assertMatchesRegularExpression('/type="password"[^>]*value="MARKED"/', $html);
    }

    public function testTheMails(): void
    {
        foreach (['activated', 'suspended', 'unsuspended', 'renewed', 'canceled'] as $name) {
            $with = ['guest' => ['system_company' => ['name' => 'Shop'], 'system_email' => ['signature' => 'Shop']], 'order' => ['title' => self::MARKUP], 'c' => ['first_name' => 'A']];
            self::assertStringContainsString('Hello A', $this->rendered('email', $name, '', [], $with));
        }
    }

    /** @return array<string, array{string}> */
    public static function areas(): array
    {
        return ['staff' => ['admin'], 'customer' => ['client']];
    }

    /**
     * @param array<string, mixed> $answers what the API says
     * @param array<string, mixed> $with
     */
    private function rendered(string $folder, string $page, string $area, array $answers, array $with): string
    {
        $loader = new FilesystemLoader(dirname(__DIR__, 3) . "/plugins/fossbilling/modules/Serviceprovisor/templates/$folder");
        $loader->addPath(__DIR__ . '/templates');
        $twig = new Environment($loader, ['strict_variables' => true]);
        $same = static function (string $text): string {
            return $text;
        };
        foreach (['trans', 'api_url', 'url'] as $name) {
            $twig->addFilter(new TwigFilter($name, $same));
        }
        $attribute = static function (): string {
            return 'data-fb-api';
        };
        $twig->addFunction(new TwigFunction('fb_api_form', $attribute, ['is_safe' => ['html']]));
        $html = $twig->render("mod_serviceprovisor_$page.html.twig", $with + ['request' => ['ajax' => false]] + ($area === '' ? [] : [$area => new Answers($answers)]));
        self::assertStringNotContainsString('<script>alert', $html);
        return $html;
    }
}
