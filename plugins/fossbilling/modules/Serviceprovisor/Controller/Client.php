<?php

declare(strict_types=1);

namespace Box\Mod\Serviceprovisor\Controller;

class Client extends SecretPage
{
    protected function api(): string
    {
        return 'api_client';
    }
}
