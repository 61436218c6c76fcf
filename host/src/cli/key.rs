//! `provisor key`: keys to the APIs that this server offers.

use std::net::IpAddr;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use ipnet::{IpNet, Ipv4Net};
use jiff::Timestamp;
use provisor_providers::PROVIDERS;
use provisor_providers::books::{AccountId, Fault};
use provisor_providers::server::{KeyLimits, Server as Api};
use rand::SeedableRng;
use rand::rngs::StdRng;
use secrecy::SecretString;
use serde::Serialize;

use super::book::{self, block_on};
use super::output::Shown;
use super::{Context, Exit, Failure};
use crate::clock::{Clock, System};
use crate::config::Network;
use crate::store::{KeyChange, KeySummary, NewKey, Store, Transaction};

/// Make, list, change, rotate, unlock and revoke keys
#[derive(Args)]
#[command(after_help = "\
Examples:
  provisor key create --reseller 1 --provider kernelhost --scopes all
  provisor key create --reseller 1 --provider kernelhost --ip 203.0.113.0/24 --ip 2001:db8::/48
  provisor key create --reseller 1 --provider gp --ip 203.0.113.7
  provisor key set kh_live_... --per-minute 600 --burst 100 --expires 2027-12-31
  provisor key rotate kh_live_...          a new secret; the old one counts no more
  provisor key unlock kh_live_...          ends its locks now

Every change counts at once, also in servers that are running.

A secret is shown once, when it is made. Keep it where secrets are kept.")]
pub(super) struct Key {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a key and show its secret, once
    Create(Create),
    /// List the keys, never their secrets
    List {
        /// Only this reseller's
        #[arg(long, value_name = "ID")]
        reseller: Option<i64>,
    },
    /// Show a key, its limits and locks
    Show {
        /// The key's public id, as `key list` shows it
        id: String,
    },
    /// Change a key's label, scopes, addresses, limits or end
    Set(Set),
    /// End every lock of a key now
    Unlock {
        /// The key's public id, as `key list` shows it
        id: String,
    },
    /// Revoke a key for good
    Revoke {
        /// The key's public id, as `key list` shows it
        id: String,
    },
    /// Give a key a new secret and show it, once; the old one counts no more
    Rotate {
        /// The key's public id, as `key list` shows it
        id: String,
    },
}

#[derive(Args)]
struct Create {
    /// Whose key
    #[arg(long, value_name = "ID")]
    reseller: i64,
    /// Which API
    #[arg(long, value_name = "NAME")]
    provider: String,
    /// What it may do: names from the API's documentation, `all` or `none` [default: reading, credentials aside]
    #[arg(long, value_delimiter = ',', value_name = "SCOPES")]
    scopes: Vec<String>,
    /// Where it may be used from, as address or network; GP keys are found by exactly one address
    #[arg(long = "ip", value_name = "CIDR")]
    ips: Vec<String>,
    /// A name for it
    #[arg(long, default_value = "")]
    label: String,
    /// Requests per minute
    #[arg(long, value_name = "N", default_value_t = KeyLimits::default().per_minute)]
    per_minute: u32,
    /// Requests at once
    #[arg(long, value_name = "N", default_value_t = KeyLimits::default().burst)]
    burst: u32,
    /// Requests per UTC day
    #[arg(long, value_name = "N", default_value_t = KeyLimits::default().per_day)]
    per_day: u32,
    /// Until when it may be used: a date, or a moment such as 2027-01-15T08:00:00Z [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    expires: Option<Timestamp>,
}

#[derive(Args)]
struct Set {
    /// The key's public id, as `key list` shows it
    id: String,
    /// A name for it
    #[arg(long)]
    label: Option<String>,
    /// What it may do: names from the API's documentation, or `all`
    #[arg(long, value_delimiter = ',', value_name = "SCOPES")]
    scopes: Vec<String>,
    /// Where it may be used from, instead of where it could until now
    #[arg(long = "ip", value_name = "CIDR", conflicts_with = "anywhere")]
    ips: Vec<String>,
    /// It may be used from everywhere
    #[arg(long)]
    anywhere: bool,
    /// Requests per minute
    #[arg(long, value_name = "N")]
    per_minute: Option<u32>,
    /// Requests at once
    #[arg(long, value_name = "N")]
    burst: Option<u32>,
    /// Requests per UTC day
    #[arg(long, value_name = "N")]
    per_day: Option<u32>,
    /// Until when it may be used: a date, or a moment such as 2027-01-15T08:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment, conflicts_with = "never_expires")]
    expires: Option<Timestamp>,
    /// It may be used for ever
    #[arg(long)]
    never_expires: bool,
}

/// A date is its first moment, UTC.
fn moment(text: &str) -> Result<Timestamp, String> {
    let moment = text.parse().or_else(|_| format!("{text}T00:00:00Z").parse());
    moment.map_err(|_: jiff::Error| "neither a date such as 2027-12-31 nor a moment such as 2027-12-31T18:00:00Z".to_owned())
}

pub(super) fn run(command: Key, context: &Context) -> Result<Exit, Failure> {
    match command.command {
        Command::Create(create) => self::create(context, create),
        Command::List { reseller } => list(context, reseller.map(AccountId)),
        Command::Show { id } => show(context, &id),
        Command::Set(set) => change(context, set),
        Command::Unlock { id } => unlock(context, &id),
        Command::Revoke { id } => revoke(context, &id),
        Command::Rotate { id } => rotate(context, &id),
    }
}

/// What is shown once. An API that names no key in its requests has an API key, the others a key and its secret.
#[derive(Serialize)]
#[serde(untagged)]
enum Once {
    KeyAndSecret { key: String, secret: Shown },
    ApiKey { id: String, api_key: Shown },
}

impl Once {
    fn new(api: &dyn Api, public_id: String, secret: SecretString) -> Self {
        if api.finds_keys_by_address() {
            Self::ApiKey { id: public_id, api_key: Shown(secret) }
        } else {
            Self::KeyAndSecret { key: public_id, secret: Shown(secret) }
        }
    }

    fn people(&self) -> String {
        match self {
            Self::KeyAndSecret { key, secret } => format!("key     {key}\nsecret  {}", secret.text()),
            Self::ApiKey { id, api_key } => format!("id       {id}\napi key  {}", api_key.text()),
        }
    }
}

fn create(context: &Context, create: Create) -> Result<Exit, Failure> {
    let api = api(&create.provider)?;
    let (allowed, addresses) = places(api, &create.ips)?;
    let store = context.book()?;
    let is_sandbox = store.read(|books| books.is_sandbox()).map_err(Failure::failed)?;
    let mut rng = StdRng::from_seed(System.seed());
    let (public_id, secret) = (api.new_key_id(&mut rng, is_sandbox), api.new_secret(&mut rng));
    let account = AccountId(create.reseller);
    let key = NewKey {
        account,
        scopes: scopes(api, create.scopes)?,
        provider: create.provider,
        public_id: public_id.clone(),
        label: create.label,
        secret: secret.clone(),
        allowed,
        addresses,
        limits: KeyLimits { per_minute: create.per_minute, burst: create.burst, per_day: create.per_day },
        expires_at: create.expires,
    };
    let made = block_on(async move {
        let made = store.transact(move |books| {
            if !books.has_account(account)? {
                return Ok(None);
            }
            note(books, account, &key.public_id, "key.created")?;
            books.create_key(&key, System.now()).map(Some)
        });
        made.await.map_err(Failure::failed)
    })?;
    if made.is_none() {
        return Err(Failure::usage(anyhow!("there is no reseller {}; `provisor reseller list` shows them", account.0)));
    }
    context.output.record(&Once::new(api, public_id, secret), Once::people)?;
    Ok(Exit::Done)
}

fn api(provider: &str) -> Result<&'static dyn Api, Failure> {
    let found = provisor_providers::find(provider).ok_or_else(|| {
        let known: Vec<&str> = PROVIDERS.iter().map(|provider| provider.id).collect();
        Failure::usage(anyhow!("there is no API `{provider}`; there are: {}", known.join(", ")))
    })?;
    Ok(found.server)
}

fn scopes(api: &dyn Api, asked: Vec<String>) -> Result<Vec<String>, Failure> {
    let known = api.scopes();
    if asked.is_empty() {
        return Ok(known.iter().filter(|scope| scope.by_default).map(|scope| scope.name.to_owned()).collect());
    }
    if asked == ["all"] {
        return Ok(known.iter().map(|scope| scope.name.to_owned()).collect());
    }
    if asked == ["none"] {
        return Ok(Vec::new());
    }
    match asked.iter().find(|name| known.iter().all(|scope| scope.name != **name)) {
        None => Ok(asked),
        Some(unknown) => {
            let names: Vec<&str> = known.iter().map(|scope| scope.name).collect();
            Err(Failure::usage(anyhow!("there is no scope `{unknown}`; there are: {}", names.join(", "))))
        }
    }
}

/// The networks a key may be used from, or the one address it is found by.
fn places(api: &dyn Api, ips: &[String]) -> Result<(Vec<IpNet>, Vec<IpAddr>), Failure> {
    if api.finds_keys_by_address() {
        return match ips {
            [one] => {
                let address = one.parse().map_err(|_| Failure::usage(anyhow!("`{one}` is not an address")))?;
                Ok((Vec::new(), vec![address]))
            }
            _ => Err(Failure::usage(anyhow!("a key of this API is found by exactly one address: give --ip once"))),
        };
    }
    let network = |text: &String| {
        text.parse::<Network>().map(|Network(network)| unmapped(network)).map_err(|error: String| Failure::usage(anyhow!(error)))
    };
    Ok((ips.iter().map(network).collect::<Result<_, _>>()?, Vec::new()))
}

/// Callers' IPv4 addresses are compared as such, however a network was written.
fn unmapped(network: IpNet) -> IpNet {
    if let IpNet::V6(v6) = network
        && let (Some(address), Some(length)) = (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96))
        && let Ok(v4) = Ipv4Net::new(address, length)
    {
        return v4.into();
    }
    network
}

#[derive(Serialize)]
struct Listed {
    id: String,
    reseller: i64,
    provider: String,
    label: String,
    scopes: Vec<String>,
    ip: Vec<String>,
    created_at: String,
    last_used_at: Option<String>,
    expires_at: Option<String>,
    per_minute: u32,
    burst: u32,
    per_day: u32,
    locks: Vec<Locked>,
    revoked: bool,
    #[serde(skip)]
    is_expired: bool,
}

#[derive(Serialize)]
struct Locked {
    /// Without one, everybody.
    network: Option<String>,
    until: String,
}

impl From<KeySummary> for Listed {
    fn from(key: KeySummary) -> Self {
        let now = System.now();
        let locks = key.locks.into_iter().filter(|lock| lock.until > now);
        Self {
            id: key.public_id,
            reseller: key.account.0,
            provider: key.provider,
            label: key.label,
            scopes: key.scopes,
            ip: key.allowed,
            created_at: key.created_at.to_string(),
            last_used_at: key.last_used_at.map(|at| at.to_string()),
            is_expired: key.expires_at.is_some_and(|end| end <= now),
            expires_at: key.expires_at.map(|at| at.to_string()),
            per_minute: key.limits.per_minute,
            burst: key.limits.burst,
            per_day: key.limits.per_day,
            locks: locks.map(|lock| Locked { network: lock.network, until: lock.until.to_string() }).collect(),
            revoked: key.revoked,
        }
    }
}

impl Listed {
    fn state(&self) -> String {
        let state = match self {
            Self { revoked: true, .. } => "revoked",
            Self { is_expired: true, .. } => "expired",
            Self { locks, .. } if !locks.is_empty() => "locked",
            _ => "",
        };
        state.to_owned()
    }

    fn people(&self) -> String {
        let from = if self.ip.is_empty() { "anywhere".to_owned() } else { self.ip.join(" ") };
        let or = |value: &Option<String>, otherwise: &str| value.clone().unwrap_or_else(|| otherwise.to_owned());
        let mut lines = vec![
            format!("id         {}", self.id),
            format!("reseller   {}", self.reseller),
            format!("provider   {}", self.provider),
            format!("label      {}", self.label),
            format!("scopes     {}", self.scopes.join(" ")),
            format!("from       {from}"),
            format!("limits     {} a minute, {} at once, {} a day", self.per_minute, self.burst, self.per_day),
            format!("made       {}", self.created_at),
            format!("last used  {}", or(&self.last_used_at, "never")),
            format!("expires    {}", or(&self.expires_at, "never")),
        ];
        lines.extend(self.locks.iter().map(|lock| format!("locked     {} until {}", or(&lock.network, "everybody"), lock.until)));
        if self.revoked {
            lines.push("revoked".to_owned());
        }
        lines.join("\n")
    }
}

fn list(context: &Context, account: Option<AccountId>) -> Result<Exit, Failure> {
    let keys = context.book()?.read(|books| books.keys(account)).map_err(Failure::failed)?;
    let listed: Vec<Listed> = keys.into_iter().map(Listed::from).collect();
    context.output.records(["id", "reseller", "provider", "label", "from", "last used", ""], &listed, |key| {
        let from = if key.ip.is_empty() { "anywhere".to_owned() } else { key.ip.join(" ") };
        let used = key.last_used_at.clone().unwrap_or_else(|| "never".to_owned());
        [key.id.clone(), key.reseller.to_string(), key.provider.clone(), key.label.clone(), from, used, key.state()]
    })?;
    Ok(Exit::Done)
}

/// Ids of different APIs look different, so that the id alone tells which API it belongs to.
fn known(context: &Context, id: &str) -> Result<(Store, &'static dyn Api, KeySummary), Failure> {
    let store = context.book()?;
    let key = store.read(|books| books.key(id)).map_err(Failure::failed)?.filter(|key| !key.revoked);
    let key = key.ok_or_else(|| Failure::usage(anyhow!("no key in use has this id; `provisor key list` shows them")))?;
    Ok((store, api(&key.provider)?, key))
}

/// What an operator does to a key stands in its owner's chain.
fn note(books: &mut Transaction<'_>, account: AccountId, public_id: &str, event: &str) -> Result<(), Fault> {
    book::note(books, account, Some(public_id), event, None)
}

fn show(context: &Context, id: &str) -> Result<Exit, Failure> {
    let key = context.book()?.read(|books| books.key(id)).map_err(Failure::failed)?;
    let key = key.ok_or_else(|| Failure::usage(anyhow!("no key has this id; `provisor key list` shows them")))?;
    context.output.record(&Listed::from(key), Listed::people)?;
    Ok(Exit::Done)
}

fn change(context: &Context, set: Set) -> Result<Exit, Failure> {
    let (store, api, key) = known(context, &set.id)?;
    let (allowed, addresses) = match (set.anywhere, set.ips.as_slice()) {
        (true, _) if api.finds_keys_by_address() => {
            return Err(Failure::usage(anyhow!("a key of this API is found by its address: it cannot be used from everywhere")));
        }
        (true, _) => (Some(Vec::new()), None),
        (false, []) => (None, None),
        (false, ips) => {
            let (allowed, addresses) = places(api, ips)?;
            (Some(allowed), Some(addresses))
        }
    };
    let scopes = if set.scopes.is_empty() { None } else { Some(scopes(api, set.scopes)?) };
    let expires_at = if set.never_expires { Some(None) } else { set.expires.map(Some) };
    let (per_minute, burst, per_day) = (set.per_minute, set.burst, set.per_day);
    let change = KeyChange { label: set.label, scopes, allowed, addresses, per_minute, burst, per_day, expires_at };
    let id = set.id;
    let changed = block_on(async {
        let id = id.clone();
        let changed = store.transact(move |books| {
            note(books, key.account, &id, "key.changed")?;
            books.change_key(&key.provider, &id, &change)?;
            books.key(&id)
        });
        changed.await.map_err(Failure::failed)
    })?;
    let changed = changed.ok_or_else(|| Failure::failed(anyhow!("the key `{id}` is gone")))?;
    context.output.record(&Listed::from(changed), Listed::people)?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Unlocked<'a> {
    id: &'a str,
    locks: usize,
}

fn unlock(context: &Context, id: &str) -> Result<Exit, Failure> {
    let (store, _, key) = known(context, id)?;
    let public_id = id.to_owned();
    let locks = block_on(async move {
        let unlocked = store.transact(move |books| {
            note(books, key.account, &public_id, "key.unlocked")?;
            books.unlock_key(&key.provider, &public_id, System.now())
        });
        unlocked.await.map_err(Failure::failed)
    })?;
    context.output.record(&Unlocked { id, locks }, |unlocked| match unlocked.locks {
        0 => format!("{} was not locked", unlocked.id),
        _ => format!("{} is unlocked", unlocked.id),
    })?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Revoked<'a> {
    id: &'a str,
    revoked: bool,
}

fn revoke(context: &Context, id: &str) -> Result<Exit, Failure> {
    let (store, _, key) = known(context, id)?;
    let public_id = id.to_owned();
    block_on(async move {
        let revoked = store.transact(move |books| {
            note(books, key.account, &public_id, "key.revoked")?;
            books.revoke_key(&key.provider, &public_id, System.now())
        });
        revoked.await.map_err(Failure::failed)
    })?;
    context.output.record(&Revoked { id, revoked: true }, |revoked| format!("{} is revoked", revoked.id))?;
    Ok(Exit::Done)
}

fn rotate(context: &Context, id: &str) -> Result<Exit, Failure> {
    let (store, api, key) = known(context, id)?;
    let secret = api.new_secret(&mut StdRng::from_seed(System.seed()));
    let (public_id, successor) = (id.to_owned(), secret.clone());
    block_on(async move {
        let rotated = store.transact(move |books| {
            note(books, key.account, &public_id, "key.rotated")?;
            books.rotate_key(&key.provider, &public_id, &successor)
        });
        rotated.await.map_err(Failure::failed)
    })?;
    context.output.record(&Once::new(api, id.to_owned(), secret), Once::people)?;
    Ok(Exit::Done)
}
