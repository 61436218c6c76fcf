<?php

// What both modules need: the gateway's client, packed into this folder or the repository's, and our own calls.

declare(strict_types=1);

(static function (): void {
    $packed = __DIR__ . '/client/autoload.php';
    require_once is_file($packed) ? $packed : dirname(__DIR__, 5) . '/php/autoload.php';
    require_once __DIR__ . '/Calls.php';
})();
