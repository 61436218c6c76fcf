<?php

declare(strict_types=1);

namespace Box\Mod\Serviceprovisor\Api;

use Box\Mod\Serviceprovisor\Service;
use Provisor\Read;

/** What staff's pages, and programs with an admin's API key, can ask for. All take `order_id` unless they say otherwise. */
class Admin extends \FOSSBilling\Api\AbstractApi
{
    /** A gateway that did not answer in this request: nobody waits for it twice. */
    private static bool $isSilent = false;

    /**
     * The profiles to choose from; empty, with a message in the log, if the gateway does not answer.
     *
     * @param array<mixed> $data
     * @return array<string, string>
     */
    public function get_profiles($data = []): array
    {
        return self::orNothing(function (): array {
            return $this->module()->profiles();
        });
    }

    /**
     * The plans of a `profile`.
     *
     * @param array<mixed> $data
     * @return array<string, string>
     */
    public function get_plans($data): array
    {
        return self::orNothing(function () use ($data): array {
            return Read::text($data, 'profile') === '' ? [] : $this->module()->plans(Read::text($data, 'profile'));
        });
    }

    /**
     * What an order of a `profile` takes.
     *
     * @param array<mixed> $data
     * @return list<array<string, mixed>>
     */
    public function get_fields($data): array
    {
        return array_values(self::orNothing(function () use ($data): array {
            return Read::text($data, 'profile') === '' ? [] : $this->module()->fields(Read::text($data, 'profile'));
        }));
    }

    /**
     * Whether the provider accepts a `profile`.
     *
     * @param array<mixed> $data
     */
    public function check($data): bool
    {
        return $this->module()->check(Read::text($data, 'profile'));
    }

    /**
     * The service of an order, and what can be done with it.
     *
     * @param array<mixed> $data
     * @return array<string, mixed>
     */
    public function get($data): array
    {
        return $this->module()->page($this->order($data), false);
    }

    /**
     * `action`: start, stop, reboot or reinstall.
     *
     * @param array<mixed> $data
     */
    public function power($data): bool
    {
        $this->mayManage();
        return $this->module()->power($this->order($data), Read::text($data, 'action'), false);
    }

    /**
     * `password`; one is made up at the provider where it is empty.
     *
     * @param array<mixed> $data
     */
    public function change_password($data): bool
    {
        $this->mayManage();
        return $this->module()->changePassword($this->order($data), Read::text($data, 'password'), false);
    }

    /**
     * `plan`, of the same profile.
     *
     * @param array<mixed> $data
     */
    public function change_plan($data): bool
    {
        $this->mayManage();
        return $this->module()->changePlan($this->order($data), Read::text($data, 'plan'));
    }

    /**
     * `what`: `sign-on`, a page that logs in at the provider, or `access`, one that says how to. Both hold passwords.
     *
     * @param array<mixed> $data
     */
    public function page($data): string
    {
        $this->mayManage();
        return $this->module()->secretPage($this->order($data), Read::text($data, 'what'), false);
    }

    /** @param array<mixed> $data */
    private function order($data): \stdClass
    {
        return $this->module()->findOrder((int) Read::text($data, 'order_id'));
    }

    private function mayManage(): void
    {
        $modules = ($this->getDi() ?? [])['mod_service'] ?? null;
        $staff = is_callable($modules) ? $modules('Staff') : null;
        if (!is_object($staff) || !method_exists($staff, 'checkPermissionsAndThrowException')) {
            throw new \FOSSBilling\Exception('The permission cannot be checked.');
        }
        $staff->checkPermissionsAndThrowException('serviceprovisor', 'manage');
    }

    private function module(): Service
    {
        /** @var Service $service */
        $service = $this->getService();
        return $service;
    }

    /**
     * A settings page must appear also without the gateway, since its address is entered there.
     *
     * @template K of array-key
     * @template V
     * @param callable(): array<K, V> $question
     * @return array<K, V>
     */
    private static function orNothing(callable $question): array
    {
        try {
            return self::$isSilent ? [] : $question();
        } catch (\FOSSBilling\Exception $error) {
            self::$isSilent = $error->getCode() === 0;
            return [];
        }
    }
}
