//! What stands at a provider that no key of a panel owns: orders that were placed by hand, or that a broken panel forgot, and are paid
//! for every month. They are found and shown. Nothing is changed at the provider: whose they are only people know.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use super::Shared;
use super::problems::state_word;
use super::profiles::capability;
use crate::plugin::Caller;
use crate::plugin::contract::{Service, State};
use crate::store::{StoreError, Unowned};
use crate::ticks::Ticks;

/// How often inventories that are due are looked for.
const TICK: Duration = Duration::from_secs(1);
/// Before a profile's first one: a host that starts has more urgent things to do.
const FIRST: SignedDuration = SignedDuration::from_mins(1);
/// Parts of a provider's list that are read: what comes after is not looked at.
const PAGES_MAX: usize = 100;
/// Between two of them: providers limit requests, and changes come first.
const PAUSE: Duration = Duration::from_secs(1);
/// Longer than an inventory takes: then another host takes it.
const HOLD: SignedDuration = SignedDuration::from_mins(30);

pub(super) async fn run(shared: Arc<Shared>, stopped: watch::Receiver<bool>) {
    let mut ticks = Ticks::every(TICK, stopped);
    while ticks.next().await {
        let due = due(&shared).await.unwrap_or_else(|error| {
            tracing::error!(%error, "inventories that are due could not be looked for");
            Vec::new()
        });
        for (profile, caller) in due {
            let taking = take(&shared, &profile, &caller);
            tokio::select! {
                taken = taking => if let Err(error) = taken {
                    tracing::error!(%error, profile, "an inventory could not be written down");
                },
                // What it found so far stays.
                () = ticks.stopped() => return,
            }
        }
    }
}

/// The profiles whose inventory is due, of those whose provider has a list and answers.
async fn due(shared: &Shared) -> Result<Vec<(String, Caller)>, StoreError> {
    let (now, known) = (shared.clock.now(), shared.store.read(|books| books.inventories())?);
    let has_list = |caller: &Caller| caller.provider().is_some_and(|info| capability(info, "list-services").is_some());
    let answers = |name: &String| shared.breakers.open_for(name, Instant::now()).is_none();
    let mut due = Vec::new();
    for (name, caller) in shared.profiles.all().iter().filter(|(_, caller)| has_list(caller)) {
        match known.iter().find(|(profile, _)| profile == name) {
            None => {
                let (name, first) = (name.clone(), now + FIRST);
                shared.store.transact(move |books| books.begin_inventories(&name, first)).await?;
            }
            Some((_, due_at)) if *due_at <= now && answers(name) => due.push((name.clone(), caller.clone())),
            Some(_) => {}
        }
    }
    Ok(due)
}

async fn take(shared: &Shared, profile: &str, caller: &Caller) -> Result<(), StoreError> {
    let (began, name) = (shared.clock.now(), profile.to_owned());
    if !shared.store.transact(move |books| books.claim_inventory(&name, began, began + HOLD)).await? {
        return Ok(());
    }
    let mut cursor = None;
    for _ in 0..PAGES_MAX {
        let page = match caller.list_services(cursor).await {
            Ok(page) => page,
            Err(problem) => {
                tracing::warn!(
                    profile,
                    message = problem.message,
                    "an inventory has to wait: the provider did not list its services"
                );
                return Ok(());
            }
        };
        let found: Vec<Unowned> = page.services.into_iter().filter_map(|service| found(profile, service, began)).collect();
        shared
            .store
            .transact(move |books| {
                books.claim_journal();
                found.iter().try_for_each(|service| books.note_found(service))
            })
            .await?;
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    let is_whole = cursor.is_none();
    if !is_whole {
        tracing::warn!(profile, pages = PAGES_MAX, "the provider has more services than an inventory looks at");
    }
    let (name, at) = (profile.to_owned(), (shared.clock.now(), shared.options.check_every));
    shared.store.transact(move |books| books.end_inventory(&name, began, is_whole, at)).await
}

/// A service that stands at the provider, as it is noted where no key owns it.
fn found(profile: &str, service: Service, at: Timestamp) -> Option<Unowned> {
    let is_there = matches!(service.state, State::Active | State::Suspended | State::Pending | State::Unknown);
    (is_there && !service.remote_id.is_empty()).then(|| Unowned {
        profile: profile.to_owned(),
        remote_id: service.remote_id,
        domain: service.domain,
        state: state_word(service.state).to_owned(),
        plan: service.plan,
        since: at,
        seen_at: at,
    })
}
