//! Webhook signatures: Stripe's scheme (spec 14; our choice, 2.13), the same code for the courier and the receiver.

use base16ct::lower as hex;
use hmac::Mac;
use jiff::Timestamp;

use super::sign::{HmacSha256, keyed};

/// How far a webhook's timestamp may be off in either direction, in seconds, inclusive (our choice, 2.13).
pub const TOLERANCE_S: i64 = 300;
/// A rotation needs two signatures; a header with more than this is not worth the work.
const MAX_SIGNATURES: usize = 8;
/// Longer headers are refused unread.
const MAX_HEADER_BYTES: usize = 4096;

/// Why a webhook is not taken for the provider's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// There is nothing to check with.
    #[error("no webhook secret is set")]
    NoSecret,
    /// No signature header, or more than one: whoever stands between might read the other one.
    #[error("there is not exactly one signature header")]
    NoHeader,
    /// Not `t=<unix seconds>,v1=<64 hex digits>`.
    #[error("the signature header is malformed: expected t=<unix seconds>,v1=<64 hex digits>")]
    Malformed,
    /// No `v1` signature is right: another secret, or a changed body.
    #[error("the signature does not match: another secret, or the body was changed")]
    Mismatch,
    /// Signed longer ago than tolerated: late, or a replay.
    #[error("the timestamp is {0} s old, more than {TOLERANCE_S} s")]
    TooOld(i64),
    /// Signed by a clock ahead of ours.
    #[error("the timestamp is {0} s ahead of our clock, more than {TOLERANCE_S} s")]
    TooNew(i64),
}

/// The `v1` signature: HMAC-SHA256 over `<timestamp>.<raw body>` as 64 lower-case hex digits. `timestamp` is Unix seconds.
pub fn signature(secret: &[u8], timestamp: i64, body: &[u8]) -> String {
    hex::encode_string(&mac(secret, timestamp, body).finalize().into_bytes())
}

/// The value of `KH-Webhook-Signature`; during a rotation both secrets sign.
pub fn header(secrets: &[&[u8]], timestamp: i64, body: &[u8]) -> String {
    let signatures = secrets.iter().map(|secret| format!(",v1={}", signature(secret, timestamp, body)));
    std::iter::once(format!("t={timestamp}")).chain(signatures).collect()
}

/// Whether a header's signature holds for the raw body under one of the secrets, and is neither late nor early. Signatures are
/// compared in constant time; elements of other schemes are ignored; empty secrets never match.
pub fn verify(header: &str, body: &[u8], secrets: &[&[u8]], now: Timestamp) -> Result<(), Rejected> {
    if secrets.iter().all(|secret| secret.is_empty()) {
        return Err(Rejected::NoSecret);
    }
    let (timestamp, signatures) = parse(header).ok_or(Rejected::Malformed)?;
    let matches = |secret: &&[u8]| {
        let mac = mac(secret, timestamp, body);
        !secret.is_empty() && signatures.iter().any(|claimed| mac.clone().verify_slice(claimed).is_ok())
    };
    if !secrets.iter().any(matches) {
        return Err(Rejected::Mismatch);
    }
    match now.as_second() - timestamp {
        age if age > TOLERANCE_S => Err(Rejected::TooOld(age)),
        age if age < -TOLERANCE_S => Err(Rejected::TooNew(-age)),
        _ => Ok(()),
    }
}

fn mac(secret: &[u8], timestamp: i64, body: &[u8]) -> HmacSha256 {
    keyed(secret).chain_update(format!("{timestamp}.")).chain_update(body)
}

/// The one `t` and every readable `v1`.
fn parse(header: &str) -> Option<(i64, Vec<[u8; 32]>)> {
    if header.len() > MAX_HEADER_BYTES {
        return None;
    }
    let mut timestamp = None;
    let mut signatures = Vec::new();
    for element in header.split(',') {
        match element.trim().split_once('=') {
            Some(("t", _)) if timestamp.is_some() => return None,
            Some(("t", text)) => timestamp = Some(unix_seconds(text)?),
            Some(("v1", text)) => {
                let mut claimed = [0; 32];
                if base16ct::mixed::decode(text, &mut claimed).is_ok_and(|read| read.len() == 32) {
                    signatures.push(claimed);
                }
            }
            _ => {}
        }
    }
    (!signatures.is_empty() && signatures.len() <= MAX_SIGNATURES).then_some((timestamp?, signatures))
}

/// Only the one way to write a number: the signature covers its digits. Twelve of them last until the year 33658.
fn unix_seconds(text: &str) -> Option<i64> {
    let canonical = text.len() <= 12 && text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    canonical.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Vector {
        secret: String,
        timestamp: String,
        body: String,
        header: String,
    }

    fn vectors() -> Vec<Vector> {
        serde_json::from_str(include_str!("../../../tests/vectors/webhook-signature.json")).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn openssl_agrees() {
        let checked = r#"{"type":"order.paid","data":{"order_id":1001}}"#;
        assert_eq!(
            signature(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 1_767_225_600, checked.as_bytes()),
            "baf655d9e4f6766928e23e09d9411ca4374b9aa5229d015c8d719d200619f498"
        );
        for vector in vectors() {
            let timestamp = vector.timestamp.parse().unwrap();
            let (secret, body) = (vector.secret.as_bytes(), vector.body.as_bytes());
            assert_eq!(header(&[secret], timestamp, body), vector.header);
            assert_eq!(verify(&vector.header, body, &[secret], at(timestamp)), Ok(()));
        }
    }

    #[test]
    fn during_a_rotation_either_secret_will_do() {
        let both = header(&[b"old", b"new"], 1_800_000_000, b"{}");
        assert_eq!(both.matches("v1=").count(), 2);
        for secrets in [&[b"old".as_slice()][..], &[b"new"], &[b"other", b"new"]] {
            assert_eq!(verify(&both, b"{}", secrets, at(1_800_000_000)), Ok(()));
        }
        assert_eq!(verify(&both, b"{}", &[b"other"], at(1_800_000_000)), Err(Rejected::Mismatch));
    }

    #[test]
    fn five_minutes_either_way_and_no_second_more() {
        let header = header(&[b"k"], 1_800_000_000, b"{}");
        for (offset, verdict) in
            [(300, Ok(())), (301, Err(Rejected::TooOld(301))), (-300, Ok(())), (-301, Err(Rejected::TooNew(301)))]
        {
            assert_eq!(verify(&header, b"{}", &[b"k"], at(1_800_000_000 + offset)), verdict, "{offset}");
        }
    }

    #[test]
    fn anything_changed_is_rejected() {
        let vector = vectors().swap_remove(0);
        let now = at(vector.timestamp.parse().unwrap());
        let check = |header: &str, body: &[u8]| verify(header, body, &[vector.secret.as_bytes()], now);
        for position in 0..vector.body.len() {
            let mut body = vector.body.clone().into_bytes();
            body[position] ^= 1;
            assert_eq!(check(&vector.header, &body), Err(Rejected::Mismatch));
        }
        let later = vector.header.replace(&vector.timestamp, "1745794013");
        assert_eq!(check(&later, vector.body.as_bytes()), Err(Rejected::Mismatch));
        assert_eq!(check(&vector.header, b""), Err(Rejected::Mismatch));
    }

    #[test]
    fn other_schemes_and_unreadable_signatures_are_ignored_beside_a_good_one() {
        let good = header(&[b"k"], 1_800_000_000, b"{}");
        let now = at(1_800_000_000);
        for extended in [
            format!("{good},v0=abc,scheme,=,x=y"),
            format!("v1=zz,{good}"),
            good.replace(',', " , "),
            good.replace(&signature(b"k", 1_800_000_000, b"{}"), &signature(b"k", 1_800_000_000, b"{}").to_uppercase()),
        ] {
            assert_eq!(verify(&extended, b"{}", &[b"k"], now), Ok(()), "{extended}");
        }
        let downgraded = good.replace("v1=", "v0=");
        assert_eq!(verify(&downgraded, b"{}", &[b"k"], now), Err(Rejected::Malformed));
    }

    #[test]
    fn hostile_headers_are_malformed() {
        let v1 = format!("v1={}", signature(b"k", 1_800_000_000, b"{}"));
        for bad in [
            String::new(),
            ",,,=".to_owned(),
            v1.clone(),
            "t=1800000000".to_owned(),
            format!("t=,{v1}"),
            format!("t=+1800000000,{v1}"),
            format!("t=01800000000,{v1}"),
            format!("t=-1,{v1}"),
            format!("t=99999999999999999999,{v1}"),
            format!("t=1800000000,t=1800000000,{v1}"),
            format!("t=1800000000,{}", [v1.as_str(); 9].join(",")),
            format!("t=1800000000,{v1},{}", "x".repeat(5000)),
            format!("t=1800000000,{v1}00"),
            format!("t=1800000000,{}", &v1[..v1.len() - 2]),
            "t=١٢,v1=ü".to_owned(),
        ] {
            assert_eq!(verify(&bad, b"{}", &[b"k"], at(1_800_000_000)), Err(Rejected::Malformed), "{bad}");
        }
    }

    #[test]
    fn an_empty_secret_never_matches() {
        let forged = header(&[b""], 1_800_000_000, b"{}");
        let now = at(1_800_000_000);
        assert_eq!(verify(&forged, b"{}", &[], now), Err(Rejected::NoSecret));
        assert_eq!(verify(&forged, b"{}", &[b""], now), Err(Rejected::NoSecret));
        assert_eq!(verify(&forged, b"{}", &[b"", b"real"], now), Err(Rejected::Mismatch));
    }
}
