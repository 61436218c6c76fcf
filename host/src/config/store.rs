//! Where the books are: a SQLite file, or a PostgreSQL database named by a URL without a password in it.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use url::form_urlencoded;

use super::values::is_host;

/// PostgreSQL's own port.
const PORT: u16 = 5432;
/// More machines than this do not hold one book.
const HOSTS_MAX: usize = 8;
const FORM: &str = "a store is `sqlite:PATH`, such as `sqlite:provisor.db`, or a PostgreSQL database, such as \
                    `postgres://user@host/database` or `postgres:///database?host=/var/run/postgresql`";

const PASSWORD: &str = "no password belongs into the address: name where it is with `password`";

/// Where the books are.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum StoreUrl {
    /// A file; a relative path starts at the data directory.
    Sqlite(PathBuf),
    /// A database on a server of its own, which several hosts may share.
    Postgres(PostgresUrl),
}

/// A PostgreSQL database. There is no password in it, so it may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresUrl {
    /// Where the server may be; the first that takes writes is used.
    pub hosts: Vec<PostgresHost>,
    /// As whom; without one, as the process's own user.
    pub user: Option<String>,
    /// Which database.
    pub database: String,
    /// The certificates that a server's must follow from, as PEM; without it, those that browsers trust.
    pub root_certificates: Option<PathBuf>,
    text: String,
}

/// Where a PostgreSQL server may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostgresHost {
    /// In the directory of its socket, under this port's name.
    Socket(PathBuf, u16),
    /// On the network.
    Network {
        /// A name or an address.
        host: String,
        /// The port.
        port: u16,
        /// Whether the connection is encrypted, and the server known by its certificate.
        tls: bool,
    },
}

impl Default for StoreUrl {
    fn default() -> Self {
        Self::Sqlite("provisor.db".into())
    }
}

impl FromStr for StoreUrl {
    type Err = String;

    /// The text may hold a password, so no error shows it.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("postgres" | "postgresql", rest)) => {
                let rest = rest.strip_prefix("//").ok_or(FORM)?;
                PostgresUrl::parse(rest, text).map(Self::Postgres)
            }
            // Another database's address, which `sqlite:` only precedes, may hold a password.
            Some(("sqlite", path)) if path.contains("://") || names_user(path) => Err(FORM.to_owned()),
            Some(("sqlite", path)) if !path.is_empty() => Ok(Self::Sqlite(path.into())),
            _ => Err(FORM.to_owned()),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(url) => f.write_str(&url.text),
        }
    }
}

/// Whether a path begins like the address of a machine, and with somebody's name on it.
fn names_user(path: &str) -> bool {
    path.strip_prefix("//").and_then(|rest| rest.split('/').next()).is_some_and(|machine| machine.contains('@'))
}

impl PostgresUrl {
    /// `rest` is what follows `postgres://`.
    fn parse(rest: &str, text: &str) -> Result<Self, String> {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = authority.rsplit_once('@').map_or((None, authority), |(user, hosts)| (Some(user), hosts));
        let settings = Settings::read(query)?;
        let user = user.filter(|user| !user.is_empty()).map(decoded);
        if user.as_ref().is_some_and(|user| user.contains([':', '=', ';', ' '])) {
            return Err(PASSWORD.to_owned());
        }
        let database = decoded(database);
        if database.is_empty() {
            return Err(format!("the address names no database; {FORM}"));
        }
        // Behind one of these stands what belongs to another part of an address, a password too. The address is shown.
        if database.contains(['@', ':', '/', '?', '#', '&', ';', '=']) {
            return Err("a database's name has none of @ : / ? # & ; =".to_owned());
        }
        let hosts = settings.hosts(hosts)?;
        Ok(Self { hosts, user, database, root_certificates: settings.root_certificates, text: text.to_owned() })
    }
}

/// What stands behind the question mark.
#[derive(Default)]
struct Settings {
    hosts: Option<String>,
    ports: Option<String>,
    tls: Option<bool>,
    root_certificates: Option<PathBuf>,
}

impl Settings {
    fn read(query: &str) -> Result<Self, String> {
        let mut settings = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                "host" => settings.hosts = Some(value.into_owned()),
                "port" => settings.ports = Some(value.into_owned()),
                "sslmode" => settings.tls = Some(read_tls(&value)?),
                "sslrootcert" if value.starts_with('/') && !value.contains(['=', ';']) => {
                    settings.root_certificates = Some(value.into_owned().into());
                }
                "sslrootcert" => return Err("sslrootcert is a file's absolute path".to_owned()),
                "password" => return Err(PASSWORD.to_owned()),
                _ => return Err("of the address's settings, host, port, sslmode and sslrootcert are known here".to_owned()),
            }
        }
        Ok(settings)
    }

    /// The hosts of the authority, or those of the setting `host`.
    fn hosts(&self, authority: &str) -> Result<Vec<PostgresHost>, String> {
        let listed = match self.hosts.as_deref() {
            Some(_) if !authority.is_empty() => return Err("hosts stand before the path or in `host`, not in both".to_owned()),
            Some(hosts) => hosts,
            None => authority,
        };
        let ports: Vec<&str> = self.ports.as_deref().unwrap_or_default().split(',').filter(|port| !port.is_empty()).collect();
        let hosts: Vec<&str> = listed.split(',').collect();
        if hosts.len() > HOSTS_MAX {
            return Err(format!("at most {HOSTS_MAX} hosts can be named"));
        }
        let numbered = hosts.into_iter().enumerate();
        numbered.map(|(index, host)| self.host(host, ports.get(index).or(ports.last()).copied())).collect()
    }

    fn host(&self, text: &str, port: Option<&str>) -> Result<PostgresHost, String> {
        let decoded = decoded(text);
        let read = |port: &str| port.parse::<u16>().map_err(|_| "a port is a number up to 65535".to_owned());
        let port = port.map(read).transpose()?;
        if decoded.starts_with('/') && !decoded.contains(['=', ';']) {
            return Ok(PostgresHost::Socket(decoded.into(), port.unwrap_or(PORT)));
        }
        let (host, own_port) = split_port(&decoded);
        if host.is_empty() {
            return Err(format!("the address names no host; {FORM}"));
        }
        if !is_host(host) {
            return Err("a host is a name or an address".to_owned());
        }
        let port = own_port.map(read).transpose()?.or(port).unwrap_or(PORT);
        // Whoever says nothing does not send passwords and secrets across a network in the open.
        let tls = self.tls.unwrap_or_else(|| !is_loopback(host));
        Ok(PostgresHost::Network { host: host.to_owned(), port, tls })
    }
}

fn read_tls(mode: &str) -> Result<bool, String> {
    match mode {
        "disable" => Ok(false),
        "require" | "verify-full" => Ok(true),
        _ => Err("sslmode is `disable`, or `require` or `verify-full`, which both verify the server's certificate".to_owned()),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// `[::1]:5432`, `name:5432`, or either without a port.
fn split_port(text: &str) -> (&str, Option<&str>) {
    if let Some((address, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (address, rest.strip_prefix(':'));
    }
    text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
}

fn decoded(text: &str) -> String {
    // The decoder reads `+` as a blank, which it is in forms only.
    let pair = format!("={}", text.replace('+', "%2B").replace('&', "%26"));
    form_urlencoded::parse(pair.as_bytes()).map(|(_, value)| value.into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<PostgresUrl, String> {
        match text.parse()? {
            StoreUrl::Postgres(url) => Ok(url),
            StoreUrl::Sqlite(path) => Err(path.display().to_string()),
        }
    }

    fn network(host: &str, port: u16, tls: bool) -> PostgresHost {
        PostgresHost::Network { host: host.to_owned(), port, tls }
    }

    #[test]
    fn hosts_are_on_the_network_or_in_a_sockets_directory() {
        let socket = |path: &str, port| PostgresHost::Socket(path.into(), port);
        for (text, hosts) in [
            ("postgres://db.example.com/book", vec![network("db.example.com", 5432, true)]),
            ("postgresql://me@10.0.0.1:6000/book?sslmode=disable", vec![network("10.0.0.1", 6000, false)]),
            ("postgres://localhost,[::1]:1/book", vec![network("localhost", 5432, false), network("::1", 1, false)]),
            ("postgres://127.0.0.1/book?sslmode=verify-full", vec![network("127.0.0.1", 5432, true)]),
            ("postgres:///book?host=/run/a", vec![socket("/run/a", 5432)]),
            ("postgres:///book?host=/run/a,/run/b&port=1,2", vec![socket("/run/a", 1), socket("/run/b", 2)]),
            ("postgres://%2Frun%2Fa:/book", vec![socket("/run/a:", 5432)]),
        ] {
            assert_eq!(read(text).unwrap().hosts, hosts, "{text}");
            assert_eq!(StoreUrl::Postgres(read(text).unwrap()).to_string(), text);
        }
        let url = read("postgres://a%40b@h/my%20book?sslrootcert=/etc/ca.pem").unwrap();
        assert_eq!((url.user.as_deref(), url.database.as_str()), (Some("a@b"), "my book"));
        assert_eq!(url.root_certificates, Some("/etc/ca.pem".into()));
    }

    #[test]
    fn a_password_or_what_nobody_knows_is_refused_and_not_repeated() {
        for (text, why) in [
            ("postgres://me:hunter2@h/d", "no password belongs"),
            ("postgres://me%3Ahunter2@h/d", "no password belongs"),
            ("postgres://user=me password=hunter2@h/d", "no password belongs"),
            ("postgres:///d?host=/run;password=hunter2", "a host is"),
            ("postgres://h/d?sslrootcert=/ca.pem;password=hunter2", "sslrootcert is"),
            ("postgres://h/d?password=hunter2", "no password belongs"),
            ("postgres://h/d&password=hunter2", "a database's name"),
            ("postgres://h/d;password=hunter2", "a database's name"),
            ("postgres://h/d%23password%3dhunter2", "a database's name"),
            ("postgres://h/dbname=d password=hunter2", "a database's name"),
            ("postgres://me:12/hunter2@h/d", "a database's name"),
            ("postgres://h/d?host=me:hunter2@x", "hosts stand"),
            ("postgres:///d?host=me:hunter2@x", "a port is"),
            ("postgres:///d?host=hunter2@x", "a host is"),
            ("postgres://host=h password=hunter2/d", "a host is"),
            ("sqlite:postgres://me:hunter2@h/d", "a store is"),
            ("sqlite://me:hunter2@h/d", "a store is"),
            ("postgres://h/d?sslmode=prefer&x=hunter2", "sslmode is"),
            ("postgres://h/d?hunter2=1", "of the address's settings"),
            ("postgres://h", "the address names no database"),
            ("postgres:///d", "the address names no host"),
            ("postgres://h:hunter2/d", "a port is"),
            ("postgres://h/d?sslrootcert=ca.pem", "sslrootcert is"),
            ("postgres:hunter2", "a store is"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(why) && !error.contains("hunter2"), "{text}: {error}");
        }
    }
}
