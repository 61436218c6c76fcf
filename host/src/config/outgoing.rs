//! What leaves this machine in resellers' name: webhooks and mail.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Time;
use lettre::Address;
use lettre::message::Mailbox;
use provisor_providers::target::{AllowedTarget, TargetRules};
use serde::{Deserialize, Serialize};

use super::BaseUrl;
use super::error::Refusal;
use super::secret::{SecretRef, Value};
use super::values::is_host;

/// Where the server may send webhooks.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Webhooks {
    pub allow_targets: AllowTargets,
    pub ports: Vec<u16>,
}

impl Default for Webhooks {
    fn default() -> Self {
        Self { allow_targets: AllowTargets(Vec::new()), ports: vec![443] }
    }
}

impl Webhooks {
    /// As the provider's servers and the courier go by them.
    pub(super) fn rules(&self) -> TargetRules {
        TargetRules { allowed: self.allow_targets.0.clone(), ports: self.ports.clone() }
    }
}

/// How a panel is told that a change has ended.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Callback {
    pub kind: CallbackKind,
    pub url: BaseUrl,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identifier: Option<Value>,
    pub secret: SecretRef,
}

/// Whose words a call-back uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CallbackKind {
    /// A signed POST of JSON.
    Signed,
    /// WHMCS's API.
    Whmcs,
    /// The admin API of `FOSSBilling`.
    FossBilling,
}

impl Callback {
    pub(super) fn references_mut(&mut self) -> impl Iterator<Item = &mut SecretRef> {
        std::iter::once(&mut self.secret).chain(self.identifier.as_mut().and_then(Value::reference_mut))
    }
}

/// Targets that are allowed in development: a list, or in one text with commas between them, as a variable holds them best.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "toml::Value", into = "Vec<String>")]
pub struct AllowTargets(pub Vec<AllowedTarget>);

impl TryFrom<toml::Value> for AllowTargets {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        let wrong = || "a target is a text such as \"127.0.0.1:9000\"".to_owned();
        let texts = match value {
            toml::Value::String(text) => text.split(',').map(|target| target.trim().to_owned()).collect(),
            toml::Value::Array(list) => list
                .into_iter()
                .map(|target| if let toml::Value::String(text) = target { Ok(text) } else { Err(wrong()) })
                .collect::<Result<Vec<_>, _>>()?,
            _ => return Err(wrong()),
        };
        texts.iter().filter(|text| !text.is_empty()).map(|text| text.parse()).collect::<Result<_, _>>().map(Self)
    }
}

impl From<AllowTargets> for Vec<String> {
    fn from(targets: AllowTargets) -> Self {
        targets.0.iter().map(ToString::to_string).collect()
    }
}

/// Mail to resellers.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Mail {
    pub from: Sender,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smtp: Option<Smtp>,
}

impl Mail {
    pub(super) fn reference_mut(&mut self) -> Option<&mut SecretRef> {
        self.smtp.as_mut()?.password.as_mut()
    }

    pub(super) fn check(&self) -> Result<(), Refusal> {
        let Some(smtp) = &self.smtp else { return Ok(()) };
        let refuse = |key: &str, message: &str| {
            Err(Refusal { key: ["mail", "smtp", key].map(str::to_owned).into(), message: message.to_owned() })
        };
        if !is_host(&smtp.host) {
            return refuse("host", "a mail server's name or address, without user and port");
        }
        match (&smtp.username, &smtp.password) {
            (Some(_), None) => refuse("username", "a user needs a `password` too"),
            (None, Some(_)) => refuse("password", "a password needs a `username` too"),
            (Some(_), Some(_)) if smtp.tls == SmtpTls::None => {
                refuse("tls", "a password is not sent in clear: use \"tls\" or \"starttls\"")
            }
            _ => Ok(()),
        }
    }
}

/// Whom mail comes from, such as `Provisor <provisor@example.com>`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sender(pub Mailbox);

impl Default for Sender {
    fn default() -> Self {
        let address = Address::new_dangerous("provisor", "localhost");
        Self(Mailbox::new(Some("Provisor".to_owned()), address))
    }
}

impl FromStr for Sender {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| "not an address such as `Provisor <provisor@example.com>`".to_owned())
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for Sender {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Sender> for String {
    fn from(sender: Sender) -> Self {
        sender.to_string()
    }
}

/// The operator's daily summary.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Summary {
    #[serde(default)]
    pub at: TimeOfDay,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail: Option<Recipient>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback: Option<String>,
}

/// An address for mail, without a name.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Recipient(pub Address);

impl TryFrom<String> for Recipient {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| "not an address such as `ops@example.com`".to_owned())
    }
}

impl From<Recipient> for String {
    fn from(recipient: Recipient) -> Self {
        recipient.0.to_string()
    }
}

/// A time of the day in UTC, such as `06:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeOfDay(pub Time);

impl Default for TimeOfDay {
    fn default() -> Self {
        Self(Time::constant(6, 0, 0, 0))
    }
}

impl TryFrom<String> for TimeOfDay {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let time = Time::strptime("%H:%M", &text).ok().filter(|_| text.len() == 5);
        time.map(Self).ok_or_else(|| "a time of the day is a text such as \"06:00\", in UTC".to_owned())
    }
}

impl From<TimeOfDay> for String {
    fn from(time: TimeOfDay) -> Self {
        time.0.strftime("%H:%M").to_string()
    }
}

/// A mail server.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Smtp {
    pub host: String,
    #[serde(default = "submissions")]
    pub port: u16,
    #[serde(default)]
    pub tls: SmtpTls,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretRef>,
}

/// The port of submission over TLS (RFC 8314).
fn submissions() -> u16 {
    465
}

/// How the connection to a mail server is kept secret.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpTls {
    /// TLS from the first byte.
    #[default]
    Tls,
    /// TLS after a greeting in clear.
    StartTls,
    /// Not at all.
    None,
}
