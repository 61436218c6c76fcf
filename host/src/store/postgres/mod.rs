//! PostgreSQL as an engine: a few threads that write, each on a connection of its own, and connections that read.
//!
//! Threads take jobs from one bounded queue. A job is one transaction, run again when another one was there first; its answer
//! comes after its commit, and a commit that nobody can tell the end of is never taken for one.

mod attempt;
mod link;
mod server;
mod tls;
mod values;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use provisor_providers::books::Fault;
use secrecy::SecretString;
use tokio::runtime::{Handle, RuntimeFlavor};

use self::attempt::{Attempt, BEGIN_READING, Ended, Plain, SCHEMA_LOCK};
use self::link::{Link, Trouble};
use self::server::Server;
use super::StoreError;
use super::job::Job;
use super::sql::Sql;
use crate::config::PostgresUrl;

/// Threads that write, and so connections: more would only wait for each other in the server.
const WRITERS: usize = 12;
/// Reading connections that are kept.
const READERS: usize = 4;
/// How many jobs may wait: see the SQLite engine's.
const QUEUE: usize = 1024;
/// How often, and how long, a transaction is run again before its caller hears of it.
const TRIES: u32 = 40;
const PATIENCE: Duration = Duration::from_secs(8);
/// How long a statement may take that changes the tables.
const ALONE: Duration = Duration::from_hours(24);
/// The longest pause between two tries.
const PAUSE_MAX_MS: u64 = 40;

/// A database and the threads that write to it. Dropping it ends them, after what is queued.
pub(super) struct Pool {
    server: Arc<Server>,
    readers: Mutex<Vec<Link>>,
    queue: Option<SyncSender<Box<dyn Job>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Connects, and runs `prepare` in a transaction of its own that no other host's runs beside.
    pub(super) fn open<T>(
        url: &PostgresUrl,
        password: Option<&SecretString>,
        prepare: impl FnOnce(&mut dyn Sql) -> Result<T, Fault>,
    ) -> Result<(Self, T), Fault> {
        let server = Arc::new(Server::new(url, password)?);
        let mut link = server.connect()?;
        let prepared = alone(&mut link, prepare)?;
        let (queue, jobs) = sync_channel(QUEUE);
        let jobs = Arc::new(Mutex::new(jobs));
        let mut pool = Self { server, readers: Mutex::new(vec![link]), queue: Some(queue), threads: Vec::new() };
        for _ in 0..WRITERS {
            let (server, jobs) = (Arc::clone(&pool.server), Arc::clone(&jobs));
            let thread = thread::Builder::new().name("store-writer".to_owned()).spawn(move || write(&server, &jobs));
            pool.threads.push(thread.map_err(|error| Fault(format!("cannot start a writer: {error}")))?);
        }
        Ok((pool, prepared))
    }

    /// Queues a job without waiting.
    pub(super) fn submit(&self, job: Box<dyn Job>) -> Result<(), StoreError> {
        let queue = self.queue.as_ref().ok_or(StoreError::Busy)?;
        queue.try_send(job).map_err(|_| StoreError::Busy)
    }

    /// Runs a query on this thread.
    pub(super) fn read<T>(&self, query: impl FnOnce(&mut dyn Sql) -> Result<T, Fault>) -> Result<T, Fault> {
        aside(|| {
            let mut link = self.reader()?;
            let result = query(&mut Plain(&mut link))?;
            if link.batch("COMMIT").is_ok() {
                let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
                if readers.len() < READERS {
                    readers.push(link);
                }
            }
            Ok(result)
        })
    }

    /// A connection whose transaction has begun. One that was kept may have ended meanwhile.
    fn reader(&self) -> Result<Link, Fault> {
        loop {
            let kept = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let is_new = kept.is_none();
            let mut link = kept.map_or_else(|| self.server.connect(), Ok)?;
            match link.batch(BEGIN_READING) {
                Ok(()) => return Ok(link),
                Err(trouble) if is_new => return Err(trouble.into_fault()),
                Err(_) => {}
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        drop(self.queue.take());
        for thread in self.threads.drain(..) {
            // A panic there was logged where it happened; here there is nobody left to tell.
            let _ended = thread.join();
        }
    }
}

/// Runs work in a transaction of its own that no other host's runs beside, on a connection for this alone.
pub(super) fn once<T>(
    url: &PostgresUrl,
    password: Option<&SecretString>,
    work: impl FnOnce(&mut dyn Sql) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let server = Server::new(url, password)?;
    alone(&mut server.connect()?, work)
}

/// In a transaction of its own, under a lock that all hosts take for this. It may write a whole book anew, and others wait for it: how
/// long a statement takes says nothing here, and a server that is gone is noticed by its silence.
fn alone<T>(link: &mut Link, work: impl FnOnce(&mut dyn Sql) -> Result<T, Fault>) -> Result<T, Fault> {
    link.set_patience(Some(ALONE));
    let begin = format!(
        "BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; SELECT pg_advisory_xact_lock({SCHEMA_LOCK})"
    );
    link.batch(&begin).map_err(Trouble::into_fault)?;
    let result = work(&mut Plain(link));
    let end = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = link.batch(end).map_err(Trouble::into_fault);
    link.set_patience(None);
    result.and_then(|value| ended.map(|()| value))
}

/// Lets the other tasks of a runtime's thread go elsewhere while this one waits.
fn aside<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current() {
        Ok(runtime) if runtime.runtime_flavor() == RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}

fn write(server: &Server, jobs: &Mutex<Receiver<Box<dyn Job>>>) {
    let mut link = None;
    loop {
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(mut job) = next else { return };
        let result = run(server, &mut link, &mut *job);
        job.reply(result);
        if link.as_ref().is_some_and(Link::is_closed) {
            link = None;
        }
    }
}

/// Tries until it is decided.
fn run(server: &Server, link: &mut Option<Link>, job: &mut dyn Job) -> Result<(), StoreError> {
    let begun = Instant::now();
    let mut claims = BTreeSet::new();
    for tries in 1.. {
        let connected = match link {
            Some(link) => link,
            None => link.insert(server.connect()?),
        };
        let mut attempt = Attempt::new(connected, &mut claims, tries == 1);
        let kept = catch_unwind(AssertUnwindSafe(|| job.run(&mut attempt)));
        let ended = attempt.end(kept.as_ref().is_ok_and(|keep| *keep));
        // The panic hook has logged it.
        let panicked = kept.is_err();
        match ended {
            Ended::Again(trouble) => {
                if matches!(trouble, Trouble::Lost(_)) {
                    *link = None;
                }
                if tries >= TRIES || begun.elapsed() > PATIENCE {
                    return Err(trouble.into_fault().into());
                }
                tracing::debug!(tries, why = %trouble.fault(), "a transaction is run again");
                pause(tries);
            }
            Ended::Unknown(Fault(why)) => {
                *link = None;
                tracing::error!(why, "whether a transaction was committed is not known");
                return Err(StoreError::Unknown);
            }
            Ended::Committed | Ended::Undone if panicked => return Err(StoreError::NotDone),
            Ended::Committed | Ended::Undone => return Ok(()),
            Ended::Failed(fault) => return Err(fault.into()),
        }
    }
    Err(StoreError::NotDone)
}

/// Longer with every try, and of no fixed length, so that those who met do not meet again.
fn pause(tries: u32) {
    let most = (1_u64 << tries.min(6)).min(PAUSE_MAX_MS);
    let mut random = [0];
    // Without randomness the whole pause is as good.
    let part = getrandom::fill(&mut random).map_or(255, |()| u64::from(random[0]));
    thread::sleep(Duration::from_micros(most * 1000 * part / 255));
}
