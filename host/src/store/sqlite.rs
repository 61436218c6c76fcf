//! SQLite as an engine: connections, and the one thread that writes.
//!
//! The writer takes what waits in its queue and commits it together: one fsync for many requests, and no answer before its commit.
//! WAL with synchronous=FULL, so that what was answered survives a power cut.
//!
//! Almost every job keeps all that it wrote, so a group is run without savepoints first. When a job fails, or undoes a part, the whole
//! group is taken back and run again with a savepoint for each job and part: jobs may be run more than once.

use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use provisor_providers::books::Fault;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, OpenFlags, Statement, ToSql};

use super::StoreError;
use super::backfill::Backfill;
use super::fence;
use super::fold::{SCANNED_MAX, borrowed};
use super::job::{Job, Replies};
use super::memory::{Hot, Logs, Memory};
use super::mounts;
use super::sql::{Cell, Dialect, Row, Sql, Value};

/// How many jobs may wait. At the slowest disk worth serving from that is a second's work; more would only answer later.
const QUEUE: usize = 1024;
/// How many jobs share a commit at most, so that the first does not wait for the last too long.
const GROUP: usize = 256;
/// How many statements are at hand; more than an order takes.
const AT_HAND: usize = 48;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The thread that writes. Dropping it ends it, after what is queued.
pub(crate) struct Writer {
    queue: Option<SyncSender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread on a connection to the book at `path`.
    pub(crate) fn start(mut connection: Connection, path: &Path) -> Result<Self, Fault> {
        let (queue, jobs) = sync_channel(QUEUE);
        let mut backfill = Backfill::start(&mut connection, path.to_owned())?;
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || write(&connection, &jobs, &mut backfill))
            .map_err(|error| Fault(format!("cannot start the writer: {error}")))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Queues a job without waiting.
    pub(super) fn submit(&self, job: Box<dyn Job>) -> Result<(), StoreError> {
        let queue = self.queue.as_ref().ok_or(StoreError::Busy)?;
        queue.try_send(job).map_err(|_| StoreError::Busy)
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

fn write(connection: &Connection, jobs: &Receiver<Box<dyn Job>>, backfill: &mut Backfill) {
    let mut memory = Memory::default();
    while let Ok(first) = jobs.recv() {
        // Whoever else is about to hand in a job does so first, where there are fewer cores than that takes: one commit for all.
        std::thread::yield_now();
        memory.read_ahead(&mut Sqlite::new(connection));
        let mut group = Vec::new();
        let result = match commit_in_hope(connection, &mut memory, first, jobs, &mut group) {
            Ok(true) => Ok(()),
            Ok(false) => commit_with_care(connection, &mut memory, &mut group),
            Err(error) => Err(error),
        };
        if let Err(error) = &result {
            // Whatever the jobs believe, nothing of them stays.
            tracing::error!(%error, "a transaction on the book failed");
            let _undone = connection.execute_batch("ROLLBACK");
            memory.take_back();
        }
        Replies { jobs: group, result: result.map_err(StoreError::from) }.send();
        backfill.go_on(connection);
    }
}

/// Runs and commits a group without savepoints. False, and nothing stays, if one of its jobs needs some.
fn commit_in_hope(
    connection: &Connection,
    memory: &mut Memory,
    first: Box<dyn Job>,
    jobs: &Receiver<Box<dyn Job>>,
    group: &mut Vec<Box<dyn Job>>,
) -> Result<bool, Fault> {
    group.push(first);
    let mut engine = Sqlite::begin(connection, memory, Care::Hope { dashed: false })?;
    while let Some(job) = group.last_mut() {
        if !run(&mut **job, &mut engine) || engine.is_run_again() {
            engine.execute("ROLLBACK", &[])?;
            drop(engine);
            memory.take_back();
            return Ok(false);
        }
        if group.len() == GROUP {
            break;
        }
        match jobs.try_recv() {
            Ok(next) => group.push(next),
            Err(_) => break,
        }
    }
    engine.commit()?;
    memory.logs.settle();
    Ok(true)
}

/// Runs and commits a group, each job under a savepoint: one that fails or panics takes back its own writes and no neighbour's.
fn commit_with_care(connection: &Connection, memory: &mut Memory, group: &mut [Box<dyn Job>]) -> Result<(), Fault> {
    let mut engine = Sqlite::begin(connection, memory, Care::Savepoints)?;
    for job in group {
        engine.mark()?;
        if run(&mut **job, &mut engine) { engine.keep()? } else { engine.undo()? }
    }
    engine.commit()?;
    memory.logs.settle();
    Ok(())
}

/// The panic hook has logged a panic; the sender sees that there is no result.
fn run(job: &mut dyn Job, engine: &mut Sqlite<'_>) -> bool {
    catch_unwind(AssertUnwindSafe(|| job.run(engine))).unwrap_or(false)
}

/// A connection as an engine.
pub(crate) struct Sqlite<'c> {
    connection: &'c Connection,
    /// At hand, by their text: the connection's own cache takes longer to find one and to take it back, and the requests of a group all
    /// use the same.
    statements: Vec<(String, CachedStatement<'c>)>,
    care: Care,
    /// The writer's alone.
    memory: Option<&'c mut Memory>,
}

/// How much care is taken of what may have to be taken back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Care {
    /// Savepoints.
    Savepoints,
    /// None; what should be taken back dashes the hope, and the whole transaction has to be.
    Hope { dashed: bool },
}

impl<'c> Sqlite<'c> {
    pub(crate) fn new(connection: &'c Connection) -> Self {
        Self { connection, statements: Vec::new(), care: Care::Savepoints, memory: None }
    }

    /// The writer's next transaction. Fails when another process holds the book for too long.
    fn begin(connection: &'c Connection, memory: &'c mut Memory, care: Care) -> Result<Self, Fault> {
        let mut reading = Self::new(connection);
        reading.execute("BEGIN IMMEDIATE", &[])?;
        memory.catch_up(&mut reading)?;
        Ok(Self { connection, statements: Vec::new(), care, memory: Some(memory) })
    }

    fn commit(mut self) -> Result<(), Fault> {
        self.write_back()?;
        self.execute("COMMIT", &[])?;
        Ok(())
    }

    fn write_back(&mut self) -> Result<(), Fault> {
        match &mut self.memory {
            Some(memory) => memory.hot.write_back(&mut Self::new(self.connection)),
            None => Ok(()),
        }
    }

    /// The statement of a text, ready to be run.
    fn statement(&mut self, sql: &str) -> Result<&mut Statement<'c>, Fault> {
        let known = self.statements.iter().position(|(text, _)| text == sql);
        let place = known.map_or_else(|| self.prepare(sql), Ok)?;
        Ok(&mut self.statements[place].1)
    }

    fn prepare(&mut self, sql: &str) -> Result<usize, Fault> {
        let statement = self.connection.prepare_cached(sql).map_err(|error| fault(&error))?;
        if self.statements.len() == AT_HAND {
            self.statements.remove(0);
        }
        self.statements.push((sql.to_owned(), statement));
        Ok(self.statements.len() - 1)
    }
}

impl Sql for Sqlite<'_> {
    fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<usize, Fault> {
        self.statement(sql)?.execute(rusqlite::params_from_iter(values)).map_err(|error| fault(&error))
    }

    fn query(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, Fault> {
        rows(self.statement(sql)?, values).map_err(|error| fault(&error))
    }

    /// RETURNING would have SQLite collect the row in a temporary table and keep a journal of the statement: more work than the insert.
    fn insert(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Option<i64>, Fault> {
        let inserted = self.execute(sql, values)?;
        Ok((inserted > 0).then(|| self.connection.last_insert_rowid()))
    }

    fn scan(&mut self, sql: &str, values: &[Value<'_>], each: &mut dyn FnMut(&[Value<'_>])) -> Result<(), Fault> {
        let statement = self.statement(sql)?;
        let columns = statement.column_count();
        if columns > SCANNED_MAX {
            return Err(Fault(format!("a scan of {columns} columns; {SCANNED_MAX} are the most")));
        }
        let mut rows = statement.query(rusqlite::params_from_iter(values)).map_err(|error| fault(&error))?;
        while let Some(row) = rows.next().map_err(|error| fault(&error))? {
            let mut cells = [Value::Null; SCANNED_MAX];
            for (column, cell) in cells.iter_mut().enumerate().take(columns) {
                *cell = borrowed(row.get_ref(column).map_err(|error| fault(&error))?);
            }
            each(&cells[..columns]);
        }
        Ok(())
    }

    fn batch(&mut self, sql: &str) -> Result<(), Fault> {
        self.connection.execute_batch(sql).map_err(|error| fault(&error))
    }

    fn mark(&mut self) -> Result<(), Fault> {
        if self.care == Care::Savepoints {
            self.execute("SAVEPOINT attempt", &[])?;
            self.logs().map(Logs::mark);
        }
        Ok(())
    }

    fn keep(&mut self) -> Result<(), Fault> {
        if self.care == Care::Savepoints {
            self.execute("RELEASE attempt", &[])?;
            self.logs().map(Logs::keep);
        }
        Ok(())
    }

    fn undo(&mut self) -> Result<(), Fault> {
        if self.care == Care::Savepoints {
            self.logs().map(Logs::undo);
            return self.batch("ROLLBACK TO attempt; RELEASE attempt");
        }
        self.care = Care::Hope { dashed: true };
        Err(Fault("to be run again with savepoints".to_owned()))
    }

    fn is_run_again(&self) -> bool {
        self.care == Care::Hope { dashed: true }
    }

    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }

    fn sqlite(&self) -> Option<&Connection> {
        Some(self.connection)
    }

    fn logs(&mut self) -> Option<&mut Logs> {
        self.memory.as_mut().map(|memory| &mut memory.logs)
    }

    /// Under savepoints nothing is put off: what is taken back would have to be taken back here too.
    fn hot(&mut self) -> Option<&mut Hot> {
        self.memory.as_mut().filter(|_| self.care != Care::Savepoints).map(|memory| &mut memory.hot)
    }

    fn forget(&mut self) -> Result<(), Fault> {
        self.write_back()?;
        if let Some(memory) = &mut self.memory {
            memory.hot = Hot::default();
        }
        Ok(())
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

fn rows(statement: &mut Statement<'_>, values: &[Value<'_>]) -> Result<Vec<Row>, rusqlite::Error> {
    let columns = statement.column_count();
    let mut found = statement.query(rusqlite::params_from_iter(values))?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        let mut cells = Vec::with_capacity(columns);
        for column in 0..columns {
            cells.push(cell(row.get_ref(column)?));
        }
        rows.push(Row(cells));
    }
    Ok(rows)
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
    if let Some(kind) = mounts::network(path) {
        return Err(Fault(format!(
            "the book would be on a network file system ({kind}), where a power cut or a second host destroys it"
        )));
    }
    let connection = Connection::open(path).map_err(|error| fault(&error))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(|error| fault(&error))?;
    connection.set_prepared_statement_cache_capacity(128);
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)).map_err(|error| fault(&error))?;
    if mode != "wal" {
        return Err(Fault(format!("the book's journal mode is `{mode}`, not WAL: is it on a network file system?")));
    }
    // A parameter's value never makes a statement be planned anew.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(|error| fault(&error))?;
    for (pragma, value) in [
        ("synchronous", "FULL"),
        ("foreign_keys", "ON"),
        ("cell_size_check", "ON"),
        ("journal_size_limit", "67108864"),
        ("mmap_size", "0"),
        // What a savepoint may have to take back stays in memory, and 32 MiB of pages do.
        ("temp_store", "MEMORY"),
        ("cache_size", "-32768"),
    ] {
        connection.pragma_update(None, pragma, value).map_err(|error| fault(&error))?;
    }
    Ok(connection)
}

/// Runs work in a transaction of its own that no other process's runs beside.
pub(crate) fn alone<T>(connection: &Connection, work: impl FnOnce(&mut dyn Sql) -> Result<T, Fault>) -> Result<T, Fault> {
    let mut engine = Sqlite::new(connection);
    engine.batch("BEGIN IMMEDIATE")?;
    let result = work(&mut engine).and_then(|value| engine.batch("COMMIT").map(|()| value));
    if result.is_err() {
        engine.batch("ROLLBACK")?;
    }
    result
}

/// Copies a book, in use or not, into a file that must not be there. The copy is of one moment, its pages are checked, it is marked as a
/// copy, and it is on disk when this returns.
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
    if found == "ok" { fence::mark(&mut Sqlite::new(&copy)) } else { Err(Fault(format!("quick_check of the copy: {found}"))) }
}

/// Opens an existing book for reading.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| fault(&error))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(|error| fault(&error))?;
    Ok(connection)
}
