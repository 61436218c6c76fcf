//! The journal of changes: each is written down before it is tried, made once, and followed to its end.
//!
//! `record` decides what a request is: a change asked for before, or a new one. `runner` takes what is due, `attempt` asks the
//! provider's component, `follow` judges what it said. A change goes on when nobody waits for it any more, after a crash too.

mod attempt;
mod breaker;
mod change;
mod follow;
mod inventory;
mod metrics;
mod problems;
mod profiles;
mod reconcile;
mod record;
mod retention;
mod runner;
mod summary;

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use provisor_providers::books::Fault;
use secrecy::SecretString;
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinHandle;

use self::breaker::Breakers;
pub use self::change::{Change, Power};
pub use self::follow::Rules;
use self::metrics::{Gauges, Metrics};
pub(crate) use self::problems::{NOT_THERE, problem};
pub use self::problems::{state_of_word, state_word};
pub use self::profiles::Profiles;
use self::profiles::{capability, is_idempotent};
pub use self::reconcile::FreshError;
use self::record::Asked;
use self::runner::UnderWay;
pub use self::summary::SummaryOptions;
use crate::clock::Clock;
use crate::plugin::contract::{Event, Problem, ProblemKind, Property};
use crate::store::{Managed, Operation, OperationAttempt, OperationState, Panel, Schedule, Store, StoreError};
use crate::telemetry::request_id;

/// What the operator may choose.
#[derive(Debug, Clone)]
pub struct Options {
    /// How the journal judges and waits.
    pub rules: Rules,
    /// Attempts under way at a time.
    pub at_once: usize,
    /// The same for one profile: a slow provider must not hold up the others.
    pub at_once_per_profile: usize,
    /// How long one attempt may take, in milliseconds.
    pub deadline_ms: u32,
    /// How often each service is compared with its provider.
    pub check_every: Duration,
    /// How long what has ended is kept; for ever, if none.
    pub keep_for: Option<SignedDuration>,
    /// The operator's daily summary.
    pub summary: Option<SummaryOptions>,
}

/// Events told in one request of a provider; more are dropped.
const EVENTS_MAX: usize = 100;
/// How often somebody who waits looks, besides being told: another host may settle what he waits for.
const LOOK: Duration = Duration::from_secs(1);
/// Ends of operations that a slow waiter may miss; he looks by himself then.
const UNHEARD_MAX: usize = 1024;

pub(crate) struct Shared {
    store: Store,
    clock: Arc<dyn Clock>,
    profiles: Profiles,
    options: Options,
    /// Names this process in the journal.
    holder: String,
    wake: Notify,
    changes: broadcast::Sender<i64>,
    breakers: Breakers,
    under_way: UnderWay,
    metrics: Metrics,
}

impl Shared {
    fn changed(&self, operation: i64) {
        // Nobody may be waiting.
        let _unheard = self.changes.send(operation);
        // What waited behind it may be due now.
        self.wake.notify_one();
    }
}

/// The journal. Clones are the same one.
#[derive(Clone)]
pub struct Operations(Arc<Shared>);

/// The journal's workers, until they are stopped.
pub struct Working {
    operations: Operations,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Working {
    /// The journal they work on.
    pub fn operations(&self) -> &Operations {
        &self.operations
    }

    /// Begins no more attempts, waits up to 20 s for those under way, and returns. The journal keeps the rest.
    pub async fn stop(self) {
        // Nobody listens any more if every task has ended already.
        let _heard = self.stop.send(true);
        for task in self.tasks {
            let _ended = task.await;
        }
        let (store, holder) = (&self.operations.0.store, self.operations.0.holder.clone());
        if let Err(error) = store.transact(move |books| books.release_schedule(Schedule::Journal, &holder)).await {
            tracing::debug!(%error, "the next host has to wait for the end of the lease");
        }
    }
}

/// Starts the journal's workers.
pub fn start(store: Store, clock: Arc<dyn Clock>, profiles: Profiles, options: Options) -> Working {
    let holder = request_id(&*clock);
    let shared = Arc::new(Shared {
        store,
        clock,
        profiles,
        options,
        holder,
        wake: Notify::new(),
        changes: broadcast::channel(UNHEARD_MAX).0,
        breakers: Breakers::default(),
        under_way: UnderWay::default(),
        metrics: Metrics::default(),
    });
    let (stop, stopped) = watch::channel(false);
    let mut tasks = vec![
        tokio::spawn(runner::run(Arc::clone(&shared), stopped.clone())),
        tokio::spawn(reconcile::run(Arc::clone(&shared), stopped.clone())),
        tokio::spawn(inventory::run(Arc::clone(&shared), stopped.clone())),
        tokio::spawn(retention::run(Arc::clone(&shared), stopped.clone())),
    ];
    if let Some(summary) = shared.options.summary.clone() {
        tasks.push(tokio::spawn(summary::run(Arc::clone(&shared), summary, stopped)));
    }
    Working { operations: Operations(shared), stop, tasks }
}

/// A request for a change.
#[derive(Debug, Clone)]
pub struct Request {
    /// The panel's name of the service.
    pub key: String,
    /// The profile that it names.
    pub profile: Option<String>,
    /// What is to be done.
    pub change: Change,
    /// The password that comes with it.
    pub password: Option<SecretString>,
    /// The panel's own key for it.
    pub idempotency_key: Option<String>,
    /// The request's id.
    pub request_id: String,
}

/// What is known of a change before the journal is asked.
#[derive(Default)]
struct Admitted {
    /// It charges at a provider without idempotency.
    is_alone: bool,
    /// Options of which the provider says that they are not secret.
    plain_options: Vec<String>,
    /// While a provider is left alone, a new change is refused rather than made to wait: its panel hears at once that nothing was sent.
    left_alone: Option<Problem>,
}

/// Why a request came to nothing.
#[derive(Debug)]
pub enum AskError {
    /// It is refused: nothing was written, nothing is sent.
    Refused(Problem),
    /// The journal could not take it.
    Store(StoreError),
}

impl From<StoreError> for AskError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Fault> for AskError {
    fn from(fault: Fault) -> Self {
        Self::Store(fault.into())
    }
}

/// What a person does to an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intervention {
    /// Tries it at once.
    Retry,
    /// Ends it, if nothing was sent.
    Cancel,
    /// Says how it came out.
    Resolve {
        /// Whether the change was made.
        done: bool,
        /// The provider's id of the service.
        remote_id: Option<String>,
        /// What was found out, and by whom.
        note: String,
    },
}

impl Operations {
    /// The profiles that changes are made with.
    pub fn profiles(&self) -> &Profiles {
        &self.0.profiles
    }

    /// Writes a change down, or finds the one that it repeats.
    pub async fn ask(&self, panel: &Panel, request: Request) -> Result<Operation, AskError> {
        let shared = &self.0;
        let Request { key, profile, change, password, idempotency_key, request_id: asked_by } = request;
        let (change, password) = change.normal(password).map_err(AskError::Refused)?;
        let known = shared.store.read(|books| books.managed(panel.id, &key))?;
        if known.is_none() && !change.begins() {
            return Err(AskError::Refused(record::unknown_service(&key)));
        }
        let made_with = known.filter(|service| service.is_live || !change.begins()).map(|service| service.profile);
        let named = profile.clone().or(made_with);
        // Without a profile the journal says what is missing.
        let admitted = named.as_deref().map(|name| self.admit(panel, name, &change)).transpose();
        let Admitted { is_alone, plain_options, left_alone } = admitted.map_err(AskError::Refused)?.unwrap_or_default();
        let asked = Asked {
            panel: panel.id,
            key,
            profile,
            change,
            password,
            idempotency_key,
            request_id: asked_by,
            ulid: request_id(&*shared.clock),
            is_alone,
            plain_options,
            left_alone,
            now: shared.clock.now(),
        };
        let recorded = shared.store.transact(move |books| record::record(books, &asked)).await?;
        shared.wake.notify_one();
        recorded.map_err(AskError::Refused)
    }

    /// What can be told without the journal: whether the profile is there, may be used, and its provider can do this.
    fn admit(&self, panel: &Panel, profile: &str, change: &Change) -> Result<Admitted, Problem> {
        let named = |problem: Problem| Problem { field: Some("profile".to_owned()), ..problem };
        if !panel.may_use(profile) {
            return Err(problem(ProblemKind::Forbidden, "this token may not use this profile"));
        }
        let unknown = || named(problem(ProblemKind::Invalid, format!("there is no profile `{profile}`")));
        let caller = self.0.profiles.get(profile).ok_or_else(unknown)?;
        let info = caller.provider().ok_or_else(unknown)?;
        let asked_for = if change.kind() == "adopt" { "status" } else { change.kind() };
        let Some(capability) = capability(info, asked_for) else {
            let message = format!("{} has no operation {asked_for}", info.name);
            return Err(problem(ProblemKind::Unsupported, message));
        };
        let left = self.0.breakers.open_for(profile, Instant::now());
        let left_alone = left.map(|left| {
            let milliseconds = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            problems::later(ProblemKind::Unreachable, "the provider does not answer: it is left alone for a while", milliseconds)
        });
        let plain_options = caller.plain_options().map(str::to_owned).collect();
        Ok(Admitted { is_alone: capability.charges && !is_idempotent(info), plain_options, left_alone })
    }

    /// Waits until an operation has ended, needs a person, or the time is over; then as it stands.
    pub async fn wait(&self, operation: Operation, wait: Duration) -> Result<Operation, Fault> {
        let until = tokio::time::Instant::now() + wait;
        let mut settled = self.0.changes.subscribe();
        let (id, ulid) = (operation.id, operation.ulid.clone());
        let mut current = operation;
        loop {
            // Subscribed first, looked second: nothing falls in between.
            current = self.0.store.read(|books| books.operation(None, &ulid))?.unwrap_or(current);
            if current.state.is_ended() || current.state == OperationState::Dead {
                return Ok(current);
            }
            let look = tokio::time::sleep(LOOK);
            tokio::pin!(look);
            loop {
                tokio::select! {
                    () = tokio::time::sleep_until(until) => return Ok(current),
                    () = &mut look => break,
                    one = settled.recv() => match one {
                        Ok(other) if other != id => {}
                        // Its own, or too many to tell.
                        _ => break,
                    }
                }
            }
        }
    }

    /// Notes that somebody was told to come back for an operation.
    pub async fn note_awaited(&self, operation: i64) -> Result<(), StoreError> {
        self.0.store.transact(move |books| books.note_awaited(operation)).await
    }

    /// A panel's operation.
    pub fn operation(
        &self,
        panel: Option<i64>,
        ulid: &str,
    ) -> Result<Option<(Operation, Managed, Vec<OperationAttempt>)>, Fault> {
        self.0.store.read(|books| {
            let Some(operation) = books.operation(panel, ulid)? else { return Ok(None) };
            let service =
                books.managed_row(operation.service)?.ok_or_else(|| Fault("an operation without a service".to_owned()))?;
            let attempts = books.operation_attempts(operation.id)?;
            Ok(Some((operation, service, attempts)))
        })
    }

    /// A panel's service, and the id of the change that is under way.
    pub fn service(&self, panel: i64, key: &str) -> Result<Option<(Managed, Option<String>)>, Fault> {
        self.0.store.read(|books| {
            let Some(service) = books.managed(panel, key)? else { return Ok(None) };
            let under_way = books.open_operations(service.id)?.into_iter().next().map(|operation| operation.ulid);
            Ok(Some((service, under_way)))
        })
    }

    /// Asks the provider how a service stands.
    pub async fn fresh(&self, service: &Managed) -> Result<(), FreshError> {
        let Some(caller) = self.0.profiles.get(&service.profile) else {
            let message = format!("the configuration has no profile `{}` any more", service.profile);
            return Err(FreshError::Problem(problem(ProblemKind::Internal, message)));
        };
        reconcile::fresh(&self.0, &caller, service.id).await.map(|_| ())
    }

    /// Does to an operation what a person asks for.
    pub async fn intervene(&self, panel: Option<i64>, ulid: &str, what: Intervention) -> Result<Option<Operation>, AskError> {
        let operation = intervene(&self.0.store, panel, ulid, what, self.0.clock.now()).await?;
        if let Some(operation) = &operation {
            self.0.changed(operation.id);
        }
        Ok(operation)
    }

    /// Takes a webhook of a profile's provider: verified by its component, each event once. How many were new.
    pub async fn receive(&self, profile: &str, headers: Vec<Property>, body: Vec<u8>) -> Result<usize, AskError> {
        let caller = self.0.profiles.get(profile);
        let caller = caller.ok_or_else(|| AskError::Refused(problem(ProblemKind::NotFound, "there is no such profile")))?;
        let mut events = caller.receive(headers, body).await.map_err(AskError::Refused)?;
        events.truncate(EVENTS_MAX);
        let (profile, now) = (profile.to_owned(), self.0.clock.now());
        let told = self.0.store.transact(move |books| {
            let mut told = 0;
            for event in &events {
                told += usize::from(hear(books, &profile, event, now)?);
            }
            Ok(told)
        });
        let told = told.await?;
        self.0.wake.notify_one();
        Ok(told)
    }

    /// What monitoring asks for, in Prometheus' text format.
    pub fn metrics(&self) -> Result<String, Fault> {
        let (store, now) = (&self.0.store, self.0.clock.now());
        let (open, oldest, drifted, unowned) = store.read(|books| {
            let (open, oldest) = (books.open_operation_counts()?, books.oldest_open_operation()?);
            Ok((open, oldest, books.drifted_services()?, books.unowned_count()?))
        })?;
        let oldest_s = oldest.map_or(0, |oldest| now.duration_since(oldest).as_secs().max(0));
        let gauges = Gauges { is_sealed: store.is_sealed(), open, oldest_s, drifted, unowned };
        let circuits = self.0.profiles.all().keys().map(|name| (name.clone(), self.0.breakers.is_open(name))).collect::<Vec<_>>();
        Ok(self.0.metrics.text(&gauges, &circuits))
    }
}

/// An event says that it is worth asking, nothing more: whoever can forge one gains a question.
fn hear(books: &mut crate::store::Transaction<'_>, profile: &str, event: &Event, now: Timestamp) -> Result<bool, Fault> {
    books.claim_journal();
    if !books.note_provider_event(profile, &event.id, now)? {
        return Ok(false);
    }
    let about = event.remote_id.as_deref().map(|remote_id| books.managed_at(profile, remote_id)).transpose()?.flatten();
    let Some(service) = about else {
        // An order may have become this service: those that wait are asked about.
        books.hurry_accepted(profile, now)?;
        return Ok(true);
    };
    let open = books.open_operations(service.id)?;
    match open.first() {
        Some(operation) if operation.is_accepted => books.hurry(operation.id, now)?,
        Some(_) => {}
        None => books.save_managed(&Managed { check_at: Some(now), ..service })?,
    }
    Ok(true)
}

/// Does to an operation what a person asks for, on a book that a host may be working on. None if there is no such operation.
pub async fn intervene(
    store: &Store,
    panel: Option<i64>,
    ulid: &str,
    what: Intervention,
    now: Timestamp,
) -> Result<Option<Operation>, AskError> {
    let ulid = ulid.to_owned();
    let done = store.transact(move |books| {
        books.claim_journal();
        let Some(operation) = books.operation(panel, &ulid)? else { return Ok(Ok(None)) };
        Ok(record::intervene(books, operation, &what, now)?.map(Some))
    });
    done.await?.map_err(AskError::Refused)
}
