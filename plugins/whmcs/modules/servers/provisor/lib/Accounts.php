<?php

declare(strict_types=1);

namespace WHMCS\Module\Server\Provisor;

use Provisor\Gateway;
use Provisor\Problem;
use Provisor\Read;
use WHMCS\Service\Status;

/** What exists according to the gateway, for WHMCS's tool that compares and imports. */
final class Accounts
{
    private const PAGE = 200;

    /**
     * @return list<array<string, string>>
     * @throws Problem
     */
    public static function all(Gateway $gateway): array
    {
        $accounts = [];
        $cursor = null;
        do {
            $page = $gateway->services(['limit' => self::PAGE] + ($cursor === null ? [] : ['cursor' => $cursor]));
            foreach (Read::maps($page, 'services') as $service) {
                $state = Read::text($service, 'state');
                if ($state === 'active' || $state === 'suspended') {
                    $accounts[] = self::account($service, $state === 'active' ? Status::ACTIVE : Status::SUSPENDED);
                }
            }
            $next = Read::optional($page, 'next');
            // A cursor that does not move would never end.
            $cursor = $next === $cursor ? null : $next;
        } while ($cursor !== null);
        return $accounts;
    }

    /**
     * @param array<string, mixed> $service
     * @return array<string, string>
     */
    private static function account(array $service, string $status): array
    {
        $created = strtotime(Read::text($service, 'created_at'));
        return [
            // The gateway knows no customers.
            'email' => '',
            'username' => Read::text($service, 'username', Read::text($service, 'key')),
            'domain' => Read::text($service, 'domain'),
            'uniqueIdentifier' => Read::text($service, 'remote_id'),
            'product' => Read::text($service, 'plan'),
            'primaryip' => Read::texts($service, 'addresses')[0] ?? '',
            'created' => $created === false ? '' : gmdate('Y-m-d H:i:s', $created),
            'status' => $status,
        ];
    }
}
