<?php

declare(strict_types=1);

/** @var Provisor_Module $module */

echo $module->clientArea();
