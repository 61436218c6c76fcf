<?php

declare(strict_types=1);

namespace Box\Mod\Serviceprovisor\Controller;

use Symfony\Component\HttpFoundation\Response;

/** Pages of their own: the login at the provider, which posts a form as no link can, and the access data, which no cache may keep. */
abstract class SecretPage implements \FOSSBilling\InjectionAwareInterface
{
    protected ?\Pimple\Container $di = null;

    public function setDi(\Pimple\Container $di): void
    {
        $this->di = $di;
    }

    public function getDi(): ?\Pimple\Container
    {
        return $this->di;
    }

    public function register(\Box_App &$app): void
    {
        $app->get('/serviceprovisor/:what/:id', 'get_page', ['what' => 'sign-on|access', 'id' => '[0-9]+'], static::class);
    }

    /**
     * @param mixed $what
     * @param mixed $id   of the order
     */
    public function get_page(\Box_App $app, $what, $id): Response
    {
        $api = $this->di === null ? null : $this->di[$this->api()];
        if (!is_object($api)) {
            throw new \LogicException('FOSSBilling gave the controller no API.');
        }
        /** @var callable(array<string, mixed>): string $page */
        $page = [$api, 'serviceprovisor_page'];
        return new Response($page(['order_id' => $id, 'what' => $what]), 200, ['Cache-Control' => 'no-store', 'Referrer-Policy' => 'no-referrer']);
    }

    /** The container's name of the API for whoever is logged in here: it knows whose the order is. */
    abstract protected function api(): string;
}
