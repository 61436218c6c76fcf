<?php

declare(strict_types=1);

namespace Provisor;

/**
 * Provisor's gateway, as a panel asks it: one method per question, one for all changes. See docs/gateway.md for the API.
 *
 * Nothing here is repeated by itself, no redirect is followed and no proxy is used on the way to a plain http address, since every
 * request carries the panel's token.
 */
final class Gateway
{
    /** Seconds that the gateway itself lets a caller wait. */
    private const WAIT_MAX = 110;
    /** Seconds between the end of the wait and giving up on the answer. */
    private const GRACE = 10.0;
    /** Seconds for a question that the gateway answers from its own books. */
    private const QUESTION_TIMEOUT = 10.0;
    /** Seconds for a question that the gateway may have to pass on to the provider. */
    private const PROVIDER_TIMEOUT = 75.0;
    /** Bytes of an answer. The longest, a page of 200 services, has some 200 KiB. */
    private const ANSWER_MAX = 8388608;
    /** Errors of cURL that come before the first byte was sent: host not found, no connection, no TLS, a bad address. */
    private const ERRORS_BEFORE_SENDING = [1, 2, 3, 4, 5, 6, 7, 35, 51, 53, 54, 58, 59, 60, 64, 66, 77, 80, 82, 83, 90, 91];

    private string $base;
    private string $socket = '';
    private string $token;
    private float $connectTimeout;

    /**
     * @param string $address        "http://127.0.0.1:7070", "https://gateway.example", or "unix:/run/provisor/gateway.sock"
     * @param string $token          as `provisor panel create` printed it
     * @param float  $connectTimeout seconds
     */
    public function __construct(
        string $address,
        #[\SensitiveParameter]
        string $token,
        float $connectTimeout = 3.0
    ) {
        if (strncmp($address, 'unix:/', 6) === 0) {
            $this->socket = substr($address, 5);
            $address = 'http://localhost';
        }
        // Neither a user nor a query may stand in it: both would end up in logs.
        if (preg_match('~^https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[A-Za-z0-9._/-]*)?$~D', $address) !== 1) {
            throw new Problem('invalid', 'The gateway\'s address must be like https://gateway.example, http://127.0.0.1:7070 or unix:/path.');
        }
        // What a header may carry; a line break would begin another one.
        if (preg_match('/^[\x21-\x7e]+$/D', $token) !== 1) {
            throw new Problem('unauthorized', 'The gateway\'s token is missing or has characters that no token has.');
        }
        $this->base = rtrim($address, '/');
        $this->token = $token;
        $this->connectTimeout = $connectTimeout;
    }

    /**
     * Asks for a change and waits for its end. The gateway goes on with it when nobody waits any more.
     *
     * @param string               $key            the panel's own, stable name of the service
     * @param string               $operation      `create`, `suspend`, `unsuspend`, `terminate`, `renew`, `reset-password`,
     *                                             `change-package`, `power` or `adopt`
     * @param array<string, mixed> $fields         those that are null are left out
     * @param int                  $wait           seconds, 0 to 110
     * @param ?string              $idempotencyKey 1 to 255 visible characters: the same key, the same change
     * @throws Problem refused, unreachable, or of unknown outcome
     */
    public function change(
        string $key,
        string $operation,
        #[\SensitiveParameter]
        array $fields = [],
        int $wait = 25,
        ?string $idempotencyKey = null
    ): Answer {
        $wait = max(0, min(self::WAIT_MAX, $wait));
        $headers = ['Content-Type: application/json', "Prefer: wait=$wait"];
        if ($idempotencyKey !== null) {
            if (preg_match('/^[\x21-\x7e]{1,255}$/D', $idempotencyKey) !== 1) {
                throw new Problem('invalid', 'An idempotency key has 1 to 255 visible characters.');
            }
            $headers[] = "Idempotency-Key: $idempotencyKey";
        }
        $path = self::servicePath($key) . '/' . rawurlencode($operation);
        [$status, $body] = $this->send('POST', $path, $headers, self::json($fields), $wait + self::GRACE);
        return new Answer($status === 200, $body);
    }

    /**
     * A service as the journal knows it; `fresh` asks the provider first.
     *
     * @return array<string, mixed>
     * @throws Problem
     */
    public function service(string $key, bool $fresh = false): array
    {
        return $fresh ? $this->ask(self::servicePath($key), ['fresh' => 'true'], self::PROVIDER_TIMEOUT) : $this->ask(self::servicePath($key));
    }

    /**
     * One page of the services: `{"services", "next"}`.
     *
     * @param array<string, scalar> $query `state`, `drifted`, `profile`, `limit`, `cursor`
     * @return array<string, mixed>
     * @throws Problem
     */
    public function services(array $query = []): array
    {
        return $this->ask('/v1/services', $query);
    }

    /**
     * How to log in to a service: `username`, `password`, `port`, `url`, `properties`. Providers record each reading.
     *
     * @return array<string, mixed>
     * @throws Problem
     */
    public function credentials(string $key): array
    {
        return $this->ask(self::servicePath($key) . '/credentials', [], self::PROVIDER_TIMEOUT);
    }

    /**
     * A form that the browser posts to log in: `{"url", "fields"}`.
     *
     * @return array<string, mixed>
     * @throws Problem
     */
    public function signOn(string $key, string $target): array
    {
        return $this->ask(self::servicePath($key) . '/sign-on', ['target' => $target], self::PROVIDER_TIMEOUT);
    }

    /**
     * One page of the invoices of the service's profile: `{"invoices", "next"}`.
     *
     * @return array<string, mixed>
     * @throws Problem
     */
    public function invoices(string $key, ?string $cursor = null): array
    {
        return $this->ask(self::servicePath($key) . '/invoices', $cursor === null ? [] : ['cursor' => $cursor], self::PROVIDER_TIMEOUT);
    }

    /**
     * An operation with its `history`.
     *
     * @return array<string, mixed>
     * @throws Problem
     */
    public function operation(string $id): array
    {
        return $this->ask('/v1/operations/' . rawurlencode($id));
    }

    /**
     * One page of the operations, newest first: `{"operations", "next"}`.
     *
     * @param array<string, scalar> $query `state`, `service`, `limit`, `cursor`
     * @return array<string, mixed>
     * @throws Problem
     */
    public function operations(array $query = []): array
    {
        return $this->ask('/v1/operations', $query);
    }

    /**
     * The profiles that this token may use: `name`, `provider`, `provider_name`, `capabilities`.
     *
     * @return list<array<string, mixed>>
     * @throws Problem
     */
    public function profiles(): array
    {
        return Read::maps($this->ask('/v1/profiles'), 'profiles');
    }

    /**
     * Whether the provider accepts a profile: `{"ok", "account"}`.
     *
     * @return array<string, mixed>
     * @throws Problem
     */
    public function check(string $profile): array
    {
        return $this->ask(self::profilePath($profile) . '/check', [], self::PROVIDER_TIMEOUT);
    }

    /**
     * What a profile's provider sells: `{"plans", "read_at"}`, kept for ten minutes.
     *
     * @return array<string, mixed>
     * @throws Problem
     */
    public function catalog(string $profile, bool $refresh = false): array
    {
        return $this->ask(self::profilePath($profile) . '/catalog', $refresh ? ['refresh' => 'true'] : [], self::PROVIDER_TIMEOUT);
    }

    /**
     * What the providers can do and what they ask for; see Description.
     *
     * @return array<string, mixed>
     * @throws Problem
     */
    public function describe(string $panel): array
    {
        return $this->ask('/v1/describe', ['panel' => $panel]);
    }

    /**
     * What a print of this object shows: never the token.
     *
     * @return array<string, string>
     */
    public function __debugInfo(): array
    {
        return ['address' => $this->socket === '' ? $this->base : "unix:{$this->socket}"];
    }

    /** @return array<string, mixed> */
    public function __serialize(): array
    {
        throw new \LogicException('A gateway holds a token and is not to be stored.');
    }

    private static function servicePath(string $key): string
    {
        if (preg_match('/^[A-Za-z0-9._:-]{1,128}$/D', $key) !== 1) {
            throw new Problem('invalid', 'A service key has 1 to 128 of the characters A-Z a-z 0-9 . _ : -');
        }
        // All of these stand in a path as they are.
        return "/v1/services/$key";
    }

    private static function profilePath(string $profile): string
    {
        return '/v1/profiles/' . rawurlencode($profile);
    }

    /** @param array<string, mixed> $fields */
    private static function json(array $fields): string
    {
        $fields = array_filter($fields, static function ($value): bool {
            return $value !== null;
        });
        if (isset($fields['options'])) {
            // An empty array would become a JSON list.
            $fields['options'] = (object) $fields['options'];
        }
        try {
            return json_encode((object) $fields, JSON_THROW_ON_ERROR | JSON_INVALID_UTF8_SUBSTITUTE);
        } catch (\JsonException $error) {
            throw new Problem('invalid', "The request cannot be written as JSON: {$error->getMessage()}");
        }
    }

    /**
     * @param array<string, scalar> $query
     * @return array<string, mixed>
     */
    private function ask(string $path, array $query = [], float $timeout = self::QUESTION_TIMEOUT): array
    {
        $path .= $query === [] ? '' : '?' . http_build_query($query, '', '&', PHP_QUERY_RFC3986);
        return $this->send('GET', $path, [], null, $timeout)[1];
    }

    /**
     * One request, and its answer if that is a good one.
     *
     * @param list<string> $headers
     * @return array{int, array<string, mixed>} status and body
     */
    private function send(
        string $method,
        string $path,
        array $headers,
        #[\SensitiveParameter]
        ?string $body,
        float $timeout
    ): array {
        [$status, $text] = $this->exchange($method, $path, $headers, $body, $timeout);
        $answer = Read::named(json_decode($text, true, 64, JSON_BIGINT_AS_STRING));
        if (($status === 200 || $status === 202) && $answer !== []) {
            return [$status, $answer];
        }
        throw Problem::fromAnswer($status, $answer, $body !== null);
    }

    /**
     * @param list<string> $headers
     * @return array{int, string} status and body
     */
    private function exchange(
        string $method,
        string $path,
        array $headers,
        #[\SensitiveParameter]
        ?string $body,
        float $timeout
    ): array {
        $curl = curl_init($this->base . $path);
        if ($curl === false) {
            throw new Problem('unreachable', 'cURL cannot be used on this server.');
        }
        $text = '';
        curl_setopt_array($curl, $this->options($method, $path, $headers, $body, $timeout));
        curl_setopt($curl, CURLOPT_WRITEFUNCTION, static function ($curl, string $part) use (&$text): int {
            $text .= $part;
            return strlen($text) > self::ANSWER_MAX ? 0 : strlen($part);
        });
        if (curl_exec($curl) === false) {
            $sent = (int) curl_getinfo($curl, CURLINFO_REQUEST_SIZE);
            $isSent = $sent > 0 && !in_array(curl_errno($curl), self::ERRORS_BEFORE_SENDING, true);
            $effect = $body !== null && $isSent ? 'unknown' : 'none';
            $address = $this->socket === '' ? $this->base : "unix:{$this->socket}";
            throw new Problem('unreachable', "The gateway at $address does not answer: " . curl_error($curl) . '.', $effect);
        }
        return [(int) curl_getinfo($curl, CURLINFO_RESPONSE_CODE), $text];
    }

    /**
     * @param list<string> $headers
     * @return array<int, mixed>
     */
    private function options(
        string $method,
        string $path,
        array $headers,
        #[\SensitiveParameter]
        ?string $body,
        float $timeout
    ): array {
        $own = ['Authorization: Bearer ' . $this->token, 'Accept: application/json', 'User-Agent: provisor-php', 'Expect:'];
        $options = [
            CURLOPT_CUSTOMREQUEST => $method,
            CURLOPT_HTTPHEADER => array_merge($own, $headers),
            // A path such as /v1/services/.. stays as it is.
            CURLOPT_PATH_AS_IS => true,
            CURLOPT_FOLLOWLOCATION => false,
            CURLOPT_PROTOCOLS => CURLPROTO_HTTP | CURLPROTO_HTTPS,
            CURLOPT_HTTP_VERSION => CURL_HTTP_VERSION_1_1,
            // Without signals cURL's timeouts also hold where name resolution blocks.
            CURLOPT_NOSIGNAL => true,
            CURLOPT_CONNECTTIMEOUT_MS => (int) ($this->connectTimeout * 1000),
            CURLOPT_TIMEOUT_MS => (int) (($this->connectTimeout + $timeout) * 1000),
        ];
        if ($body !== null) {
            $options[CURLOPT_POSTFIELDS] = $body;
        }
        if ($this->socket !== '') {
            $options[CURLOPT_UNIX_SOCKET_PATH] = $this->socket;
        }
        if (strncmp($this->base, 'http:', 5) === 0) {
            // An http_proxy of the environment would be shown the token.
            $options[CURLOPT_PROXY] = '';
        }
        return $options;
    }
}
