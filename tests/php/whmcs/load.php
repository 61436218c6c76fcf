<?php

// WHMCS's stand-ins and the module, in the order in which WHMCS would load them.

declare(strict_types=1);

require_once dirname(__DIR__) . '/bootstrap.php';
require_once dirname(__DIR__) . '/stubs/whmcs/whmcs.php';
require_once __DIR__ . '/Shop.php';
require_once dirname(__DIR__, 3) . '/plugins/whmcs/modules/servers/provisor/provisor.php';
require_once dirname(__DIR__, 3) . '/plugins/whmcs/modules/servers/provisor/hooks.php';
