<?php

declare(strict_types=1);

namespace WHMCS\Module\Server\Provisor;

use Provisor\Description;
use Provisor\Problem;
use Provisor\Read;
use Provisor\Service;

/** The product's settings, and what the gateway offers for them. */
final class Settings
{
    /**
     * All 24. WHMCS stores them by their place in this list, so that none is ever left out: what a field shows may change with what the
     * gateway says, its place never.
     *
     * @param array<mixed> $params
     * @return array<string, array<string, mixed>>
     */
    public static function all(array $params): array
    {
        $options = [
            'profile' => ['Loader' => 'provisor_profiles', 'SimpleMode' => true] + self::text('profile'),
            'plan' => ['Loader' => 'provisor_plans', 'SimpleMode' => true] + self::text('plan'),
            'term' => ['Loader' => 'provisor_terms', 'SimpleMode' => true] + self::text('term'),
            'wait' => ['Default' => (string) Service::WAIT_DEFAULT] + self::text('wait'),
            'reinstall' => ['Type' => 'yesno'] + self::text('reinstall_allowed'),
        ];
        $description = self::description($params);
        for ($slot = 1; $slot <= Account::SLOTS_MAX; $slot++) {
            $options["slot$slot"] = self::slot($slot, $description === null ? [] : $description->fieldsOfSlot($slot));
        }
        return $options;
    }

    /**
     * @param array<mixed> $params
     * @return array<string, string>
     * @throws \RuntimeException
     */
    public static function profiles(array $params): array
    {
        return self::offered(static function () use ($params): array {
            $profiles = [];
            foreach (Server::gateway($params)->profiles() as $profile) {
                $name = Read::text($profile, 'name');
                $profiles[$name] = "$name (" . Read::text($profile, 'provider_name') . ')';
            }
            return $profiles;
        });
    }

    /**
     * The plans of the chosen profile, or of all as long as none is chosen.
     *
     * @param array<mixed> $params
     * @return array<string, string>
     * @throws \RuntimeException
     */
    public static function plans(array $params): array
    {
        return self::offered(static function () use ($params): array {
            $plans = [];
            foreach (self::catalogs($params) as $profile => $catalog) {
                foreach ($catalog as $plan) {
                    $prices = implode(', ', array_map([self::class, 'price'], Read::maps($plan, 'prices')));
                    $plans[Read::text($plan, 'id')] = "$profile: " . Read::text($plan, 'name') . ($prices === '' ? '' : " ($prices)");
                }
            }
            return $plans;
        });
    }

    /**
     * @param array<mixed> $params
     * @return array<string, string>
     * @throws \RuntimeException
     */
    public static function terms(array $params): array
    {
        return self::offered(static function () use ($params): array {
            $terms = ['' => '–'];
            foreach (self::catalogs($params) as $catalog) {
                foreach ($catalog as $plan) {
                    foreach (Read::maps($plan, 'prices') as $price) {
                        $terms[Read::text($price, 'term')] = Read::text($price, 'term');
                    }
                }
            }
            return $terms;
        });
    }

    /** @return array<string, mixed> */
    private static function text(string $name): array
    {
        return ['FriendlyName' => Texts::get($name), 'Type' => 'text', 'Size' => '25', 'Description' => Texts::get("{$name}_help")];
    }

    /**
     * Values and labels for a list, or the exception whose message WHMCS shows in its place.
     *
     * @param callable(): array<string, string> $question
     * @return array<string, string>
     */
    private static function offered(callable $question): array
    {
        try {
            return array_map(static function (string $label): string {
                return Service::caption($label);
            }, $question());
        } catch (Problem $problem) {
            throw new \RuntimeException(Texts::plain($problem->staffText()));
        }
    }

    /**
     * @param array<mixed> $params
     * @return array<string, list<array<string, mixed>>> plans by profile
     */
    private static function catalogs(array $params): array
    {
        $gateway = Server::gateway($params);
        $chosen = (new Account($params))->profile();
        $catalogs = [];
        foreach ($gateway->profiles() as $profile) {
            $name = Read::text($profile, 'name');
            if ($chosen === '' || $chosen === $name) {
                $catalogs[$name] = Read::maps($gateway->catalog($name), 'plans');
            }
        }
        return $catalogs;
    }

    /** @param array<string, mixed> $price */
    private static function price(array $price): string
    {
        $amount = Read::map($price, 'amount');
        $money = sprintf('%.2f %s', (int) Read::text($amount, 'minor') / 100, Read::text($amount, 'currency'));
        return trim($money) . ' ' . Read::text($price, 'term');
    }

    /**
     * What the providers can do. WHMCS asks for the settings before a server is chosen, so that it is any server's word, and only on
     * staff's pages.
     *
     * @param array<mixed> $params
     */
    private static function description(array $params): ?Description
    {
        try {
            $isGiven = Read::text($params, 'serverhostname') . Read::text($params, 'serverip') !== '';
            $server = $isGiven ? $params : (defined('ADMINAREA') ? Server::stored()[0] ?? null : null);
            return $server === null ? null : Server::description($server);
        } catch (Problem $problem) {
            // Then the fields have plain names.
            return null;
        }
    }

    /**
     * @param list<array<string, mixed>> $fields those that providers have at this position
     * @return array<string, mixed>
     */
    private static function slot(int $slot, array $fields): array
    {
        $labels = $helps = $kinds = [];
        $choices = ['' => '–'];
        foreach ($fields as $field) {
            $labels[] = Read::text($field, 'label', Read::text($field, 'name'));
            $helps[] = Read::text($field, 'help');
            $kinds[] = Read::text($field, 'kind');
            foreach (Read::maps($field, 'choices') as $choice) {
                $choices[Read::text($choice, 'value')] = Texts::plain(Read::text($choice, 'label'));
            }
        }
        $setting = [
            'FriendlyName' => $labels === [] ? Texts::get('option_n', ['n' => (string) $slot]) : self::joined($labels, ' / '),
            'Description' => $fields === [] ? Texts::get('option_unused') : self::joined($helps, ' '),
            'SimpleMode' => $fields !== [],
        ];
        switch (self::joined($kinds, ' ')) {
            case 'choice':
                return $setting + ['Type' => 'dropdown', 'Options' => $choices];
            case 'boolean':
                return $setting + ['Type' => 'yesno'];
            default:
                return $setting + ['Type' => 'text', 'Size' => '25'];
        }
    }

    /** @param list<string> $texts */
    private static function joined(array $texts, string $between): string
    {
        return Texts::plain(implode($between, array_unique(array_filter($texts))));
    }
}
