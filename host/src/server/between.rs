//! What a request needs between its transactions, and never inside one: time, names, money from a card, paper.

use std::net::IpAddr;
use std::time::Duration;

use provisor_providers::server::{Met, Need};

use super::{State, cards};
use crate::paper;

/// The longest single wait.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long a name may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// More addresses than this are not a web server's.
const ADDRESSES_MAX: usize = 64;

pub(super) async fn meet(state: &State, need: Need) -> Met {
    match need {
        Need::Pause(pause) => {
            tokio::time::sleep(pause.min(PAUSE_MAX)).await;
            Met::Paused
        }
        Need::Charge(charge) => cards::charge(&state.store, &*state.gateway, state.options.gateway_timeout, charge).await,
        Need::Print(paper) => Met::Printed(paper::print(&paper)),
        Need::Resolve(host) => Met::Resolved(resolve(state, &host).await),
    }
}

async fn resolve(state: &State, host: &str) -> Vec<IpAddr> {
    match tokio::time::timeout(RESOLVE_TIMEOUT, state.options.resolver.resolve(host)).await {
        Ok(Ok(found)) if found.len() <= ADDRESSES_MAX => found,
        Ok(Ok(_)) => Vec::new(),
        Ok(Err(error)) => {
            tracing::debug!(%error, host, "a name cannot be resolved");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}
