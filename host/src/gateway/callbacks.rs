//! Call-backs: a panel that was told "under way" is told when the change has ended, in its own API's words.
//!
//! At least once: what is told here is told again if the answer is lost. A panel's own API then runs its module, whose question joins
//! the change that has ended and changes nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use base16ct::lower as hex;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{KeyInit, Mac};
use http_body_util::Full;
use hyper::Request;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};
use zeroize::Zeroizing;

use super::{State, view};
use crate::egress::{Egress, EgressError, EgressOptions, EgressPolicy, PolicyError};
use crate::redaction::Secrets;
use crate::resolve::SystemResolver;
use crate::store::{Managed, Operation, StoreError, Teller, Untold, UntoldSummary};
use crate::ticks::Ticks;

/// How late an end may be noticed.
const TICK: Duration = Duration::from_millis(500);
const SUMMARY_TICK: Duration = Duration::from_secs(5);
/// Told at the same time, and of it to one panel: one that does not answer holds up no other.
const AT_ONCE: usize = 16;
const AT_ONCE_PER_PANEL: usize = 4;
const TIMEOUT: Duration = Duration::from_secs(30);
/// Longer than telling takes: then another host tells.
const HOLD: SignedDuration = SignedDuration::from_mins(5);
/// Pauses between attempts; after the last one the panel is not told any more.
const PAUSES_S: [i64; 7] = [10, 60, 300, 1800, 7200, 21_600, 43_200];

/// How a panel is told.
pub struct Callback {
    /// In which API's words.
    pub kind: CallbackKind,
    /// Where.
    pub url: String,
    /// The public half of the credentials, where the API has one.
    pub identifier: String,
    /// The secret half, or the key of the signature.
    pub secret: SecretString,
}

/// Whose words a call-back uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallbackKind {
    /// Ours: a signed POST of JSON.
    Signed,
    /// WHMCS's API: runs the module once more.
    Whmcs,
    /// The admin API of `FOSSBilling`: the order is activated once more.
    FossBilling,
}

/// The call-backs by panel, each with its way out.
pub(super) struct Callbacks(BTreeMap<String, (Callback, Egress)>);

impl Callbacks {
    pub(super) fn new(callbacks: BTreeMap<String, Callback>) -> Result<Self, PolicyError> {
        let ready = |(name, callback): (String, Callback)| {
            // The operator names the panel's address: it is usually a neighbour.
            let policy = EgressPolicy::new(&callback.url, &[], true)?;
            let egress = Egress::new(policy, EgressOptions::default(), Arc::new(SystemResolver));
            let egress = egress.map_err(|error| PolicyError::BaseUrl(error.to_string()))?;
            Ok((name, (callback, egress)))
        };
        callbacks.into_iter().map(ready).collect::<Result<_, _>>().map(Self)
    }
}

pub(super) async fn run(state: Arc<State>, callbacks: Arc<Callbacks>, stopped: watch::Receiver<bool>) {
    // Who tells which panel; a task that panicked is gone from it as well.
    let (mut telling, mut panels) = (JoinSet::new(), HashMap::<Id, String>::new());
    let mut ticks = Ticks::every(TICK, stopped);
    while ticks.next().await {
        while let Some(ended) = telling.try_join_next_with_id() {
            panels.remove(&ended.map_or_else(|error| error.id(), |(id, ())| id));
        }
        for untold in claim(&state, panels.values()).await {
            let (state, callbacks, panel) = (Arc::clone(&state), Arc::clone(&callbacks), untold.panel.clone());
            let task = telling.spawn(async move { tell(&state, &callbacks, untold).await });
            panels.insert(task.id(), panel);
        }
    }
}

/// What is to be told next, beside what is being told to these panels.
async fn claim(state: &State, busy: impl ExactSizeIterator<Item = &String>) -> Vec<Untold> {
    let free = AT_ONCE_PER_PANEL.min(AT_ONCE.saturating_sub(busy.len()));
    let mut counts = HashMap::<&String, usize>::new();
    busy.for_each(|panel| *counts.entry(panel).or_default() += 1);
    let full = counts.into_iter().filter(|(_, count)| *count >= AT_ONCE_PER_PANEL);
    let (now, not_to) = (state.clock.now(), full.map(|(panel, _)| panel.clone()).collect());
    let by = Teller { now, again: now + HOLD, not_to, limit: u32::try_from(free).unwrap_or(0) };
    state.store.transact(move |books| books.claim_untold(&by)).await.unwrap_or_else(|error| {
        tracing::error!(%error, "panels could not be told of what has ended");
        Vec::new()
    })
}

async fn tell(state: &State, callbacks: &Callbacks, untold: Untold) {
    let Untold { operation, service, panel, attempts } = untold;
    let now = state.clock.now();
    let told = match callbacks.0.get(&panel) {
        None => Ok(()),
        Some((callback, egress)) => post(callback, egress, &operation, &service, now).await,
    };
    let (error, again_at) = settled(told, attempts, now);
    if let Some(why) = &error {
        tracing::warn!(panel, operation = operation.ulid, why, is_last = again_at.is_none(), "a panel could not be told");
    }
    let id = operation.id;
    if let Err(error) = state.store.transact(move |books| books.settle_told(id, error.as_deref(), again_at)).await {
        tracing::error!(%error, "that a panel was told could not be noted: it will be told again");
    }
}

/// What is sent, or nothing where the panel has no word for it.
async fn post(
    callback: &Callback,
    egress: &Egress,
    operation: &Operation,
    service: &Managed,
    now: Timestamp,
) -> Result<(), String> {
    let request = match callback.kind {
        CallbackKind::Signed => {
            let (operation, service) = (view::operation(operation, &service.key), view::service(service, None));
            let ended = json!({"event": "operation.ended", "operation": operation, "service": service});
            Some(signed(callback, &ended, now))
        }
        CallbackKind::Whmcs => whmcs(callback, operation, service),
        CallbackKind::FossBilling => fossbilling(callback, operation, service),
    };
    let Some(request) = request else { return Ok(()) };
    let told: Value = serde_json::from_slice(&send(egress, request).await?).unwrap_or_default();
    match callback.kind {
        CallbackKind::Whmcs if told["result"] != "success" => Err(excerpt(callback, &told["message"])),
        CallbackKind::FossBilling if !told["error"].is_null() => Err(excerpt(callback, &told["error"]["message"])),
        _ => Ok(()),
    }
}

/// What was answered with a success.
async fn send(egress: &Egress, request: Built) -> Result<Bytes, String> {
    let request = request.map_err(|error| error.to_string())?;
    let answer = egress.send(request, Some(TIMEOUT)).await.map_err(|error: EgressError| error.to_string())?;
    let status = answer.status();
    if status.is_success() { Ok(answer.into_body()) } else { Err(format!("HTTP {}", status.as_u16())) }
}

/// Tells the call-back of this name of the days' summaries.
pub(super) async fn tell_summaries(state: Arc<State>, callbacks: Arc<Callbacks>, name: String, stopped: watch::Receiver<bool>) {
    let mut ticks = Ticks::every(SUMMARY_TICK, stopped);
    while ticks.next().await {
        if let Err(error) = tell_summary(&state, &callbacks, &name).await {
            tracing::error!(%error, "the day's summary will be told again");
        }
    }
}

async fn tell_summary(state: &State, callbacks: &Callbacks, name: &str) -> Result<(), StoreError> {
    let now = state.clock.now();
    let Some((callback, egress)) = callbacks.0.get(name) else { return Ok(()) };
    let claimed = state.store.transact(move |books| books.claim_summary(now, now + HOLD)).await?;
    let Some(UntoldSummary { day, body, attempts }) = claimed else { return Ok(()) };
    let summary = serde_json::from_str(&body).unwrap_or(Value::Null);
    let told = send(egress, signed(callback, &json!({"event": "summary", "summary": summary}), now)).await;
    let (error, again_at) = settled(told, attempts, now);
    if let Some(why) = &error {
        tracing::warn!(callback = name, day, why, is_last = again_at.is_none(), "the day's summary could not be told");
    }
    state.store.transact(move |books| books.settle_summary(&day, error.as_deref(), again_at)).await
}

/// Why it is told again, and when; not any more after the last pause.
fn settled<T>(told: Result<T, String>, attempts: u32, now: Timestamp) -> (Option<String>, Option<Timestamp>) {
    let Err(why) = told else { return (None, None) };
    let pause = usize::try_from(attempts).ok().and_then(|attempts| PAUSES_S.get(attempts));
    (Some(why), pause.map(|seconds| now + SignedDuration::from_secs(*seconds)))
}

/// Of a panel's own words in our log.
const EXCERPT: usize = 200;

/// A panel may repeat what it was sent.
fn excerpt(callback: &Callback, words: &Value) -> String {
    let secrets = Secrets::new([&callback.secret, &basic(callback)]);
    let words = secrets.redact(words.as_str().unwrap_or("nothing"));
    format!("the panel says: {}", words.chars().take(EXCERPT).collect::<String>())
}

type Built = Result<Request<Full<Bytes>>, http::Error>;

fn request(url: &str, media_type: &str) -> http::request::Builder {
    let authority = url::Url::parse(url).map(|url| url.authority().to_owned()).unwrap_or_default();
    Request::post(url).header(HOST, authority).header(CONTENT_TYPE, media_type)
}

fn signed(callback: &Callback, event: &Value, now: Timestamp) -> Built {
    let body = event.to_string();
    let timestamp = now.as_second();
    let signature = signature(&callback.secret, timestamp, body.as_bytes());
    request(&callback.url, "application/json")
        .header("provisor-signature", format!("t={timestamp},v1={signature}"))
        .body(Full::new(body.into()))
}

/// HMAC-SHA256 over `<timestamp>.<raw body>`, as Stripe signs: what reads theirs reads this.
fn signature(secret: &SecretString, timestamp: i64, body: &[u8]) -> String {
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
    let mut mac = hmac::Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()).expect("any key will do");
    mac.update(format!("{timestamp}.").as_bytes());
    mac.update(body);
    hex::encode_string(&mac.finalize().into_bytes())
}

/// The number in `service-1234` or `order-1234`, as the panel's plug-in names its services.
fn number<'a>(key: &'a str, prefix: &str) -> Option<&'a str> {
    key.strip_prefix(prefix).filter(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn whmcs(callback: &Callback, operation: &Operation, service: &Managed) -> Option<Built> {
    let action = match operation.kind.as_str() {
        "create" => "ModuleCreate",
        "suspend" => "ModuleSuspend",
        "unsuspend" => "ModuleUnsuspend",
        "terminate" => "ModuleTerminate",
        "change-package" => "ModuleChangePackage",
        _ => return None,
    };
    let id = number(&service.key, "service-")?;
    let body = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("action", action)
        .append_pair("identifier", &callback.identifier)
        .append_pair("secret", callback.secret.expose_secret())
        .append_pair("serviceid", id)
        .append_pair("responsetype", "json")
        .finish();
    Some(request(&callback.url, "application/x-www-form-urlencoded").body(Full::new(body.into())))
}

fn fossbilling(callback: &Callback, operation: &Operation, service: &Managed) -> Option<Built> {
    let method = match operation.kind.as_str() {
        "create" => "activate",
        "suspend" => "suspend",
        "unsuspend" => "unsuspend",
        "terminate" => "cancel",
        "renew" => "renew",
        _ => return None,
    };
    let id = number(&service.key, "order-")?;
    let credentials = Zeroizing::new(STANDARD.encode(basic(callback).expose_secret()));
    let url = format!("{}/api/admin/order/{method}", callback.url);
    let body = json!({ "id": id }).to_string();
    let built = request(&url, "application/json").header(AUTHORIZATION, format!("Basic {}", *credentials));
    Some(built.body(Full::new(body.into())))
}

/// User and password of HTTP's basic authentication.
fn basic(callback: &Callback) -> SecretString {
    let user = if callback.identifier.is_empty() { "admin" } else { &callback.identifier };
    format!("{user}:{}", callback.secret.expose_secret()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `printf '%s' '1700000000.{"a":1}' | openssl dgst -sha256 -hmac secret`.
    const MADE_BY_OPENSSL: &str = "49f24e537407743fa4a0242bb63b94b9a47ee99cbbe071ccd8a22550ae411686";

    #[test]
    fn the_signature_is_the_one_that_openssl_makes() {
        assert_eq!(signature(&"secret".into(), 1_700_000_000, br#"{"a":1}"#), MADE_BY_OPENSSL);
    }

    #[test]
    fn a_panel_that_repeats_a_request_tells_no_secret() {
        let (kind, secret) = (CallbackKind::FossBilling, "s3cret/+value".into());
        let callback = Callback { kind, url: "https://panel.example".to_owned(), identifier: String::new(), secret };
        let sent = STANDARD.encode("admin:s3cret/+value");
        let told = excerpt(&callback, &json!(format!("no: secret=s3cret%2F%2Bvalue, s3cret/+value, Basic {sent}")));
        assert_eq!(told, "the panel says: no: secret=[redacted], [redacted], Basic [redacted]");
    }

    #[test]
    fn a_key_of_another_form_is_no_panel_s_number() {
        assert_eq!(number("service-12", "service-"), Some("12"));
        for other in ["service-", "service-1x", "addon-1", "order-1", "service--1"] {
            assert_eq!(number(other, "service-"), None, "{other}");
        }
    }
}
