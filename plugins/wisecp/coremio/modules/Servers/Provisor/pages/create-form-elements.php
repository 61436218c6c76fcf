<?php

declare(strict_types=1);

/**
 * @var Provisor_Module|Provisor $module
 * @var ?array<string, mixed>    $product
 */

$data = $product['module_data'] ?? '';
$data = is_string($data) ? json_decode($data, true) : $data;
return $module->config_options_output($module->config_options(is_array($data) ? $data : []), 'module_data');
