//! What the provider tells by webhook.

use jiff::Timestamp;
use serde_json::Value;

use super::mapping::properties;
use crate::contract::{Event, Problem, ProblemKind, Property, Retry};
use crate::kernelhost::webhook::{self, Rejected};
use crate::kernelhost::wire::{self, as_id};
use crate::outside::Outside;
use crate::provisioning::{Connection, problem};

/// Where the signature may stand: no page names the header (our choice, 2.13).
const SIGNATURE_HEADERS: [&str; 3] = [wire::header::WEBHOOK_SIGNATURE, "KH-Signature", "Stripe-Signature"];
/// Longer ids and types are not ours.
const MAX_NAME: usize = 128;

/// Verifies a webhook, then reads it: nothing of an unsigned body is looked at.
pub(super) fn receive(world: &dyn Outside, at: &Connection, headers: &[Property], body: &[u8]) -> Result<Vec<Event>, Problem> {
    let verified = match at.setting("webhook_secret").filter(|secret| !secret.is_empty()) {
        Some(secret) => signature(headers).and_then(|header| webhook::verify(header, body, &[secret.as_bytes()], world.now())),
        None => Err(Rejected::NoSecret),
    };
    verified.map_err(|rejected| Problem {
        retry: if rejected == Rejected::NoSecret { Retry::AfterFix } else { Retry::Never },
        ..problem(ProblemKind::Unauthorized, format!("the webhook was refused: {rejected}"))
    })?;
    let told: Value = serde_json::from_slice(body).map_err(|_| unreadable("is not JSON"))?;
    Ok(vec![event(&told)?])
}

/// The one value of the first header that is there.
fn signature(headers: &[Property]) -> Result<&str, Rejected> {
    let named = |name: &'static str| headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
    let mut values =
        SIGNATURE_HEADERS.iter().find_map(|name| named(name).next().map(|_| named(name))).ok_or(Rejected::NoHeader)?;
    match (values.next(), values.next()) {
        (Some(header), None) => Ok(&header.value),
        _ => Err(Rejected::NoHeader),
    }
}

fn event(told: &Value) -> Result<Event, Problem> {
    let name = |member: &str| {
        told[member]
            .as_str()
            .filter(|text| (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()))
    };
    let id = name("id").ok_or_else(|| unreadable("has no event id"))?;
    let kind = name("type").ok_or_else(|| unreadable("has no type"))?;
    let data = &told["data"];
    // Stripe wraps the thing itself; a plainer body names it by id.
    let thing = if data["object"].is_object() { &data["object"] } else { data };
    let order = as_id(&thing["order_id"]).or_else(|| as_id(&thing["id"]).filter(|_| kind.starts_with("order.")));
    let service = as_id(&thing["service_id"]).or_else(|| as_id(&thing["id"]).filter(|_| kind.starts_with("service.")));
    let invoice = as_id(&thing["invoice_id"]).or_else(|| as_id(&thing["id"]).filter(|_| kind.starts_with("invoice.")));
    let order = order.map(|id| format!("order/{id}"));
    let known = [
        ("order", order.clone()),
        ("invoice", invoice.map(|id| id.to_string())),
        ("status", thing["status"].as_str().map(str::to_owned)),
    ];
    Ok(Event {
        id: id.to_owned(),
        kind: kind.to_owned(),
        remote_id: service.map(|id| format!("service/{id}")).or(order),
        occurred_at: occurred_at(&told["created"]),
        properties: properties(known),
    })
}

/// Unix seconds (our choice, 2.13), or a time in RFC 3339.
fn occurred_at(created: &Value) -> Option<String> {
    let time = created.as_i64().map_or_else(|| created.as_str()?.parse().ok(), |second| Timestamp::from_second(second).ok());
    time.map(|time| time.to_string())
}

fn unreadable(why: &str) -> Problem {
    problem(ProblemKind::Protocol, format!("the webhook is signed but {why}"))
}
