//! How often a key may be used, and when failed signatures lock it: the rules both APIs share, pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::{Ipv4Net, Ipv6Net};
use jiff::{SignedDuration, Timestamp};

use crate::books::{Books, Failure, Fault, KeyRow, Lock, Mail};
use crate::server::{Key, KeyLimits, LockMode, LockRule};

const SECONDS_PER_DAY: i64 = 86_400;
/// The kind of a mail about a lock, and how many of them a day.
const LOCK_MAIL: &str = "key.locked";
const LOCK_MAILS_PER_DAY: u64 = 4;
/// Clocks of several hosts differ by less: each is within 300 s of the callers'.
const AHEAD_MAX: SignedDuration = SignedDuration::from_mins(10);
/// One token, in the thousandths that a meter counts: at 60 per minute a millisecond brings back one of them.
const TOKEN: i64 = 60_000;

/// A token bucket and a day's count (spec/kernelhost 11: 60 per minute with a burst of 20, 5,000 per UTC day).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meter {
    /// What is left in the bucket, in 60,000ths of a token.
    pub level: i64,
    /// When the level was right.
    pub at: Timestamp,
    /// The UTC day, counted from 1970.
    pub day: i64,
    /// Requests of that day.
    pub day_count: i64,
}

/// What a meter says of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Whether the request may go on.
    pub allowed: bool,
    /// Tokens left (`X-RateLimit-Remaining`).
    pub remaining: u32,
    /// When the bucket is full again, Unix seconds (`X-RateLimit-Reset`).
    pub reset_at: i64,
    /// Whole seconds until another request is worth a try; 0 when this one was allowed.
    pub retry_after_s: u64,
}

impl Meter {
    /// A full bucket.
    pub fn full(limits: KeyLimits, now: Timestamp) -> Self {
        Self { level: capacity(limits), at: now, day: day(now), day_count: 0 }
    }

    /// Takes one token, if there is one. A refused request costs nothing. A clock that went back brings nothing; one that went back far
    /// was ahead before, and is believed: else there would be no token until it has caught up.
    #[must_use]
    pub fn take(mut self, limits: KeyLimits, now: Timestamp) -> (Self, Reading) {
        if self.at.duration_since(now) > AHEAD_MAX {
            (self.at, self.day) = (now, day(now));
        }
        let passed_ms = (now.as_millisecond() - self.at.as_millisecond()).clamp(0, 3_600_000);
        let level = (self.level + passed_ms * i64::from(limits.per_minute)).min(capacity(limits));
        let today = day(now).max(self.day);
        let day_count = if today == self.day { self.day_count } else { 0 };
        let day_is_full = day_count >= i64::from(limits.per_day);
        let allowed = level >= TOKEN && !day_is_full;
        let spent = i64::from(allowed);
        let meter = Self { level: level - spent * TOKEN, at: self.at.max(now), day: today, day_count: day_count + spent };
        let retry_after_s = match (allowed, day_is_full) {
            (true, _) => 0,
            (false, true) => (today + 1) * SECONDS_PER_DAY - now.as_second(),
            (false, false) => seconds_to_gain(TOKEN - level, limits),
        };
        let remaining = u32::try_from(meter.level / TOKEN).unwrap_or(0);
        let reset_at = now.as_second() + seconds_to_gain(capacity(limits) - meter.level, limits);
        (meter, Reading { allowed, remaining, reset_at, retry_after_s: retry_after_s.unsigned_abs() })
    }
}

fn capacity(limits: KeyLimits) -> i64 {
    i64::from(limits.burst.max(1)) * TOKEN
}

fn day(now: Timestamp) -> i64 {
    now.as_second().div_euclid(SECONDS_PER_DAY)
}

fn seconds_to_gain(missing: i64, limits: KeyLimits) -> i64 {
    if missing <= 0 {
        return 0;
    }
    let per_second = i64::from(limits.per_minute.max(1)) * 1000;
    (missing + per_second - 1) / per_second
}

/// Takes one token of a key.
pub fn meter(books: &mut dyn Books, key: &Key, now: Timestamp) -> Result<Reading, Fault> {
    let before = books.meter(key.row)?.unwrap_or_else(|| Meter::full(key.limits, now));
    let (after, reading) = before.take(key.limits, now);
    books.set_meter(key.row, &after, None)?;
    Ok(reading)
}

/// The network an address counts as: its /24 or /64. One household or rented machine has at least that much.
pub fn network(peer: IpAddr) -> String {
    match peer.to_canonical() {
        IpAddr::V4(address) => Ipv4Net::new_assert(address, 24).trunc().to_string(),
        IpAddr::V6(address) => Ipv6Net::new_assert(address, 64).trunc().to_string(),
    }
}

/// Whether a key is locked for a caller.
pub fn is_locked(books: &mut dyn Books, key: KeyRow, peer: IpAddr, now: Timestamp) -> Result<bool, Fault> {
    Ok(keep_out(&books.locks(key, now)?, peer))
}

/// Whether one of the locks in force is for this caller.
pub fn keep_out(locks: &[Lock], peer: IpAddr) -> bool {
    locks.iter().any(|lock| lock.network.as_ref().is_none_or(|locked| *locked == network(peer)))
}

/// Counts a failed signature of a well-formed request and locks what the rule says. Returns the new lock, for the audit log; the
/// owner's mail is queued.
///
/// Key ids are public: under the published rule any stranger locks an owner out with one bad request every two minutes. The
/// scoped mode therefore counts, for a key with an allow-list, only allowed addresses; for others it locks the failing network,
/// and the whole key only when three networks fail while the owner has no success.
pub fn count_failure(
    books: &mut dyn Books,
    key: &Key,
    peer: IpAddr,
    now: Timestamp,
    rule: &LockRule,
) -> Result<Option<Lock>, Fault> {
    if rule.failures == 0 || (rule.mode == LockMode::Scoped && !key.allows(peer)) {
        return Ok(None);
    }
    let network = network(peer);
    books.add_failure(key.row, &Failure { network: network.clone(), at: now })?;
    // A failure exactly as old as the window no longer counts: the 5th at 600 s is the first of a new five.
    let since = now - SignedDuration::from_secs(rule.window_s);
    let recent: Vec<Failure> = books.failures(key.row, since)?.into_iter().filter(|failure| failure.at > since).collect();
    let no_success = || Ok(books.last_used(key.row)?.is_none_or(|used| used <= since));
    let Some(locked) = whom_to_lock(key, &recent, &network, rule, no_success)? else { return Ok(None) };
    let network = match locked {
        Locked::Everybody => None,
        Locked::Network => Some(network),
    };
    let lock = Lock { network, until: now + SignedDuration::from_secs(rule.duration_s) };
    books.add_lock(key.row, &lock)?;
    tell_owner(books, key, now, rule, &lock)?;
    Ok(Some(lock))
}

/// One mail per lock and at most 4 in any 24 hours (our choice, spec/kernelhost 2.4): whoever knows a key's id must not be able to
/// fill its owner's mailbox.
fn tell_owner(books: &mut dyn Books, key: &Key, now: Timestamp, rule: &LockRule, lock: &Lock) -> Result<(), Fault> {
    let mut account = books.account(key.account);
    if account.mails_since(LOCK_MAIL, now - SignedDuration::from_hours(24))? >= LOCK_MAILS_PER_DAY {
        return Ok(());
    }
    let Lock { network, until } = lock;
    let until = until.strftime("%Y-%m-%d %H:%M:%S UTC");
    let who = network.as_ref().map_or_else(|| "everybody".to_owned(), |network| format!("callers from {network}"));
    let name = if key.label.is_empty() { key.public_id.clone() } else { format!("{} ({})", key.public_id, key.label) };
    let body = format!(
        "{} requests with a wrong signature came within {} minutes for your key\n\n    {name}\n\nUntil {until} it is locked for {who}.\n\n\
         None of these requests was executed. A key's id is no secret, so they may be a stranger's. If they are yours, your\n\
         program has the wrong secret. The lock ends by itself; the operator can end it at once.\n",
        rule.failures,
        rule.window_s / 60,
    );
    account.queue_mail(&Mail {
        kind: LOCK_MAIL.to_owned(),
        subject: format!("Your API key is locked until {until}"),
        body,
        at: now,
    })
}

enum Locked {
    Everybody,
    Network,
}

fn whom_to_lock(
    key: &Key,
    recent: &[Failure],
    network: &str,
    rule: &LockRule,
    no_success: impl FnOnce() -> Result<bool, Fault>,
) -> Result<Option<Locked>, Fault> {
    let enough = |count: usize| count >= rule.failures as usize;
    if rule.mode == LockMode::Faithful || !key.allowed.is_empty() {
        return Ok(enough(recent.len()).then_some(Locked::Everybody));
    }
    let networks: BTreeSet<&str> = recent.iter().map(|failure| failure.network.as_str()).collect();
    if networks.len() >= 3 && enough(recent.len()) && no_success()? {
        return Ok(Some(Locked::Everybody));
    }
    let here = recent.iter().filter(|failure| failure.network == network).count();
    Ok(enough(here).then_some(Locked::Network))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + ms).unwrap()
    }

    #[test]
    fn twenty_at_once_then_one_a_second() {
        let limits = KeyLimits::default();
        let mut meter = Meter::full(limits, at(0));
        for left in (0..20).rev() {
            let (next, reading) = meter.take(limits, at(0));
            assert!(reading.allowed);
            assert_eq!(reading.remaining, left);
            meter = next;
        }
        let (meter, reading) = meter.take(limits, at(0));
        assert_eq!((reading.allowed, reading.retry_after_s), (false, 1));
        assert!(!meter.take(limits, at(999)).1.allowed);
        assert!(meter.take(limits, at(1000)).1.allowed);
    }

    #[test]
    fn the_day_ends_at_midnight_utc() {
        let limits = KeyLimits { per_minute: 60_000, burst: 100, per_day: 2 };
        let midnight: Timestamp = "2027-01-16T00:00:00Z".parse().unwrap();
        let before = midnight - SignedDuration::from_secs(30);
        let (meter, _) = Meter::full(limits, before).take(limits, before);
        let (meter, _) = meter.take(limits, before);
        let (meter, reading) = meter.take(limits, before);
        assert_eq!((reading.allowed, reading.retry_after_s), (false, 30));
        assert!(meter.take(limits, midnight).1.allowed);
    }

    proptest! {
        #[test]
        fn a_bucket_never_exceeds_its_rate(steps in proptest::collection::vec(0_i64..5_000, 1..300)) {
            let limits = KeyLimits { per_minute: 60, burst: 20, per_day: u32::MAX };
            let (mut now, mut taken, mut meter) = (0_i64, 0_i64, Meter::full(limits, at(0)));
            for step in steps {
                now += step;
                let (next, reading) = meter.take(limits, at(now));
                taken += i64::from(reading.allowed);
                prop_assert!(taken * 1000 <= 20_000 + now);
                prop_assert_eq!(reading.allowed, reading.retry_after_s == 0);
                meter = next;
            }
        }

        #[test]
        fn a_clock_that_goes_back_brings_nothing(back in 0_i64..10_000_000) {
            let limits = KeyLimits { per_minute: 60, burst: 1, per_day: 100 };
            let (meter, _) = Meter::full(limits, at(0)).take(limits, at(0));
            let (meter, reading) = meter.take(limits, at(-back));
            prop_assert!(!reading.allowed);
            // Else it is believed, and time has passed since.
            prop_assert!(back > AHEAD_MAX.as_millis().try_into().unwrap() || !meter.take(limits, at(0)).1.allowed);
        }
    }

    #[test]
    fn a_clock_that_was_far_ahead_holds_nobody_up() {
        let limits = KeyLimits { per_minute: 60, burst: 1, per_day: 2 };
        let (meter, _) = Meter::full(limits, at(90_000_000)).take(limits, at(90_000_000));
        let (meter, reading) = meter.take(limits, at(0));
        assert_eq!((reading.allowed, reading.retry_after_s), (false, 1), "and it brings nothing");
        let (meter, reading) = meter.take(limits, at(1000));
        assert!(reading.allowed);
        assert!(!meter.take(limits, at(2000)).1.allowed, "the day's count goes on");
    }

    #[test]
    fn neighbours_share_a_network() {
        assert_eq!(network("203.0.113.77".parse().unwrap()), "203.0.113.0/24");
        assert_eq!(network("::ffff:203.0.113.77".parse().unwrap()), "203.0.113.0/24");
        assert_eq!(network("2001:db8:1:2:3::4".parse().unwrap()), "2001:db8:1:2::/64");
    }
}
