//! Ordering a service.

use serde_json::Value;
use zeroize::Zeroize;

use super::exchange::Api;
use super::{mapping, services};
use crate::contract::{Call, Order, Outcome, Problem, ProblemKind, Setting, State};
use crate::kernelhost::wire;
use crate::provisioning::{invalid, problem};

/// The term that every product has (spec 8), unless the catalogue says otherwise.
const USUAL_TERM: &str = "monthly";

/// Orders, and hands over the service if it is already there.
pub(super) async fn create(api: &Api<'_>, call: &Call, mut order: Order) -> Result<Outcome, Problem> {
    // The API takes none; a customer sets it on the machine or through `reset-password`.
    if let Some(password) = &mut order.password {
        password.zeroize();
    }
    let product = match whole(&order.plan) {
        Some(id) => Wanted { id, entry: None },
        None => by_name(api, &order.plan).await?,
    };
    let has_hostname = order.options.iter().any(|option| option.name == "hostname" && !option.value.is_empty());
    let request = request(order, &product)?;
    let placed: wire::Order =
        api.post("/v1/orders", &call.idempotency_key, &request, None).await.map_err(|problem| match &problem.field {
            Some(field) if field == "hostname" && !has_hostname => Problem { field: Some("domain".to_owned()), ..problem },
            _ => problem,
        })?;
    outcome(api, &placed).await
}

/// What to order, and its catalogue entry if that had to be read.
struct Wanted {
    id: i64,
    entry: Option<wire::Product>,
}

/// The product with this very name, upper and lower case aside.
async fn by_name(api: &Api<'_>, name: &str) -> Result<Wanted, Problem> {
    let wanted = name.trim().to_lowercase();
    let all: wire::All<wire::Product> = api.get("/v1/products").await?;
    let mut found = all.data.into_iter().filter(|product| product.name.trim().to_lowercase() == wanted);
    match (found.next(), found.next()) {
        (Some(product), None) => Ok(Wanted { id: product.id, entry: Some(product) }),
        (Some(_), Some(_)) => Err(invalid("plan", "several products have this name: give the product's id")),
        (None, _) => Err(invalid("plan", "the catalogue has no product of this id or name")),
    }
}

fn request(order: Order, product: &Wanted) -> Result<wire::OrderRequest, Problem> {
    let given = |text: Option<String>| text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let mut request = wire::OrderRequest {
        product_id: product.id,
        billing_cycle: given(order.term).unwrap_or_else(|| usual_term(product)),
        quantity: None,
        config_options: std::collections::BTreeMap::new(),
        hostname: given(order.domain),
        note: given(order.note),
    };
    // Panels send every field of their form: an empty one was not filled in.
    for Setting { name, value } in order.options.into_iter().filter(|option| !option.value.is_empty()) {
        match name.as_str() {
            "quantity" => {
                let quantity = value.trim().parse().ok().filter(|quantity| *quantity > 0);
                request.quantity = Some(quantity.ok_or_else(|| invalid("quantity", "the quantity is a number from 1"))?);
            }
            "hostname" => request.hostname = Some(value),
            _ => {
                let value = option_value(product, &name, value);
                request.config_options.insert(name, value);
            }
        }
    }
    Ok(request)
}

fn usual_term(product: &Wanted) -> String {
    let prices = product.entry.as_ref().map(|entry| entry.prices.as_slice()).unwrap_or_default();
    let usual = prices.iter().find(|price| price.billing_cycle == USUAL_TERM).or(prices.first());
    usual.map_or_else(|| USUAL_TERM.to_owned(), |price| price.billing_cycle.clone())
}

/// A number where the catalogue is known to ask for one.
fn option_value(product: &Wanted, name: &str, value: String) -> Value {
    let options = product.entry.as_ref().map(|entry| entry.config_options.as_slice()).unwrap_or_default();
    let counts = options.iter().any(|option| option.name == name && option.kind == "quantity");
    match whole(&value) {
        Some(number) if counts => Value::from(number),
        _ => Value::String(value),
    }
}

fn whole(text: &str) -> Option<i64> {
    text.trim().parse().ok().filter(|number| *number >= 0)
}

/// The order is accepted: nothing that fails from here on is a failure of it.
async fn outcome(api: &Api<'_>, placed: &wire::Order) -> Result<Outcome, Problem> {
    let ordered = mapping::order(placed);
    if ordered.state == State::Failed {
        let message = format!("the provider cancelled order {} at once", placed.id);
        return Err(Problem { remote_id: Some(ordered.remote_id), ..problem(ProblemKind::Refused, message) });
    }
    if let Some(id) = placed.service_id.filter(|_| placed.status.eq_ignore_ascii_case("completed"))
        && let Ok(service) = services::fetch(api, id).await
    {
        let service = mapping::service(&service);
        return Ok(if service.state == State::Pending { Outcome::Pending(service) } else { Outcome::Done(service) });
    }
    Ok(Outcome::Pending(ordered))
}
