<?php

// Both modules say the same.
return require dirname(__DIR__, 3) . '/Servers/Provisor/lang/es.php';
