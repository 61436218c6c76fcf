//! A book of a test's own, in either engine.

use std::path::Path;
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
        Self { directory, cluster }
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
        match &self.cluster {
            Some(cluster) => cluster.sql(DATABASE, query).parse().unwrap(),
            None => rusqlite::Connection::open(self.file()).unwrap().query_row(query, [], |row| row.get(0)).unwrap(),
        }
    }

    fn file(&self) -> std::path::PathBuf {
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

/// Opens a book by its `store.url` with the keys of a data directory.
pub fn open(url: &str, directory: &Path) -> Result<Store, provisor_providers::books::Fault> {
    let vault = Arc::new(Vault::open(directory).unwrap());
    match url.parse().unwrap() {
        StoreUrl::Sqlite(path) => Store::open_sqlite(&path, vault),
        StoreUrl::Postgres(url) => Store::open_postgres(&url, None, vault),
    }
}
