<?php

declare(strict_types=1);

namespace Box\Mod\Serviceprovisor\Controller;

/** The login at the provider as a page of its own: it posts a form, which no link can. */
class Admin implements \FOSSBilling\InjectionAwareInterface
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
        $app->get('/serviceprovisor/sign-on/:id', 'get_sign_on', ['id' => '[0-9]+'], static::class);
    }

    /** @param mixed $id of the order */
    public function get_sign_on(\Box_App $app, $id): string
    {
        $api = $this->di === null ? null : $this->di['api_admin'];
        if (!is_object($api)) {
            throw new \LogicException('FOSSBilling gave the controller no API.');
        }
        /** @var string $page */
        $page = $api->serviceprovisor_sign_on(['order_id' => $id]);
        return $page;
    }
}
