<?php

declare(strict_types=1);

namespace Provisor\Tests;

/**
 * A panel with our plug-in in it, as Conformance drives it. Implementations call the plug-in exactly as the panel does and check on the
 * way that it answers in the panel's own form: right type, right key names, the exception that the panel catches.
 */
interface Panel
{
    /** From now on the plug-in is configured with this gateway and token. */
    public function connect(string $address, string $token): void;

    /**
     * An order was placed and nothing was made yet.
     *
     * @param array{profile: string, plan: string, domain?: string, email?: string, password?: string, options?: array<string, string>,
     *              wait?: int} $order
     * @return string the panel's own id of the service
     */
    public function order(array $order): string;

    /**
     * Staff mends an order, or the customer paid for another plan.
     *
     * @param array{plan?: string, domain?: string} $order
     */
    public function amend(string $id, array $order): void;

    /** Under which key the gateway knows the service. */
    public function key(string $id): string;

    /**
     * The panel's automation or its staff does something: `create`, `suspend`, `unsuspend`, `terminate`, `renew` (with `due_at`, a date, of
     * the renewal that was paid), `change-password` (with `password`), `change-package`, `start`, `stop`, `reboot`, `reinstall`.
     *
     * @param array<string, string> $with
     */
    public function call(string $id, string $operation, array $with = []): Result;

    /**
     * The same by the customer on their own page; null where the panel gives customers no such thing.
     *
     * @param array<string, string> $with
     */
    public function callAsCustomer(string $id, string $operation, array $with = []): ?Result;

    /**
     * Which operations staff can ask for on this service: buttons shown, or functions defined where the panel shows a button for each.
     *
     * @return list<string>
     */
    public function offers(string $id): array;

    /**
     * Which operations this panel has no words for, whatever the provider can; by documented contract.
     *
     * @return list<string>
     */
    public function lacks(): array;

    /** Whether the panel has the service as active, by its own rules for the plug-in's answers. */
    public function isActive(string $id): bool;

    /**
     * What of a provider's texts the panel prints without escaping it: the pages of the service, and what staff chooses from for a product.
     * Empty where the panel shows nothing of the plug-in's.
     */
    public function shown(string $id): string;

    /** Everything that the plug-in wrote where people or backups can find it: logs, records, mails. Passwords that the panel itself set are not its writing. */
    public function written(): string;
}
