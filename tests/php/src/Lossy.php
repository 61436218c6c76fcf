<?php

declare(strict_types=1);

namespace Provisor\Tests;

use RuntimeException;

/** A way to the gateway on which answers can be lost after the request has arrived. A process of its own; see bin/lossy.php. */
final class Lossy
{
    private string $address;
    private string $control;
    /** @var resource */
    private $process;

    /** @param resource $process */
    private function __construct(string $address, string $control, $process)
    {
        $this->address = $address;
        $this->control = $control;
        $this->process = $process;
    }

    public static function start(string $upstream, string $folder): self
    {
        $control = "$folder/lose";
        file_put_contents($control, '0');
        $command = ['setpriv', '--pdeathsig', 'KILL', PHP_BINARY, dirname(__DIR__) . '/bin/lossy.php', $upstream, $control];
        $process = proc_open($command, [1 => ['pipe', 'w']], $pipes);
        if (!is_resource($process)) {
            throw new RuntimeException('cannot start lossy.php');
        }
        /** @var array{1: resource} $pipes */
        return new self('http://' . trim((string) fgets($pipes[1])), $control, $process);
    }

    public function address(): string
    {
        return $this->address;
    }

    /** The next answers to changes, so many, are lost. */
    public function lose(int $answers): void
    {
        file_put_contents($this->control, (string) $answers);
    }

    public function stop(): void
    {
        proc_terminate($this->process, 9);
        proc_close($this->process);
    }
}
