<?php

return [
    'name' => 'Provisor',
    'plan' => 'Tarif',
    'plan_help' => 'Nach der Auswahl speichern: Dann erscheinen die Optionen des Anbieters.',
    'term' => 'Laufzeit',
    'may_reinstall' => 'Kunden dürfen neu installieren',
    'may_reinstall_help' => 'Das löscht alle Daten des Dienstes.',
    'state' => 'Zustand',
    'done' => 'Erledigt.',
    'saved' => 'Die Einstellungen sind gespeichert.',
    'save' => 'Speichern',
    'sure' => 'Alle Daten löschen',
    'unavailable' => 'Das ist gerade nicht möglich.',
    'not_created' => 'Es wurde noch nichts angelegt.',
    'neutral' => 'Das war gerade nicht möglich. Bitte versuchen Sie es später noch einmal oder wenden Sie sich an den Support.',
    'no_profile' => 'Das Token darf kein Profil verwenden.',
    'address' => 'Adresse des Gateways',
    'token' => 'Token, wie von provisor panel create ausgegeben',
    'wait' => 'Sekunden, die auf das Ende einer Änderung gewartet wird',
];
