//! Moves pages from SQLite's write-ahead log into the book, beside the requests.
//!
//! SQLite by itself does so within every commit that leaves more than 1,000 pages in the log, and everybody who waits for that commit
//! waits for the disk twice more. Here a thread with a connection of its own does it: it waits for nobody, and nobody for it.
//!
//! The log begins anew when all of it is in the book and somebody writes. Where requests never cease there are always a few pages more,
//! so the writer moves those itself once the log is long.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use provisor_providers::books::Fault;
use rusqlite::Connection;

use super::sqlite::{fault, open_writer};

/// New pages in the log that are worth a sync of the book, as SQLite has it. Fewer at a time would write the same page more often, more
/// would keep the disk from the commits for longer.
const PAGES: u32 = 1000;
/// How long the log gets before the writer sees to it that it begins anew: 32 MiB, all of which a start after a crash reads.
const LONG: u32 = 8192;

/// What the writer knows of its log. Dropping it ends the thread.
pub(super) struct Backfill {
    /// Pages in the log as of the last commit.
    logged: Arc<AtomicU32>,
    /// Of these, how many there were when the last round began.
    begun: u32,
    /// Whether a round ended since the writer last moved the rest.
    has_moved: bool,
    is_moving: Arc<AtomicBool>,
    rounds: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Backfill {
    /// Takes the log of a writer's connection over.
    pub(super) fn start(connection: &mut Connection, path: PathBuf) -> Result<Self, Fault> {
        let (logged, is_moving) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let count = Arc::clone(&logged);
        let hook = move |_: &mut rusqlite::hooks::Wal, pages: i32| {
            count.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        };
        // In place of SQLite's own, which would move the pages within the commit.
        connection.wal_hook(Some(hook)).map_err(|error| fault(&error))?;
        let (rounds, asked) = sync_channel(1);
        let ends = Arc::clone(&is_moving);
        let thread = std::thread::Builder::new().name("store-backfill".to_owned()).spawn(move || run(&path, &asked, &ends));
        let thread = thread.map_err(|error| Fault(format!("cannot start the backfill: {error}")))?;
        Ok(Self { logged, begun: 0, has_moved: false, is_moving, rounds: Some(rounds), thread: Some(thread) })
    }

    /// After a commit, once its callers have their answers.
    pub(super) fn go_on(&mut self, connection: &Connection) {
        let logged = self.logged.load(Ordering::Relaxed);
        if logged < self.begun {
            // The log began anew.
            self.begun = 0;
        }
        let is_alive = self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        if is_alive && self.is_moving.load(Ordering::Acquire) {
            return;
        }
        if self.has_moved && logged >= LONG {
            self.has_moved = false;
            self.begun = logged;
            move_pages(connection);
        } else if logged - self.begun >= PAGES {
            self.has_moved = true;
            self.begun = logged;
            self.is_moving.store(true, Ordering::Relaxed);
            if self.rounds.as_ref().is_none_or(|rounds| rounds.try_send(()).is_err()) {
                // The thread is gone: the writer moves them all, when the log is long.
                self.is_moving.store(false, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Backfill {
    fn drop(&mut self) {
        drop(self.rounds.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was logged where it happened.
            let _ended = thread.join();
        }
    }
}

fn run(path: &Path, asked: &Receiver<()>, is_moving: &AtomicBool) {
    let mut connection = None;
    while asked.recv().is_ok() {
        if connection.is_none() {
            connection = open_writer(path).inspect_err(|error| tracing::warn!(%error, "cannot open the book for its log")).ok();
        }
        if let Some(connection) = &connection {
            move_pages(connection);
        }
        is_moving.store(false, Ordering::Release);
    }
}

/// Moves what no reader of an older state is in the way of. What fails stays in the log, where it is as safe, for the next round.
fn move_pages(connection: &Connection) {
    if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
        tracing::warn!(%error, "pages stay in the book's log");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::Store;
    use crate::vault::Vault;

    const MIB: u64 = 1024 * 1024;

    async fn open(folder: &Path) -> Store {
        let store = Store::open_sqlite(&folder.join("book.db"), Arc::new(Vault::open(folder).unwrap())).unwrap();
        store.transact(|books| books.sql.batch("CREATE TABLE filling (bytes BLOB NOT NULL)")).await.unwrap();
        store
    }

    /// So many commits of 50 pages or more each, without a pause.
    async fn write(store: &Store, commits: usize) {
        for _ in 0..commits {
            store.transact(|books| books.sql.execute("INSERT INTO filling VALUES (randomblob(200000))", &[])).await.unwrap();
        }
    }

    fn mebibytes(file: &Path) -> u64 {
        std::fs::metadata(file).unwrap().len() / MIB
    }

    #[tokio::test]
    async fn the_log_begins_anew_though_commits_never_cease() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path()).await;
        let log = folder.path().join("book.db-wal");
        let mut written = 0;
        // A file that begins anew is written over, and grows no more.
        while mebibytes(&log) + 16 > written {
            assert!(written < 600, "all of it is in the log");
            write(&store, 100).await;
            written += 20;
        }
    }

    #[tokio::test]
    async fn a_reader_of_an_old_state_keeps_it_and_only_delays_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path()).await;
        write(&store, 1).await;
        let (book, log) = (folder.path().join("book.db"), folder.path().join("book.db-wal"));
        let reader = Connection::open(&book).unwrap();
        let rows = || reader.query_row("SELECT COUNT(*) FROM filling", [], |row| row.get::<_, i64>(0)).unwrap();
        reader.execute_batch("BEGIN").unwrap();
        assert_eq!(rows(), 1);
        write(&store, 400).await;
        assert_eq!(rows(), 1, "of the moment at which it began");
        assert!(mebibytes(&log) > 70, "{} MiB", mebibytes(&log));
        reader.execute_batch("COMMIT").unwrap();
        assert_eq!(rows(), 401);
        // The next rounds find nobody in their way, and the log is cut to its limit.
        let mut later = 0;
        while mebibytes(&log) > 64 {
            assert!(later < 1000, "{} MiB", mebibytes(&log));
            write(&store, 1).await;
            later += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drop(store);
        let found: String = reader.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!((found.as_str(), rows()), ("ok", 401 + later));
    }
}
