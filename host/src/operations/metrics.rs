//! What the journal counts for monitoring.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::exposition::{Exposition, Histogram};
use crate::store::{Operation, OperationState};

/// Bounds of the histogram of attempts, in milliseconds.
const BOUNDS_MS: [u64; 10] = [50, 100, 250, 500, 1000, 2500, 5000, 15_000, 60_000, 300_000];

/// What the book says.
pub(super) struct Gauges {
    pub(super) is_sealed: bool,
    /// Changes that are not ended.
    pub(super) open: Vec<(OperationState, i64)>,
    /// In seconds; 0 where there is none.
    pub(super) oldest_s: i64,
    pub(super) drifted: i64,
    /// Services at providers that no key owns.
    pub(super) unowned: i64,
}

/// Counters since this process began.
#[derive(Default)]
pub(super) struct Metrics {
    settled: [AtomicU64; OperationState::ALL.len()],
    attempts: Mutex<Vec<Attempts>>,
}

/// Attempts at one operation with one profile.
struct Attempts {
    profile: String,
    kind: String,
    took: Histogram<{ BOUNDS_MS.len() }>,
}

impl Metrics {
    pub(super) fn settled(&self, state: OperationState) {
        let index = OperationState::ALL.iter().position(|known| *known == state).unwrap_or(0);
        self.settled[index].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn attempted(&self, operation: &Operation, took: Duration) {
        let mut all = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let found = all.iter().position(|row| row.profile == operation.profile && row.kind == operation.kind);
        let index = found.unwrap_or_else(|| {
            let (profile, kind) = (operation.profile.clone(), operation.kind.clone());
            all.push(Attempts { profile, kind, took: Histogram::new(&BOUNDS_MS) });
            all.len() - 1
        });
        all[index].took.count(took);
    }

    /// In Prometheus' text format. `circuits` has every profile, and whether it is left alone.
    pub(super) fn text(&self, book: &Gauges, circuits: &[(String, bool)]) -> String {
        let mut all = Exposition::new(book.is_sealed);
        let help = "Services whose provider sees them otherwise than their panel wants.";
        all.gauge("provisor_services_drifted", help).sample(&[], book.drifted);
        all.gauge("provisor_services_unowned", "Services at providers that no panel's key owns.").sample(&[], book.unowned);
        all.gauge("provisor_operations_oldest_seconds", "Age of the oldest change that is not ended.").sample(&[], book.oldest_s);
        let mut open = all.gauge("provisor_operations", "Changes that are not ended, by state.");
        for state in OperationState::ALL.into_iter().filter(|state| !state.is_ended()) {
            let count = book.open.iter().find(|(found, _)| *found == state).map_or(0, |(_, count)| *count);
            open.sample(&[("state", state.as_str())], count);
        }
        let mut settled = all.counter("provisor_operations_settled_total", "Attempts, by the state they led to.");
        for (state, count) in OperationState::ALL.into_iter().zip(&self.settled) {
            settled.sample(&[("state", state.as_str())], count.load(Ordering::Relaxed));
        }
        let help = "Whether a profile is left alone because its provider does not answer.";
        let mut open = all.gauge("provisor_circuit_open", help);
        for (profile, is_open) in circuits {
            open.sample(&[("profile", profile)], u8::from(*is_open));
        }
        let mut attempts = all.histogram("provisor_attempt_seconds", "How long attempts took.");
        for row in self.attempts.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            attempts.counted(&[("profile", &row.profile), ("operation", &row.kind)], &row.took);
        }
        all.into_text()
    }
}
