//! A circuit breaker per profile: a provider that does not answer is left alone for a while, and panels are told at once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Failures in a row that open a circuit.
const FAILURES: u32 = 5;
/// How long it stays open at first, and at most; each failed trial doubles it.
const OPEN: Duration = Duration::from_secs(10);
const OPEN_MAX: Duration = Duration::from_mins(5);

#[derive(Debug, Clone, Copy, Default)]
struct Circuit {
    failures: u32,
    /// How long it is open this time.
    open_for: Duration,
    open_until: Option<Instant>,
    is_tried: bool,
}

/// The circuits of all profiles. Kept per process: each host finds out for itself.
#[derive(Debug, Default)]
pub(super) struct Breakers(Mutex<HashMap<String, Circuit>>);

impl Breakers {
    /// How long a profile is left alone from now on; `None` when it may be asked.
    pub(super) fn open_for(&self, profile: &str, now: Instant) -> Option<Duration> {
        let circuits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let circuit = circuits.get(profile)?;
        let until = circuit.open_until?;
        if now < until {
            return Some(until - now);
        }
        // Half open: one trial at a time.
        circuit.is_tried.then_some(OPEN.min(circuit.open_for))
    }

    /// Those that are left alone now.
    pub(super) fn open(&self, now: Instant) -> Vec<String> {
        let names: Vec<String> = self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        names.into_iter().filter(|name| self.open_for(name, now).is_some()).collect()
    }

    /// Whether a profile has not answered since its circuit opened, a trial or not.
    pub(super) fn is_open(&self, profile: &str) -> bool {
        let circuits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        circuits.get(profile).is_some_and(|circuit| circuit.open_until.is_some())
    }

    /// Notes that a profile is about to be asked: with a circuit that is half open, that is the trial.
    pub(super) fn trying(&self, profile: &str) {
        if let Some(circuit) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(profile) {
            circuit.is_tried = circuit.open_until.is_some();
        }
    }

    /// Notes whether the provider answered; true if that opened the circuit.
    pub(super) fn heard(&self, profile: &str, answered: bool, now: Instant) -> bool {
        let mut circuits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if answered {
            circuits.remove(profile);
            return false;
        }
        let circuit = circuits.entry(profile.to_owned()).or_default();
        circuit.failures += 1;
        circuit.is_tried = false;
        if circuit.failures < FAILURES {
            return false;
        }
        circuit.open_for = if circuit.open_until.is_none() { OPEN } else { (circuit.open_for * 2).min(OPEN_MAX) };
        circuit.open_until = Some(now + circuit.open_for);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_one_trial_through() {
        let (breakers, now) = (Breakers::default(), Instant::now());
        for _ in 1..FAILURES {
            assert!(!breakers.heard("p", false, now));
        }
        assert_eq!(breakers.open_for("p", now), None);
        assert!(breakers.heard("p", false, now));
        assert_eq!(breakers.open_for("p", now), Some(OPEN));
        assert_eq!((breakers.open(now), breakers.open_for("other", now)), (vec!["p".to_owned()], None));
        let later = now + OPEN;
        assert!(breakers.is_open("p") && !breakers.is_open("other"));
        assert_eq!(breakers.open_for("p", later), None);
        breakers.trying("p");
        assert!(breakers.open_for("p", later).is_some());
        assert!(breakers.heard("p", false, later));
        assert_eq!(breakers.open_for("p", later), Some(OPEN * 2));
        breakers.heard("p", true, later);
        assert_eq!(breakers.open_for("p", later), None);
    }

    #[test]
    fn an_answer_in_between_begins_the_count_anew() {
        let (breakers, now) = (Breakers::default(), Instant::now());
        for round in 0..20 {
            assert!(!breakers.heard("p", round % 4 == 3, now));
        }
    }
}
