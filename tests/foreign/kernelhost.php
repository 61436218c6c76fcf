<?php
// The documented PHP sample: json_encode, random_bytes, hash_hmac, curl.
//
//   KH_KEY=.. KH_SECRET=.. KH_BASE=.. php kernelhost.php METHOD PATH [BODY [IDEMPOTENCY_KEY [TIMES]]]
//
// BODY is JSON; it is decoded and encoded again, as a caller with an array would. Prints status and body, a line each; sent TIMES
// times with the very same headers, so many pairs.

function kh_request($method, $path, $payload, $idempotencyKey, $times)
{
    $body = $payload === null ? '' : json_encode($payload);
    $timestamp = (string) time();
    $nonce = bin2hex(random_bytes(16));
    $signingString = implode("\n", [$method, $path, $timestamp, $nonce, hash('sha256', $body)]);
    $signature = hash_hmac('sha256', $signingString, getenv('KH_SECRET'));

    $headers = [
        'KH-Key: ' . getenv('KH_KEY'),
        'KH-Timestamp: ' . $timestamp,
        'KH-Nonce: ' . $nonce,
        'KH-Signature: ' . $signature,
        'Content-Type: application/json',
    ];
    if ($idempotencyKey !== null) {
        $headers[] = 'Idempotency-Key: ' . $idempotencyKey;
    }

    $ch = curl_init(getenv('KH_BASE') . $path);
    curl_setopt_array($ch, [
        CURLOPT_CUSTOMREQUEST => $method,
        CURLOPT_HTTPHEADER => $headers,
        CURLOPT_RETURNTRANSFER => true,
        CURLOPT_TIMEOUT => 20,
    ]);
    if ($body !== '') {
        curl_setopt($ch, CURLOPT_POSTFIELDS, $body);
    }
    for ($i = 0; $i < $times; $i++) {
        $answer = curl_exec($ch);
        if ($answer === false) {
            fwrite(STDERR, curl_error($ch) . "\n");
            exit(1);
        }
        echo curl_getinfo($ch, CURLINFO_RESPONSE_CODE), "\n", $answer, "\n";
    }
}

$payload = ($argv[3] ?? '') === '' ? null : json_decode($argv[3], true);
kh_request($argv[1], $argv[2], $payload, $argv[4] ?? null, (int) ($argv[5] ?? 1));
