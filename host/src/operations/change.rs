//! A change, as it is asked for and written down.

use std::collections::BTreeMap;

use base16ct::lower as hex;
use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::problems;
use crate::plugin::contract::{PowerAction, Problem, ProblemKind};

pub(super) type HmacSha256 = Hmac<Sha256>;

/// What a panel may ask for a service. The password that comes with some is kept apart, since this is written down; options that may be
/// secret are taken out before that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "kebab-case")]
pub enum Change {
    /// Make it.
    Create {
        /// The provider's plan, by id or name.
        plan: String,
        /// The billing term.
        term: Option<String>,
        /// Its domain.
        domain: Option<String>,
        /// The customer's e-mail address.
        email: Option<String>,
        /// A remark for the provider's staff.
        note: Option<String>,
        /// Values for the provider's and the plan's fields.
        options: BTreeMap<String, String>,
    },
    /// Take what is at the provider already as this key's service.
    Adopt {
        /// The provider's id of it.
        remote_id: Option<String>,
        /// Its domain, where the provider goes by that.
        domain: Option<String>,
    },
    /// Suspend it.
    Suspend {
        /// Why.
        reason: Option<String>,
    },
    /// Take the suspension back.
    Unsuspend,
    /// End it for good.
    Terminate,
    /// Pay the term after a due date.
    Renew {
        /// The due date that is being renewed.
        due_at: String,
    },
    /// Set a new password.
    ResetPassword,
    /// Move it to another plan.
    ChangePackage {
        /// The plan, by id or name.
        plan: String,
        /// Values for the plan's fields.
        options: BTreeMap<String, String>,
    },
    /// Switch the machine.
    Power {
        /// What to do.
        action: Power,
    },
}

/// A switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the words say it")]
pub enum Power {
    Start,
    Stop,
    Reboot,
    Reinstall,
}

impl From<Power> for PowerAction {
    fn from(power: Power) -> Self {
        match power {
            Power::Start => Self::Start,
            Power::Stop => Self::Stop,
            Power::Reboot => Self::Reboot,
            Power::Reinstall => Self::Reinstall,
        }
    }
}

impl Change {
    /// The operation's name in the contract; `adopt` is the journal's own.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Adopt { .. } => "adopt",
            Self::Suspend { .. } => "suspend",
            Self::Unsuspend => "unsuspend",
            Self::Terminate => "terminate",
            Self::Renew { .. } => "renew",
            Self::ResetPassword => "reset-password",
            Self::ChangePackage { .. } => "change-package",
            Self::Power { .. } => "power",
        }
    }

    /// The state that it wishes for, in the contract's word.
    pub(super) fn wish(&self) -> Option<&'static str> {
        match self {
            Self::Create { .. } | Self::Adopt { .. } | Self::Unsuspend => Some("active"),
            Self::Suspend { .. } => Some("suspended"),
            Self::Terminate => Some("terminated"),
            _ => None,
        }
    }

    /// Whether it begins a service.
    pub(super) fn begins(&self) -> bool {
        matches!(self, Self::Create { .. } | Self::Adopt { .. })
    }

    /// The domain that it would have a key own.
    pub(super) fn domain(&self) -> Option<&str> {
        match self {
            Self::Create { domain, .. } | Self::Adopt { domain, .. } => domain.as_deref(),
            _ => None,
        }
    }

    /// What makes another request the same change: within one generation of a service, or whenever a panel gives the same key for it. A
    /// late repeat must not do to the next generation what was asked for the one before.
    pub(super) fn sameness(&self, generation: u32, idempotency_key: Option<&str>) -> String {
        let kind = self.kind();
        match (self, idempotency_key) {
            (Self::Renew { due_at }, _) => format!("{generation}/{kind}/{due_at}"),
            (Self::ResetPassword | Self::ChangePackage { .. } | Self::Power { .. }, Some(key)) => {
                format!("{kind}/key/{}", hex::encode_string(&Sha256::digest(key)))
            }
            _ => format!("{generation}/{kind}"),
        }
    }

    /// Whether only an idempotency key, or being under way, makes two of them the same.
    pub(super) fn is_repeatable(&self) -> bool {
        matches!(self, Self::ResetPassword | Self::ChangePackage { .. } | Self::Power { .. })
    }

    /// A MAC over the whole request: of two that differ in anything it differs. Keyed, since a password can be guessed.
    pub(super) fn mac(&self, password: Option<&SecretString>, key: &[u8; 32]) -> Result<HmacSha256, serde_json::Error> {
        #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
        let mut mac = HmacSha256::new_from_slice(key).expect("any key will do");
        mac.update(&serde_json::to_vec(self)?);
        mac.update(&[u8::from(password.is_some())]);
        mac.update(password.map(|password| password.expose_secret().as_bytes()).unwrap_or_default());
        Ok(mac)
    }

    /// The change as it is written down, and the options that are sealed: all of which nobody says that they are not secret. What a plan
    /// asks for stands in its catalogue alone, which is not read for each order.
    pub(super) fn without_secrets(mut self, plain: &[String]) -> (Self, BTreeMap<String, String>) {
        let sealed = self.options_mut().map(|options| options.extract_if(.., |name, _| !plain.contains(name)).collect());
        (self, sealed.unwrap_or_default())
    }

    /// The change as it was asked for.
    pub(super) fn with_secrets(mut self, sealed: BTreeMap<String, String>) -> Self {
        if let Some(options) = self.options_mut() {
            options.extend(sealed);
        }
        self
    }

    fn options_mut(&mut self) -> Option<&mut BTreeMap<String, String>> {
        match self {
            Self::Create { options, .. } | Self::ChangePackage { options, .. } => Some(options),
            _ => None,
        }
    }

    /// The request in one spelling: texts trimmed, empty ones absent, a domain in small letters, a due date as a time. What the API
    /// lists as fields of an order and a panel sent as an option becomes the field.
    pub fn normal(self, password: Option<SecretString>) -> Result<(Self, Option<SecretString>), Problem> {
        match self {
            Self::Create { plan, term, domain, email, note, mut options } => {
                let mut field = |name: &str, given: Option<String>| {
                    let option = options.remove(name);
                    filled(given).or_else(|| filled(option))
                };
                let (term, email, note) = (field("term", term), field("email", email), field("note", note));
                let domain = field("domain", domain).map(|domain| domain.to_ascii_lowercase());
                let sent = options.remove("password").filter(|password| !password.is_empty()).map(SecretString::from);
                let plan = filled(Some(plan)).ok_or_else(|| invalid("plan", "a plan is required"))?;
                Ok((Self::Create { plan, term, domain, email, note, options }, password.or(sent)))
            }
            Self::Adopt { remote_id, domain } => {
                let (remote_id, domain) = (filled(remote_id), filled(domain).map(|domain| domain.to_ascii_lowercase()));
                if remote_id.is_none() && domain.is_none() {
                    return Err(invalid("remote_id", "what is to be adopted is named by its remote_id or its domain"));
                }
                Ok((Self::Adopt { remote_id, domain }, None))
            }
            Self::Suspend { reason } => Ok((Self::Suspend { reason: filled(reason) }, None)),
            Self::Renew { due_at } => Ok((Self::Renew { due_at: due_date(&due_at)? }, None)),
            Self::ResetPassword => Ok((Self::ResetPassword, password)),
            Self::ChangePackage { plan, mut options } => {
                // Panels send every field of their form; this one would be written down, and no plan asks for it.
                options.retain(|name, _| !name.contains("password"));
                let plan = filled(Some(plan)).ok_or_else(|| invalid("plan", "a plan is required"))?;
                Ok((Self::ChangePackage { plan, options }, None))
            }
            Self::Unsuspend | Self::Terminate | Self::Power { .. } => Ok((self, None)),
        }
    }
}

fn filled(text: Option<String>) -> Option<String> {
    text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// A day, as panels know due dates, stays one; a moment is written in UTC.
fn due_date(text: &str) -> Result<String, Problem> {
    let text = text.trim();
    let written = match day(text) {
        Some(_) => Some(text.to_owned()),
        None => text.parse::<Timestamp>().ok().map(|at| at.to_string()),
    };
    written.ok_or_else(|| invalid("due_at", "a date such as 2027-01-15, or a time such as 2027-01-15T08:00:00Z"))
}

fn day(text: &str) -> Option<Timestamp> {
    let day = text.parse::<jiff::civil::Date>().ok().filter(|_| text.len() == 10)?;
    day.to_zoned(jiff::tz::TimeZone::UTC).map(|at| at.timestamp()).ok()
}

/// How far a panel's due date may lie from the provider's for the two to be one: panels count from the day of the order, providers
/// from the moment of the delivery, and two due dates of one service are a month apart at least.
const SAME_DUE_DATE: SignedDuration = SignedDuration::from_hours(72);

/// The moment that a due date stands for: the provider's own where that is near, otherwise what the panel said, a day from its first
/// second in UTC. By a panel's date from shortly before its own, the provider would have renewed already: nothing would be paid.
pub(super) fn due_moment(due_at: &str, providers: Option<&str>) -> String {
    let Some(told) = day(due_at).or_else(|| due_at.parse().ok()) else { return due_at.to_owned() };
    let is_meant = |own: &Timestamp| own.duration_since(told).abs() <= SAME_DUE_DATE;
    let meant = providers.and_then(|text| text.parse().ok()).filter(is_meant);
    meant.unwrap_or(told).to_string()
}

fn invalid(field: &str, message: &str) -> Problem {
    Problem { field: Some(field.to_owned()), ..problems::problem(ProblemKind::Invalid, message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(domain: &str, options: &[(&str, &str)]) -> Change {
        Change::Create {
            plan: " 42 ".to_owned(),
            term: Some(String::new()),
            domain: Some(domain.to_owned()),
            email: None,
            note: None,
            options: options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }
    }

    #[test]
    fn an_order_is_written_down_in_one_spelling_and_without_its_password() {
        let asked = create(" Example.COM", &[("email", "a@example.com"), ("password", "MARKED"), ("ram", "4")]);
        let (change, password) = asked.normal(None).unwrap();
        assert_eq!(password.unwrap().expose_secret(), "MARKED");
        let Change::Create { plan, term, domain, email, options, .. } = &change else { panic!() };
        assert_eq!((plan.as_str(), term, domain.as_deref()), ("42", &None, Some("example.com")));
        assert_eq!((email.as_deref(), options.len()), (Some("a@example.com"), 1));
        assert!(!serde_json::to_string(&change).unwrap().contains("MARKED"));
    }

    #[test]
    fn a_change_of_plan_takes_no_password_along() {
        let options = [("password", "MARKED"), ("new_password", "MARKED"), ("ram", "4")];
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (change, _) = Change::ChangePackage { plan: "20k".to_owned(), options }.normal(None).unwrap();
        let written = serde_json::to_string(&change).unwrap();
        assert!(written.contains("ram") && !written.contains("MARKED"), "{written}");
    }

    #[test]
    fn options_that_may_be_secret_are_kept_apart_and_come_back() {
        let asked = create("example.com", &[("ram", "4"), ("license_key", "MARKED")]);
        let (written, sealed) = asked.clone().without_secrets(&["ram".to_owned()]);
        let text = serde_json::to_string(&written).unwrap();
        assert!(text.contains("\"ram\":\"4\"") && !text.contains("MARKED") && !text.contains("license_key"), "{text}");
        assert_eq!(written.with_secrets(sealed), asked);
        assert_eq!(Change::Terminate.without_secrets(&[]), (Change::Terminate, BTreeMap::new()));
    }

    #[test]
    fn a_due_date_has_one_spelling() {
        let renew =
            |due_at: &str| Change::Renew { due_at: due_at.to_owned() }.normal(None).map(|(change, _)| change.sameness(1, None));
        assert_eq!(renew("2027-01-15T00:00:00Z").unwrap(), renew("2027-01-15T01:00:00+01:00").unwrap());
        assert_eq!(renew("2027-01-15").unwrap(), renew(" 2027-01-15 ").unwrap());
        assert_ne!(renew("2027-01-15").unwrap(), renew("2027-01-16").unwrap());
        for bad in ["", "soon", "2027-02-30", "15.01.2027", "0000-00-00", "2027-01-15T08:00"] {
            assert_eq!(renew(bad).unwrap_err().field.as_deref(), Some("due_at"), "{bad}");
        }
    }

    #[test]
    fn a_due_date_stands_for_the_provider_s_moment_near_it() {
        let own = "2027-01-15T08:30:00Z";
        for near in ["2027-01-15", "2027-01-13", "2027-01-18", "2027-01-15T00:00:00Z", "2027-01-14T23:00:00Z", own] {
            assert_eq!(due_moment(near, Some(own)), own, "{near}");
        }
        for (other, moment) in [
            ("2027-01-12", "2027-01-12T00:00:00Z"),
            ("2027-01-19", "2027-01-19T00:00:00Z"),
            ("2027-02-15", "2027-02-15T00:00:00Z"),
            ("2026-12-15T08:30:00Z", "2026-12-15T08:30:00Z"),
        ] {
            assert_eq!(due_moment(other, Some(own)), moment, "{other}");
        }
        assert_eq!(due_moment("2027-01-15", None), "2027-01-15T00:00:00Z");
        assert_eq!(due_moment("2027-01-15", Some("soon")), "2027-01-15T00:00:00Z");
    }

    #[test]
    fn what_is_the_same_change() {
        let (stop, start) = (Change::Power { action: Power::Stop }, Change::Power { action: Power::Start });
        assert_eq!(stop.sameness(1, Some("a")), start.sameness(1, Some("a")));
        assert_ne!(stop.sameness(1, Some("a")), stop.sameness(1, Some("b")));
        assert_eq!(stop.sameness(1, Some("a")), stop.sameness(2, Some("a")));
        let mac = |change: &Change, password: Option<&str>| {
            let mac = change.mac(password.map(SecretString::from).as_ref(), &[7; 32]).unwrap();
            mac.finalize().into_bytes()
        };
        assert_eq!(mac(&stop, None), mac(&stop, None));
        assert_ne!(mac(&stop, None), mac(&start, None));
        assert_eq!(Change::Terminate.sameness(1, Some("a")), Change::Terminate.sameness(1, None));
        assert_ne!(Change::Terminate.sameness(1, None), Change::Terminate.sameness(2, None));
        let reset = Change::ResetPassword;
        assert_ne!(mac(&reset, Some("a")), mac(&reset, Some("b")));
        assert_ne!(mac(&reset, Some("")), mac(&reset, None));
        let other_key = reset.mac(Some(&"a".into()), &[8; 32]).unwrap();
        assert!(other_key.verify_slice(&mac(&reset, Some("a"))).is_err());
    }
}
