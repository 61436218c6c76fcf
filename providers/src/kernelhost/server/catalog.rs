//! Products: what they cost, and what may be chosen with them. A choice has a price for each currency, of which a reseller is shown the
//! one of its own.

use std::collections::BTreeMap;

use serde_json::Value;

use super::problem::{self, Handled, field};
use super::{Call, ok};
use crate::books::{self, Books, ConfigOption, OptionKind};
use crate::kernelhost::wire::{self, All, Amount, FieldError};
use crate::money::Minor;

/// The most units of a `quantity` option.
const UNITS_MAX: u32 = 1000;
/// The most characters of a `text` option.
const TEXT_MAX: usize = 255;

/// `GET /v1/products`.
pub(super) fn list(call: &Call<'_>, books: &mut dyn Books) -> Handled {
    let currency = books.account(call.key.account).profile()?.currency;
    let data = books.products()?.iter().map(|product| show(product, &currency)).collect();
    Ok(ok(&All::<wire::Product> { data }))
}

/// `GET /v1/products/{id}`.
pub(super) fn one(call: &Call<'_>, id: i64, books: &mut dyn Books) -> Handled {
    let currency = books.account(call.key.account).profile()?.currency;
    let product = books.product(id)?.ok_or_else(problem::not_found)?;
    Ok(ok(&show(&product, &currency)))
}

fn show(product: &books::Product, currency: &str) -> wire::Product {
    let amount = |amount| Amount { amount, currency: currency.to_owned() };
    let price = |price: &books::Price| wire::ProductPrice {
        billing_cycle: price.cycle.clone(),
        price: amount(price.price),
        setup_fee: Some(amount(price.setup_fee)),
    };
    let choice = |choice: &books::Choice| wire::ConfigChoice {
        price: choice.prices.get(currency).copied().map(amount),
        value: choice.value.clone(),
        label: choice.label.clone(),
    };
    let option = |option: &ConfigOption| wire::ConfigOption {
        name: option.name.clone(),
        kind: spell(option.kind).to_owned(),
        required: option.required,
        choices: option.choices.iter().map(choice).collect(),
    };
    wire::Product {
        id: product.id,
        name: product.name.clone(),
        family: Some(product.family.clone()),
        description: Some(product.description.clone()),
        prices: product.prices.iter().filter(|price| price.currency == currency).map(price).collect(),
        config_options: product.config_options.iter().map(option).collect(),
        stock: product.stock,
    }
}

fn spell(kind: OptionKind) -> &'static str {
    match kind {
        OptionKind::Select => "select",
        OptionKind::Quantity => "quantity",
        OptionKind::Text => "text",
    }
}

/// What the chosen options add to each cycle of one service; or what is wrong with them.
pub fn price_options(
    options: &[ConfigOption],
    chosen: &BTreeMap<String, Value>,
    currency: &str,
) -> Result<Minor, Vec<FieldError>> {
    let mut errors = Vec::new();
    let mut sum = Minor::ZERO;
    for option in options {
        match chosen.get(&option.name) {
            None if option.required => errors.push(wrong(&option.name, "required", "This option must be chosen.")),
            None => {}
            Some(value) => match price_option(option, value, currency) {
                Ok(price) => match sum.plus(price) {
                    Some(next) => sum = next,
                    None => errors.push(wrong(&option.name, "too_expensive", "The price is out of range.")),
                },
                Err((code, message)) => errors.push(wrong(&option.name, code, message)),
            },
        }
    }
    let is_known = |name: &str| options.iter().any(|option| option.name == name);
    let unknown = chosen.keys().filter(|name| !is_known(name));
    errors.extend(unknown.map(|name| wrong(name, "unknown", "The product has no such option.")));
    if errors.is_empty() { Ok(sum) } else { Err(errors) }
}

fn wrong(name: &str, code: &str, message: &str) -> FieldError {
    let name: String = name.chars().take(64).collect();
    field(format!("config_options.{name}"), code, message)
}

fn price_option(option: &ConfigOption, value: &Value, currency: &str) -> Result<Minor, (&'static str, &'static str)> {
    let (choice, units) = match (option.kind, value) {
        (OptionKind::Select, Value::String(value)) => {
            let choice = option.choices.iter().find(|choice| choice.value == *value);
            (Some(choice.ok_or(("invalid_choice", "The value is not one of the choices."))?), 1)
        }
        (OptionKind::Quantity, Value::Number(number)) => {
            let units = number.as_u64().and_then(|units| u32::try_from(units).ok()).filter(|units| *units <= UNITS_MAX);
            (option.choices.first(), units.ok_or(("out_of_range", "A whole number from 0 to 1000 is expected."))?)
        }
        (OptionKind::Text, Value::String(text)) if is_text(text, TEXT_MAX) => (None, 1),
        (OptionKind::Text, Value::String(_)) => {
            return Err(("invalid_text", "At most 255 characters, none of them a control character, are expected."));
        }
        (OptionKind::Select | OptionKind::Text, _) => return Err(("wrong_type", "A string is expected.")),
        (OptionKind::Quantity, _) => return Err(("wrong_type", "A number is expected.")),
    };
    let Some(choice) = choice.filter(|choice| units > 0 && !choice.prices.is_empty()) else { return Ok(Minor::ZERO) };
    let price = choice.prices.get(currency).ok_or(("no_price", "There is no price in the account's currency."))?;
    price.times(units).ok_or(("too_expensive", "The price is out of range."))
}

/// Text of at most so many characters, none of them a control character.
pub(super) fn is_text(text: &str, chars_max: usize) -> bool {
    text.chars().take(chars_max + 1).count() <= chars_max && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn product() -> books::Product {
        let options = json!([
            {"name": "ram", "type": "select", "required": true, "choices": [
                {"value": "4", "label": "4 GB"},
                {"value": "8", "label": "8 GB", "prices": {"EUR": "2.00", "USD": "2.20"}},
                {"value": "huge", "prices": {"EUR": "900719925474.07"}},
            ]},
            {"name": "ips", "type": "quantity", "choices": [{"value": "unit", "prices": {"EUR": "1.00"}}]},
            {"name": "motd", "type": "text"},
        ]);
        let price = |currency: &str, price| books::Price {
            currency: currency.to_owned(),
            cycle: "monthly".to_owned(),
            price: Minor(price),
            setup_fee: Minor::ZERO,
        };
        books::Product {
            id: 42,
            name: "KVM S".to_owned(),
            family: "kvm".to_owned(),
            description: String::new(),
            prices: vec![price("EUR", 990), price("USD", 1090)],
            config_options: serde_json::from_value(options).unwrap(),
            stock: None,
        }
    }

    fn price(chosen: Value, currency: &str) -> Result<Minor, Vec<(String, String)>> {
        let chosen: BTreeMap<String, Value> = serde_json::from_value(chosen).unwrap();
        price_options(&product().config_options, &chosen, currency)
            .map_err(|errors| errors.into_iter().map(|error| (error.field, error.code)).collect())
    }

    #[test]
    fn chosen_options_add_their_prices() {
        for (chosen, currency, minor) in [
            (json!({"ram": "4"}), "EUR", 0),
            (json!({"ram": "8"}), "EUR", 200),
            (json!({"ram": "8"}), "USD", 220),
            (json!({"ram": "8", "ips": 3, "motd": "hello, wörld"}), "EUR", 500),
            (json!({"ram": "4", "ips": 1000}), "EUR", 100_000),
            (json!({"ram": "4", "ips": 0}), "USD", 0),
        ] {
            assert_eq!(price(chosen.clone(), currency), Ok(Minor(minor)), "{chosen} {currency}");
        }
    }

    #[test]
    fn whatever_the_product_does_not_offer_is_refused_by_name() {
        for (chosen, currency, field, code) in [
            (json!({}), "EUR", "ram", "required"),
            (json!({"ram": "16"}), "EUR", "ram", "invalid_choice"),
            (json!({"ram": 8}), "EUR", "ram", "wrong_type"),
            (json!({"ram": null}), "EUR", "ram", "wrong_type"),
            (json!({"ram": "huge"}), "USD", "ram", "no_price"),
            (json!({"ram": "4", "ips": 1}), "USD", "ips", "no_price"),
            (json!({"ram": "4", "ips": 1001}), "EUR", "ips", "out_of_range"),
            (json!({"ram": "4", "ips": -1}), "EUR", "ips", "out_of_range"),
            (json!({"ram": "4", "ips": 1.5}), "EUR", "ips", "out_of_range"),
            (json!({"ram": "4", "ips": "1"}), "EUR", "ips", "wrong_type"),
            (json!({"ram": "4", "motd": "a\nb"}), "EUR", "motd", "invalid_text"),
            (json!({"ram": "4", "motd": "x".repeat(256)}), "EUR", "motd", "invalid_text"),
            (json!({"ram": "4", "motd": {"deep": []}}), "EUR", "motd", "wrong_type"),
            (json!({"ram": "4", "cpu": "1"}), "EUR", "cpu", "unknown"),
        ] {
            let expected = vec![(format!("config_options.{field}"), code.to_owned())];
            assert_eq!(price(chosen.clone(), currency), Err(expected), "{chosen} {currency}");
        }
    }

    #[test]
    fn prices_out_of_range_are_refused() {
        let huge = |name: &str| ConfigOption {
            name: name.to_owned(),
            kind: OptionKind::Quantity,
            required: false,
            choices: vec![books::Choice {
                value: "unit".to_owned(),
                label: None,
                prices: BTreeMap::from([("EUR".to_owned(), Minor(i64::MAX))]),
            }],
        };
        let chosen = |value: Value| serde_json::from_value::<BTreeMap<String, Value>>(value).unwrap();
        assert!(price_options(&[huge("a")], &chosen(json!({"a": 2})), "EUR").is_err());
        assert!(price_options(&[huge("a"), huge("b")], &chosen(json!({"a": 1, "b": 1})), "EUR").is_err());
        assert_eq!(price_options(&[huge("a")], &chosen(json!({"a": 1})), "EUR").ok(), Some(Minor(i64::MAX)));
    }

    #[test]
    fn a_reseller_sees_the_prices_of_its_currency_only() {
        let shown = serde_json::to_value(show(&product(), "USD")).unwrap();
        assert_eq!(shown["prices"][0]["price"], json!({"amount": "10.90", "currency": "USD"}));
        assert_eq!(shown["config_options"][0]["choices"][1]["price"], json!({"amount": "2.20", "currency": "USD"}));
        assert!(!shown.to_string().contains("EUR"));
    }
}
