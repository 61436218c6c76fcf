//! Works the journal off: takes what is due, a few of each profile at a time, and keeps others off what it holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::{Shared, attempt};
use crate::store::{Operation, Taker};

/// How late an operation may be noticed that another process recorded, or whose pause is over.
const TICK: Duration = Duration::from_millis(200);
/// How long another host leaves alone what this one holds, and how often that is made longer.
const HOLD: SignedDuration = SignedDuration::from_secs(15);
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long a stopping host waits for attempts under way. The journal knows of the rest.
const GRACE: Duration = Duration::from_secs(20);

/// The operations that are under way here, and their profiles.
#[derive(Default)]
pub(super) struct UnderWay(Mutex<HashMap<i64, String>>);

impl UnderWay {
    fn lock(&self) -> MutexGuard<'_, HashMap<i64, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Profiles of which no more are taken.
    fn full(&self, most: usize) -> Vec<String> {
        let mut counts = HashMap::<String, usize>::new();
        for profile in self.lock().values() {
            *counts.entry(profile.clone()).or_default() += 1;
        }
        counts.into_iter().filter(|(_, count)| *count >= most).map(|(profile, _)| profile).collect()
    }
}

/// An operation is under way for as long as this is there: what has come to nothing is held no longer, so that it is taken again.
struct Place {
    shared: Arc<Shared>,
    operation: i64,
}

impl Place {
    fn take(shared: &Arc<Shared>, operation: &Operation) -> Self {
        shared.under_way.lock().insert(operation.id, operation.profile.clone());
        Self { shared: Arc::clone(shared), operation: operation.id }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.under_way.lock().remove(&self.operation);
    }
}

pub(super) async fn run(shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    take_over(&shared).await;
    let mut attempts = JoinSet::new();
    let (mut tick, mut heartbeat) = (interval(TICK), interval(HEARTBEAT));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = shared.wake.notified() => {}
            Some(_) = attempts.join_next(), if !attempts.is_empty() => {}
            _ = heartbeat.tick() => {
                hold(&shared).await;
                continue;
            }
            _ = stopped.changed() => break,
        }
        while attempts.try_join_next().is_some() {}
        let free = shared.options.at_once.saturating_sub(attempts.len());
        if free > 0 {
            take(&shared, &mut attempts, free).await;
        }
    }
    let ending = async { while attempts.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, ending).await.is_err() {
        tracing::warn!("some changes are under way still: the next start settles them");
    }
}

/// What a process that is gone was at: on a book that only one process opens, it is up to this one at once.
async fn take_over(shared: &Shared) {
    if shared.store.is_shared() {
        return;
    }
    let (now, quiet) = (shared.clock.now(), shared.options.rules.quiet);
    match shared.store.transact(move |books| books.release_operations(now, now + quiet)).await {
        Ok(0) => {}
        Ok(found) => tracing::info!(found, "operations were interrupted and are taken up again"),
        Err(error) => tracing::error!(%error, "interrupted operations wait until their hold is over"),
    }
}

async fn take(shared: &Arc<Shared>, attempts: &mut JoinSet<()>, free: usize) {
    let now = shared.clock.now();
    let mut not_of = shared.breakers.open(Instant::now());
    not_of.extend(shared.under_way.full(shared.options.at_once_per_profile));
    let limit = u32::try_from(free.min(shared.options.at_once_per_profile)).unwrap_or(1);
    let by = Taker { holder: shared.holder.clone(), now, until: now + HOLD, not_of, limit };
    let taken = match shared.store.transact(move |books| books.take_operations(&by)).await {
        Ok(taken) => taken,
        Err(error) => {
            tracing::error!(%error, "the journal cannot be read; it is tried again");
            return;
        }
    };
    for operation in taken {
        let place = Place::take(shared, &operation);
        attempts.spawn(async move { attempt::make(&place.shared, operation).await });
    }
}

async fn hold(shared: &Shared) {
    let operations: Vec<i64> = shared.under_way.lock().keys().copied().collect();
    if operations.is_empty() {
        return;
    }
    let (holder, until) = (shared.holder.clone(), shared.clock.now() + HOLD);
    if let Err(error) = shared.store.transact(move |books| books.hold_operations(&holder, &operations, until)).await {
        tracing::warn!(%error, "what is under way here may be taken by another host");
    }
}
