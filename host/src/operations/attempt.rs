//! One attempt at an operation: what is asked of the provider's component, and what is written before and after.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use provisor_providers::books::Fault;
use secrecy::{ExposeSecret, SecretString};

use super::breaker::Liveness;
use super::change::{Change, due_moment};
use super::follow::{Case, Heard, Verdict};
use super::problems::{NOT_THERE, later, problem, state_word};
use super::profiles::{capability, is_idempotent};
use super::record::{ended, is_taken, problem_text};
use super::{Shared, reconcile};
use crate::plugin::Caller;
use crate::plugin::contract::{
    Call, Effect, Order, Outcome, Problem, ProblemKind, Property, Service, ServiceRef, Setting, State,
};
use crate::store::{Kept, Managed, Operation, OperationState, Transaction};

/// Services looked through for one that an order may have made, in pages.
const PAGES_MAX: usize = 100;

/// An operation with what it is about.
struct Work {
    operation: Operation,
    change: Change,
    service: Managed,
    password: Option<SecretString>,
    /// The time for settling lost answers was over when this began.
    is_last: bool,
    /// Something was sent, or may have been.
    has_sent: bool,
}

/// Makes one attempt and writes down what became of it. If this process ends in between, the journal shows an attempt without an end.
pub(super) async fn make(shared: &Shared, operation: Operation) {
    let span = tracing::info_span!("operation", id = operation.ulid, kind = operation.kind, attempt = operation.attempts);
    let attempt = async {
        let work = match load(shared, operation) {
            Ok(work) => work,
            Err(error) => {
                tracing::error!(%error, "an operation cannot be read; it is tried again when its hold is over");
                return;
            }
        };
        let caller = shared.profiles.get(&work.operation.profile);
        let (work, heard) = match of_nothing(&work) {
            Some(problem) => (work, Heard::Problem(problem)),
            None => ask(shared, caller.as_ref(), work).await,
        };
        let is_idempotent = caller.as_ref().and_then(Caller::provider).is_some_and(is_idempotent);
        if let Err(error) = settle(shared, work, heard, is_idempotent).await {
            // As after a crash: the attempt counts as interrupted, and the next one settles it.
            tracing::error!(%error, "what became of an attempt could not be written down");
        }
    };
    tracing::Instrument::instrument(attempt, span).await;
}

fn load(shared: &Shared, operation: Operation) -> anyhow::Result<Work> {
    let change: Change = serde_json::from_str(&operation.change)?;
    let settle_for = shared.options.rules.settle_for;
    let age = operation.sent_at.map(|sent_at| shared.clock.now().duration_since(sent_at));
    let is_last = operation.doubts > 0 && age.is_some_and(|age| age >= settle_for);
    let found = shared.store.read(|books| Ok((books.managed_row(operation.service)?, books.kept_with(&operation)?)));
    let (service, Kept { password, options }) = found?;
    let options = options.map(|options| serde_json::from_str(options.expose_secret())).transpose();
    // What the reader would say quotes values.
    let options = options.map_err(|_| anyhow::anyhow!("its options are no JSON object of texts"))?;
    let change = change.with_secrets(options.unwrap_or_default());
    let service = service.ok_or_else(|| anyhow::anyhow!("its service is not in the journal"))?;
    Ok(Work { operation, change, service, password, is_last, has_sent: false })
}

/// Why there is nothing to ask: a change that waited behind the beginning of a service that failed. What the service is known by is then
/// a wish, and may be somebody else's. Its end is what it has come to already.
fn of_nothing(work: &Work) -> Option<Problem> {
    let Work { operation, change, service, .. } = work;
    let was_sent = operation.doubts > 0 || operation.is_accepted;
    if service.is_live || change.begins() || was_sent {
        return None;
    }
    let kind = if *change == Change::Terminate { ProblemKind::NotFound } else { ProblemKind::WrongState };
    Some(problem(kind, NOT_THERE))
}

/// Asks the provider, and notes whether it answered and how long it took.
async fn ask(shared: &Shared, caller: Option<&Caller>, work: Work) -> (Work, Heard) {
    let (profile, began) = (work.operation.profile.clone(), Instant::now());
    let attempt = shared.breakers.begin(&profile, began);
    let (work, heard) = hear(shared, caller, work).await;
    if attempt.heard(liveness(&heard), Instant::now()) {
        tracing::warn!(profile, "the provider does not answer: it is left alone for a while");
    }
    shared.metrics.attempted(&work.operation, began.elapsed());
    (work, heard)
}

/// Asks the provider what this attempt is to ask.
async fn hear(shared: &Shared, caller: Option<&Caller>, work: Work) -> (Work, Heard) {
    let Some(caller) = caller else {
        let message = format!("the configuration has no profile `{}` any more", work.operation.profile);
        return (work, Heard::Problem(later(ProblemKind::Internal, message, 60_000)));
    };
    if work.operation.is_accepted || matches!(work.change, Change::Adopt { .. }) {
        let heard = ask_status(caller, &work).await;
        return (work, heard);
    }
    if work.is_last && caller.provider().is_some_and(is_idempotent) {
        let heard = look(shared, caller, &work).await;
        return (work, heard);
    }
    let notes = match evidence(caller, &work).await {
        Ok(notes) => notes,
        Err(problem) => return (work, Heard::Problem(problem)),
    };
    match begin_sending(shared, work, notes).await {
        Ok(work) => {
            let heard = send(caller, shared.options.deadline_ms, &work).await;
            (work, heard.map_or_else(Heard::Problem, Heard::Outcome))
        }
        Err((work, message)) => (work, Heard::Problem(later(ProblemKind::Internal, message, 1_000))),
    }
}

fn reference(service: &Managed) -> ServiceRef {
    ServiceRef { remote_id: service.remote_id.clone(), domain: service.domain.clone(), username: service.username.clone() }
}

async fn ask_status(caller: &Caller, work: &Work) -> Heard {
    match caller.status(reference(&work.service)).await {
        Ok(service) if work.operation.is_accepted => Heard::Status(service),
        Ok(service) => match service.state {
            State::Missing | State::Terminated | State::Failed => {
                let message = format!("the provider has no such service to adopt: it is {}", state_word(service.state));
                let kind = if service.state == State::Failed { ProblemKind::WrongState } else { ProblemKind::NotFound };
                Heard::Problem(problem(kind, message))
            }
            // Its service, which has an id of its own, is still to come.
            State::Pending => Heard::Outcome(Outcome::Pending(service)),
            _ => Heard::Outcome(Outcome::Done(service)),
        },
        Err(problem) => Heard::Problem(problem),
    }
}

/// The provider may have forgotten the idempotency key: what is there decides, and nothing is sent again.
async fn look(shared: &Shared, caller: &Caller, work: &Work) -> Heard {
    let told =
        |message: &str| Heard::Unsettled(Problem { effect: Effect::Unknown, ..problem(ProblemKind::Unreachable, message) });
    if matches!(work.change, Change::Create { .. }) {
        return match find_made(shared, caller, work).await {
            Ok(Some(service)) => Heard::Outcome(Outcome::Done(service)),
            Ok(None) => told("an answer was lost, and no service can be told to be the one that was ordered"),
            Err(problem) => Heard::Problem(Problem { effect: Effect::Unknown, ..problem }),
        };
    }
    match caller.status(reference(&work.service)).await {
        Ok(service) if shared.case(work, true).is_shown(&service) => {
            let state = if work.change == Change::Terminate { State::Terminated } else { service.state };
            Heard::Outcome(Outcome::Done(Service { state, ..service }))
        }
        Ok(_) => told("an answer was lost, and the service does not show that the change was made"),
        Err(problem) => Heard::Problem(Problem { effect: Effect::Unknown, ..problem }),
    }
}

/// The one service of this domain that no key of the journal owns. Two, or an order without a domain, are for a person to judge.
async fn find_made(shared: &Shared, caller: &Caller, work: &Work) -> Result<Option<Service>, Problem> {
    let Some(domain) = work.service.domain.clone() else { return Ok(None) };
    let (mut cursor, mut found) = (None, Vec::new());
    for _ in 0..PAGES_MAX {
        let page = caller.list_services(cursor).await?;
        let is_wanted = |service: &Service| {
            let is_there = matches!(service.state, State::Active | State::Suspended | State::Pending);
            is_there
                && !is_older(service, work.operation.created_at)
                && service.domain.as_ref().is_some_and(|found| found.eq_ignore_ascii_case(&domain))
        };
        found.extend(page.services.into_iter().filter(is_wanted));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let (profile, id) = (work.service.profile.clone(), work.service.id);
    let free = shared.store.read(|books| {
        let mut free = Vec::new();
        for service in found {
            if is_taken(books, id, &profile, Some(&service.remote_id), None)?.is_none() {
                free.push(service);
            }
        }
        Ok(free)
    });
    let mut free = free.map_err(|fault| problem(ProblemKind::Internal, fault.to_string()))?;
    Ok(if free.len() == 1 { free.pop() } else { None })
}

/// Whether a service was there before it was asked for, as far as the provider says so. Its clock may be behind.
fn is_older(service: &Service, asked_at: Timestamp) -> bool {
    const CLOCKS: SignedDuration = SignedDuration::from_mins(10);
    let made = service.properties.iter().find(|property| property.name == "created-at");
    made.and_then(|made| made.value.parse::<Timestamp>().ok()).is_some_and(|made| asked_at.duration_since(made) > CLOCKS)
}

/// What the provider wants read before the first try, since it alone tells afterwards whether a lost one had an effect.
async fn evidence(caller: &Caller, work: &Work) -> Result<Vec<(String, String)>, Problem> {
    if work.operation.doubts > 0 {
        return Ok(work.operation.notes.clone());
    }
    let wanted = caller.provider().and_then(|info| capability(info, &work.operation.kind));
    let mut notes = Vec::new();
    for name in wanted.map(|capability| capability.evidence.as_slice()).unwrap_or_default() {
        let note = caller.evidence(name, reference(&work.service)).await?.ok_or_else(|| {
            let message = format!("the component asks for evidence that this host cannot read: {name}");
            problem(ProblemKind::Internal, message)
        })?;
        notes.push((note.name, note.value));
    }
    Ok(notes)
}

/// From this commit on the attempt may have had an effect, whatever happens to this process.
async fn begin_sending(shared: &Shared, work: Work, notes: Vec<(String, String)>) -> Result<Work, (Work, String)> {
    let now = shared.clock.now();
    let operation = Operation {
        doubts: work.operation.doubts + 1,
        sent_at: work.operation.sent_at.or(Some(now)),
        notes,
        ..work.operation.clone()
    };
    let written = operation.clone();
    match shared.store.transact(move |books| books.save_operation(&written)).await {
        Ok(true) => Ok(Work { operation, has_sent: true, ..work }),
        Ok(false) => Err((work, "another host has taken this operation".to_owned())),
        Err(error) => Err((work, error.to_string())),
    }
}

async fn send(caller: &Caller, deadline_ms: u32, work: &Work) -> Result<Outcome, Problem> {
    let Work { operation, change, service, password, .. } = work;
    let property = |(name, value): &(String, String)| Property { name: name.clone(), value: value.clone() };
    let call = Call {
        idempotency_key: operation.ulid.clone(),
        attempt: operation.doubts,
        deadline_ms,
        notes: operation.notes.iter().map(property).collect(),
    };
    let password = || password.as_ref().map(|password| password.expose_secret().to_owned());
    let settings = |options: &std::collections::BTreeMap<String, String>| {
        options.iter().map(|(name, value)| Setting { name: name.clone(), value: value.clone() }).collect()
    };
    let due_moment = |due_at: &str| due_moment(due_at, service.due_at.as_deref());
    let at = reference(service);
    match change {
        Change::Create { plan, term, domain, email, note, options } => {
            let order = Order {
                plan: plan.clone(),
                term: term.clone(),
                domain: domain.clone(),
                email: email.clone(),
                password: password(),
                note: note.clone(),
                options: settings(options),
            };
            caller.create(call, order).await
        }
        Change::Suspend { reason } => caller.suspend(call, at, reason.clone()).await,
        Change::Unsuspend => caller.unsuspend(call, at).await,
        Change::Terminate => caller.terminate(call, at).await,
        Change::Renew { due_at } => caller.renew(call, at, due_moment(due_at)).await,
        Change::ResetPassword => caller.reset_password(call, at, password()).await,
        Change::ChangePackage { plan, options } => caller.change_package(call, at, plan.clone(), settings(options)).await,
        Change::Power { action } => caller.power(call, at, (*action).into()).await,
        Change::Adopt { .. } => Err(problem(ProblemKind::Internal, "an adoption sends nothing")),
    }
}

fn liveness(heard: &Heard) -> Liveness {
    match heard {
        Heard::Problem(Problem { kind: ProblemKind::Unreachable | ProblemKind::Protocol, .. }) => Liveness::Silent,
        Heard::Problem(Problem { kind: ProblemKind::Internal, .. }) => Liveness::Unknown,
        _ => Liveness::Answered,
    }
}

impl Shared {
    fn case<'a>(&'a self, work: &'a Work, is_idempotent: bool) -> Case<'a> {
        let seed = self.clock.seed();
        Case {
            operation: &work.operation,
            change: &work.change,
            service: &work.service,
            rules: &self.options.rules,
            is_idempotent,
            is_last: work.is_last,
            earlier_doubts: work.operation.doubts - u32::from(work.has_sent),
            now: self.clock.now(),
            jitter: u16::from_be_bytes([seed[0], seed[1]]),
        }
    }
}

/// Writes down what became of an attempt, in one transaction.
async fn settle(shared: &Shared, work: Work, heard: Heard, is_idempotent: bool) -> anyhow::Result<()> {
    let case = shared.case(&work, is_idempotent);
    let (now, verdict) = (case.now, Arc::new(case.judge(heard)));
    let id = work.operation.id;
    if let Some(problem) = &verdict.problem {
        tracing::info!(state = verdict.state.as_str(), kind = ?problem.kind, effect = ?problem.effect, message = problem.message);
    }
    let check_every = shared.options.check_every;
    let Work { mut operation, change, has_sent, .. } = work;
    if has_sent && !verdict.in_doubt && !verdict.is_accepted {
        operation.doubts -= 1;
    }
    let state = shared.store.transact(move |books| write(books, &operation, &change, &verdict, now, check_every)).await?;
    if let Some(state) = state {
        shared.metrics.settled(state);
        shared.changed(id);
    } else {
        tracing::warn!("another host has taken this operation: what became of the attempt is its business");
    }
    Ok(())
}

/// Why what the provider shows cannot be this key's. What is adopted may also be what another key's order is about to become.
fn taken(books: &mut Transaction<'_>, service: &Managed, change: &Change, seen: &Service) -> Result<Option<Problem>, Fault> {
    let profile = &service.profile;
    let taken = is_taken(books, service.id, profile, Some(&seen.remote_id), None)?;
    if taken.is_some() || !matches!(change, Change::Adopt { .. }) {
        return Ok(taken);
    }
    let order = seen.properties.iter().find(|property| property.name == "order").map(|order| order.value.as_str());
    let of_domain = seen.domain.as_ref().map(|domain| books.managed_of_domain(profile, &domain.to_ascii_lowercase()));
    let is_ordered = of_domain.transpose()?.flatten().is_some_and(|owner| owner.id != service.id && owner.remote_id.is_none());
    if is_ordered {
        let message = "another service key's order of this domain is under way";
        return Ok(Some(Problem { field: Some("domain".to_owned()), ..problem(ProblemKind::AlreadyExists, message) }));
    }
    order.map_or(Ok(None), |order| is_taken(books, service.id, profile, Some(order), None))
}

fn write(
    books: &mut Transaction<'_>,
    operation: &Operation,
    change: &Change,
    verdict: &Verdict,
    now: Timestamp,
    check_every: Duration,
) -> Result<Option<OperationState>, Fault> {
    books.claim_journal();
    let Some(mut service) = books.managed_row(operation.service)? else { return Ok(None) };
    let mut state = verdict.state;
    let mut told = verdict.problem.clone();
    let mut is_live = verdict.is_live;
    if let Some(seen) = &verdict.service {
        let taken = taken(books, &service, change, seen)?;
        if let (Some(taken), true) = (taken, change.begins() && !seen.remote_id.is_empty()) {
            (state, told, is_live) = (OperationState::Failed, Some(taken), Some(false));
        } else {
            reconcile::apply(books, &mut service, seen)?;
        }
    }
    let has_failed_to_begin = change.begins() && state == OperationState::Failed;
    if state == OperationState::Done
        && let Some(wish) = change.wish()
        && verdict.service.as_ref().is_none_or(|seen| matches!(seen.state, State::Unknown | State::Pending))
    {
        wish.clone_into(&mut service.state);
    } else if has_failed_to_begin {
        "failed".clone_into(&mut service.state);
    }
    service.is_live = is_live.unwrap_or(service.is_live);
    service.checked_at = if verdict.service.is_some() { Some(now) } else { service.checked_at };
    reconcile::note_drift(&mut service, now);
    service.check_at = if service.is_live && state.is_ended() { Some(now + check_every) } else { None };
    service.updated_at = now;
    let problem = told.as_ref().map(problem_text).transpose()?;
    let written = Operation {
        state,
        is_accepted: verdict.is_accepted,
        accepted_at: operation.accepted_at.or(verdict.is_accepted.then_some(now)),
        next_at: verdict.pause.map(|pause| now + pause),
        problem: if state == OperationState::Done { None } else { problem.clone() },
        ..operation.clone()
    };
    let written = if state.is_ended() { ended(written, state, now) } else { written };
    if !books.save_operation(&written)? {
        return Ok(None);
    }
    books.save_managed(&service)?;
    let outcome = match state {
        OperationState::Done => "done",
        OperationState::Waiting if verdict.is_accepted => "pending",
        _ => "failed",
    };
    books.end_attempt(&written, outcome, problem.as_deref(), now)?;
    Ok(Some(state))
}
