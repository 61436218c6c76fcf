<?php

declare(strict_types=1);

namespace Paymenter\Extensions\Servers\Provisor;

use App\Helpers\ExtensionHelper;
use App\Models\Service;
use Illuminate\Bus\Queueable;
use Illuminate\Contracts\Queue\ShouldQueue;
use Illuminate\Foundation\Bus\Dispatchable;
use Illuminate\Queue\InteractsWithQueue;
use Illuminate\Queue\SerializesModels;

/**
 * Renews at the provider what was paid for. May be tried as often as it takes: one due date is renewed once.
 */
class RenewJob implements ShouldQueue
{
    use Dispatchable;
    use InteractsWithQueue;
    use Queueable;
    use SerializesModels;

    /** @var int seconds */
    public $timeout = 120;
    /** @var int */
    public $tries = 5;
    /** @var list<int> seconds before each further try */
    public $backoff = [60, 300, 1800, 7200];
    /** @var Service */
    public $service;
    /** @var string */
    public $dueDate;

    public function __construct(Service $service, string $dueDate)
    {
        $this->service = $service;
        $this->dueDate = $dueDate;
    }

    public function handle(): void
    {
        ExtensionHelper::callService($this->service, 'renewServer', [$this->dueDate]);
    }
}
