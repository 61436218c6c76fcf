<?php

declare(strict_types=1);

namespace Provisor\Tests\Fossbilling;

/** FOSSBilling's API as templates ask it: `admin.module_method({..})`. */
final class Answers
{
    /** @var array<string, mixed> */
    private array $answers;

    /** @param array<string, mixed> $answers by method */
    public function __construct(array $answers)
    {
        $this->answers = $answers;
    }

    /**
     * @param array<mixed> $arguments
     * @return mixed
     */
    public function __call(string $name, array $arguments)
    {
        if (!array_key_exists($name, $this->answers)) {
            throw new \LogicException("nobody answers $name");
        }
        return $this->answers[$name];
    }
}
