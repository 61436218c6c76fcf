<?php

declare(strict_types=1);

namespace WHMCS\Module\Server\Provisor;

use Provisor\Problem;
use Provisor\Read;
use WHMCS\Database\Capsule;

/**
 * What must be done twice or in a second page, kept in the session of whoever does it.
 *
 * A provider's login is a form that the browser posts, since no credential may stand in an address; WHMCS can only redirect. So it
 * redirects to signon.php with a ticket, and that page asks the gateway for the form. No part of the form is stored.
 */
final class SignOn
{
    /** Seconds. */
    private const TICKET_AGE_MAX = 60;
    private const PRESS_AGE_MAX = 120;
    private const CONFIRMATION_AGE_MAX = 900;
    /** Tickets of one session at a time. */
    private const TICKETS_MAX = 20;
    private const TICKETS = 'provisor_tickets';

    /**
     * The address of a login that is good once, for a minute, and only to whoever is logged in here. The gateway is asked now whether it would work.
     *
     * @param array<mixed> $params
     * @throws Problem
     */
    public static function link(array $params, string $key, string $target): string
    {
        Server::gateway($params)->signOn($key, $target);
        $ticket = self::issue(['key' => $key, 'target' => $target, 'server' => (int) Read::text($params, 'serverid')], self::TICKET_AGE_MAX);
        return self::systemUrl() . '/modules/servers/provisor/signon.php?ticket=' . $ticket;
    }

    /**
     * The form of a ticket, which is used up: `url` and `fields`.
     *
     * @return array<string, mixed>
     * @throws Problem
     */
    public static function form(string $ticket): array
    {
        $kept = self::redeem($ticket);
        $server = $kept === null ? null : Server::stored((int) Read::text($kept, 'server'))[0] ?? null;
        if ($kept === null || $server === null) {
            throw new Problem('invalid', Texts::get('ticket_old'), 'none', 0, Texts::get('ticket_old'));
        }
        return Server::gateway($server)->signOn(Read::text($kept, 'key'), Read::text($kept, 'target'));
    }

    /**
     * A value that confirms an action on a service, for a form.
     *
     * @param array<mixed> $params
     */
    public static function confirmation(string $action, array $params): string
    {
        return self::issue(['action' => $action, 'key' => (new Account($params))->key()], self::CONFIRMATION_AGE_MAX);
    }

    /**
     * Whether such a value came back. It is used up.
     *
     * @param array<mixed> $params
     */
    public static function isConfirmed(string $action, array $params, string $value): bool
    {
        $kept = self::redeem($value);
        return $kept !== null && Read::text($kept, 'action') === $action && Read::text($kept, 'key') === (new Account($params))->key();
    }

    /**
     * Whether the same was asked for a moment ago. Otherwise the next time will be the second.
     *
     * @param array<mixed> $params
     */
    public static function isSecondPress(string $action, array $params): bool
    {
        $name = "press-$action-" . Read::text($params, 'addonId') . '-' . Read::text($params, 'serviceid');
        if (self::redeem($name) !== null) {
            return true;
        }
        self::keep($name, [], self::PRESS_AGE_MAX);
        return false;
    }

    /** @param array<string, mixed> $what */
    private static function issue(array $what, int $seconds): string
    {
        $ticket = bin2hex(random_bytes(16));
        self::keep($ticket, $what, $seconds);
        return $ticket;
    }

    /** @param array<string, mixed> $what */
    private static function keep(string $name, array $what, int $seconds): void
    {
        $tickets = self::tickets();
        $tickets[$name] = $what + ['until' => time() + $seconds];
        $_SESSION[self::TICKETS] = array_slice($tickets, -self::TICKETS_MAX, null, true);
    }

    /** @return ?array<string, mixed> */
    private static function redeem(string $name): ?array
    {
        $tickets = self::tickets();
        $kept = $tickets[$name] ?? null;
        unset($tickets[$name]);
        $_SESSION[self::TICKETS] = $tickets;
        return $kept !== null && (int) Read::text($kept, 'until') >= time() ? $kept : null;
    }

    /** @return array<string, array<string, mixed>> */
    private static function tickets(): array
    {
        return array_map([Read::class, 'named'], Read::map(Read::named($_SESSION ?? []), self::TICKETS));
    }

    private static function systemUrl(): string
    {
        $row = Capsule::table('tblconfiguration')->where('setting', 'SystemURL')->first();
        return rtrim(Read::text(Read::named((array) $row), 'value'), '/');
    }
}
