<?php

declare(strict_types=1);

namespace Provisor;

/** What the gateway said to `describe`: which operations a profile's provider has, and which inputs an order takes. */
final class Description
{
    /** The logins that a customer may be given; all others are staff's. */
    public const CUSTOMER_TARGET_PREFIX = 'client';
    /** What `power` knows. */
    public const POWER_ACTIONS = ['start', 'stop', 'reboot', 'reinstall'];

    /** @var list<array<string, mixed>> */
    private array $providers;

    /** @param array<string, mixed> $answer of Gateway::describe() */
    public function __construct(array $answer)
    {
        $this->providers = Read::maps($answer, 'providers');
    }

    /**
     * The profiles by name, each with its provider's name for people.
     *
     * @return array<string, string>
     */
    public function profiles(): array
    {
        $profiles = [];
        foreach ($this->providers as $provider) {
            foreach (Read::texts($provider, 'profiles') as $profile) {
                $profiles[$profile] = Read::text($provider, 'name');
            }
        }
        return $profiles;
    }

    /** Whether a profile's provider has an operation, such as `reset-password`. */
    public function can(string $profile, string $operation): bool
    {
        return $this->capability($profile, $operation) !== null;
    }

    /**
     * The logins that staff, or a customer, may be given with `sign-on`.
     *
     * @return list<string>
     */
    public function signOnTargets(string $profile, bool $isForCustomer): array
    {
        $targets = [];
        foreach (Read::maps($this->capability($profile, 'sign-on') ?? [], 'properties') as $property) {
            $target = Read::text($property, 'value');
            $isCustomers = strncmp($target, self::CUSTOMER_TARGET_PREFIX, strlen(self::CUSTOMER_TARGET_PREFIX)) === 0;
            if (Read::text($property, 'name') === 'target' && ($isCustomers || !$isForCustomer)) {
                $targets[] = $target;
            }
        }
        return $targets;
    }

    /**
     * What an order of this profile takes: `name`, `label`, `kind`, `required`, `default`, `choices`, `slot`, `help`.
     *
     * @return list<array<string, mixed>>
     */
    public function orderFields(string $profile): array
    {
        return Read::maps($this->provider($profile), 'order_fields');
    }

    /** The name of the order field at a fixed position; null where the profile's provider has none there. */
    public function nameOfSlot(string $profile, int $slot): ?string
    {
        foreach ($this->orderFields($profile) as $field) {
            if (($field['slot'] ?? null) === $slot) {
                return Read::text($field, 'name');
            }
        }
        return null;
    }

    /**
     * All fields at a fixed position, whichever provider they are of: a form made before the profile is chosen shows them together.
     *
     * @return list<array<string, mixed>>
     */
    public function fieldsOfSlot(int $slot): array
    {
        $found = [];
        foreach ($this->providers as $provider) {
            foreach (Read::maps($provider, 'order_fields') as $field) {
                if (($field['slot'] ?? null) === $slot && Read::texts($provider, 'profiles') !== []) {
                    $found[] = $field;
                }
            }
        }
        return $found;
    }

    /** @return ?array<string, mixed> */
    private function capability(string $profile, string $operation): ?array
    {
        foreach (Read::maps($this->provider($profile), 'capabilities') as $capability) {
            if (Read::text($capability, 'operation') === $operation) {
                return $capability;
            }
        }
        return null;
    }

    /** @return array<string, mixed> */
    private function provider(string $profile): array
    {
        foreach ($this->providers as $provider) {
            if (in_array($profile, Read::texts($provider, 'profiles'), true)) {
                return $provider;
            }
        }
        return [];
    }
}
