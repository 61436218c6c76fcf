//! Events for whoever listens by webhook (our choice, 2.13), written in the transaction of the change that they tell of.

use serde::Serialize;

use super::problem;
use crate::books::{AccountBooks, Fault, NewEvent};
use crate::server::{Moment, TestEvent, ulid};

/// Every type of event, as webhooks name it.
pub(super) const KINDS: &[&str] = &[
    "order.created",
    "order.paid",
    "order.cancelled",
    "service.provisioned",
    "service.suspended",
    "service.unsuspended",
    "service.terminated",
    "service.failed",
    "invoice.created",
    "invoice.paid",
];

/// The type of an event that tells of nothing. No webhook can listen to it: it goes to the one that is tried out.
const TEST: &str = "webhook.test";

/// What is posted.
#[derive(Serialize)]
struct Event<'a, T> {
    id: &'a str,
    object: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    created: i64,
    data: Data<'a, T>,
}

#[derive(Serialize)]
struct Data<'a, T> {
    object: &'a T,
}

/// Tells that `kind` happened to an order, service or invoice with this id, which now looks like `object` on the wire.
pub(super) fn emit(
    moment: &Moment,
    books: &mut dyn AccountBooks,
    kind: &str,
    id: i64,
    object: &impl Serialize,
) -> Result<(), Fault> {
    let event_id = event_id(moment, kind, id);
    let body = body(moment, &event_id, kind, object);
    books.add_event(&NewEvent { id: &event_id, kind, body: &body, at: moment.now })
}

/// An event that tells of nothing.
pub(super) fn test(moment: &Moment) -> TestEvent {
    #[derive(Serialize)]
    struct Greeting {
        object: &'static str,
        message: &'static str,
    }
    let id = event_id(moment, TEST, 0);
    let object = Greeting { object: "test", message: "This webhook works." };
    TestEvent { body: body(moment, &id, TEST, &object), id, kind: TEST }
}

fn body(moment: &Moment, id: &str, kind: &str, object: &impl Serialize) -> String {
    let body = Event { id, object: "event", kind, created: moment.now.as_second(), data: Data { object } };
    String::from_utf8_lossy(&problem::to_json(&body)).into_owned()
}

/// The same each time the transaction is run again, and another for each event that it tells of.
fn event_id(moment: &Moment, kind: &str, id: i64) -> String {
    format!("evt_{}", ulid(moment.now, &moment.seed, &[kind.as_bytes(), &id.to_be_bytes()]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Rules;

    #[test]
    fn an_events_id_follows_the_seed_and_comes_once() {
        let moment = |seed| Moment { now: "2027-01-15T08:00:00Z".parse().unwrap(), seed: [seed; 32], rules: Rules::default() };
        let first = event_id(&moment(1), "order.paid", 7);
        assert_eq!(first, event_id(&moment(1), "order.paid", 7));
        assert_eq!((first.len(), &first[..4]), (30, "evt_"));
        for other in [
            event_id(&moment(2), "order.paid", 7),
            event_id(&moment(1), "order.paid", 8),
            event_id(&moment(1), "order.created", 7),
        ] {
            assert_ne!(first, other);
        }
    }
}
