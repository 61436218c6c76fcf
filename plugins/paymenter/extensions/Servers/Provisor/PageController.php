<?php

declare(strict_types=1);

namespace Paymenter\Extensions\Servers\Provisor;

use App\Helpers\ExtensionHelper;
use App\Models\Service;
use Illuminate\Http\Response;

/** Pages of their own: the login at the provider, which posts a form as no link can, and the access data, which no cache may keep. */
class PageController
{
    /** Whose service it is, the route's middleware has checked. */
    public function show(string $what, Service $service): Response
    {
        if ($service->status !== Service::STATUS_ACTIVE) {
            abort(404);
        }
        $page = ExtensionHelper::callService($service, 'page', [$what]);
        return response(is_string($page) ? $page : '', 200, ['Cache-Control' => 'no-store', 'Referrer-Policy' => 'no-referrer']);
    }
}
