//! Signatures: HMAC-SHA256 over five lines (spec 4), the same code for both ends.

use base16ct::lower as hex;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

pub(super) type HmacSha256 = Hmac<Sha256>;

/// The five signed lines: method, path, timestamp, nonce, SHA-256 of the body; no trailing newline.
///
/// The path is the raw request-target from `/v1` on, query included, never decoded or sorted: a decoded `%0A` would make the
/// lines ambiguous. Host and headers are not signed, the idempotency key neither.
pub fn signing_string(method: &str, path: &str, timestamp: &str, nonce: &str, body: &[u8]) -> String {
    [method, path, timestamp, nonce, &hex::encode_string(&Sha256::digest(body))].join("\n")
}

/// The value of `KH-Signature`: 64 lower-case hex digits. The secret is used as the ASCII text it is.
pub fn sign(secret: &[u8], signing_string: &str) -> String {
    hex::encode_string(&keyed(secret).chain_update(signing_string).finalize().into_bytes())
}

/// Whether a signature of 64 hex digits, in either case, holds; in constant time.
pub fn verify(secret: &[u8], signing_string: &str, signature: &str) -> bool {
    let mut claimed = [0; 32];
    base16ct::mixed::decode(signature, &mut claimed)
        .is_ok_and(|claimed| keyed(secret).chain_update(signing_string).verify_slice(claimed).is_ok())
}

/// HMAC-SHA256 under a secret used as it is.
pub(super) fn keyed(secret: &[u8]) -> HmacSha256 {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
    HmacSha256::new_from_slice(secret).expect("HMAC takes keys of every length")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    const NONCE: &str = "00112233445566778899aabbccddeeff";

    #[test]
    fn the_documented_recipe_agrees() {
        for (method, path, body, signature) in [
            ("GET", "/v1/me", "", "b10259b39140e7d5537eee4ce52669f29bc5486bcc57842b04497218a733ab03"),
            ("GET", "/v1/services?page=2&per_page=50", "", "e2608d734f2f113df6874135d86bf040093b02c3dfe1b9ceab497cb4bc50c43c"),
            (
                "POST",
                "/v1/orders",
                r#"{"product_id":42,"billing_cycle":"monthly"}"#,
                "2bdbdceabb663aa14c16d2918af588ae780631cf09dbcb07b3b0d155c50c8378",
            ),
        ] {
            let signed = signing_string(method, path, "1767225600", NONCE, body.as_bytes());
            assert_eq!(sign(SECRET, &signed), signature);
            assert!(verify(SECRET, &signed, signature));
            assert!(verify(SECRET, &signed, &signature.to_uppercase()));
        }
    }

    #[test]
    fn anything_changed_or_misspelled_fails() {
        let signed = signing_string("GET", "/v1/me", "1767225600", NONCE, b"");
        let good = sign(SECRET, &signed);
        for position in 0..64 {
            let mut bad = good.clone().into_bytes();
            bad[position] = if bad[position] == b'0' { b'1' } else { b'0' };
            assert!(!verify(SECRET, &signed, std::str::from_utf8(&bad).unwrap()));
        }
        for bad in ["", &good[..62], &format!("{good}00"), &"zz".repeat(32)] {
            assert!(!verify(SECRET, &signed, bad));
        }
        assert!(!verify(b"another", &signed, &good));
        assert!(!verify(SECRET, &format!("{signed}\n"), &good));
    }
}
