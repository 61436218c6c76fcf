<?php

return [
    'type' => 'virtualization',
    'access-hash' => true,
    'server-info-checker' => false,
    'server-info-port' => true,
    'server-info-not-secure-port' => 7070,
    'server-info-secure-port' => 443,
    // The names under which a customer's choices are handed on to the provider; more may be added.
    'configurable-option-params' => ['hostname', 'quantity'],
];
