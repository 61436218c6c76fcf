//! Questions: of the journal, and through it of the provider.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use serde_json::{Value, json};

use super::answer::{Answer, Refusal, json_answer};
use super::changes::no_operation;
use super::{Catalog, State, body, view};
use crate::operations::{NOT_THERE, state_of_word, state_word};
use crate::plugin::Caller;
use crate::plugin::contract::{Problem, ProblemKind, Property, ServiceRef};
use crate::plugin::words::to_json;
use crate::store::{Managed, ManagedFilter, OperationFilter, OperationState, Panel, UnownedFilter};

/// Rows in one part of a list, at most, and unless the request says.
const LIMIT_MAX: u32 = 200;
const LIMIT: u32 = 50;
/// How long a catalogue is kept.
const CATALOG_KEPT: Duration = Duration::from_mins(10);

/// The query of a request; of a name that comes twice the last counts.
pub(super) struct Query(HashMap<String, String>);

impl Query {
    pub(super) fn of(head: &Parts) -> Self {
        let pairs = url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes());
        Self(pairs.into_owned().collect())
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    fn flag(&self, name: &str) -> Result<bool, Refusal> {
        match self.text(name) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(_) => Err(Refusal::malformed(format!("{name} is true or false")).field(name)),
        }
    }

    /// A word of a list of them.
    fn word<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Refusal> {
        let parse = |word| parse(word).ok_or_else(|| Refusal::malformed(format!("there is no such {name}")).field(name));
        self.text(name).map(parse).transpose()
    }

    fn limit(&self) -> Result<u32, Refusal> {
        let Some(text) = self.text("limit") else { return Ok(LIMIT) };
        let limit = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
        limit.ok_or_else(|| Refusal::malformed(format!("limit is 1 to {LIMIT_MAX}")).field("limit"))
    }
}

fn ok(value: &Value) -> Answer {
    json_answer(StatusCode::OK, value)
}

/// What a provider answered, in the contract's words.
fn told<T: serde::Serialize>(value: Result<T, Problem>) -> Result<Value, Refusal> {
    let value = value.map_err(|problem| Refusal::failed(problem, None))?;
    to_json(&value).map_err(|error| {
        tracing::error!(%error, "an answer cannot be written as JSON");
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, ProblemKind::Internal, "the answer cannot be written as JSON")
    })
}

/// A service of the journal, and the change of it that is under way.
pub(super) fn known(state: &State, panel: &Panel, key: &str) -> Result<(Managed, Option<String>), Refusal> {
    let key = body::service_key(key)?;
    let found = state.operations.service(panel.id, &key)?;
    found.ok_or_else(|| {
        Refusal::new(StatusCode::NOT_FOUND, ProblemKind::NotFound, format!("the journal knows no service `{key}`"))
    })
}

pub(super) async fn service(state: &State, panel: &Panel, key: &str, query: &Query) -> Result<Answer, Refusal> {
    let (service, under_way) = looked_up(state, panel, key, query).await?;
    Ok(ok(&view::service(&service, under_way.as_deref())))
}

/// The same after the provider was asked, if the request says so.
pub(super) async fn looked_up(
    state: &State,
    panel: &Panel,
    key: &str,
    query: &Query,
) -> Result<(Managed, Option<String>), Refusal> {
    let is_fresh = query.flag("fresh")?;
    let (service, under_way) = known(state, panel, key)?;
    if !is_fresh {
        return Ok((service, under_way));
    }
    state.operations.fresh(&service).await?;
    known(state, panel, key)
}

pub(super) fn services(state: &State, panel: &Panel, query: &Query) -> Result<Answer, Refusal> {
    let limit = query.limit()?;
    let after = query.text("cursor").map(str::parse).transpose();
    let after = after.map_err(|_| Refusal::malformed("the cursor is not one of this list").field("cursor"))?.unwrap_or(0);
    let filter = ManagedFilter {
        panel: Some(panel.id),
        state: query.word("state", state_of_word)?.map(|state| state_word(state).to_owned()),
        profile: query.text("profile").map(str::to_owned),
        is_drifted: query.flag("drifted")?,
        after,
        limit,
    };
    let found = state.store.read(|books| books.managed_services(&filter))?;
    let next = (found.len() == limit as usize).then(|| found.last().map(|service| service.id.to_string())).flatten();
    let services: Vec<Value> = found.iter().map(|found| view::service(found, None)).collect();
    Ok(ok(&json!({ "services": services, "next": next })))
}

pub(super) fn operation(state: &State, panel: &Panel, id: &str) -> Result<Answer, Refusal> {
    let found = state.operations.operation(Some(panel.id), id)?;
    let (operation, service, attempts) = found.ok_or_else(|| no_operation(id))?;
    Ok(ok(&view::with_history(&operation, &service.key, &attempts)))
}

pub(super) fn operations(state: &State, panel: &Panel, query: &Query) -> Result<Answer, Refusal> {
    let limit = query.limit()?;
    let filter = OperationFilter {
        panel: Some(panel.id),
        state: query.word("state", OperationState::parse)?,
        service: query.text("service").map(str::to_owned),
        before: query.text("cursor").map(str::to_owned),
        limit,
    };
    let found = state.store.read(|books| books.operations(&filter))?;
    let next = (found.len() == limit as usize).then(|| found.last().map(|(operation, _)| operation.ulid.clone())).flatten();
    let operations: Vec<Value> = found.iter().map(|(operation, key)| view::operation(operation, key)).collect();
    Ok(ok(&json!({ "operations": operations, "next": next })))
}

fn caller(state: &State, panel: &Panel, profile: &str) -> Result<Caller, Refusal> {
    if !panel.may_use(profile) {
        return Err(Refusal::new(StatusCode::FORBIDDEN, ProblemKind::Forbidden, "this token may not use this profile"));
    }
    let caller = state.operations.profiles().get(profile);
    caller.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, ProblemKind::NotFound, format!("there is no profile `{profile}`")))
}

/// What is asked of the provider about a service of the journal.
pub(super) async fn of_service(state: &State, panel: &Panel, key: &str, what: &str, query: &Query) -> Result<Answer, Refusal> {
    let (service, _) = known(state, panel, key)?;
    let caller = caller(state, panel, &service.profile)?;
    // What it is known by may have become somebody else's.
    if !service.is_live && what != "invoices" {
        return Err(Refusal::new(StatusCode::CONFLICT, ProblemKind::WrongState, NOT_THERE));
    }
    let at = ServiceRef { remote_id: service.remote_id, domain: service.domain, username: service.username };
    let value = match what {
        "credentials" => told(caller.credentials(at).await)?,
        "sign-on" => {
            let target = query.text("target").ok_or_else(|| Refusal::malformed("the target is missing").field("target"))?;
            told(caller.sign_on(at, target.to_owned()).await)?
        }
        _ => told(caller.invoices(query.text("cursor").map(str::to_owned)).await)?,
    };
    Ok(ok(&value))
}

pub(super) fn profiles(state: &State, panel: &Panel) -> Result<Answer, Refusal> {
    let all = state.operations.profiles().all();
    let profiles = all.iter().filter(|(name, _)| panel.may_use(name)).map(|(name, caller)| profile_view(name, caller));
    Ok(ok(&json!({ "profiles": profiles.collect::<Result<Vec<_>, _>>()? })))
}

fn profile_view(name: &str, caller: &Caller) -> Result<Value, Refusal> {
    let info = caller.provider();
    Ok(json!({
        "name": name,
        "provider": caller.profile().provider,
        "provider_name": info.map(|info| info.name.clone()),
        "capabilities": info.map(|info| told(Ok(&info.capabilities))).transpose()?,
    }))
}

/// A profile, what its provider says (`check`, `balance`, `catalog`), or what stands there that no key owns (`unowned`).
pub(super) async fn profile(state: &State, panel: &Panel, name: &str, what: &str, query: &Query) -> Result<Answer, Refusal> {
    let caller = caller(state, panel, name)?;
    let value = match what {
        "" => profile_view(name, &caller)?,
        "check" => json!({ "ok": true, "account": told(caller.check().await)? }),
        "balance" => told(caller.balance().await)?,
        "unowned" => unowned(state, name, query)?,
        _ => return catalog(state, name, &caller, query.flag("refresh")?).await,
    };
    Ok(ok(&value))
}

fn unowned(state: &State, profile: &str, query: &Query) -> Result<Value, Refusal> {
    let limit = query.limit()?;
    let after = query.text("cursor").map(|remote_id| (profile.to_owned(), remote_id.to_owned()));
    let filter = UnownedFilter { profile: Some(profile.to_owned()), after, limit };
    let (found, taken) = state.store.read(|books| Ok((books.unowned_services(&filter)?, books.inventory_taken(profile)?)))?;
    let next = (found.len() == limit as usize).then(|| found.last().map(|service| service.remote_id.clone())).flatten();
    let services: Vec<Value> = found.iter().map(view::unowned).collect();
    Ok(json!({ "services": services, "taken_at": taken.map(|at| at.to_string()), "next": next }))
}

async fn catalog(state: &State, name: &str, caller: &Caller, refresh: bool) -> Result<Answer, Refusal> {
    let kept = || state.catalogs.lock().unwrap_or_else(PoisonError::into_inner);
    if !refresh
        && let Some(Catalog { read, answer }) = kept().get(name).cloned()
        && read.elapsed() < CATALOG_KEPT
    {
        return Ok(ok(&answer));
    }
    let plans = told(caller.catalog().await)?;
    let answer = Arc::new(json!({ "plans": plans, "read_at": state.clock.now().to_string() }));
    kept().insert(name.to_owned(), Catalog { read: Instant::now(), answer: Arc::clone(&answer) });
    Ok(ok(&answer))
}

/// What panels build their forms from: each provider once, with the profiles that use it.
pub(super) fn describe(state: &State, panel: &Panel) -> Result<Answer, Refusal> {
    let all = state.operations.profiles().all();
    let mut providers: Vec<(String, Value, Vec<&str>)> = Vec::new();
    for (name, caller) in all.iter().filter(|(name, _)| panel.may_use(name)) {
        let Some(info) = caller.provider() else { continue };
        match providers.iter_mut().find(|(id, _, _)| *id == info.id) {
            Some((_, _, profiles)) => profiles.push(name),
            None => providers.push((info.id.clone(), told(Ok(info))?, vec![name])),
        }
    }
    let providers = providers.into_iter().map(|(_, mut info, profiles)| {
        // Where a provider is and how its profile is set up is the operator's business.
        if let Some(members) = info.as_object_mut() {
            members.retain(|name, _| !matches!(name.as_str(), "hosts" | "settings"));
            members.insert("profiles".to_owned(), profiles.into());
        }
        info
    });
    Ok(ok(&json!({ "providers": providers.collect::<Vec<_>>() })))
}

/// A webhook of a profile's provider, as it was received.
pub(super) async fn events(state: &State, name: &str, head: &Parts, body: Incoming) -> Result<Answer, Refusal> {
    let bytes = body::bytes(body).await?;
    let header = |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| Property {
        name: name.as_str().to_owned(),
        value: String::from_utf8_lossy(value.as_bytes()).into_owned(),
    };
    let headers = head.headers.iter().map(header).collect();
    match state.operations.receive(name, headers, bytes).await {
        Ok(told) => Ok(ok(&json!({ "received": told }))),
        Err(crate::operations::AskError::Refused(problem)) if problem.kind == ProblemKind::Unauthorized => {
            Err(Refusal { status: StatusCode::UNAUTHORIZED, problem, operation: None, allow: None })
        }
        Err(error) => Err(error.into()),
    }
}
