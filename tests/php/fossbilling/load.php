<?php

// FOSSBilling's stand-ins, and the module's classes, which FOSSBilling's own loader finds by their names.

declare(strict_types=1);

require_once dirname(__DIR__) . '/bootstrap.php';
require_once dirname(__DIR__) . '/stubs/fossbilling/fossbilling.php';
require_once __DIR__ . '/Orders.php';
require_once __DIR__ . '/Hosting.php';
require_once __DIR__ . '/Answers.php';

(static function (): void {
    $plugin = dirname(__DIR__, 3) . '/plugins/fossbilling';
    foreach (['Service', 'Api/Admin', 'Api/Client', 'Controller/SecretPage', 'Controller/Admin', 'Controller/Client'] as $name) {
        require_once "$plugin/modules/Serviceprovisor/$name.php";
    }
    require_once "$plugin/library/Server/Manager/Provisor.php";
})();
