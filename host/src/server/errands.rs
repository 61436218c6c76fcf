//! Scheduled work that needs something outside of its transaction: taken up in one, settled in another.

use std::sync::Arc;

use provisor_providers::PROVIDERS;
use provisor_providers::server::Errand;
use tokio::sync::OwnedSemaphorePermit;

use super::{State, between};

/// Takes up what nobody works on, as much at a time as is allowed. It goes on by itself: the schedule does not wait for gateways.
pub(super) async fn take_up(state: &Arc<State>) {
    for provider in PROVIDERS {
        while let Ok(permit) = Arc::clone(&state.errands).try_acquire_owned() {
            let moment = state.clock.moment(state.options.rules.clone());
            let api = provider.server;
            match state.store.transact(move |books| api.errand(&moment, books)).await {
                Ok(Some(errand)) => drop(tokio::spawn(run(Arc::clone(state), errand, permit))),
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "an errand could not be taken up and will be tried again");
                    break;
                }
            }
        }
    }
}

/// Whatever ends it early leaves it to whoever finds its lease over.
async fn run(state: Arc<State>, errand: Errand, permit: OwnedSemaphorePermit) {
    let Errand { need, then } = errand;
    let chore = then(between::meet(&state, need).await);
    if let Err(error) = state.store.transact(move |books| chore(books)).await {
        tracing::error!(%error, "an errand could not be settled and will be taken up again");
    }
    drop(permit);
}
