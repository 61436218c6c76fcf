//! When a failed delivery is made again (our choice, 2.13).

use jiff::{SignedDuration, Timestamp};
use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::store::Then;

/// Seconds between an attempt and the next: about 28 hours in all.
const DELAYS_S: [i64; 7] = [5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 10 * 3600];
/// How far a delay is shifted at random, per mille in either direction, so that what failed together is not repeated together.
const JITTER: i64 = 100;
/// The longest wait that a receiver may ask for (our choice).
const ASKED_MAX: SignedDuration = SignedDuration::from_hours(24);

/// What follows a failed attempt, `attempts` having been made before it. A receiver may ask for a later one, never for a sooner one.
pub(super) fn next(attempts: u32, now: Timestamp, asked: Option<SignedDuration>, rng: &mut StdRng) -> Then {
    let delay = usize::try_from(attempts).ok().and_then(|attempts| DELAYS_S.get(attempts));
    let Some(delay) = delay else { return Then::Dead };
    let delay = SignedDuration::from_millis(delay * (1000 + rng.random_range(-JITTER..=JITTER)));
    Then::Again(now + asked.map_or(delay, |asked| asked.min(ASKED_MAX).max(delay)))
}

/// The value of `Retry-After`: seconds, or a date.
pub(super) fn asked(value: &str, now: Timestamp) -> Option<SignedDuration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u32>() {
        return Some(SignedDuration::from_secs(seconds.into()));
    }
    Some(jiff::fmt::rfc2822::parse(value).ok()?.timestamp().duration_since(now))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    fn now() -> Timestamp {
        "2027-01-15T08:00:00Z".parse().unwrap()
    }

    fn delay(attempts: u32, asked: Option<i64>, seed: u8) -> Option<f64> {
        let asked = asked.map(SignedDuration::from_secs);
        match next(attempts, now(), asked, &mut StdRng::from_seed([seed; 32])) {
            Then::Again(at) => Some(at.duration_since(now()).as_secs_f64()),
            Then::Dead => None,
            Then::Delivered => panic!("delivered"),
        }
    }

    #[test]
    fn eight_attempts_in_about_28_hours() {
        let mut total = 0.0;
        for (attempts, seconds) in (0..).zip([5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 36_000.0]) {
            for seed in 0..50 {
                let delay = delay(attempts, None, seed).unwrap();
                assert!((0.9 * seconds..=1.1 * seconds).contains(&delay), "{attempts}: {delay}");
            }
            total += seconds;
        }
        assert_eq!(delay(7, None, 1), None);
        assert_eq!(delay(u32::MAX, Some(60), 1), None);
        assert!((27.0 * 3600.0..29.0 * 3600.0).contains(&total));
        assert_ne!(delay(3, None, 1), delay(3, None, 2));
    }

    #[test]
    fn a_receiver_may_ask_for_later_and_never_for_sooner() {
        assert_eq!(delay(0, Some(60), 1), Some(60.0));
        assert_eq!(delay(2, Some(60), 1), delay(2, None, 1));
        assert_eq!(delay(0, Some(1_000_000_000), 1), Some(86_400.0));
        assert_eq!(delay(0, Some(-1_000_000_000), 1), delay(0, None, 1));
    }

    #[test]
    fn seconds_or_a_date() {
        for (value, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Fri, 15 Jan 2027 08:02:00 GMT", Some(120)),
            ("Fri, 15 Jan 2027 07:00:00 GMT", Some(-3600)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("99999999999", None),
        ] {
            assert_eq!(asked(value, now()), seconds.map(SignedDuration::from_secs), "{value}");
        }
    }
}
