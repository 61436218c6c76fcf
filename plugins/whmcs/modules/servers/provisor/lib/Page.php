<?php

declare(strict_types=1);

namespace WHMCS\Module\Server\Provisor;

use Provisor\Description;
use Provisor\Problem;
use Provisor\Read;

/** What pages show of a service. Asked at most once in a request, and never a reason for a page not to appear. */
final class Page
{
    /** @var array<string, Problem> gateways that did not answer in this request, by address: nobody waits for them twice */
    private static array $silent = [];

    /** @var array<mixed> */
    private array $params;
    private Account $account;
    /** @var array<string, mixed> */
    private array $service = [];
    private ?Description $description = null;
    private ?Problem $problem = null;

    /** @param array<mixed> $params of a module function */
    public function __construct(array $params)
    {
        $this->params = $params;
        $this->account = new Account($params);
        $server = Read::text($params, 'serverhostname') . '|' . Read::text($params, 'serverip') . '|' . Read::text($params, 'serverport');
        if (isset(self::$silent[$server])) {
            $this->problem = self::$silent[$server];
            return;
        }
        try {
            $this->description = Server::description($params);
            $this->service = Server::gateway($params)->service($this->account->key());
        } catch (Problem $problem) {
            $this->problem = $problem;
            if ($problem->status() === 0 && $problem->kind() === 'unreachable') {
                self::$silent[$server] = $problem;
            }
        }
    }

    /** @return array<string, mixed> empty if the gateway has none, or does not answer */
    public function service(): array
    {
        return $this->service;
    }

    public function isUnknown(): bool
    {
        return $this->problem !== null && $this->problem->status() === 404;
    }

    /** Why there is nothing to show; empty where there is. */
    public function problem(): string
    {
        if ($this->problem === null) {
            return '';
        }
        return $this->isUnknown() ? Texts::get('not_created') : Texts::problem($this->problem);
    }

    /**
     * The power actions that staff, or the customer, may be shown.
     *
     * @return list<string>
     */
    public function actions(): array
    {
        $profile = Read::text($this->service, 'profile', $this->account->profile());
        if ($this->description === null || !$this->description->can($profile, 'power')) {
            return [];
        }
        if (!Texts::isForCustomer()) {
            return Description::POWER_ACTIONS;
        }
        if (!$this->account->isActive()) {
            return [];
        }
        return $this->account->mayCustomerReinstall() ? Description::POWER_ACTIONS : ['start', 'stop', 'reboot'];
    }

    /**
     * Buttons for these actions: label and function.
     *
     * @return array<string, string>
     */
    public function buttons(): array
    {
        $buttons = [];
        foreach ($this->actions() as $action) {
            $buttons[Texts::get($action)] = $action;
        }
        return $buttons;
    }

    /**
     * All buttons of the customer's page.
     *
     * @return array<string, string>
     */
    public function customersButtons(): array
    {
        $buttons = $this->buttons();
        if ($this->can('credentials') && $this->account->isActive()) {
            $buttons[Texts::get('access')] = 'access';
        }
        return $buttons + [Texts::get('refresh') => 'refresh'];
    }

    /**
     * A page of its own in the client area, from one of our templates.
     *
     * @param array<mixed>         $params
     * @param array<string, mixed> $vars
     * @return array<string, mixed>
     */
    public static function custom(string $name, array $params, array $vars): array
    {
        $id = (int) Read::text($params, 'serviceid');
        return [
            'templatefile' => "templates/$name",
            'breadcrumb' => ["clientarea.php?action=productdetails&id=$id&modop=custom&a=$name" => Texts::get($name)],
            'vars' => ['provisor' => $vars + ['texts' => Texts::all(), 'serviceid' => $id]],
        ];
    }

    public function can(string $operation): bool
    {
        $profile = Read::text($this->service, 'profile', $this->account->profile());
        return $this->description !== null && $this->description->can($profile, $operation);
    }

    /**
     * The logins of `sign-on`, the first of which is taken.
     *
     * @return list<string>
     */
    public function targets(): array
    {
        $profile = Read::text($this->service, 'profile', $this->account->profile());
        return $this->description === null ? [] : $this->description->signOnTargets($profile, true);
    }

    /**
     * The staff's view: label and text, both without markup.
     *
     * @return array<string, string>
     */
    public function rows(): array
    {
        if ($this->service === []) {
            return [Texts::get('state') => $this->problem()];
        }
        $drift = Read::map($this->service, 'drift');
        $since = Read::text($drift, 'since');
        return [
            Texts::get('state') => Texts::state(Read::text($this->service, 'state')),
            Texts::get('drift') => $drift === [] ? Texts::get('none') : trim(Read::text($drift, 'kind') . " ($since)"),
            Texts::get('last_operation') => $this->lastOperation(),
            Texts::get('due') => Read::text($this->service, 'due_at', '–'),
            Texts::get('remote_id') => Read::text($this->service, 'profile') . ': ' . Read::text($this->service, 'remote_id', '–'),
            Texts::get('checked') => Read::text($this->service, 'checked_at', '–'),
        ];
    }

    private function lastOperation(): string
    {
        try {
            $page = Server::gateway($this->params)->operations(['service' => $this->account->key(), 'limit' => 1]);
        } catch (Problem $problem) {
            return Texts::problem($problem);
        }
        $operation = Read::maps($page, 'operations')[0] ?? [];
        if ($operation === []) {
            return '–';
        }
        $text = Read::text($operation, 'operation') . ': ' . Read::text($operation, 'state') . ', ' . Read::text($operation, 'created_at');
        $problem = Read::text(Read::map($operation, 'problem'), 'message');
        return Read::shortened($text . ($problem !== '' ? ", $problem" : '') . ' [' . Read::text($operation, 'id') . ']', 1000);
    }
}
