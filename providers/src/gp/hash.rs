//! The request hash and its shuffled timestamp (spec 1), the same code for both ends.

use jiff::Timestamp;
use rand::Rng;
use rand::seq::SliceRandom;
use sha1::{Digest, Sha1};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// How far the digits' second may be off, in seconds, inclusive (our choice, 2.5).
pub const WINDOW_S: i64 = 300;

/// The value of `hash`: 40 lower-case hex digits. A plain concatenation, so only the strict syntax of `domain` and `timestamp`
/// (see [`super::wire`]) keeps two requests from having one hash and a hash from being lengthened.
pub fn hash(api_key: &str, domain: &str, timestamp: &str) -> String {
    let key = Zeroizing::new(hex::encode(Sha1::digest(php_trim(api_key))));
    hex::encode(Sha1::new().chain_update(key.as_bytes()).chain_update(domain).chain_update(timestamp).finalize())
}

/// Whether a hash in lower-case hex holds; in constant time.
pub fn verify(api_key: &str, domain: &str, timestamp: &str, claimed: &str) -> bool {
    hash(api_key, domain, timestamp).as_bytes().ct_eq(claimed.as_bytes()).into()
}

/// The ten digits of the second in random order, as `str_shuffle(time())` makes them. May begin with 0: it is a text.
pub fn shuffled_timestamp(now: Timestamp, rng: &mut impl Rng) -> String {
    let mut digits: Vec<char> = format!("{:010}", now.as_second()).chars().collect();
    digits.shuffle(rng);
    digits.into_iter().collect()
}

/// Whether the digits are those of some second within the window. Weak by nature: most captures become acceptable again within a
/// day, which is why a hash is single use.
pub fn is_fresh(timestamp: &str, now: Timestamp) -> bool {
    let Some(claimed) = digit_counts(timestamp) else { return false };
    (now.as_second() - WINDOW_S..=now.as_second() + WINDOW_S)
        .any(|second| digit_counts(&format!("{second:010}")) == Some(claimed))
}

/// How often each digit occurs, four bits per digit; `None` for anything but ten digits.
fn digit_counts(text: &str) -> Option<u64> {
    if text.len() != 10 {
        return None;
    }
    text.bytes().try_fold(0, |counts, byte| byte.is_ascii_digit().then(|| counts + (1 << (4 * u32::from(byte - b'0')))))
}

/// What PHP's `trim` leaves.
pub fn php_trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\n', '\r', '\0', '\x0b'])
}
