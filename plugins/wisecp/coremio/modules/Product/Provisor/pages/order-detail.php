<?php

declare(strict_types=1);

// Both modules show the same.
require dirname(__DIR__, 3) . '/Servers/Provisor/pages/order-detail.php';
