<?php

declare(strict_types=1);

namespace Provisor\Tests;

/** What a panel made of a call: what it goes on with, and what it showed. */
final class Result
{
    public bool $isSuccess;
    public string $text;

    /** @param string $text what staff, or the customer, reads; empty after a success */
    public function __construct(bool $isSuccess, string $text = '')
    {
        $this->isSuccess = $isSuccess;
        $this->text = $text;
    }
}
