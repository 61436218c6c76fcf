<?php

declare(strict_types=1);

namespace WHMCS\Module\Server\Provisor;

use Provisor\Problem;
use Provisor\Read;
use Provisor\Service;

/** Our own words, in the language of whoever reads them: those of lang/, English where a language is not there. */
final class Texts
{
    /** @var array<string, array<string, string>> */
    private static array $loaded = [];

    /** Whether a customer reads it. Customers are told less. */
    public static function isForCustomer(): bool
    {
        return defined('CLIENTAREA');
    }

    /** @param array<string, string> $with what stands in for {name} */
    public static function get(string $name, array $with = []): string
    {
        $text = self::all()[$name] ?? $name;
        foreach ($with as $key => $value) {
            $text = str_replace('{' . $key . '}', $value, $text);
        }
        return $text;
    }

    /**
     * All texts of the reader's language.
     *
     * @return array<string, string>
     */
    public static function all(): array
    {
        return self::load(self::language()) + self::load('english');
    }

    /** The name of a state for people. */
    public static function state(string $state): string
    {
        $known = self::all();
        return $known["state_$state"] ?? $state;
    }

    /** A problem in the words for whoever reads it. */
    public static function problem(Problem $problem): string
    {
        return self::plain(self::isForCustomer() ? $problem->customerText(self::get('neutral')) : $problem->staffText());
    }

    /** WHMCS prints what a module answers into a page and into mails as it is: no markup of a provider's message survives this. */
    public static function plain(string $text): string
    {
        return Service::plain($text);
    }

    private static function language(): string
    {
        $session = Read::named($_SESSION ?? []);
        $chosen = self::isForCustomer() ? Read::text($session, 'Language') : Read::text($session, 'adminlang');
        if ($chosen === '') {
            $chosen = Read::text(Read::named($GLOBALS['CONFIG'] ?? []), 'Language');
        }
        return preg_match('/^[a-z]{1,32}$/D', strtolower($chosen)) === 1 ? strtolower($chosen) : 'english';
    }

    /** @return array<string, string> */
    private static function load(string $language): array
    {
        if (!isset(self::$loaded[$language])) {
            $file = dirname(__DIR__) . "/lang/$language.php";
            /** @var array<string, string> $texts */
            $texts = is_file($file) ? require $file : [];
            self::$loaded[$language] = $texts;
        }
        return self::$loaded[$language];
    }
}
