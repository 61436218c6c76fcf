//! Resellers with keys and credit, and signed requests in their name.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use ipnet::IpNet;
use provisor::clock::Clock;
use provisor::store::NewKey;
use provisor_providers::books::{AccountId, Entry};
use provisor_providers::gp::hash;
use provisor_providers::kernelhost::sign;
use provisor_providers::money::Minor;
use provisor_providers::server::KeyLimits;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::gp::urlencoded;
use crate::house::House;
use crate::http::{Answer, Http};

/// Far more than a test uses.
pub const GENEROUS: KeyLimits = KeyLimits { per_minute: 1_000_000, burst: 1_000_000, per_day: 10_000_000 };
/// What a test may ask for.
pub const ALL_SCOPES: &[&str] = &[
    "read:products",
    "read:orders",
    "write:orders",
    "read:services",
    "read:credentials",
    "write:services",
    "read:billing",
    "read:webhooks",
    "write:webhooks",
];

static COUNTER: AtomicU64 = AtomicU64::new(1);

/// A number that no other call of this process gets.
pub fn unique() -> u64 {
    COUNTER.fetch_add(1, Ordering::Relaxed)
}

/// What a key of a test is like.
pub struct KeyTraits<'a> {
    /// What it may do.
    pub scopes: &'a [&'a str],
    /// Where it may be used from.
    pub allowed: Vec<IpNet>,
    /// How often.
    pub limits: KeyLimits,
}

impl Default for KeyTraits<'_> {
    fn default() -> Self {
        Self { scopes: ALL_SCOPES, allowed: Vec::new(), limits: GENEROUS }
    }
}

impl House {
    /// A reseller with so many euros of credit, in decimal text.
    pub async fn reseller(&self, credit: &str) -> AccountId {
        let (now, amount) = (self.clock.now(), credit.parse::<Minor>().unwrap());
        let work = self.store.transact(move |books| {
            let id = books.create_account("Test", "owner@example.com", "EUR", now)?;
            books.credit(id, amount, &Entry { at: now, kind: "top-up", reference: "test" })?;
            Ok(id)
        });
        work.await.unwrap()
    }

    /// A KernelHost key.
    pub async fn kernelhost_key(&self, account: AccountId, traits: KeyTraits<'_>) -> KernelHostKey {
        let id = format!("kh_live_{:0>32}", unique());
        let secret = SecretString::from(format!("MARKEDsecret{:0>28}", unique()));
        self.add_key(account, "kernelhost", &id, &secret, traits, Vec::new()).await;
        KernelHostKey { id, secret, base_url: self.base_url("kernelhost"), http: Http::default() }
    }

    /// A GP key for callers from an address.
    pub async fn gp_key(&self, account: AccountId, address: IpAddr) -> SecretString {
        let secret = SecretString::from(format!("MARKEDapikey{:0>28}", unique()));
        self.add_key(account, "gp", &format!("gp_{}", unique()), &secret, KeyTraits::default(), vec![address]).await;
        secret
    }

    async fn add_key(
        &self,
        account: AccountId,
        provider: &str,
        id: &str,
        secret: &SecretString,
        traits: KeyTraits<'_>,
        addresses: Vec<IpAddr>,
    ) {
        let key = NewKey {
            account,
            provider: provider.to_owned(),
            public_id: id.to_owned(),
            label: "test".to_owned(),
            secret: secret.clone(),
            scopes: traits.scopes.iter().map(|&scope| scope.to_owned()).collect(),
            allowed: traits.allowed,
            addresses,
            limits: traits.limits,
            expires_at: None,
        };
        let now = self.clock.now();
        self.store.transact(move |books| books.create_key(&key, now)).await.unwrap();
    }
}

/// A key, and requests signed with it.
#[derive(Clone)]
pub struct KernelHostKey {
    /// The public id.
    pub id: String,
    /// The secret.
    pub secret: SecretString,
    /// Where to send to.
    pub base_url: String,
    /// What sends.
    pub http: Http,
}

impl KernelHostKey {
    /// The four headers of a request signed now.
    pub fn headers(&self, now: i64, method: &str, path: &str, body: &[u8]) -> [(&'static str, String); 4] {
        let (timestamp, nonce) = (now.to_string(), format!("{:032x}", unique()));
        let text = sign::signing_string(method, path, &timestamp, &nonce, body);
        let signature = sign::sign(self.secret.expose_secret().as_bytes(), &text);
        [("KH-Key", self.id.clone()), ("KH-Timestamp", timestamp), ("KH-Nonce", nonce), ("KH-Signature", signature)]
    }

    /// Sends a signed request, `path` from `/v1` on.
    pub async fn send(&self, now: i64, method: &str, path: &str, extra: &[(&str, &str)], body: &[u8]) -> Answer {
        let signed = self.headers(now, method, path, body);
        let mut headers: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
        if !body.is_empty() {
            headers.push(("Content-Type", "application/json"));
        }
        headers.extend(extra);
        self.http.send(method, &format!("{}{path}", self.base_url), &headers, body.to_vec()).await
    }

    /// A signed GET, by the machine's clock.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(jiff::Timestamp::now().as_second(), "GET", path, &[], b"").await
    }

    /// A signed POST, by the machine's clock.
    pub async fn post(&self, path: &str, idempotency_key: &str, body: &Value) -> Answer {
        let now = jiff::Timestamp::now().as_second();
        self.send(now, "POST", path, &[("Idempotency-Key", idempotency_key)], body.to_string().as_bytes()).await
    }
}

/// An API key of the GP API, and forms signed with it.
#[derive(Clone)]
pub struct GpKey {
    /// The API key.
    pub secret: SecretString,
    /// Where to send to.
    pub base_url: String,
    /// What sends.
    pub http: Http,
}

impl GpKey {
    /// The form of a request signed over these ten digits.
    pub fn form(&self, domain: &str, timestamp: &str, more: &[(&str, &str)]) -> String {
        let hash = hash::hash(self.secret.expose_secret(), domain, timestamp);
        let signed = [("domain", domain), ("hash", &hash), ("timestamp", timestamp)];
        urlencoded(&[&signed[..], more].concat())
    }

    /// Posts a form to an endpoint.
    pub async fn post(&self, endpoint: &str, headers: &[(&str, &str)], form: String) -> Answer {
        let headers = [&[("Content-Type", "application/x-www-form-urlencoded")][..], headers].concat();
        self.http.send("POST", &format!("{}/{endpoint}/", self.base_url), &headers, form).await
    }

    /// Asks an endpoint about a domain, and reads the status text.
    pub async fn ask(&self, now: i64, endpoint: &str, domain: &str, more: &[(&str, &str)]) -> String {
        let answer = self.post(endpoint, &[], self.form(domain, &now.to_string(), more)).await;
        answer.json()["status"].as_str().unwrap().to_owned()
    }
}
