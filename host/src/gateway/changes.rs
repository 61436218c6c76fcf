//! Changes: written down, waited for, answered with how they stand.

use std::time::Duration;

use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use serde_json::json;

use super::answer::{Answer, Refusal, accepted, json_answer};
use super::{State, body, view};
use crate::operations::{Intervention, Request};
use crate::plugin::contract::ProblemKind;
use crate::store::{Managed, Operation, OperationState, Panel};

/// When a panel is told to look again, in seconds.
pub(super) const LOOK_AGAIN_S: u64 = 5;

/// A change that is done or under way, and its service.
pub(super) struct Standing {
    pub(super) operation: Operation,
    pub(super) service: Managed,
    /// The change of the service that is under way.
    pub(super) under_way: Option<String>,
}

impl Standing {
    pub(super) fn is_done(&self) -> bool {
        self.operation.state == OperationState::Done
    }
}

pub(super) async fn change(
    state: &State,
    panel: &Panel,
    key: &str,
    operation: &str,
    (head, body): (&Parts, Incoming),
    request_id: &str,
) -> Result<Answer, Refusal> {
    let key = body::service_key(key)?;
    let idempotency_key = body::idempotency_key(&head.headers)?;
    let wait = body::wait(&head.headers);
    let body::Sent { profile, change, password } = body::change(operation, &head.headers, body).await?;
    let request = Request { key, profile, change, password, idempotency_key, request_id: request_id.to_owned() };
    let standing = ask(state, panel, request, wait).await?;
    let Standing { operation, service, under_way } = &standing;
    let value = json!({
        "operation": view::operation(operation, &service.key),
        "service": view::service(service, under_way.as_deref()),
    });
    Ok(if standing.is_done() { json_answer(StatusCode::OK, &value) } else { accepted(&value, &operation.ulid, LOOK_AGAIN_S) })
}

/// Asks for a change and waits for its end. A change that failed, or needs a person, is a refusal.
pub(super) async fn ask(state: &State, panel: &Panel, request: Request, wait: Duration) -> Result<Standing, Refusal> {
    let key = request.key.clone();
    let asked = state.operations.ask(panel, request).await?;
    let mut stopped = state.stopped.clone();
    let operation = tokio::select! {
        ended = state.operations.wait(asked.clone(), wait) => ended?,
        // The journal goes on after the next start.
        _ = stopped.wait_for(|stopped| *stopped) => asked,
    };
    match operation.state {
        OperationState::Done => {}
        OperationState::Failed | OperationState::Dead => {
            let problem = view::problem(operation.problem.as_deref());
            let problem = problem.ok_or_else(|| {
                Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, ProblemKind::Internal, "the journal does not say why it failed")
            })?;
            return Err(Refusal::failed(problem, Some(operation.ulid)));
        }
        _ if !operation.was_awaited => state.operations.note_awaited(operation.id).await?,
        _ => {}
    }
    let found = state.operations.service(panel.id, &key)?;
    let (service, under_way) = found.ok_or_else(Refusal::nothing_here)?;
    Ok(Standing { operation, service, under_way })
}

/// What a person does to an operation through the API.
pub(super) async fn intervene(
    state: &State,
    panel: &Panel,
    id: &str,
    what: &str,
    (head, body): (&Parts, Incoming),
) -> Result<Answer, Refusal> {
    let what = match what {
        "retry" => Intervention::Retry,
        "cancel" => Intervention::Cancel,
        _ => {
            let body::Resolve { outcome, remote_id, note } = body::json(&head.headers, body).await?;
            Intervention::Resolve { done: outcome == body::Resolved::Done, remote_id, note }
        }
    };
    let operation = state.operations.intervene(Some(panel.id), id, what).await?;
    let operation = operation.ok_or_else(|| no_operation(id))?;
    super::questions::operation(state, panel, &operation.ulid)
}

pub(super) fn no_operation(id: &str) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, ProblemKind::NotFound, format!("the journal has no operation `{id}` of this panel"))
}
