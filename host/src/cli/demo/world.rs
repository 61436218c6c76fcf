//! What the demo runs in: a temporary book, both APIs on it, and the component with a profile for each.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use jiff::Timestamp;
use provisor_providers::PROVIDERS;
use provisor_providers::books::{AccountId, Books, Entry};
use provisor_providers::money::Minor;
use provisor_providers::server::{KeyLimits, Server as Api};
use rand::SeedableRng;
use rand::rngs::StdRng;
use secrecy::{ExposeSecret, SecretString};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::lossy::Lossy;
use crate::cli::Failure;
use crate::clock::{Clock, System};
use crate::plugin::{Caller, Host, Options as PluginOptions, Plugin, Profile};
use crate::server::{Options, Running, start};
use crate::store::{NewKey, Store};
use crate::vault::Vault;

const CREDIT: Minor = Minor(100_000);
const LIMITS: KeyLimits = KeyLimits { per_minute: 6_000, burst: 1_000, per_day: 1_000_000 };

/// A key of the demo's reseller.
#[derive(Clone)]
struct Issued {
    public_id: String,
    secret: SecretString,
}

pub(super) struct World {
    pub(super) store: Store,
    pub(super) account: AccountId,
    pub(super) lossy: Lossy,
    plugin: Plugin,
    keys: BTreeMap<&'static str, Issued>,
    running: Running,
    _directory: TempDir,
}

impl World {
    pub(super) async fn start() -> Result<Self, Failure> {
        let directory = tempfile::tempdir().map_err(Failure::failed)?;
        Vault::create_key(directory.path(), &System.seed()).map_err(Failure::failed)?;
        let vault = Arc::new(Vault::open(directory.path()).map_err(Failure::failed)?);
        let store = Store::open_sqlite(&directory.path().join("demo.db"), vault).map_err(Failure::failed)?;
        let (account, keys) = open_account(&store).await?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(Failure::unreachable)?;
        let options = Options { per_ip_per_minute: 0, ..Options::default() };
        let running = start(listener, store.clone(), Arc::new(System), options).map_err(Failure::failed)?;
        let lossy = Lossy::start(running.address()).await.map_err(Failure::failed)?;
        let host = Host::start(PluginOptions::default()).map_err(Failure::failed)?;
        let plugin = host.builtin().await.map_err(Failure::failed)?;
        Ok(Self { store, account, lossy, plugin, keys, running, _directory: directory })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.running.address()
    }

    pub(super) async fn stop(self) {
        self.running.stop().await;
    }

    /// The component as the demo's profile of a provider sees it, over a way of the demo's choice.
    pub(super) fn caller(&self, provider: &'static str, via: SocketAddr, allow_private: bool) -> Result<Caller, Failure> {
        let scheme = if allow_private { "http" } else { "https" };
        let mount = mount(provider);
        let key = self.keys.get(provider);
        let profile = Profile {
            name: format!("demo-{provider}"),
            provider: provider.to_owned(),
            base_url: Some(format!("{scheme}://{via}{mount}")),
            key: key.map(|key| key.public_id.clone()).unwrap_or_default(),
            secret: key.map(|key| key.secret.clone()).unwrap_or_default(),
            settings: BTreeMap::new(),
            hosts: Vec::new(),
            allow_private,
        };
        self.plugin.bind(profile).map_err(Failure::failed)
    }

    /// The credit left, straight from the book.
    pub(super) fn balance(&self) -> Result<Minor, Failure> {
        let balance = self.store.read(|books| Ok(books.account(self.account).profile()?.balance));
        balance.map_err(Failure::failed)
    }

    /// Lines to paste into a shell while the demo serves on.
    pub(super) fn curl_lines(&self) -> String {
        let secret = |provider| self.keys.get(provider).map(|key: &Issued| key.secret.expose_secret()).unwrap_or_default();
        let key = self.keys.get("kernelhost").map(|key| key.public_id.as_str()).unwrap_or_default();
        include_str!("curl.txt")
            .replace("{kernelhost}", &format!("http://{}{}", self.address(), mount("kernelhost")))
            .replace("{gp}", &format!("http://{}{}", self.address(), mount("gp")))
            .replace("{key}", key)
            .replace("{secret}", secret("kernelhost"))
            .replace("{api_key}", secret("gp"))
    }
}

fn mount(provider: &str) -> &'static str {
    provisor_providers::find(provider).map_or("", |provider| provider.server.mount())
}

/// A reseller with credit, and a key of each API.
async fn open_account(store: &Store) -> Result<(AccountId, BTreeMap<&'static str, Issued>), Failure> {
    let mut rng = StdRng::from_seed(System.seed());
    let mut issue = |api: &dyn Api| Issued { public_id: api.new_key_id(&mut rng, false), secret: api.new_secret(&mut rng) };
    let keys: BTreeMap<_, _> = PROVIDERS.iter().map(|provider| (provider.id, issue(provider.server))).collect();
    let issued = keys.clone();
    let opened = store.transact(move |books| {
        let now = System.now();
        let account = books.create_account("Demo", "demo@example.com", "EUR", now)?;
        books.credit(account, CREDIT, &Entry { at: now, kind: "credit", reference: "demo" })?;
        for (provider, key) in &issued {
            books.create_key(&new_key(account, provider, key.clone()), now)?;
        }
        Ok(account)
    });
    Ok((opened.await.map_err(Failure::failed)?, keys))
}

fn new_key(account: AccountId, provider: &str, Issued { public_id, secret }: Issued) -> NewKey {
    let api = provisor_providers::find(provider).map(|provider| provider.server);
    let scopes = api.map(|api| api.scopes().iter().map(|scope| scope.name.to_owned()).collect()).unwrap_or_default();
    let by_address = api.is_some_and(|api| api.finds_keys_by_address());
    NewKey {
        account,
        provider: provider.to_owned(),
        public_id,
        label: "demo".to_owned(),
        secret,
        scopes,
        allowed: Vec::new(),
        addresses: by_address.then_some(IpAddr::V4(Ipv4Addr::LOCALHOST)).into_iter().collect(),
        limits: LIMITS,
        expires_at: None::<Timestamp>,
    }
}
