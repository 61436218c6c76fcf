//! Upmind's generic RPC provider: `POST {base_url}/{function}` with JSON, answered with `{success, message, data}`.

use base16ct::lower as hex;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use jiff::SignedDuration;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::State;
use super::answer::{Answer, Refusal};
use super::body::{self, Texts};
use super::envelope::{Asked, Options, done, taken, unsupported};
use super::questions::{self, Query};
use crate::operations::Change;
use crate::store::Panel;

/// How long an order without an id of its own counts as a repeat of the same one. Providers keep idempotency keys as long.
const REPEAT: SignedDuration = SignedDuration::from_hours(24);
/// The same order of one customer without an id, one after the other, at most.
const ORDERS_MAX: u32 = 100;

/// The data sets of the category's functions in one. Members that come with a later version do no harm.
#[derive(Deserialize)]
struct Sent {
    service_id: Option<String>,
    customer_id: Option<String>,
    customer_email: Option<String>,
    service_identifier: Option<String>,
    package_identifier: Option<String>,
    #[serde(default)]
    extra: Texts,
}

/// Calls a function. Upmind's custom functions arrive under their own names; `renew` is the one that is offered.
pub(super) async fn call(
    state: &State,
    panel: &Panel,
    function: &str,
    query: &Query,
    (head, body): (&Parts, Incoming),
    request_id: &str,
) -> Result<Answer, Refusal> {
    let Sent { service_id, customer_id, customer_email, service_identifier, package_identifier, extra: Texts(mut extra) } =
        body::json(&head.headers, body).await?;
    let asked = Asked { state, panel, head, query, request_id };
    if function == "create" {
        let order = Order {
            customer: required("customer_id", customer_id)?,
            email: required("customer_email", customer_email)?,
            identifier: filled(service_identifier),
            plan: required("package_identifier", package_identifier)?,
        };
        return create(&asked, order, extra).await;
    }
    let key = || body::service_key(&required("service_id", service_id)?).map_err(|refusal| refusal.field("service_id"));
    match function {
        "getInfo" => {
            let (service, under_way) = questions::looked_up(state, panel, &key()?, query).await?;
            Ok(done(&service, under_way.as_deref(), "this is how the service stands"))
        }
        "suspend" => asked.change(key()?, None, body::suspend(taken(&mut extra, "reason")), None).await,
        "unsuspend" => asked.change(key()?, None, Change::Unsuspend, None).await,
        "terminate" => asked.change(key()?, None, Change::Terminate, None).await,
        "changePackage" => {
            asked.change_package(key()?, required("package_identifier", package_identifier)?, without_ours(extra)).await
        }
        "renew" => {
            let due_at = required("due_at", extra.remove("due_at"))?;
            asked.change(key()?, None, Change::Renew { due_at }, None).await
        }
        _ => Err(unsupported("the functions are create, getInfo, suspend, unsuspend, terminate, changePackage and renew")),
    }
}

/// What is ordered.
struct Order {
    customer: String,
    email: String,
    identifier: Option<String>,
    plan: String,
}

async fn create(asked: &Asked<'_>, order: Order, mut extra: Options) -> Result<Answer, Refusal> {
    let profile = asked.profile(taken(&mut extra, "profile"))?;
    let key = match taken(&mut extra, "contract_product_id") {
        Some(id) => body::service_key(&format!("upmind-{id}")).map_err(|refusal| refusal.field("contract_product_id"))?,
        None => guessed_key(asked, &order, &profile)?,
    };
    let Order { email, identifier, plan, .. } = order;
    let change = Change::Create { plan, term: None, domain: identifier, email: Some(email), note: None, options: extra };
    asked.change(key, Some(profile), change, None).await
}

/// The key of an order without an id of its own: the same customer, identifier, plan and profile within the time that repeats come in
/// are the same order. Without an identifier, two of one kind could not be told from one that is repeated.
fn guessed_key(asked: &Asked<'_>, order: &Order, profile: &str) -> Result<String, Refusal> {
    let identifier = order.identifier.as_deref().ok_or_else(|| {
        Refusal::malformed("an order without a service_identifier needs the contract product's id in `extra`")
            .field("contract_product_id")
    })?;
    let mut hash = Sha256::new();
    for part in [&order.customer, &identifier.to_lowercase(), &order.plan, profile] {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    let name = hex::encode_string(&hash.finalize()[..16]);
    for number in 1..=ORDERS_MAX {
        let key = format!("upmind-x{name}-{number}");
        let Some((service, _)) = asked.state.operations.service(asked.panel.id, &key)? else { return Ok(key) };
        let is_open = matches!(service.state.as_str(), "pending" | "failed");
        if is_open || asked.state.clock.now().duration_since(service.created_at) < REPEAT {
            return Ok(key);
        }
    }
    Err(Refusal::malformed("this order came too often without the contract product's id in `extra`").field("contract_product_id"))
}

/// Options of a change: what only a `create` reads is none of them.
fn without_ours(mut extra: Options) -> Options {
    extra.retain(|name, _| !matches!(name.as_str(), "profile" | "contract_product_id" | "due_at"));
    extra
}

fn filled(text: Option<String>) -> Option<String> {
    text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn required(name: &str, text: Option<String>) -> Result<String, Refusal> {
    filled(text).ok_or_else(|| Refusal::malformed(format!("`{name}` is missing")).field(name))
}
