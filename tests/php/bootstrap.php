<?php

declare(strict_types=1);

// A notice or deprecation in a plug-in fails its test; see phpunit.xml.
error_reporting(E_ALL);

require dirname(__DIR__, 2) . '/plugins/php/autoload.php';

spl_autoload_register(static function (string $class): void {
    if (preg_match('/^Provisor\\\\Tests\\\\([A-Za-z]+)$/', $class, $name) === 1 && is_file(__DIR__ . "/src/$name[1].php")) {
        require __DIR__ . "/src/$name[1].php";
    }
});

