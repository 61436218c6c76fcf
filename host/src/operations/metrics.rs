//! What the journal counts for monitoring.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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
    buckets: [u64; BOUNDS_MS.len() + 1],
    sum_ms: u64,
}

impl Metrics {
    pub(super) fn settled(&self, state: OperationState) {
        let index = OperationState::ALL.iter().position(|known| *known == state).unwrap_or(0);
        self.settled[index].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn attempted(&self, operation: &Operation, took: Duration) {
        let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let mut all = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let found = all.iter().position(|row| row.profile == operation.profile && row.kind == operation.kind);
        let index = found.unwrap_or_else(|| {
            let (profile, kind) = (operation.profile.clone(), operation.kind.clone());
            all.push(Attempts { profile, kind, buckets: [0; BOUNDS_MS.len() + 1], sum_ms: 0 });
            all.len() - 1
        });
        let row = &mut all[index];
        row.buckets[BOUNDS_MS.iter().position(|bound| took <= *bound).unwrap_or(BOUNDS_MS.len())] += 1;
        row.sum_ms = row.sum_ms.saturating_add(took);
    }

    /// In Prometheus' text format. `circuits` has every profile, and whether it is left alone.
    pub(super) fn text(&self, book: &Gauges, circuits: &[(String, bool)]) -> String {
        let mut text = String::new();
        let mut line = |line: String| {
            text.push_str(&line);
            text.push('\n');
        };
        let (version, sealed) = (env!("CARGO_PKG_VERSION"), u8::from(book.is_sealed));
        line("# HELP provisor_build_info Which version runs.\n# TYPE provisor_build_info gauge".to_owned());
        line(format!("provisor_build_info{{version=\"{version}\"}} 1"));
        line("# HELP provisor_sealed Whether the book's master key is missing.\n# TYPE provisor_sealed gauge".to_owned());
        line(format!("provisor_sealed {sealed}"));
        line("# HELP provisor_services_drifted Services whose provider sees them otherwise than their panel wants.\n# TYPE provisor_services_drifted gauge".to_owned());
        line(format!("provisor_services_drifted {}", book.drifted));
        line("# HELP provisor_services_unowned Services at providers that no panel's key owns.\n# TYPE provisor_services_unowned gauge".to_owned());
        line(format!("provisor_services_unowned {}", book.unowned));
        line("# HELP provisor_operations_oldest_seconds Age of the oldest change that is not ended.\n# TYPE provisor_operations_oldest_seconds gauge".to_owned());
        line(format!("provisor_operations_oldest_seconds {}", book.oldest_s));
        line("# HELP provisor_operations Changes that are not ended, by state.\n# TYPE provisor_operations gauge".to_owned());
        for state in OperationState::ALL.into_iter().filter(|state| !state.is_ended()) {
            let count = book.open.iter().find(|(found, _)| *found == state).map_or(0, |(_, count)| *count);
            line(format!("provisor_operations{{state=\"{}\"}} {count}", state.as_str()));
        }
        line("# HELP provisor_operations_settled_total Attempts, by the state they led to.\n# TYPE provisor_operations_settled_total counter".to_owned());
        for (state, count) in OperationState::ALL.into_iter().zip(&self.settled) {
            line(format!("provisor_operations_settled_total{{state=\"{}\"}} {}", state.as_str(), count.load(Ordering::Relaxed)));
        }
        line("# HELP provisor_circuit_open Whether a profile is left alone because its provider does not answer.\n# TYPE provisor_circuit_open gauge".to_owned());
        for (profile, is_open) in circuits {
            line(format!("provisor_circuit_open{{profile=\"{profile}\"}} {}", u8::from(*is_open)));
        }
        line("# HELP provisor_attempt_seconds How long attempts took.\n# TYPE provisor_attempt_seconds histogram".to_owned());
        for row in self.attempts.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let labels = format!("profile=\"{}\",operation=\"{}\"", row.profile, row.kind);
            let mut sum = 0;
            for (bound, count) in BOUNDS_MS.iter().map(|bound| Some(*bound)).chain([None]).zip(row.buckets) {
                sum += count;
                let bound = bound.map_or_else(|| "+Inf".to_owned(), seconds);
                line(format!("provisor_attempt_seconds_bucket{{{labels},le=\"{bound}\"}} {sum}"));
            }
            line(format!("provisor_attempt_seconds_sum{{{labels}}} {}", seconds(row.sum_ms)));
            line(format!("provisor_attempt_seconds_count{{{labels}}} {sum}"));
        }
        text
    }
}

fn seconds(milliseconds: u64) -> String {
    format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000)
}
