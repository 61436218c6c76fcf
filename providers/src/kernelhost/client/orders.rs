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
    let has_hostname = order.options.iter().any(|option| option.name == "hostname" && !option.value.is_empty());
    let request = prepared(api, order).await.map_err(|problem| api.before_asking(problem))?;
    let placed: wire::Order =
        api.post("/v1/orders", &call.idempotency_key, &request, None).await.map_err(|problem| match &problem.field {
            Some(field) if field == "hostname" && !has_hostname => Problem { field: Some("domain".to_owned()), ..problem },
            _ => problem,
        })?;
    outcome(api, &placed).await
}

async fn prepared(api: &Api<'_>, order: Order) -> Result<wire::OrderRequest, Problem> {
    let product = match whole(&order.plan) {
        Some(id) => Wanted { id, entry: entry(api, id, &order.options).await? },
        None => by_name(api, &order.plan).await?,
    };
    request(order, &product)
}

/// What to order, and its catalogue entry if that had to be read.
struct Wanted {
    id: i64,
    entry: Option<wire::Product>,
}

/// The entry of a product known by its id, read only when it matters: an option's digits may be a count, which is sent as a number,
/// or a choice's value, which is text. A key that may not read the catalogue sends text.
///
/// Any other failure ends the order before it is placed: the body must be the same at every try under one idempotency key.
async fn entry(api: &Api<'_>, id: i64, options: &[Setting]) -> Result<Option<wire::Product>, Problem> {
    let is_own_member = |name: &str| matches!(name, "quantity" | "hostname");
    if !options.iter().any(|option| !is_own_member(&option.name) && whole(&option.value).is_some()) {
        return Ok(None);
    }
    match api.get(&format!("/v1/products/{id}")).await {
        Ok(product) => Ok(Some(product)),
        Err(problem) if matches!(problem.kind, ProblemKind::Forbidden | ProblemKind::NotFound) => Ok(None),
        Err(problem) => Err(problem),
    }
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
    if ordered.state == State::Terminated {
        let message = format!("the provider cancelled order {} at once", placed.id);
        return Err(Problem { remote_id: Some(ordered.remote_id), ..problem(ProblemKind::Refused, message) });
    }
    if let Some(id) = placed.service_id.filter(|_| placed.status.eq_ignore_ascii_case("completed"))
        && let Ok(service) = services::fetch(api, id).await
    {
        let service = mapping::service(&service);
        // One whose making has failed is none that was made.
        let is_made = !matches!(service.state, State::Pending | State::Failed);
        return Ok(if is_made { Outcome::Done(service) } else { Outcome::Pending(service) });
    }
    Ok(Outcome::Pending(ordered))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::script::{self, Net, at, call, lost, order as placed, refusal, run, service};
    use super::*;
    use crate::contract::Effect;
    use crate::kernelhost::client::Client;
    use crate::provisioning::Provisioning;

    const CATALOGUE: &str = r#"{"data":[
        {"id":42,"name":"KVM S","prices":[{"billing_cycle":"annually","price":{"amount":99,"currency":"EUR"}},
                                          {"billing_cycle":"monthly","price":{"amount":"9.90","currency":"EUR"}}],
         "config_options":[{"name":"ram","type":"quantity"},{"name":"os","type":"select"}]},
        {"id":43,"name":"Onetime","prices":[{"billing_cycle":"onetime","price":{"amount":5,"currency":"EUR"}}]},
        {"id":44,"name":"Bare"},{"id":45,"name":"Twice"},{"id":46,"name":"twice"}]}"#;

    fn order(plan: &str) -> Order {
        Order {
            plan: plan.to_owned(),
            term: None,
            domain: None,
            email: Some("MARKED@a.example".to_owned()),
            password: Some("MARKEDpassword".to_owned()),
            note: None,
            options: Vec::new(),
        }
    }

    fn option(name: &str, value: &str) -> Setting {
        Setting { name: name.to_owned(), value: value.to_owned() }
    }

    fn create(net: &Net, order: Order) -> Result<Outcome, Problem> {
        run(Client.create(net, &at(), call(), order))
    }

    #[test]
    fn only_what_the_api_knows_is_sent() {
        let net = Net::always(script::json(201, placed("paid", "null")));
        create(&net, order("42")).unwrap();
        assert_eq!(net.asked(), ["POST /v1/orders"]);
        assert_eq!(net.body(0), json!({"product_id": 42, "billing_cycle": "monthly"}));

        let everything = Order {
            term: Some("annually".to_owned()),
            domain: Some("a.example".to_owned()),
            note: Some("for Ann".to_owned()),
            options: vec![option("quantity", "2"), option("os", "debian"), option("empty", "")],
            ..order(" 42 ")
        };
        create(&net, everything.clone()).unwrap();
        let sent = json!({"product_id": 42, "billing_cycle": "annually", "quantity": 2, "hostname": "a.example", "note": "for Ann",
            "config_options": {"os": "debian"}});
        assert_eq!(net.body(1), sent);

        let named = Order { options: vec![option("hostname", "b.example")], ..everything };
        create(&net, named).unwrap();
        assert_eq!(net.body(2)["hostname"], "b.example");
        for (request, _) in net.sent.borrow().iter() {
            assert!(!String::from_utf8_lossy(&request.body).contains("MARKED"));
        }
    }

    #[test]
    fn a_plan_may_be_named_as_the_catalogue_names_it() {
        for (plan, id, term) in
            [("kvm s", 42, "monthly"), ("KVM S ", 42, "monthly"), ("Onetime", 43, "onetime"), ("Bare", 44, "monthly")]
        {
            let net = Net::new([script::json(200, CATALOGUE), script::json(201, placed("paid", "null"))]);
            create(&net, Order { options: vec![option("ram", "4"), option("os", "12")], ..order(plan) }).unwrap();
            assert_eq!(net.asked(), ["GET /v1/products", "POST /v1/orders"]);
            let body = net.body(1);
            assert_eq!((&body["product_id"], &body["billing_cycle"]), (&json!(id), &json!(term)));
            let ram = if id == 42 { json!(4) } else { json!("4") };
            assert_eq!(body["config_options"], json!({"ram": ram, "os": "12"}));
        }
        for plan in ["KVM", "twice", "", "42x"] {
            let problem = create(&Net::new([script::json(200, CATALOGUE)]), order(plan)).unwrap_err();
            assert_eq!((problem.kind, problem.field.as_deref()), (ProblemKind::Invalid, Some("plan")), "{plan}");
        }
    }

    #[test]
    fn digits_are_a_number_only_where_the_product_counts() {
        let product =
            r#"{"id":42,"name":"KVM","config_options":[{"name":"ram","type":"quantity"},{"name":"os","type":"select"}]}"#;
        let order = || Order { options: vec![option("ram", "4"), option("os", "12"), option("quantity", "2")], ..order("42") };
        let placed = || script::json(201, placed("paid", "null"));
        for (entry, ram) in [
            (script::json(200, product), json!(4)),
            (refusal(403, "forbidden_scope", "missing_scope", ""), json!("4")),
            (refusal(404, "not_found", "", ""), json!("4")),
        ] {
            let net = Net::new([entry, placed()]);
            create(&net, order()).unwrap();
            assert_eq!(net.asked(), ["GET /v1/products/42", "POST /v1/orders"]);
            assert_eq!(net.body(1)["config_options"], json!({"ram": ram, "os": "12"}));
        }
        // A guess now could be another body than the one sent at the first try.
        let net = Net::new([script::json(200, "<html>")]);
        assert_eq!(create(&net, order()).unwrap_err().effect, Effect::None);
        // Without digits there is nothing to look up.
        let net = Net::new([placed()]);
        create(&net, Order { options: vec![option("os", "debian"), option("quantity", "2")], ..order() }).unwrap();
    }

    #[test]
    fn a_quantity_is_a_number_from_one() {
        for quantity in ["0", "-1", "two", "1.5", "99999999999"] {
            let order = Order { options: vec![option("quantity", quantity)], ..order("42") };
            let problem = create(&Net::new([]), order).unwrap_err();
            assert_eq!(problem.field.as_deref(), Some("quantity"));
        }
    }

    #[test]
    fn an_order_is_pending_until_its_service_is_there() {
        for status in ["pending_payment", "paid", "provisioning", "completed"] {
            let net = Net::new([script::json(201, placed(status, "null"))]);
            let Outcome::Pending(service) = create(&net, order("42")).unwrap() else { panic!("{status}") };
            assert_eq!((service.remote_id.as_str(), service.state), ("order/17", State::Pending));
        }
        let net = Net::new([script::json(201, placed("completed", "5")), script::json(200, service(5, "active"))]);
        let Outcome::Done(done) = create(&net, order("42")).unwrap() else { panic!() };
        assert_eq!((done.remote_id.as_str(), done.state), ("service/5", State::Active));

        for status in ["provisioning", "failed"] {
            let net = Net::new([script::json(201, placed("completed", "5")), script::json(200, service(5, status))]);
            assert!(matches!(create(&net, order("42")).unwrap(), Outcome::Pending(service) if service.remote_id == "service/5"));
        }
    }

    #[test]
    fn an_accepted_order_never_fails_for_what_comes_after() {
        for after in
            [refusal(404, "not_found", "", ""), refusal(403, "forbidden_scope", "", ""), script::json(200, service(6, "active"))]
        {
            let net = Net::new([script::json(201, placed("completed", "5")), after]);
            assert!(matches!(create(&net, order("42")).unwrap(), Outcome::Pending(service) if service.remote_id == "order/17"));
        }
        let problem = create(&Net::new([script::json(201, placed("cancelled", "null"))]), order("42")).unwrap_err();
        assert_eq!((problem.kind, problem.remote_id.as_deref()), (ProblemKind::Refused, Some("order/17")));
    }

    #[test]
    fn a_catalogue_that_has_changed_says_nothing_of_an_earlier_order() {
        for (attempt, effect) in [(1, Effect::None), (2, Effect::Unknown)] {
            let call = Call { attempt, ..call() };
            let net = Net::new([script::json(200, CATALOGUE)]);
            let problem = run(Client.create(&net, &at(), call, order("renamed"))).unwrap_err();
            assert_eq!((problem.kind, problem.effect), (ProblemKind::Invalid, effect));
        }
    }

    #[test]
    fn a_lost_answer_is_found_again_under_the_same_key() {
        let net = Net::new([lost(), script::json(201, placed("paid", "null"))]);
        assert!(matches!(create(&net, order("42")).unwrap(), Outcome::Pending(service) if service.remote_id == "order/17"));
        assert_eq!(
            (net.header(0, "Idempotency-Key"), net.header(1, "Idempotency-Key")),
            (call().idempotency_key, call().idempotency_key)
        );
    }
}
