<?php

declare(strict_types=1);

// Both modules show the same; WISECP has another name for it here.
return require dirname(__DIR__, 3) . '/Servers/Provisor/pages/create-form-elements.php';
