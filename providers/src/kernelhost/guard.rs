//! Admission: what a request's head, signature and source address decide before any transaction (our choices, 2.1 and 2.2).

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use secrecy::ExposeSecret;

use super::sign;
use super::wire::{self, header};
use crate::books::Fault;
use crate::message::{Headers, Request};
use crate::server::{From, Key, Keys, Visit};

/// The name under which keys of this API are kept.
pub const PROVIDER: &str = "kernelhost";
/// The path below which the API is served by default; not signed.
pub const MOUNT: &str = "/cp/kh_reseller_api";
/// Signed against when the key is unknown, so that an unknown key costs what a known one costs. As long as our secrets are.
const DUMMY_SECRET: &str = "0000000000000000000000000000000000000000";

/// What admission came to.
pub enum Verdict {
    /// The signature holds and the address is allowed; nonce, quota and scope are the transaction's part.
    Admitted(Admitted),
    /// Refused, once the transaction has looked for a lock and counted the failure.
    Refused(Refused),
}

/// An authentic request.
pub struct Admitted {
    /// Whose request it is.
    pub key: Arc<Key>,
    /// Not spent yet.
    pub nonce: String,
    /// Unix seconds, within the window.
    pub timestamp: i64,
}

/// A refused request.
pub struct Refused {
    /// The exact cause.
    pub reason: Reason,
    /// The key it named, if there is one.
    pub key: Option<Arc<Key>>,
    /// The key id it named, if that is one by its form. A malformed one may be a secret in the wrong place.
    pub key_id: Option<String>,
    /// For the operator's audit row only: the mistake under which the signature would hold.
    pub hint: Option<&'static str>,
}

/// Why a request is refused (spec 12), in the order in which the causes are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The request-target is not a path of printable ASCII without a fragment; a 400, all others are a 401.
    MalformedTarget,
    /// A `KH-*` header is missing, given twice or not ASCII.
    MissingHeaders,
    /// The key id is malformed.
    BadKey,
    /// The timestamp is not 10 digits.
    BadTimestamp,
    /// The timestamp is more than 300 s off.
    TimestampOutOfWindow,
    /// The nonce is malformed.
    BadNonce,
    /// The signature is not 64 hex digits.
    BadSignature,
    /// Unknown, revoked, expired or locked: one answer for all.
    UnknownOrLockedKey,
    /// Well-formed, but wrong.
    SignatureMismatch,
    /// The key's allow-list does not have the address.
    IpNotAllowed,
    /// The nonce is spent.
    ReplayDetected,
}

impl Reason {
    /// As in a problem's `reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MalformedTarget => "malformed_target",
            Self::MissingHeaders => "missing_headers",
            Self::BadKey => "bad_key",
            Self::BadTimestamp => "bad_timestamp",
            Self::TimestampOutOfWindow => "timestamp_out_of_window",
            Self::BadNonce => "bad_nonce",
            Self::BadSignature => "bad_signature",
            Self::UnknownOrLockedKey => "unknown_or_locked_key",
            Self::SignatureMismatch => "signature_mismatch",
            Self::IpNotAllowed => "ip_not_allowed",
            Self::ReplayDetected => "replay_detected",
        }
    }
}

/// Judges a request. Fails only when the store cannot be asked for the key.
pub fn judge(visit: &Visit, keys: &dyn Keys) -> Result<Verdict, Fault> {
    let key_id = || visit.request.headers.once(header::KEY).filter(|id| wire::is_key_id(id)).map(str::to_owned);
    let claims = match claims(&visit.request, |timestamp| is_in_window(timestamp, visit.moment.now)) {
        Ok(claims) => claims,
        Err(reason) => return Ok(Verdict::Refused(Refused { reason, key: None, key_id: key_id(), hint: None })),
    };
    let request = &visit.request;
    let signed = claims.signing_string(request, &request.target);
    let peer = visit.peer.to_canonical();
    let now = visit.moment.now;
    let cached = keys.find(PROVIDER, claims.key_id, From::Cache)?;
    let (mut key, mut judged) = check(cached, &signed, claims.signature, peer, now);
    if judged.is_err() {
        // Another process may have made, rotated, opened up or unlocked the key since it was cached.
        let stored = keys.find(PROVIDER, claims.key_id, From::Store)?;
        (key, judged) = check(stored, &signed, claims.signature, peer, now);
    }
    let nonce = claims.nonce.to_owned();
    Ok(match (judged, key) {
        (Ok(()), Some(key)) => Verdict::Admitted(Admitted { key, nonce, timestamp: claims.timestamp }),
        (judged, key) => {
            let reason = judged.err().unwrap_or(Reason::UnknownOrLockedKey);
            let hint = hint(request, &claims, &signed, secret(key.as_deref())).filter(|_| reason == Reason::SignatureMismatch);
            Verdict::Refused(Refused { reason, key, key_id: key_id(), hint })
        }
    })
}

/// Whether the head is one that can be admitted, as far as its form goes: if not, its body need not be read.
pub fn is_well_formed(head: &Request) -> bool {
    claims(head, |_| true).is_ok()
}

/// What the `KH-*` headers say, each of the right form.
struct Claims<'a> {
    key_id: &'a str,
    /// As it was sent: it is signed as text.
    timestamp_text: &'a str,
    timestamp: i64,
    nonce: &'a str,
    signature: &'a str,
}

impl Claims<'_> {
    fn signing_string(&self, request: &Request, target: &str) -> String {
        sign::signing_string(&request.method, target, self.timestamp_text, self.nonce, &request.body)
    }
}

fn claims(request: &Request, is_in_window: impl FnOnce(i64) -> bool) -> Result<Claims<'_>, Reason> {
    if !is_target(&request.target) {
        return Err(Reason::MalformedTarget);
    }
    let present = |name| present(&request.headers, name).ok_or(Reason::MissingHeaders);
    let (key_id, timestamp_text) = (present(header::KEY)?, present(header::TIMESTAMP)?);
    let (nonce, signature) = (present(header::NONCE)?, present(header::SIGNATURE)?);
    if !wire::is_key_id(key_id) {
        return Err(Reason::BadKey);
    }
    let timestamp = if wire::is_timestamp(timestamp_text) { timestamp_text.parse().ok() } else { None };
    let timestamp = timestamp.ok_or(Reason::BadTimestamp)?;
    if !is_in_window(timestamp) {
        return Err(Reason::TimestampOutOfWindow);
    }
    if !wire::is_nonce(nonce) {
        return Err(Reason::BadNonce);
    }
    if !wire::is_signature(signature) {
        return Err(Reason::BadSignature);
    }
    Ok(Claims { key_id, timestamp_text, timestamp, nonce, signature })
}

fn present<'a>(headers: &'a Headers, name: &'a str) -> Option<&'a str> {
    headers.once(name).filter(|value| !value.is_empty())
}

/// A path with an optional query: no absolute form, nothing that a hop between could have read otherwise.
fn is_target(target: &str) -> bool {
    target.starts_with('/') && target.bytes().all(|byte| (0x21..=0x7e).contains(&byte) && byte != b'#')
}

fn is_in_window(timestamp: i64, now: Timestamp) -> bool {
    (now.as_second() - timestamp).abs() <= wire::WINDOW_S
}

/// The key found, kept for the audit row even when it does not open the door.
fn check(
    key: Option<Arc<Key>>,
    signed: &str,
    signature: &str,
    peer: IpAddr,
    now: Timestamp,
) -> (Option<Arc<Key>>, Result<(), Reason>) {
    let holds = sign::verify(secret(key.as_deref()).as_bytes(), signed, signature);
    let judged = match &key {
        Some(key) if key.is_valid(now) && !holds => Err(Reason::SignatureMismatch),
        Some(key) if key.is_valid(now) && !key.allows(peer) => Err(Reason::IpNotAllowed),
        Some(key) if key.is_valid(now) => Ok(()),
        _ => Err(Reason::UnknownOrLockedKey),
    };
    (key, judged)
}

fn secret(key: Option<&Key>) -> &str {
    key.map_or(DUMMY_SECRET, |key| key.secret.expose_secret())
}

/// The usual mistakes of a new client. Worked out for unknown keys too, so that those take as long.
fn hint(request: &Request, claims: &Claims<'_>, signed: &str, secret: &str) -> Option<&'static str> {
    let attempts = [
        ("would match with the prefix in the signed path", claims.signing_string(request, &format!("{MOUNT}{}", request.target))),
        ("would match without the query in the signed path", claims.signing_string(request, request.path())),
        ("would match with a newline after the last signed line", format!("{signed}\n")),
    ];
    let matching = attempts.map(|(hint, signed)| sign::verify(secret.as_bytes(), &signed, claims.signature).then_some(hint));
    matching.into_iter().flatten().next()
}
