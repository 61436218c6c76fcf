//! Lets go of what the journal has kept long enough, in small batches, one host at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::Shared;
use crate::store::Schedule;

/// How often there is a look.
const TICK: Duration = Duration::from_mins(10);
/// Batches in one look: what is left waits for the next.
const BATCHES: usize = 100;

pub(super) async fn run(shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stopped.changed() => return,
        }
        let mut removed = 0;
        for _ in 0..BATCHES {
            match sweep(&shared).await {
                0 => break,
                swept => removed += swept,
            }
            if *stopped.borrow() {
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
