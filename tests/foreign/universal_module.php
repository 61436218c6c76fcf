<?php
// Posts a notice as Blesta's Universal Module does: the tags as an array of texts and objects, through http_build_query and curl.
[, $url, $event] = $argv;
$service = (object)[
    'id' => '12', 'client_id' => '7', 'package_id' => '3', 'status' => 'active', 'date_renews' => '2027-01-15 00:00:00',
    'date_canceled' => null, 'fields' => [(object)['key' => 'hostname', 'value' => 'web1.example.com', 'encrypted' => 0]],
    'package' => (object)['names' => [(object)['lang' => 'en_us', 'name' => '<b>A "plan" & more</b>']]],
];
$tags = (object)['hostname' => 'web1.example.com', 'hostname_name' => 'web1.example.com', 'plan' => '42', 'plan_name' => 'A plan'];
$tags->_package = (object)['id' => '3', 'taxable' => false, 'meta' => (object)['plan' => '42'], 'email_content' => [['html' => "<p>\n</p>"]]];
if ($event !== 'add') {
    $tags->_service = $service;
}
$tags->_action = 'service_notice_' . $event;
$tags->_other = $event === 'add' ? ['client_id' => '7', 'use_module' => 'true', 'meta' => ['hostname' => 'web1.example.com']] : null;

$curl = curl_init($url);
curl_setopt_array($curl, [CURLOPT_POST => true, CURLOPT_POSTFIELDS => http_build_query((array)$tags), CURLOPT_RETURNTRANSFER => true]);
$body = curl_exec($curl);
echo curl_getinfo($curl, CURLINFO_RESPONSE_CODE), "\n", $body, "\n";
