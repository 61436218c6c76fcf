//! Names, texts and syntax on the wire. What Part 2 of the specification chose stands here once, for both ends.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::form::Form;
use crate::books::{FREE_PACKAGE, LicenseState};

/// This provider's id.
pub const PROVIDER: &str = "gp";

/// The ten endpoints (spec 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// Whether key and address are accepted.
    Connection,
    /// The reseller's credit.
    GetCredit,
    /// How a package stands.
    List,
    /// Makes a package. Charges.
    AutoRegister,
    /// Suspends.
    Suspended,
    /// Takes a suspension back.
    Active,
    /// Ends a package.
    Delete,
    /// Moves to a larger package. Charges.
    PackageUpdate,
    /// Sets the dashboard's password.
    PasswordReset,
    /// Pays another term. Charges.
    Renew,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Connection,
        Self::GetCredit,
        Self::List,
        Self::AutoRegister,
        Self::Suspended,
        Self::Active,
        Self::Delete,
        Self::PackageUpdate,
        Self::PasswordReset,
        Self::Renew,
    ];

    /// The path's last part.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::GetCredit => "getcredit",
            Self::List => "list",
            Self::AutoRegister => "autoregister",
            Self::Suspended => "suspended",
            Self::Active => "active",
            Self::Delete => "delete",
            Self::PackageUpdate => "packageupdate",
            Self::PasswordReset => "passwordreset",
            Self::Renew => "renew",
        }
    }

    /// The endpoint of a name, case and all.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|endpoint| endpoint.name() == name)
    }

    /// Whether its requests carry a password envelope.
    pub fn carries_password(self) -> bool {
        matches!(self, Self::AutoRegister | Self::PasswordReset)
    }
}

/// The package names (spec 4; our choice of the upper ones and of the order, 2.8), smallest first.
pub const PACKAGES: [&str; 8] = [FREE, "10k", "20k", "40k", "100k", "200k", "400k", "1M"];

/// The package that costs nothing.
pub const FREE: &str = FREE_PACKAGE;

/// The domain of requests that are about none (spec 1).
pub const NO_DOMAIN: &str = "example.com";

/// Values of `status`, in the provider's spelling where it documents one.
pub mod text {
    /// Success.
    pub const OK: &str = "ok";
    /// `exist` of a package that is there.
    pub const EXISTS: &str = "exists";
    /// All of `domain`, `hash`, `timestamp` are missing; followed by a blank and its name when one is.
    pub const MISSING_DATA: &str = "Request Missing data!";
    /// `autoregister` without a password.
    pub const MISSING_PASSWORD: &str = "Missing Password";
    /// Any failure of a password envelope.
    pub const INVALID_PASSWORD: &str = "Invalid Password";
    /// Not on sale.
    pub const INVALID_PACKAGE: &str = "Invalid package name";
    /// Our choice, 2.14.
    pub const INVALID_EMAIL: &str = "Invalid email";
    /// Address, hash, freshness, reuse or lock: one text (our choice, 2.4).
    pub const CONNECTION_FAILED: &str = "Connection failed";
    /// As `list` and `suspended` spell it.
    pub const NOT_FOUND_CAPITAL: &str = "Package not Found!";
    /// As `active` and `delete` spell it.
    pub const NOT_FOUND: &str = "Package not found!";
    /// `passwordreset` of a domain without an active package.
    pub const NO_ACTIVE_PACKAGE: &str = "Error changing password. No active package found!";
    /// `packageupdate` of a suspended package.
    pub const IS_SUSPENDED: &str = "Package is suspended. Please unsuspend it to continue.";
    /// `packageupdate` to a smaller package.
    pub const DOWNGRADE: &str = "Downgrade not allowed.";
    /// Our choice, 2.9.
    pub const INSUFFICIENT_CREDIT: &str = "Insufficient credit";
    /// Our choice, 2.10.
    pub const ALREADY_REGISTERED: &str = "Domain already registered";
    /// `active` of a package whose last term is over and was not renewed in time: our choice, since nothing is documented.
    pub const UNPAID: &str = "Package is unpaid. Please renew it to continue.";
    /// The operator sells nothing more to this reseller: our choice.
    pub const CLOSED: &str = "Reseller account is closed";
    /// Over a limit (our choice, 2.14).
    pub const TOO_MANY: &str = "Too many requests";
    /// A defect of the server.
    pub const ERROR: &str = "Error";
}

/// `Request Missing data! <name>`.
pub fn missing(name: &str) -> String {
    format!("{} {name}", text::MISSING_DATA)
}

/// An answer. Reading is liberal: unknown members are ignored, and `exist` or `token` of another type count as absent.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Always there.
    pub status: String,
    /// `exists` where `list` found the package.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "text_or_none")]
    pub exist: Option<String>,
    /// The license token of `autoregister`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "text_or_none")]
    pub token: Option<String>,
}

impl Answer {
    /// An answer that is a status alone.
    pub fn new(status: impl Into<String>) -> Self {
        Self { status: status.into(), exist: None, token: None }
    }

    /// The JSON object, `status` first.
    pub fn to_json(&self) -> String {
        #[expect(clippy::expect_used, reason = "three texts are always JSON")]
        serde_json::to_string(self).expect("three texts are always JSON")
    }
}

fn text_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => Some(text),
        _ => None,
    })
}

/// What an endpoint's own parameters ask for; the password stands apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// `connection`.
    Connection,
    /// `getcredit`.
    Credit,
    /// `list`.
    List,
    /// `autoregister`.
    Register {
        /// As sent.
        package: String,
        /// Where notifications go.
        email: String,
    },
    /// `suspended`.
    Suspend,
    /// `active`.
    Unsuspend,
    /// `delete`.
    Delete,
    /// `packageupdate`.
    Update {
        /// The state to be in afterwards.
        state: LicenseState,
        /// As sent.
        package: String,
    },
    /// `passwordreset`.
    Password,
    /// `renew`.
    Renew,
}

impl Asked {
    /// Reads the parameters; the error is the status text that names the first one at fault (our choice, 2.14).
    pub(super) fn read(endpoint: Endpoint, form: &Form) -> Result<Self, String> {
        let required = |name: &str| form.get(name).map(str::to_owned).ok_or_else(|| missing(name));
        Ok(match endpoint {
            Endpoint::Connection => Self::Connection,
            Endpoint::GetCredit => Self::Credit,
            Endpoint::List => Self::List,
            Endpoint::AutoRegister => {
                let package = required("package")?;
                form.get("password").ok_or(text::MISSING_PASSWORD)?;
                let email = required("uemail")?;
                if !is_email(&email) {
                    return Err(text::INVALID_EMAIL.to_owned());
                }
                Self::Register { package, email }
            }
            Endpoint::Suspended => Self::Suspend,
            Endpoint::Active => Self::Unsuspend,
            Endpoint::Delete => Self::Delete,
            Endpoint::PackageUpdate => {
                let status = required("status")?;
                let package = required("package")?;
                let state = LicenseState::parse(&status).ok_or_else(|| missing("status"))?;
                Self::Update { state, package }
            }
            Endpoint::PasswordReset => required("password").map(|_| Self::Password)?,
            Endpoint::Renew => Self::Renew,
        })
    }
}

/// A host name of at least two LDH labels and at most 253 bytes, the last label alphabetic or `xn--`, no trailing dot. With ten
/// digits after it, this keeps the hashed concatenation unambiguous and free of SHA-1's padding bytes.
pub fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_top = |label: &str| {
        label.bytes().all(|byte| byte.is_ascii_alphabetic())
            || (label.len() > 4 && label.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("xn--")))
    };
    text.len() <= 253 && text.split('.').all(is_label) && text.rsplit_once('.').is_some_and(|(_, top)| is_top(top))
}

/// Ten ASCII digits; a text, which may begin with 0.
pub fn is_timestamp(text: &str) -> bool {
    text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// 40 hex digits in either case.
pub fn is_hash(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// One `@` between printable ASCII and a domain; at most 254 bytes.
pub fn is_email(text: &str) -> bool {
    let is_local = |local: &str| {
        (1..=64).contains(&local.len())
            && local
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'@' | b'"' | b',' | b';' | b'<' | b'>' | b'\\'))
    };
    text.len() <= 254 && text.split_once('@').is_some_and(|(local, domain)| is_local(local) && is_domain(domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_host_names() {
        let long_label = "a".repeat(64);
        let long = format!("{}.com", ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(58)].join("."));
        for domain in
            ["a.co", "EXAMPLE.com", "sub.domain.example.org", "xn--mnchen-3ya.de", "1.2.xn--p1ai", "3com.com", &long[1..]]
        {
            assert!(is_domain(domain), "{domain}");
        }
        for text in [
            "",
            ".",
            "com",
            "a.com.",
            ".a.com",
            "a..com",
            "-a.com",
            "a-.com",
            "a_b.com",
            "a.c0m",
            "a.xn--",
            "127.0.0.1",
            "a b.com",
            "münchen.de",
            "a.com\n",
            "a.com\0",
            "a.com/",
            "a.com:80",
            &format!("{long_label}.com"),
            &long,
        ] {
            assert!(!is_domain(text), "{text:?}");
        }
    }

    #[test]
    fn email_addresses_cannot_carry_a_second_header() {
        for text in ["a@b.co", "first.last+tag@example.com", "o'neill@example.com"] {
            assert!(is_email(text), "{text}");
        }
        for text in ["", "@", "a@", "@b.co", "a@b", "a@b@c.de", "a b@c.de", "a@c.de\r\nBcc: x@y.de", "<a@b.co>", "a,b@c.de"] {
            assert!(!is_email(text), "{text:?}");
        }
    }

    #[test]
    fn answers_are_the_documented_objects() {
        let listed = Answer { exist: Some(text::EXISTS.into()), ..Answer::new("active") };
        assert_eq!(listed.to_json(), r#"{"status":"active","exist":"exists"}"#);
        let made = Answer { token: Some("t".into()), ..Answer::new(text::OK) };
        assert_eq!(made.to_json(), r#"{"status":"ok","token":"t"}"#);
        assert_eq!(Answer::new("OK - 1500.26").to_json(), r#"{"status":"OK - 1500.26"}"#);
    }

    #[test]
    fn the_first_parameter_at_fault_is_named() {
        let table = [
            (Endpoint::AutoRegister, "", "Request Missing data! package"),
            (Endpoint::AutoRegister, "package=10k", "Missing Password"),
            (Endpoint::AutoRegister, "package=10k&password=x", "Request Missing data! uemail"),
            (Endpoint::AutoRegister, "package=10k&password=x&uemail=y", "Invalid email"),
            (Endpoint::AutoRegister, "package=10k&package=20k&password=x&uemail=a%40b.co", "Request Missing data! package"),
            (Endpoint::PackageUpdate, "package=10k", "Request Missing data! status"),
            (Endpoint::PackageUpdate, "status=active", "Request Missing data! package"),
            (Endpoint::PackageUpdate, "status=gone&package=10k", "Request Missing data! status"),
            (Endpoint::PasswordReset, "password=", "Request Missing data! password"),
        ];
        for (endpoint, body, expected) in table {
            let form = Form::read("application/x-www-form-urlencoded", body.as_bytes()).unwrap();
            assert_eq!(Asked::read(endpoint, &form), Err(expected.to_owned()), "{body}");
        }
        for endpoint in Endpoint::ALL {
            assert_eq!(Endpoint::find(endpoint.name()), Some(endpoint));
            assert_eq!(
                endpoint.carries_password(),
                Asked::read(endpoint, &Form::default()).is_err() && endpoint != Endpoint::PackageUpdate
            );
        }
    }
}
