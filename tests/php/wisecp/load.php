<?php

// WISECP's stand-ins and both modules.

declare(strict_types=1);

require_once dirname(__DIR__) . '/bootstrap.php';
require_once dirname(__DIR__) . '/stubs/wisecp/wisecp.php';
require_once __DIR__ . '/Shop.php';
require_once dirname(__DIR__, 3) . '/plugins/wisecp/coremio/modules/Servers/Provisor/Provisor.php';
require_once dirname(__DIR__, 3) . '/plugins/wisecp/coremio/modules/Product/Provisor/Provisor.php';
