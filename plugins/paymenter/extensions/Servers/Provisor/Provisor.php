<?php

declare(strict_types=1);

namespace Paymenter\Extensions\Servers\Provisor;

use App\Attributes\ExtensionMeta;
use App\Classes\Extension\Server;
use App\Events\Service\Updated;
use App\Exceptions\DisplayException;
use App\Models\Product;
use App\Models\Service;
use Exception;
use Illuminate\Support\Facades\Event;
use Illuminate\Support\Facades\Log;
use Illuminate\Support\Facades\Session;
use Provisor\Description;
use Provisor\Gateway;
use Provisor\Problem;
use Provisor\Read;
use Provisor\Service as Remote;

require_once __DIR__ . '/load.php';

/**
 * Paymenter calls what stands below from jobs. What returns was done; an exception ends the job as a failed one, which
 * `php artisan queue:retry` tries again. Paymenter has by then already written down the state that it wished for.
 */
#[ExtensionMeta(name: 'Provisor', description: 'Sells services of any provider that your Provisor gateway knows.', version: '0.1.0', author: 'Provisor')]
class Provisor extends Server
{
    /** Seconds: below the 90 after which Paymenter's queue takes a job for dead, with room for the questions before the change. */
    private const WAIT_DEFAULT = 60;
    /** The customer's own answers that are asked for where the product does not say which. */
    private const CUSTOMER_FIELDS = 'domain,hostname';
    /** In a product's settings, the provider's options begin with this. */
    private const OPTION_PREFIX = 'option_';
    /** Seconds for which the button that confirms a reinstallation is shown. */
    private const CONFIRM_TIME = 600;
    private const REMOTE_ID = 'provisor_id';
    private const REINSTALL = 'provisor_reinstall';

    /** Called with each request: our pages, and the renewals, for which Paymenter has no call. */
    public function boot(): void
    {
        require __DIR__ . '/routes.php';
        Event::listen(Updated::class, static function (Updated $event): void {
            $dueDate = self::renewedDueDate($event->service);
            if ($dueDate !== null) {
                RenewJob::dispatch($event->service, $dueDate);
            }
        });
    }

    /**
     * @param array<mixed> $values
     * @return list<array<string, mixed>>
     */
    public function getConfig($values = []): array
    {
        return [
            [
                'name' => 'address',
                'label' => 'Address of the gateway',
                'type' => 'text',
                'description' => 'https://gateway.example, http://127.0.0.1:7070 or unix:/run/provisor/gateway.sock',
                'required' => true,
            ],
            [
                'name' => 'token',
                'label' => 'Token',
                'type' => 'password',
                'description' => 'As printed by: provisor panel create',
                'required' => true,
                'encrypted' => true,
            ],
            [
                'name' => 'wait',
                'label' => 'Seconds to wait for the end of a change',
                'type' => 'number',
                'default' => self::WAIT_DEFAULT,
                'validation' => 'integer|min:0|max:110',
                'required' => false,
            ],
        ];
    }

    /** @return bool|string true, or why not */
    public function testConfig()
    {
        try {
            return $this->gateway()->profiles() !== [] ? true : 'The token may use no profile.';
        } catch (Problem $problem) {
            return Remote::plain($problem->staffText());
        }
    }

    /**
     * @param array<mixed> $values what was chosen so far
     * @return list<array<string, mixed>>
     */
    public function getProductConfig($values = []): array
    {
        $profile = Read::text($values, 'profile');
        [$profiles, $plans, $fields] = $this->choices($profile);
        $settings = [
            self::choice('profile', 'Profile', $profiles, true) + ['live' => true],
            self::choice('plan', 'Plan', $plans, true),
            self::choice('term', 'Term', [], false),
        ];
        foreach ($fields as $field) {
            if (!in_array(Read::text($field, 'name'), ['domain', 'email', 'password'], true)) {
                $settings[] = self::input(self::OPTION_PREFIX . Read::text($field, 'name'), $field);
            }
        }
        $settings[] = ['default' => self::CUSTOMER_FIELDS, 'description' => 'What customers are asked for, with commas between.']
            + self::choice('customer_fields', 'Customers\' fields', [], false);
        $settings[] = ['name' => 'customer_may_reinstall', 'label' => 'Customers may reinstall, which deletes all data', 'type' => 'checkbox', 'required' => false];
        return $settings;
    }

    /**
     * Of what the product lets customers answer, what the provider asks for.
     *
     * @param Product      $product
     * @param array<mixed> $values
     * @param array<mixed> $settings of the product
     * @return list<array<string, mixed>>
     */
    public function getCheckoutConfig(Product $product, $values = [], $settings = []): array
    {
        $inputs = [];
        try {
            $fields = $this->description()->orderFields(Read::text($settings, 'profile'));
        } catch (Problem $problem) {
            throw new DisplayException(self::text($problem, true));
        }
        foreach ($fields as $field) {
            $name = Read::text($field, 'name');
            if (in_array($name, self::customerFields($settings), true)) {
                $isDomain = $name === 'domain' || $name === 'hostname';
                $rules = $isDomain ? ['max:253', 'regex:/^[^\s\/:@<>"\'.][^\s\/:@<>"\']*\.[^\s\/:@<>"\'.]{2,63}$/u'] : ['max:255'];
                $isRequired = Read::flag($field, 'required');
                $inputs[] = ['validation' => array_merge([$isRequired ? 'required' : 'nullable', 'string'], $rules)] + self::input($name, $field);
            }
        }
        return $inputs;
    }

    /**
     * @param array<mixed> $settings   of the product
     * @param array<mixed> $properties of the service
     * @return array<string, string> what the mail to the customer may use
     * @throws Exception
     */
    public function createServer(Service $service, $settings, $properties): array
    {
        $made = $this->attempt($service, 'create', function (Remote $remote) use ($service, $settings, $properties): array {
            return $remote->create($this->order($service, $settings, $properties));
        });
        $service->properties()->updateOrCreate(['key' => self::REMOTE_ID], ['name' => 'Provisor ID', 'value' => Read::text($made, 'remote_id')]);
        return [
            'domain' => Read::text($made, 'domain'),
            'addresses' => implode(', ', Read::texts($made, 'addresses')),
            'username' => Read::text($made, 'username'),
        ];
    }

    /**
     * @param array<mixed> $settings
     * @param array<mixed> $properties
     * @throws Exception
     */
    public function suspendServer(Service $service, $settings, $properties): bool
    {
        $this->attempt($service, 'suspend', static function (Remote $remote): array {
            $remote->suspend();
            return [];
        });
        return true;
    }

    /**
     * @param array<mixed> $settings
     * @param array<mixed> $properties
     * @throws Exception
     */
    public function unsuspendServer(Service $service, $settings, $properties): bool
    {
        $this->attempt($service, 'unsuspend', static function (Remote $remote): array {
            $remote->unsuspend();
            return [];
        });
        return true;
    }

    /**
     * @param array<mixed> $settings
     * @param array<mixed> $properties
     * @throws Exception
     */
    public function terminateServer(Service $service, $settings, $properties): bool
    {
        $this->attempt($service, 'terminate', static function (Remote $remote): array {
            $remote->terminate();
            return [];
        });
        $service->properties()->where('key', self::REMOTE_ID)->delete();
        return true;
    }

    /**
     * @param array<mixed> $settings   of the new product
     * @param array<mixed> $properties
     * @throws Exception
     */
    public function upgradeServer(Service $service, $settings, $properties): bool
    {
        $this->attempt($service, 'change-package', function (Remote $remote) use ($settings, $properties): array {
            return $remote->changePackage(Read::text($settings, 'plan'), $this->upgradeOptions($settings, $properties));
        });
        return true;
    }

    /**
     * Called by RenewJob.
     *
     * @param array<mixed> $settings
     * @param array<mixed> $properties
     * @throws Exception
     */
    public function renewServer(Service $service, $settings, $properties, string $dueDate): bool
    {
        $this->attempt($service, 'renew', static function (Remote $remote) use ($dueDate): array {
            $remote->renew($dueDate);
            return [];
        });
        return true;
    }

    /**
     * What the customer sees on the service's page.
     *
     * @param array<mixed> $settings
     * @param array<mixed> $properties
     * @return list<array<string, string>>
     */
    public function getActions(Service $service, $settings, $properties): array
    {
        $actions = [];
        try {
            $remote = $this->remote($service);
            $view = $remote->view();
            foreach (Remote::rows($view, true) as $label => $text) {
                $actions[] = ['type' => 'text', 'label' => $label, 'text' => $text];
            }
            foreach ($remote->offers($view, true, self::mayReinstall($settings)) as $offer) {
                $button = self::button($service, $offer, Read::text($properties, self::REINSTALL));
                if ($button !== null) {
                    $actions[] = $button;
                }
            }
        } catch (Problem $problem) {
            $actions[] = ['type' => 'text', 'label' => 'State', 'text' => self::text($problem, true)];
        }
        return $actions;
    }

    /**
     * Paymenter's usual name for a login: where it is.
     *
     * @param array<mixed> $settings
     * @param array<mixed> $properties
     */
    public function ssoLink(Service $service, $settings = [], $properties = []): string
    {
        return route('extensions.servers.provisor.page', ['what' => 'sign-on', 'service' => $service->id]);
    }

    /**
     * @param array<mixed> $settings
     * @param array<mixed> $properties
     */
    public function start(Service $service, $settings = [], $properties = []): string
    {
        return $this->power($service, 'start');
    }

    /**
     * @param array<mixed> $settings
     * @param array<mixed> $properties
     */
    public function stop(Service $service, $settings = [], $properties = []): string
    {
        return $this->power($service, 'stop');
    }

    /**
     * @param array<mixed> $settings
     * @param array<mixed> $properties
     */
    public function reboot(Service $service, $settings = [], $properties = []): string
    {
        return $this->power($service, 'reboot');
    }

    /**
     * Asks the customer whether they mean it: for a while a button that confirms it stands in place of this one.
     *
     * @param array<mixed> $settings
     * @param array<mixed> $properties
     */
    public function reinstall(Service $service, $settings = [], $properties = []): string
    {
        $service->properties()->updateOrCreate(['key' => self::REINSTALL], ['name' => 'Provisor reinstallation asked', 'value' => (string) time()]);
        return self::back($service, 'Reinstalling deletes all data. Confirm it with the button on this page.', 'error');
    }

    /**
     * @param array<mixed> $settings
     * @param array<mixed> $properties
     */
    public function reinstallConfirmed(Service $service, $settings = [], $properties = []): string
    {
        if (!self::mayReinstall($settings) || !self::isConfirmable(Read::text($properties, self::REINSTALL))) {
            throw new DisplayException('Ask for the reinstallation again.');
        }
        $service->properties()->where('key', self::REINSTALL)->delete();
        return $this->power($service, 'reinstall');
    }

    /**
     * Called by PageController: `sign-on` or `access` as HTML.
     *
     * @param array<mixed> $settings
     * @param array<mixed> $properties
     * @throws DisplayException
     */
    public function page(Service $service, $settings, $properties, string $what): string
    {
        try {
            return $this->remote($service)->page($what, true);
        } catch (Problem $problem) {
            self::note($what, self::key($service), $problem);
            return '<!DOCTYPE html><meta charset="utf-8"><p>' . Remote::html(self::text($problem, true)) . "</p>\n";
        }
    }

    /**
     * The due date that was paid for, where a change of a service is a renewal of one of ours; null otherwise.
     *
     * @return ?string a date
     */
    public static function renewedDueDate(Service $service): ?string
    {
        $old = $service->getOriginal('expires_at');
        $new = $service->expires_at;
        $isRenewal = $old instanceof \DateTimeInterface && $new instanceof \DateTimeInterface && $new > $old;
        // A first payment makes a pending service active; there is nothing to be renewed yet.
        if (!$isRenewal || $service->status !== Service::STATUS_ACTIVE || $service->getOriginal('status') === Service::STATUS_PENDING) {
            return null;
        }
        $server = $service->product->server ?? null;
        return $server !== null && $server->extension === 'Provisor' ? $old->format('Y-m-d') : null;
    }

    /**
     * Does it, writes down that it was done or why not, and tells a failure in Paymenter's way.
     *
     * @param callable(Remote): array<string, mixed> $change
     * @return array<string, mixed>
     * @throws Exception
     */
    private function attempt(Service $service, string $what, callable $change): array
    {
        try {
            $result = $change($this->remote($service));
        } catch (Problem $problem) {
            self::note($what, self::key($service), $problem);
            // Without the other one as its cause: Paymenter keeps failed jobs' exceptions with all that stands in them.
            throw new Exception(self::text($problem, false));
        }
        self::note($what, self::key($service), null);
        return $result;
    }

    /** Whether the customer may reinstall, reinstallConfirmed() has asked. */
    private function power(Service $service, string $action): string
    {
        try {
            // A page that was opened before the suspension still has its buttons.
            if ($service->status !== Service::STATUS_ACTIVE) {
                throw new Problem('wrong-state', 'The service is not active.', 'none', 0, 'This is not available just now.');
            }
            $this->remote($service)->powerForCustomer($action, true);
        } catch (Problem $problem) {
            self::note($action, self::key($service), $problem);
            throw new DisplayException(self::text($problem, true));
        }
        self::note($action, self::key($service), null);
        return self::back($service, Remote::label($action) . ': done.', 'success');
    }

    /**
     * @param array<mixed> $settings
     * @param array<mixed> $properties
     * @return array<string, mixed>
     */
    private function order(Service $service, array $settings, array $properties): array
    {
        $options = $this->options($settings);
        foreach (self::customerFields($settings) as $name) {
            $options[$name] = trim(Read::text($properties, $name));
        }
        // What was bought as a configurable option, under the name of one of the provider's.
        foreach ($this->description()->orderFields(Read::text($settings, 'profile')) as $field) {
            $options[Read::text($field, 'name')] = Read::text($properties, Read::text($field, 'name'), $options[Read::text($field, 'name')] ?? '');
        }
        $user = $service->user;
        return [
            'profile' => Read::text($settings, 'profile'),
            'plan' => Read::text($settings, 'plan'),
            'term' => Read::text($settings, 'term'),
            'domain' => Read::text($properties, 'domain'),
            'email' => $user === null ? '' : (string) $user->email,
            'password' => '',
            'options' => $options,
        ];
    }

    /**
     * With an upgrade only what the upgrade is about: a host name or a quantity is no part of it.
     *
     * @param array<mixed> $settings
     * @param array<mixed> $properties
     * @return array<string, string>
     */
    private function upgradeOptions(array $settings, array $properties): array
    {
        $options = [];
        foreach ($this->options($settings) as $name => $value) {
            if (!in_array($name, self::customerFields($settings), true)) {
                $options[$name] = Read::text($properties, $name, $value);
            }
        }
        return $options;
    }

    /**
     * @param array<mixed> $settings
     * @return array<string, string>
     */
    private function options(array $settings): array
    {
        $options = [];
        foreach ($settings as $name => $value) {
            if (strncmp((string) $name, self::OPTION_PREFIX, strlen(self::OPTION_PREFIX)) === 0 && is_scalar($value)) {
                $options[(string) substr((string) $name, strlen(self::OPTION_PREFIX))] = trim((string) $value);
            }
        }
        return $options;
    }

    /**
     * What the product's page lets choose: an empty list where the gateway does not say, and then a text may be typed.
     *
     * @return array{array<string, string>, array<string, string>, list<array<string, mixed>>} profiles, plans, fields
     */
    private function choices(string $profile): array
    {
        [$profiles, $plans, $fields] = [[], [], []];
        try {
            foreach ($this->description()->profiles() as $name => $provider) {
                $profiles[$name] = Remote::caption("$name ($provider)");
            }
            $fields = $this->description()->orderFields($profile);
            foreach ($profile === '' ? [] : Read::maps($this->gateway()->catalog($profile), 'plans') as $plan) {
                $plans[Read::text($plan, 'id')] = Remote::caption(Read::text($plan, 'name', Read::text($plan, 'id')));
            }
        } catch (Problem $problem) {
            self::note('product settings', $profile, $problem);
        }
        return [$profiles, $plans, $fields];
    }

    /**
     * @param array<string, string> $options
     * @return array<string, mixed>
     */
    private static function choice(string $name, string $label, array $options, bool $isRequired): array
    {
        $input = ['name' => $name, 'label' => $label, 'type' => $options === [] ? 'text' : 'select', 'required' => $isRequired];
        return $options === [] ? $input : $input + ['options' => $options];
    }

    /**
     * A field of the provider's as one of Paymenter's.
     *
     * @param array<string, mixed> $field
     * @return array<string, mixed>
     */
    private static function input(string $name, array $field): array
    {
        $options = [];
        foreach (Read::maps($field, 'choices') as $choice) {
            $options[Read::text($choice, 'value')] = Remote::caption(Read::text($choice, 'label', Read::text($choice, 'value')));
        }
        return array_filter([
            'description' => Remote::plain(Read::text($field, 'help')),
            'default' => Read::text($field, 'default'),
        ]) + self::choice($name, Remote::caption(Read::text($field, 'label', $name)), $options, Read::flag($field, 'required'));
    }

    /** @return ?array<string, string> */
    private static function button(Service $service, string $offer, string $asked): ?array
    {
        if ($offer === 'change-password') {
            // Paymenter has no form for it; the provider's own pages have.
            return null;
        }
        if ($offer === 'sign-on' || $offer === 'access') {
            $url = route('extensions.servers.provisor.page', ['what' => $offer, 'service' => $service->id]);
            return ['type' => 'button', 'label' => Remote::label($offer), 'url' => $url, 'target' => '_blank'];
        }
        if ($offer === 'reinstall' && self::isConfirmable($asked)) {
            return ['type' => 'button', 'label' => 'Confirm: delete all data and reinstall', 'function' => 'reinstallConfirmed'];
        }
        return ['type' => 'button', 'label' => Remote::label($offer), 'function' => $offer];
    }

    private static function isConfirmable(string $asked): bool
    {
        $age = time() - (int) $asked;
        return $asked !== '' && $age >= 0 && $age < self::CONFIRM_TIME;
    }

    /** @param array<mixed> $settings */
    private static function mayReinstall($settings): bool
    {
        return in_array(Read::text($settings, 'customer_may_reinstall'), ['1', 'true', 'on'], true);
    }

    /**
     * @param array<mixed> $settings
     * @return list<string>
     */
    private static function customerFields($settings): array
    {
        return array_map('trim', explode(',', Read::text($settings, 'customer_fields', self::CUSTOMER_FIELDS)));
    }

    private static function back(Service $service, string $message, string $type): string
    {
        Session::put('notification', ['message' => $message, 'type' => $type]);
        return route('services.show', ['service' => $service->id]);
    }

    private static function note(string $what, string $about, ?Problem $problem): void
    {
        $result = $problem === null ? 'done' : "failed ({$problem->kind()}): " . Remote::plain($problem->staffText());
        Log::log($problem === null ? 'info' : 'warning', "Provisor: $what of $about $result");
    }

    private static function text(Problem $problem, bool $isForCustomer): string
    {
        return Remote::plain($isForCustomer ? $problem->customerText() : $problem->staffText());
    }

    private static function key(Service $service): string
    {
        return "service-{$service->id}";
    }

    /** @throws Problem */
    private function remote(Service $service): Remote
    {
        $wait = $this->setting('wait');
        return new Remote($this->gateway(), self::key($service), 'paymenter', $wait !== '' ? (int) $wait : self::WAIT_DEFAULT);
    }

    /** @throws Problem */
    private function gateway(): Gateway
    {
        return new Gateway($this->setting('address'), $this->setting('token'));
    }

    /** @throws Problem */
    private function description(): Description
    {
        return new Description($this->gateway()->describe('paymenter'));
    }

    private function setting(string $name): string
    {
        $value = $this->config($name);
        return is_scalar($value) ? trim((string) $value) : '';
    }
}
