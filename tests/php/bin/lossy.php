<?php

// Passes requests on, one after the other, and loses as many answers to POST as the control file says.
//
//   php lossy.php UPSTREAM CONTROL_FILE

declare(strict_types=1);

$server = stream_socket_server('tcp://127.0.0.1:0');
if ($server === false) {
    exit(1);
}
echo stream_socket_get_name($server, false), "\n";
for (;;) {
    $caller = stream_socket_accept($server, -1);
    if ($caller === false) {
        continue;
    }
    $request = '';
    while (strpos($request, "\r\n\r\n") === false && !feof($caller)) {
        $request .= fread($caller, 8192);
    }
    $length = preg_match('/^Content-Length: *([0-9]+)/mi', $request, $found) === 1 ? (int) $found[1] : 0;
    while (strlen($request) < strpos($request, "\r\n\r\n") + 4 + $length && !feof($caller)) {
        $request .= fread($caller, 8192);
    }
    $upstream = stream_socket_client("tcp://$argv[1]");
    if ($upstream === false) {
        fclose($caller);
        continue;
    }
    fwrite($upstream, (string) preg_replace('/\r\n/', "\r\nConnection: close\r\n", $request, 1));
    $answer = stream_get_contents($upstream);
    fclose($upstream);
    $lose = (int) file_get_contents($argv[2]);
    if ($lose > 0 && strncmp($request, 'POST ', 5) === 0) {
        file_put_contents($argv[2], (string) ($lose - 1));
    } else {
        fwrite($caller, (string) $answer);
    }
    fclose($caller);
}
