<?php

declare(strict_types=1);

use Provisor\Description;
use Provisor\Gateway;
use Provisor\Problem;
use Provisor\Read;
use Provisor\Service;

/**
 * What WISECP calls on a module of ours, be it one for servers or for other products. `true`, or from create() an array, is a success;
 * `false` with a text in `$this->error` is a failure, which WISECP's queue may try again.
 *
 * The service is known by the order's number, which WISECP keeps through all of its life.
 */
trait Provisor_Calls
{
    /**
     * What the panel knows of the gateway.
     *
     * @return array{address: string, token: string, wait: string}
     */
    abstract protected function provisorSettings(): array;

    /** Servers or Product, for the module log. */
    abstract protected function provisorType(): string;

    /**
     * What WISECP stores with a service that was made.
     *
     * @param array<string, mixed> $made
     * @return array<string, mixed>
     */
    abstract protected function provisorMade(array $made): array;

    /**
     * The settings of a product.
     *
     * @param mixed $data as they are now
     * @return array<string, array<string, mixed>>
     */
    public function config_options($data = [])
    {
        $data = is_array($data) ? $data : [];
        [$plans, $fields, $problem] = $this->provisorChoices($data);
        $plan = Read::text($data, 'plan');
        // What was chosen stays to be seen, also when it is sold no longer or the gateway does not answer.
        $plans += $plan === '' ? [] : [$plan => $plan];
        $inputs = [
            'plan' => [
                'name' => $this->provisorText('plan'),
                'description' => Service::html($problem !== '' ? $problem : $this->provisorText('plan_help')),
                'type' => 'dropdown',
                'options' => ['' => '–'] + $plans,
                'value' => $plan,
            ],
            'term' => ['name' => $this->provisorText('term'), 'description' => '', 'type' => 'text', 'width' => '50', 'value' => Read::text($data, 'term')],
        ];
        foreach ($fields as $field) {
            $name = 'option_' . Read::text($field, 'name');
            if (!in_array($name, ['option_domain', 'option_email', 'option_password'], true)) {
                $inputs[$name] = [
                    'name' => Service::html(Read::text($field, 'label')),
                    'description' => Service::html(Read::text($field, 'help')),
                    'type' => 'text',
                    'width' => '50',
                    'value' => Read::text($data, $name, Read::text($field, 'default')),
                ];
            }
        }
        $inputs['wait'] = ['name' => $this->provisorText('wait'), 'description' => '0-110', 'type' => 'text', 'width' => '20', 'value' => Read::text($data, 'wait')];
        $inputs['reinstall'] = [
            'name' => $this->provisorText('may_reinstall'),
            'description' => $this->provisorText('may_reinstall_help'),
            'type' => 'approval',
            'checked' => self::provisorIsOn(Read::text($data, 'reinstall')),
        ];
        return $inputs;
    }

    /**
     * @param mixed $order_options
     * @return array<string, mixed>|false
     */
    public function create($order_options = [])
    {
        $made = [];
        $isDone = $this->provisorAttempt('create', function (Service $service) use ($order_options, &$made): void {
            $made = $service->create($this->provisorOrder(is_array($order_options) ? $order_options : []));
        });
        return $isDone ? $this->provisorMade($made) : false;
    }

    /** @return bool */
    public function suspend()
    {
        return $this->provisorAttempt('suspend', function (Service $service): void {
            $service->suspend(Read::text($this->provisorOrderRow(), 'suspended_reason'));
        });
    }

    /** @return bool */
    public function unsuspend()
    {
        return $this->provisorAttempt('unsuspend', static function (Service $service): void {
            $service->unsuspend();
        });
    }

    /**
     * What server modules call the end of a service.
     *
     * @return bool
     */
    public function terminate()
    {
        return $this->provisorAttempt('terminate', static function (Service $service): void {
            $service->terminate();
        });
    }

    /**
     * What product modules call it.
     *
     * @return bool
     */
    public function delete()
    {
        return $this->terminate();
    }

    /**
     * @param mixed $order_options
     * @return bool
     */
    public function renewal($order_options = [])
    {
        return $this->provisorAttempt('renew', function (Service $service): void {
            $service->renew((string) substr(Read::text($this->provisorOrderRow(), 'duedate'), 0, 10));
        });
    }

    /**
     * @param mixed $params of a server module the new `creation_info`, of a product module the new product
     * @return bool
     */
    public function apply_updowngrade($params = [])
    {
        $params = is_array($params) ? $params : [];
        return $this->provisorAttempt('change-package', static function (Service $service) use ($params): void {
            $new = isset($params['creation_info']) ? Read::map($params, 'creation_info') : self::provisorDecoded($params['module_data'] ?? null);
            $service->changePackage(self::provisorPlan($new)[1], self::provisorOptions($new));
        });
    }

    /**
     * @param string $password
     * @return bool
     */
    public function change_password(
        #[\SensitiveParameter]
        $password = ''
    ) {
        return $this->provisorChangePassword($password, false);
    }

    /** @param mixed $password */
    private function provisorChangePassword(
        #[\SensitiveParameter]
        $password,
        bool $isForCustomer
    ): bool {
        return $this->provisorAttempt('reset-password', function (Service $service) use ($password, $isForCustomer): void {
            $this->provisorRefuseUnlessActive($isForCustomer);
            if (!is_string($password) || $password === '') {
                throw new Problem('invalid', 'There is no password.', 'none', 0, null, 'password');
            }
            $service->resetPassword($password);
        });
    }

    /**
     * Whether it runs.
     *
     * @return bool
     */
    public function get_status()
    {
        $isRunning = false;
        $this->provisorAttempt('status', static function (Service $service) use (&$isRunning): void {
            $view = $service->view();
            $power = Read::properties($view, 'properties')['power'] ?? 'running';
            $isRunning = Read::text($view, 'state') === 'active' && $power === 'running';
        });
        return $isRunning;
    }

    /** @return string */
    public function clientArea()
    {
        $page = $this->provisorPage(true);
        $rows = '';
        foreach ($page['rows'] as $label => $text) {
            $rows .= '<tr><th>' . Service::html($label) . '</th><td>' . Service::html($text) . '</td></tr>';
        }
        return $this->clientArea_buttons_output() . ($page['problem'] !== '' ? '<p>' . Service::html($page['problem']) . '</p>' : "<table>$rows</table>")
            . (in_array('change-password', $page['offers'], true) ? $this->provisorPasswordForm() : '');
    }

    /** @return array<string, array<string, mixed>> */
    public function clientArea_buttons()
    {
        return $this->provisorButtons(true);
    }

    /** @return array<string, array<string, mixed>> */
    public function adminArea_buttons()
    {
        return $this->provisorButtons(false);
    }

    /** @return array<string, array<string, mixed>> */
    public function adminArea_service_fields()
    {
        $page = $this->provisorPage(false);
        $fields = [];
        foreach ($page['problem'] === '' ? $page['rows'] : [$this->provisorText('state') => $page['problem']] as $label => $text) {
            $fields['provisor_' . strtolower((string) preg_replace('/[^A-Za-z]/', '_', $label))] = [
                'wrap_width' => 100,
                'name' => Service::html($label),
                'type' => 'output',
                'value' => Service::html($text),
            ];
        }
        return $fields;
    }

    /** @return bool */
    public function use_clientArea_start()
    {
        return $this->provisorPower('start', true);
    }

    /** @return bool */
    public function use_clientArea_stop()
    {
        return $this->provisorPower('stop', true);
    }

    /** @return bool */
    public function use_clientArea_reboot()
    {
        return $this->provisorPower('reboot', true);
    }

    /**
     * A page that asks, and the reinstallation once it was answered.
     *
     * @return bool
     */
    public function use_clientArea_reinstall()
    {
        return $this->provisorReinstall(true);
    }

    /** @return bool */
    public function use_adminArea_start()
    {
        return $this->provisorPower('start', false);
    }

    /** @return bool */
    public function use_adminArea_stop()
    {
        return $this->provisorPower('stop', false);
    }

    /** @return bool */
    public function use_adminArea_reboot()
    {
        return $this->provisorPower('reboot', false);
    }

    /** @return bool */
    public function use_adminArea_reinstall()
    {
        return $this->provisorReinstall(false);
    }

    /** @return bool */
    public function use_clientArea_SingleSignOn()
    {
        return $this->provisorSecretPage('sign-on', true);
    }

    /** @return bool */
    public function use_adminArea_SingleSignOn()
    {
        return $this->provisorSecretPage('sign-on', false);
    }

    /** @return bool */
    public function use_clientArea_access()
    {
        return $this->provisorSecretPage('access', true);
    }

    /** @return bool */
    public function use_adminArea_access()
    {
        return $this->provisorSecretPage('access', false);
    }

    /** @return bool */
    public function use_clientArea_change_password()
    {
        return $this->provisorAnswer($this->provisorChangePassword(Read::text(Read::named($_POST), 'password'), true), true);
    }

    /**
     * Why the last call failed, for whoever is told it: customers are told less.
     */
    private function provisorError(bool $isForCustomer): string
    {
        $problem = $this->provisorProblem;
        if ($problem === null) {
            return '';
        }
        return Service::plain($isForCustomer ? $problem->customerText($this->provisorText('neutral')) : $problem->staffText());
    }

    /** @var ?Problem of the last call */
    private $provisorProblem = null;
    /** @var ?Problem of a page's question to a gateway that did not answer: nobody waits for it twice */
    private $provisorSilence = null;

    /**
     * Does it, writes down that it was done or why not, and tells a failure in WISECP's way.
     *
     * @param callable(Service): void $change
     */
    private function provisorAttempt(string $what, callable $change): bool
    {
        $this->provisorProblem = null;
        $id = (int) Read::text($this->provisorOrderRow(), 'id');
        try {
            $change($this->provisorService());
            $this->provisorLog($what, $id, 'done');
            return true;
        } catch (Problem $problem) {
            $this->provisorProblem = $problem;
            $this->error = $this->provisorError(false);
            $this->provisorLog($what, $id, "{$problem->kind()}: {$this->error}");
            return false;
        }
    }

    /** Not the order itself, as the panel's samples do it: it holds the customer's data and passwords. */
    private function provisorLog(string $what, int $id, string $result): void
    {
        self::save_log($this->provisorType(), $this->_name, $what, ['order' => $id], $result, '');
    }

    private function provisorPower(string $action, bool $isForCustomer): bool
    {
        $isDone = $this->provisorAttempt($action, function (Service $service) use ($action, $isForCustomer): void {
            $this->provisorRefuseUnlessActive($isForCustomer);
            $service->power($action);
        });
        return $this->provisorAnswer($isDone, $isForCustomer);
    }

    /** @throws Problem where a customer asks about what WISECP has suspended or ended */
    private function provisorRefuseUnlessActive(bool $isForCustomer): void
    {
        if ($isForCustomer && Read::text($this->provisorOrderRow(), 'status', 'active') !== 'active') {
            throw new Problem('wrong-state', 'The order is not active.', 'none', 0, $this->provisorText('unavailable'));
        }
    }

    /** To a button's script, which shows it. */
    private function provisorAnswer(bool $isDone, bool $isForCustomer): bool
    {
        $message = $isDone ? $this->provisorText('done') : $this->provisorError($isForCustomer);
        echo json_encode(['status' => $isDone ? 'successful' : 'error', 'message' => $message], JSON_HEX_TAG | JSON_PARTIAL_OUTPUT_ON_ERROR);
        return $isDone;
    }

    private function provisorReinstall(bool $isForCustomer): bool
    {
        if (!in_array('reinstall', $this->provisorPage($isForCustomer)['offers'], true)) {
            echo Service::html($this->provisorText('unavailable'));
            return false;
        }
        if (Read::text(Read::named($_POST), 'provisor_sure') !== 'true') {
            echo $this->provisorForm('reinstall', '<label><input type="checkbox" name="provisor_sure" value="true" required> '
                . Service::html($this->provisorText('sure')) . '</label> <button>' . Service::html(Service::label('reinstall')) . '</button>');
            return true;
        }
        return $this->provisorPower('reinstall', $isForCustomer);
    }

    private function provisorPasswordForm(): string
    {
        return $this->provisorForm('change_password', '<input type="password" name="password" required autocomplete="new-password"> <button>'
            . Service::html(Service::label('change-password')) . '</button>');
    }

    private function provisorForm(string $method, string $inputs): string
    {
        // WISECP's own words for "call this method of the module": the one of product modules and the one of server modules.
        return '<form action="' . Service::html((string) $this->area_link) . '" method="post">'
            . '<input type="hidden" name="action" value="use_method"><input type="hidden" name="inc" value="panel_operation_method">'
            . '<input type="hidden" name="method" value="' . $method . "\">$inputs</form>";
    }

    private function provisorSecretPage(string $what, bool $isForCustomer): bool
    {
        $page = '';
        $isDone = $this->provisorAttempt($what, function (Service $service) use ($what, $isForCustomer, &$page): void {
            $this->provisorRefuseUnlessActive($isForCustomer);
            $page = $service->page($what, $isForCustomer);
        });
        if (!headers_sent()) {
            header('Cache-Control: no-store');
        }
        echo $isDone ? $page : Service::html($this->provisorError($isForCustomer));
        return $isDone;
    }

    /**
     * What a page shows; never an exception, so that it appears also without the gateway.
     *
     * @return array{rows: array<string, string>, offers: list<string>, problem: string}
     */
    private function provisorPage(bool $isForCustomer): array
    {
        $page = ['rows' => [], 'offers' => [], 'problem' => ''];
        try {
            $service = $this->provisorService();
            $view = $service->view();
            $page['rows'] = Service::rows($view, $isForCustomer);
            $settings = Read::map(Read::map($this->provisorOrderRow(), 'options'), 'creation_info');
            // Also while the provider has yet to be told of a suspension.
            $isHidden = $isForCustomer && Read::text($this->provisorOrderRow(), 'status', 'active') !== 'active';
            $page['offers'] = $isHidden ? [] : $service->offers($view, $isForCustomer, self::provisorIsOn(Read::text($settings, 'reinstall')));
        } catch (Problem $problem) {
            $this->provisorProblem = $problem;
            $this->provisorSilence = $problem->kind() === 'unreachable' ? $problem : null;
            $page['problem'] = $problem->status() === 404 ? $this->provisorText('not_created') : $this->provisorError($isForCustomer);
        }
        return $page;
    }

    /** @return array<string, array<string, mixed>> */
    private function provisorButtons(bool $isForCustomer): array
    {
        $buttons = [];
        foreach ($this->provisorPage($isForCustomer)['offers'] as $offer) {
            if ($offer === 'sign-on' || $offer === 'access' || $offer === 'reinstall') {
                $name = $offer === 'sign-on' ? 'SingleSignOn' : $offer;
                $buttons[$name] = ['text' => Service::label($offer), 'type' => 'function', 'target_blank' => true];
            } elseif ($offer !== 'change-password') {
                $buttons[$offer] = ['text' => Service::label($offer), 'type' => 'transaction'];
            }
        }
        return $buttons;
    }

    /**
     * @param array<mixed> $options of the order
     * @return array<string, mixed>
     */
    private function provisorOrder(array $options): array
    {
        $settings = Read::map($options, 'creation_info');
        [$profile, $plan] = self::provisorPlan($settings);
        $chosen = self::provisorOptions($settings);
        $known = array_column($this->provisorDescription()->orderFields($profile), 'name');
        foreach ([$this->val_of_requirements ?? [], $this->val_of_conf_opt ?? []] as $answers) {
            foreach (is_array($answers) ? $answers : [] as $name => $value) {
                // Those under other names are the shop's own.
                if (is_scalar($value) && in_array($name, $known, true)) {
                    $chosen[(string) $name] = trim((string) $value);
                }
            }
        }
        $host = Read::text($options, 'hostname');
        return [
            'profile' => $profile,
            'plan' => $plan,
            'term' => Read::text($settings, 'term'),
            'domain' => Read::text($options, 'domain', $chosen['domain'] ?? ''),
            'email' => Read::text(is_array($this->user) ? $this->user : [], 'email'),
            'options' => $chosen + ($host !== '' && in_array('hostname', $known, true) ? ['hostname' => $host] : []),
        ];
    }

    /**
     * All plans of all profiles, the chosen profile's fields, and why there are none.
     *
     * @param array<mixed> $data
     * @return array{array<string, string>, list<array<string, mixed>>, string}
     */
    private function provisorChoices(array $data): array
    {
        [$plans, $fields] = [[], []];
        try {
            $gateway = $this->provisorGateway();
            $description = new Description($gateway->describe('wisecp'));
            $fields = $description->orderFields(self::provisorPlan($data)[0]);
            foreach ($description->profiles() as $profile => $provider) {
                foreach (Read::maps($gateway->catalog($profile), 'plans') as $plan) {
                    $name = Read::text($plan, 'name', Read::text($plan, 'id'));
                    $plans["$profile|" . Read::text($plan, 'id')] = Service::caption("$profile ($provider): $name");
                }
            }
        } catch (Problem $problem) {
            $this->provisorSilence = $problem->kind() === 'unreachable' ? $problem : null;
            return [$plans, $fields, Service::plain($problem->staffText())];
        }
        return [$plans, $fields, ''];
    }

    /**
     * @param array<mixed> $settings
     * @return array{string, string} profile and plan
     */
    private static function provisorPlan(array $settings): array
    {
        $parts = explode('|', Read::text($settings, 'plan') . '|', 3);
        return [$parts[0], $parts[1] ?? ''];
    }

    /**
     * @param array<mixed> $settings
     * @return array<string, string>
     */
    private static function provisorOptions(array $settings): array
    {
        $options = [];
        foreach ($settings as $name => $value) {
            if (strncmp((string) $name, 'option_', 7) === 0 && is_scalar($value) && trim((string) $value) !== '') {
                $options[(string) substr((string) $name, 7)] = trim((string) $value);
            }
        }
        return $options;
    }

    /**
     * @param mixed $data JSON, or what it says
     * @return array<string, mixed>
     */
    private static function provisorDecoded($data): array
    {
        return Read::named(is_string($data) ? json_decode($data, true) : $data);
    }

    private static function provisorIsOn(string $value): bool
    {
        return in_array($value, ['1', 'true', 'on'], true);
    }

    /** @return array<string, mixed> */
    private function provisorOrderRow(): array
    {
        return Read::named($this->order ?? []);
    }

    /** @throws Problem */
    private function provisorService(): Service
    {
        $id = (int) Read::text($this->provisorOrderRow(), 'id');
        if ($id <= 0) {
            throw new Problem('invalid', 'WISECP gave no order.');
        }
        $product = Read::map(Read::map($this->provisorOrderRow(), 'options'), 'creation_info');
        $wait = trim(Read::text($product, 'wait'));
        $wait = $wait !== '' ? $wait : $this->provisorSettings()['wait'];
        return new Service($this->provisorGateway(), "order-$id", 'wisecp', $wait !== '' ? (int) $wait : Service::WAIT_DEFAULT);
    }

    /** @throws Problem */
    private function provisorGateway(): Gateway
    {
        if ($this->provisorSilence !== null) {
            throw $this->provisorSilence;
        }
        return new Gateway(trim($this->provisorSettings()['address']), trim($this->provisorSettings()['token']));
    }

    /** @throws Problem */
    private function provisorDescription(): Description
    {
        return new Description($this->provisorGateway()->describe('wisecp'));
    }

    private function provisorText(string $name): string
    {
        return Read::text(is_array($this->lang) ? $this->lang : [], $name, $name);
    }
}
