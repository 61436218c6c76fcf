<?php

declare(strict_types=1);

namespace Provisor;

/**
 * Why a request was not carried out. One exception for all failures, those of the network included.
 *
 * A caller decides by kind() and isNotExecuted(), shows staffText() to staff and customerText() to customers. Neither text ever holds
 * a secret.
 */
class Problem extends \RuntimeException
{
    /** Texts are cut to so many characters: a panel's columns and pages are not made for more. */
    private const TEXT_LENGTH_MAX = 1000;

    private string $kind;
    private int $status;
    private string $effect;
    private ?string $publicMessage;
    private ?string $field;
    private ?string $operationId;
    private ?string $requestId;

    /**
     * @param string $kind    one of the contract's kinds, or `unreachable` and `unauthorized` about the gateway itself
     * @param string $message for staff
     * @param string $effect  `none`, `partial` or `unknown`: what was left behind
     * @param int    $status  the HTTP status, 0 when the gateway did not answer
     */
    public function __construct(
        string $kind,
        string $message,
        string $effect = 'none',
        int $status = 0,
        ?string $publicMessage = null,
        ?string $field = null,
        ?string $operationId = null,
        ?string $requestId = null
    ) {
        parent::__construct(Read::shortened($message, self::TEXT_LENGTH_MAX));
        $this->kind = $kind;
        $this->effect = $effect;
        $this->status = $status;
        $this->publicMessage = $publicMessage;
        $this->field = $field;
        $this->operationId = $operationId;
        $this->requestId = $requestId;
    }

    /**
     * The gateway's answer, or what stands in its place when something between it and us answered.
     *
     * @param array<string, mixed> $body      of the answer; empty if it was no JSON
     * @param bool                 $isChange  whether the request could change something
     */
    final public static function fromAnswer(int $status, array $body, bool $isChange): self
    {
        $kind = Read::text($body, 'kind');
        if ($kind === '') {
            // Not the gateway's words: a web server in between, or no Provisor at all. Above 499 it may have passed the request on.
            $text = "The answer with HTTP status $status is not one of Provisor's gateway; check its address.";
            $kind = $status === 401 ? 'unauthorized' : 'protocol';
            return new self($kind, $text, $isChange && ($status >= 500 || $status < 400) ? 'unknown' : 'none', $status);
        }
        return new self(
            $kind,
            Read::text($body, 'message', Read::text($body, 'detail', "HTTP status $status")),
            Read::text($body, 'effect', 'unknown'),
            $status,
            Read::optional($body, 'public_message'),
            Read::optional($body, 'field'),
            Read::optional($body, 'operation'),
            Read::optional($body, 'request_id')
        );
    }

    /** The contract's kind (`invalid`, `refused`, `not-found`, ...); `unreachable` also when the gateway itself does not answer. */
    public function kind(): string
    {
        return $this->kind;
    }

    /** The HTTP status; 0 when the gateway did not answer. */
    public function status(): int
    {
        return $this->status;
    }

    /** What was left behind: `none`, `partial` or `unknown`. */
    public function effect(): string
    {
        return $this->effect;
    }

    /** For staff: what happened, the field at fault, and by which ids the gateway's own log knows it. */
    public function staffText(): string
    {
        $text = $this->getMessage();
        if ($this->field !== null && strpos($text, $this->field) === false) {
            $text .= " (field: {$this->field})";
        }
        if ($this->effect !== 'none') {
            $text .= $this->effect === 'partial' ? ' Part of it was done.' : ' It is not known whether it was done.';
        }
        $ids = array_filter(['operation' => $this->operationId, 'request' => $this->requestId]);
        foreach ($ids as $name => $id) {
            $text .= " [$name $id]";
        }
        return $text;
    }

    /** For customers; where nothing can be said to them, a neutral sentence: the caller's, in the customer's language, or ours. */
    public function customerText(?string $fallback = null): string
    {
        $text = trim((string) $this->publicMessage);
        if ($text !== '') {
            return Read::shortened($text, self::TEXT_LENGTH_MAX);
        }
        return $fallback ?? 'This could not be done just now. Please try again later or contact support.';
    }

    /** The input at fault, by its name in the request. */
    public function field(): ?string
    {
        return $this->field;
    }

    /** Under which the gateway's journal has the change; null where nothing was recorded. */
    public function operationId(): ?string
    {
        return $this->operationId;
    }

    /** Whether it is safe to say that nothing was done. */
    public function isNotExecuted(): bool
    {
        return $this->effect === 'none';
    }
}
