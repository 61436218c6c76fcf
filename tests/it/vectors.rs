//! Signatures, hashes and envelopes made by openssl and PHP, through the public functions of both ends: code that the ends share
//! can share a mistake.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::cell::RefCell;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use provisor_providers::books::{AccountId, Fault, KeyRow};
use provisor_providers::contract;
use provisor_providers::gp::{hash, password};
use provisor_providers::kernelhost::guard::{self, Verdict};
use provisor_providers::kernelhost::{sign, webhook};
use provisor_providers::message::{Headers, Request, Response};
use provisor_providers::outside::{Outside, SendError};
use provisor_providers::provisioning::Connection;
use provisor_providers::server::{From, Key, KeyLimits, Keys, Moment, Rules, Visit};
use secrecy::ExposeSecret;
use serde_json::Value;

const KEY: &str = "kh_live_ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

fn vectors(name: &str, at_least: usize) -> Vec<Value> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors").join(name);
    let vectors: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert!(vectors.len() >= at_least, "{name} has only {} vectors", vectors.len());
    vectors
}

fn text<'a>(vector: &'a Value, member: &str) -> &'a str {
    vector[member].as_str().unwrap_or_else(|| panic!("{member} is no text in {vector}"))
}

fn body(vector: &Value) -> String {
    match vector["body_repeat"].as_array().map(Vec::as_slice) {
        Some([unit, times]) => unit.as_str().unwrap().repeat(usize::try_from(times.as_u64().unwrap()).unwrap()),
        _ => text(vector, "body").to_owned(),
    }
}

fn second(vector: &Value) -> Timestamp {
    Timestamp::from_second(text(vector, "timestamp").parse().unwrap()).unwrap()
}

/// The key that a vector was signed with.
struct OneKey(Arc<Key>);

impl Keys for OneKey {
    fn find(&self, _: &str, _: &str, _: From) -> Result<Option<Arc<Key>>, Fault> {
        Ok(Some(Arc::clone(&self.0)))
    }

    fn at_address(&self, _: &str, _: IpAddr, _: From) -> Result<Vec<Arc<Key>>, Fault> {
        Ok(Vec::new())
    }
}

fn key(secret: &str) -> OneKey {
    OneKey(Arc::new(Key {
        row: KeyRow(1),
        version: 1,
        account: AccountId(1),
        public_id: KEY.to_owned(),
        label: String::new(),
        secret: secret.into(),
        scopes: Vec::new(),
        allowed: Vec::new(),
        limits: KeyLimits::default(),
        created_at: Timestamp::UNIX_EPOCH,
        expires_at: None,
        revoked: false,
    }))
}

#[test]
fn the_answering_end_admits_what_openssl_signed() {
    for vector in vectors("kernelhost-signing.json", 8) {
        let (path, nonce, signature) = (text(&vector, "path"), text(&vector, "nonce"), text(&vector, "signature"));
        let headers = Headers::new()
            .with("KH-Key", KEY)
            .with("KH-Timestamp", text(&vector, "timestamp"))
            .with("KH-Nonce", nonce)
            .with("KH-Signature", signature);
        let request =
            Request { method: text(&vector, "method").to_owned(), target: path.to_owned(), headers, body: body(&vector).into() };
        let signed = sign::signing_string(&request.method, path, text(&vector, "timestamp"), nonce, &request.body);
        assert_eq!(signed.rsplit('\n').next(), Some(text(&vector, "body_sha256")), "{path}");
        assert_eq!(sign::sign(text(&vector, "secret").as_bytes(), &signed), signature, "{path}");

        for (change, admitted) in [("nothing", true), ("body", false), ("path", false), ("secret", false)] {
            let (mut request, mut secret) = (request.clone(), text(&vector, "secret").to_owned());
            match change {
                "body" => request.body.push(b'\n'),
                "path" => request.target.push('?'),
                "secret" => secret.push('x'),
                _ => {}
            }
            let moment = Moment { now: second(&vector), seed: [0; 32], rules: Rules::default() };
            let visit = Visit { request, prefix: "".into(), peer: [192, 0, 2, 1].into(), request_id: String::new(), moment };
            let verdict = guard::judge(&visit, &key(&secret)).unwrap();
            assert_eq!(matches!(verdict, Verdict::Admitted(_)), admitted, "{path}, changed: {change}");
        }
    }
}

/// A clock and a generator that stand at a vector's values; it answers nothing, and keeps what it was asked.
struct Frozen {
    now: Timestamp,
    nonce: [u8; 16],
    asked: RefCell<Vec<Request>>,
}

#[async_trait(?Send)]
impl Outside for Frozen {
    async fn send(&self, request: Request, _timeout: Duration) -> Result<Response, SendError> {
        self.asked.borrow_mut().push(request);
        Ok(Response::new(404, "application/json", "{}"))
    }

    async fn sleep(&self, _time: Duration) {}

    fn now(&self) -> Timestamp {
        self.now
    }

    fn ticks(&self) -> Duration {
        Duration::ZERO
    }

    fn random(&self, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.nonce[..bytes.len()]);
    }
}

/// Whatever of the vectors the client asks by itself, it signs as openssl did.
#[tokio::test]
async fn the_asking_end_signs_as_openssl_did() {
    let client = provisor_providers::find("kernelhost").unwrap().client;
    let mut compared = 0;
    for vector in vectors("kernelhost-signing.json", 8) {
        let nonce = base16ct::mixed::decode_vec(text(&vector, "nonce")).unwrap().try_into().unwrap();
        let world = Frozen { now: second(&vector), nonce, asked: RefCell::default() };
        let at: Connection = contract::Connection {
            provider: "kernelhost".to_owned(),
            base_url: "https://api.example.com/v1".to_owned(),
            key: KEY.to_owned(),
            secret: text(&vector, "secret").to_owned(),
            settings: Vec::new(),
        }
        .into();
        // All of them fail; what counts is how they were asked.
        let _check = client.check(&world, &at).await;
        let _catalog = client.catalog(&world, &at).await;
        let _pdf = client.invoice_pdf(&world, &at, "7".to_owned()).await;
        let expected = (text(&vector, "method"), format!("https://api.example.com{}", text(&vector, "path")));
        for request in world.asked.borrow().iter() {
            if (request.method.as_str(), &request.target) == (expected.0, &expected.1) {
                assert_eq!(request.headers.once("KH-Nonce"), Some(text(&vector, "nonce")));
                assert_eq!(request.headers.once("KH-Signature"), Some(text(&vector, "signature")), "{}", request.target);
                compared += 1;
            }
        }
    }
    assert!(compared >= 2, "only {compared} of the vectors were asked by the client");
}

#[test]
fn webhooks_are_signed_and_verified_as_openssl_does() {
    for vector in vectors("webhook-signature.json", 4) {
        let (secret, expected, now) = (text(&vector, "secret").as_bytes(), text(&vector, "header"), second(&vector));
        let body = body(&vector).into_bytes();
        assert_eq!(webhook::header(&[secret], now.as_second(), &body), expected);
        assert_eq!(webhook::verify(expected, &body, &[secret], now), Ok(()));
        let changed = [&body[..], b" "].concat();
        assert_eq!(webhook::verify(expected, &changed, &[secret], now), Err(webhook::Rejected::Mismatch));
        let late = now + jiff::SignedDuration::from_secs(webhook::TOLERANCE_S + 1);
        assert_eq!(webhook::verify(expected, &body, &[secret], late), Err(webhook::Rejected::TooOld(301)));
    }
}

#[test]
fn hashes_agree_with_php() {
    for vector in vectors("gp-hash.json", 6) {
        let (key, domain, timestamp) = (text(&vector, "api_key"), text(&vector, "domain"), text(&vector, "timestamp"));
        assert_eq!(hash::hash(key, domain, timestamp), text(&vector, "hash"), "{domain}");
        assert!(hash::verify(key, domain, timestamp, text(&vector, "hash")));
        assert!(!hash::verify(&format!("{key}x"), domain, timestamp, text(&vector, "hash")));
    }
}

#[test]
fn envelopes_agree_with_php() {
    for vector in vectors("gp-password.json", 5) {
        let (key, clear, envelope) = (text(&vector, "key"), text(&vector, "password"), text(&vector, "envelope"));
        let iv: [u8; 16] = base16ct::mixed::decode_vec(text(&vector, "iv_hex")).unwrap().try_into().unwrap();
        assert_eq!(password::seal(key, clear, iv).unwrap(), envelope);
        assert_eq!(password::open(key, envelope).unwrap().expose_secret(), clear);
        // The MAC covers the whole key, though the cipher takes 16 bytes of it.
        assert!(password::open(&format!("{key}x"), envelope).is_err());
    }
}
