<?php

declare(strict_types=1);

namespace Provisor;

/**
 * One service, for panels that are told of a failure by an exception: what returns was done, all else throws a Problem. Also a change that
 * is still under way, since no such panel has a word for it: asked for again, it is joined and not repeated.
 */
final class Service
{
    /** Of a Problem: accepted, and not yet at its end. */
    public const PENDING = 'pending';
    /** Seconds to wait for the end of a change. */
    public const WAIT_DEFAULT = 25;
    /** Characters of a line for people: a label, or a reason, of which a provider takes no more. */
    public const LINE_LENGTH_MAX = 200;
    /** Fields of the order itself, whatever option has their name. */
    public const OWN_FIELDS = ['domain', 'email', 'note', 'password', 'plan', 'profile', 'term'];
    /** Without those that people mistake for others. Some of each kind are in every password. */
    private const LETTERS = ['abcdefghijkmnpqrstuvwxyz', 'ABCDEFGHJKLMNPQRSTUVWXYZ', '23456789', '-_'];
    private const PASSWORD_LENGTH = 20;

    private Gateway $gateway;
    private string $key;
    private string $panel;
    private int $wait;
    private ?Description $description = null;

    /**
     * @param string $key   the panel's own, stable name of the service
     * @param string $panel the panel's name, for `describe`
     * @param int    $wait  seconds to wait for the end of a change, 0 to 110
     */
    public function __construct(Gateway $gateway, string $key, string $panel, int $wait = self::WAIT_DEFAULT)
    {
        $this->gateway = $gateway;
        $this->key = $key;
        $this->panel = $panel;
        $this->wait = $wait;
    }

    /**
     * Makes it. E-mail address and password are sent only to a provider that asks for them; a password that is asked for and not given is
     * made up.
     *
     * @param array<string, mixed> $order `profile`, `plan`, and where there are: `term`, `domain`, `email`, `password`, `options` (by name)
     * @return array<string, mixed> the service
     * @throws Problem
     */
    public function create(
        #[\SensitiveParameter]
        array $order
    ): array {
        $profile = Read::text($order, 'profile');
        if ($profile === '' || Read::text($order, 'plan') === '') {
            throw new Problem('invalid', 'The product names no profile or no plan: choose both in its settings.');
        }
        $asked = array_column($this->description()->orderFields($profile), 'name');
        $password = Read::text($order, 'password');
        $fields = [
            'profile' => $profile,
            'plan' => Read::text($order, 'plan'),
            'term' => self::orNull($order, 'term'),
            'domain' => self::orNull($order, 'domain'),
            'email' => in_array('email', $asked, true) ? self::orNull($order, 'email') : null,
            'password' => in_array('password', $asked, true) ? ($password !== '' ? $password : self::newPassword()) : null,
            'options' => self::options(Read::map($order, 'options')),
        ];
        return $this->change('create', $fields);
    }

    /**
     * Takes over what the provider has already: by its id or its domain.
     *
     * @return array<string, mixed> the service
     * @throws Problem
     */
    public function adopt(string $profile, string $remoteId, string $domain = ''): array
    {
        return $this->change('adopt', ['profile' => $profile] + ($remoteId !== '' ? ['remote_id' => $remoteId] : ['domain' => $domain]));
    }

    /** @throws Problem */
    public function suspend(?string $reason = null): void
    {
        $reason = Read::shortened((string) $reason, self::LINE_LENGTH_MAX);
        $this->change('suspend', ['reason' => $reason !== '' ? $reason : null]);
    }

    /** @throws Problem */
    public function unsuspend(): void
    {
        $this->change('unsuspend');
    }

    /** @throws Problem */
    public function terminate(): void
    {
        $this->change('terminate');
    }

    /**
     * Pays the provider for one more term. Where the provider has no renewals, there is nothing to be paid.
     *
     * @param string $dueDate the due date that is being renewed: the same however often the panel repeats the call
     * @throws Problem
     */
    public function renew(string $dueDate): void
    {
        if ($dueDate === '') {
            throw new Problem('invalid', 'The panel has no due date for this service.');
        }
        if ($this->description()->can(Read::text($this->gateway->service($this->key), 'profile'), 'renew')) {
            $this->change('renew', ['due_at' => $dueDate]);
        }
    }

    /** @throws Problem */
    public function resetPassword(
        #[\SensitiveParameter]
        string $password = ''
    ): void {
        $this->change('reset-password', ['password' => $password !== '' ? $password : null]);
    }

    /**
     * Another plan. One that it has already is not asked for again, so that a retry after a lost answer is no second, charged change.
     *
     * @param array<string, mixed> $options by name
     * @return array<string, mixed> the service
     * @throws Problem
     */
    public function changePackage(string $plan, array $options = []): array
    {
        $service = $this->gateway->service($this->key);
        $profile = Read::text($service, 'profile');
        if (!$this->description()->can($profile, 'change-package')) {
            throw new Problem('unsupported', 'This provider cannot change the plan of a service.');
        }
        $options = self::options($options);
        $isUnderWay = Read::text($service, 'operation') !== '';
        if (Read::text($service, 'plan') === $plan && $options === [] && !$isUnderWay) {
            return $service;
        }
        return $this->change('change-package', ['plan' => $plan, 'options' => $options]);
    }

    /**
     * @param string $action one of Description::POWER_ACTIONS
     * @throws Problem
     */
    public function power(string $action): void
    {
        $this->change('power', ['action' => $action]);
    }

    /**
     * The same for a customer, who may ask for what no page offers them any more: a service that is suspended stays as it is.
     *
     * @param string $action       one of Description::POWER_ACTIONS
     * @param bool   $mayReinstall whether a customer may
     * @throws Problem
     */
    public function powerForCustomer(string $action, bool $mayReinstall = false): void
    {
        $this->refuseUnlessOffered($action, true, $mayReinstall);
        $this->power($action);
    }

    /**
     * What the journal knows; `fresh` asks the provider first.
     *
     * @return array<string, mixed>
     * @throws Problem
     */
    public function view(bool $fresh = false): array
    {
        return $this->gateway->service($this->key, $fresh);
    }

    /**
     * What staff, or the customer, can ask for on the service: power actions, `change-password`, `sign-on` and `access`.
     *
     * @param array<string, mixed> $service      of view()
     * @param bool                 $mayReinstall whether a customer may
     * @return list<string>
     * @throws Problem
     */
    public function offers(array $service, bool $isForCustomer, bool $mayReinstall = false): array
    {
        $profile = Read::text($service, 'profile');
        if ($isForCustomer && Read::text($service, 'state') !== 'active') {
            return [];
        }
        $offers = [];
        if ($this->description()->can($profile, 'power')) {
            $offers = $isForCustomer && !$mayReinstall ? array_diff(Description::POWER_ACTIONS, ['reinstall']) : Description::POWER_ACTIONS;
        }
        if ($this->description()->can($profile, 'reset-password')) {
            $offers[] = 'change-password';
        }
        if ($this->signOnTarget($profile, $isForCustomer) !== null) {
            $offers[] = 'sign-on';
        }
        if ($this->description()->can($profile, 'credentials')) {
            $offers[] = 'access';
        }
        return array_values($offers);
    }

    /**
     * A whole page of HTML for `sign-on` or `access`, as offers() names them. Not to be kept: both hold passwords.
     *
     * @throws Problem
     */
    public function page(string $what, bool $isForCustomer): string
    {
        if ($what !== 'sign-on' && $what !== 'access') {
            throw new Problem('unsupported', "There is no page \"$what\".", 'none', 0, 'This is not available just now.');
        }
        $isLogin = $what === 'sign-on';
        $script = $isLogin ? '<script>document.forms[0].submit()</script>' : '';
        return self::document(($isLogin ? $this->signOnForm($isForCustomer) : $this->accessTable($isForCustomer)) . $script);
    }

    /**
     * How to log in, as a table of HTML. Providers record each reading.
     *
     * @throws Problem
     */
    public function accessTable(bool $isForCustomer): string
    {
        $this->refuseUnlessOffered('access', $isForCustomer);
        $access = $this->gateway->credentials($this->key);
        $rows = [];
        foreach (['username', 'password', 'port', 'url'] as $name) {
            $rows[$name] = Read::text($access, $name);
        }
        $table = '';
        foreach (self::filled($rows + Read::properties($access, 'properties')) as $name => $value) {
            $table .= '<tr><th>' . self::html(self::label($name)) . '</th><td><code>' . self::html($value) . '</code></td></tr>';
        }
        return "<table>$table</table>";
    }

    /**
     * A form of HTML that logs the reader in at the provider when they press its button.
     *
     * @throws Problem
     */
    public function signOnForm(bool $isForCustomer): string
    {
        $profile = $this->refuseUnlessOffered('sign-on', $isForCustomer);
        $form = $this->gateway->signOn($this->key, (string) $this->signOnTarget($profile, $isForCustomer));
        $url = Read::text($form, 'url');
        if (preg_match('~^https?://~i', $url) !== 1) {
            throw new Problem('protocol', 'The login page\'s address is none.');
        }
        $inputs = '';
        foreach (Read::maps($form, 'fields') as $field) {
            $inputs .= sprintf('<input type="hidden" name="%s" value="%s">', self::html(Read::text($field, 'name')), self::html(Read::text($field, 'value')));
        }
        return '<form method="post" action="' . self::html($url) . "\">$inputs<button>" . self::label('sign-on') . '</button></form>';
    }

    /**
     * Where the reader logs in, for panels that have nothing but links. Nobody is logged in by it: a login takes a form, see signOnForm().
     *
     * @throws Problem
     */
    public function loginAddress(bool $isForCustomer): string
    {
        $service = $this->view();
        $offers = $this->offers($service, $isForCustomer);
        $url = '';
        if (in_array('sign-on', $offers, true)) {
            $target = (string) $this->signOnTarget(Read::text($service, 'profile'), $isForCustomer);
            $url = Read::text($this->gateway->signOn($this->key, $target), 'url');
        } elseif (in_array('access', $offers, true)) {
            $url = Read::text($this->gateway->credentials($this->key), 'url');
        }
        if (preg_match('~^https?://~i', $url) !== 1) {
            throw new Problem('unsupported', 'This provider has no login page for this service.', 'none', 0, 'This is not available just now.');
        }
        return $url;
    }

    /** @return string the service's profile */
    private function refuseUnlessOffered(string $what, bool $isForCustomer, bool $mayReinstall = false): string
    {
        $service = $this->view();
        if (!in_array($what, $this->offers($service, $isForCustomer, $mayReinstall), true)) {
            throw new Problem('unsupported', 'This is not offered for this service.', 'none', 0, 'This is not available just now.');
        }
        return Read::text($service, 'profile');
    }

    private static function document(string $body): string
    {
        return '<!DOCTYPE html><html><head><meta charset="utf-8"><meta name="referrer" content="no-referrer">'
            . "<meta name=\"robots\" content=\"noindex\"><title>Provisor</title></head><body>$body</body></html>\n";
    }

    /** @throws Problem */
    public function description(): Description
    {
        return $this->description ??= new Description($this->gateway->describe($this->panel));
    }

    /** A text for a page: what providers, staff or customers wrote is never markup. */
    public static function html(string $text): string
    {
        return htmlspecialchars($text, ENT_QUOTES | ENT_SUBSTITUTE, 'UTF-8');
    }

    /** A text for panels that print it as it is, into pages and mails: no markup survives this. */
    public static function plain(string $text): string
    {
        return strtr($text, ['<' => '‹', '>' => '›', '"' => '”', "'" => '’', '`' => '’']);
    }

    /** A provider's text in a list or beside a field: no markup, and no longer than a line. */
    public static function caption(string $text): string
    {
        return self::plain(Read::shortened($text, self::LINE_LENGTH_MAX));
    }

    /** The name of a change, a state or a field for people; what is not known stays as it is. */
    public static function label(string $name): string
    {
        $labels = [
            'change-password' => 'Change password',
            'sign-on' => 'Log in',
            'access' => 'Access data',
            'remote_id' => 'Provider\'s id',
            'due_at' => 'Paid until',
            'checked_at' => 'Last checked',
        ];
        return $labels[$name] ?? ucfirst(str_replace(['-', '_'], ' ', $name));
    }

    /**
     * The rows of a page about a service: label and text, not yet escaped. Customers see less than staff.
     *
     * @param array<string, mixed> $service of view()
     * @return array<string, string>
     */
    public static function rows(array $service, bool $isForCustomer): array
    {
        $rows = [];
        $names = ['state', 'plan', 'domain', 'username', 'due_at'];
        foreach (array_merge($names, $isForCustomer ? [] : ['profile', 'remote_id', 'operation', 'checked_at']) as $name) {
            $text = Read::text($service, $name);
            // A term ends on a day; the hour would only be the gateway's.
            $rows[self::label($name)] = Read::shortened($name === 'due_at' ? (string) substr($text, 0, 10) : $text, self::LINE_LENGTH_MAX);
        }
        $rows['Addresses'] = implode(', ', Read::texts($service, 'addresses'));
        if (!$isForCustomer) {
            $drift = Read::map($service, 'drift');
            $rows['Drift'] = trim(Read::text($drift, 'kind') . ' ' . Read::text($drift, 'since'));
        }
        return self::filled($rows);
    }

    public static function newPassword(): string
    {
        $password = [];
        $all = implode('', self::LETTERS);
        foreach (range(1, self::PASSWORD_LENGTH) as $place) {
            $from = self::LETTERS[$place - 1] ?? $all;
            $password[] = $from[random_int(0, strlen($from) - 1)];
        }
        // shuffle() is no secure one: the known places are moved by ours.
        for ($place = self::PASSWORD_LENGTH - 1; $place > 0; $place--) {
            $other = random_int(0, $place);
            [$password[$place], $password[$other]] = [$password[$other], $password[$place]];
        }
        return implode('', $password);
    }

    /**
     * @param array<string, mixed> $fields
     * @return array<string, mixed> the service
     */
    private function change(
        string $operation,
        #[\SensitiveParameter]
        array $fields = []
    ): array {
        $answer = $this->gateway->change($this->key, $operation, $fields, $this->wait);
        if ($answer->isPending()) {
            $id = Read::text($answer->operation(), 'id');
            $text = "In progress at the provider: $operation of {$this->key} goes on by itself. Ask again later, it is not ordered twice.";
            $public = 'Your request is in progress and will be finished by itself.';
            throw new Problem(self::PENDING, $text, 'partial', 202, $public, null, $id !== '' ? $id : null);
        }
        return $answer->service();
    }

    private function signOnTarget(string $profile, bool $isForCustomer): ?string
    {
        return $this->description()->signOnTargets($profile, $isForCustomer)[0] ?? null;
    }

    /**
     * @param array<string, mixed> $options
     * @return array<string, string>
     */
    private static function options(array $options): array
    {
        $texts = [];
        foreach (array_diff_key($options, array_flip(self::OWN_FIELDS)) as $name => $value) {
            if (is_scalar($value) && trim((string) $value) !== '') {
                $texts[$name] = Read::text([$name => $value], $name);
            }
        }
        return $texts;
    }

    /**
     * @param array<string, string> $rows
     * @return array<string, string>
     */
    private static function filled(array $rows): array
    {
        return array_filter($rows, static function (string $value): bool {
            return $value !== '';
        });
    }

    /** @param array<string, mixed> $from */
    private static function orNull(array $from, string $name): ?string
    {
        $text = trim(Read::text($from, $name));
        return $text !== '' ? $text : null;
    }
}
