<?php

return [
    'name' => 'Provisor',
    'plan' => 'Plan',
    'plan_help' => 'Save after choosing it: the options of its provider appear then.',
    'term' => 'Term',
    'may_reinstall' => 'Customers may reinstall',
    'may_reinstall_help' => 'This deletes all data of the service.',
    'state' => 'State',
    'done' => 'Done.',
    'saved' => 'The settings are saved.',
    'save' => 'Save',
    'sure' => 'Delete all data',
    'unavailable' => 'This is not available just now.',
    'not_created' => 'Nothing has been made yet.',
    'neutral' => 'This could not be done just now. Please try again later or contact support.',
    'no_profile' => 'The token may use no profile.',
    'address' => 'Address of the gateway',
    'token' => 'Token, as printed by: provisor panel create',
    'wait' => 'Seconds to wait for the end of a change',
];
