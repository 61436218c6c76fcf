//! Changes: written down, waited for, answered with how they stand.

use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use serde_json::json;

use super::answer::{Answer, Refusal, accepted, json_answer};
use super::{State, body, view};
use crate::operations::{Intervention, Request};
use crate::plugin::contract::ProblemKind;
use crate::store::{Operation, OperationState, Panel};

/// When a panel is told to look again, in seconds.
const LOOK_AGAIN_S: u64 = 5;

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
    let request = Request { key: key.clone(), profile, change, password, idempotency_key, request_id: request_id.to_owned() };
    let asked = state.operations.ask(panel, request).await?;
    let mut stopped = state.stopped.clone();
    let ended = tokio::select! {
        ended = state.operations.wait(asked.clone(), wait) => ended?,
        // The journal goes on after the next start.
        _ = stopped.wait_for(|stopped| *stopped) => asked,
    };
    told(state, panel, &key, ended).await
}

/// How an operation stands, as its panel has to act on it.
async fn told(state: &State, panel: &Panel, key: &str, operation: Operation) -> Result<Answer, Refusal> {
    let found = state.operations.service(panel.id, key)?;
    let (service, under_way) = found.ok_or_else(Refusal::nothing_here)?;
    let value = json!({
        "operation": view::operation(&operation, key),
        "service": view::service(&service, under_way.as_deref()),
    });
    match operation.state {
        OperationState::Done => Ok(json_answer(StatusCode::OK, &value)),
        OperationState::Failed | OperationState::Dead => {
            let problem = view::problem(operation.problem.as_deref());
            let problem = problem.ok_or_else(|| {
                Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, ProblemKind::Internal, "the journal does not say why it failed")
            })?;
            Err(Refusal::failed(problem, Some(operation.ulid)))
        }
        _ => {
            if !operation.was_awaited {
                state.operations.note_awaited(operation.id).await?;
            }
            Ok(accepted(&value, &operation.ulid, LOOK_AGAIN_S))
        }
    }
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
