//! The book of the data directory, opened for a command.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::runtime::Runtime;

use super::{Context, Failure};
use crate::clock::{Clock, System};
use crate::config::{Config, StoreUrl, prepare_data};
use crate::store::Store;
use crate::vault::Vault;

/// The data directory in use: made if it was absent, known to be writable.
pub(super) struct Home {
    pub(super) directory: PathBuf,
    pub(super) config: Config,
    pub(super) vault: Arc<Vault>,
}

impl Context {
    /// The data directory with its configuration and master keys. A new one gets its first master key.
    pub(super) fn home(&self) -> Result<Home, Failure> {
        let directory = self.paths.data()?;
        let config = self.paths.configuration(&self.environment)?;
        prepare_data(&directory).map_err(Failure::usage)?;
        let mut vault = Vault::open(&directory).map_err(Failure::usage)?;
        // A book without its key is not new: it stays sealed until the operator puts the key back.
        if vault.is_sealed() && !book_file(&directory, &config).exists() {
            let file = Vault::create_key(&directory, &System.seed()).map_err(Failure::failed)?;
            tracing::warn!(
                "made a master key: {}. Keep a copy of it elsewhere: without it, no secret in the book can be read",
                file.display()
            );
            vault = Vault::open(&directory).map_err(Failure::failed)?;
        }
        Ok(Home { directory, config, vault: Arc::new(vault) })
    }

    /// The book. Other processes may have it open too.
    pub(super) fn book(&self) -> Result<Store, Failure> {
        self.home()?.book()
    }
}

impl Home {
    /// The book of this directory.
    pub(super) fn book(&self) -> Result<Store, Failure> {
        let file = book_file(&self.directory, &self.config);
        Store::open_sqlite(&file, Arc::clone(&self.vault)).map_err(|error| {
            Failure::failed(anyhow::Error::from(error).context(format!("cannot open the book {}", file.display())))
        })
    }
}

fn book_file(directory: &std::path::Path, config: &Config) -> PathBuf {
    let StoreUrl::Sqlite(path) = &config.store.url;
    directory.join(path)
}

/// Runs a command's asynchronous part.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    Runtime::new().map_err(Failure::failed)?.block_on(work)
}
