//! What becomes of a request: the same change as one before, a new one, or none. Decided in one transaction, before anything is sent.

use hmac::Mac;
use jiff::Timestamp;
use provisor_providers::books::Fault;
use secrecy::SecretString;

use super::Intervention;
use super::change::{Change, HmacSha256};
use super::problems::{NOT_THERE, later, problem};
use crate::plugin::contract::{Problem, ProblemKind};
use crate::store::{Kept, Managed, Operation, OperationState, Transaction};
use crate::vault::Vault;

/// Changes of one service that are not ended, at most: beyond, something is wrong at the caller's end.
const OPEN_MAX: usize = 32;

/// A request, as far as it is known without the journal.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) panel: i64,
    pub(super) key: String,
    /// The profile it names; required where the service is to begin.
    pub(super) profile: Option<String>,
    pub(super) change: Change,
    pub(super) password: Option<SecretString>,
    pub(super) idempotency_key: Option<String>,
    pub(super) request_id: String,
    /// The new operation's id, if there is to be one.
    pub(super) ulid: String,
    /// Whether a change of this kind with this profile must be alone.
    pub(super) is_alone: bool,
    /// Options of which the provider says that they are not secret.
    pub(super) plain_options: Vec<String>,
    /// Why nothing new is taken on, while the provider is left alone.
    pub(super) left_alone: Option<Problem>,
    pub(super) now: Timestamp,
}

/// What a request comes to before anything is written.
enum Decision {
    Join(Box<Operation>),
    Refuse(Problem),
    New(Box<New>),
}

/// A new operation, and what is written with it.
struct New {
    service: Managed,
    /// Earlier ones, not begun, whose place it takes.
    replaced: Vec<Operation>,
    /// Whether something may stand at the provider from before.
    is_doubtful: bool,
    /// There is nothing at the provider to change: it ends as it begins.
    is_done: bool,
}

fn new(service: Managed) -> New {
    New { service, replaced: Vec::new(), is_doubtful: false, is_done: false }
}

/// The operation that a request is, or was; or why there is none, and then nothing was written.
pub(super) fn record(books: &mut Transaction<'_>, asked: &Asked) -> Result<Result<Operation, Problem>, Fault> {
    books.claim_journal();
    let known = books.managed(asked.panel, &asked.key)?;
    let decision = match known {
        None if asked.change.begins() => begin(books, asked, None)?,
        None => Decision::Refuse(unknown_service(&asked.key)),
        Some(service) if asked.change.begins() => begin_again(books, asked, service)?,
        Some(service) => go_on(books, asked, service)?,
    };
    match decision {
        Decision::Refuse(problem) => Ok(Err(problem)),
        // A repeat of what could not be settled has it asked about once more: asking harms nothing.
        Decision::Join(operation) if operation.state == OperationState::Dead => revive(books, *operation, asked.now).map(Ok),
        Decision::Join(operation) => Ok(Ok(*operation)),
        Decision::New(new) => match &asked.left_alone {
            Some(why) if !new.is_done => Ok(Err(why.clone())),
            _ => write(books, asked, *new).map(Ok),
        },
    }
}

/// For a key that the journal does not know.
pub(super) fn unknown_service(key: &str) -> Problem {
    problem(ProblemKind::NotFound, format!("the journal knows no service `{key}`: nothing was sent"))
}

/// Takes an operation out of the dead letters.
pub(super) fn revive(books: &mut Transaction<'_>, operation: Operation, now: Timestamp) -> Result<Operation, Fault> {
    // Others have been paid for meanwhile: a credit from before that is no evidence any more.
    let notes = if operation.is_alone { Vec::new() } else { operation.notes };
    let revived = Operation { state: OperationState::Unknown, next_at: Some(now), notes, ..operation };
    books.save_operation(&revived)?;
    Ok(revived)
}

fn write(books: &mut Transaction<'_>, asked: &Asked, new: New) -> Result<Operation, Fault> {
    for operation in new.replaced {
        let message = format!("replaced by a later request ({}) before anything was sent", asked.change.kind());
        books.save_operation(&failed(operation, &problem(ProblemKind::Refused, message), asked.now)?)?;
    }
    let wanted = asked.change.wish().unwrap_or(&new.service.wanted).to_owned();
    let mut service = Managed { wanted, updated_at: asked.now, ..new.service };
    if service.id == 0 {
        service.id = books.add_managed(&service)?;
    } else {
        books.save_managed(&service)?;
    }
    let sealed = || Fault("the master key of this book is missing".to_owned());
    let version = books.vault.newest();
    let mac = mac(books.vault, asked, version)?.ok_or_else(sealed)?.finalize().into_bytes();
    let (change, sealed) = asked.change.clone().without_secrets(&asked.plain_options);
    let json = |error: serde_json::Error| Fault(error.to_string());
    let recorded = Operation {
        id: 0,
        ulid: asked.ulid.clone(),
        service: service.id,
        generation: service.generation,
        kind: asked.change.kind().to_owned(),
        sameness: asked.change.sameness(service.generation, asked.idempotency_key.as_deref()),
        profile: service.profile,
        change: serde_json::to_string(&change).map_err(json)?,
        change_mac: [&version.to_be_bytes()[..], &mac].concat(),
        is_alone: asked.is_alone,
        state: OperationState::Recorded,
        attempts: 0,
        doubts: u32::from(new.is_doubtful),
        is_accepted: false,
        notes: Vec::new(),
        fence: 0,
        next_at: Some(asked.now),
        sent_at: None,
        accepted_at: None,
        problem: None,
        request_id: asked.request_id.clone(),
        was_awaited: false,
        created_at: asked.now,
        ended_at: None,
    };
    let recorded = if new.is_done { ended(recorded, OperationState::Done, asked.now) } else { recorded };
    let options = if sealed.is_empty() { None } else { Some(serde_json::to_string(&sealed).map_err(json)?.into()) };
    let kept = if new.is_done { Kept::default() } else { Kept { password: asked.password.clone(), options } };
    books.add_operation(&recorded, &kept)
}

/// A MAC over a request; none without the key.
fn mac(vault: &Vault, asked: &Asked, version: u32) -> Result<Option<HmacSha256>, Fault> {
    let key = vault.derived_key_of(version, "requests of panels");
    let mac = key.map(|key| asked.change.mac(asked.password.as_ref(), &key)).transpose();
    mac.map_err(|error| Fault(error.to_string()))
}

/// Whether an operation was asked for in the same words. Under a key that is gone nobody can tell: then it was not.
fn is_same_request(vault: &Vault, asked: &Asked, operation: &Operation) -> Result<bool, Fault> {
    let Some((version, told)) = operation.change_mac.split_first_chunk() else { return Ok(false) };
    let mac = mac(vault, asked, u32::from_be_bytes(*version))?;
    Ok(mac.is_some_and(|mac| mac.verify_slice(told).is_ok()))
}

pub(super) fn ended(operation: Operation, state: OperationState, now: Timestamp) -> Operation {
    Operation { state, next_at: None, ended_at: Some(now), ..operation }
}

fn wrong_state(message: impl Into<String>) -> Decision {
    Decision::Refuse(problem(ProblemKind::WrongState, message))
}

/// The first, or the next, generation of a key.
fn begin(books: &mut Transaction<'_>, asked: &Asked, before: Option<Managed>) -> Result<Decision, Fault> {
    let Some(profile) = asked.profile.clone() else {
        let missing = problem(ProblemKind::Invalid, "a service begins with a profile");
        return Ok(Decision::Refuse(Problem { field: Some("profile".to_owned()), ..missing }));
    };
    let (plan, remote_id) = match &asked.change {
        Change::Create { plan, .. } => (Some(plan.clone()), None),
        Change::Adopt { remote_id, .. } => (None, remote_id.clone()),
        _ => (None, None),
    };
    let domain = asked.change.domain().map(str::to_owned);
    let id = before.as_ref().map_or(0, |service| service.id);
    if let Some(refusal) = is_taken(books, id, &profile, remote_id.as_deref(), domain.as_deref())? {
        return Ok(Decision::Refuse(refusal));
    }
    let generation = match &before {
        None => 1,
        Some(service) if service.state == "terminated" => service.generation + 1,
        Some(service) => service.generation,
    };
    Ok(Decision::New(Box::new(new(Managed {
        id,
        panel: asked.panel,
        key: asked.key.clone(),
        generation,
        profile,
        state: "pending".to_owned(),
        wanted: "active".to_owned(),
        is_live: true,
        remote_id,
        domain,
        username: None,
        plan,
        addresses: Vec::new(),
        properties: Vec::new(),
        due_at: None,
        drift: None,
        check_at: None,
        checked_at: None,
        created_at: before.map_or(asked.now, |service| service.created_at),
        updated_at: asked.now,
    }))))
}

/// A remote id, or a domain within a profile, belongs to one live key.
pub(super) fn is_taken(
    books: &mut Transaction<'_>,
    service: i64,
    profile: &str,
    remote_id: Option<&str>,
    domain: Option<&str>,
) -> Result<Option<Problem>, Fault> {
    let by_remote_id = remote_id.map(|id| books.managed_at(profile, id)).transpose()?.flatten();
    let by_domain = domain.map(|domain| books.managed_of_domain(profile, domain)).transpose()?.flatten();
    // Another panel's key is none of this one's business.
    let taken = |field: &str, what: &str| Problem {
        field: Some(field.to_owned()),
        ..problem(ProblemKind::AlreadyExists, format!("this {what} belongs to another service key of the journal"))
    };
    Ok(if by_remote_id.is_some_and(|owner| owner.id != service) {
        Some(taken("remote_id", "remote id"))
    } else if by_domain.is_some_and(|owner| owner.id != service) {
        Some(taken("domain", "domain"))
    } else {
        None
    })
}

/// `create` or `adopt` of a key that the journal knows.
fn begin_again(books: &mut Transaction<'_>, asked: &Asked, service: Managed) -> Result<Decision, Fault> {
    let open = books.open_operations(service.id)?;
    let kind = asked.change.kind();
    // What is to end is not what this asks for.
    if let Some(terminate) = open.iter().find(|operation| operation.kind == "terminate") {
        return Ok(in_the_way(terminate));
    }
    if let Some(under_way) = open.iter().find(|operation| operation.kind == kind) {
        return Ok(Decision::Join(Box::new(under_way.clone())));
    }
    if let Some(other) = open.first() {
        return Ok(in_the_way(other));
    }
    if !service.is_live {
        return begin(books, asked, Some(service));
    }
    if asked.profile.as_ref().is_some_and(|profile| *profile != service.profile) {
        return Ok(wrong_state(format!("this service was made with profile `{}`", service.profile)));
    }
    match service.state.as_str() {
        "failed" => take_up(books, asked, service),
        "missing" => Ok(wrong_state("the provider does not know this service any more: terminate it, then create it anew")),
        "terminated" => Ok(wrong_state("the provider has ended this service: terminate it, then create it anew")),
        _ => {
            let generation = service.generation;
            for begun in ["create", "adopt"] {
                if let Some(operation) = books.same_operation(service.id, &format!("{generation}/{begun}"))?
                    && operation.state == OperationState::Done
                {
                    return Ok(Decision::Join(Box::new(operation)));
                }
            }
            // A creation that failed, and that the provider has set right since.
            match asked.change {
                Change::Adopt { .. } => take_up(books, asked, service),
                _ => Ok(wrong_state("this service is there already: `adopt` takes it up")),
            }
        }
    }
}

/// What a failure left behind is tried again, knowing that something may be there. Named by another id or domain, it would be forgotten,
/// and what it costs with it.
fn take_up(books: &mut Transaction<'_>, asked: &Asked, service: Managed) -> Result<Decision, Fault> {
    let remote_id = match &asked.change {
        Change::Adopt { remote_id, .. } => remote_id.as_deref(),
        _ => None,
    };
    let domain = asked.change.domain();
    for (asked, left) in [(remote_id, service.remote_id.as_deref()), (domain, service.domain.as_deref())] {
        if let (Some(_), Some(left)) = (asked, left)
            && asked != Some(left)
        {
            return Ok(wrong_state(format!(
                "a creation that failed left `{left}` at the provider: terminate this service first"
            )));
        }
    }
    // Under its key of its own another order would be another service.
    if let (Change::Create { .. }, Some(left), false) = (&asked.change, &service.remote_id, asked.is_alone) {
        return Ok(wrong_state(format!(
            "`{left}` failed at the provider: terminate this service first, or adopt what stands there"
        )));
    }
    if let Some(refusal) = is_taken(books, service.id, &service.profile, remote_id, domain)? {
        return Ok(Decision::Refuse(refusal));
    }
    // What is adopted keeps its state until it is: by that it is known to have been this key's before.
    let is_doubtful = matches!(asked.change, Change::Create { .. });
    let state = if is_doubtful { "pending".to_owned() } else { service.state };
    let (remote_id, domain) = (remote_id.map(str::to_owned).or(service.remote_id), domain.map(str::to_owned).or(service.domain));
    Ok(Decision::New(Box::new(New { is_doubtful, ..new(Managed { state, remote_id, domain, ..service }) })))
}

fn in_the_way(other: &Operation) -> Decision {
    if other.state == OperationState::Dead {
        return wrong_state(format!(
            "operation {} ({}) is not settled: a person has to resolve it first",
            other.ulid, other.kind
        ));
    }
    let message = format!("operation {} ({}) is under way", other.ulid, other.kind);
    Decision::Refuse(later(ProblemKind::WrongState, message, 5_000))
}

/// A change of a service that the journal knows.
fn go_on(books: &mut Transaction<'_>, asked: &Asked, service: Managed) -> Result<Decision, Fault> {
    if let Some(profile) = &asked.profile
        && *profile != service.profile
    {
        let message = format!("this service was made with profile `{}`", service.profile);
        let other = Problem { field: Some("profile".to_owned()), ..problem(ProblemKind::Invalid, message) };
        return Ok(Decision::Refuse(other));
    }
    let open = books.open_operations(service.id)?;
    if let Some(decision) = same_change(books, asked, &service, &open)? {
        return Ok(decision);
    }
    if let Some(dead) = open.iter().find(|operation| operation.state == OperationState::Dead) {
        return Ok(in_the_way(dead));
    }
    if let Some(terminate) = open.iter().find(|operation| operation.kind == "terminate") {
        return Ok(in_the_way(terminate));
    }
    let (replaced, open) = replaced(asked, open);
    let is_beginning = |operation: &Operation| matches!(operation.kind.as_str(), "create" | "adopt");
    let has_not_begun = service.state == "pending" && replaced.iter().any(is_beginning);
    if !service.is_live || has_not_begun {
        if asked.change != Change::Terminate {
            return Ok(wrong_state(NOT_THERE));
        }
        let service = Managed { state: "terminated".to_owned(), is_live: false, ..service };
        return Ok(Decision::New(Box::new(New { replaced, is_done: true, ..new(service) })));
    }
    if open.len() >= OPEN_MAX {
        let message = format!("{OPEN_MAX} changes of this service are waiting already");
        return Ok(Decision::Refuse(later(ProblemKind::RateLimited, message, 30_000)));
    }
    Ok(Decision::New(Box::new(New { replaced, ..new(service) })))
}

/// Whether the request is one that the journal has already, and what follows.
fn same_change(
    books: &mut Transaction<'_>,
    asked: &Asked,
    service: &Managed,
    open: &[Operation],
) -> Result<Option<Decision>, Fault> {
    let is_wish =
        |operation: &&Operation| matches!(operation.kind.as_str(), "create" | "adopt" | "suspend" | "unsuspend" | "terminate");
    // Of wishes for a state the last one counts: an earlier one of this kind is not what is asked for now.
    if asked.change.wish().is_some()
        && let Some(last) = open.iter().rfind(is_wish)
    {
        return Ok((last.kind == asked.change.kind()).then(|| Decision::Join(Box::new(last.clone()))));
    }
    let sameness = asked.change.sameness(service.generation, asked.idempotency_key.as_deref());
    let Some(same) = books.same_operation(service.id, &sameness)? else { return Ok(None) };
    let is_open = same.ended_at.is_none();
    if asked.change.is_repeatable() {
        let is_equal = is_same_request(books.vault, asked, &same)?;
        return Ok(match (&asked.idempotency_key, is_open) {
            (Some(_), _) if !is_equal => Some(Decision::Refuse(Problem {
                field: Some("idempotency-key".to_owned()),
                ..problem(ProblemKind::Invalid, "this idempotency key stands for another request")
            })),
            (Some(_), true) => Some(Decision::Join(Box::new(same))),
            (Some(_), false) if same.state == OperationState::Done => Some(Decision::Join(Box::new(same))),
            (None, true) if is_equal => Some(Decision::Join(Box::new(same))),
            _ => None,
        });
    }
    if is_open {
        return Ok(Some(Decision::Join(Box::new(same))));
    }
    let is_still_so = asked.change.wish().is_none_or(|wish| service.wanted == wish && service.state == wish);
    Ok((same.state == OperationState::Done && is_still_so).then(|| Decision::Join(Box::new(same))))
}

/// The wish for a state takes the place of earlier ones that were not begun; the end takes that of everything. What is replaced, and
/// what is left.
fn replaced(asked: &Asked, open: Vec<Operation>) -> (Vec<Operation>, Vec<Operation>) {
    let (is_wish, is_end) = (asked.change.wish().is_some(), asked.change == Change::Terminate);
    open.into_iter().partition(|operation| {
        let is_state = matches!(operation.kind.as_str(), "suspend" | "unsuspend");
        // What is doubtful before its first attempt takes up what a failed one left behind.
        operation.attempts == 0 && operation.doubts == 0 && (is_end || is_wish && is_state)
    })
}

/// An operation that ends with a problem.
pub(super) fn failed(operation: Operation, problem: &Problem, now: Timestamp) -> Result<Operation, Fault> {
    Ok(Operation { problem: Some(problem_text(problem)?), ..ended(operation, OperationState::Failed, now) })
}

/// A problem as it is kept.
pub(super) fn problem_text(problem: &Problem) -> Result<String, Fault> {
    serde_json::to_string(problem).map_err(|error| Fault(error.to_string()))
}

/// Ends an operation as failed, and with one that was to begin a service that service.
fn give_up(books: &mut Transaction<'_>, operation: Operation, why: &Problem, now: Timestamp) -> Result<Operation, Fault> {
    if matches!(operation.kind.as_str(), "create" | "adopt")
        && let Some(service) = books.managed_row(operation.service)?
    {
        // What this key had before it was to adopt it, it still has.
        let is_live = operation.kind == "adopt" && service.state != "pending";
        let (state, check_at) = ("failed".to_owned(), is_live.then_some(now));
        books.save_managed(&Managed { state, is_live, check_at, updated_at: now, ..service })?;
    }
    let operation = failed(operation, why, now)?;
    books.save_operation(&operation)?;
    Ok(operation)
}

/// Does to an operation what a person asks for, or says why not.
pub(super) fn intervene(
    books: &mut Transaction<'_>,
    operation: Operation,
    what: &Intervention,
    now: Timestamp,
) -> Result<Result<Operation, Problem>, Fault> {
    let refuse = |message: &str| Ok(Err(problem(ProblemKind::WrongState, message)));
    if operation.ended_at.is_some() {
        return refuse("this operation has ended");
    }
    if operation.state == OperationState::Running {
        let message = "an attempt is under way: try again when it has ended";
        return Ok(Err(later(ProblemKind::WrongState, message, 5_000)));
    }
    match what {
        Intervention::Retry if operation.state == OperationState::Dead => revive(books, operation, now).map(Ok),
        Intervention::Retry => {
            let hurried = Operation { next_at: Some(now), ..operation };
            books.save_operation(&hurried)?;
            Ok(Ok(hurried))
        }
        Intervention::Cancel if operation.doubts > 0 || operation.is_accepted => {
            refuse("something was sent already: resolve it once it is known what became of it")
        }
        Intervention::Cancel => give_up(books, operation, &problem(ProblemKind::Refused, "cancelled by a person"), now).map(Ok),
        Intervention::Resolve { done: false, note, .. } => {
            give_up(books, operation, &problem(ProblemKind::Refused, format!("resolved by a person as not made: {note}")), now)
                .map(Ok)
        }
        Intervention::Resolve { done: true, remote_id, .. } => resolve_done(books, operation, remote_id.as_deref(), now),
    }
}

/// A person has seen that the change was made. The provider is asked about the service next.
fn resolve_done(
    books: &mut Transaction<'_>,
    operation: Operation,
    remote_id: Option<&str>,
    now: Timestamp,
) -> Result<Result<Operation, Problem>, Fault> {
    let Some(mut service) = books.managed_row(operation.service)? else {
        return Ok(Err(problem(ProblemKind::Internal, "its service is not in the journal")));
    };
    if let Some(taken) = is_taken(books, service.id, &service.profile, remote_id, None)? {
        return Ok(Err(taken));
    }
    service.remote_id = remote_id.map(str::to_owned).or(service.remote_id);
    if matches!(operation.kind.as_str(), "create" | "adopt") && service.remote_id.is_none() {
        let missing = problem(ProblemKind::Invalid, "a service that was made has a remote id: give it");
        return Ok(Err(Problem { field: Some("remote_id".to_owned()), ..missing }));
    }
    if let Some(wish) = serde_json::from_str::<Change>(&operation.change).ok().and_then(|change| change.wish()) {
        wish.clone_into(&mut service.state);
    }
    service.is_live = service.state != "terminated";
    service.check_at = service.is_live.then_some(now);
    books.save_managed(&Managed { updated_at: now, ..service })?;
    let operation = Operation { problem: None, ..ended(operation, OperationState::Done, now) };
    books.save_operation(&operation)?;
    Ok(Ok(operation))
}
