<?php

// Everything that Panel can ask, once, on whichever PHP runs this: what each call came to, and every notice, warning and deprecation that
// our plug-in and client cause.
//
//   ARGUMENTS='["LOAD_FILE", "PANEL_CLASS", "ADDRESS", "TOKEN"]'

declare(strict_types=1);

use Provisor\Tests\Daemon;
use Provisor\Tests\Panel;

$arguments = $_SERVER['ARGUMENTS'] ?? getenv('ARGUMENTS');
$arguments = json_decode(is_string($arguments) ? $arguments : '[]');
[$load, $class, $address, $token] = array_values(array_filter(is_array($arguments) ? $arguments : [], 'is_string'));
error_reporting(E_ALL);
set_error_handler(static function (int $level, string $message, string $file, int $line): bool {
    // The stand-ins and PHPUnit are no part of what is shipped.
    if (strpos($file, '/plugins/') !== false) {
        echo "$file:$line: $message\n";
    }
    return true;
});
set_include_path('/usr/share/php');
require '/usr/share/php/PHPUnit/Autoload.php';
require $load;

$panel = new $class();
assert($panel instanceof Panel);
$panel->connect($address, $token);
$orders = [
    ['profile' => Daemon::MACHINES, 'plan' => '42'],
    [
        'profile' => Daemon::FIREWALLS,
        'plan' => '10k',
        'domain' => 'site-' . bin2hex(random_bytes(6)) . '.example.com',
        'email' => 'customer@example.com',
        'password' => 'Passw0rd-xK9!vQ2z',
    ],
];
$operations = [
    'create' => [],
    'suspend' => ['reason' => 'ünpaid'],
    'unsuspend' => [],
    'start' => [],
    'stop' => [],
    'reboot' => [],
    'renew' => ['due_at' => '2030-01-15'],
    'change-password' => ['password' => 'Xk9!vQ2z-Lm4-Rt7'],
    'change-package' => [],
    'terminate' => [],
];
foreach ($orders as $order) {
    $id = $panel->order($order);
    foreach (array_diff_key($operations, array_flip($panel->lacks())) as $operation => $with) {
        echo "{$order['profile']} $operation: ", $panel->call($id, $operation, $with)->isSuccess ? 'done' : 'refused', "\n";
        $offers = $panel->offers($id);
        sort($offers);
        echo '  offers ', implode(' ', $offers), $panel->isActive($id) ? ', active' : '', "\n";
    }
}
$panel->connect('http://127.0.0.1:1', $token);
$id = $panel->order($orders[0]);
echo 'unreachable: ', $panel->call($id, 'create')->isSuccess ? 'done' : 'refused', "\n";
