<?php

// Clientexec's stand-ins and the plug-in.

declare(strict_types=1);

require_once dirname(__DIR__) . '/bootstrap.php';
require_once dirname(__DIR__) . '/stubs/clientexec/clientexec.php';
require_once __DIR__ . '/Shop.php';
require_once dirname(__DIR__, 3) . '/plugins/clientexec/plugins/server/provisor/PluginProvisor.php';
