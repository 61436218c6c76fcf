//! The answering end: [`Server`] as the host mounts it, its endpoints in the modules below.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::guard::{self, Verdict};
use super::wire::{self, header};
use crate::books::{Attempted, Books, Fault, Keep};
use crate::message::{Request, Response};
use crate::server::{Admission, Key, Keys, Moment, TurnedAway, Visit};

mod account;
mod body;
pub mod catalog;
pub mod cycle;
mod fulfilment;
mod orders;
mod problem;
mod routes;
mod serve;
mod services;

/// The KernelHost Reseller API.
#[derive(Debug, Clone, Copy, Default)]
pub struct Server;

impl crate::server::Server for Server {
    fn mount(&self) -> &'static str {
        guard::MOUNT
    }

    fn wants_body(&self, head: &Request) -> bool {
        matches!(head.method.as_str(), "POST" | "PUT" | "PATCH") && guard::is_well_formed(head)
    }

    fn admit(&self, visit: Arc<Visit>, keys: &dyn Keys) -> Result<Admission, Fault> {
        if is_health(&visit.request) {
            return Ok(Admission::Answered(health(&visit)));
        }
        Ok(Admission::Work(match guard::judge(&visit, keys)? {
            Verdict::Admitted(admitted) => Box::new(move |books| serve::admitted(&visit, &admitted, books)),
            Verdict::Refused(refused) => Box::new(move |books| serve::refused(&visit, &refused, books)),
        }))
    }

    fn turn_away(&self, why: TurnedAway, request_id: &str) -> Response {
        problem::turned_away(why, request_id)
    }

    fn tick(&self, moment: &Moment, books: &mut dyn Books) -> Result<Option<Timestamp>, Fault> {
        fulfilment::tick(moment, books)
    }
}

/// An authentic request, as the endpoints see it.
struct Call<'a> {
    visit: &'a Visit,
    key: &'a Key,
}

impl Call<'_> {
    fn now(&self) -> Timestamp {
        self.visit.moment.now
    }

    fn body(&self) -> &[u8] {
        &self.visit.request.body
    }
}

fn is_health(request: &Request) -> bool {
    matches!(request.method.as_str(), "GET" | "HEAD") && request.path() == "/v1/health"
}

fn health(visit: &Visit) -> Response {
    let body = wire::Health {
        status: "ok".to_owned(),
        time: Some(time(visit.moment.now)),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
    };
    finish(ok(&body), visit)
}

/// What every answer has: the request id; and to HEAD no body.
fn finish(mut response: Response, visit: &Visit) -> Response {
    response.headers.add(header::REQUEST_ID, visit.request_id.as_str());
    if visit.request.method == "HEAD" {
        response.body.clear();
    }
    response
}

/// Work that is undone when it answers false.
fn all_or_nothing(books: &mut dyn Books, work: &mut dyn FnMut(&mut dyn Books) -> Result<bool, Fault>) -> Result<bool, Fault> {
    let attempted = books.attempt(&mut |books| Ok(if work(books)? { Keep::Keep } else { Keep::Undo }))?;
    match attempted {
        Attempted::Kept => Ok(true),
        Attempted::Undone => Ok(false),
        Attempted::Broke => Err(Fault("an inner attempt broke".to_owned())),
    }
}

/// 200 with a body.
fn ok(body: &impl Serialize) -> Response {
    json(200, body)
}

fn json(status: u16, body: &impl Serialize) -> Response {
    Response::new(status, "application/json", problem::to_json(body))
}

/// RFC 3339, UTC, whole seconds (our choice, 2.8).
fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
