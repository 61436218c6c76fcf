//! Whom a profile may talk to.

use std::collections::BTreeSet;
use std::net::IpAddr;

use http::Uri;
use provisor_providers::address::{is_private, is_public};
use url::{Host, Url};

/// Where requests may go: scheme, host and port, each exactly.
#[derive(Debug, Clone)]
pub struct EgressPolicy {
    allowed: BTreeSet<Target>,
    allow_private: bool,
}

/// One place on the network, its name in the normal form of the URL standard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) https: bool,
    pub(super) host: Host<String>,
    pub(super) port: u16,
}

/// Why a profile's addresses make no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The base URL does not parse, or carries a user, a query or a fragment.
    #[error("base_url is not a plain http or https address: {0}")]
    BaseUrl(String),
    /// Plain http outside of development.
    #[error("base_url is plain http, which only a profile with `allow_private = true` may use")]
    PlainHttp,
    /// An address that is not public, outside of development.
    #[error("base_url names the address {0}, which only a profile with `allow_private = true` may reach")]
    Private(IpAddr),
    /// An additional host that is no host name.
    #[error("`hosts` has what is not a host name with an optional port")]
    HostName,
}

impl EgressPolicy {
    /// Allows the place of `base_url`, and `hosts` (`name` or `name:port`) over https. With `allow_private`, a development setting,
    /// private addresses and plain http to them are allowed too.
    pub fn new(base_url: &str, hosts: &[String], allow_private: bool) -> Result<Self, PolicyError> {
        let base = Url::parse(base_url).map_err(|why| PolicyError::BaseUrl(why.to_string()))?;
        let base_target = Target::of(&base).ok_or_else(|| PolicyError::BaseUrl("no http or https host".to_owned()))?;
        if has_userinfo(&base) || base.query().is_some() || base.fragment().is_some() {
            return Err(PolicyError::BaseUrl("it carries a user, a query or a fragment".to_owned()));
        }
        if !base_target.https && !allow_private {
            return Err(PolicyError::PlainHttp);
        }
        if let Some(address) = base_target.address()
            && !(is_public(address) || allow_private && is_private(address))
        {
            return Err(PolicyError::Private(address));
        }
        let mut allowed = BTreeSet::from([base_target]);
        for host in hosts {
            let parsed = authority("https", host).filter(|target| target.address().is_none());
            allowed.insert(parsed.ok_or(PolicyError::HostName)?);
        }
        Ok(Self { allowed, allow_private })
    }

    /// The place a request goes to, if it may; else what it asked for, for the log.
    pub(super) fn admit(&self, uri: &Uri) -> Result<&Target, String> {
        let asked = uri.authority().map_or("", http::uri::Authority::as_str);
        authority(uri.scheme_str().unwrap_or_default(), asked)
            .and_then(|target| self.allowed.get(&target))
            // Whatever stands before an `@` may be a secret.
            .ok_or_else(|| asked.rsplit('@').next().unwrap_or_default().to_owned())
    }

    /// Whether a connection to a resolved address is allowed.
    pub(super) fn allows(&self, https: bool, address: IpAddr) -> bool {
        let private = self.allow_private && is_private(address);
        private || https && is_public(address)
    }
}

/// Parses `host[:port]`; `None` if there is anything more in it, such as a user.
fn authority(scheme: &str, text: &str) -> Option<Target> {
    let url = Url::parse(&format!("{scheme}://{text}/")).ok()?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    // The URL standard drops an empty user (`@host`) silently and reads a backslash as a slash.
    let plain = !text.is_empty() && !text.contains(['@', '\\']) && !has_userinfo(&url);
    Target::of(&url).filter(|_| bare && plain)
}

fn has_userinfo(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

impl Target {
    fn of(url: &Url) -> Option<Self> {
        let https = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let host = match url.host()?.to_owned() {
            // One name, one entry: the root's dot changes nothing but the comparison.
            Host::Domain(name) => Host::Domain(name.trim_end_matches('.').to_owned()),
            address => address,
        };
        Some(Self { https, host, port: url.port_or_known_default()? })
    }

    /// The address, where the place has no name.
    pub(super) fn address(&self) -> Option<IpAddr> {
        match &self.host {
            Host::Domain(_) => None,
            Host::Ipv4(address) => Some((*address).into()),
            Host::Ipv6(address) => Some((*address).into()),
        }
    }

    /// The address of a resource there. The default port is left out, as it is in `Host`.
    pub(super) fn uri(&self, path: &str) -> Option<Uri> {
        let (scheme, default) = if self.https { ("https", 443) } else { ("http", 80) };
        let authority = if self.port == default { self.host.to_string() } else { format!("{}:{}", self.host, self.port) };
        Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(policy: &EgressPolicy, uri: &str) -> bool {
        uri.parse::<Uri>().is_ok_and(|uri| policy.admit(&uri).is_ok())
    }

    #[test]
    fn only_listed_places_are_reached() {
        let policy = EgressPolicy::new(
            "https://www.Example.com/api/v1",
            &["cdn.example.net".into(), "alt.example.net:8443".into()],
            false,
        )
        .unwrap();
        for (uri, expected) in [
            ("https://www.example.com/api/v1/x?y=1", true),
            ("https://WWW.EXAMPLE.COM/", true),
            ("https://www.example.com.:443/", true),
            ("https://cdn.example.net/file", true),
            ("https://alt.example.net:8443/", true),
            ("http://www.example.com/", false),
            ("https://www.example.com:444/", false),
            ("https://example.com/", false),
            ("https://evil.www.example.com/", false),
            ("https://www.example.com.evil.net/", false),
            ("https://user@www.example.com/", false),
            ("https://www.example.com@evil.net/", false),
            ("https://@www.example.com/", false),
            ("https://alt.example.net/", false),
            ("https://127.0.0.1/", false),
            ("https://127.1/", false),
            ("https://2130706433/", false),
            ("https://0x7f.0.0.1/", false),
            ("https://017700000001/", false),
            ("https://[::1]/", false),
            ("https://[::ffff:127.0.0.1]/", false),
            ("https://169.254.169.254/", false),
            ("ftp://www.example.com/", false),
            ("/api/v1/x", false),
        ] {
            assert_eq!(admitted(&policy, uri), expected, "{uri}");
        }
    }

    #[test]
    fn a_loopback_address_has_many_spellings_and_one_meaning() {
        let policy = EgressPolicy::new("http://127.0.0.1:8080/", &[], true).unwrap();
        for uri in ["http://127.1:8080/", "http://2130706433:8080/", "http://0x7f.0.0.1:8080/", "http://017700000001:8080/"] {
            assert_eq!(policy.admit(&uri.parse().unwrap()).unwrap().address(), Some([127, 0, 0, 1].into()), "{uri}");
        }
        assert!(!admitted(&policy, "http://127.0.0.2:8080/"));
    }

    #[test]
    fn profiles_that_make_no_policy() {
        let new = |base: &str, private| EgressPolicy::new(base, &[], private).map(|_| ());
        assert_eq!(new("http://example.com/", false), Err(PolicyError::PlainHttp));
        for base in ["https://127.0.0.1/", "https://127.1/", "https://[::1]/", "https://169.254.169.254/", "https://0x7f.1/"] {
            assert!(matches!(new(base, false), Err(PolicyError::Private(_))), "{base}");
        }
        assert_eq!(new("https://127.0.0.1/", true), Ok(()));
        assert!(matches!(new("https://169.254.169.254/", true), Err(PolicyError::Private(_))));
        for base in [
            "",
            "example.com",
            "ftp://example.com",
            "https://u:p@example.com/",
            "https://example.com/?a",
            "https://example.com/#a",
        ] {
            assert!(matches!(new(base, true), Err(PolicyError::BaseUrl(_))), "{base}");
        }
        for host in
            ["", "a b", "user@example.net", "example.net/path", "127.0.0.1", "127.1", "[::1]", "example.net\\@evil.net", "a?b"]
        {
            let made = EgressPolicy::new("https://example.com", &[host.to_owned()], true);
            assert_eq!(made.map(|_| ()), Err(PolicyError::HostName), "{host}");
        }
    }

    #[test]
    fn plain_http_stays_on_private_networks() {
        let policy = EgressPolicy::new("http://dev.example.com/", &[], true).unwrap();
        for (https, address, expected) in [
            (true, "127.0.0.1", true),
            (false, "127.0.0.1", true),
            (true, "8.8.8.8", true),
            (false, "8.8.8.8", false),
            (true, "169.254.169.254", false),
            (false, "169.254.169.254", false),
        ] {
            assert_eq!(policy.allows(https, address.parse().unwrap()), expected, "{https} {address}");
        }
        let strict = EgressPolicy::new("https://example.com/", &[], false).unwrap();
        assert!(!strict.allows(true, [127, 0, 0, 1].into()));
        assert!(!strict.allows(false, [8, 8, 8, 8].into()));
    }
}
