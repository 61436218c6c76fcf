//! The API's bodies in the contract's words.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::contract::{Choice, Field, FieldKind, Invoice, Money, Plan, Price, Property, Service, State};
use crate::kernelhost::wire;

/// A service under the id it has from its making on.
pub(super) fn service(told: &wire::Service) -> Service {
    let (state, word) = state(&told.status);
    let known = [
        ("provider-state", word),
        ("power", told.power.clone()),
        ("term", told.billing_cycle.clone()),
        ("created-at", told.created_at.clone()),
        ("order", told.order_id.map(|id| format!("order/{id}"))),
    ];
    Service {
        remote_id: format!("service/{}", told.id),
        state,
        plan: told.product_id.map(|id| id.to_string()),
        domain: told.hostname.clone(),
        addresses: told.ip_addresses.clone(),
        due_at: told.next_due_at.clone(),
        properties: properties(known),
    }
}

fn state(word: &str) -> (State, Option<String>) {
    match word.to_ascii_lowercase().as_str() {
        "provisioning" | "pending" => (State::Pending, None),
        "active" => (State::Active, None),
        "suspended" => (State::Suspended, None),
        "terminated" => (State::Terminated, None),
        "failed" => (State::Failed, None),
        _ => (State::Unknown, Some(word.to_owned())),
    }
}

/// An order, as the service it is to become. A cancelled one never will: nothing is left of it.
pub(super) fn order(told: &wire::Order) -> Service {
    let (state, word) = match told.status.to_ascii_lowercase().as_str() {
        "pending_payment" | "paid" | "provisioning" | "completed" => (State::Pending, None),
        "cancelled" => (State::Terminated, None),
        _ => (State::Unknown, Some(told.status.clone())),
    };
    let known = [
        ("provider-state", word),
        ("order-state", Some(told.status.clone())),
        ("term", told.billing_cycle.clone()),
        ("created-at", told.created_at.clone()),
        ("expires-at", told.expires_at.clone()),
        ("paid-at", told.paid_at.clone()),
        ("invoice", told.invoice_id.map(|id| id.to_string())),
    ];
    Service {
        plan: told.product_id.map(|id| id.to_string()),
        properties: properties(known),
        ..bare(format!("order/{}", told.id), state)
    }
}

/// A service of which nothing but the id is known.
pub(super) fn bare(remote_id: String, state: State) -> Service {
    Service { remote_id, state, plan: None, domain: None, addresses: Vec::new(), due_at: None, properties: Vec::new() }
}

/// Those properties whose value is known.
pub(super) fn properties<'a>(known: impl IntoIterator<Item = (&'a str, Option<String>)>) -> Vec<Property> {
    known.into_iter().filter_map(|(name, value)| Some(Property { name: name.to_owned(), value: value? })).collect()
}

/// An amount; no currency where the provider does not say which it is.
pub(super) fn money(told: &wire::Amount) -> Money {
    Money { minor: told.amount.0, currency: Some(told.currency.clone()).filter(|currency| !currency.is_empty()) }
}

/// A product.
pub(super) fn plan(told: wire::Product) -> Plan {
    let price = |told: &wire::ProductPrice| Price {
        term: told.billing_cycle.clone(),
        amount: money(&told.price),
        setup_fee: told.setup_fee.as_ref().map(money),
    };
    Plan {
        id: told.id.to_string(),
        name: told.name,
        family: told.family,
        description: told.description,
        prices: told.prices.iter().map(price).collect(),
        options: told.config_options.into_iter().map(option).collect(),
        available: told.stock,
    }
}

fn option(told: wire::ConfigOption) -> Field {
    let kind = match told.kind.as_str() {
        "select" => FieldKind::Choice,
        "quantity" => FieldKind::Number,
        _ => FieldKind::Text,
    };
    let choice = |told: wire::ConfigChoice| Choice {
        label: told.label.unwrap_or_else(|| told.value.clone()),
        value: told.value,
        price: told.price.as_ref().map(money),
    };
    Field {
        label: told.name.clone(),
        name: told.name,
        kind,
        required: told.required,
        default: None,
        choices: told.choices.into_iter().map(choice).collect(),
        slot: None,
        help: None,
    }
}

/// An invoice; one without a number is named by its id.
pub(super) fn invoice(told: wire::Invoice) -> Invoice {
    Invoice {
        id: told.id.to_string(),
        number: told.number.unwrap_or_else(|| told.id.to_string()),
        status: told.status,
        total: money(&told.total),
        issued_at: told.issued_at,
        due_at: told.due_at,
        paid_at: told.paid_at,
    }
}

/// A time in RFC 3339, or a bare date as its first moment in UTC: billing panels often write no more.
pub(super) fn time(text: &str) -> Option<Timestamp> {
    let day = || text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok().map(|day| day.timestamp());
    text.parse().ok().or_else(day)
}
