//! The books' store: work is a closure over one transaction.

mod accounts;
mod audit_log;
mod catalogue;
mod idempotency;
mod keys;
mod licenses;
mod master_keys;
mod migrations;
mod mounts;
mod orders;
mod outbox;
mod sealed;
mod services;
mod sql;
mod sqlite;
mod transaction;
mod upkeep;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use provisor_providers::books::Fault;
use rusqlite::Connection;
use tokio::sync::oneshot;

pub use self::audit_log::StoredAuditRow;
pub(crate) use self::audit_log::{AUDIT_BLOCK, AuditRows, RawAuditRow};
pub use self::catalogue::{Catalogue, CatalogueError};
pub use self::keys::{KeyChange, KeySummary, NewKey};
pub use self::sealed::{Resealed, SealedValues};
pub(crate) use self::sql::Value;
use self::sqlite::{Done, Sqlite, Writer};
pub use self::transaction::Transaction;
use crate::vault::Vault;

/// How many reading connections are kept.
const READERS: usize = 4;

/// A book. Cheap to clone; the last clone dropped ends the writer after what is queued.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    writer: Writer,
    readers: Mutex<Vec<Connection>>,
    path: std::path::PathBuf,
    vault: Arc<Vault>,
    sealed: AtomicBool,
}

/// Why work was not done. In every case nothing of it stays.
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
}

impl Store {
    /// Opens the book in a SQLite file, brings its schema up to date and fills an empty one with the default catalogue.
    pub fn open_sqlite(path: &Path, vault: Arc<Vault>) -> Result<Self, Fault> {
        let connection = sqlite::open_writer(path)?;
        let mut engine = Sqlite(&connection);
        migrations::run(&mut engine)?;
        let mut books = Transaction::new(&mut engine, &vault);
        books.seed()?;
        let sealed = AtomicBool::new(!books.know_master_keys()?);
        let writer = Writer::start(connection).map_err(|error| Fault(format!("cannot start the writer: {error}")))?;
        Ok(Self(Arc::new(Inner { writer, readers: Mutex::default(), path: path.to_owned(), vault, sealed })))
    }

    /// Runs work in a transaction and returns once it has committed. Work that fails or panics takes back its own writes alone.
    /// It may be run more than once; only the last run's writes stay.
    pub async fn transact<T, W>(&self, mut work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnMut(&mut Transaction<'_>) -> Result<T, Fault> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let vault = Arc::clone(&self.0.vault);
        let job = Box::new(move |engine: &mut dyn sql::Sql| {
            let result = work(&mut Transaction::new(engine, &vault));
            let keep = result.is_ok();
            let reply = Box::new(move |committed: Result<(), Fault>| {
                // A caller that has gone away does not want the answer.
                let _unheard = sender.send(committed.and(result));
            });
            Done { keep, reply }
        });
        self.0.writer.submit(job).map_err(|_| StoreError::Busy)?;
        match receiver.await {
            Ok(result) => Ok(result?),
            Err(_) => Err(StoreError::NotDone),
        }
    }

    /// Runs a query on a reading connection, on this thread. It sees everything committed before it began.
    pub fn read<T>(&self, query: impl FnOnce(&mut Transaction<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
        let connection = match self.readers().pop() {
            Some(connection) => connection,
            None => sqlite::open_reader(&self.0.path)?,
        };
        let result = query(&mut Transaction::new(&mut Sqlite(&connection), &self.0.vault));
        let mut readers = self.readers();
        if readers.len() < READERS {
            readers.push(connection);
        }
        result
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

    fn readers(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        // A panic while the list was held left a list: there is nothing half done in it.
        self.0.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use provisor_providers::books::{Attempted, Books, Entry, Keep};
    use provisor_providers::money::Minor;

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn open(directory: &Path) -> Store {
        if !directory.join("master.key.v1").exists() {
            Vault::create_key(directory, &[7; 32]).unwrap();
        }
        Store::open_sqlite(&directory.join("book.db"), Arc::new(Vault::open(directory).unwrap())).unwrap()
    }

    const ENTRY: fn() -> Entry<'static> = || Entry { at: now(), kind: "test", reference: "1" };

    async fn balance(store: &Store, id: provisor_providers::books::AccountId) -> Minor {
        store.transact(move |books| Ok(books.account(id).profile()?.balance)).await.unwrap()
    }

    #[tokio::test]
    async fn work_that_fails_or_panics_takes_back_its_own_writes_and_no_neighbours() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        let id = store.transact(|books| books.create_account("A", "a@example.com", "EUR", now())).await.unwrap();
        // Queued while the writer sleeps, so that the three share one commit.
        let slow = store.transact(|_| {
            std::thread::sleep(Duration::from_millis(50));
            Ok(())
        });
        let good = store.transact(move |books| books.credit(id, Minor(100), &ENTRY()));
        let failing = store.transact(move |books| {
            books.credit(id, Minor(1000), &ENTRY())?;
            Err::<(), _>(Fault("on purpose".to_owned()))
        });
        let panicking = store.transact(move |books| {
            books.credit(id, Minor(10_000), &ENTRY())?;
            if books.has_account(id)? { panic!("on purpose") } else { Ok(()) }
        });
        let (_, good, failing, panicking) = tokio::join!(slow, good, failing, panicking);
        assert_eq!(good.unwrap(), Some(Minor(100)));
        assert!(matches!(failing, Err(StoreError::Fault(_))));
        assert!(matches!(panicking, Err(StoreError::NotDone)));
        assert_eq!(balance(&store, id).await, Minor(100));
    }

    #[tokio::test]
    async fn what_broke_inside_an_attempt_is_undone_and_what_stands_outside_stays() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        let id = store.transact(|books| books.create_account("A", "a@example.com", "EUR", now())).await.unwrap();
        let attempts = store.transact(move |books| {
            books.credit(id, Minor(100), &ENTRY())?;
            let undone = books.attempt(&mut |books| {
                books.account(id).charge(Minor(10), &ENTRY())?;
                Ok(Keep::Undo)
            })?;
            let broke = books.attempt(&mut |books| {
                books.account(id).charge(Minor(10), &ENTRY())?;
                panic!("on purpose")
            })?;
            let kept = books.attempt(&mut |books| {
                books.account(id).charge(Minor(1), &ENTRY())?;
                Ok(Keep::Keep)
            })?;
            Ok((undone, broke, kept))
        });
        assert_eq!(attempts.await.unwrap(), (Attempted::Undone, Attempted::Broke, Attempted::Kept));
        assert_eq!(balance(&store, id).await, Minor(99));
    }

    #[tokio::test]
    async fn credit_is_never_overdrawn_and_the_ledger_adds_up() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        let id = store.transact(|books| books.create_account("A", "a@example.com", "EUR", now())).await.unwrap();
        store.transact(move |books| books.credit(id, Minor(50), &ENTRY())).await.unwrap();
        let charges = (0..20).map(|_| store.transact(move |books| books.account(id).charge(Minor(7), &ENTRY())));
        let mut taken = 0;
        for charge in charges.collect::<Vec<_>>() {
            taken += i64::from(charge.await.unwrap());
        }
        assert_eq!(taken, 7);
        assert_eq!(balance(&store, id).await, Minor(1));
        assert_eq!(store.transact(move |books| books.credit(id, Minor(-2), &ENTRY())).await.unwrap(), None);
        let sum = store.read(|books| books.sql.first("SELECT SUM(amount) FROM ledger", &[])?.unwrap().int(0)).unwrap();
        assert_eq!(sum, 1);
    }

    #[tokio::test]
    async fn a_book_is_reopened_with_what_was_committed_and_a_foreign_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        let id = store.transact(|books| books.create_account("A", "a@example.com", "EUR", now())).await.unwrap();
        drop(store);
        let store = open(directory.path());
        assert!(store.read(|books| books.has_account(id)).unwrap());
        store.transact(|books| books.sql.batch("UPDATE migrations SET sha256 = 'x'")).await.unwrap();
        drop(store);
        let vault = Arc::new(Vault::open(directory.path()).unwrap());
        let refused = Store::open_sqlite(&directory.path().join("book.db"), vault).err().unwrap();
        assert!(refused.to_string().contains("migration 1"), "{refused}");
    }

    #[tokio::test]
    async fn every_commit_is_synchronous() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        let mode = store.transact(|books| books.sql.first("PRAGMA synchronous", &[])?.unwrap().int(0)).await.unwrap();
        assert_eq!(mode, 2);
    }

    #[tokio::test]
    async fn a_full_queue_says_so_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let mut blocker = Box::pin(store.transact(move |_| {
            let _released = gate.lock().unwrap().recv();
            Ok(())
        }));
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut blocker).await.is_err());
        let mut waiting = Vec::new();
        let busy = loop {
            let mut work = Box::pin(store.transact(|_| Ok(())));
            match tokio::time::timeout(Duration::ZERO, &mut work).await {
                Ok(result) => break result,
                Err(_) => waiting.push(work),
            }
        };
        assert!(matches!(busy, Err(StoreError::Busy)));
        assert_eq!(waiting.len(), 1024);
        release.send(()).unwrap();
        for work in waiting {
            work.await.unwrap();
        }
    }
}
