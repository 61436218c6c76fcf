//! The request hash and its shuffled timestamp (spec 1), the same code for both ends.

use base16ct::lower as hex;
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
    let key = Zeroizing::new(hex::encode_string(&Sha1::digest(php_trim(api_key))));
    hex::encode_string(&Sha1::new().chain_update(key.as_bytes()).chain_update(domain).chain_update(timestamp).finalize())
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

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use serde_json::Value;

    use super::super::wire;
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn hashes_made_by_php_agree() {
        let vectors: Vec<Value> = serde_json::from_str(include_str!("../../../tests/vectors/gp-hash.json")).unwrap();
        assert_eq!(vectors.len(), 6);
        for vector in &vectors {
            let text = |name: &str| vector[name].as_str().unwrap();
            let (key, domain, timestamp) = (text("api_key"), text("domain"), text("timestamp"));
            assert_eq!(hash(key, domain, timestamp), text("hash"));
            assert!(verify(key, domain, timestamp, text("hash")));
            assert!(!verify("another", domain, timestamp, text("hash")));
        }
    }

    #[test]
    fn a_timestamp_is_a_text() {
        let documented = "4af54beb385540d0e5ea11b8b09490c958cf4fb5";
        assert_eq!(hash("GPTESTKEY", "example.com", "0527662716"), documented);
        assert_eq!(hash("GPTESTKEY", "example.com", "527662716"), "41d807fa1ef0deb11d1ebd9b7892530be378484e");
        assert!(!wire::is_timestamp("527662716"));
    }

    #[test]
    fn keys_are_trimmed_as_php_trims() {
        let documented = hash("GPTESTKEY", "example.com", "0527662716");
        assert_eq!(hash(" \t\n\r\0\x0bGPTESTKEY\x0b\0\r\n\t ", "example.com", "0527662716"), documented);
        // Blanks to Unicode, not to PHP.
        for other in ["\u{a0}", "\u{c}", "\u{85}", "\u{2003}"] {
            assert_ne!(hash(&format!("GPTESTKEY{other}"), "example.com", "0527662716"), documented);
        }
    }

    #[test]
    fn anything_changed_fails() {
        let good = hash("GPTESTKEY", "example.com", "0527662716");
        for position in 0..good.len() {
            let mut bad = good.clone().into_bytes();
            bad[position] = if bad[position] == b'0' { b'1' } else { b'0' };
            assert!(!verify("GPTESTKEY", "example.com", "0527662716", std::str::from_utf8(&bad).unwrap()));
        }
        for bad in ["", &good[..39], &format!("{good}0")] {
            assert!(!verify("GPTESTKEY", "example.com", "0527662716", bad));
        }
        assert!(!verify("GPTESTKEY", "EXAMPLE.com", "0527662716", &good));
    }

    /// The hash alone cannot tell these apart, so the syntax must.
    #[test]
    fn syntax_closes_what_the_concatenation_opens() {
        assert_eq!(hash("k", "a.com", "1234567890"), hash("k", "a.com1", "234567890"));
        assert!(wire::is_domain("a.com") && wire::is_timestamp("1234567890"));
        assert!(!wire::is_domain("a.com1") && !wire::is_timestamp("234567890"));
        // A hash lengthened without the key covers SHA-1's padding, which is no host name.
        assert!(!wire::is_domain("a.com1234567890\u{80}\0\0.evil.example"));
    }

    #[test]
    fn a_shuffle_keeps_the_digits() {
        let mut rng = StdRng::from_seed([7; 32]);
        let mut shuffles = std::collections::BTreeSet::new();
        for _ in 0..2000 {
            let shuffle = shuffled_timestamp(at(1_800_000_000), &mut rng);
            assert!(wire::is_timestamp(&shuffle) && is_fresh(&shuffle, at(1_800_000_000)), "{shuffle}");
            shuffles.insert(shuffle);
        }
        // The worst second: eight zeros leave 90 orders, most of which begin with one.
        assert_eq!(shuffles.len(), 90);
        assert_eq!(shuffles.iter().filter(|shuffle| shuffle.starts_with('0')).count(), 72);
    }

    #[test]
    fn the_window_is_inclusive() {
        // The digits of 1799999999 are those of no other second nearby.
        for (offset, fresh) in [(-301, false), (-300, true), (0, true), (300, true), (301, false)] {
            assert_eq!(is_fresh("9999999971", at(1_799_999_999 + offset)), fresh, "{offset}");
        }
        for bad in ["", "180000000", "18000000000", "180000000x", "١800000000"] {
            assert!(!is_fresh(bad, at(1_800_000_000)), "{bad}");
        }
    }

    fn sorted(text: &str) -> Vec<u8> {
        let mut digits = text.as_bytes().to_vec();
        digits.sort_unstable();
        digits
    }

    proptest! {
        #[test]
        fn freshness_is_what_brute_force_says(now in 1_600_000_000_i64..2_400_000_000, age in 0_i64..100_000, seed: [u8; 32]) {
            let mut rng = StdRng::from_seed(seed);
            let shuffle = shuffled_timestamp(at(now - age), &mut rng);
            let expected = (-WINDOW_S..=WINDOW_S).any(|offset| sorted(&(now + offset).to_string()) == sorted(&shuffle));
            prop_assert_eq!(is_fresh(&shuffle, at(now)), expected);
            prop_assert!(age > WINDOW_S || expected);
        }

        #[test]
        fn every_time_has_a_shuffle(now in 0_i64..9_999_999_999, seed: [u8; 32]) {
            let shuffle = shuffled_timestamp(at(now), &mut StdRng::from_seed(seed));
            prop_assert!(is_fresh(&shuffle, at(now) + SignedDuration::from_secs(WINDOW_S)));
        }
    }
}
