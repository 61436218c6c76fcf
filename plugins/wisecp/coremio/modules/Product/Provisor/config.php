<?php

return [
    'created_at' => 1767225600,
    'group' => 'other',
    'status' => false,
    'meta' => [
        'name' => 'Provisor',
        'version' => '0.1.0',
        'author' => 'Provisor',
        'logo' => 'logo.png',
    ],
    'settings' => [
        'address' => '',
        'token' => '',
        'token_encoded' => false,
        'wait' => '25',
    ],
    // The names under which a customer's choices are handed on to the provider; more may be added.
    'configurable-option-params' => ['domain', 'hostname', 'quantity'],
];
