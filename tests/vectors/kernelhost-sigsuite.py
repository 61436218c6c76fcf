"""Makes kernelhost-sigsuite.json from the specification's words (spec 4), with Python's hmac; openssl must agree on each case.

    python3 tests/vectors/kernelhost-sigsuite.py > tests/vectors/kernelhost-sigsuite.json
"""

import base64
import hashlib
import hmac
import json
import subprocess

SECRETS = ["ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", "k", "0123456789abcdefABCDEF0123456789abcdefABCDEF", "s" * 64, "s" * 65, "p@ss \"w'o\\rd"]
NONCES = ["00112233445566778899aabbccddeeff", "A" * 22, "z" * 44, "_-" * 16, "AbCdEfGhIjKlMnOpQrStUv_-"]
TIMES = ["1767225600", "1800000000", "2147483647", "2147483648", "1000000000", "9999999999", "1709164800"]
TARGETS = [
    "/v1/me", "/v1/products", "/v1/products/42", "/v1/orders/1001", "/v1/services", "/v1/services/7/credentials",
    "/v1/billing/balance", "/v1/billing/invoices?page=2", "/v1/billing/invoices/17/pdf", "/v1/webhooks",
    # Queries, byte for byte: order, repetition, emptiness and spelling count.
    "/v1/services?page=2&per_page=50", "/v1/services?per_page=50&page=2", "/v1/services?", "/v1/services??", "/v1/services?page",
    "/v1/services?page=", "/v1/services?page=1&page=1", "/v1/services?&", "/v1/services?page=1&", "/v1/services?a=b=c",
    "/v1/services?q=a+b", "/v1/services?q=a%20b", "/v1/services?q=%41", "/v1/services?q=A", "/v1/services?q=%c3%a9",
    "/v1/services?q=%C3%A9", "/v1/services?q=%0A", "/v1/services?q=%250A", "/v1/services?q=a/b", "/v1/services?q=a?b", "/v1/services?q=;",
    # Paths, never normalised.
    "/v1//me", "//v1/me", "/v1/me/", "/v1/./me", "/v1/../v1/me", "/v1/%6de", "/v1/%6De", "/v1/%2e%2e/me", "/v1/a%2Fb", "/v1/a%2fb",
    "/v1/~user", "/v1/a:b", "/v1/a;p=1", "/v1/a,b", "/v1/!$&'()*+,;=:@", "/v1/{id}", "/v1/<a>", "/v1/\"a\"", "/v1/a|b", "/v1/a\\b", "/v1/^`", "/",
    "/v1/" + "a" * 2000,
]
BODIES = [
    b'{"product_id":42,"billing_cycle":"monthly"}', b'{"product_id": 42, "billing_cycle": "monthly"}', b"{}", b"[]", b"\n", b"\r\n", b" ", b"\0",
    b'{"action":"reboot"}', b'{"action":"reboot"}\n', '{"note":"Grüße, 世界"}'.encode(), b"\xff\xfe\x00", b"\xef\xbb\xbf{}", bytes(range(256)),
    b"x" * 55, b"x" * 56, b"x" * 63, b"x" * 64, b"x" * 65, b"x" * 65536,
]


def case(number, method, target, body):
    secret, nonce, timestamp = (choices[number % len(choices)] for choices in (SECRETS, NONCES, TIMES))
    digest = hashlib.sha256(body).hexdigest()
    signed = "\n".join([method, target, timestamp, nonce, digest])
    signature = hmac.new(secret.encode(), signed.encode(), hashlib.sha256).hexdigest()
    openssl = ["openssl", "dgst", "-sha256", "-mac", "HMAC", "-macopt", "hexkey:" + secret.encode().hex()]
    agreed = subprocess.run(openssl, input=signed.encode(), capture_output=True, check=True).stdout.decode().split()[-1]
    assert agreed == signature, target
    repeat = {"body_repeat": [chr(body[0]), len(body)]} if len(set(body)) == 1 and len(body) > 1000 else {}
    return {
        "method": method, "target": target, "timestamp": timestamp, "nonce": nonce, "secret": secret,
        **(repeat or {"body_base64": base64.b64encode(body).decode()}),
        "body_sha256": digest, "string_to_sign": signed, "signature": signature,
    }


cases = [case(number, "GET", target, b"") for number, target in enumerate(TARGETS)]
cases += [case(number, "POST", "/v1/orders", body) for number, body in enumerate(BODIES)]
for number, method in enumerate(["HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "get", "Get", "PROPFIND"]):
    cases.append(case(number, method, "/v1/webhooks", b'{"url":null}' if method in ("PUT", "PATCH", "DELETE") else b""))
print("[\n" + ",\n".join(json.dumps(each) for each in cases) + "\n]")
