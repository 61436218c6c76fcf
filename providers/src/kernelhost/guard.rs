//! Admission: what a request's head, signature and source address decide before any transaction (our choices, 2.1 and 2.2).

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use secrecy::ExposeSecret;

use super::sign;
use super::wire::{self, header};
use crate::books::Fault;
use crate::message::{Headers, Request};
use crate::server::{From, Key, Keys, Moment, Visit};

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
    /// A `KH-*` header is missing, given twice, made of several, or not ASCII.
    MissingHeaders,
    /// The key id is malformed.
    BadKey,
    /// The timestamp is not 10 digits.
    BadTimestamp,
    /// The timestamp is more than 300 s off, or not behind the fence of a restored book.
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
    let claims = match claims(&visit.request, |timestamp| is_in_window(timestamp, &visit.moment)) {
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
            let hint = hint(visit, &claims, &signed, secret(key.as_deref())).filter(|_| reason == Reason::SignatureMismatch);
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

/// No value of these headers has a comma: where there is one, a hop between made one line of two.
fn present<'a>(headers: &'a Headers, name: &'a str) -> Option<&'a str> {
    headers.once(name).filter(|value| !value.is_empty() && !value.contains(','))
}

/// A path with an optional query: no absolute form, nothing that a hop between could have read otherwise.
fn is_target(target: &str) -> bool {
    target.starts_with('/') && target.bytes().all(|byte| (0x21..=0x7e).contains(&byte) && byte != b'#')
}

fn is_in_window(timestamp: i64, moment: &Moment) -> bool {
    let is_fenced = moment.rules.fence.is_some_and(|lost_until| timestamp <= lost_until.as_second() + wire::WINDOW_S);
    !is_fenced && (moment.now.as_second() - timestamp).abs() <= wire::WINDOW_S
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
fn hint(visit: &Visit, claims: &Claims<'_>, signed: &str, secret: &str) -> Option<&'static str> {
    let request = &visit.request;
    let attempts = [
        (
            "would match with the prefix in the signed path",
            claims.signing_string(request, &format!("{}{}", visit.prefix, request.target)),
        ),
        ("would match without the query in the signed path", claims.signing_string(request, request.path())),
        ("would match with a newline after the last signed line", format!("{signed}\n")),
    ];
    let matching = attempts.map(|(hint, signed)| sign::verify(secret.as_bytes(), &signed, claims.signature).then_some(hint));
    matching.into_iter().flatten().next()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::books::{AccountId, KeyRow};
    use crate::server::{KeyLimits, Moment, Rules};

    const SECRET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    const NONCE: &str = "00112233445566778899aabbccddeeff";
    const NOW: i64 = 1_767_225_600;

    fn key_id() -> String {
        format!("kh_live_{}", "A".repeat(32))
    }

    fn key() -> Key {
        Key {
            row: KeyRow(1),
            version: 1,
            account: AccountId(1),
            public_id: key_id(),
            label: "panel".to_owned(),
            secret: SECRET.into(),
            scopes: Vec::new(),
            allowed: Vec::new(),
            limits: KeyLimits::default(),
            created_at: Timestamp::UNIX_EPOCH,
            expires_at: None,
            revoked: false,
        }
    }

    /// What the cache and the store know, and how they were asked.
    struct Known {
        cached: Option<Arc<Key>>,
        stored: Option<Arc<Key>>,
        asked: RefCell<Vec<From>>,
    }

    impl Known {
        fn both(key: Key) -> Self {
            let key = Some(Arc::new(key));
            Self::new(key.clone(), key)
        }

        fn new(cached: Option<Arc<Key>>, stored: Option<Arc<Key>>) -> Self {
            Self { cached, stored, asked: RefCell::default() }
        }
    }

    impl Keys for Known {
        fn find(&self, provider: &str, public_id: &str, from: From) -> Result<Option<Arc<Key>>, Fault> {
            self.asked.borrow_mut().push(from);
            let known = if from == From::Cache { &self.cached } else { &self.stored };
            Ok(known.clone().filter(|key| provider == PROVIDER && key.public_id == public_id))
        }

        fn at_address(&self, _: &str, _: IpAddr, _: From) -> Result<Vec<Arc<Key>>, Fault> {
            Ok(Vec::new())
        }
    }

    fn visit(request: Request) -> Visit {
        let moment = Moment { now: Timestamp::from_second(NOW).unwrap(), seed: [0; 32], rules: Rules::default() };
        let (peer, request_id) = ([203, 0, 113, 7].into(), "01HX7Z3K8Q".to_owned());
        Visit { request, prefix: MOUNT.into(), peer, request_id, moment }
    }

    fn signed_as(method: &str, target: &str, timestamp: &str, signed: &str) -> Request {
        let headers = Headers::new()
            .with(header::KEY, key_id())
            .with(header::TIMESTAMP, timestamp)
            .with(header::NONCE, NONCE)
            .with(header::SIGNATURE, sign::sign(SECRET.as_bytes(), signed));
        Request { method: method.to_owned(), target: target.to_owned(), headers, body: Vec::new() }
    }

    fn signed(timestamp: i64) -> Request {
        let timestamp = timestamp.to_string();
        signed_as("GET", "/v1/me", &timestamp, &sign::signing_string("GET", "/v1/me", &timestamp, NONCE, b""))
    }

    fn replace(mut request: Request, name: &str, values: &[&[u8]]) -> Request {
        let kept = request.headers.iter().filter(|(header, _)| !header.eq_ignore_ascii_case(name));
        let mut headers = kept.collect::<Headers>();
        for value in values {
            headers.add(name, *value);
        }
        request.headers = headers;
        request
    }

    fn refusal(request: Request, known: &Known) -> Option<Refused> {
        match judge(&visit(request), known).unwrap() {
            Verdict::Refused(refused) => Some(refused),
            Verdict::Admitted(_) => None,
        }
    }

    fn reason(request: Request, known: &Known) -> Option<Reason> {
        refusal(request, known).map(|refused| refused.reason)
    }

    #[test]
    fn an_authentic_request_is_admitted_from_the_cache() {
        let known = Known::both(key());
        let Verdict::Admitted(admitted) = judge(&visit(signed(NOW)), &known).unwrap() else { panic!("refused") };
        assert_eq!((admitted.key.row, admitted.nonce.as_str(), admitted.timestamp), (KeyRow(1), NONCE, NOW));
        assert_eq!(*known.asked.borrow(), [From::Cache]);
    }

    #[test]
    fn each_header_comes_exactly_once_and_in_ascii() {
        let known = Known::both(key());
        for name in [header::KEY, header::TIMESTAMP, header::NONCE, header::SIGNATURE] {
            let request = signed(NOW);
            let value = request.headers.once(name).unwrap().as_bytes().to_vec();
            let merged = [&value[..], &value[..]].join(&b", "[..]);
            for values in [
                vec![],
                vec![&value[..], &value[..]],
                vec![&merged[..]],
                vec![b"".as_slice()],
                vec![b"\xff".as_slice()],
                vec![b"a\tb"],
            ] {
                let found = reason(replace(request.clone(), name, &values), &known);
                assert_eq!(found, Some(Reason::MissingHeaders), "{name} {values:?}");
            }
        }
        assert!(known.asked.borrow().is_empty());
    }

    #[test]
    fn each_malformed_header_has_its_own_reason() {
        let known = Known::both(key());
        for (name, value, expected) in [
            (header::KEY, "kh_live_short".to_owned(), Reason::BadKey),
            (header::KEY, key_id().to_lowercase(), Reason::BadKey),
            (header::TIMESTAMP, "176722560".to_owned(), Reason::BadTimestamp),
            (header::TIMESTAMP, "+176722560".to_owned(), Reason::BadTimestamp),
            (header::TIMESTAMP, "1767225600.0".to_owned(), Reason::BadTimestamp),
            (header::TIMESTAMP, "0000000000".to_owned(), Reason::TimestampOutOfWindow),
            (header::NONCE, "0".repeat(21), Reason::BadNonce),
            (header::NONCE, "0".repeat(45), Reason::BadNonce),
            (header::NONCE, format!("{}+", "0".repeat(31)), Reason::BadNonce),
            (header::SIGNATURE, "0".repeat(63), Reason::BadSignature),
            (header::SIGNATURE, "g".repeat(64), Reason::BadSignature),
        ] {
            let found = reason(replace(signed(NOW), name, &[value.as_bytes()]), &known);
            assert_eq!(found, Some(expected), "{name}: {value}");
        }
        assert!(known.asked.borrow().is_empty());
    }

    #[test]
    fn the_first_fault_in_the_documented_order_is_named() {
        let known = Known::both(key());
        let mut request = signed(NOW - 301);
        request = replace(request, header::NONCE, &[b"short"]);
        request = replace(request, header::SIGNATURE, &[b"short"]);
        assert_eq!(reason(request.clone(), &known), Some(Reason::TimestampOutOfWindow));
        request = replace(request, header::KEY, &[b"kh_live_"]);
        assert_eq!(reason(request.clone(), &known), Some(Reason::BadKey));
        request = replace(request, header::SIGNATURE, &[]);
        assert_eq!(reason(request, &known), Some(Reason::MissingHeaders));
    }

    #[test]
    fn the_window_is_300_s_on_both_sides_inclusive() {
        let known = Known::both(key());
        for (offset, expected) in [
            (-301, Some(Reason::TimestampOutOfWindow)),
            (-300, None),
            (0, None),
            (300, None),
            (301, Some(Reason::TimestampOutOfWindow)),
        ] {
            assert_eq!(reason(signed(NOW + offset), &known), expected, "{offset}");
        }
    }

    #[test]
    fn what_is_signed_for_a_moment_up_to_the_fence_is_refused() {
        let known = Known::both(key());
        let fenced = Some(Reason::TimestampOutOfWindow);
        for (offset, expected) in [(-300, fenced), (99, fenced), (100, fenced), (101, None), (300, None), (301, fenced)] {
            let mut visit = visit(signed(NOW + offset));
            visit.moment.rules.fence = Some(Timestamp::from_millisecond((NOW - 200) * 1000 + 999).unwrap());
            let found = match judge(&visit, &known).unwrap() {
                Verdict::Refused(refused) => Some(refused.reason),
                Verdict::Admitted(_) => None,
            };
            assert_eq!(found, expected, "{offset}");
        }
    }

    #[test]
    fn targets_that_a_hop_could_read_otherwise_are_refused() {
        let known = Known::both(key());
        for target in ["", "v1/me", "http://a/v1/me", "/v1/me#", "/v1/ me", "/v1/me\n", "/v1/mé", "/v1/\u{7f}", "*"] {
            let timestamp = NOW.to_string();
            let signed = sign::signing_string("GET", target, &timestamp, NONCE, b"");
            let found = reason(signed_as("GET", target, &timestamp, &signed), &known);
            assert_eq!(found, Some(Reason::MalformedTarget), "{target:?}");
        }
    }

    #[test]
    fn nothing_signed_can_be_changed() {
        let known = Known::both(key());
        let changes: [fn(&mut Request); 5] = [
            |request| request.method = "HEAD".to_owned(),
            |request| request.target.push_str("?a=1"),
            |request| request.target = "/v1/%6de".to_owned(),
            |request| request.body = b" ".to_vec(),
            |request| *request = replace(request.clone(), header::NONCE, &[b"10112233445566778899aabbccddeeff"]),
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut request = signed(NOW);
            change(&mut request);
            assert_eq!(reason(request, &known), Some(Reason::SignatureMismatch), "change {index}");
        }
    }

    #[test]
    fn unknown_revoked_and_expired_keys_are_one_answer() {
        let now = Timestamp::from_second(NOW).unwrap();
        for known in [
            Known::new(None, None),
            Known::both(Key { revoked: true, ..key() }),
            Known::both(Key { expires_at: Some(now), ..key() }),
        ] {
            let good = refusal(signed(NOW), &known).unwrap();
            let bad = refusal(replace(signed(NOW), header::SIGNATURE, &["0".repeat(64).as_bytes()]), &known).unwrap();
            for refused in [good, bad] {
                assert_eq!((refused.reason, refused.hint), (Reason::UnknownOrLockedKey, None));
                assert_eq!(refused.key_id, Some(key_id()));
            }
        }
    }

    #[test]
    fn unknown_key_and_wrong_signature_differ_in_the_reason_alone() {
        let wrong = || replace(signed(NOW), header::SIGNATURE, &["0".repeat(64).as_bytes()]);
        let (known, unknown) = (Known::both(key()), Known::new(None, None));
        assert_eq!(reason(wrong(), &known), Some(Reason::SignatureMismatch));
        assert_eq!(reason(wrong(), &unknown), Some(Reason::UnknownOrLockedKey));
        // Both cost the same questions.
        assert_eq!(*known.asked.borrow(), [From::Cache, From::Store]);
        assert_eq!(*unknown.asked.borrow(), [From::Cache, From::Store]);
    }

    #[test]
    fn a_stale_cache_refuses_nobody() {
        let nets = |net: &str| vec![net.parse().unwrap()];
        for cached in [
            None,
            Some(Key { secret: "before the rotation".into(), ..key() }),
            Some(Key { revoked: true, ..key() }),
            Some(Key { allowed: nets("198.51.100.0/24"), ..key() }),
        ] {
            let known = Known::new(cached.map(Arc::new), Some(Arc::new(key())));
            assert_eq!(reason(signed(NOW), &known), None);
            assert_eq!(*known.asked.borrow(), [From::Cache, From::Store]);
        }
    }

    #[test]
    fn the_allow_list_is_asked_after_the_signature() {
        let allowed = |net: &str| Known::both(Key { allowed: vec![net.parse().unwrap()], ..key() });
        assert_eq!(reason(signed(NOW), &allowed("203.0.113.0/24")), None);
        assert_eq!(reason(signed(NOW), &allowed("203.0.113.8/32")), Some(Reason::IpNotAllowed));
        assert_eq!(reason(signed(NOW), &allowed("2001:db8::/32")), Some(Reason::IpNotAllowed));
        let wrong = replace(signed(NOW), header::SIGNATURE, &["0".repeat(64).as_bytes()]);
        assert_eq!(reason(wrong, &allowed("203.0.113.8/32")), Some(Reason::SignatureMismatch));

        let mut mapped = visit(signed(NOW));
        mapped.peer = "::ffff:203.0.113.7".parse().unwrap();
        assert!(matches!(judge(&mapped, &allowed("203.0.113.0/24")).unwrap(), Verdict::Admitted(_)));
    }

    #[test]
    fn the_operator_learns_of_usual_mistakes() {
        let known = Known::both(key());
        let timestamp = NOW.to_string();
        let lines = |path: &str| sign::signing_string("GET", path, &timestamp, NONCE, b"");
        for (signed, hint) in [
            (lines("/cp/kh_reseller_api/v1/me?a=1"), Some("prefix")),
            (lines("/v1/me"), Some("query")),
            (format!("{}\n", lines("/v1/me?a=1")), Some("newline")),
            (lines("/v1/you"), None),
        ] {
            let refused = refusal(signed_as("GET", "/v1/me?a=1", &timestamp, &signed), &known).unwrap();
            assert_eq!(refused.reason, Reason::SignatureMismatch);
            assert!(match (refused.hint, hint) {
                (Some(found), Some(hint)) => found.contains(hint),
                (found, hint) => found.is_none() && hint.is_none(),
            });
        }
    }

    #[test]
    fn a_malformed_key_id_is_not_repeated() {
        let refused = refusal(replace(signed(NOW), header::KEY, &[SECRET.as_bytes()]), &Known::both(key())).unwrap();
        assert_eq!((refused.reason, refused.key_id), (Reason::BadKey, None));
    }
}
