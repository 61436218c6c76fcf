<?php

return [
    'name' => 'Provisor',
    'plan' => 'Plan',
    'plan_help' => 'Guarde después de elegirlo: entonces aparecen las opciones del proveedor.',
    'term' => 'Período',
    'may_reinstall' => 'El cliente puede reinstalar',
    'may_reinstall_help' => 'Esto borra todos los datos del servicio.',
    'state' => 'Estado',
    'done' => 'Hecho.',
    'saved' => 'Los ajustes se han guardado.',
    'save' => 'Guardar',
    'sure' => 'Borrar todos los datos',
    'unavailable' => 'Esto no está disponible en este momento.',
    'not_created' => 'Todavía no se ha creado nada.',
    'neutral' => 'No ha sido posible en este momento. Inténtelo más tarde o póngase en contacto con el soporte.',
    'no_profile' => 'El token no puede usar ningún perfil.',
    'address' => 'Dirección de la pasarela',
    'token' => 'Token, tal como lo muestra: provisor panel create',
    'wait' => 'Segundos de espera hasta el final de un cambio',
];
