<?php

// Logs the browser in at a provider: posts the form of a ticket that SignOn::link() made. Nothing is shown and nothing is stored.

declare(strict_types=1);

use Provisor\Problem;
use Provisor\Read;
use WHMCS\Module\Server\Provisor\SignOn;
use WHMCS\Module\Server\Provisor\Texts;

require_once dirname(__DIR__, 3) . '/init.php';
require_once __DIR__ . '/lib/load.php';

(static function (): void {
    $html = static function (string $text): string {
        return htmlspecialchars($text, ENT_QUOTES | ENT_SUBSTITUTE, 'UTF-8');
    };
    $nonce = base64_encode(random_bytes(16));
    header('Content-Type: text/html; charset=utf-8');
    header('Cache-Control: no-store');
    header('Referrer-Policy: no-referrer');
    header("Content-Security-Policy: default-src 'none'; script-src 'nonce-$nonce'; form-action https: http:; frame-ancestors 'none'");
    try {
        $form = SignOn::form(Read::text(Read::named($_GET), 'ticket'));
        $url = Read::text($form, 'url');
        if (preg_match('~^https?://~i', $url) !== 1) {
            throw new Problem('protocol', 'The login has no web address.');
        }
    } catch (Problem $problem) {
        http_response_code(403);
        echo '<!doctype html><title>Provisor</title><p>', $html($problem->customerText(Texts::get('neutral'))), "</p>\n";
        return;
    }
    echo '<!doctype html><title>Provisor</title><form method="post" action="', $html($url), '">';
    foreach (Read::maps($form, 'fields') as $field) {
        echo '<input type="hidden" name="', $html(Read::text($field, 'name')), '" value="', $html(Read::text($field, 'value')), '">';
    }
    echo '<noscript><button>', $html(Texts::get('sign_on')), "</button></noscript></form>\n";
    echo '<script nonce="', $nonce, "\">document.forms[0].submit()</script>\n";
})();
