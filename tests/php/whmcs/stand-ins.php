<?php

// WHMCS's stand-ins alone, without any part of the repository's module: what is packed must bring the rest.

declare(strict_types=1);

spl_autoload_register(static function (string $class): void {
    if ($class === 'Provisor\Tests\Whmcs\Shop') {
        require __DIR__ . '/Shop.php';
    } elseif (preg_match('/^Provisor\\\\Tests\\\\(Panel|Result)$/', $class, $name) === 1) {
        require dirname(__DIR__) . "/src/$name[1].php";
    }
});
require_once dirname(__DIR__) . '/stubs/whmcs/whmcs.php';
