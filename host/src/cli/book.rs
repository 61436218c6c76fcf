//! The book of the data directory, opened for a command.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use provisor_providers::books::{AccountId, AuditRow, Books as _, Fault};
use secrecy::SecretString;
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

use super::{Context, Failure};
use crate::clock::{Clock, System};
use crate::config::{Config, Environment, StoreUrl, prepare_data};
use crate::store::{Store, Transaction, first_master_key};
use crate::telemetry::request_id;
use crate::vault::Vault;

/// The data directory in use: made if it was absent, known to be writable.
pub(super) struct Home {
    pub(super) directory: PathBuf,
    pub(super) config: Config,
    pub(super) vault: Arc<Vault>,
    database_password: Option<SecretString>,
}

impl Context {
    /// The data directory with its configuration and master keys. A new one gets its first master key.
    pub(super) fn home(&self) -> Result<Home, Failure> {
        let directory = self.paths.data()?;
        let config = self.paths.configuration(&self.environment)?;
        prepare_data(&directory).map_err(Failure::usage)?;
        let vault = Arc::new(Vault::open(&directory).map_err(Failure::usage)?);
        let database_password = database_password(&config.store.url, &config, &self.environment)?;
        let mut home = Home { directory, config, vault, database_password };
        // A book without its key is not new: it stays sealed until the operator puts the key back.
        if home.vault.is_sealed()
            && let Some(vault) = home.first_key()?
        {
            home.vault = Arc::new(vault);
        }
        Ok(home)
    }

    /// The book. Other processes may have it open too.
    pub(super) fn book(&self) -> Result<Store, Failure> {
        self.home()?.book()
    }
}

/// Read only where there is a database that may ask for it.
pub(super) fn database_password(
    url: &StoreUrl,
    config: &Config,
    environment: &Environment,
) -> Result<Option<SecretString>, Failure> {
    match (url, &config.store.password) {
        (StoreUrl::Postgres(_), Some(password)) => password.read(environment).map(Some).map_err(Failure::usage),
        _ => Ok(None),
    }
}

impl Home {
    /// The book of this directory's configuration.
    pub(super) fn book(&self) -> Result<Store, Failure> {
        let vault = Arc::clone(&self.vault);
        let url = &self.config.store.url;
        let opened = match url {
            StoreUrl::Sqlite(path) => Store::open_sqlite(&self.directory.join(path), vault),
            StoreUrl::Postgres(url) => Store::open_postgres(url, self.database_password.as_ref(), vault),
        };
        opened.map_err(|fault| self.cannot_open(fault))
    }

    /// The first master key of a new book.
    fn first_key(&self) -> Result<Option<Vault>, Failure> {
        let make = || {
            let file = Vault::create_key(&self.directory, &Zeroizing::new(System.seed()))?;
            tracing::warn!(
                "made a master key: {}. Keep a copy of it elsewhere: without it, no secret in the book can be read",
                file.display()
            );
            Vault::open(&self.directory)
        };
        match &self.config.store.url {
            StoreUrl::Sqlite(path) if self.directory.join(path).exists() => Ok(None),
            StoreUrl::Sqlite(_) => make().map(Some).map_err(Failure::failed),
            StoreUrl::Postgres(url) => {
                let make = || make().map_err(|error| Fault(error.to_string()));
                first_master_key(url, self.database_password.as_ref(), make).map_err(|fault| self.cannot_open(fault))
            }
        }
    }

    fn cannot_open(&self, fault: Fault) -> Failure {
        let what = match &self.config.store.url {
            StoreUrl::Sqlite(path) => self.directory.join(path).display().to_string(),
            StoreUrl::Postgres(_) => self.config.store.url.to_string(),
        };
        Failure::failed(anyhow::Error::from(fault).context(format!("cannot open the book {what}")))
    }
}

/// What an operator does to a reseller, or to a key or an order of one, stands in the reseller's chain.
pub(super) fn note(
    books: &mut Transaction<'_>,
    account: AccountId,
    key_id: Option<&str>,
    event: &str,
    what: Option<&str>,
) -> Result<(), Fault> {
    books.audit(&AuditRow {
        account: Some(account),
        key_id: key_id.map(str::to_owned),
        detail: Some(what.map_or_else(|| "by the operator".to_owned(), |what| format!("by the operator: {what}"))),
        ..AuditRow::of_event(event, System.now(), IpAddr::V4(Ipv4Addr::LOCALHOST), request_id(&System))
    })
}

/// Runs a command's asynchronous part.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    Runtime::new().map_err(Failure::failed)?.block_on(work)
}
