//! Lets go of what the journal has kept long enough, in small batches, one host at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Shared;
use crate::store::Schedule;
use crate::ticks::Ticks;

/// How often there is a look.
const TICK: Duration = Duration::from_mins(10);
/// Batches in one look: what is left waits for the next.
const BATCHES: usize = 100;

pub(super) async fn run(shared: Arc<Shared>, stopped: watch::Receiver<bool>) {
    let mut ticks = Ticks::every(TICK, stopped);
    while ticks.next().await {
        let mut removed = 0;
        for _ in 0..BATCHES {
            match sweep(&shared).await {
                0 => break,
                swept => removed += swept,
            }
            if ticks.are_stopped() {
                break;
            }
        }
        if removed > 0 {
            tracing::info!(removed, "old rows of the journal were removed");
        }
    }
}

async fn sweep(shared: &Shared) -> usize {
    let (holder, now) = (shared.holder.clone(), shared.clock.now());
    let ended = shared.options.keep_for.map(|keep_for| now - keep_for);
    let swept = shared.store.transact(move |books| {
        if books.hold_schedule(Schedule::Journal, &holder, now)? { books.sweep_journal(now, ended) } else { Ok(0) }
    });
    swept.await.unwrap_or_else(|error| {
        tracing::warn!(%error, "old rows of the journal stay until the next look");
        0
    })
}
