<?php

declare(strict_types=1);

namespace Provisor\Tests\Paymenter;

use App\Events\Service\Updated;
use App\Exceptions\DisplayException;
use App\Helpers\ExtensionHelper;
use App\Jobs;
use App\Models\Server;
use App\Models\Service;
use App\Models\User;
use Exception;
use Illuminate\Support\Facades\Event;
use Illuminate\Support\Facades\Log;
use Paymenter\Extensions\Servers\Provisor\Provisor;
use Provisor\Tests\Panel;
use Provisor\Tests\Result;

/**
 * Paymenter with the extension, as its jobs and its service page drive it. Active is here what has no failed job: Paymenter itself writes
 * the state down before the job runs.
 */
final class Shop implements Panel
{
    /** @var array<Service> */
    public array $services = [];
    /** @var array<string, bool> */
    private array $made = [];
    private string $address = '';
    private string $token = '';
    private string $failedJobs = '';
    private static int $last = 0;

    public function __construct()
    {
        Log::$written = '';
        Event::$listeners = [];
        Jobs::$dispatched = [];
        $this->extension()->boot();
    }

    public function connect(string $address, string $token): void
    {
        [$this->address, $this->token] = [$address, $token];
        foreach ($this->services as $service) {
            $server = $service->product->server ?? new Server();
            $server->settings = ['address' => $address, 'token' => $token] + $server->settings;
        }
    }

    public function order(array $order): string
    {
        $id = (string) ++self::$last;
        $service = new Service((int) $id);
        $service->user = new User();
        $service->user->email = $order['email'] ?? '';
        $service->product->server = new Server();
        $service->product->server->settings = ['address' => $this->address, 'token' => $this->token, 'wait' => $order['wait'] ?? null];
        $service->product->settings = ['profile' => $order['profile'], 'plan' => $order['plan'], 'option_quantity' => '', 'customer_may_reinstall' => null];
        foreach (array_filter(['domain' => $order['domain'] ?? '']) as $key => $value) {
            $service->properties()->updateOrCreate(['key' => $key], ['name' => $key, 'value' => $value]);
        }
        $this->services[$id] = $service;
        return $id;
    }

    public function amend(string $id, array $order): void
    {
        $this->services[$id]->product->settings = array_intersect_key($order, ['plan' => 1]) + $this->services[$id]->product->settings;
    }

    public function key(string $id): string
    {
        return "service-$id";
    }

    public function call(string $id, string $operation, array $with = []): Result
    {
        try {
            $this->act($id, $operation, $with);
            return new Result(true);
        } catch (Exception $error) {
            $this->failedJobs .= "$error\n";
            return new Result(false, $error->getMessage());
        }
    }

    public function callAsCustomer(string $id, string $operation, array $with = []): ?Result
    {
        if (in_array($operation, $this->lacks(), true)) {
            return null;
        }
        try {
            ExtensionHelper::callService($this->services[$id], $operation);
            return new Result(true);
        } catch (DisplayException $error) {
            return new Result(false, $error->getMessage());
        }
    }

    public function offers(string $id): array
    {
        return array_merge(['suspend', 'unsuspend', 'terminate', 'change-package'], array_column($this->actions($id), 'function'));
    }

    public function lacks(): array
    {
        return ['change-password'];
    }

    public function isActive(string $id): bool
    {
        return $this->made[$id] ?? false;
    }

    public function shown(string $id): string
    {
        $settings = $this->services[$id]->product->settings;
        return print_r([$this->actions($id), array_column($this->extension()->getProductConfig($settings), 'options', 'name')], true);
    }

    public function written(): string
    {
        $properties = [];
        foreach ($this->services as $service) {
            $properties[] = $service->properties()->rows;
        }
        return Log::$written . $this->failedJobs . print_r($properties, true);
    }

    /** @return list<array<string, string>> */
    public function actions(string $id): array
    {
        /** @var list<array<string, string>> $actions */
        $actions = ExtensionHelper::callService($this->services[$id], 'getActions');
        return $actions;
    }

    public function extension(): Provisor
    {
        return new Provisor(['address' => $this->address, 'token' => $this->token]);
    }

    /** As Paymenter's renewal does it: the date and the state are saved, and whoever listens is told. */
    public function renew(string $id, string $from, string $to): void
    {
        $service = $this->services[$id];
        $service->original = ['expires_at' => new \DateTimeImmutable($from), 'status' => $service->status];
        $service->expires_at = new \DateTimeImmutable($to);
        $service->status = Service::STATUS_ACTIVE;
        foreach (Event::$listeners[Updated::class] ?? [] as $listener) {
            $listener(new Updated($service));
        }
    }

    /** @param array<string, string> $with */
    private function act(string $id, string $operation, array $with): void
    {
        $service = $this->services[$id];
        if ($operation === 'renew') {
            $service->status = Service::STATUS_ACTIVE;
            $date = $with['due_at'] ?? '';
            $this->renew($id, $date, (new \DateTimeImmutable($date))->modify('+1 month')->format('Y-m-d'));
            foreach (array_splice(Jobs::$dispatched, 0) as $job) {
                $job->handle();
            }
            return;
        }
        $states = ['create' => Service::STATUS_ACTIVE, 'suspend' => Service::STATUS_SUSPENDED, 'unsuspend' => Service::STATUS_ACTIVE];
        // Before the job runs, whatever becomes of it.
        $service->status = ($states + ['terminate' => Service::STATUS_CANCELLED])[$operation] ?? $service->status;
        $jobs = ['create' => 'createServer', 'suspend' => 'suspendServer', 'unsuspend' => 'unsuspendServer', 'terminate' => 'terminateServer'];
        $answer = ExtensionHelper::callService($service, ($jobs + ['change-package' => 'upgradeServer'])[$operation] ?? $operation);
        if (!is_array($answer) && $answer !== true && !is_string($answer)) {
            throw new \LogicException("no answer that Paymenter knows to $operation");
        }
        if ($operation === 'create' && (!is_array($answer) || array_filter($answer, 'is_string') !== $answer)) {
            throw new \LogicException('createServer() answers with data for the mail');
        }
        if (isset($jobs[$operation])) {
            $this->made[$id] = $operation === 'create' || $operation === 'unsuspend';
        }
    }
}
