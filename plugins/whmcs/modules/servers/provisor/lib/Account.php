<?php

declare(strict_types=1);

namespace WHMCS\Module\Server\Provisor;

use Provisor\Description;
use Provisor\Problem;
use Provisor\Read;
use Provisor\Service;
use WHMCS\Database\Capsule;

/** A service or addon of WHMCS, read from the parameters of a module function. */
final class Account
{
    /** Where the product's settings stand: `configoption1` and so on. They never move, since WHMCS stores them by number. */
    public const PROFILE = 1;
    public const PLAN = 2;
    public const TERM = 3;
    public const WAIT = 4;
    public const REINSTALL = 5;
    /** The first of the positions that belong to the provider: its slot 1. */
    public const SLOTS = 6;
    /** WHMCS has 24 settings. */
    public const SLOTS_MAX = 19;

    /** The service property (an admin's custom field) with the provider's id. */
    private const REMOTE_ID = 'Provisor ID';
    /** The service property with what makes a repeated change of package the same change. */
    private const CHANGE = 'Provisor Change';

    /** @var array<mixed> */
    private array $params;

    /** @param array<mixed> $params of a module function */
    public function __construct(array $params)
    {
        $this->params = $params;
    }

    /** The gateway's name for this service: stable, and no other service's. */
    public function key(): string
    {
        $service = (int) Read::text($this->params, 'serviceid');
        $addon = $this->addon();
        if ($service <= 0 && $addon <= 0) {
            throw new Problem('invalid', 'WHMCS gave no service id.');
        }
        return $addon > 0 ? "addon-$addon" : "service-$service";
    }

    public function profile(): string
    {
        return trim($this->setting(self::PROFILE));
    }

    /** Seconds that WHMCS may be kept waiting. */
    public function wait(): int
    {
        $wait = trim($this->setting(self::WAIT));
        return preg_match('/^[0-9]{1,3}$/D', $wait) === 1 ? (int) $wait : Service::WAIT_DEFAULT;
    }

    public function mayCustomerReinstall(): bool
    {
        return in_array($this->setting(self::REINSTALL), ['on', '1', 'yes'], true);
    }

    /** Whether WHMCS has it as active; where it does not say, yes. */
    public function isActive(): bool
    {
        return strcasecmp(Read::text($this->params, 'status', 'Active'), 'Active') === 0;
    }

    public function domain(): string
    {
        $domain = trim(Read::text($this->params, 'domain'));
        // Products without a domain at the order have it in a custom field.
        return $domain !== '' ? $domain : trim($this->answers()['domain'] ?? '');
    }

    public function password(): string
    {
        return Read::text($this->params, 'password');
    }

    /**
     * What `create` sends. The address and the password of the customer leave WHMCS only for a provider that asks for them.
     *
     * @return array<string, mixed>
     */
    public function order(Description $description): array
    {
        $asked = [];
        foreach ($description->orderFields($this->profile()) as $field) {
            $asked[] = Read::text($field, 'name');
        }
        $email = Read::text(Read::map($this->params, 'clientsdetails'), 'email');
        return [
            'profile' => $this->profile(),
            'plan' => trim($this->setting(self::PLAN)),
            'term' => self::orNull(trim($this->setting(self::TERM))),
            'domain' => self::orNull($this->domain()),
            'email' => in_array('email', $asked, true) ? self::orNull($email) : null,
            'password' => in_array('password', $asked, true) ? self::orNull($this->password()) : null,
            'options' => $this->options($description),
        ];
    }

    /**
     * What `change-package` sends.
     *
     * @return array<string, mixed>
     */
    public function package(Description $description): array
    {
        return ['plan' => trim($this->setting(self::PLAN)), 'options' => $this->options($description)];
    }

    /**
     * What `adopt` sends: staff has typed the provider's id into its custom field, or the domain tells which one it is.
     *
     * @return array<string, mixed>
     */
    public function adoption(): array
    {
        $remoteId = $this->property(self::REMOTE_ID);
        if ($remoteId === '' && $this->domain() === '') {
            throw new Problem('invalid', 'Fill in the field "' . self::REMOTE_ID . '", or the domain, and save first.');
        }
        $domain = $remoteId === '' ? $this->domain() : '';
        return ['profile' => $this->profile(), 'remote_id' => self::orNull($remoteId), 'domain' => self::orNull($domain)];
    }

    /** Why it is suspended, as WHMCS says where it does. */
    public function reason(): ?string
    {
        return self::orNull(Read::shortened(Read::text($this->params, 'suspendreason'), Service::LINE_LENGTH_MAX));
    }

    /**
     * The due date that is being renewed. It must be the same however often WHMCS repeats the call, and `nextduedate` moves on with the
     * payment: so it is that of the newest paid renewal invoice's line, and `nextduedate` only where staff renews without an invoice.
     */
    public function dueDate(): string
    {
        [$table, $type, $id] = $this->addon() > 0
            ? ['tblhostingaddons', 'Addon', $this->addon()]
            : ['tblhosting', 'Hosting', (int) Read::text($this->params, 'serviceid')];
        $row = Read::named((array) Capsule::table($table)->where('id', $id)->first());
        $ordered = self::date(Read::text($row, 'regdate'));
        $lines = Capsule::table('tblinvoiceitems')->where('type', $type)->where('relid', $id)->orderBy('duedate', 'desc')->get();
        foreach ($lines as $line) {
            $line = Read::named((array) $line);
            $date = self::date(Read::text($line, 'duedate'));
            $invoice = Capsule::table('tblinvoices')->where('id', (int) Read::text($line, 'invoiceid'))->first();
            // The first invoice paid for the order itself.
            if ($date > $ordered && Read::text(Read::named((array) $invoice), 'status') === 'Paid') {
                return $date;
            }
        }
        $date = self::date(Read::text($row, 'nextduedate'));
        if ($date === '') {
            throw new Problem('invalid', 'WHMCS has no due date for this service.');
        }
        return $date;
    }

    /**
     * Keeps what staff looks for: the provider's id, and the address.
     *
     * @param array<string, mixed> $service
     */
    public function remember(array $service): void
    {
        $found = [self::REMOTE_ID => Read::text($service, 'remote_id')];
        if ($this->addon() === 0) {
            $found['Dedicated IP'] = Read::texts($service, 'addresses')[0] ?? '';
        }
        $this->saveProperties(array_filter($found, static function (string $value): bool {
            return $value !== '';
        }));
    }

    /**
     * The name under which a change of package may be repeated: kept until it is known how that change ended, so that a retry after a
     * lost answer is no second, charged change, and the next change is no repetition.
     *
     * @param array<string, mixed> $wanted
     */
    public function changeKey(array $wanted): string
    {
        $what = substr(hash('sha256', serialize($wanted)), 0, 16);
        $kept = $this->property(self::CHANGE);
        if (strncmp($kept, "$what-", 17) === 0) {
            return $kept;
        }
        $new = "$what-" . bin2hex(random_bytes(8));
        $this->saveProperties([self::CHANGE => $new]);
        return $new;
    }

    /** It is known how the change of package ended. */
    public function forgetChange(): void
    {
        if ($this->property(self::CHANGE) !== '') {
            $this->saveProperties([self::CHANGE => '']);
        }
    }

    /**
     * The provider's options: those of the product by position, and over them what the customer chose by name.
     *
     * @return array<string, string>
     */
    private function options(Description $description): array
    {
        $options = [];
        for ($slot = 1; $slot <= self::SLOTS_MAX; $slot++) {
            $value = trim($this->setting(self::SLOTS + $slot - 1));
            if ($value === '') {
                continue;
            }
            $name = $description->nameOfSlot($this->profile(), $slot);
            if ($name === null) {
                // Sold and not delivered would be worse than not sold.
                throw new Problem('invalid', "Option $slot of the product is set, and the profile \"{$this->profile()}\" has none there.");
            }
            $options[$name] = $value === 'on' ? 'true' : $value;
        }
        $chosen = array_merge($options, $this->answers());
        return array_diff_key($chosen, array_flip(Service::OWN_FIELDS));
    }

    /**
     * Configurable options and custom fields whose name is written as providers write theirs, such as `image|Operating system`; all others
     * are the shop's own.
     *
     * @return array<string, string>
     */
    private function answers(): array
    {
        $answers = [];
        foreach (['customfields', 'configoptions'] as $source) {
            foreach (Read::map($this->params, $source) as $name => $value) {
                $name = explode('|', $name)[0];
                if (preg_match('/^[a-z][a-z0-9_.-]{0,63}$/D', $name) === 1 && is_scalar($value) && trim((string) $value) !== '') {
                    $answers[$name] = trim((string) $value);
                }
            }
        }
        return $answers;
    }

    private function addon(): int
    {
        return (int) Read::text($this->params, 'addonId');
    }

    private function setting(int $number): string
    {
        return Read::text($this->params, "configoption$number");
    }

    private function property(string $name): string
    {
        $properties = $this->properties();
        if ($properties === null || !method_exists($properties, 'get')) {
            return '';
        }
        $value = $properties->get($name);
        return is_scalar($value) ? (string) $value : '';
    }

    /** @param array<string, string> $values */
    private function saveProperties(array $values): void
    {
        $properties = $this->properties();
        if ($values !== [] && $properties !== null && method_exists($properties, 'save')) {
            $properties->save($values);
        }
    }

    private function properties(): ?object
    {
        $model = $this->params['model'] ?? null;
        $properties = is_object($model) ? ($model->serviceProperties ?? null) : null;
        return is_object($properties) ? $properties : null;
    }

    private static function orNull(string $text): ?string
    {
        return $text === '' ? null : $text;
    }

    /** A date as WHMCS stores it; empty for none, which it stores as zeros. */
    private static function date(string $text): string
    {
        return preg_match('/^[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}/', $text, $date) === 1 ? $date[0] : '';
    }
}
