//! `{success, message, data}`: what panels are answered that call by themselves, without a plug-in of ours. What these routes share.
//!
//! Neither panel has a word for "under way" that it would act on: what is not done is not a success, and the same request again is
//! answered with its end.

use hyper::StatusCode;
use hyper::http::request::Parts;
use secrecy::SecretString;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Refusal, accepted, json_answer, problem_answer_with};
use super::changes::{self, LOOK_AGAIN_S, Standing};
use super::questions::Query;
use super::{State, body, questions, view};
use crate::operations::{Change, Request};
use crate::plugin::contract::ProblemKind;
use crate::store::{Managed, Panel};

/// What is a field of an order, or a secret, and never an option of another change: options are written down.
const NO_OPTIONS: [&str; 7] = ["domain", "email", "new_password", "note", "password", "reason", "term"];

/// Whether a request's path is one of those that are answered so.
pub(super) fn is_asked(head: &Parts) -> bool {
    ["/upmind/", "/blesta/"].iter().any(|prefix| head.uri.path().starts_with(prefix))
}

/// A failure: a problem, and `success` beside it.
pub(super) fn refused(refusal: &Refusal, request_id: &str) -> Answer {
    let beside = [("success".to_owned(), Value::Bool(false)), ("data".to_owned(), Value::Null)];
    problem_answer_with(refusal, request_id, Map::from_iter(beside))
}

/// A service that is as the panel wishes, or is only asked about.
pub(super) fn done(service: &Managed, under_way: Option<&str>, message: &str) -> Answer {
    json_answer(StatusCode::OK, &json!({"success": true, "message": message, "data": data(service, under_way)}))
}

fn stands(standing: &Standing) -> Answer {
    let Standing { operation, service, under_way } = standing;
    if standing.is_done() {
        return done(service, under_way.as_deref(), &format!("{}: done", operation.kind));
    }
    let why = view::problem(operation.problem.as_deref()).map(|problem| format!(" ({})", problem.message));
    let why = why.unwrap_or_default();
    let message = format!("{} is in progress{why}: the same request again is answered with its end", operation.kind);
    let value = json!({"success": false, "message": message, "data": data(service, under_way.as_deref())});
    accepted(&value, &operation.ulid, LOOK_AGAIN_S)
}

fn data(service: &Managed, under_way: Option<&str>) -> Value {
    json!({
        "service_id": service.key,
        "service_identifier": service.domain,
        "service_status": service.state,
        "extra": view::service(service, under_way),
    })
}

/// What is asked for, by whom, and how.
pub(super) struct Asked<'a> {
    pub(super) state: &'a State,
    pub(super) panel: &'a Panel,
    pub(super) head: &'a Parts,
    pub(super) query: &'a Query,
    pub(super) request_id: &'a str,
}

impl Asked<'_> {
    /// Has a change made, and tells how it stands.
    pub(super) async fn change(
        &self,
        key: String,
        profile: Option<String>,
        change: Change,
        password: Option<SecretString>,
    ) -> Result<Answer, Refusal> {
        body::refuse_long(&change)?;
        let request = Request { key, profile, change, password, idempotency_key: None, request_id: self.request_id.to_owned() };
        let wait = body::long_wait(&self.head.headers, self.query.text("wait"));
        Ok(stands(&changes::ask(self.state, self.panel, request, wait).await?))
    }

    /// Has a service moved to a plan. To the one that it has is done already: a repeat must not be paid again.
    pub(super) async fn change_package(&self, key: String, plan: String, options: Options) -> Result<Answer, Refusal> {
        let (service, under_way) = questions::known(self.state, self.panel, &key)?;
        let is_there = service.plan.as_deref().is_some_and(|has| has.eq_ignore_ascii_case(plan.trim()));
        if is_there && under_way.is_none() {
            return Ok(done(&service, None, "the service has this plan already"));
        }
        let mut options = options;
        options.retain(|name, _| !NO_OPTIONS.contains(&name.as_str()));
        self.change(key, None, Change::ChangePackage { plan, options }, None).await
    }

    /// The profile of a new service. One in the address is the administrator's word, and whatever an order says counts only without.
    pub(super) fn profile(&self, in_order: Option<String>) -> Result<String, Refusal> {
        let profile = self.query.text("profile").map(str::to_owned).or(in_order);
        profile.ok_or_else(|| Refusal::malformed("the profile is missing: `?profile=` in the address has it").field("profile"))
    }
}

/// Values by name.
pub(super) type Options = std::collections::BTreeMap<String, String>;

/// Takes a value out, if it says something.
pub(super) fn taken(options: &mut Options, name: &str) -> Option<String> {
    options.remove(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// A function or an event that these routes do not offer.
pub(super) fn unsupported(message: &str) -> Refusal {
    Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, ProblemKind::Unsupported, message)
}
