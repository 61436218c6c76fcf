//! What happens without a request: orders fall due, old records go, refused addresses are noted.

use std::sync::Arc;
use std::time::Duration;

use provisor_providers::PROVIDERS;
use provisor_providers::books::{AuditRow, Books};
use provisor_providers::server::Server as Api;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{State, errands};
use crate::store::Schedule;
use crate::telemetry::request_id;
use crate::ticks::Ticks;

/// How late an order may be noticed; other processes make orders too, so the books are asked rather than told.
const TICK: Duration = Duration::from_millis(250);
const SWEEP: Duration = Duration::from_secs(5);
const SUMMARY: Duration = Duration::from_mins(1);
/// Ticks in a row while there is more to do at once, so that a backlog does not starve the rest.
const TICKS_IN_A_ROW: usize = 16;
/// The same of sweeps: 20,000 requests a second leave no more nonces behind than go with so many.
const SWEEPS_IN_A_ROW: usize = 100;

pub(super) async fn run(state: Arc<State>, stopped: watch::Receiver<bool>) {
    let holder: Arc<str> = request_id(&*state.clock).into();
    let mut ticks = Ticks::every(TICK, stopped);
    let (mut swept, mut summed) = (Instant::now(), Instant::now());
    while ticks.next().await {
        for provider in PROVIDERS {
            work_off(&state, &holder, provider.server).await;
        }
        errands::take_up(&state).await;
        if swept.elapsed() >= SWEEP {
            swept = Instant::now();
            sweep(&state, &holder).await;
            look_for_keys(&state).await;
        }
        if summed.elapsed() >= SUMMARY {
            summed = Instant::now();
            note_refused(&state).await;
        }
    }
    note_refused(&state).await;
    if let Err(error) = state.store.transact(move |books| books.release_schedule(Schedule::Server, &holder)).await {
        tracing::debug!(%error, "the next host has to wait for the end of the lease");
    }
}

/// One host at a time: the others' turn comes when it is gone.
async fn work_off(state: &State, holder: &Arc<str>, api: &'static dyn Api) {
    for _ in 0..TICKS_IN_A_ROW {
        let moment = state.clock.moment(state.options.rules.clone());
        let (now, holder) = (moment.now, Arc::clone(holder));
        let tick = state.store.transact(move |books| {
            if books.hold_schedule(Schedule::Server, &holder, now)? { api.tick(&moment, books) } else { Ok(None) }
        });
        match tick.await {
            Ok(Some(next)) if next <= now => {}
            Ok(_) => return,
            Err(error) => {
                tracing::error!(%error, "scheduled work failed and will be tried again");
                return;
            }
        }
    }
}

async fn sweep(state: &State, holder: &Arc<str>) {
    for _ in 0..SWEEPS_IN_A_ROW {
        let (now, holder) = (state.clock.now(), Arc::clone(holder));
        let swept =
            state.store.transact(
                move |books| if books.hold_schedule(Schedule::Server, &holder, now)? { books.sweep(now) } else { Ok(false) },
            );
        match swept.await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return tracing::warn!(%error, "expired records stay until the next sweep"),
        }
    }
}

/// The operator may have made a new master key, or put a missing one back.
async fn look_for_keys(state: &State) {
    match state.store.refresh_keys().await {
        Ok(false) => {}
        Ok(true) => tracing::info!(sealed = state.store.is_sealed(), "the master keys changed"),
        Err(error) => tracing::error!(%error, "the master keys could not be looked at"),
    }
}

/// One row per address and minute instead of one per request: a flood must not fill the log.
async fn note_refused(state: &State) {
    let now = state.clock.now();
    for (peer, refused) in state.addresses.refused() {
        let row = AuditRow {
            status: 429,
            reason: Some("per_ip_limit".to_owned()),
            detail: Some(format!("{refused} requests")),
            ..AuditRow::of_event("requests.refused", now, peer, request_id(&*state.clock))
        };
        if let Err(error) = state.store.transact(move |books| books.audit(&row)).await {
            tracing::error!(%error, %peer, refused, "refused requests could not be noted in the audit log");
        }
    }
}
