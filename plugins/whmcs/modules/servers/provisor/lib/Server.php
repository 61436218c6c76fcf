<?php

declare(strict_types=1);

namespace WHMCS\Module\Server\Provisor;

use Provisor\Description;
use Provisor\Gateway;
use Provisor\Problem;
use Provisor\Read;
use WHMCS\Database\Capsule;

/** The gateway as a server of WHMCS: the host name says where it is, or the access hash does; the password is the panel's token. */
final class Server
{
    private const MODULE = 'provisor';
    private const PORT = '7070';
    private const PORT_TLS = '443';

    /** @var array<string, Description> what was asked once in this request */
    private static array $descriptions = [];

    /**
     * @param array<mixed> $params of a module function
     * @throws Problem
     */
    public static function gateway(array $params): Gateway
    {
        return new Gateway(self::address($params), self::token($params));
    }

    /**
     * What the providers can do, asked once in a request.
     *
     * @param array<mixed> $params of a module function
     * @throws Problem
     */
    public static function description(array $params): Description
    {
        $known = hash('sha256', self::address($params) . "\n" . self::token($params));
        return self::$descriptions[$known] ??= new Description(self::gateway($params)->describe('whmcs'));
    }

    /**
     * The active servers of this module, as the parameters that WHMCS would give to a function of each. For pages and jobs that are not
     * about one service.
     *
     * @return list<array<string, mixed>>
     */
    public static function stored(?int $id = null): array
    {
        $servers = [];
        foreach (Capsule::table('tblservers')->where('type', self::MODULE)->where('disabled', 0)->get() as $row) {
            $row = Read::named((array) $row);
            if ($id !== null && (int) Read::text($row, 'id') !== $id) {
                continue;
            }
            $servers[] = [
                'serverid' => (int) Read::text($row, 'id'),
                'serverhostname' => Read::text($row, 'hostname'),
                'serverip' => Read::text($row, 'ipaddress'),
                'serverport' => Read::text($row, 'port'),
                'serversecure' => in_array(Read::text($row, 'secure'), ['on', '1', 'true'], true),
                'serverpassword' => self::decrypted(Read::text($row, 'password')),
                'serveraccesshash' => Read::text($row, 'accesshash'),
            ];
        }
        return $servers;
    }

    /** @param array<mixed> $params */
    public static function token(array $params): string
    {
        $password = trim(Read::text($params, 'serverpassword'));
        $hash = trim(Read::text($params, 'serveraccesshash'));
        return $password !== '' || self::isWholeAddress($hash) ? $password : $hash;
    }

    private static function isWholeAddress(string $text): bool
    {
        return preg_match('~^(unix:|https?:)~', $text) === 1;
    }

    /** @param array<mixed> $params */
    private static function address(array $params): string
    {
        $hash = trim(Read::text($params, 'serveraccesshash'));
        if (self::isWholeAddress($hash)) {
            // WHMCS takes any text here; whether it takes an address as a host name, it does not document.
            return $hash;
        }
        $host = trim(Read::text($params, 'serverhostname'));
        $host = $host !== '' ? $host : trim(Read::text($params, 'serverip'));
        if ($host === '') {
            throw new Problem('invalid', 'No server is assigned: choose one of the type Provisor for this product.');
        }
        if (self::isWholeAddress($host)) {
            return $host;
        }
        $isSecure = !in_array(Read::text($params, 'serversecure'), ['', '0', 'false', 'off'], true);
        $port = Read::text($params, 'serverport');
        $port = $port !== '' && $port !== '0' ? $port : ($isSecure ? self::PORT_TLS : self::PORT);
        // An IPv6 address stands in brackets.
        $host = substr_count($host, ':') > 1 && $host[0] !== '[' ? "[$host]" : $host;
        return ($isSecure ? 'https' : 'http') . "://$host:$port";
    }

    private static function decrypted(string $password): string
    {
        return $password === '' ? '' : Read::text(Read::named(localAPI('DecryptPassword', ['password2' => $password])), 'password');
    }
}
