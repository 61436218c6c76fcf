//! A book of a test's own, in either engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use provisor::config::StoreUrl;
use provisor::store::Store;
use provisor::vault::Vault;
use tempfile::TempDir;

use crate::postgres::Cluster;

/// The database of a book in PostgreSQL.
const DATABASE: &str = "provisor";

/// Where a book is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// A file.
    Sqlite,
    /// A server.
    Postgres,
}

impl Engine {
    /// The engine that a module's tests run on. A file of tests is included twice, the second time as `.._on_postgres`.
    pub fn of_module(path: &str) -> Self {
        if path.ends_with("_on_postgres") { Self::Postgres } else { Self::Sqlite }
    }
}

/// A data directory with a master key, and a book.
pub struct Book {
    directory: TempDir,
    cluster: Option<Arc<Cluster>>,
}

impl Book {
    /// A new one.
    pub fn new(engine: Engine) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Vault::create_key(directory.path(), &[7; 32]).unwrap();
        let cluster = (engine == Engine::Postgres).then(|| {
            let cluster = Cluster::start();
            cluster.sql("postgres", &format!("CREATE DATABASE {DATABASE}"));
            Arc::new(cluster)
        });
        let book = Self { directory, cluster };
        if book.cluster.is_some() {
            book.configure("");
        }
        book
    }

    /// Writes the configuration of its data directory, by which the program's commands find the book: where that is, and more.
    pub fn configure(&self, more: &str) {
        let store = if self.cluster.is_some() { format!("[store]\nurl = \"{}\"\n", self.url()) } else { String::new() };
        std::fs::write(self.directory().join("provisor.toml"), store + more).unwrap();
    }

    /// Its data directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The server that keeps it, if one does.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_deref()
    }

    /// Its `store.url`.
    pub fn url(&self) -> String {
        match &self.cluster {
            Some(cluster) => cluster.url(DATABASE),
            None => format!("sqlite:{}", self.file().display()),
        }
    }

    /// Opens it with the keys of its directory.
    pub fn open(&self) -> Store {
        self.try_open().unwrap()
    }

    /// Opens it, or says why not.
    pub fn try_open(&self) -> Result<Store, provisor_providers::books::Fault> {
        open(&self.url(), self.directory())
    }

    /// Runs statements past the program.
    pub fn execute(&self, sql: &str) {
        match &self.cluster {
            Some(cluster) => {
                cluster.sql(DATABASE, sql);
            }
            None => rusqlite::Connection::open(self.file()).unwrap().execute_batch(sql).unwrap(),
        }
    }

    /// What a query gives that gives one number.
    pub fn number(&self, query: &str) -> i64 {
        self.text(&format!("SELECT CAST(({query}) AS TEXT)")).parse().unwrap()
    }

    /// What a query gives that gives one text.
    pub fn text(&self, query: &str) -> String {
        match &self.cluster {
            Some(cluster) => cluster.sql(DATABASE, query),
            None => rusqlite::Connection::open(self.file()).unwrap().query_row(query, [], |row| row.get(0)).unwrap(),
        }
    }

    /// A byte string, as the engine's SQL has it.
    pub fn bytes(&self, bytes: &[u8]) -> String {
        let hex = base16ct::lower::encode_string(bytes);
        if self.cluster.is_some() { format!("'\\x{hex}'::bytea") } else { format!("x'{hex}'") }
    }

    /// Bytes that a query gives.
    pub fn hex(&self, column: &str, rest: &str) -> Vec<u8> {
        let hex = if self.cluster.is_some() { format!("encode({column}, 'hex')") } else { format!("lower(hex({column}))") };
        base16ct::lower::decode_vec(self.text(&format!("SELECT {hex} {rest}"))).unwrap()
    }

    /// Every file that there is of it, those of its server among them.
    pub fn files(&self) -> Vec<PathBuf> {
        let server = self.cluster.iter().flat_map(|cluster| files(cluster.socket()));
        files(self.directory()).into_iter().chain(server).collect()
    }

    /// SQLite's file.
    pub fn file(&self) -> PathBuf {
        self.directory().join("provisor.db")
    }

    /// Makes every write of a kind to a table fail: before `event` on `table`, when `condition` holds, if one is given.
    pub fn forbid(&self, event: &str, table: &str, condition: Option<&str>) {
        let when = condition.map_or(String::new(), |condition| format!("WHEN ({condition})"));
        match &self.cluster {
            Some(_) => self.execute(&format!(
                "CREATE FUNCTION forbid() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'on purpose'; END $$;
                 CREATE TRIGGER forbidden BEFORE {event} ON {table} FOR EACH ROW {when} EXECUTE FUNCTION forbid()"
            )),
            None => self.execute(&format!(
                "CREATE TRIGGER forbidden BEFORE {event} ON {table} {when} BEGIN SELECT RAISE(ABORT, 'on purpose'); END"
            )),
        }
    }

    /// Takes that back.
    pub fn permit(&self, table: &str) {
        match &self.cluster {
            Some(_) => self.execute(&format!("DROP TRIGGER forbidden ON {table}; DROP FUNCTION forbid()")),
            None => self.execute("DROP TRIGGER forbidden"),
        }
    }
}

/// Every file below a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .flat_map(|entry| match entry.file_type().unwrap() {
            kind if kind.is_dir() => files(&entry.path()),
            kind if kind.is_file() => vec![entry.path()],
            _ => Vec::new(),
        })
        .collect()
}

/// Opens a book by its `store.url` with the keys of a data directory.
pub fn open(url: &str, directory: &Path) -> Result<Store, provisor_providers::books::Fault> {
    let vault = Arc::new(Vault::open(directory).unwrap());
    match url.parse().unwrap() {
        StoreUrl::Sqlite(path) => Store::open_sqlite(&path, vault),
        StoreUrl::Postgres(url) => Store::open_postgres(&url, None, vault),
    }
}
