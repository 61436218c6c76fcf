<?php
// The documented PHP samples: the request hash, the password envelope, and the two ways in which PHP's curl sends $data.
//
//   GP_KEY=.. GP_BASE=.. php gp.php urlencoded|multipart ENDPOINT DOMAIN [NAME=VALUE ..]
//
// A password is given in clear and sealed here. Prints status and body, a line each.

function gpfPassEncrypt($key, $string)
{
    if (empty($key) || empty($string)) {
        return null;
    }
    $cipher = 'AES-128-CBC';
    $ivlen = openssl_cipher_iv_length($cipher);
    $iv = openssl_random_pseudo_bytes($ivlen);
    $ciphertext_raw = openssl_encrypt($string, $cipher, $key, $options = OPENSSL_RAW_DATA, $iv);
    $hmac = hash_hmac('sha256', $ciphertext_raw, $key, $as_binary = true);
    return base64_encode($iv . $hmac . $ciphertext_raw);
}

$API_KEY = getenv('GP_KEY');
[, $encoding, $endpoint, $domain] = $argv;

$timestamp = str_shuffle(time());
$hash = sha1(sha1(trim($API_KEY)) . $domain . $timestamp);
$data = ['domain' => $domain, 'hash' => $hash, 'timestamp' => $timestamp];
foreach (array_slice($argv, 4) as $parameter) {
    [$name, $value] = explode('=', $parameter, 2);
    $data[$name] = $name === 'password' ? gpfPassEncrypt($API_KEY, $value) : $value;
}

$ch = curl_init(getenv('GP_BASE') . '/' . $endpoint . '/');
curl_setopt($ch, CURLOPT_POST, true);
curl_setopt($ch, CURLOPT_POSTFIELDS, $encoding === 'multipart' ? $data : http_build_query($data));
curl_setopt($ch, CURLOPT_RETURNTRANSFER, true);
curl_setopt($ch, CURLOPT_TIMEOUT, 20);
$answer = curl_exec($ch);
if ($answer === false) {
    fwrite(STDERR, curl_error($ch) . "\n");
    exit(1);
}
echo curl_getinfo($ch, CURLINFO_RESPONSE_CODE), "\n", $answer, "\n";
