//! Names and bodies on the wire. What Part 2 of the specification chose stands here once, for both ends.
//!
//! Reading is liberal: unknown members are ignored, and whatever the client can do without is optional, where a value of another
//! type counts as absent. Requests are the exception: the server refuses unknown members, since a misspelled one would be an order
//! for something else.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::money::Minor;

/// Headers of a signed request (spec 3).
pub mod header {
    /// The key's public id.
    pub const KEY: &str = "KH-Key";
    /// Unix seconds, 10 digits.
    pub const TIMESTAMP: &str = "KH-Timestamp";
    /// 22 to 44 base64url characters, single use.
    pub const NONCE: &str = "KH-Nonce";
    /// 64 hex digits.
    pub const SIGNATURE: &str = "KH-Signature";
    /// 1 to 80 of `A-Z a-z 0-9 _ . -`.
    pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
    /// On every answer.
    pub const REQUEST_ID: &str = "X-Request-Id";
    /// On an answer that was given before (our choice, 2.5).
    pub const REPLAYED: &str = "Idempotent-Replayed";
    /// Tokens left.
    pub const REMAINING: &str = "X-RateLimit-Remaining";
    /// When the bucket is full again; Unix seconds (our choice, 2.10).
    pub const RESET: &str = "X-RateLimit-Reset";
    /// A webhook's signature (our choice, 2.13).
    pub const WEBHOOK_SIGNATURE: &str = "KH-Webhook-Signature";
}

/// How far a timestamp may be off, in seconds, inclusive (spec 5).
pub const WINDOW_S: i64 = 300;
/// How long a nonce is remembered at least after receipt, in seconds (spec 5).
pub const NONCE_S: i64 = 600;
/// How long an idempotency record and an unpaid order live, in seconds (spec 8, 10).
pub const DAY_S: i64 = 86_400;
/// Where the `type` of a problem points (spec 12).
pub const PROBLEM_TYPE: &str = "https://www.kernelhost.com/en/reseller-api/errors/";
/// A problem's content type.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// What a key id begins with (spec 2).
pub const LIVE_KEY: &str = "kh_live_";
/// What it begins with on a sandbox book (our choice, 2.17).
pub const TEST_KEY: &str = "kh_test_";

/// One of the two beginnings, then 32 of `A-Z0-9`.
pub fn is_key_id(text: &str) -> bool {
    text.strip_prefix(LIVE_KEY)
        .or_else(|| text.strip_prefix(TEST_KEY))
        .is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()))
}

/// Ten digits.
pub fn is_timestamp(text: &str) -> bool {
    text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// 22 to 44 base64url characters.
pub fn is_nonce(text: &str) -> bool {
    (22..=44).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// 64 hex digits in either case.
pub fn is_signature(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// 1 to 80 of `A-Z a-z 0-9 _ . -`.
pub fn is_idempotency_key(text: &str) -> bool {
    (1..=80).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// An amount: a decimal string with its currency (our choice, 2.6). A JSON number is read too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Exact.
    #[serde(deserialize_with = "read_minor")]
    pub amount: Minor,
    /// ISO 4217; empty where the provider does not say.
    #[serde(default, deserialize_with = "lenient")]
    pub currency: String,
}

fn read_minor<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Minor, D::Error> {
    let text = match Value::deserialize(deserializer)? {
        Value::String(text) => text,
        // The shortest decimal form of a number with two decimals is that number.
        Value::Number(number) => number.to_string(),
        _ => return Err(serde::de::Error::custom("an amount is a decimal string or a number")),
    };
    text.parse().map_err(serde::de::Error::custom)
}

/// What is not needed: any value that does not fit, `null` too, is the default.
fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).unwrap_or_default())
}

/// A list that is needed as a whole: `null` is an empty one, a wrong item is an error.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// An id: an integer (our choice, 2.8), also as the decimal text that older panels write.
fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    as_id(&Value::deserialize(deserializer)?).ok_or_else(|| serde::de::Error::custom("an id is an integer"))
}

fn optional_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Ok(as_id(&Value::deserialize(deserializer)?))
}

/// A positive integer, or its decimal text.
pub fn as_id(value: &Value) -> Option<i64> {
    let id = value.as_i64().or_else(|| value.as_str()?.parse().ok())?;
    (id > 0).then_some(id)
}

/// `GET /v1/health`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Health {
    /// `ok`.
    #[serde(default, deserialize_with = "lenient")]
    pub status: String,
    /// The server's clock.
    #[serde(default, deserialize_with = "lenient")]
    pub time: Option<String>,
    /// The server's version.
    #[serde(default, deserialize_with = "lenient")]
    pub version: Option<String>,
}

/// `GET /v1/me`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Me {
    /// Whose key it is.
    #[serde(default, deserialize_with = "lenient")]
    pub account: MeAccount,
    /// What the key may do.
    #[serde(default, deserialize_with = "lenient")]
    pub key: MeKey,
    /// Actions beyond the documented ones (our choice, 2.19).
    #[serde(default, deserialize_with = "lenient")]
    pub extensions: Vec<String>,
}

/// The account in [`Me`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct MeAccount {
    /// The account's id, a number or a text.
    #[serde(default, deserialize_with = "lenient")]
    pub id: Value,
    /// Where mail goes.
    #[serde(default, deserialize_with = "lenient")]
    pub email: Option<String>,
    /// The owner's name.
    #[serde(default, deserialize_with = "lenient")]
    pub name: Option<String>,
    /// ISO 4217.
    #[serde(default, deserialize_with = "lenient")]
    pub currency: Option<String>,
}

/// The key in [`Me`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct MeKey {
    /// The public id.
    #[serde(default, deserialize_with = "lenient")]
    pub id: Option<String>,
    /// The owner's name for it.
    #[serde(default, deserialize_with = "lenient")]
    pub label: Option<String>,
    /// What it may do.
    #[serde(default, deserialize_with = "lenient")]
    pub scopes: Vec<String>,
    /// Where it may be used from, in CIDR notation.
    #[serde(default, deserialize_with = "lenient")]
    pub ip_allowlist: Vec<String>,
    /// Since when.
    #[serde(default, deserialize_with = "lenient")]
    pub created_at: Option<String>,
    /// When it was last used.
    #[serde(default, deserialize_with = "lenient")]
    pub last_used_at: Option<String>,
    /// How often it may be used.
    #[serde(default, deserialize_with = "lenient")]
    pub rate_limit: Option<RateLimit>,
}

/// The limits of a key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RateLimit {
    /// Tokens that come back per minute.
    pub per_minute: u32,
    /// How many may be spent at once.
    pub burst: u32,
    /// Requests per UTC day.
    pub per_day: u32,
}

/// A list that is not paginated.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct All<T> {
    /// Everything.
    pub data: Vec<T>,
}

/// One page of a list (our choice, 2.9).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Page<T> {
    /// The page's part.
    pub data: Vec<T>,
    /// Where it stands in the whole.
    #[serde(default, deserialize_with = "lenient")]
    pub meta: PageMeta,
}

/// Where a page stands.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PageMeta {
    /// From 1.
    #[serde(default, deserialize_with = "lenient")]
    pub page: u64,
    /// 1 to 100, 25 unless asked otherwise.
    #[serde(default, deserialize_with = "lenient")]
    pub per_page: u32,
    /// Of all pages.
    #[serde(default, deserialize_with = "lenient")]
    pub total: u64,
    /// At least 1.
    #[serde(default, deserialize_with = "lenient")]
    pub total_pages: u64,
}

/// A product.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Product {
    /// What orders name.
    #[serde(deserialize_with = "id")]
    pub id: i64,
    /// For people.
    pub name: String,
    /// `kvm`, `dedicated`, `webspace`, `minecraft`, `vpn` or `traffic`.
    #[serde(default, deserialize_with = "lenient")]
    pub family: Option<String>,
    /// For people.
    #[serde(default, deserialize_with = "lenient")]
    pub description: Option<String>,
    /// By billing cycle, in the reseller's currency.
    #[serde(default, deserialize_with = "list")]
    pub prices: Vec<ProductPrice>,
    /// What may or must be chosen.
    #[serde(default, deserialize_with = "list")]
    pub config_options: Vec<ConfigOption>,
    /// How many are left; none for no limit.
    #[serde(default, deserialize_with = "lenient")]
    pub stock: Option<u32>,
}

/// What a product costs for one cycle.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProductPrice {
    /// Such as `monthly`.
    pub billing_cycle: String,
    /// Per cycle.
    pub price: Amount,
    /// Once.
    #[serde(default, deserialize_with = "lenient")]
    pub setup_fee: Option<Amount>,
}

/// Something to choose.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConfigOption {
    /// The member's name in `config_options` of an order.
    pub name: String,
    /// `select`, `quantity` or `text`.
    #[serde(rename = "type", default, deserialize_with = "lenient")]
    pub kind: String,
    /// Whether an order must name it.
    #[serde(default, deserialize_with = "lenient")]
    pub required: bool,
    /// For `select`.
    #[serde(default, deserialize_with = "list")]
    pub choices: Vec<ConfigChoice>,
}

/// A choice.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConfigChoice {
    /// The value to send.
    pub value: String,
    /// For people.
    #[serde(default, deserialize_with = "lenient")]
    pub label: Option<String>,
    /// What it adds per cycle.
    #[serde(default, deserialize_with = "lenient")]
    pub price: Option<Amount>,
}

/// `POST /v1/orders`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderRequest {
    /// The product's id.
    pub product_id: i64,
    /// Such as `monthly`.
    pub billing_cycle: String,
    /// 1 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantity: Option<u32>,
    /// Choices by option name; numbers for `quantity` options.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "options_once")]
    pub config_options: BTreeMap<String, Value>,
    /// The wished host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// A remark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Options by name. One that is given twice could mean two prices.
fn options_once<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Value>, D::Error> {
    struct Options;

    impl<'de> Visitor<'de> for Options {
        type Value = BTreeMap<String, Value>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut options = BTreeMap::new();
            while let Some((name, value)) = map.next_entry::<String, Value>()? {
                if options.contains_key(&name) {
                    return Err(A::Error::custom(format_args!("duplicate field `config_options.{name}`")));
                }
                options.insert(name, value);
            }
            Ok(options)
        }
    }

    deserializer.deserialize_map(Options)
}

/// An order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// Its id.
    #[serde(deserialize_with = "id")]
    pub id: i64,
    /// `pending_payment`, `paid`, `provisioning`, `completed` or `cancelled`.
    pub status: String,
    /// The product's id.
    #[serde(default, deserialize_with = "optional_id")]
    pub product_id: Option<i64>,
    /// Such as `monthly`.
    #[serde(default, deserialize_with = "lenient")]
    pub billing_cycle: Option<String>,
    /// What was due at once.
    #[serde(default, deserialize_with = "lenient")]
    pub total: Option<Amount>,
    /// The service made from it, once it is.
    #[serde(default, deserialize_with = "optional_id")]
    pub service_id: Option<i64>,
    /// What bills it.
    #[serde(default, deserialize_with = "optional_id")]
    pub invoice_id: Option<i64>,
    /// When it was placed.
    #[serde(default, deserialize_with = "lenient")]
    pub created_at: Option<String>,
    /// When it is cancelled unless paid.
    #[serde(default, deserialize_with = "lenient")]
    pub expires_at: Option<String>,
    /// When it was paid.
    #[serde(default, deserialize_with = "lenient")]
    pub paid_at: Option<String>,
}

/// A service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Service {
    /// Its id.
    #[serde(deserialize_with = "id")]
    pub id: i64,
    /// The order it was made from.
    #[serde(default, deserialize_with = "optional_id")]
    pub order_id: Option<i64>,
    /// The product's id.
    #[serde(default, deserialize_with = "optional_id")]
    pub product_id: Option<i64>,
    /// `provisioning`, `active`, `suspended`, `terminated` or `failed`.
    pub status: String,
    /// `running`, `stopped` or none.
    #[serde(default, deserialize_with = "lenient")]
    pub power: Option<String>,
    /// Its host name.
    #[serde(default, deserialize_with = "lenient")]
    pub hostname: Option<String>,
    /// Its addresses.
    #[serde(default, deserialize_with = "lenient")]
    pub ip_addresses: Vec<String>,
    /// Such as `monthly`.
    #[serde(default, deserialize_with = "lenient")]
    pub billing_cycle: Option<String>,
    /// Paid until.
    #[serde(default, deserialize_with = "lenient")]
    pub next_due_at: Option<String>,
    /// When it was made.
    #[serde(default, deserialize_with = "lenient")]
    pub created_at: Option<String>,
}

/// `POST /v1/services/{id}/actions`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionRequest {
    /// `start`, `stop`, `reboot`, `reinstall`, `suspend`, `unsuspend`, `terminate`, or an extension: `renew`, `reset_password`.
    pub action: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The system to install, for `reinstall`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The due date being renewed, for `renew`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<String>,
    /// The new password, for `reset_password`. Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// The answer to an action (our choice, 2.8). One that does not say what became of which service is none: nobody may take it for
/// an acceptance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Action {
    /// Its id, a number or a text.
    #[serde(default, deserialize_with = "lenient")]
    pub id: Value,
    /// The service's id.
    #[serde(deserialize_with = "id")]
    pub service_id: i64,
    /// As it was asked.
    #[serde(default, deserialize_with = "lenient")]
    pub action: Option<String>,
    /// What became of it.
    pub status: ActionStatus,
    /// The service afterwards.
    #[serde(default, deserialize_with = "lenient")]
    pub service: Option<Service>,
}

/// What became of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum ActionStatus {
    /// It will be done.
    Accepted,
    /// It is done.
    Completed,
}

impl TryFrom<String> for ActionStatus {
    type Error = &'static str;

    /// In any case, between any blanks.
    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.trim().to_ascii_lowercase().as_str() {
            "accepted" => Ok(Self::Accepted),
            "completed" => Ok(Self::Completed),
            _ => Err("an action is accepted or completed"),
        }
    }
}

/// `GET /v1/services/{id}/credentials`. Secret.
#[derive(Clone, Serialize, Deserialize)]
pub struct Credentials {
    /// The service's id.
    #[serde(default, deserialize_with = "optional_id")]
    pub service_id: Option<i64>,
    /// The user.
    #[serde(default, deserialize_with = "lenient")]
    pub username: Option<String>,
    /// The password.
    #[serde(default, deserialize_with = "lenient")]
    pub password: Option<String>,
    /// The port.
    #[serde(default, deserialize_with = "lenient")]
    pub port: Option<u16>,
    /// Where to log in.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// For people.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// `GET /v1/billing/balance`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Balance {
    /// The credit left.
    pub balance: Amount,
    /// Whether a card can be charged.
    #[serde(default, deserialize_with = "lenient")]
    pub card_on_file: bool,
}

/// An invoice.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Invoice {
    /// Its id.
    #[serde(deserialize_with = "id")]
    pub id: i64,
    /// For people.
    #[serde(default, deserialize_with = "lenient")]
    pub number: Option<String>,
    /// `unpaid`, `paid` or `cancelled`.
    pub status: String,
    /// What it bills.
    pub total: Amount,
    /// The order it bills.
    #[serde(default, deserialize_with = "optional_id")]
    pub order_id: Option<i64>,
    /// When.
    #[serde(default, deserialize_with = "lenient")]
    pub issued_at: Option<String>,
    /// Payable until.
    #[serde(default, deserialize_with = "lenient")]
    pub due_at: Option<String>,
    /// When it was paid.
    #[serde(default, deserialize_with = "lenient")]
    pub paid_at: Option<String>,
}

/// `GET /v1/webhooks`, and the answer to its PUT. The secret is a secret.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Webhook {
    /// Where events are sent; none while it is unset.
    #[serde(default, deserialize_with = "lenient")]
    pub url: Option<String>,
    /// The types it listens to.
    #[serde(default, deserialize_with = "lenient")]
    pub events: Vec<String>,
    /// The secret's end, `whsec_..` and four characters.
    #[serde(default, deserialize_with = "lenient")]
    pub secret_hint: Option<String>,
    /// The last attempt.
    #[serde(default, deserialize_with = "lenient")]
    pub last_delivery: Option<LastDelivery>,
    /// Since when nothing is sent, because too much failed.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub disabled_at: Option<String>,
    /// Shown once: when a URL is newly set, and when a new secret was asked for.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// The last attempt at telling a webhook something.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LastDelivery {
    /// The event's id.
    #[serde(default, deserialize_with = "lenient")]
    pub event_id: String,
    /// Its type.
    #[serde(rename = "type", default, deserialize_with = "lenient")]
    pub kind: String,
    /// `delivered`, or `failed` for an attempt that may be followed by others.
    #[serde(default, deserialize_with = "lenient")]
    pub status: String,
    /// The receiver's answer; none if there was none.
    #[serde(default, deserialize_with = "lenient")]
    pub response_status: Option<u16>,
    /// How often it was tried so far.
    #[serde(default, deserialize_with = "lenient")]
    pub attempts: u32,
    /// When it was tried last.
    #[serde(default, deserialize_with = "lenient")]
    pub attempted_at: Option<String>,
}

/// `PUT /v1/webhooks`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookRequest {
    /// Where events go; `null` unsets it. Required: a missing one must not unset anything.
    #[serde(deserialize_with = "Option::deserialize")]
    pub url: Option<String>,
    /// The types to listen to; all unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<String>>,
    /// Whether to make a new secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate_secret: Option<bool>,
}

/// An error (spec 12; RFC 9457 members).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Problem {
    /// [`PROBLEM_TYPE`] and the code.
    #[serde(rename = "type", default, deserialize_with = "lenient")]
    pub kind: String,
    /// For people.
    #[serde(default, deserialize_with = "lenient")]
    pub title: String,
    /// As in the status line.
    #[serde(default, deserialize_with = "lenient")]
    pub status: u16,
    /// For people.
    #[serde(default, deserialize_with = "lenient")]
    pub detail: String,
    /// As in the header.
    #[serde(default, deserialize_with = "lenient")]
    pub request_id: String,
    /// The exact cause, for programs.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Per field, for `validation_failed`.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// The order that waits for its payment (our choice, 2.8).
    #[serde(default, deserialize_with = "optional_id", skip_serializing_if = "Option::is_none")]
    pub order_id: Option<i64>,
}

impl Problem {
    /// The code: the last part of the type.
    pub fn code(&self) -> &str {
        self.kind.rsplit('/').next().unwrap_or_default()
    }
}

/// What is wrong with one field.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FieldError {
    /// The member's or header's name.
    #[serde(default, deserialize_with = "lenient")]
    pub field: String,
    /// For programs.
    #[serde(default, deserialize_with = "lenient")]
    pub code: String,
    /// For people.
    #[serde(default, deserialize_with = "lenient")]
    pub message: String,
}
