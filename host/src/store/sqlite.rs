//! SQLite as an engine: connections, and the one thread that writes.
//!
//! The writer takes what waits in its queue, runs each job under a savepoint of its own and commits them together: one fsync for
//! many requests, and no answer before its commit. WAL with synchronous=FULL, so that what was answered survives a power cut.

use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use provisor_providers::books::Fault;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OpenFlags, ToSql};

use super::sql::{Cell, Dialect, Row, Sql, Value};

/// How many jobs may wait. At the slowest disk worth serving from that is a second's work; more would only answer later.
const QUEUE: usize = 1024;
/// How many jobs share a commit at most, so that the first does not wait for the last too long.
const GROUP: usize = 256;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs inside the writer's transaction. It returns whether what it wrote stays, and what to do once that is certain.
pub(crate) type Job = Box<dyn FnOnce(&mut dyn Sql) -> Done + Send>;

/// What a job came to.
pub(crate) struct Done {
    /// Whether its writes stay.
    pub(crate) keep: bool,
    /// Told after the commit, or with its failure.
    pub(crate) reply: Box<dyn FnOnce(Result<(), Fault>) + Send>,
}

/// The thread that writes. Dropping it ends it, after what is queued.
pub(crate) struct Writer {
    queue: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// The writer's queue is full, or it has ended.
pub(crate) struct NotTaken;

impl Writer {
    /// Starts the thread on a connection.
    pub(crate) fn start(connection: Connection) -> std::io::Result<Self> {
        let (queue, jobs) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new().name("store-writer".to_owned()).spawn(move || write(&connection, &jobs))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Queues a job without waiting.
    pub(crate) fn submit(&self, job: Job) -> Result<(), NotTaken> {
        let queue = self.queue.as_ref().ok_or(NotTaken)?;
        queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => NotTaken,
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was logged where it happened; here there is nobody left to tell.
            let _ended = thread.join();
        }
    }
}

fn write(connection: &Connection, jobs: &Receiver<Job>) {
    while let Ok(first) = jobs.recv() {
        let mut replies = Vec::new();
        let result = commit_group(connection, first, jobs, &mut replies);
        if let Err(error) = &result {
            // Whatever the jobs believe, nothing of them stays.
            tracing::error!(%error, "a transaction on the book failed");
            let _undone = connection.execute_batch("ROLLBACK");
        }
        for reply in replies {
            reply(result.clone());
        }
    }
}

type Reply = Box<dyn FnOnce(Result<(), Fault>) + Send>;

fn commit_group(connection: &Connection, first: Job, jobs: &Receiver<Job>, replies: &mut Vec<Reply>) -> Result<(), Fault> {
    // Fails when another process holds the book for too long: the job is dropped, and its sender sees the closed channel.
    connection.execute_batch("BEGIN IMMEDIATE").map_err(|error| fault(&error))?;
    let mut next = Some(first);
    while let Some(job) = next {
        replies.push(run_alone(connection, job)?);
        next = if replies.len() < GROUP { jobs.try_recv().ok() } else { None };
    }
    connection.execute_batch("COMMIT").map_err(|error| fault(&error))
}

/// A job that fails or panics takes back its own writes and no neighbour's.
fn run_alone(connection: &Connection, job: Job) -> Result<Reply, Fault> {
    let mut engine = Sqlite(connection);
    engine.batch("SAVEPOINT job")?;
    let done = catch_unwind(AssertUnwindSafe(|| job(&mut engine)));
    let keep = done.as_ref().is_ok_and(|done| done.keep);
    engine.batch(if keep { "RELEASE job" } else { "ROLLBACK TO job; RELEASE job" })?;
    Ok(match done {
        Ok(done) => done.reply,
        // The panic hook has logged it. The sender sees the closed channel.
        Err(_) => Box::new(|_| ()),
    })
}

/// A connection as an engine.
pub(crate) struct Sqlite<'c>(pub(crate) &'c Connection);

impl Sql for Sqlite<'_> {
    fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<usize, Fault> {
        let mut statement = self.0.prepare_cached(sql).map_err(|error| fault(&error))?;
        statement.execute(rusqlite::params_from_iter(values)).map_err(|error| fault(&error))
    }

    fn query(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, Fault> {
        let mut statement = self.0.prepare_cached(sql).map_err(|error| fault(&error))?;
        let columns = statement.column_count();
        let rows = statement.query_map(rusqlite::params_from_iter(values), |row| {
            (0..columns).map(|column| Ok(cell(row.get_ref(column)?))).collect::<Result<_, _>>().map(Row)
        });
        rows.and_then(Iterator::collect).map_err(|error| fault(&error))
    }

    fn batch(&mut self, sql: &str) -> Result<(), Fault> {
        self.0.execute_batch(sql).map_err(|error| fault(&error))
    }

    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(value) => ValueRef::Integer(*value),
            Self::Text(value) => ValueRef::Text(value.as_bytes()),
            Self::Bytes(value) => ValueRef::Blob(value),
        }))
    }
}

fn cell(value: ValueRef<'_>) -> Cell {
    match value {
        ValueRef::Integer(value) => Cell::Int(value),
        ValueRef::Text(value) => Cell::Text(String::from_utf8_lossy(value).into_owned()),
        ValueRef::Blob(value) => Cell::Bytes(value.to_vec()),
        // No column is a float: read as absent, it is refused by whoever reads it.
        ValueRef::Null | ValueRef::Real(_) => Cell::Null,
    }
}

/// SQLite's own words: they name tables and columns, never values.
pub(crate) fn fault(error: &rusqlite::Error) -> Fault {
    Fault(error.to_string())
}

/// Opens a book for writing, making the file if it is absent.
pub(crate) fn open_writer(path: &Path) -> Result<Connection, Fault> {
    let connection = Connection::open(path).map_err(|error| fault(&error))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(|error| fault(&error))?;
    connection.set_prepared_statement_cache_capacity(128);
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)).map_err(|error| fault(&error))?;
    if mode != "wal" {
        return Err(Fault(format!("the book's journal mode is `{mode}`, not WAL: is it on a network file system?")));
    }
    for (pragma, value) in
        [("synchronous", "FULL"), ("foreign_keys", "ON"), ("cell_size_check", "ON"), ("journal_size_limit", "67108864")]
    {
        connection.pragma_update(None, pragma, value).map_err(|error| fault(&error))?;
    }
    Ok(connection)
}

/// Runs work in a transaction of its own that no other process's runs beside.
pub(crate) fn alone<T>(connection: &Connection, work: impl FnOnce(&mut dyn Sql) -> Result<T, Fault>) -> Result<T, Fault> {
    let mut engine = Sqlite(connection);
    engine.batch("BEGIN IMMEDIATE")?;
    let result = work(&mut engine).and_then(|value| engine.batch("COMMIT").map(|()| value));
    if result.is_err() {
        engine.batch("ROLLBACK")?;
    }
    result
}

/// Copies a book, in use or not, into a file that must not be there. The copy is of one moment, its pages are checked, and it is on
/// disk when this returns.
pub fn back_up(book: &Path, file: &Path) -> Result<(), Fault> {
    let io = |error: std::io::Error| Fault(format!("{}: {error}", file.display()));
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(io)?;
    let copied = copy_pages(book, file);
    if copied.is_err() {
        // A part of a book is none.
        let _removed = std::fs::remove_file(file);
    }
    copied?;
    made.sync_all().map_err(io)?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)
}

fn copy_pages(book: &Path, file: &Path) -> Result<(), Fault> {
    let source = open_reader(book)?;
    let mut copy = Connection::open(file).map_err(|error| fault(&error))?;
    // In one step: a writer that came between two would have it begin anew, and in WAL mode nobody waits for a reader.
    let done = Backup::new(&source, &mut copy).and_then(|backup| backup.step(-1)).map_err(|error| fault(&error))?;
    if done != StepResult::Done {
        return Err(Fault("the book is locked by another process: try again".to_owned()));
    }
    let found: String = copy.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(|error| fault(&error))?;
    if found == "ok" { Ok(()) } else { Err(Fault(format!("quick_check of the copy: {found}"))) }
}

/// Opens an existing book for reading.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| fault(&error))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(|error| fault(&error))?;
    Ok(connection)
}
