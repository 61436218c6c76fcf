//! Where webhooks may be sent (spec/kernelhost 2.14): one check, made when an address is registered and again each time something is
//! delivered there.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use url::{Host, Url};

use crate::address::{is_private, is_public};

/// Bytes of a webhook's address at most (our choice).
pub const URL_MAX: usize = 2048;
/// Names that only a private network can have (RFC 6761, RFC 6762; `internal` is reserved for them by ICANN).
const PRIVATE_SUFFIXES: [&str; 3] = ["localhost", "local", "internal"];

/// What the operator allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetRules {
    /// Development only: targets that may be private, on any port and over plain http.
    pub allowed: Vec<AllowedTarget>,
    /// The ports of all others.
    pub ports: Vec<u16>,
}

impl Default for TargetRules {
    fn default() -> Self {
        Self { allowed: Vec::new(), ports: vec![443] }
    }
}

/// A host and its port, as the operator names it: `127.0.0.1:9000`, `[::1]:9000`, `hooks.test:80`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedTarget {
    host: Host<String>,
    port: u16,
}

impl FromStr for AllowedTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The text is not shown: it may be a whole address, with a password.
        let wrong = || "a target is a host with its port, such as `127.0.0.1:9000`".to_owned();
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = Host::parse(host).map_err(|_| wrong())?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
        Ok(Self { host, port })
    }
}

impl fmt::Display for AllowedTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Why nothing is sent there. Says nothing of what a name resolves to: whoever registers addresses must not learn what is inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a web address, over [`URL_MAX`], with characters that are read differently by different programs, or with a fragment.
    #[error("An absolute https address of at most {URL_MAX} bytes, without a fragment, is expected.")]
    Malformed,
    /// Another scheme.
    #[error("The address must begin with https://.")]
    NotHttps,
    /// A user or password before an `@`.
    #[error("The address must not contain a user or password.")]
    UserInfo,
    /// A port that is not among [`TargetRules::ports`].
    #[error("The address has a port that is not allowed.")]
    Port,
    /// A name that is not one of the public internet: a single label, a trailing dot, a private suffix.
    #[error("The host must be a full public name.")]
    Host,
    /// An address that is not public, or a name without any or with one that is not.
    #[error("The host must have public addresses and no others.")]
    NotPublic,
}

impl Refused {
    /// For programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NotHttps => "not_https",
            Self::UserInfo => "userinfo",
            Self::Port => "port",
            Self::Host => "host",
            Self::NotPublic => "not_public",
        }
    }
}

/// An address whose form is right. Whether its host may be reached is for [`Target::admit`] to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    url: Url,
    host: Host<String>,
    port: u16,
    is_named: bool,
}

impl Target {
    /// Reads an address and checks all that can be told without resolving its name.
    pub fn parse(text: &str, rules: &TargetRules) -> Result<Self, Refused> {
        // The URL standard drops tabs and line breaks, and reads a backslash as a slash.
        if text.len() > URL_MAX || text.chars().any(|letter| letter == '\\' || letter.is_whitespace() || letter.is_control()) {
            return Err(Refused::Malformed);
        }
        let (scheme, rest) = text.split_once("://").ok_or(Refused::Malformed)?;
        // The standard supplies missing slashes: the host of `https:user@host://` stands before them.
        if scheme.contains(':') {
            return Err(Refused::Malformed);
        }
        let is_web = ["http", "https"].iter().any(|web| scheme.eq_ignore_ascii_case(web));
        // The standard skips further slashes, and an empty user (`@host`) leaves no trace in what was parsed.
        match rest.split(['/', '?', '#']).next() {
            None | Some("") if is_web => return Err(Refused::Malformed),
            Some(authority) if authority.contains('@') => return Err(Refused::UserInfo),
            _ => {}
        }
        let url = Url::parse(text).map_err(|_| Refused::Malformed)?;
        let is_https = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(Refused::NotHttps),
        };
        let (Some(host), Some(port), None) = (url.host(), url.port_or_known_default(), url.fragment()) else {
            return Err(Refused::Malformed);
        };
        let host = host.to_owned();
        let is_named = rules.allowed.iter().any(|allowed| allowed.host == host && allowed.port == port);
        if !is_named {
            if !is_https {
                return Err(Refused::NotHttps);
            }
            if !rules.ports.contains(&port) {
                return Err(Refused::Port);
            }
            if matches!(&host, Host::Domain(name) if !is_public_name(name)) {
                return Err(Refused::Host);
            }
        }
        let target = Self { url, host, port, is_named };
        match target.address() {
            Some(address) => target.admit(&[address]).map(|()| target),
            None => Ok(target),
        }
    }

    /// Whether it may be reached at the addresses that its name resolved to. One that is out of bounds condemns all: a name that
    /// points both outside and inside is an attack or a mistake.
    pub fn admit(&self, addresses: &[IpAddr]) -> Result<(), Refused> {
        let may = |address: &IpAddr| is_public(*address) || self.is_named && is_private(*address);
        if !addresses.is_empty() && addresses.iter().all(may) { Ok(()) } else { Err(Refused::NotPublic) }
    }

    /// The address as it was understood.
    pub fn as_str(&self) -> &str {
        self.url.as_str()
    }

    /// Whether TLS is spoken there.
    pub fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// The name to resolve; `None` where an address stands in its place.
    pub fn name(&self) -> Option<&str> {
        match &self.host {
            Host::Domain(name) => Some(name),
            Host::Ipv4(_) | Host::Ipv6(_) => None,
        }
    }

    /// The address that stands in place of a name.
    pub fn address(&self) -> Option<IpAddr> {
        match &self.host {
            Host::Domain(_) => None,
            Host::Ipv4(address) => Some((*address).into()),
            Host::Ipv6(address) => Some((*address).into()),
        }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The value of `Host`.
    pub fn authority(&self) -> String {
        self.url.port().map_or_else(|| self.host.to_string(), |port| format!("{}:{port}", self.host))
    }

    /// Path and query, as they are asked for.
    pub fn path(&self) -> String {
        self.url.query().map_or_else(|| self.url.path().to_owned(), |query| format!("{}?{query}", self.url.path()))
    }
}

/// Two labels at least, no trailing dot, not below a suffix of private networks.
fn is_public_name(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(rest, last)| !rest.is_empty() && !last.is_empty() && !PRIVATE_SUFFIXES.contains(&last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus() -> Vec<(String, String)> {
        let lines = include_str!("../../tests/vectors/webhook-targets.txt").lines();
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(|line| line.split_once(' ').map(|(code, url)| (code.to_owned(), unescape(url))).unwrap()).collect()
    }

    /// `\t`, `\n` and `\u{..}` as in Rust: an editor must not change what the corpus holds.
    fn unescape(text: &str) -> String {
        let mut plain = text.replace("\\t", "\t").replace("\\n", "\n");
        while let Some((before, rest)) = plain.split_once("\\u{") {
            let (code, after) = rest.split_once('}').unwrap();
            let letter = char::from_u32(u32::from_str_radix(code, 16).unwrap()).unwrap();
            plain = format!("{before}{letter}{after}");
        }
        plain
    }

    #[test]
    fn every_spelling_of_the_corpus_is_what_it_is() {
        let corpus = corpus();
        assert!(corpus.len() > 100, "{}", corpus.len());
        for (expected, url) in corpus {
            let parsed = Target::parse(&url, &TargetRules::default());
            assert_eq!(parsed.map_or_else(Refused::code, |_| "ok"), expected, "{url:?}");
        }
    }

    #[test]
    fn one_address_out_of_bounds_condemns_all() {
        let target = Target::parse("https://hooks.example.com/", &TargetRules::default()).unwrap();
        for (addresses, admitted) in [
            (&["93.184.216.34"][..], true),
            (&["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"], true),
            (&["93.184.216.34", "127.0.0.1"], false),
            (&["::ffff:93.184.216.34"], false),
            (&["169.254.169.254"], false),
            (&[], false),
        ] {
            let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(target.admit(&addresses).is_ok(), admitted, "{addresses:?}");
        }
    }

    #[test]
    fn what_the_operator_names_may_be_private_and_nothing_beside_it() {
        let allowed = ["127.0.0.1:9000", "[::1]:9000", "receiver:80", "169.254.169.254:80"].map(|text| text.parse().unwrap());
        let rules = TargetRules { allowed: allowed.into(), ..TargetRules::default() };
        for url in [
            "http://127.0.0.1:9000/hook",
            "https://127.0.0.1:9000/",
            "http://2130706433:9000/",
            "http://[::1]:9000/",
            "http://receiver/a?b=c",
        ] {
            assert!(Target::parse(url, &rules).is_ok(), "{url}");
        }
        for (url, refused) in [
            ("http://127.0.0.1:9001/", Refused::NotHttps),
            ("https://127.0.0.1/", Refused::NotPublic),
            ("http://u@127.0.0.1:9000/", Refused::UserInfo),
            ("http://other/", Refused::NotHttps),
            ("https://receiver/", Refused::Host),
            ("http://169.254.169.254/", Refused::NotPublic),
        ] {
            assert_eq!(Target::parse(url, &rules).err(), Some(refused), "{url}");
        }
        let receiver = Target::parse("http://receiver/a?b=c", &rules).unwrap();
        assert!(receiver.admit(&[[10, 0, 0, 7].into()]).is_ok());
        assert!(receiver.admit(&[[169, 254, 169, 254].into()]).is_err());
        assert_eq!((receiver.authority().as_str(), receiver.path().as_str()), ("receiver", "/a?b=c"));
        for wrong in
            ["", "127.0.0.1", ":9000", "127.0.0.1:0", "127.0.0.1:x", "127.0.0.1:70000", "a b:1", "a/b:1", "u@a:1", "::1:9000"]
        {
            assert!(wrong.parse::<AllowedTarget>().is_err(), "{wrong}");
        }
        assert_eq!("[::1]:9000".parse::<AllowedTarget>().unwrap().to_string(), "[::1]:9000");
    }

    #[test]
    fn further_ports_are_for_https_and_public_hosts() {
        let rules = TargetRules { ports: vec![443, 8443], ..TargetRules::default() };
        assert!(Target::parse("https://hooks.example.com:8443/", &rules).is_ok());
        for url in ["http://hooks.example.com:8443/", "https://hooks.example.com:8444/", "https://127.0.0.1:8443/"] {
            assert!(Target::parse(url, &rules).is_err(), "{url}");
        }
    }
}
