//! The journal's rows as panels see them.

use serde_json::{Value, json};

use crate::plugin::contract::Problem;
use crate::plugin::words::to_json;
use crate::store::{Managed, Operation, OperationAttempt, Unowned};

/// An operation of a service.
pub(crate) fn operation(operation: &Operation, key: &str) -> Value {
    json!({
        "id": operation.ulid,
        "service": key,
        "generation": operation.generation,
        "operation": operation.kind,
        "profile": operation.profile,
        "state": operation.state.as_str(),
        "attempts": operation.attempts,
        "created_at": operation.created_at.to_string(),
        "ended_at": operation.ended_at.map(|at| at.to_string()),
        "next_at": operation.next_at.map(|at| at.to_string()),
        "request_id": operation.request_id,
        "problem": problem_value(operation.problem.as_deref()),
    })
}

/// An operation with its attempts, the newest first.
pub(crate) fn with_history(row: &Operation, key: &str, attempts: &[OperationAttempt]) -> Value {
    let mut value = operation(row, key);
    let history: Vec<Value> = attempts
        .iter()
        .map(|attempt| {
            json!({
                "number": attempt.number,
                "began_at": attempt.began_at.to_string(),
                "ended_at": attempt.ended_at.map(|at| at.to_string()),
                "outcome": attempt.outcome,
                "problem": problem_value(attempt.problem.as_deref()),
            })
        })
        .collect();
    value["history"] = history.into();
    value
}

/// A kept problem.
pub(super) fn problem(text: Option<&str>) -> Option<Problem> {
    serde_json::from_str(text?).ok()
}

fn problem_value(text: Option<&str>) -> Value {
    problem(text).and_then(|problem| to_json(&problem).ok()).unwrap_or_default()
}

/// A service, and the change of it that is under way.
pub(super) fn service(service: &Managed, under_way: Option<&str>) -> Value {
    let properties = service.properties.iter().map(|(name, value)| json!({"name": name, "value": value}));
    json!({
        "key": service.key,
        "generation": service.generation,
        "profile": service.profile,
        "state": service.state,
        "wanted": service.wanted,
        "remote_id": service.remote_id,
        "plan": service.plan,
        "domain": service.domain,
        "username": service.username,
        "addresses": service.addresses,
        "due_at": service.due_at,
        "properties": properties.collect::<Vec<_>>(),
        "drift": service.drift.as_ref().map(|(kind, since)| json!({"kind": kind, "since": since.to_string()})),
        "checked_at": service.checked_at.map(|at| at.to_string()),
        "created_at": service.created_at.to_string(),
        "operation": under_way,
    })
}

/// A service at a provider that no key owns.
pub(super) fn unowned(service: &Unowned) -> Value {
    json!({
        "remote_id": service.remote_id,
        "domain": service.domain,
        "state": service.state,
        "plan": service.plan,
        "since": service.since.to_string(),
        "seen_at": service.seen_at.to_string(),
    })
}
