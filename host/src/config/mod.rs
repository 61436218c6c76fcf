//! The configuration: one commented TOML file that is the default, then the environment. Unknown keys are refused, and secrets are
//! only ever named, by environment variable or file, and read when they are needed.

mod data;
mod environment;
mod error;
mod outgoing;
mod secret;
mod store;
mod values;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use provisor_providers::server::{BillingRule, InvoiceRule, LockMode, LockRule, Rules};
use provisor_providers::{PROVIDERS, Provider};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

pub use data::{DataError, data_directory, prepare_data};
pub use environment::Environment;
pub use error::Error;
pub use outgoing::{AllowTargets, Callback, CallbackKind, Mail, Recipient, Sender, Smtp, SmtpTls, Summary, TimeOfDay, Webhooks};
pub use secret::{SecretError, SecretRef, Value};
pub use store::{PostgresHost, PostgresUrl, StoreUrl};
pub use values::{BaseUrl, Listen, Mount, Network, Percent};

/// The default configuration, with its comments.
pub const DEFAULT: &str = include_str!("../config.default.toml");

/// A lease on a charge is so many times as long as the gateway may take.
const LEASE_PER_TIMEOUT: u64 = 3;
/// Of each of the days of billing.
const DAYS_MAX: u32 = 3650;
/// Of an attempt at a change, and between comparisons of a service with its provider.
const DEADLINE_MS_MIN: u32 = 1000;
const CHECK_S_MIN: u32 = 60;
/// Of the journal: past the time in which lost answers are settled, panels told, and repeats come.
const KEEP_DAYS: RangeInclusive<u32> = 30..=36_500;
/// Of a card gateway's time.
const TIMEOUT_MS_MIN: u32 = 100;

/// A configuration file larger than this is not one, in bytes.
const FILE_MAX: u64 = 1024 * 1024;

/// Everything an operator can choose. `config.default.toml` says what each setting means.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Config {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Gateway>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<Server>,
    pub webhooks: Webhooks,
    pub mail: Mail,
    pub store: Store,
    pub plugin: Plugin,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub callbacks: BTreeMap<String, Callback>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub profiles: BTreeMap<String, Profile>,
}

impl Config {
    /// Reads a file, then the environment's overrides. Relative secret files come out absolute: they start at the file's folder.
    pub fn load(file: &Path, environment: &Environment) -> Result<Self, Error> {
        let unreadable = |source| Error::Unreadable { file: file.to_owned(), source };
        let size = file.metadata().map_err(unreadable)?.len();
        if size > FILE_MAX {
            return Err(Error::TooLarge { file: file.to_owned(), size });
        }
        let text = std::fs::read_to_string(file).map_err(unreadable)?;
        let mut config = Self::parse(&text, file, environment)?;
        let folder = std::path::absolute(file).map_err(unreadable)?.parent().map(Path::to_owned).unwrap_or_default();
        let profiles = config.profiles.values_mut().flat_map(Profile::references_mut);
        let callbacks = config.callbacks.values_mut().flat_map(Callback::references_mut);
        for reference in profiles.chain(callbacks).chain(config.store.password.as_mut()).chain(config.mail.reference_mut()) {
            reference.anchor(&folder);
        }
        Ok(config)
    }

    /// The default, then the environment's overrides.
    pub fn standard(environment: &Environment) -> Result<Self, Error> {
        Self::parse(DEFAULT, Path::new("config.default.toml"), environment)
    }

    fn parse(text: &str, file: &Path, environment: &Environment) -> Result<Self, Error> {
        let mut table: toml::Table = toml::from_str(text).map_err(|why| error::syntax(&why, text, file))?;
        let overrides = environment::apply(&mut table, environment)?;
        // Read from text again, since only text has the positions that tell which key an error is about.
        let overridden = toml::to_string(&table).unwrap_or_default();
        let effective = if overrides.is_empty() { text } else { &overridden };
        toml::from_str(effective)
            .map_err(|why| error::refusal(&why, effective))
            .and_then(|config| check(&config).map(|()| config))
            .map_err(|refusal| refusal.placed(&overrides, text, file))
    }

    /// The rules that the providers' servers go by.
    pub fn rules(&self) -> Rules {
        let Server { lock, fulfilment, invoices, billing, cards, gp, .. } = self.server.clone().unwrap_or_default();
        let mode = match lock.mode {
            LockScope::Scoped => LockMode::Scoped,
            LockScope::Faithful => LockMode::Faithful,
        };
        Rules {
            lock: LockRule {
                mode,
                failures: lock.failures,
                window_s: i64::from(lock.window_s),
                duration_s: i64::from(lock.duration_s),
            },
            is_fulfilled_by_hand: fulfilment.mode == FulfilmentMode::Manual,
            fulfilment_delay: Duration::from_millis(u64::from(fulfilment.delay_ms)),
            invoices: InvoiceRule { seller: invoices.seller.into(), tax_basis_points: invoices.tax_percent.0 },
            billing: BillingRule {
                invoice_days: billing.invoice_days,
                suspend_days: billing.suspend_days,
                terminate_days: billing.terminate_days,
            },
            charge_lease: Duration::from_millis(LEASE_PER_TIMEOUT * u64::from(cards.timeout_ms)),
            freshness: gp.freshness,
            renew_dedupe: gp.renew_dedupe,
            webhooks: self.webhooks.rules(),
            // In the book.
            fence: None,
        }
    }
}

/// The asking wing.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Gateway {
    pub listen: Listen,
    pub trusted_proxies: Vec<Network>,
    pub journal: Journal,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
}

/// How changes are made.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Journal {
    pub at_once: u16,
    pub at_once_per_profile: u16,
    pub deadline_ms: u32,
    pub retry_for_s: u32,
    pub settle_for_s: u32,
    pub first_pause_ms: u32,
    pub quiet_ms: u32,
    pub check_every_s: u32,
    pub keep_days: u32,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            at_once: 48,
            at_once_per_profile: 40,
            deadline_ms: 60_000,
            retry_for_s: 900,
            settle_for_s: 82_800,
            first_pause_ms: 500,
            quiet_ms: 10_000,
            check_every_s: 21_600,
            keep_days: 400,
        }
    }
}

/// The answering wing.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Server {
    pub listen: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Listen>,
    pub trusted_proxies: Vec<Network>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub mounts: BTreeMap<String, Mount>,
    pub limits: Limits,
    pub lock: Lock,
    pub fulfilment: Fulfilment,
    pub invoices: Invoices,
    pub billing: Billing,
    pub cards: Cards,
    pub gp: Gp,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            metrics: None,
            trusted_proxies: Vec::new(),
            mounts: BTreeMap::new(),
            limits: Limits::default(),
            lock: Lock::default(),
            fulfilment: Fulfilment::default(),
            invoices: Invoices::default(),
            billing: Billing::default(),
            cards: Cards::default(),
            gp: Gp::default(),
        }
    }
}

impl Server {
    /// Each provider, and the prefix below which its API is served: the one chosen, or else its own.
    pub fn places(&self) -> impl Iterator<Item = (&'static Provider, &str)> {
        PROVIDERS.iter().map(|provider| (provider, self.mounts.get(provider.id).map_or(provider.server.mount(), Mount::prefix)))
    }
}

/// How much one address may ask.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Limits {
    pub per_ip_per_minute: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { per_ip_per_minute: 600 }
    }
}

/// When failed signatures lock a key.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Lock {
    pub mode: LockScope,
    pub failures: u32,
    pub window_s: u32,
    pub duration_s: u32,
}

impl Default for Lock {
    fn default() -> Self {
        Self { mode: LockScope::Scoped, failures: 5, window_s: 600, duration_s: 900 }
    }
}

/// Whom a lock keeps out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LockScope {
    /// The failing network first.
    Scoped,
    /// Everybody.
    Faithful,
}

/// What happens once an order is paid.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Fulfilment {
    pub mode: FulfilmentMode,
    pub delay_ms: u32,
}

impl Default for Fulfilment {
    fn default() -> Self {
        Self { mode: FulfilmentMode::Simulated, delay_ms: 1000 }
    }
}

/// Who makes the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FulfilmentMode {
    /// Nobody: it exists in the books only.
    Simulated,
    /// The operator, who says so with `provisor order fulfil`.
    Manual,
}

/// What invoices say.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Invoices {
    pub seller: String,
    pub tax_percent: Percent,
}

impl Default for Invoices {
    fn default() -> Self {
        let rule = InvoiceRule::default();
        Self { seller: rule.seller.as_ref().to_owned(), tax_percent: Percent(rule.tax_basis_points) }
    }
}

/// When renewals are billed.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Billing {
    pub invoice_days: u32,
    pub suspend_days: u32,
    pub terminate_days: u32,
}

impl Default for Billing {
    fn default() -> Self {
        let BillingRule { invoice_days, suspend_days, terminate_days } = BillingRule::default();
        Self { invoice_days, suspend_days, terminate_days }
    }
}

/// What charges cards.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Cards {
    pub gateway: CardGateway,
    pub timeout_ms: u32,
}

impl Default for Cards {
    fn default() -> Self {
        Self { gateway: CardGateway::Simulated, timeout_ms: 20_000 }
    }
}

/// Which gateway charges cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CardGateway {
    /// None: what the credit does not cover stays unpaid.
    None,
    /// A bank in the book, for tests and for trying out.
    Simulated,
}

/// The GP API's own rules.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Gp {
    pub freshness: bool,
    pub renew_dedupe: bool,
}

impl Default for Gp {
    fn default() -> Self {
        Self { freshness: true, renew_dedupe: true }
    }
}

/// Where the books are.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Store {
    pub url: StoreUrl,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretRef>,
}

/// What one call of a provider's component may use.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Plugin {
    pub cpu_ms: u32,
    pub timeout_ms: u32,
    pub change_timeout_ms: u32,
    pub memory_mib: u32,
    pub concurrency: u32,
}

impl Default for Plugin {
    fn default() -> Self {
        Self { cpu_ms: 200, timeout_ms: 60_000, change_timeout_ms: 300_000, memory_mib: 32, concurrency: 64 }
    }
}

/// A provider, where it is, and as whom to ask.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Profile {
    pub provider: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<BaseUrl>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Value>,
    pub secret: SecretRef,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    #[serde(default)]
    pub allow_private: bool,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, Value>,
}

/// A profile's credentials and settings, read from where the configuration names them.
#[derive(Debug)]
pub struct Credentials {
    /// The public half; empty where the provider has none.
    pub key: String,
    /// The secret half.
    pub secret: SecretString,
    /// What the provider's description asks for; any of them may be a secret.
    pub settings: BTreeMap<String, SecretString>,
}

impl Profile {
    /// Reads what the profile names. To be called for each use, so that a replaced file or variable counts at once.
    pub fn credentials(&self, environment: &Environment) -> Result<Credentials, SecretError> {
        let read = |(name, value): (&String, &Value)| Ok((name.clone(), value.read(environment)?));
        Ok(Credentials {
            key: self
                .key
                .as_ref()
                .map_or_else(|| Ok(String::new()), |key| Ok(key.read(environment)?.expose_secret().to_owned()))?,
            secret: self.secret.read(environment)?,
            settings: self.settings.iter().map(read).collect::<Result<_, SecretError>>()?,
        })
    }

    fn references_mut(&mut self) -> impl Iterator<Item = &mut SecretRef> {
        let values = self.key.iter_mut().chain(self.settings.values_mut()).filter_map(Value::reference_mut);
        std::iter::once(&mut self.secret).chain(values)
    }
}

fn check_summary(config: &Config, summary: &Summary) -> Result<(), error::Refusal> {
    let refuse = |key: &str, message: &str| {
        let key = ["gateway", "summary", key].map(str::to_owned).to_vec();
        Err(error::Refusal { key, message: message.to_owned() })
    };
    match &summary.callback {
        Some(name) if config.callbacks.get(name).is_none_or(|callback| callback.kind != CallbackKind::Signed) => {
            refuse("callback", "a summary is told to a call-back of the kind \"signed\", by its name")
        }
        None if summary.mail.is_none() => refuse("mail", "a summary goes to a `mail` address, to a `callback`, or to both"),
        _ => Ok(()),
    }
}

/// Each of a provider, where that can be served and hides no other.
fn check_mounts(server: &Server) -> Result<(), error::Refusal> {
    let refuse =
        |id: &str, message: String| Err(error::Refusal { key: ["server", "mounts", id].map(str::to_owned).to_vec(), message });
    if let Some(unknown) = server.mounts.keys().find(|id| provisor_providers::find(id).is_none()) {
        let known: Vec<&str> = PROVIDERS.iter().map(|provider| provider.id).collect();
        return refuse(unknown, format!("there is no such provider; known here: {}", known.join(", ")));
    }
    let hides = |by: &str, (provider, place): (&Provider, &str)| {
        let below = by.strip_prefix(place);
        below.is_some_and(|path| path.is_empty() || provider.server.owns(path))
    };
    for (provider, place) in server.places().filter(|(provider, _)| server.mounts.contains_key(provider.id)) {
        if let Some(why) = provider.server.refuses_mount(place) {
            return refuse(provider.id, why.to_owned());
        }
        let mut others = server.places().filter(|(other, _)| other.id != provider.id);
        let hidden = others.find(|(other, at)| hides(at, (provider, place)) || hides(place, (other, at)));
        if let Some((other, at)) = hidden {
            return refuse(provider.id, format!("{} is served at {at}/, which does not go together", other.id));
        }
    }
    Ok(())
}

/// What the types cannot say alone. The refusal names the key it is about.
fn check(config: &Config) -> Result<(), error::Refusal> {
    if let Some(server @ Server { billing, cards, .. }) = &config.server {
        check_mounts(server)?;
        let refuse = |section: &str, key: &str, message: &str| {
            let key = ["server", section, key].map(str::to_owned).to_vec();
            Err(error::Refusal { key, message: message.to_owned() })
        };
        if billing.terminate_days < billing.suspend_days {
            return refuse("billing", "terminate_days", "a service is not terminated before it is suspended");
        }
        if [billing.invoice_days, billing.suspend_days, billing.terminate_days].into_iter().any(|days| days > DAYS_MAX) {
            return refuse("billing", "terminate_days", "days of billing are at most 3650");
        }
        if cards.timeout_ms < TIMEOUT_MS_MIN {
            return refuse("cards", "timeout_ms", "a gateway needs at least 100 milliseconds");
        }
    }
    if let Some(Gateway { journal, summary, .. }) = &config.gateway {
        if let Some(summary) = summary {
            check_summary(config, summary)?;
        }
        let refuse = |key: &str, message: &str| {
            let key = ["gateway", "journal", key].map(str::to_owned).to_vec();
            Err(error::Refusal { key, message: message.to_owned() })
        };
        if journal.at_once == 0 || journal.at_once_per_profile == 0 {
            return refuse("at_once", "no change could be made: at_once and at_once_per_profile are at least 1");
        }
        if journal.deadline_ms < DEADLINE_MS_MIN || journal.deadline_ms > config.plugin.change_timeout_ms {
            return refuse("deadline_ms", "a change needs at least 1000 milliseconds, and at most plugin.change_timeout_ms");
        }
        if journal.check_every_s < CHECK_S_MIN {
            return refuse("check_every_s", "services are compared at most once a minute");
        }
        if journal.keep_days != 0 && !KEEP_DAYS.contains(&journal.keep_days) {
            return refuse("keep_days", "the journal is kept for 30 to 36500 days, or with 0 for ever");
        }
    }
    config.mail.check()?;
    for (name, profile) in &config.profiles {
        let refuse = |key: &[&str], message: String| {
            Err(error::Refusal { key: ["profiles", name.as_str()].iter().chain(key).map(ToString::to_string).collect(), message })
        };
        if name.is_empty() || name.len() > 64 || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        {
            return refuse(&[], "a profile's name is 1 to 64 of A-Z a-z 0-9 . _ -".to_owned());
        }
        if profile.base_url.as_ref().is_some_and(BaseUrl::is_plain) && !profile.allow_private {
            return refuse(
                &["base_url"],
                "plain http shows passwords to everybody on the way: use https, or for a \
                 development server on a private address set allow_private = true"
                    .to_owned(),
            );
        }
        let is_secret = |key: &&String| {
            let key = key.to_ascii_lowercase();
            ["secret", "password", "pass", "token", "key"].iter().any(|end| key.ends_with(end))
        };
        let literal = |key: &&String| profile.settings.get(*key).is_some_and(Value::is_literal);
        if let Some(key) = profile.settings.keys().filter(is_secret).find(literal) {
            return refuse(&["settings", key], secret::LITERAL.to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
