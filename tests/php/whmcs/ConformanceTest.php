<?php

declare(strict_types=1);

namespace Provisor\Tests\Whmcs;

use Provisor\Tests\Conformance;
use Provisor\Tests\Panel;

require_once __DIR__ . '/load.php';

final class ConformanceTest extends Conformance
{
    protected function makePanel(): Panel
    {
        return new Shop();
    }
}
