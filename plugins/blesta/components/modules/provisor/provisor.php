<?php

declare(strict_types=1);

use Provisor\Description;
use Provisor\Gateway;
use Provisor\Problem;
use Provisor\Read;
use Provisor\Service;

require_once __DIR__ . '/load.php';

/**
 * Blesta calls what stands below, and takes it for done unless Input has errors afterwards.
 *
 * Blesta does not say which service it adds. So a service gets a name of its own, `provisor_key`, that no customer can choose: when it
 * is recorded as pending, and Blesta hands it back with the service's other fields when it is to be made; or in the staff's form, so that sending the
 * form again is no second service.
 */
class Provisor extends Module
{
    /** The customer's own answers that are asked for where the package does not say which. */
    private const CUSTOMER_FIELDS = 'domain,hostname';
    /** In a package's settings, the provider's options begin with this. */
    private const OPTION_PREFIX = 'option_';
    private const KEY = 'provisor_key';
    private const KEY_FORM = '/^blesta-[0-9a-f]{32}$/D';

    public function __construct()
    {
        Loader::loadComponents($this, ['Input']);
        Language::loadLang('provisor', null, __DIR__ . DS . 'language' . DS);
        $this->loadConfig(__DIR__ . DS . 'config.json');
    }

    /** @return array<string, string> */
    public function getGroupOrderOptions()
    {
        return ['first' => self::text('order_options.first')];
    }

    /**
     * @param int $module_group_id
     * @return int
     */
    public function selectModuleRow($module_group_id)
    {
        Loader::loadModels($this, ['ModuleManager']);
        $group = Read::named((array) $this->ModuleManager->getGroup($module_group_id));
        $rows = (array) ($group['rows'] ?? []);
        return (int) Read::text(Read::named((array) reset($rows)), 'id');
    }

    /**
     * @param stdClass     $module
     * @param array<mixed> $vars
     * @return string
     */
    public function manageModule($module, array &$vars)
    {
        return $this->render('manage', ['module' => $module], ['Form', 'Html', 'Widget']);
    }

    /**
     * @param array<mixed> $vars
     * @return string
     */
    public function manageAddRow(array &$vars)
    {
        return $this->render('row', ['vars' => (object) $vars, 'title' => self::text('add_row')], ['Form', 'Html', 'Widget']);
    }

    /**
     * @param stdClass     $module_row
     * @param array<mixed> $vars
     * @return string
     */
    public function manageEditRow($module_row, array &$vars)
    {
        $shown = $vars === [] ? (object) (array) ($module_row->meta ?? []) : (object) $vars;
        return $this->render('row', ['vars' => $shown, 'title' => self::text('edit_row')], ['Form', 'Html', 'Widget']);
    }

    /**
     * A row is a gateway with a token: stored once both were seen to work.
     *
     * @param array<mixed> $vars
     * @return ?list<array{key: string, value: string, encrypted: int}>
     */
    public function addModuleRow(array &$vars)
    {
        try {
            $gateway = new Gateway(trim(Read::text($vars, 'address')), trim(Read::text($vars, 'token')));
            if ($gateway->profiles() === []) {
                throw new Problem('unauthorized', self::text('!error.no_profile'));
            }
        } catch (Problem $problem) {
            $this->fail($problem);
            return null;
        }
        $name = trim(Read::text($vars, 'server_name'));
        return [
            self::meta('server_name', $name !== '' ? $name : 'Provisor'),
            self::meta('address', trim(Read::text($vars, 'address'))),
            self::meta('token', trim(Read::text($vars, 'token')), 1),
            self::meta('wait', (string) max(0, min(110, (int) Read::text($vars, 'wait', (string) Service::WAIT_DEFAULT)))),
        ];
    }

    /**
     * @param stdClass     $module_row
     * @param array<mixed> $vars
     * @return ?list<array{key: string, value: string, encrypted: int}>
     */
    public function editModuleRow($module_row, array &$vars)
    {
        return $this->addModuleRow($vars);
    }

    /**
     * @param ?stdClass $vars
     * @return ModuleFields
     */
    public function getPackageFields($vars = null)
    {
        $fields = new ModuleFields();
        $fields->setHtml("<script>$(document).ready(function () { $('#provisor_profile').change(function () { fetchModuleOptions(); }); });</script>");
        $meta = Read::named((array) ($vars->meta ?? []));
        $profile = Read::text($meta, 'profile');
        $this->useRowOf((object) ($vars ?? []));
        [$profiles, $plans, $inputs] = $this->choices($profile);
        self::field($fields, 'meta[profile]', self::text('package.profile'), $profile, $profiles, 'provisor_profile');
        self::field($fields, 'meta[plan]', self::text('package.plan'), Read::text($meta, 'plan'), $plans);
        self::field($fields, 'meta[term]', self::text('package.term'), Read::text($meta, 'term'));
        foreach ($inputs as $input) {
            $name = self::OPTION_PREFIX . Read::text($input, 'name');
            if (!in_array(Read::text($input, 'name'), ['domain', 'email', 'password'], true)) {
                $value = Read::text($meta, $name, Read::text($input, 'default'));
                self::field($fields, "meta[$name]", Read::text($input, 'label', $name), $value, self::inputChoices($input));
            }
        }
        $asked = Read::text($meta, 'customer_fields', self::CUSTOMER_FIELDS);
        self::field($fields, 'meta[customer_fields]', self::text('package.customer_fields'), $asked);
        $answers = ['0' => self::text('no'), '1' => self::text('yes')];
        self::field($fields, 'meta[reinstall]', self::text('package.reinstall'), Read::text($meta, 'reinstall', '0'), $answers);
        return $fields;
    }

    /**
     * @param ?array<mixed> $vars
     * @return list<array{key: string, value: string, encrypted: int}>
     */
    public function addPackage(?array $vars = null)
    {
        $given = Read::map($vars ?? [], 'meta');
        foreach (['profile', 'plan'] as $name) {
            if (trim(Read::text($given, $name)) === '') {
                $this->Input->setErrors([$name => ['empty' => self::text("!error.$name")]]);
                return [];
            }
        }
        $meta = [];
        foreach ($given as $key => $value) {
            if (is_scalar($value)) {
                $meta[] = self::meta($key, trim((string) $value));
            }
        }
        return $meta;
    }

    /**
     * @param stdClass      $package
     * @param ?array<mixed> $vars
     * @return list<array{key: string, value: string, encrypted: int}>
     */
    public function editPackage($package, ?array $vars = null)
    {
        return $this->addPackage($vars);
    }

    /**
     * @param stdClass  $package
     * @param ?stdClass $vars
     * @return ModuleFields
     */
    public function getAdminAddFields($package, $vars = null)
    {
        $fields = $this->serviceFields($package, $vars);
        $given = Read::named((array) ($vars ?? []));
        $key = preg_match(self::KEY_FORM, Read::text($given, self::KEY)) === 1 ? Read::text($given, self::KEY) : self::newKey();
        $fields->setField($fields->fieldHidden(self::KEY, $key));
        self::field($fields, 'provisor_import', self::text('service.import'), Read::text($given, 'provisor_import'));
        return $fields;
    }

    /**
     * @param stdClass  $package
     * @param ?stdClass $vars
     * @return ModuleFields
     */
    public function getClientAddFields($package, $vars = null)
    {
        return $this->serviceFields($package, $vars);
    }

    /**
     * @param stdClass  $package
     * @param ?stdClass $vars
     * @return ModuleFields
     */
    public function getAdminEditFields($package, $vars = null)
    {
        $fields = new ModuleFields();
        $password = $fields->label(self::text('service.new_password'), 'provisor_password');
        $password->attach($fields->fieldPassword('provisor_password', ['id' => 'provisor_password', 'autocomplete' => 'new-password']));
        $fields->setField($password);
        return $fields;
    }

    /**
     * @param stdClass  $package
     * @param ?stdClass $vars
     * @return ModuleFields
     */
    public function getClientEditFields($package, $vars = null)
    {
        return new ModuleFields();
    }

    /**
     * @param stdClass      $package
     * @param ?array<mixed> $vars
     * @return bool
     */
    public function validateService($package, ?array $vars = null)
    {
        foreach (['domain', 'hostname'] as $name) {
            $value = Read::text($vars ?? [], $name);
            if ($value !== '' && preg_match('/^[^\s\/:@<>"\'.][^\s\/:@<>"\']{0,251}\.[^\s\/:@<>"\'.]{2,63}$/Du', $value) !== 1) {
                $this->Input->setErrors([$name => ['format' => self::text("!error.$name")]]);
                return false;
            }
        }
        return true;
    }

    /**
     * @param stdClass      $service
     * @param ?array<mixed> $vars
     * @return bool
     */
    public function validateServiceEdit($service, ?array $vars = null)
    {
        return $this->validateService(new stdClass(), $vars);
    }

    /**
     * @param stdClass      $package
     * @param ?array<mixed> $vars
     * @param ?stdClass     $parent_package
     * @param ?stdClass     $parent_service
     * @param string        $status
     * @return ?list<array{key: string, value: string, encrypted: int}> what is stored with the service
     */
    public function addService($package, ?array $vars = null, $parent_package = null, $parent_service = null, $status = 'pending')
    {
        $vars = $vars ?? [];
        if (!$this->validateService($package, $vars)) {
            return null;
        }
        $settings = self::settings($package);
        if (Read::text($vars, 'use_module') !== 'true') {
            // A key that came with a customer's order would be the customer's choice.
            return $this->stored(self::newKey(), $settings, $vars, []);
        }
        $this->useRowOf($package);
        $key = $this->keyToAdd($vars);
        $import = trim(Read::text($vars, 'provisor_import'));
        $made = $this->attempt($key, 'create', function (Service $service) use ($settings, $vars, $import): array {
            return $import !== '' ? $service->adopt(Read::text($settings, 'profile'), $import) : $service->create($this->order($settings, $vars));
        });
        return $made === null ? null : $this->stored($key, $settings, $vars, $made);
    }

    /**
     * Another password, or other options; what is not of the provider's is Blesta's own business.
     *
     * @param stdClass      $package
     * @param stdClass      $service
     * @param ?array<mixed> $vars
     * @param ?stdClass     $parent_package
     * @param ?stdClass     $parent_service
     * @return ?list<array{key: string, value: string, encrypted: int}>
     */
    public function editService($package, $service, ?array $vars = null, $parent_package = null, $parent_service = null)
    {
        $vars = $vars ?? [];
        if (!$this->validateServiceEdit($service, $vars)) {
            return null;
        }
        if (Read::text($vars, 'use_module') === 'true') {
            $this->useRowOf($package);
            $password = Read::text($vars, 'provisor_password');
            $options = $this->changedOptions($service, $vars);
            $this->attempt($this->keyOf($service), 'edit', static function (Service $remote) use ($password, $options, $package): array {
                if ($password !== '') {
                    $remote->resetPassword($password);
                }
                return $options === [] ? [] : $remote->changePackage(Read::text(self::settings($package), 'plan'), $options);
            });
        }
        return null;
    }

    /**
     * @param stdClass  $package
     * @param stdClass  $service
     * @param ?stdClass $parent_package
     * @param ?stdClass $parent_service
     * @return null
     */
    public function suspendService($package, $service, $parent_package = null, $parent_service = null)
    {
        return $this->perform($package, $service, 'suspend', static function (Service $remote) use ($service): void {
            $remote->suspend(is_scalar($service->suspension_reason ?? null) ? (string) $service->suspension_reason : null);
        });
    }

    /**
     * @param stdClass  $package
     * @param stdClass  $service
     * @param ?stdClass $parent_package
     * @param ?stdClass $parent_service
     * @return null
     */
    public function unsuspendService($package, $service, $parent_package = null, $parent_service = null)
    {
        return $this->perform($package, $service, 'unsuspend', static function (Service $remote): void {
            $remote->unsuspend();
        });
    }

    /**
     * @param stdClass  $package
     * @param stdClass  $service
     * @param ?stdClass $parent_package
     * @param ?stdClass $parent_service
     * @return null
     */
    public function cancelService($package, $service, $parent_package = null, $parent_service = null)
    {
        return $this->perform($package, $service, 'terminate', static function (Service $remote): void {
            $remote->terminate();
        });
    }

    /**
     * `date_renews` moves on when Blesta writes a renewal invoice, and not when that is paid: until the next invoice it names the term
     * that was paid, however often Blesta repeats the call.
     *
     * @param stdClass  $package
     * @param stdClass  $service
     * @param ?stdClass $parent_package
     * @param ?stdClass $parent_service
     * @return null
     */
    public function renewService($package, $service, $parent_package = null, $parent_service = null)
    {
        return $this->perform($package, $service, 'renew', static function (Service $remote) use ($service): void {
            $remote->renew((string) substr(is_scalar($service->date_renews ?? null) ? (string) $service->date_renews : '', 0, 10));
        });
    }

    /**
     * @param stdClass  $package_from
     * @param stdClass  $package_to
     * @param stdClass  $service
     * @param ?stdClass $parent_package
     * @param ?stdClass $parent_service
     * @return null
     */
    public function changeServicePackage($package_from, $package_to, $service, $parent_package = null, $parent_service = null)
    {
        return $this->perform($package_from, $service, 'change-package', static function (Service $remote) use ($package_to): void {
            $remote->changePackage(Read::text(self::settings($package_to), 'plan'), self::options(self::settings($package_to)));
        });
    }

    /**
     * @param stdClass $service
     * @return string
     */
    public function getServiceName($service)
    {
        $fields = self::fieldsOf($service);
        return Read::text($fields, 'provisor_name', Read::text($fields, 'domain'));
    }

    /**
     * @param stdClass $package
     * @return array<string, string>
     */
    public function getAdminTabs($package)
    {
        return ['tabService' => self::text('tab')];
    }

    /**
     * @param stdClass $package
     * @return array<string, string>
     */
    public function getClientTabs($package)
    {
        return ['tabClientService' => self::text('tab')];
    }

    /**
     * @param stdClass      $package
     * @param stdClass      $service
     * @param ?array<mixed> $get
     * @param ?array<mixed> $post
     * @param ?array<mixed> $files
     * @return string
     */
    public function tabService($package, $service, ?array $get = null, ?array $post = null, ?array $files = null)
    {
        return $this->tab($package, $service, $post ?? [], false);
    }

    /**
     * @param stdClass      $package
     * @param stdClass      $service
     * @param ?array<mixed> $get
     * @param ?array<mixed> $post
     * @param ?array<mixed> $files
     * @return string
     */
    public function tabClientService($package, $service, ?array $get = null, ?array $post = null, ?array $files = null)
    {
        return $this->tab($package, $service, $post ?? [], true);
    }

    /**
     * @param stdClass $service
     * @param stdClass $package
     * @return string
     */
    public function getAdminServiceInfo($service, $package)
    {
        return $this->serviceInfo($service);
    }

    /**
     * @param stdClass $service
     * @param stdClass $package
     * @return string
     */
    public function getClientServiceInfo($service, $package)
    {
        return $this->serviceInfo($service);
    }

    /**
     * What was stored, without asking the gateway: lists of services show it for each.
     *
     * @param stdClass $service
     */
    private function serviceInfo($service): string
    {
        $fields = self::fieldsOf($service);
        $html = '';
        foreach (['provisor_name', 'provisor_addresses'] as $name) {
            if (Read::text($fields, $name) !== '') {
                $html .= '<li>' . Service::html(self::text("service.$name") . ': ' . Read::text($fields, $name)) . '</li>';
            }
        }
        return "<ul>$html</ul>";
    }

    /**
     * @param stdClass     $package
     * @param stdClass     $service
     * @param array<mixed> $post
     */
    private function tab($package, $service, array $post, bool $isForCustomer): string
    {
        $this->useRowOf($package);
        $shown = ['rows' => [], 'offers' => [], 'html' => '', 'message' => '', 'isForCustomer' => $isForCustomer];
        try {
            $remote = $this->remote($this->keyOf($service));
            $view = $remote->view();
            $mayReinstall = Read::text(self::settings($package), 'reinstall') === '1';
            // What Blesta has suspended is no customer's to use, also while the provider has yet to be told.
            $isHidden = $isForCustomer && ($service->status ?? 'active') !== 'active';
            $shown['offers'] = $isHidden ? [] : $remote->offers($view, $isForCustomer, $mayReinstall);
            $shown = $this->act($remote, $post, $isForCustomer, $shown);
            $shown['rows'] = Service::rows($view, $isForCustomer);
        } catch (Problem $problem) {
            $this->note('tab', '', $problem);
            $text = $problem->status() === 404 ? self::text('not_created') : self::problem($problem, $isForCustomer);
            $this->Input->setErrors(['provisor' => ['failed' => $text]]);
            $shown['message'] = $text;
        }
        return $this->render('tab', $shown, ['Form', 'Html']);
    }

    /**
     * What the reader asked for with a button of the tab.
     *
     * @param array<mixed>                                                                                           $post
     * @param array{rows: array<string, string>, offers: list<string>, html: string, message: string, isForCustomer: bool} $shown
     * @return array{rows: array<string, string>, offers: list<string>, html: string, message: string, isForCustomer: bool}
     * @throws Problem
     */
    private function act(Service $remote, array $post, bool $isForCustomer, array $shown): array
    {
        $action = Read::text($post, 'provisor_action');
        if ($action === '') {
            return $shown;
        }
        if (!in_array($action, $shown['offers'], true) || ($action === 'reinstall' && Read::text($post, 'provisor_sure') !== 'true')) {
            throw new Problem('unsupported', self::text('!error.action'), 'none', 0, self::text('!error.action'));
        }
        if ($action === 'access') {
            $shown['html'] = $remote->accessTable($isForCustomer);
        } elseif ($action === 'sign-on') {
            $shown['html'] = $remote->signOnForm($isForCustomer);
        } elseif ($action === 'change-password') {
            $password = Read::text($post, 'provisor_password');
            if ($password === '') {
                throw new Problem('invalid', self::text('!error.password'), 'none', 0, self::text('!error.password'), 'password');
            }
            $remote->resetPassword($password);
            $shown['message'] = self::text('done');
        } else {
            $remote->power($action);
            $shown['message'] = self::text('done');
        }
        $this->note($action, 'done', null);
        return $shown;
    }

    /**
     * @param stdClass                $package
     * @param stdClass                $service
     * @param callable(Service): void $change
     * @return null
     */
    private function perform($package, $service, string $what, callable $change)
    {
        $this->useRowOf($package);
        $this->attempt($this->keyOf($service), $what, static function (Service $remote) use ($change): array {
            $change($remote);
            return [];
        });
        return null;
    }

    /**
     * Does it, writes down that it was done or why not, and tells a failure in Blesta's way.
     *
     * @param callable(Service): array<string, mixed> $change
     * @return ?array<string, mixed> null after a failure
     */
    private function attempt(string $key, string $what, callable $change): ?array
    {
        try {
            $result = $change($this->remote($key));
            $this->note($what, $key, null);
            return $result;
        } catch (Problem $problem) {
            $this->note($what, $key, $problem);
            $this->fail($problem);
            return null;
        }
    }

    private function fail(Problem $problem): void
    {
        $field = $problem->field() ?? 'provisor';
        $this->Input->setErrors([$field => ['failed' => self::problem($problem, false)]]);
    }

    /** To Blesta's module log, which shows what it is given: nothing secret is. */
    private function note(string $what, string $key, ?Problem $problem): void
    {
        $this->log("provisor|$what", (string) json_encode(['key' => $key]), 'input', true);
        $result = $problem === null ? ['result' => 'done'] : ['kind' => $problem->kind(), 'message' => Service::plain($problem->staffText())];
        $this->log("provisor|$what", (string) json_encode($result, JSON_UNESCAPED_UNICODE | JSON_PARTIAL_OUTPUT_ON_ERROR), 'output', $problem === null);
    }

    private static function problem(Problem $problem, bool $isForCustomer): string
    {
        return Service::plain($isForCustomer ? $problem->customerText(self::text('neutral')) : $problem->staffText());
    }

    /**
     * @param array<string, mixed> $settings
     * @param array<mixed>         $vars
     * @return array<string, mixed>
     */
    private function order(array $settings, array $vars): array
    {
        $options = self::options($settings);
        foreach (self::customerFields($settings) as $name) {
            $options[$name] = trim(Read::text($vars, $name));
        }
        $known = array_column($this->description()->orderFields(Read::text($settings, 'profile')), 'name');
        foreach (Read::map($vars, 'configoptions') as $name => $value) {
            // Configurable options under other names are the shop's own.
            if (in_array($name, $known, true) && is_scalar($value)) {
                $options[$name] = (string) $value;
            }
        }
        return [
            'profile' => Read::text($settings, 'profile'),
            'plan' => Read::text($settings, 'plan'),
            'term' => Read::text($settings, 'term'),
            'domain' => Read::text($vars, 'domain'),
            'email' => $this->email((int) Read::text($vars, 'client_id')),
            'password' => Read::text($vars, 'provisor_password'),
            'options' => $options,
        ];
    }

    private function email(int $client): string
    {
        Loader::loadModels($this, ['Clients']);
        $found = $client > 0 ? $this->Clients->get($client, false) : null;
        return is_object($found) ? Read::text(get_object_vars($found), 'email') : '';
    }

    /**
     * Configurable options that are the provider's and have another value than the service has.
     *
     * @param stdClass     $service
     * @param array<mixed> $vars
     * @return array<string, string>
     */
    private function changedOptions($service, array $vars): array
    {
        $had = [];
        foreach ((array) ($service->options ?? []) as $option) {
            $option = Read::named((array) $option);
            $had[Read::text($option, 'option_name')] = Read::text($option, 'option_value', Read::text($option, 'qty'));
        }
        $changed = [];
        foreach (Read::map($vars, 'configoptions') as $name => $value) {
            if (is_scalar($value) && ($had[$name] ?? null) !== (string) $value) {
                $changed[$name] = (string) $value;
            }
        }
        if ($changed === []) {
            return [];
        }
        $profile = Read::text(self::fieldsOf($service), 'provisor_profile');
        try {
            $known = array_column($this->description()->orderFields($profile), 'name');
        } catch (Problem $problem) {
            // Asked again, and told, when the change is made.
            return $changed;
        }
        return array_intersect_key($changed, array_flip(array_filter($known, 'is_string')));
    }

    /**
     * @param array<string, mixed> $settings
     * @param array<mixed>         $vars
     * @param array<string, mixed> $made
     * @return list<array{key: string, value: string, encrypted: int}>
     */
    private function stored(string $key, array $settings, array $vars, array $made): array
    {
        $asked = Read::text($vars, 'domain', Read::text($vars, 'hostname'));
        $meta = [
            self::meta(self::KEY, $key),
            self::meta('provisor_name', Read::text($made, 'domain', $asked !== '' ? $asked : Read::text($made, 'remote_id'))),
            self::meta('provisor_id', Read::text($made, 'remote_id')),
            self::meta('provisor_profile', Read::text($made, 'profile', Read::text($settings, 'profile'))),
            self::meta('provisor_addresses', implode(', ', Read::texts($made, 'addresses'))),
        ];
        foreach (self::customerFields($settings) as $name) {
            $meta[] = self::meta($name, trim(Read::text($vars, $name)));
        }
        return $meta;
    }

    /**
     * @param array<mixed> $vars
     * @throws Problem
     */
    private function keyToAdd(array $vars): string
    {
        $key = Read::text($vars, self::KEY);
        if (preg_match(self::KEY_FORM, $key) === 1) {
            return $key;
        }
        $id = (int) Read::text($vars, 'service_id');
        return $id > 0 ? "service-$id" : self::newKey();
    }

    /** @param stdClass $service */
    private function keyOf($service): string
    {
        $key = Read::text(self::fieldsOf($service), self::KEY);
        return preg_match(self::KEY_FORM, $key) === 1 ? $key : 'service-' . (int) Read::text(get_object_vars($service), 'id');
    }

    private static function newKey(): string
    {
        return 'blesta-' . bin2hex(random_bytes(16));
    }

    /**
     * @param stdClass $service
     * @return array<string, mixed>
     */
    private static function fieldsOf($service): array
    {
        $fields = [];
        foreach ((array) ($service->fields ?? []) as $field) {
            $field = Read::named((array) $field);
            $fields[Read::text($field, 'key')] = $field['value'] ?? null;
        }
        return $fields;
    }

    /**
     * @param stdClass $package
     * @return array<string, mixed>
     */
    private static function settings($package): array
    {
        return Read::named((array) ($package->meta ?? []));
    }

    /**
     * @param array<string, mixed> $settings
     * @return array<string, string>
     */
    private static function options(array $settings): array
    {
        $options = [];
        foreach ($settings as $name => $value) {
            if (strncmp($name, self::OPTION_PREFIX, strlen(self::OPTION_PREFIX)) === 0 && is_scalar($value)) {
                $options[(string) substr($name, strlen(self::OPTION_PREFIX))] = trim((string) $value);
            }
        }
        return $options;
    }

    /**
     * @param array<string, mixed> $settings
     * @return list<string>
     */
    private static function customerFields(array $settings): array
    {
        $names = array_map('trim', explode(',', Read::text($settings, 'customer_fields', self::CUSTOMER_FIELDS)));
        return array_values(array_filter($names, static function (string $name): bool {
            // None of our own fields can be one.
            return $name !== '' && strncmp($name, 'provisor_', 9) !== 0;
        }));
    }

    /**
     * @param stdClass  $package
     * @param ?stdClass $vars
     */
    private function serviceFields($package, $vars): ModuleFields
    {
        $this->useRowOf($package);
        $fields = new ModuleFields();
        $given = Read::named((array) ($vars ?? []));
        $settings = self::settings($package);
        [, , $inputs] = $this->choices(Read::text($settings, 'profile'));
        $labels = array_column($inputs, null, 'name');
        foreach (self::customerFields($settings) as $name) {
            if (isset($labels[$name])) {
                $label = Read::text($labels[$name], 'label', $name);
                self::field($fields, $name, $label, Read::text($given, $name), self::inputChoices($labels[$name]));
            }
        }
        return $fields;
    }

    /**
     * What the gateway lets choose: empty lists where it does not answer, and then a text may be typed.
     *
     * @return array{array<string, string>, array<string, string>, list<array<string, mixed>>} profiles, plans, inputs
     */
    private function choices(string $profile): array
    {
        [$profiles, $plans, $inputs] = [[], [], []];
        try {
            $description = $this->description();
            foreach ($description->profiles() as $name => $provider) {
                $profiles[$name] = Service::caption("$name ($provider)");
            }
            $inputs = $description->orderFields($profile);
            foreach ($profile === '' ? [] : Read::maps($this->gateway()->catalog($profile), 'plans') as $plan) {
                $plans[Read::text($plan, 'id')] = Service::caption(Read::text($plan, 'name', Read::text($plan, 'id')));
            }
        } catch (Problem $problem) {
            $this->note('choices', '', $problem);
        }
        return [$profiles, $plans, $inputs];
    }

    /**
     * @param array<string, mixed> $input
     * @return array<string, string>
     */
    private static function inputChoices(array $input): array
    {
        $choices = [];
        foreach (Read::maps($input, 'choices') as $choice) {
            $choices[Read::text($choice, 'value')] = Service::caption(Read::text($choice, 'label', Read::text($choice, 'value')));
        }
        return $choices;
    }

    /** @param array<string> $choices */
    private static function field(ModuleFields $fields, string $name, string $label, string $value, array $choices = [], string $id = ''): void
    {
        $id = $id !== '' ? $id : 'provisor_' . preg_replace('/[^a-z0-9]+/i', '_', $name);
        $field = $fields->label(Service::caption($label), $id);
        if ($choices === []) {
            $field->attach($fields->fieldText($name, $value, ['id' => $id]));
        } else {
            // What was chosen stays to be seen, also when it is sold no longer.
            $choices += $value === '' ? [] : [$value => $value];
            $field->attach($fields->fieldSelect($name, ['' => '–'] + $choices, $value, ['id' => $id]));
        }
        $fields->setField($field);
    }

    /** @param stdClass $package or what a form says of one */
    private function useRowOf($package): void
    {
        $values = get_object_vars($package);
        $this->useRow((int) Read::text($values, 'module_row'), Read::text($values, 'module_group'));
    }

    private function useRow(int $row, string $group): void
    {
        if ($row <= 0 && $group !== '') {
            $row = $this->selectModuleRow((int) $group);
        }
        $found = $row > 0 ? $this->getModuleRow($row) : ($this->getModuleRows()[0] ?? null);
        if (is_object($found)) {
            $this->setModuleRow($found);
        }
    }

    /** @throws Problem */
    private function remote(string $key): Service
    {
        return new Service($this->gateway(), $key, 'blesta', (int) Read::text($this->row(), 'wait', (string) Service::WAIT_DEFAULT));
    }

    /** @throws Problem */
    private function gateway(): Gateway
    {
        return new Gateway(Read::text($this->row(), 'address'), Read::text($this->row(), 'token'));
    }

    /** @throws Problem */
    private function description(): Description
    {
        return new Description($this->gateway()->describe('blesta'));
    }

    /**
     * @return array<string, mixed>
     * @throws Problem
     */
    private function row(): array
    {
        $row = $this->getModuleRow();
        if (!is_object($row)) {
            throw new Problem('invalid', self::text('!error.module_row'));
        }
        return Read::named((array) ($row->meta ?? []));
    }

    /**
     * @param array<string, mixed> $values
     * @param list<string>         $helpers
     */
    private function render(string $name, array $values, array $helpers): string
    {
        $this->view = new View($name, 'default');
        $this->view->base_uri = $this->base_uri;
        $this->view->setDefaultView('components' . DS . 'modules' . DS . 'provisor' . DS);
        Loader::loadHelpers($this, $helpers);
        foreach ($values as $key => $value) {
            $this->view->set($key, $value);
        }
        return (string) $this->view->fetch();
    }

    /** @return array{key: string, value: string, encrypted: int} */
    private static function meta(string $key, string $value, int $encrypted = 0): array
    {
        return ['key' => $key, 'value' => $value, 'encrypted' => $encrypted];
    }

    private static function text(string $name): string
    {
        $text = Language::_("Provisor.$name", true);
        return is_string($text) ? $text : $name;
    }
}
