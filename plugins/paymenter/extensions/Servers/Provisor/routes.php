<?php

declare(strict_types=1);

use Illuminate\Support\Facades\Route;
use Paymenter\Extensions\Servers\Provisor\PageController;

Route::get('/extensions/provisor/{what}/{service}', [PageController::class, 'show'])
    ->where('what', 'sign-on|access')
    ->middleware(['web', 'auth', 'can:view,service'])
    ->name('extensions.servers.provisor.page');
