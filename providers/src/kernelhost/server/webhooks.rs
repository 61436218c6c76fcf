//! Where a key's owner is told of events: one address per key (spec 14; our choices, 2.8, 2.13 and 2.14).

use jiff::SignedDuration;
use rand::distr::{Alphanumeric, SampleString};
use secrecy::{ExposeSecret, SecretString};

use super::events::KINDS;
use super::problem::{self, Halt, Handled, Refusal};
use super::{Call, body, ok, time};
use crate::books::{Books, LastDelivery, NewWebhook, Webhook};
use crate::kernelhost::wire::{self, WebhookRequest};
use crate::server::{Met, Need};
use crate::target::{Refused, Target};

/// What a secret begins with.
const SECRET_PREFIX: &str = "whsec_";
/// Characters behind it: 238 bits in base62.
const SECRET_CHARS: usize = 40;
/// How many of them a hint shows.
const HINT_CHARS: usize = 4;
/// How long the secret before signs too (our choice).
const PREVIOUS_KEPT: SignedDuration = SignedDuration::from_hours(24);

/// `GET /v1/webhooks`.
pub(super) fn show(call: &Call<'_>, books: &mut dyn Books) -> Handled {
    let webhook = books.account(call.key.account).webhook(call.key.row)?;
    Ok(ok(&webhook.as_ref().map(on_the_wire).unwrap_or_default()))
}

/// `PUT /v1/webhooks`.
pub(super) fn set(call: &Call<'_>, books: &mut dyn Books) -> Handled {
    let request: WebhookRequest = body::read(call.body())?;
    let events = events(&request);
    let Some(url) = &request.url else {
        if request.events.is_some() || request.rotate_secret.is_some() {
            return Err(problem::invalid_field("url", "required", "Events and a secret need an address.").into());
        }
        books.account(call.key.account).unset_webhook(call.key.row)?;
        return Ok(ok(&wire::Webhook::default()));
    };
    let target = Target::parse(url, &call.visit.moment.rules.webhooks);
    let (target, events) = match (target, events) {
        (Ok(target), Ok(events)) => (target, events),
        (target, events) => {
            let wrong_url = target.err().map(|why| problem::field("url", why.code(), why.to_string()));
            return Err(problem::invalid(wrong_url.into_iter().chain(events.err().unwrap_or_default()).collect()).into());
        }
    };
    resolve(call, &target)?;

    let now = call.now();
    let mut account = books.account(call.key.account);
    // Whoever had the address before knows its secret: another address gets another one.
    let is_new = account.webhook(call.key.row)?.is_none_or(|webhook| webhook.url != target.as_str());
    let secret = (is_new || request.rotate_secret == Some(true)).then(|| new_secret(call));
    let secret = secret.as_ref();
    let previous_until = now + PREVIOUS_KEPT;
    account.set_webhook(call.key.row, &NewWebhook { url: target.as_str(), events: &events, secret, previous_until, at: now })?;
    let webhook = account.webhook(call.key.row)?.ok_or_else(problem::not_found)?;
    let secret = secret.map(|secret| secret.expose_secret().to_owned());
    let mut response = ok(&wire::Webhook { secret, ..on_the_wire(&webhook) });
    response.headers.add("cache-control", "no-store");
    Ok(response)
}

/// The types to listen to, each once; none for all.
fn events(request: &WebhookRequest) -> Result<Vec<String>, Vec<wire::FieldError>> {
    let Some(asked) = &request.events else { return Ok(Vec::new()) };
    if asked.is_empty() {
        let message = "At least one type is expected; leave the member out for all.";
        return Err(vec![problem::field("events", "required", message)]);
    }
    let unknown = asked.iter().position(|kind| !KINDS.contains(&kind.as_str()));
    if let Some(position) = unknown {
        let message = format!("The types are: {}.", KINDS.join(", "));
        return Err(vec![problem::field(format!("events[{position}]"), "unknown", message)]);
    }
    Ok(KINDS.iter().filter(|kind| asked.iter().any(|asked| asked == *kind)).map(ToString::to_string).collect())
}

/// Asks for the name's addresses, and once they are there judges them.
fn resolve(call: &Call<'_>, target: &Target) -> Result<(), Halt> {
    let Some(name) = target.name() else { return Ok(()) };
    match call.met {
        Some(Met::Resolved(addresses)) => target.admit(addresses).map_err(|why| Halt::from(refused(why))),
        _ => Err(Halt::Needs(Need::Resolve(name.to_owned()))),
    }
}

fn refused(why: Refused) -> Refusal {
    problem::invalid_field("url", why.code(), why.to_string())
}

fn new_secret(call: &Call<'_>) -> SecretString {
    let random = Alphanumeric.sample_string(&mut call.visit.moment.rng(), SECRET_CHARS);
    SecretString::from(format!("{SECRET_PREFIX}{random}"))
}

fn on_the_wire(webhook: &Webhook) -> wire::Webhook {
    let events = if webhook.events.is_empty() { KINDS.iter().map(ToString::to_string).collect() } else { webhook.events.clone() };
    let secret = webhook.secret.expose_secret();
    let hint = secret.get(secret.len().saturating_sub(HINT_CHARS)..).unwrap_or_default();
    wire::Webhook {
        url: Some(webhook.url.clone()),
        events,
        secret_hint: Some(format!("{SECRET_PREFIX}..{hint}")),
        last_delivery: webhook.last_delivery.as_ref().map(last_delivery),
        disabled_at: webhook.disabled_at.map(time),
        secret: None,
    }
}

fn last_delivery(last: &LastDelivery) -> wire::LastDelivery {
    wire::LastDelivery {
        event_id: last.event_id.clone(),
        kind: last.kind.clone(),
        status: if last.is_delivered { "delivered" } else { "failed" }.to_owned(),
        response_status: last.status,
        attempts: last.attempts,
        attempted_at: Some(time(last.at)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(body: &Value) -> Result<Vec<String>, Value> {
        let request: WebhookRequest = body::read(body.to_string().as_bytes()).map_err(|refusal| {
            serde_json::from_slice::<Value>(&refusal.response("id").body).unwrap()["errors"][0]["field"].clone()
        })?;
        events(&request).map_err(|errors| json!([errors[0].field, errors[0].code]))
    }

    #[test]
    fn types_are_known_ones_each_once() {
        let url = "https://hooks.example.com/";
        assert_eq!(read(&json!({"url": url})), Ok(vec![]));
        let twice = json!({"url": url, "events": ["order.paid", "order.created", "order.paid"]});
        assert_eq!(read(&twice), Ok(vec!["order.created".to_owned(), "order.paid".to_owned()]));
        assert_eq!(read(&json!({"url": url, "events": []})), Err(json!(["events", "required"])));
        for unknown in ["order", "order.*", "*", "ORDER.PAID", "webhook.test", "order.paid ", ""] {
            let body = json!({"url": url, "events": ["order.paid", unknown]});
            assert_eq!(read(&body), Err(json!(["events[1]", "unknown"])), "{unknown}");
        }
    }

    #[test]
    fn a_missing_url_unsets_nothing() {
        assert_eq!(read(&json!({})), Err(json!("url")));
        assert_eq!(read(&json!({"events": ["order.paid"]})), Err(json!("url")));
        assert_eq!(read(&json!({"url": null})), Ok(vec![]));
        assert_eq!(read(&json!({"url": 1})), Err(json!("body")));
        assert_eq!(read(&json!({"url": null, "secret": "x"})), Err(json!("secret")));
    }
}
