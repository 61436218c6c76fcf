//! Orders: placed once, paid from the credit or by card, kept for 24 h when neither suffices (our choices, 2.5 and 2.11).

use jiff::{SignedDuration, Timestamp};

use super::catalog::{self, is_text};
use super::payments::{self, Paying, Unpaid};
use super::problem::{self, Halt, Handled, field};
use super::serve::Again;
use super::{Call, body, cycle, events, invoices, json, ok, time};
use crate::books::{
    Account, AccountBooks, AccountId, Books, Fault, Invoice, InvoiceLine, InvoiceStatus, NewInvoice, NewOrder, Order,
    OrderStatus, Price, Product,
};
use crate::kernelhost::wire::{self, Amount, FieldError, OrderRequest};
use crate::money::Minor;
use crate::server::Moment;

/// Services in one order.
const QUANTITY_MAX: u32 = 100;
/// Characters of a note.
const NOTE_MAX: usize = 500;
/// Bytes of a host name (RFC 1123).
const HOSTNAME_MAX: usize = 253;

/// `GET /v1/orders/{id}`.
pub(super) fn one(call: &Call<'_>, id: i64, books: &mut dyn Books) -> Handled {
    let order = books.account(call.key.account).order(id)?.ok_or_else(problem::not_found)?;
    Ok(ok(&show(&order)))
}

/// `POST /v1/orders`. The same request again tries to pay the order that it made before, never another.
pub(super) fn place(call: &Call<'_>, again: Option<Again>, books: &mut dyn Books) -> Handled {
    let is_running = again.is_some_and(|again| again.is_running);
    if let Some(id) = again.and_then(|again| again.order) {
        let order = load(call.key.account, id, books)?;
        return pay(call, &order, is_running, books);
    }
    let profile = books.account(call.key.account).profile()?;
    if profile.is_closed {
        return Err(problem::no_client().into());
    }
    let draft = draft(call, &profile, &body::read(call.body())?, books)?;
    if let Some(bought) = buy(call, &profile, &draft, books)? {
        return Ok(json(201, &show(&bought)));
    }
    let mut account = books.account(call.key.account);
    let order = account.place(&draft.order, &draft.invoice)?;
    tell_new(&call.visit.moment, &profile, &mut *account, &order, &draft.invoice)?;
    drop(account);
    pay(call, &order, is_running, books)
}

/// Pays an order that was not paid at once, if it can be.
fn pay(call: &Call<'_>, order: &Order, is_running: bool, books: &mut dyn Books) -> Handled {
    let account = call.key.account;
    let invoice = books.account(account).invoice(order.invoice_id)?;
    let invoice = invoice.ok_or_else(|| Fault(format!("invoice {} is gone", order.invoice_id)))?;
    let id = order.id;
    match order.status {
        OrderStatus::Paid | OrderStatus::Provisioning | OrderStatus::Completed => Ok(json(201, &show(order))),
        // It was paid, and then the operator gave it up: there is nothing to pay any more.
        OrderStatus::Cancelled if order.paid_at.is_some() => Ok(json(201, &show(order))),
        OrderStatus::PendingPayment if call.now() < order.new.expires_at => {
            match payments::pay(call, &invoice, is_running, books)? {
                Paying::Unpaid(why) => Err(problem::order_unpaid(id, why).into()),
                Paying::Paid | Paying::Charge(_) | Paying::InProgress => Ok(json(201, &show(&load(account, id, books)?))),
            }
        }
        OrderStatus::PendingPayment | OrderStatus::Cancelled => {
            let why = Unpaid::of(books.account(account).last_payment(invoice.id)?.as_ref());
            Err(problem::order_unpaid(id, why).into())
        }
    }
}

fn load(account: AccountId, id: i64, books: &mut dyn Books) -> Result<Order, Fault> {
    books.account(account).order(id)?.ok_or_else(|| Fault(format!("order {id} is gone")))
}

/// When an order that is paid now is fulfilled; never by itself where the operator does it by hand.
fn fulfilled_at(moment: &Moment) -> Result<Option<Timestamp>, Fault> {
    if moment.rules.is_fulfilled_by_hand {
        return Ok(None);
    }
    let delay = SignedDuration::try_from(moment.rules.fulfilment_delay).map_err(|error| Fault(error.to_string()))?;
    moment.now.checked_add(delay).map(Some).map_err(|error| Fault(error.to_string()))
}

/// Takes stock and credit and writes the paid order; nothing of it when either does not suffice.
fn buy(call: &Call<'_>, profile: &Account, draft: &Draft, books: &mut dyn Books) -> Result<Option<Order>, Fault> {
    let new = &draft.order;
    if profile.balance < new.total || (draft.has_stock && !books.take_stock(new.product_id, new.quantity)?) {
        return Ok(None);
    }
    let moment = &call.visit.moment;
    let mut account = books.account(profile.id);
    let Some(order) = account.buy(new, &draft.invoice, fulfilled_at(moment)?)? else {
        drop(account);
        if draft.has_stock {
            books.return_stock(new.product_id, new.quantity)?;
        }
        return Ok(None);
    };
    tell_new(moment, profile, &mut *account, &order, &draft.invoice)?;
    Ok(Some(order))
}

/// Marks a pending order paid; false if it is not pending any more.
pub(super) fn mark_paid(moment: &Moment, profile: &Account, id: i64, books: &mut dyn Books) -> Result<bool, Fault> {
    let order = load(profile.id, id, books)?;
    let (now, due_at) = (moment.now, fulfilled_at(moment)?);
    let paid = Order { status: OrderStatus::Paid, paid_at: Some(now), due_at, ..order };
    let mut account = books.account(profile.id);
    let is_done = account.set_order(&paid, OrderStatus::PendingPayment)?;
    if is_done {
        tell(moment, profile, &mut *account, "order.paid", &paid)?;
    }
    Ok(is_done)
}

/// Cancels an order that waits for its payment, and its invoice; false if it does not wait any more.
pub(super) fn cancel(moment: &Moment, account: AccountId, order: &Order, books: &mut dyn Books) -> Result<bool, Fault> {
    let mut books = books.account(account);
    let cancelled = Order { status: OrderStatus::Cancelled, due_at: None, ..order.clone() };
    if !books.set_order(&cancelled, OrderStatus::PendingPayment)? {
        return Ok(false);
    }
    books.cancel_invoice(order.invoice_id)?;
    let profile = books.profile()?;
    tell(moment, &profile, &mut *books, "order.cancelled", &cancelled)?;
    Ok(true)
}

/// Tells that `kind` happened to an order.
pub(super) fn tell(
    moment: &Moment,
    profile: &Account,
    books: &mut dyn AccountBooks,
    kind: &str,
    order: &Order,
) -> Result<(), Fault> {
    if profile.listens { events::emit(moment, books, kind, order.id, &show(order)) } else { Ok(()) }
}

/// Tells of a new order and its invoice and, if they are, that they are paid.
fn tell_new(
    moment: &Moment,
    profile: &Account,
    books: &mut dyn AccountBooks,
    order: &Order,
    invoice: &NewInvoice,
) -> Result<(), Fault> {
    if !profile.listens {
        return Ok(());
    }
    let placed = Order { status: OrderStatus::PendingPayment, paid_at: None, ..order.clone() };
    tell(moment, profile, books, "order.created", &placed)?;
    if order.status == OrderStatus::Paid {
        tell(moment, profile, books, "order.paid", order)?;
    }
    let status = if order.paid_at.is_some() { InvoiceStatus::Paid } else { InvoiceStatus::Unpaid };
    let new = NewInvoice { order_id: Some(order.id), ..invoice.clone() };
    invoices::tell_new(moment, profile, books, &Invoice { id: order.invoice_id, new, status, paid_at: order.paid_at })
}

/// An order and its invoice, everything checked and nothing written.
struct Draft {
    order: NewOrder,
    invoice: NewInvoice,
    /// Whether the product's number is limited.
    has_stock: bool,
}

fn draft(call: &Call<'_>, profile: &Account, request: &OrderRequest, books: &mut dyn Books) -> Result<Draft, Halt> {
    let product = books.product(request.product_id)?;
    let product = product.ok_or_else(|| problem::invalid_field("product_id", "unknown", "There is no such product."))?;
    let cost = check(request, &product, &profile.currency)?;
    let config_options = serde_json::to_string(&request.config_options).map_err(|error| Fault(error.to_string()))?;
    let now = call.now();
    let expires_at = now + SignedDuration::from_secs(wire::DAY_S);
    let invoice = invoices::draw_up(
        &call.visit.moment.rules.invoices,
        invoices::Draft {
            lines: lines(request, &product, &cost),
            total: cost.total,
            currency: profile.currency.clone(),
            order_id: None,
            renews: None,
            issued_at: now,
            due_at: expires_at,
        },
    );
    let order = NewOrder {
        product_id: product.id,
        cycle: request.billing_cycle.clone(),
        quantity: quantity(request),
        config_options,
        hostname: request.hostname.as_deref().map(str::to_ascii_lowercase),
        note: request.note.clone(),
        total: cost.total,
        recurring: cost.recurring,
        currency: profile.currency.clone(),
        created_at: now,
        expires_at,
    };
    Ok(Draft { order, invoice, has_stock: product.stock.is_some() })
}

/// What the invoice of an order says: the first term of each service, and what setting them up costs.
fn lines(request: &OrderRequest, product: &Product, cost: &Cost) -> Vec<InvoiceLine> {
    let quantity = quantity(request);
    let each = |amount: Minor| Minor(amount.0 / i64::from(quantity.max(1)));
    let text = format!("{}, {}", product.name, request.billing_cycle);
    let mut lines = vec![InvoiceLine { text, quantity, each: each(cost.recurring) }];
    if cost.total != cost.recurring {
        let setup = Minor(cost.total.0 - cost.recurring.0);
        lines.push(InvoiceLine { text: format!("{}, setup", product.name), quantity, each: each(setup) });
    }
    lines
}

fn quantity(request: &OrderRequest) -> u32 {
    request.quantity.unwrap_or(1)
}

/// What an order costs, over all its services.
#[derive(Debug, PartialEq, Eq)]
struct Cost {
    /// Now.
    total: Minor,
    /// Each cycle.
    recurring: Minor,
}

fn check(request: &OrderRequest, product: &Product, currency: &str) -> Result<Cost, Halt> {
    let mut errors = Vec::new();
    let count = quantity(request);
    if !(1..=QUANTITY_MAX).contains(&count) {
        errors.push(field("quantity", "out_of_range", "A number from 1 to 100 is expected."));
    } else if product.stock.is_some_and(|left| left < count) {
        errors.push(field("quantity", "out_of_stock", "There are not so many left."));
    }
    if request.hostname.as_deref().is_some_and(|name| !is_hostname(name)) {
        errors.push(field("hostname", "malformed", "A host name of letters, digits, hyphens and dots is expected."));
    }
    if request.note.as_deref().is_some_and(|note| !is_text(note, NOTE_MAX)) {
        errors.push(field("note", "malformed", "At most 500 characters, none of them a control character, are expected."));
    }
    let price = find_price(request, product, currency).map_err(|error| errors.push(error));
    let options = catalog::price_options(&product.config_options, &request.config_options, currency);
    let options = options.map_err(|wrong| errors.extend(wrong));
    let (Ok(price), Ok(options), true) = (price, options, errors.is_empty()) else { return Err(problem::invalid(errors).into()) };
    let cost = cost(price, options, count);
    Ok(cost.ok_or_else(|| problem::invalid_field("quantity", "too_expensive", "The total is out of range."))?)
}

fn find_price<'a>(request: &OrderRequest, product: &'a Product, currency: &str) -> Result<&'a Price, FieldError> {
    let price = product.prices.iter().find(|price| price.currency == currency && price.cycle == request.billing_cycle);
    price.filter(|price| cycle::months(&price.cycle).is_some()).ok_or_else(|| {
        let message = "The product has no price for this cycle in the account's currency.";
        field("billing_cycle", "no_price", message)
    })
}

/// `None` when it does not fit, or when a misspelt price would pay the reseller.
fn cost(price: &Price, options: Minor, count: u32) -> Option<Cost> {
    let each = price.price.plus(options)?;
    let recurring = each.times(count)?;
    let total = each.plus(price.setup_fee)?.times(count)?;
    (recurring >= Minor::ZERO && total >= Minor::ZERO).then_some(Cost { total, recurring })
}

/// Letters, digits and hyphens in dotted labels (RFC 1123), at most 253 bytes, no trailing dot.
fn is_hostname(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.len() <= HOSTNAME_MAX && name.split('.').all(is_label)
}

fn show(order: &Order) -> wire::Order {
    let new = &order.new;
    let may_expire = matches!(order.status, OrderStatus::PendingPayment | OrderStatus::Cancelled) && order.paid_at.is_none();
    wire::Order {
        id: order.id,
        status: order.status.as_str().to_owned(),
        product_id: Some(new.product_id),
        billing_cycle: Some(new.cycle.clone()),
        total: Some(Amount { amount: new.total, currency: new.currency.clone() }),
        service_id: order.service_id,
        invoice_id: Some(order.invoice_id),
        created_at: Some(time(new.created_at)),
        expires_at: may_expire.then(|| time(new.expires_at)),
        paid_at: order.paid_at.map(time),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn product() -> Product {
        let price = |currency: &str, cycle: &str, price, setup_fee| Price {
            currency: currency.to_owned(),
            cycle: cycle.to_owned(),
            price: Minor(price),
            setup_fee: Minor(setup_fee),
        };
        let options = json!([{"name": "ram", "type": "select", "choices": [{"value": "8", "prices": {"EUR": "2.00"}}]}]);
        Product {
            id: 42,
            name: "KVM S".to_owned(),
            family: "kvm".to_owned(),
            description: String::new(),
            prices: vec![
                price("EUR", "monthly", 990, 0),
                price("EUR", "annually", 9900, 500),
                price("USD", "monthly", 1090, 0),
                price("EUR", "quarterly", i64::MAX / 2, 0),
                price("EUR", "biennially", -500, 0),
                price("EUR", "onetime", 100, 0),
            ],
            config_options: serde_json::from_value(options).unwrap(),
            stock: Some(5),
        }
    }

    fn price(request: Value, currency: &str) -> Result<(i64, i64), Value> {
        let request: OrderRequest = serde_json::from_value(request).unwrap();
        match check(&request, &product(), currency) {
            Ok(cost) => Ok((cost.total.0, cost.recurring.0)),
            Err(Halt::Refused(refusal)) => {
                let problem: Value = serde_json::from_slice(&refusal.response("id").body).unwrap();
                Err(problem["errors"].as_array().unwrap().iter().map(|error| error["code"].clone()).collect())
            }
            Err(Halt::Fault(fault)) => panic!("{fault}"),
            Err(Halt::Needs(need)) => panic!("{need:?}"),
        }
    }

    #[test]
    fn setup_is_due_once_and_options_each_cycle() {
        for (request, currency, cost) in [
            (json!({"product_id": 42, "billing_cycle": "monthly"}), "EUR", (990, 990)),
            (json!({"product_id": 42, "billing_cycle": "monthly", "quantity": 5}), "EUR", (4950, 4950)),
            (json!({"product_id": 42, "billing_cycle": "monthly"}), "USD", (1090, 1090)),
            (
                json!({"product_id": 42, "billing_cycle": "annually", "quantity": 2, "config_options": {"ram": "8"}}),
                "EUR",
                (21_200, 20_200),
            ),
        ] {
            assert_eq!(price(request.clone(), currency), Ok(cost), "{request}");
        }
    }

    #[test]
    fn what_cannot_be_ordered_says_so() {
        for (change, currency, code) in [
            (json!({"quantity": 0}), "EUR", "out_of_range"),
            (json!({"quantity": 101}), "EUR", "out_of_range"),
            (json!({"quantity": 6}), "EUR", "out_of_stock"),
            (json!({"hostname": "-a.example"}), "EUR", "malformed"),
            (json!({"note": "a\u{0}b"}), "EUR", "malformed"),
            (json!({"note": "x".repeat(501)}), "EUR", "malformed"),
            (json!({"billing_cycle": "weekly"}), "EUR", "no_price"),
            (json!({"billing_cycle": "onetime"}), "EUR", "no_price"),
            (json!({"billing_cycle": "annually"}), "USD", "no_price"),
            (json!({}), "GBP", "no_price"),
            (json!({"billing_cycle": "quarterly", "quantity": 3}), "EUR", "too_expensive"),
            (json!({"billing_cycle": "biennially"}), "EUR", "too_expensive"),
            (json!({"config_options": {"ram": "9"}}), "EUR", "invalid_choice"),
        ] {
            let mut request = json!({"product_id": 42, "billing_cycle": "monthly"});
            request.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            assert_eq!(price(request, currency), Err(json!([code])), "{change}");
        }
        let all = json!({"product_id": 42, "billing_cycle": "x", "quantity": 0, "hostname": "", "config_options": {"a": 1}});
        assert_eq!(price(all, "EUR"), Err(json!(["out_of_range", "malformed", "no_price", "unknown"])));
    }

    #[test]
    fn host_names_are_letters_digits_and_hyphens() {
        let longest = format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61));
        for name in ["a", "web-1.example.com", "XN--BCHER-KVA.example", "1.2", longest.as_str()] {
            assert!(is_hostname(name), "{name}");
        }
        let long_label = "a".repeat(64);
        let too_long = format!("{longest}e");
        for name in ["", ".", "a.", ".a", "a..b", "-a", "a-", "a_b", "a b", "bücher.example", "a\n", &long_label, &too_long] {
            assert!(!is_hostname(name), "{name}");
        }
    }
}
