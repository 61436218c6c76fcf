<?php

// What the module does without being asked: finishes what was in progress, and tells staff once a day what is not as WHMCS believes.

declare(strict_types=1);

use Provisor\Problem;
use Provisor\Read;
use WHMCS\Database\Capsule;
use WHMCS\Module\Server\Provisor\Server;
use WHMCS\Module\Server\Provisor\Texts;

if (!defined('WHMCS')) {
    exit('This file cannot be accessed directly');
}

require_once __DIR__ . '/lib/load.php';

/** Services that are asked about in one run of the cron job. */
const PROVISOR_PENDING_MAX = 200;
/** Lines of the daily message. */
const PROVISOR_LINES_MAX = 100;

/**
 * Services that WHMCS has as pending and the gateway as active: WHMCS runs their creation again, which the gateway answers as done without
 * ordering anything, so that status and welcome mail come from WHMCS itself.
 */
function provisor_finish_pending(): void
{
    foreach (Server::stored() as $server) {
        $waiting = Capsule::table('tblhosting')->where('server', Read::text($server, 'serverid'))->where('domainstatus', 'Pending');
        foreach ($waiting->orderBy('id', 'desc')->limit(PROVISOR_PENDING_MAX)->get() as $row) {
            $id = (int) Read::text(Read::named((array) $row), 'id');
            try {
                $service = Server::gateway($server)->service("service-$id");
            } catch (Problem $problem) {
                if ($problem->status() === 404) {
                    // Nobody asked for its creation yet: it is not paid.
                    continue;
                }
                break;
            }
            if (Read::text($service, 'state') === 'active') {
                localAPI('ModuleCreate', ['serviceid' => $id]);
            }
        }
    }
}

/** One mail a day with what a person should look at: drift, and changes that nobody could find out about. */
function provisor_report(): void
{
    $lines = [];
    foreach (Server::stored() as $server) {
        try {
            $gateway = Server::gateway($server);
            foreach (Read::maps($gateway->services(['drifted' => 'true', 'limit' => PROVISOR_LINES_MAX]), 'services') as $service) {
                $drift = Read::text(Read::map($service, 'drift'), 'kind');
                $lines[] = Texts::get('report_drift', ['key' => Read::text($service, 'key'), 'drift' => $drift]);
            }
            foreach (Read::maps($gateway->operations(['state' => 'dead', 'limit' => PROVISOR_LINES_MAX]), 'operations') as $operation) {
                $lines[] = Texts::get('report_dead', [
                    'key' => Read::text($operation, 'service'),
                    'operation' => Read::text($operation, 'operation') . ' ' . Read::text($operation, 'id'),
                ]);
            }
        } catch (Problem $problem) {
            $lines[] = $problem->staffText();
        }
    }
    if ($lines === []) {
        return;
    }
    $html = '';
    foreach (array_slice($lines, 0, PROVISOR_LINES_MAX) as $line) {
        $html .= '<li>' . htmlspecialchars($line, ENT_QUOTES | ENT_SUBSTITUTE, 'UTF-8') . '</li>';
    }
    localAPI('SendAdminEmail', ['type' => 'system', 'customsubject' => Texts::get('report'), 'custommessage' => "<ul>$html</ul>"]);
}

add_hook('AfterCronJob', 1, static function (): void {
    provisor_finish_pending();
});

add_hook('DailyCronJob', 1, static function (): void {
    provisor_report();
});
