<?php

declare(strict_types=1);

namespace Provisor\Tests\Fossbilling;

use Provisor\Tests\Conformance;
use Provisor\Tests\Panel;

require_once __DIR__ . '/load.php';

final class HostingTest extends Conformance
{
    protected function makePanel(): Panel
    {
        return new Hosting();
    }
}
