<?php

declare(strict_types=1);

namespace Box\Mod\Serviceprovisor\Api;

use Box\Mod\Serviceprovisor\Service;
use Provisor\Read;

/** What a customer can ask for, about an order of their own: all take `order_id`. */
class Client extends \FOSSBilling\Api\AbstractApi
{
    /**
     * The service, and what can be done with it.
     *
     * @param array<mixed> $data
     * @return array<string, mixed>
     */
    public function get($data): array
    {
        return $this->module()->page($this->order($data), true);
    }

    /**
     * `action`: start, stop, reboot, and reinstall where the product allows it.
     *
     * @param array<mixed> $data
     */
    public function power($data): bool
    {
        return $this->module()->power($this->order($data), Read::text($data, 'action'), true);
    }

    /**
     * `password` and `password_confirm`.
     *
     * @param array<mixed> $data
     */
    public function change_password($data): bool
    {
        $password = Read::text($data, 'password');
        if ($password === '' || $password !== Read::text($data, 'password_confirm')) {
            throw new \FOSSBilling\InformationException('The passwords do not match.');
        }
        return $this->module()->changePassword($this->order($data), $password, true);
    }

    /**
     * `what`: `sign-on`, a page that logs in at the provider, or `access`, one that says how to. Both hold passwords.
     *
     * @param array<mixed> $data
     */
    public function page($data): string
    {
        return $this->module()->secretPage($this->order($data), Read::text($data, 'what'), true);
    }

    /** @param array<mixed> $data */
    private function order($data): \stdClass
    {
        $identity = $this->getIdentity();
        $id = method_exists($identity, 'getId') ? $identity->getId() : ($identity->id ?? null);
        if (!is_numeric($id)) {
            throw new \FOSSBilling\InformationException('Order not found');
        }
        return $this->module()->findOrder((int) Read::text($data, 'order_id'), (int) $id);
    }

    private function module(): Service
    {
        /** @var Service $service */
        $service = $this->getService();
        return $service;
    }
}
