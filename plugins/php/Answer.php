<?php

declare(strict_types=1);

namespace Provisor;

/** A change that was accepted: done, or still under way. */
final class Answer
{
    private bool $isDone;
    /** @var array<string, mixed> */
    private array $body;

    /** @param array<string, mixed> $body */
    public function __construct(bool $isDone, array $body)
    {
        $this->isDone = $isDone;
        $this->body = $body;
    }

    public function isDone(): bool
    {
        return $this->isDone;
    }

    /** Accepted and under way: the same change asked for again joins it. Nothing must be ordered anew. */
    public function isPending(): bool
    {
        return !$this->isDone;
    }

    /**
     * The service as the journal knows it: `key`, `state`, `remote_id`, `plan`, `addresses`, `due_at`, ...
     *
     * @return array<string, mixed>
     */
    public function service(): array
    {
        return Read::map($this->body, 'service');
    }

    /**
     * The change: `id`, `state`, `attempts`, `next_at`, ...
     *
     * @return array<string, mixed>
     */
    public function operation(): array
    {
        return Read::map($this->body, 'operation');
    }
}
