//! What a panel sends, parsed into types before anything else looks at it.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use hyper::{HeaderMap, body::Incoming};
use secrecy::SecretString;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};

use super::answer::Refusal;
use crate::listen::{BodyError, read_body};
use crate::operations::{Change, Power};
use crate::plugin::contract::ProblemKind;

/// The largest body.
pub(super) const BODY_BYTES: usize = 64 * 1024;
/// Of the panel's own names for its services.
const KEY_MAX: usize = 128;
/// Of an `Idempotency-Key`.
const IDEMPOTENCY_KEY_MAX: usize = 255;
/// Of any one text in a body, in bytes.
const TEXT_MAX: usize = 10 * 1024;
/// How long a panel may wait, in seconds, and how long it does unless it says.
const WAIT_MAX: u64 = 110;
const WAIT: u64 = 25;

pub(super) async fn bytes(body: Incoming) -> Result<Vec<u8>, Refusal> {
    read_body(body, BODY_BYTES).await.map_err(|error| match error {
        BodyError::TooLarge => {
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, ProblemKind::Invalid, "the body is larger than 64 KiB")
        }
        BodyError::Timeout => Refusal::new(StatusCode::REQUEST_TIMEOUT, ProblemKind::Invalid, "the body did not come in time"),
        BodyError::Broken => Refusal::malformed("the body cannot be read"),
    })
}

/// A body of JSON; none counts as an empty object.
pub(super) async fn json<T: DeserializeOwned>(headers: &HeaderMap, body: Incoming) -> Result<T, Refusal> {
    let bytes = bytes(body).await?;
    if bytes.is_empty() {
        return parse(b"{}");
    }
    refuse_unless(headers, "application/json")?;
    parse(&bytes)
}

/// The fields of a form. A name that comes twice could be read in two ways, and is refused.
pub(super) async fn form(headers: &HeaderMap, body: Incoming) -> Result<BTreeMap<String, String>, Refusal> {
    let bytes = bytes(body).await?;
    refuse_unless(headers, "application/x-www-form-urlencoded")?;
    let mut fields = BTreeMap::new();
    for (name, value) in url::form_urlencoded::parse(&bytes) {
        if fields.insert(name.into_owned(), value.into_owned()).is_some() {
            return Err(Refusal::malformed("a field of the form comes twice"));
        }
    }
    Ok(fields)
}

fn refuse_unless(headers: &HeaderMap, wanted: &str) -> Result<(), Refusal> {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case(wanted) {
        return Ok(());
    }
    let message = format!("the body has to be {wanted}");
    Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, ProblemKind::Invalid, message))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    // serde would read an array's values as the fields in their order.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(Refusal::malformed("the body has to be an object".to_owned()));
    }
    // The parser's words name fields, places and types, never a value of the body: it may hold a password.
    serde_json::from_slice(bytes).map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Data => without_values(&error.to_string()),
            _ => "this is no JSON".to_owned(),
        };
        Refusal::malformed(format!("the body at line {} column {}: {what}", error.line(), error.column()))
    })
}

/// `invalid type: string "MARKED", expected ..` repeats what was sent.
fn without_values(message: &str) -> String {
    let message = message.rsplit_once(" at line ").map_or(message, |(what, _)| what);
    match message.rsplit_once(", expected ") {
        Some((_, expected)) if message.starts_with("invalid ") => format!("expected {expected}"),
        _ if message.starts_with("unknown field")
            || message.starts_with("missing field")
            || message.starts_with("duplicate field") =>
        {
            message.to_owned()
        }
        _ => "a value is not of the kind that is asked for".to_owned(),
    }
}

/// A password in a body.
#[derive(Default)]
struct Secret(Option<SecretString>);

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        Ok(Self(text.filter(|text| !text.is_empty()).map(SecretString::from)))
    }
}

/// Options by name. Panels send numbers and truth values as such, and PHP sends an empty object as `[]`.
#[derive(Default)]
pub(super) struct Texts(pub(super) BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextsVisitor)
    }
}

struct TextsVisitor;

impl<'de> Visitor<'de> for TextsVisitor {
    type Value = Texts;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an object of texts, numbers and truth values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts, A::Error> {
        let mut texts = BTreeMap::new();
        while let Some((name, value)) = map.next_entry::<String, serde_json::Value>()? {
            let value = match value {
                serde_json::Value::Null => continue,
                serde_json::Value::String(text) => text,
                serde_json::Value::Number(number) => number.to_string(),
                serde_json::Value::Bool(is_true) => is_true.to_string(),
                _ => return Err(de::Error::custom("an option is a text, a number or a truth value")),
            };
            texts.insert(name, value);
        }
        Ok(Texts(texts))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Texts, A::Error> {
        if list.next_element::<de::IgnoredAny>()?.is_some() {
            return Err(de::Error::custom("options have names"));
        }
        Ok(Texts::default())
    }

    fn visit_unit<E: de::Error>(self) -> Result<Texts, E> {
        Ok(Texts::default())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    profile: String,
    plan: String,
    term: Option<String>,
    domain: Option<String>,
    email: Option<String>,
    #[serde(default)]
    password: Secret,
    note: Option<String>,
    #[serde(default)]
    options: Texts,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Adopt {
    profile: String,
    remote_id: Option<String>,
    domain: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Suspend {
    profile: Option<String>,
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain {
    profile: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Renew {
    profile: Option<String>,
    due_at: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResetPassword {
    profile: Option<String>,
    #[serde(default)]
    password: Secret,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangePackage {
    profile: Option<String>,
    plan: String,
    #[serde(default)]
    options: Texts,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Switch {
    profile: Option<String>,
    action: Power,
}

/// A change as it was sent: the profile it names, and its password.
pub(super) struct Sent {
    pub(super) profile: Option<String>,
    pub(super) change: Change,
    pub(super) password: Option<SecretString>,
}

/// The operations that can be posted to a service.
pub(super) const OPERATIONS: [&str; 9] =
    ["create", "suspend", "unsuspend", "terminate", "renew", "reset-password", "change-package", "power", "adopt"];

/// The body of an operation, one of [`OPERATIONS`].
pub(super) async fn change(operation: &str, headers: &HeaderMap, body: Incoming) -> Result<Sent, Refusal> {
    let sent = |profile, change| Sent { profile, change, password: None };
    let sent = match operation {
        "create" => {
            let Create { profile, plan, term, domain, email, password, note, options } = json(headers, body).await?;
            let change = Change::Create { plan, term, domain, email, note, options: options.0 };
            Sent { profile: Some(profile), change, password: password.0 }
        }
        "adopt" => {
            let Adopt { profile, remote_id, domain } = json(headers, body).await?;
            sent(Some(profile), Change::Adopt { remote_id, domain })
        }
        "suspend" => {
            let Suspend { profile, reason } = json(headers, body).await?;
            sent(profile, suspend(reason))
        }
        "renew" => {
            let Renew { profile, due_at } = json(headers, body).await?;
            sent(profile, Change::Renew { due_at })
        }
        "reset-password" => {
            let ResetPassword { profile, password } = json(headers, body).await?;
            Sent { profile, change: Change::ResetPassword, password: password.0 }
        }
        "change-package" => {
            let ChangePackage { profile, plan, options } = json(headers, body).await?;
            sent(profile, Change::ChangePackage { plan, options: options.0 })
        }
        "power" => {
            let Switch { profile, action } = json(headers, body).await?;
            sent(profile, Change::Power { action })
        }
        "unsuspend" => sent(json::<Plain>(headers, body).await?.profile, Change::Unsuspend),
        "terminate" => sent(json::<Plain>(headers, body).await?.profile, Change::Terminate),
        _ => return Err(Refusal::nothing_here()),
    };
    refuse_long(&sent.change)?;
    Ok(sent)
}

/// Of a reason, in characters.
const REASON_MAX: usize = 500;

/// Panels put people's words into the reason: no length and no line break of theirs is a reason not to suspend.
pub(super) fn suspend(reason: Option<String>) -> Change {
    let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
    Change::Suspend { reason: reason.map(|reason| reason.chars().map(plain).take(REASON_MAX).collect()) }
}

pub(super) fn refuse_long(change: &Change) -> Result<(), Refusal> {
    let (texts, options): (Vec<&Option<String>>, _) = match change {
        Change::Create { term, domain, email, note, options, .. } => (vec![term, domain, email, note], Some(options)),
        Change::Adopt { remote_id, domain } => (vec![remote_id, domain], None),
        Change::ChangePackage { options, .. } => (Vec::new(), Some(options)),
        _ => (Vec::new(), None),
    };
    let options = options.into_iter().flatten().flat_map(|(name, value)| [name, value]);
    if texts.into_iter().flatten().chain(options).any(|text| text.len() > TEXT_MAX) {
        return Err(Refusal::malformed(format!("a text is longer than {TEXT_MAX} bytes")));
    }
    Ok(())
}

/// What a person says of an operation.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resolve {
    pub(super) outcome: Resolved,
    pub(super) remote_id: Option<String>,
    pub(super) note: String,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Resolved {
    Done,
    Failed,
}

/// The panel's name of a service.
pub(super) fn service_key(text: &str) -> Result<String, Refusal> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    // Of what a key may contain, the colon is what some clients encode in a path.
    let key = text.replace("%3A", ":").replace("%3a", ":");
    if (1..=KEY_MAX).contains(&key.len()) && key.bytes().all(is_plain) {
        return Ok(key);
    }
    Err(Refusal::malformed("a service's key is 1 to 128 of A-Z a-z 0-9 . _ : -").field("key"))
}

pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let mut given = headers.get_all("idempotency-key").iter();
    let (Some(value), None) = (given.next(), given.next()) else {
        return if headers.contains_key("idempotency-key") { Err(bad_key()) } else { Ok(None) };
    };
    let text = value.to_str().map_err(|_| bad_key())?;
    let is_fine = (1..=IDEMPOTENCY_KEY_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_fine { Ok(Some(text.to_owned())) } else { Err(bad_key()) }
}

fn bad_key() -> Refusal {
    Refusal::malformed("an Idempotency-Key is one of 1 to 255 visible characters").field("idempotency-key")
}

/// How long to wait: `Prefer: wait=N` (RFC 7240), in seconds. A preference that is not understood is none.
pub(super) fn wait(headers: &HeaderMap) -> Duration {
    seconds(preferred_wait(headers).unwrap_or(WAIT))
}

/// The same for panels that cannot ask later how it came out: `?wait=N` in the address they were given, the header, or as long as
/// can be.
pub(super) fn long_wait(headers: &HeaderMap, in_address: Option<&str>) -> Duration {
    seconds(in_address.and_then(|text| text.parse().ok()).or(preferred_wait(headers)).unwrap_or(WAIT_MAX))
}

fn seconds(wait: u64) -> Duration {
    Duration::from_secs(wait.min(WAIT_MAX))
}

fn preferred_wait(headers: &HeaderMap) -> Option<u64> {
    let mut preferences =
        headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok()).flat_map(|list| list.split([',', ';']));
    preferences.find_map(|text| text.trim().strip_prefix("wait=")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_malformed_is_told_without_its_values() {
        for (body, told) in [
            (r#"{"profile":"p","plan":"1","password":["MARKED"]}"#, "expected a string"),
            (r#"{"profile":"p","plan":"1","options":{"a":{"MARKED":1}}}"#, "a value is not of the kind"),
            (r#"{"profile":"p","plan":"1","options":["MARKED"]}"#, "a value is not of the kind"),
            (r#"{"profile":"p","plan":"1","pasword":"MARKED"}"#, "unknown field `pasword`"),
            (r#"{"profile":"p"}"#, "missing field `plan`"),
            (r#"{"profile":"p","plan":"MARKED"#, "no JSON"),
            ("\"MARKED\"", "expected struct Create"),
            (r#" ["p","1"]"#, "an object"),
            ("\"x, expected MARKED at line 1\"", "expected struct Create"),
        ] {
            let Err(refusal) = parse::<Create>(body.as_bytes()) else { panic!("{body}") };
            assert!(refusal.problem.message.contains(told), "{body}: {}", refusal.problem.message);
            assert!(!refusal.problem.message.contains("MARKED"), "{body}: {}", refusal.problem.message);
        }
    }

    #[test]
    fn options_come_as_panels_send_them() {
        let options = |text: &str| {
            parse::<Create>(format!(r#"{{"profile":"p","plan":"1","options":{text}}}"#).as_bytes()).map(|sent| sent.options.0)
        };
        let Ok(found) = options(r#"{"a":"x","b":4,"c":true,"d":null}"#) else { panic!() };
        assert_eq!(
            found.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
            ["a=x", "b=4", "c=true"]
        );
        for empty in ["[]", "{}", "null"] {
            assert!(options(empty).is_ok_and(|found| found.is_empty()), "{empty}");
        }
    }

    #[test]
    fn keys_and_waits() {
        assert!(service_key("service-1234").is_ok() && service_key(&"a".repeat(128)).is_ok());
        assert_eq!(service_key("a%3Ab%3a").unwrap_or_default(), "a:b:");
        for bad in ["", "a/b", "a b", "ä", "a%2Fb", &"a".repeat(129)] {
            assert!(service_key(bad).is_err(), "{bad}");
        }
        let prefer = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("prefer", text.parse().unwrap());
            wait(&headers).as_secs()
        };
        assert_eq!([prefer("wait=3"), prefer("respond-async, wait=0"), prefer("wait=9999"), prefer("wait=x")], [3, 0, 110, 25]);
        assert_eq!(wait(&HeaderMap::new()).as_secs(), 25);
        let long = |in_address| long_wait(&HeaderMap::new(), in_address).as_secs();
        assert_eq!([long(None), long(Some("3")), long(Some("9999")), long(Some("x"))], [110, 3, 110, 110]);
    }
}
