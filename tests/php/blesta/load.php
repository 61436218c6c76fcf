<?php

// Blesta's stand-ins and the module.

declare(strict_types=1);

require_once dirname(__DIR__) . '/bootstrap.php';
require_once dirname(__DIR__) . '/stubs/blesta/blesta.php';
require_once __DIR__ . '/Shop.php';
require_once dirname(__DIR__, 3) . '/plugins/blesta/components/modules/provisor/provisor.php';
