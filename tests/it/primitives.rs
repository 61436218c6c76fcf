//! The cryptography that we use against the vectors of those who break it: Wycheproof, NIST, the RFCs, and what GitHub and Standard
//! Webhooks document. The crates are the very ones that ship.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use aes_gcm::aead::{Aead, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cbc::cipher::block_padding::{NoPadding, Pkcs7};
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use hmac::{Hmac, Mac};
use jiff::Timestamp;
use provisor_providers::kernelhost::guard::{self, Verdict};
use provisor_providers::kernelhost::{sign, wire};
use provisor_providers::message::{Headers, Request};
use provisor_providers::server::{Moment, Rules, Visit};
use provisor_tests::one_key::OneKey;
use serde_json::Value;
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The cases of a file, at least so many.
fn cases(name: &str, at_least: usize) -> Vec<Value> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(name);
    let mut file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let Value::Array(cases) = (if file.is_array() { file.take() } else { file["cases"].take() }) else { panic!("{name}") };
    assert!(cases.len() >= at_least, "{name} has only {} cases", cases.len());
    cases
}

fn text<'a>(case: &'a Value, member: &str) -> &'a str {
    case[member].as_str().unwrap()
}

fn bytes(case: &Value, member: &str) -> Vec<u8> {
    base16ct::mixed::decode_vec(text(case, member)).unwrap()
}

fn mac_holds<M: Mac + hmac::KeyInit>(case: &Value) -> bool {
    let mac = <M as hmac::KeyInit>::new_from_slice(&bytes(case, "key")).unwrap().chain_update(bytes(case, "msg"));
    mac.verify_truncated_left(&bytes(case, "tag")).is_ok()
}

#[test]
fn hmac_sha256_agrees_with_wycheproof_rfc_4231_github_and_standard_webhooks() {
    for case in cases("primitives/hmac-sha256.json", 180) {
        assert_eq!(mac_holds::<Hmac<Sha256>>(&case), case["valid"], "{}", case["name"]);
    }
}

#[test]
fn hmac_sha1_agrees_with_wycheproof_and_rfc_2202() {
    for case in cases("primitives/hmac-sha1.json", 170) {
        assert_eq!(mac_holds::<Hmac<Sha1>>(&case), case["valid"], "{}", case["name"]);
    }
}

#[test]
fn digests_agree_with_nist() {
    for case in cases("primitives/sha256.json", 60) {
        assert_eq!(Sha256::digest(bytes(&case, "msg"))[..], bytes(&case, "digest"), "{}", case["name"]);
    }
    for case in cases("primitives/sha1.json", 60) {
        assert_eq!(Sha1::digest(bytes(&case, "msg"))[..], bytes(&case, "digest"), "{}", case["name"]);
    }
}

#[test]
fn aes_128_cbc_agrees_with_wycheproof_and_nist() {
    for case in cases("primitives/aes-128-cbc.json", 140) {
        let (key, iv, clear, sealed) = (bytes(&case, "key"), bytes(&case, "iv"), bytes(&case, "msg"), bytes(&case, "ct"));
        let decryptor = cbc::Decryptor::<aes::Aes128>::new_from_slices(&key, &iv).unwrap();
        let encryptor = cbc::Encryptor::<aes::Aes128>::new_from_slices(&key, &iv).unwrap();
        let (mut opened, mut buffer) = (sealed.clone(), clear.clone());
        buffer.resize(clear.len() + 16, 0);
        let (opened, again) = if case["padded"] == true {
            let again = encryptor.encrypt_padded::<Pkcs7>(&mut buffer, clear.len()).unwrap().to_vec();
            (decryptor.decrypt_padded::<Pkcs7>(&mut opened).ok().map(<[u8]>::to_vec), again)
        } else {
            let again = encryptor.encrypt_padded::<NoPadding>(&mut buffer, clear.len()).unwrap().to_vec();
            (decryptor.decrypt_padded::<NoPadding>(&mut opened).ok().map(<[u8]>::to_vec), again)
        };
        if case["valid"] == true {
            assert_eq!((opened, again), (Some(clear), sealed), "{}", case["name"]);
        } else {
            assert_eq!(opened, None, "{}", case["name"]);
        }
    }
}

#[test]
fn aes_256_gcm_agrees_with_wycheproof_and_nist() {
    for case in cases("primitives/aes-256-gcm.json", 170) {
        let (clear, sealed, aad) = (bytes(&case, "msg"), bytes(&case, "ct"), bytes(&case, "aad"));
        let cipher = Aes256Gcm::new_from_slice(&bytes(&case, "key")).unwrap();
        let nonce = Nonce::from(<[u8; 12]>::try_from(bytes(&case, "iv")).unwrap());
        let opened = cipher.decrypt(&nonce, Payload { msg: &sealed, aad: &aad }).ok();
        if case["valid"] == true {
            let again = cipher.encrypt(&nonce, Payload { msg: &clear, aad: &aad }).unwrap();
            assert_eq!((opened, again), (Some(clear), sealed), "{}", case["name"]);
        } else {
            assert_eq!(opened, None, "{}", case["name"]);
        }
    }
}

/// As the audit log's checkpoints are verified.
#[test]
fn ed25519_agrees_with_wycheproof() {
    for case in cases("primitives/ed25519.json", 140) {
        let key = VerifyingKey::from_bytes(&bytes(&case, "public").try_into().unwrap());
        let signature = Signature::from_slice(&bytes(&case, "signature"));
        let holds = key.is_ok_and(|key| signature.is_ok_and(|held| key.verify_strict(&bytes(&case, "msg"), &held).is_ok()));
        assert_eq!(holds, case["valid"], "{}", case["name"]);
    }
}

/// As they are signed.
#[test]
fn ed25519_signs_as_rfc_8032_does() {
    for case in cases("primitives/ed25519-sign.json", 3) {
        let key = SigningKey::from_bytes(&bytes(&case, "secret").try_into().unwrap());
        assert_eq!(key.verifying_key().as_bytes()[..], bytes(&case, "public"), "{}", case["name"]);
        assert_eq!(key.sign(&bytes(&case, "msg")).to_bytes()[..], bytes(&case, "signature"), "{}", case["name"]);
    }
}

/// Requests whose canonical form, string to sign and signature Python and openssl made.
#[test]
fn the_canonical_request_is_the_one_that_python_and_openssl_make() {
    for case in cases("kernelhost-sigsuite.json", 60) {
        let body = match &case["body_repeat"] {
            Value::Array(repeat) => {
                repeat[0].as_str().unwrap().repeat(usize::try_from(repeat[1].as_u64().unwrap()).unwrap()).into_bytes()
            }
            _ => STANDARD.decode(text(&case, "body_base64")).unwrap(),
        };
        let (method, target, secret) = (text(&case, "method"), text(&case, "target"), text(&case, "secret"));
        let (timestamp, nonce, signature) = (text(&case, "timestamp"), text(&case, "nonce"), text(&case, "signature"));
        let signed = sign::signing_string(method, target, timestamp, nonce, &body);
        assert_eq!(signed, text(&case, "string_to_sign"), "{method} {target}");
        assert_eq!(sign::sign(secret.as_bytes(), &signed), signature, "{method} {target}");

        let headers = Headers::new()
            .with(wire::header::KEY, OneKey::ID)
            .with(wire::header::TIMESTAMP, timestamp)
            .with(wire::header::NONCE, nonce)
            .with(wire::header::SIGNATURE, signature);
        let request = Request { method: method.to_owned(), target: target.to_owned(), headers, body };
        let now = Timestamp::from_second(timestamp.parse().unwrap()).unwrap();
        let moment = Moment { now, seed: [0; 32], rules: Rules::default() };
        let visit = Visit { request, prefix: "".into(), peer: [192, 0, 2, 1].into(), request_id: String::new(), moment };
        let verdict = guard::judge(&visit, &OneKey::new(secret)).unwrap();
        assert!(matches!(verdict, Verdict::Admitted(_)), "{method} {target}");
    }
}
