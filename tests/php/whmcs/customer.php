<?php

// One function of the module, called as WHMCS's client area calls it. Reads JSON from stdin, prints JSON; see Shop::asCustomer().

declare(strict_types=1);

use Provisor\Read;
use Provisor\Tests\Whmcs\Shop;
use WHMCS\Database\Capsule;

error_reporting(E_ALL);
ini_set('display_errors', 'stderr');
const CLIENTAREA = true;
require __DIR__ . '/load.php';

$asked = Read::named(json_decode((string) stream_get_contents(STDIN), true));
$shop = new Shop();
foreach (Read::map($asked, 'tables') as $name => $rows) {
    Capsule::$tables[$name] = Read::maps([$name => $rows], $name);
}
$_SESSION = Read::map($asked, 'session');
$_POST = Read::map($asked, 'post');
$function = 'provisor_' . Read::text($asked, 'function');
if (!is_callable($function)) {
    throw new RuntimeException("$function is no function");
}
$result = $function(Read::map($asked, 'params'));
echo json_encode(['result' => $result, 'session' => $_SESSION, 'log' => Shop::$log], JSON_THROW_ON_ERROR);
