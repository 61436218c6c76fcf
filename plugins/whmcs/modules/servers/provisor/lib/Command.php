<?php

declare(strict_types=1);

namespace WHMCS\Module\Server\Provisor;

use Provisor\Answer;
use Provisor\Description;
use Provisor\Gateway;
use Provisor\Problem;
use Provisor\Read;

/** One call of WHMCS becomes one request to the gateway, and the answer WHMCS's `success` or a text. Nothing is thrown. */
final class Command
{
    private const SUCCESS = 'success';
    private const MASK = '********';

    /**
     * @param string                                                          $function  WHMCS's name of it, for the module log
     * @param array<mixed>                                                    $params
     * @param ?callable(Account, callable(): Description): array<string, mixed> $fields what the change takes
     */
    public static function change(string $function, array $params, string $operation, ?callable $fields = null): string
    {
        $account = new Account($params);
        $request = ['operation' => $operation];
        try {
            $request['key'] = $account->key();
            $sent = $fields === null ? [] : $fields($account, static function () use ($params): Description {
                return Server::description($params);
            });
            $request['fields'] = self::masked($sent);
            $answer = self::send(Server::gateway($params), $account, $operation, $sent);
            $account->remember($answer->service());
            self::log($function, $params, $request, self::told($answer));
            return $answer->isDone() ? self::SUCCESS : self::pending($answer);
        } catch (Problem $problem) {
            self::log($function, $params, $request, ['kind' => $problem->kind(), 'message' => $problem->staffText()]);
            return Texts::problem($problem);
        } catch (\Throwable $error) {
            return self::defect($function, $params, $request, $error);
        }
    }

    /**
     * `start`, `stop`, `reboot` or `reinstall`.
     *
     * @param array<mixed> $params
     */
    public static function power(string $function, array $params, string $action): string
    {
        if (Texts::isForCustomer() && !(new Account($params))->isActive()) {
            // No page offers it; a request may come all the same.
            return Texts::get('neutral');
        }
        return self::change($function, $params, 'power', static function () use ($action): array {
            return ['action' => $action];
        });
    }

    /**
     * Asks something and answers `success` where only that matters.
     *
     * @param array<mixed>                     $params
     * @param callable(Gateway, Account): void $question
     */
    public static function ask(string $function, array $params, callable $question): string
    {
        $account = new Account($params);
        $request = [];
        try {
            $request = ['key' => $account->key()];
            $question(Server::gateway($params), $account);
            return self::SUCCESS;
        } catch (Problem $problem) {
            self::log($function, $params, $request, ['kind' => $problem->kind(), 'message' => $problem->staffText()]);
            return Texts::problem($problem);
        } catch (\Throwable $error) {
            return self::defect($function, $params, $request, $error);
        }
    }

    /**
     * To WHMCS's module log, which staff turns on and reads, and copies into tickets: nothing secret is handed over, and what could be is
     * named besides.
     *
     * @param array<mixed>        $params
     * @param array<mixed>        $request
     * @param array<mixed>|string $response
     */
    public static function log(string $function, array $params, array $request, $response): void
    {
        $secrets = array_filter([Server::token($params), Read::text($params, 'password'), Read::text($params, 'serveraccesshash')]);
        logModuleCall('provisor', (string) preg_replace('/^provisor_/', '', $function), self::json($request), self::json($response), '', array_values($secrets));
    }

    /** @param array<string, mixed> $fields */
    private static function send(Gateway $gateway, Account $account, string $operation, array $fields): Answer
    {
        if ($operation !== 'change-package') {
            return $gateway->change($account->key(), $operation, $fields, $account->wait());
        }
        try {
            $answer = $gateway->change($account->key(), $operation, $fields, $account->wait(), $account->changeKey($fields));
        } catch (Problem $problem) {
            if ($problem->isNotExecuted()) {
                $account->forgetChange();
            }
            throw $problem;
        }
        if ($answer->isDone()) {
            $account->forgetChange();
        }
        return $answer;
    }

    /**
     * @param array<string, mixed> $fields
     * @return array<string, mixed>
     */
    private static function masked(array $fields): array
    {
        foreach ($fields as $name => $value) {
            if (is_array($value)) {
                $fields[$name] = self::masked(Read::named($value));
            } elseif ($value !== null && preg_match('/pass|secret|token|key/i', $name) === 1) {
                $fields[$name] = self::MASK;
            }
        }
        return array_filter($fields, static function ($value): bool {
            return $value !== null && $value !== [];
        });
    }

    private static function pending(Answer $answer): string
    {
        $name = Texts::isForCustomer() ? 'pending_customer' : 'pending';
        return Texts::get($name, ['operation' => Read::text($answer->operation(), 'id')]);
    }

    /**
     * @param array<mixed> $params
     * @param array<mixed> $request
     */
    private static function defect(string $function, array $params, array $request, \Throwable $error): string
    {
        self::log($function, $params, $request, get_class($error) . ': ' . Read::shortened($error->getMessage(), 500));
        return Texts::isForCustomer() ? Texts::get('neutral') : Texts::get('defect', ['class' => get_class($error)]);
    }

    /**
     * What the log needs of an answer. A service's properties stay out: they are the provider's, whatever it puts there.
     *
     * @return array<string, mixed>
     */
    private static function told(Answer $answer): array
    {
        $ofOperation = array_flip(['id', 'operation', 'state', 'attempts', 'request_id']);
        $ofService = array_flip(['key', 'generation', 'state', 'remote_id', 'plan', 'addresses', 'due_at']);
        return [
            'operation' => array_intersect_key($answer->operation(), $ofOperation),
            'service' => array_intersect_key($answer->service(), $ofService),
        ];
    }

    /** @param array<mixed>|string $value */
    private static function json($value): string
    {
        $flags = JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_INVALID_UTF8_SUBSTITUTE | JSON_PARTIAL_OUTPUT_ON_ERROR;
        return is_string($value) ? $value : Read::shortened((string) json_encode($value, $flags), 8000);
    }
}
