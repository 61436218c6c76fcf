//! Values that stand as texts in the file, each checked when it is read. No error shows the text: it may be a secret that stands in
//! a wrong place, or has one within.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;
use provisor_providers::money::Minor;
use serde::{Deserialize, Serialize};
use url::Url;

use super::store::StoreUrl;

/// Where the gateway listens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum Listen {
    /// An address and port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A socket's path.
    Unix(PathBuf),
}

impl Default for Listen {
    fn default() -> Self {
        Self::Tcp(SocketAddr::from(([127, 0, 0, 1], 7070)))
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("after `unix:` comes the path of the socket".to_owned()),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp).map_err(|_| {
                "neither an address and port such as `127.0.0.1:7070` nor a socket such as `unix:/run/provisor.sock`".to_owned()
            }),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where an API is served: `/`, or a path that does not end with a slash.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mount(String);

impl Mount {
    /// What stands before the API's own paths: nothing at the root.
    pub fn prefix(&self) -> &str {
        self.0.trim_end_matches('/')
    }
}

impl FromStr for Mount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // What needs no escape, so that clients, proxies and this host read the same path.
        let is_plain = |segment: &str| {
            !matches!(segment, "" | "." | "..")
                && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
        };
        let is_path = text.strip_prefix('/').is_some_and(|rest| rest.is_empty() || rest.split('/').all(is_plain));
        let message = "no path such as `/api/v1`, of A-Z a-z 0-9 - . _ ~ and without a slash at its end";
        if is_path { Ok(Self(text.to_owned())) } else { Err(message.to_owned()) }
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A network, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(pub IpNet);

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let network = || {
            // A number that begins with a zero is octal to some programs: ipnet's own parser takes it.
            let address: IpAddr = address.parse().ok()?;
            let Some(prefix) = prefix else { return Some(IpNet::from(address)) };
            let is_number = prefix == "0" || !prefix.starts_with(['0', '+']);
            IpNet::new(address, prefix.parse().ok().filter(|_| is_number)?).ok()
        };
        network().map(Self).ok_or_else(|| "neither an address such as `10.0.0.1` nor a network such as `10.0.0.0/8`".to_owned())
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The address of a provider's API: http or https, without user, query, fragment or trailing slash.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct BaseUrl(String);

impl BaseUrl {
    /// The address.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is http without TLS.
    pub fn is_plain(&self) -> bool {
        self.0.starts_with("http:")
    }
}

impl FromStr for BaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url = Url::parse(text)
            .map_err(|why| format!("no web address ({why}); right is one such as `https://api.example.com/v1`"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("a web address begins with `https://`".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("no user or password belongs into the address; use `key` and `secret`".to_owned());
        }
        if url.query().is_some() || url.fragment().is_some() || url.path().contains('@') {
            return Err("an API's address has no `?`, no `#`, and no `@` in its path".to_owned());
        }
        Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether it is a host's name or address, and not one with a user, a password or a path.
pub(super) fn is_host(text: &str) -> bool {
    let is_name = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    is_name || text.parse::<IpAddr>().is_ok()
}

/// A share from 0 to 100 percent, in hundredths of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Percent(pub u32);

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hundredths = text.parse().ok().and_then(|Minor(hundredths)| u32::try_from(hundredths).ok());
        let share = hundredths.filter(|hundredths| *hundredths <= 10_000).map(Self);
        share.ok_or_else(|| "a share is a text from \"0\" to \"100\" with at most two decimals, such as \"19.00\"".to_owned())
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Minor(self.0.into()).fmt(f)
    }
}

/// A value that stands as a text in the file.
macro_rules! text {
    ($($name:ty),*) => {$(
        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    )*};
}
text!(Listen, Mount, Network, StoreUrl, BaseUrl, Percent);
