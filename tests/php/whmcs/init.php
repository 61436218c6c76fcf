<?php

// WHMCS's init.php for a page of the packed module: loads the session and the tables, and keeps the session afterwards.

declare(strict_types=1);

use WHMCS\Database\Capsule;

require_once (string) getenv('WHMCS_LOAD');
$state = (string) getenv('WHMCS_STATE');
$kept = (array) json_decode((string) file_get_contents($state), true);
$_SESSION = (array) $kept['session'];
$_GET = (array) $kept['get'];
foreach ((array) $kept['tables'] as $name => $rows) {
    Capsule::$tables[(string) $name] = [];
    foreach ((array) $rows as $row) {
        $named = [];
        foreach ((array) $row as $column => $value) {
            $named[(string) $column] = $value;
        }
        Capsule::$tables[(string) $name][] = $named;
    }
}
register_shutdown_function(static function () use ($state): void {
    file_put_contents($state, json_encode(['session' => $_SESSION]));
});
