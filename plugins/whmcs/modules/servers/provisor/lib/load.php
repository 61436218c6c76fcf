<?php

// The module's own classes, and the gateway's client: packed into this folder, or the repository's.

declare(strict_types=1);

(static function (): void {
    $packed = __DIR__ . '/client/autoload.php';
    require_once is_file($packed) ? $packed : dirname(__DIR__, 5) . '/php/autoload.php';
    foreach (['Texts', 'Server', 'Account', 'Accounts', 'Settings', 'Command', 'Page', 'SignOn'] as $name) {
        require_once __DIR__ . "/$name.php";
    }
})();
