<?php

// Paymenter's stand-ins, and the extension's classes, which Composer finds by their names.

declare(strict_types=1);

require_once dirname(__DIR__) . '/bootstrap.php';
require_once dirname(__DIR__) . '/stubs/paymenter/paymenter.php';
require_once __DIR__ . '/Shop.php';

spl_autoload_register(static function (string $class): void {
    if (strncmp($class, 'Paymenter\\Extensions\\', 21) === 0) {
        require dirname(__DIR__, 3) . '/plugins/paymenter/extensions/' . str_replace('\\', '/', substr($class, 21)) . '.php';
    }
});
