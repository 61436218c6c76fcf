//! What the provider tells by webhook, and where.

use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::Value;

use super::exchange::Api;
use super::mapping::properties;
use crate::contract::{Event, Problem, ProblemKind, Property, Retry, Webhook};
use crate::kernelhost::webhook::{self, Rejected};
use crate::kernelhost::wire::{self, as_id};
use crate::outside::Outside;
use crate::provisioning::{Connection, problem};

/// Where the signature may stand: no page names the header (our choice, 2.13).
const SIGNATURE_HEADERS: [&str; 3] = [wire::header::WEBHOOK_SIGNATURE, "KH-Signature", "Stripe-Signature"];
const WEBHOOKS: &str = "/v1/webhooks";
/// Longer ids and types are not ours.
const MAX_NAME: usize = 128;

/// Verifies a webhook, then reads it: nothing of an unsigned body is looked at.
pub(super) fn receive(world: &dyn Outside, at: &Connection, headers: &[Property], body: &[u8]) -> Result<Vec<Event>, Problem> {
    let secret = at.setting("webhook_secret").filter(|secret| !secret.is_empty()).ok_or_else(|| Problem {
        retry: Retry::AfterFix,
        ..problem(ProblemKind::Unsupported, "webhooks cannot be verified: the profile has no `webhook_secret`")
    })?;
    signature(headers)
        .and_then(|header| webhook::verify(header, body, &[secret.as_bytes()], world.now()))
        .map_err(|rejected| problem(ProblemKind::Unauthorized, format!("the webhook was refused: {rejected}")))?;
    let told: Value = serde_json::from_slice(body).map_err(|_| unreadable("is not JSON"))?;
    Ok(vec![event(&told)?])
}

/// Where webhooks are sent.
pub(super) async fn get_webhook(api: &Api<'_>) -> Result<Option<Webhook>, Problem> {
    let told: wire::Webhook = api.get(WEBHOOKS).await?;
    let last = told.last_delivery.as_ref();
    let known = [
        ("events", (!told.events.is_empty()).then(|| told.events.join(","))),
        ("secret-hint", told.secret_hint),
        ("last-delivery", last.map(|last| last.status.clone())),
        ("last-delivery-at", last.and_then(|last| last.attempted_at.clone())),
        ("disabled-at", told.disabled_at),
    ];
    Ok(told.url.map(|url| Webhook { url, properties: properties(known) }))
}

/// Sets the address, or none. The secret is told with an address that is new (our choice, 2.8): where it was set before, or an answer
/// was lost, another secret is asked for.
pub(super) async fn set_webhook(api: &Api<'_>, url: Option<String>) -> Result<Option<SecretString>, Problem> {
    let request = wire::WebhookRequest { url, events: None, rotate_secret: None };
    let mut told: wire::Webhook = api.put(WEBHOOKS, &request).await?;
    if request.url.is_some() && told.secret.is_none() {
        told = api.put(WEBHOOKS, &wire::WebhookRequest { rotate_secret: Some(true), ..request }).await?;
    }
    Ok(told.secret.map(SecretString::from))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Effect;
    use crate::kernelhost::client::script::{EPOCH, Net, WEBHOOK_SECRET, assert_discreet, at, json, lost, refusal, run};

    fn header(name: &str, value: &str) -> Property {
        Property { name: name.to_owned(), value: value.to_owned() }
    }

    fn signed(body: &str) -> String {
        webhook::header(&[WEBHOOK_SECRET.as_bytes()], EPOCH, body.as_bytes())
    }

    fn read(body: &str) -> Result<Event, Problem> {
        let headers = [header("Content-Type", "application/json"), header("kh-webhook-signature", &signed(body))];
        receive(&Net::new([]), &at(), &headers, body.as_bytes()).map(|mut events| events.swap_remove(0))
    }

    #[test]
    fn an_event_names_the_service_it_is_about() {
        for (kind, data, remote_id) in [
            ("order.paid", r#"{"object":{"id":17,"service_id":null}}"#, Some("order/17")),
            ("order.paid", r#"{"object":{"id":17,"service_id":5}}"#, Some("service/5")),
            ("order.paid", r#"{"order_id":1001}"#, Some("order/1001")),
            ("service.provisioned", r#"{"object":{"id":5,"order_id":17}}"#, Some("service/5")),
            ("service.suspended", r#"{"service_id":"5"}"#, Some("service/5")),
            ("invoice.created", r#"{"object":{"id":3,"order_id":17}}"#, Some("order/17")),
            ("invoice.paid", r#"{"object":{"id":3,"order_id":null}}"#, None),
            ("something.new", r#"{"object":{"id":3}}"#, None),
            ("order.paid", "17", None),
            ("order.paid", r#"{"object":{"id":-17}}"#, None),
        ] {
            let body = format!(r#"{{"id":"evt_1","object":"event","type":"{kind}","created":{EPOCH},"data":{data},"more":1}}"#);
            let event = read(&body).unwrap();
            assert_eq!((event.id.as_str(), event.kind.as_str()), ("evt_1", kind));
            assert_eq!(event.remote_id.as_deref(), remote_id, "{body}");
            assert_eq!(event.occurred_at.as_deref(), Some("2027-01-15T08:00:00Z"));
        }
        let event = read(r#"{"id":"e","type":"service.provisioned","data":{"object":{"id":5,"order_id":17,"status":"active"}}}"#);
        let event = event.unwrap();
        assert_eq!(event.occurred_at, None);
        assert_eq!(event.properties, [header("order", "order/17"), header("status", "active")]);
    }

    const URL: &str = "https://gateway.example.com/v1/profiles/kh-main/events";

    fn set(net: &Net, url: Option<&str>) -> Result<Option<String>, Problem> {
        let at = at();
        let secret = run(set_webhook(&Api::asking(net, &at).unwrap(), url.map(str::to_owned)));
        Ok(secret?.map(|secret| secrecy::ExposeSecret::expose_secret(&secret).to_owned()))
    }

    #[test]
    fn an_address_is_set_and_its_secret_is_told_though_an_answer_is_lost() {
        let with_secret = || json(200, format!(r#"{{"url":"{URL}","secret":"whsec_new"}}"#));
        let net = Net::new([with_secret()]);
        assert_eq!(set(&net, Some(URL)).unwrap().as_deref(), Some("whsec_new"));
        assert_eq!((net.asked(), net.body(0)), (vec!["PUT /v1/webhooks".to_owned()], serde_json::json!({"url": URL})));
        // What was set by the lost one tells no secret any more.
        let net = Net::new([lost(), json(200, format!(r#"{{"url":"{URL}"}}"#)), with_secret()]);
        assert_eq!(set(&net, Some(URL)).unwrap().as_deref(), Some("whsec_new"));
        assert_eq!(net.body(2), serde_json::json!({"url": URL, "rotate_secret": true}));
        let net = Net::new([json(200, r#"{"url":null}"#)]);
        assert_eq!((set(&net, None).unwrap(), net.body(0)), (None, serde_json::json!({"url": null})));
        assert_eq!(set(&Net::always(lost()), None).unwrap_err().effect, Effect::Unknown);
        let refused = set(&Net::new([refusal(403, "forbidden_scope", "missing_scope", "")]), None).unwrap_err();
        assert_eq!((refused.kind, refused.effect), (ProblemKind::Forbidden, Effect::None));
    }

    #[test]
    fn an_address_is_told_and_none_where_there_is_none() {
        let at = at();
        let get = |answer: &str| run(get_webhook(&Api::asking(&Net::new([json(200, answer)]), &at).unwrap())).unwrap();
        assert_eq!(get(r#"{"url":null,"events":[]}"#), None);
        let told =
            get(&format!(r#"{{"url":"{URL}","secret_hint":"whsec_..ab12","last_delivery":{{"status":"failed"}}}}"#)).unwrap();
        assert_eq!((told.url.as_str(), told.properties.len()), (URL, 2));
    }

    #[test]
    fn the_signature_may_stand_in_three_headers_but_once() {
        let body = r#"{"id":"e","type":"order.paid"}"#;
        let receive = |headers: &[Property]| receive(&Net::new([]), &at(), headers, body.as_bytes());
        for name in ["KH-Webhook-Signature", "kh-signature", "STRIPE-SIGNATURE"] {
            assert!(receive(&[header(name, &signed(body))]).is_ok(), "{name}");
            let problem = receive(&[header(name, &signed(body)), header(name, &signed(body))]).unwrap_err();
            assert_eq!(problem.kind, ProblemKind::Unauthorized);
        }
        // The first of them decides: a second one is no second chance.
        let both = [header("KH-Webhook-Signature", "t=1,v1=00"), header("Stripe-Signature", &signed(body))];
        assert!(receive(&both).is_err());
        assert!(receive(&[]).is_err());
    }

    #[test]
    fn what_is_not_signed_or_late_is_unauthorized() {
        let body = r#"{"id":"e","type":"order.paid"}"#;
        let by = |secret: &str, second| webhook::header(&[secret.as_bytes()], second, body.as_bytes());
        for signature in [by("other", EPOCH), by(WEBHOOK_SECRET, EPOCH - 301), by(WEBHOOK_SECRET, EPOCH + 301), String::new()] {
            let headers = [header("KH-Webhook-Signature", &signature)];
            let problem = receive(&Net::new([]), &at(), &headers, body.as_bytes()).unwrap_err();
            assert_eq!((problem.kind, problem.retry), (ProblemKind::Unauthorized, Retry::Never));
            assert_discreet(&problem);
        }
        for settings in [Vec::new(), vec![crate::contract::Setting { name: "webhook_secret".to_owned(), value: String::new() }]] {
            let at = crate::contract::Connection {
                provider: String::new(),
                base_url: String::new(),
                key: String::new(),
                secret: String::new(),
                settings,
            };
            let forged = webhook::header(&[b""], EPOCH, body.as_bytes());
            let headers = [header("KH-Webhook-Signature", &forged)];
            let problem = receive(&Net::new([]), &at.into(), &headers, body.as_bytes()).unwrap_err();
            assert_eq!((problem.kind, problem.retry), (ProblemKind::Unsupported, Retry::AfterFix));
        }
    }

    #[test]
    fn a_signed_body_that_is_no_event_is_a_protocol_failure() {
        let long = format!(r#"{{"id":"{}","type":"a"}}"#, "x".repeat(129));
        for body in [
            "",
            "[]",
            "null",
            "{}",
            r#"{"id":1,"type":"a"}"#,
            r#"{"id":"","type":"a"}"#,
            r#"{"id":"a b","type":"c"}"#,
            r#"{"id":"a"}"#,
            &long,
        ] {
            assert_eq!(read(body).unwrap_err().kind, ProblemKind::Protocol, "{body}");
        }
    }
}
