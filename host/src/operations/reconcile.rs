//! The journal's view against the provider's: services are asked about in turn, and where the two differ, that is shown.
//!
//! Facts are taken over (due date, addresses, an order that has become a service). Nothing is changed at the provider: a service
//! that is suspended or gone there may be so for a reason that only people know.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use provisor_providers::books::Fault;
use tokio::sync::watch;

use super::Shared;
use super::problems::state_word;
use super::record::is_taken;
use crate::plugin::Caller;
use crate::plugin::contract::{Problem, Service, ServiceRef, State};
use crate::store::{Managed, StoreError, Transaction};
use crate::ticks::Ticks;

/// How often services that are due to be asked about are looked for.
const TICK: Duration = Duration::from_secs(1);
/// Asked about in one tick: providers limit requests, and changes come first.
const PER_TICK: u32 = 2;
/// When a service is asked about again of whom the provider said nothing.
const AGAIN: Duration = Duration::from_mins(5);

pub(super) async fn run(shared: Arc<Shared>, stopped: watch::Receiver<bool>) {
    let mut ticks = Ticks::every(TICK, stopped);
    while ticks.next().await {
        let now = shared.clock.now();
        match shared.store.transact(move |books| books.claim_checks(now, now + AGAIN, PER_TICK)).await {
            Ok(due) => {
                for service in due {
                    check(&shared, service).await;
                }
            }
            Err(error) => tracing::error!(%error, "services could not be compared with their provider"),
        }
    }
}

async fn check(shared: &Shared, service: Managed) {
    // Who does not answer is not waited for: others' turn comes first.
    let is_left_alone = shared.breakers.open_for(&service.profile, Instant::now()).is_some();
    let Some(caller) = shared.profiles.get(&service.profile).filter(|_| !is_left_alone) else { return };
    match fresh(shared, &caller, service.id).await {
        Ok(Some(Managed { key, profile, drift: Some((kind, since)), .. })) => {
            tracing::warn!(service = key, profile, kind, %since, "the provider's view of a service differs from the panel's wish");
        }
        Ok(_) => {}
        Err(FreshError::Problem(problem)) => tracing::debug!(message = problem.message, "a service could not be asked about"),
        Err(FreshError::Store(error)) => tracing::error!(%error, "what a provider said could not be written down"),
    }
}

/// Why a service's state is not known anew.
#[derive(Debug)]
pub enum FreshError {
    /// The provider did not say.
    Problem(Problem),
    /// The journal did not take it.
    Store(StoreError),
}

/// Asks the provider how a service stands, and writes that down unless a change is under way, which does so itself. None for a
/// service that is not, or no longer, there to be asked about.
pub(super) async fn fresh(shared: &Shared, caller: &Caller, id: i64) -> Result<Option<Managed>, FreshError> {
    let store = |fault: Fault| FreshError::Store(StoreError::Fault(fault));
    let Some(before) = shared.store.read(|books| books.managed_row(id)).map_err(store)? else { return Ok(None) };
    if !before.is_live || (before.remote_id.is_none() && before.domain.is_none()) {
        return Ok(None);
    }
    let asked =
        ServiceRef { remote_id: before.remote_id.clone(), domain: before.domain.clone(), username: before.username.clone() };
    let seen = caller.status(asked).await.map_err(FreshError::Problem)?;
    let (now, every) = (shared.clock.now(), shared.options.check_every);
    let noted = shared.store.transact(move |books| {
        books.claim_journal();
        let Some(mut service) = books.managed_row(id)? else { return Ok(None) };
        let is_changing = !books.open_operations(id)?.is_empty();
        if service.updated_at != before.updated_at || is_changing {
            return Ok(Some(service));
        }
        apply(books, &mut service, &seen)?;
        service.checked_at = Some(now);
        service.check_at = Some(now + every);
        note_drift(&mut service, now);
        books.save_managed(&service)?;
        Ok(Some(service))
    });
    noted.await.map_err(FreshError::Store)
}

/// Takes the provider's view over. An id or a domain that is another key's is not taken.
pub(super) fn apply(books: &mut Transaction<'_>, service: &mut Managed, seen: &Service) -> Result<(), Fault> {
    if seen.state != State::Unknown {
        state_word(seen.state).clone_into(&mut service.state);
    }
    if !seen.remote_id.is_empty() && is_taken(books, service.id, &service.profile, Some(&seen.remote_id), None)?.is_none() {
        service.remote_id = Some(seen.remote_id.clone());
    }
    if let Some(domain) = seen.domain.as_ref().filter(|domain| !domain.is_empty()).map(|domain| domain.to_ascii_lowercase())
        && is_taken(books, service.id, &service.profile, None, Some(&domain))?.is_none()
    {
        service.domain = Some(domain);
    }
    service.plan = seen.plan.clone().or_else(|| service.plan.take());
    service.due_at = seen.due_at.clone().or_else(|| service.due_at.take());
    if !seen.addresses.is_empty() {
        service.addresses.clone_from(&seen.addresses);
    }
    for property in &seen.properties {
        let found = service.properties.iter_mut().find(|(name, _)| *name == property.name);
        match found {
            Some((_, value)) => value.clone_from(&property.value),
            None => service.properties.push((property.name.clone(), property.value.clone())),
        }
    }
    service.properties.truncate(PROPERTIES_MAX);
    Ok(())
}

/// Of one service.
const PROPERTIES_MAX: usize = 64;

/// Notes how the provider's view differs from the panel's wish, and since when.
pub(super) fn note_drift(service: &mut Managed, now: Timestamp) {
    let kind = match (service.wanted.as_str(), service.state.as_str()) {
        _ if !service.is_live => None,
        ("active" | "suspended", "missing" | "terminated") => Some("gone"),
        ("active", "suspended") => Some("suspended"),
        ("suspended", "active") => Some("active"),
        ("terminated", "active" | "suspended") => Some("not-terminated"),
        _ => None,
    };
    service.drift = match (kind, service.drift.take()) {
        (Some(kind), Some((before, since))) if before == kind => Some((before, since)),
        (Some(kind), _) => Some((kind.to_owned(), now)),
        (None, _) => None,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn managed(wanted: &str, state: &str) -> Managed {
        Managed {
            id: 1,
            panel: 1,
            key: "service-1".to_owned(),
            generation: 1,
            profile: "p".to_owned(),
            state: state.to_owned(),
            wanted: wanted.to_owned(),
            is_live: true,
            remote_id: None,
            domain: None,
            username: None,
            plan: None,
            addresses: Vec::new(),
            properties: Vec::new(),
            due_at: None,
            drift: None,
            check_at: None,
            checked_at: None,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn drift_has_a_kind_and_a_beginning() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut service = managed("active", "missing");
        note_drift(&mut service, at(1));
        note_drift(&mut service, at(2));
        assert_eq!(service.drift, Some(("gone".to_owned(), at(1))));
        "suspended".clone_into(&mut service.state);
        note_drift(&mut service, at(3));
        assert_eq!(service.drift, Some(("suspended".to_owned(), at(3))));
        "active".clone_into(&mut service.state);
        note_drift(&mut service, at(4));
        assert_eq!(service.drift, None);
        let mut pending = managed("active", "pending");
        note_drift(&mut pending, at(1));
        assert_eq!(pending.drift, None);
    }
}
