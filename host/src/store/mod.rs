//! The books' store: work is a closure over one transaction.

mod accounts;
mod audit_log;
mod backfill;
mod backlog;
mod catalogue;
mod copy;
mod deliveries;
mod fence;
mod fold;
mod idempotency;
mod invoices;
mod job;
mod journal;
mod keys;
mod leases;
mod licenses;
mod mails;
mod managed;
mod master_keys;
mod memory;
mod migrations;
mod mounts;
mod orders;
mod outbox;
mod panels;
mod payments;
mod postgres;
mod sandbox;
mod sealed;
mod services;
mod sql;
mod sqlite;
mod summaries;
mod transaction;
mod unowned;
mod upkeep;
mod webhooks;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use provisor_providers::books::Fault;
use rusqlite::Connection;
use secrecy::SecretString;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

pub(crate) use self::audit_log::RawAuditRow;
pub use self::audit_log::StoredAuditRow;
pub(crate) use self::backlog::{Backlog, Queue};
pub use self::catalogue::{Catalogue, CatalogueError};
pub use self::copy::{Copied, Progress, copy};
pub use self::deliveries::{Attempt, Claim, Claimed, Delivery, DeliverySummary, Failing, Then};
use self::job::Asked;
pub(crate) use self::journal::{Kept, Taker, Teller, Untold};
pub use self::journal::{Operation, OperationAttempt, OperationFilter, OperationState};
pub use self::keys::{KeyChange, KeySummary, NewKey};
pub(crate) use self::leases::Schedule;
pub use self::mails::{MailSummary, QueuedMail, Sent};
pub use self::managed::{Managed, ManagedFilter};
pub use self::panels::Panel;
use self::postgres::Pool;
pub use self::sealed::{Resealed, SealedValues};
pub(crate) use self::sql::Value;
pub use self::sqlite::back_up;
use self::sqlite::{Sqlite, Writer};
pub(crate) use self::summaries::{Counts, UntoldSummary};
pub use self::transaction::Transaction;
pub use self::unowned::{Unowned, UnownedFilter};
pub use self::webhooks::WebhookSummary;
use crate::config::PostgresUrl;
use crate::vault::Vault;

/// How many reading connections are kept.
const READERS: usize = 4;

/// A book. Cheap to clone; the last clone dropped ends its writers after what is queued.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    engine: Engine,
    vault: Arc<Vault>,
    sealed: AtomicBool,
}

enum Engine {
    Sqlite { writer: Writer, readers: Mutex<Vec<Connection>>, path: std::path::PathBuf },
    Postgres(Pool),
}

/// Why work was not done. Nothing of it stays, unless that is not known.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The queue is full: try again in a moment.
    #[error("the store is busy")]
    Busy,
    /// The database refused.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// It panicked, or the book could not be written at all; the log says which.
    #[error("the work on the store was not done; the log says why")]
    NotDone,
    /// The connection to the database broke while the work was committed.
    #[error("it is not known whether the work on the store was done")]
    Unknown,
}

impl Store {
    /// Opens the book in a SQLite file, brings its schema up to date and fills an empty one with the default catalogue.
    pub fn open_sqlite(path: &Path, vault: Arc<Vault>) -> Result<Self, Fault> {
        let connection = sqlite::open_writer(path)?;
        let sealed = sqlite::alone(&connection, |sql| prepare(sql, &vault))?;
        let writer = Writer::start(connection, path)?;
        let engine = Engine::Sqlite { writer, readers: Mutex::default(), path: path.to_owned() };
        Ok(Self(Arc::new(Inner { engine, vault, sealed: AtomicBool::new(sealed) })))
    }

    /// Opens the book in a PostgreSQL database, which other hosts may have open too. Otherwise as [`Store::open_sqlite`].
    pub fn open_postgres(url: &PostgresUrl, password: Option<&SecretString>, vault: Arc<Vault>) -> Result<Self, Fault> {
        let (pool, sealed) = Pool::open(url, password, |sql| prepare(sql, &vault))?;
        Ok(Self(Arc::new(Inner { engine: Engine::Postgres(pool), vault, sealed: AtomicBool::new(sealed) })))
    }

    /// Runs work in a transaction and returns once it has committed. Work that fails or panics takes back its own writes alone.
    /// It may be run more than once; only the last run's writes stay.
    pub async fn transact<T, W>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnMut(&mut Transaction<'_>) -> Result<T, Fault> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let vault = Arc::clone(&self.0.vault);
        let asked = Box::new(Asked { work, vault, result: None, sender, runtime: Handle::try_current().ok() });
        match &self.0.engine {
            Engine::Sqlite { writer, .. } => writer.submit(asked)?,
            Engine::Postgres(pool) => pool.submit(asked)?,
        }
        receiver.await.unwrap_or(Err(StoreError::NotDone))
    }

    /// Runs a query on a reading connection, on this thread. It sees everything committed before it began.
    pub fn read<T>(&self, query: impl FnOnce(&mut Transaction<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
        let vault = &self.0.vault;
        let (readers, path) = match &self.0.engine {
            Engine::Sqlite { readers, path, .. } => (readers, path),
            Engine::Postgres(pool) => return pool.read(|sql| query(&mut Transaction::new(sql, vault))),
        };
        // A panic while the list was held left a list: there is nothing half done in it.
        let readers = || readers.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = readers().pop();
        let connection = kept.map_or_else(|| sqlite::open_reader(path), Ok)?;
        let result = query(&mut Transaction::new(&mut Sqlite::new(&connection), vault));
        let mut readers = readers();
        if readers.len() < READERS {
            readers.push(connection);
        }
        result
    }

    /// Whether other hosts may have the book open too.
    pub fn is_shared(&self) -> bool {
        matches!(self.0.engine, Engine::Postgres(_))
    }

    /// What seals the book's secrets.
    pub fn vault(&self) -> &Vault {
        &self.0.vault
    }

    /// Whether the book holds sealed values whose master key is not at hand.
    pub fn is_sealed(&self) -> bool {
        self.0.sealed.load(Ordering::Relaxed)
    }

    /// Looks for master keys that came or went since; whether any did. A book whose key is back is no longer sealed.
    pub async fn refresh_keys(&self) -> Result<bool, StoreError> {
        let is_changed = self.0.vault.refresh().map_err(|error| Fault(error.to_string()))?;
        if is_changed {
            let are_known = self.transact(|books| books.know_master_keys()).await?;
            self.0.sealed.store(!are_known, Ordering::Relaxed);
        }
        Ok(is_changed)
    }
}

/// On a book that is about to be opened: its schema, the default catalogue. Whether it stays sealed.
fn prepare(sql: &mut dyn sql::Sql, vault: &Vault) -> Result<bool, Fault> {
    migrations::run(sql)?;
    let mut books = Transaction::new(sql, vault);
    books.seed()?;
    Ok(!books.know_master_keys()?)
}

/// For a host without a master key, on a database that others may share: a book that knows no key either gets its first from
/// `make`, while no other host can do the same. Otherwise nothing; the host then stays sealed until it is given the others' key.
pub fn first_master_key(
    url: &PostgresUrl,
    password: Option<&SecretString>,
    make: impl FnOnce() -> Result<Vault, Fault>,
) -> Result<Option<Vault>, Fault> {
    postgres::once(url, password, |sql| {
        migrations::run(sql)?;
        if sql.first("SELECT 1 FROM master_keys LIMIT 1", &[])?.is_some() {
            return Ok(None);
        }
        let vault = make()?;
        Transaction::new(sql, &vault).know_master_keys()?;
        Ok(Some(vault))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_commit_is_synchronous() {
        let directory = tempfile::tempdir().unwrap();
        let vault = Arc::new(Vault::open(directory.path()).unwrap());
        let store = Store::open_sqlite(&directory.path().join("book.db"), vault).unwrap();
        let mode = store.transact(|books| books.sql.first("PRAGMA synchronous", &[])?.unwrap().int(0)).await.unwrap();
        assert_eq!(mode, 2);
    }
}
