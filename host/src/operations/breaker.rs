//! A circuit breaker per profile: a provider that does not answer is left alone for a while, and panels are told at once.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
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

/// What an attempt says of its provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Liveness {
    /// It is there, whatever it said.
    Answered,
    /// It did not answer, or not in its API's words.
    Silent,
    /// It was not asked, or what became of that says nothing of it.
    Unknown,
}

impl Breakers {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Circuit>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a profile is left alone from now on; `None` when it may be asked.
    pub(super) fn open_for(&self, profile: &str, now: Instant) -> Option<Duration> {
        let circuits = self.lock();
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
        let names: Vec<String> = self.lock().keys().cloned().collect();
        names.into_iter().filter(|name| self.open_for(name, now).is_some()).collect()
    }

    /// Whether a profile has not answered since its circuit opened, a trial or not.
    pub(super) fn is_open(&self, profile: &str) -> bool {
        self.lock().get(profile).is_some_and(|circuit| circuit.open_until.is_some())
    }

    /// A profile is about to be asked: with a circuit that is half open, that is the trial.
    pub(super) fn begin<'a>(&'a self, profile: &'a str, now: Instant) -> Attempt<'a> {
        let mut circuits = self.lock();
        let half_open = |circuit: &&mut Circuit| !circuit.is_tried && circuit.open_until.is_some_and(|until| now >= until);
        let trial = circuits.get_mut(profile).filter(half_open);
        let is_trial = trial.is_some();
        if let Some(circuit) = trial {
            circuit.is_tried = true;
        }
        Attempt { breakers: self, profile, is_trial }
    }
}

/// An attempt under way. A trial that is dropped unheard lets the next one be the trial.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    breakers: &'a Breakers,
    profile: &'a str,
    is_trial: bool,
}

impl Attempt<'_> {
    /// Notes how it ended; true if that opened the circuit.
    pub(super) fn heard(self, liveness: Liveness, now: Instant) -> bool {
        let mut circuits = self.breakers.lock();
        match liveness {
            Liveness::Answered => {
                circuits.remove(self.profile);
                return false;
            }
            Liveness::Silent => {}
            Liveness::Unknown => return false,
        }
        let circuit = circuits.entry(self.profile.to_owned()).or_default();
        if circuit.open_until.is_none() {
            circuit.failures += 1;
            if circuit.failures < FAILURES {
                return false;
            }
            circuit.open_for = OPEN;
        } else if self.is_trial {
            circuit.open_for = (circuit.open_for * 2).min(OPEN_MAX);
        } else {
            // It was under way when the circuit opened, and says nothing that is not known.
            return false;
        }
        circuit.open_until = Some(now + circuit.open_for);
        true
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.is_trial {
            return;
        }
        if let Some(circuit) = self.breakers.lock().get_mut(self.profile) {
            circuit.is_tried = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(breakers: &Breakers, now: Instant) -> bool {
        breakers.begin("p", now).heard(Liveness::Silent, now)
    }

    fn opened(now: Instant) -> Breakers {
        let breakers = Breakers::default();
        assert_eq!((1..=FAILURES).filter(|_| fails(&breakers, now)).count(), 1);
        breakers
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_one_trial_through() {
        let (breakers, now) = (Breakers::default(), Instant::now());
        for _ in 1..FAILURES {
            assert!(!fails(&breakers, now));
        }
        assert_eq!(breakers.open_for("p", now), None);
        assert!(fails(&breakers, now));
        assert_eq!(breakers.open_for("p", now), Some(OPEN));
        assert_eq!((breakers.open(now), breakers.open_for("other", now)), (vec!["p".to_owned()], None));
        let later = now + OPEN;
        assert!(breakers.is_open("p") && !breakers.is_open("other"));
        assert_eq!(breakers.open_for("p", later), None);
        let trial = breakers.begin("p", later);
        assert!(breakers.open_for("p", later).is_some());
        assert!(trial.heard(Liveness::Silent, later));
        assert_eq!(breakers.open_for("p", later), Some(OPEN * 2));
        breakers.begin("p", later).heard(Liveness::Answered, later);
        assert_eq!(breakers.open_for("p", later), None);
    }

    #[test]
    fn what_was_under_way_when_it_opened_does_not_keep_it_open_for_longer() {
        let (breakers, now) = (Breakers::default(), Instant::now());
        let under_way: Vec<_> = (0..FAILURES + 8).map(|_| breakers.begin("p", now)).collect();
        let opened = under_way.into_iter().map(|attempt| attempt.heard(Liveness::Silent, now));
        assert_eq!(opened.filter(|has_opened| *has_opened).count(), 1);
        assert_eq!(breakers.open_for("p", now), Some(OPEN));

        let later = now + OPEN;
        let (trial, beside) = (breakers.begin("p", later), breakers.begin("p", later));
        assert!(!beside.heard(Liveness::Silent, later), "one trial decides");
        assert!(breakers.open_for("p", later).is_some(), "it is still under way");
        assert!(trial.heard(Liveness::Silent, later));
        assert_eq!(breakers.open_for("p", later), Some(OPEN * 2));
    }

    #[test]
    fn a_trial_that_comes_to_nothing_lets_another_through() {
        let now = Instant::now();
        let (breakers, later) = (opened(now), now + OPEN);
        drop(breakers.begin("p", later));
        assert_eq!(breakers.open_for("p", later), None);
        assert!(!breakers.begin("p", later).heard(Liveness::Unknown, later));
        assert!(breakers.is_open("p"));
        assert_eq!(breakers.open_for("p", later), None);
    }

    #[test]
    fn an_answer_in_between_begins_the_count_anew() {
        let (breakers, now) = (Breakers::default(), Instant::now());
        for round in 0..20 {
            let liveness = if round % 4 == 3 { Liveness::Answered } else { Liveness::Silent };
            assert!(!breakers.begin("p", now).heard(liveness, now));
        }
    }
}
