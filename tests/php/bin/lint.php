<?php

// Reads every file it is given as PHP, on whichever PHP runs this. Prints what is wrong.

declare(strict_types=1);

error_reporting(E_ALL);
ini_set('display_errors', '1');
$files = json_decode(is_string($_SERVER['ARGUMENTS'] ?? null) ? $_SERVER['ARGUMENTS'] : '[]');
foreach (is_array($files) ? array_filter($files, 'is_string') : [] as $file) {
    try {
        $tokens = token_get_all((string) file_get_contents($file), TOKEN_PARSE);
        echo $tokens === [] ? "$file: empty\n" : '';
    } catch (ParseError $error) {
        echo "$file:{$error->getLine()}: {$error->getMessage()}\n";
    }
}
