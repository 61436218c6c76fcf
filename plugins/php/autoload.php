<?php

// The client of Provisor's gateway: require this file once, no Composer needed.

declare(strict_types=1);

spl_autoload_register(static function (string $class): void {
    // Two plug-ins of one panel may bring the client along; the first one that is asked serves both.
    if (preg_match('/^Provisor\\\\([A-Z][A-Za-z]*)$/', $class, $name) === 1 && is_file(__DIR__ . "/$name[1].php")) {
        require __DIR__ . "/$name[1].php";
    }
});
