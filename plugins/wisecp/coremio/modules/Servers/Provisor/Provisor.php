<?php

declare(strict_types=1);

use Provisor\Problem;
use Provisor\Read;
use Provisor\Service;

require_once __DIR__ . '/load.php';

/** For products of the kind "server": the gateway is a server of WISECP, its token the access hash. */
class Provisor_Module extends ServerModule
{
    use Provisor_Calls;

    /**
     * @param array<mixed> $server
     * @param array<mixed> $options
     */
    public function __construct($server, $options = [])
    {
        $this->_name = 'Provisor';
        parent::__construct($server, $options);
    }

    /** @return bool */
    public function testConnect()
    {
        try {
            if ($this->provisorGateway()->profiles() !== []) {
                return true;
            }
            $this->error = $this->provisorText('no_profile');
        } catch (Problem $problem) {
            $this->error = Service::plain($problem->staffText());
        }
        return false;
    }

    /** What it needs is read from $this->server when it is needed. */
    protected function define_server_info($server = [])
    {
    }

    /** @return array{address: string, token: string, wait: string} */
    protected function provisorSettings(): array
    {
        $server = is_array($this->server) ? $this->server : [];
        $host = trim(Read::text($server, 'ip'));
        $name = trim(Read::text($server, 'name'));
        $token = trim(Read::text($server, 'access_hash'));
        $settings = ['token' => $token !== '' ? $token : Read::text($server, 'password'), 'wait' => ''];
        foreach ([$name, $host] as $address) {
            if (preg_match('~^(unix:|https?:)~', $address) === 1) {
                return ['address' => $address] + $settings;
            }
        }
        $isSecure = in_array(Read::text($server, 'secure'), ['1', 'true'], true);
        $port = (int) Read::text($server, 'port');
        $port = $port > 0 ? $port : ($isSecure ? 443 : 7070);
        // A certificate is for a name; an IPv6 address stands in brackets.
        $host = $host === '' || ($isSecure && strpos($name, '.') !== false) ? $name : $host;
        $host = substr_count($host, ':') > 1 && $host[0] !== '[' ? "[$host]" : $host;
        return ['address' => ($isSecure ? 'https' : 'http') . "://$host:$port"] + $settings;
    }

    protected function provisorType(): string
    {
        return 'Servers';
    }

    /**
     * What WISECP stores with the service.
     *
     * @param array<string, mixed> $made
     * @return array<string, mixed>
     */
    protected function provisorMade(array $made): array
    {
        $addresses = Read::texts($made, 'addresses');
        return [
            'ip' => $addresses[0] ?? '',
            'assigned_ips' => array_slice($addresses, 1),
            'config' => [(string) $this->entity_id_name => Read::text($made, 'remote_id')],
        ];
    }
}
