<?php

// The gateway's client: packed into this folder, or the repository's.

declare(strict_types=1);

(static function (): void {
    $packed = __DIR__ . '/client/autoload.php';
    require_once is_file($packed) ? $packed : dirname(__DIR__, 3) . '/php/autoload.php';
})();
