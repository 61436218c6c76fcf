//! `provisor key`: keys to the APIs that this server offers.

use std::net::IpAddr;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use ipnet::IpNet;
use provisor_providers::PROVIDERS;
use provisor_providers::books::AccountId;
use provisor_providers::server::{Issued, KeyLimits, Server as Api};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Serialize;

use super::book::block_on;
use super::output::Shown;
use super::{Context, Exit, Failure};
use crate::clock::{Clock, System};
use crate::config::Network;
use crate::store::NewKey;

/// Make, list, rotate and revoke keys
#[derive(Args)]
#[command(after_help = "\
Examples:
  provisor key create --reseller 1 --provider kernelhost --scopes all
  provisor key create --reseller 1 --provider kernelhost --ip 203.0.113.0/24 --ip 2001:db8::/48
  provisor key create --reseller 1 --provider gp --ip 203.0.113.7
  provisor key rotate kh_live_...          a new secret; the old one counts no more

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
}

pub(super) fn run(command: Key, context: &Context) -> Result<Exit, Failure> {
    match command.command {
        Command::Create(create) => self::create(context, create),
        Command::List { reseller } => list(context, reseller.map(AccountId)),
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
    fn new(api: &dyn Api, Issued { public_id, secret }: Issued) -> Self {
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
    let issued = api.issue_key(&mut StdRng::from_seed(System.seed()));
    let account = AccountId(create.reseller);
    let key = NewKey {
        account,
        scopes: scopes(api, create.scopes)?,
        provider: create.provider,
        public_id: issued.public_id.clone(),
        label: create.label,
        secret: issued.secret.clone(),
        allowed,
        addresses,
        limits: KeyLimits { per_minute: create.per_minute, burst: create.burst, per_day: create.per_day },
        expires_at: None,
    };
    let store = context.book()?;
    let made =
        block_on(async move {
            let made = store.transact(move |books| {
                if books.has_account(account)? { books.create_key(&key, System.now()).map(Some) } else { Ok(None) }
            });
            made.await.map_err(Failure::failed)
        })?;
    if made.is_none() {
        return Err(Failure::usage(anyhow!("there is no reseller {}; `provisor reseller list` shows them", account.0)));
    }
    context.output.record(&Once::new(api, issued), Once::people)?;
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
        text.parse::<Network>().map(|Network(network)| network).map_err(|error: String| Failure::usage(anyhow!(error)))
    };
    Ok((ips.iter().map(network).collect::<Result<_, _>>()?, Vec::new()))
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
    revoked: bool,
}

fn list(context: &Context, account: Option<AccountId>) -> Result<Exit, Failure> {
    let keys = context.book()?.read(|books| books.keys(account)).map_err(Failure::failed)?;
    let listed: Vec<Listed> = keys
        .into_iter()
        .map(|key| Listed {
            id: key.public_id,
            reseller: key.account.0,
            provider: key.provider,
            label: key.label,
            scopes: key.scopes,
            ip: key.allowed,
            created_at: key.created_at.to_string(),
            last_used_at: key.last_used_at.map(|at| at.to_string()),
            revoked: key.revoked,
        })
        .collect();
    context.output.records(["id", "reseller", "provider", "label", "from", "last used", ""], &listed, |key| {
        let from = if key.ip.is_empty() { "anywhere".to_owned() } else { key.ip.join(" ") };
        let used = key.last_used_at.clone().unwrap_or_else(|| "never".to_owned());
        let revoked = if key.revoked { "revoked" } else { "" };
        [key.id.clone(), key.reseller.to_string(), key.provider.clone(), key.label.clone(), from, used, revoked.to_owned()]
    })?;
    Ok(Exit::Done)
}

/// Ids of different APIs look different, so that the id alone tells which API it belongs to.
fn known(context: &Context, id: &str) -> Result<(crate::store::Store, &'static dyn Api, String), Failure> {
    let store = context.book()?;
    let keys = store.read(|books| books.keys(None)).map_err(Failure::failed)?;
    let key = keys.into_iter().find(|key| key.public_id == id && !key.revoked);
    let key = key.ok_or_else(|| Failure::usage(anyhow!("no key in use has the id `{id}`; `provisor key list` shows them")))?;
    Ok((store, api(&key.provider)?, key.provider))
}

#[derive(Serialize)]
struct Revoked<'a> {
    id: &'a str,
    revoked: bool,
}

fn revoke(context: &Context, id: &str) -> Result<Exit, Failure> {
    let (store, _, provider) = known(context, id)?;
    let public_id = id.to_owned();
    block_on(async move {
        let revoked = store.transact(move |books| books.revoke_key(&provider, &public_id, System.now()));
        revoked.await.map_err(Failure::failed)
    })?;
    context.output.record(&Revoked { id, revoked: true }, |revoked| format!("{} is revoked", revoked.id))?;
    Ok(Exit::Done)
}

fn rotate(context: &Context, id: &str) -> Result<Exit, Failure> {
    let (store, api, provider) = known(context, id)?;
    let issued = Issued { public_id: id.to_owned(), ..api.issue_key(&mut StdRng::from_seed(System.seed())) };
    let (public_id, secret) = (issued.public_id.clone(), issued.secret.clone());
    block_on(async move {
        let rotated = store.transact(move |books| books.rotate_key(&provider, &public_id, &secret));
        rotated.await.map_err(Failure::failed)
    })?;
    context.output.record(&Once::new(api, issued), Once::people)?;
    Ok(Exit::Done)
}
