//! A whole book from one engine into another, row by row, checked before it counts.

use provisor_providers::books::Fault;
use secrecy::SecretString;
use sha2::{Digest, Sha256};

use super::migrations;
use super::sql::{Cell, Dialect, Row, Sql, Value};
use super::{Store, Transaction, postgres, sqlite};
use crate::audit::{Verdict, verify};
use crate::config::StoreUrl;
use crate::vault::Vault;

/// Rows read at a time.
const PAGE: usize = 500;
/// Values in one INSERT.
const VALUES: usize = 1000;
/// What belongs to the database and not to the book.
const LEFT_OUT: &[&str] = &["leases"];

/// How far a copy is.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The table.
    pub table: &'a str,
    /// Its rows that are copied.
    pub rows: u64,
    /// Of all tables, rows that are copied, and rows there are.
    pub total: (u64, u64),
}

/// What was copied: each table and its rows.
pub type Copied = Vec<(String, u64)>;

/// Copies everything in `from` into an empty `to`, in one transaction: the rows of each table are counted and added up on both sides,
/// and the audit chains verified, before it commits. A relative SQLite path starts at the working directory.
pub fn copy(
    from: &Store,
    to: (&StoreUrl, Option<&SecretString>),
    vault: &Vault,
    report: &mut dyn FnMut(Progress<'_>),
) -> Result<Copied, Fault> {
    let work = |target: &mut dyn Sql| {
        migrations::run(target)?;
        from.read(|books| snapshot(books.sql, |source| copy_all(source, target, report)))
            .and_then(|copied| chains_hold(target, vault).map(|()| copied))
    };
    match to {
        (StoreUrl::Sqlite(path), _) => sqlite::alone(&sqlite::open_writer(path)?, work),
        (StoreUrl::Postgres(url), password) => postgres::once(url, password, work),
    }
}

/// All as of one moment: PostgreSQL's readers do so anyway.
fn snapshot<T>(source: &mut dyn Sql, work: impl FnOnce(&mut dyn Sql) -> Result<T, Fault>) -> Result<T, Fault> {
    if source.dialect() == Dialect::Postgres {
        return work(source);
    }
    source.batch("BEGIN")?;
    let result = work(source);
    source.batch("ROLLBACK")?;
    result
}

fn chains_hold(target: &mut dyn Sql, vault: &Vault) -> Result<(), Fault> {
    match verify(&mut Transaction::new(target, vault))? {
        Verdict::Whole { .. } => Ok(()),
        Verdict::Broken(bad) => Err(Fault(bad.first().map_or_else(
            || "the audit log is broken".to_owned(),
            |row| format!("the audit log is broken at row {} of stream {}", row.seq, row.stream),
        ))),
    }
}

fn copy_all(source: &mut dyn Sql, target: &mut dyn Sql, report: &mut dyn FnMut(Progress<'_>)) -> Result<Copied, Fault> {
    let tables = tables(source)?;
    let mut all = 0;
    for table in &tables {
        if count(target, &table.name)? > 0 {
            return Err(Fault(format!("there are rows in {} already: a book is copied into an empty database", table.name)));
        }
        all += count(source, &table.name)?;
    }
    let (mut copied, mut done) = (Copied::new(), 0);
    for table in &tables {
        let mut rows = 0;
        let mut sum = Sum::default();
        table.pages(source, &mut |page| {
            table.insert(target, page)?;
            sum.add(page);
            rows += page.len() as u64;
            report(Progress { table: &table.name, rows, total: (done + rows, all) });
            Ok(())
        })?;
        let mut arrived = Sum::default();
        table.pages(target, &mut |page| {
            arrived.add(page);
            Ok(())
        })?;
        if count(target, &table.name)? != rows || arrived != sum {
            return Err(Fault(format!("what arrived in {} is not what was read", table.name)));
        }
        table.set_sequence(target)?;
        done += rows;
        copied.push((table.name.clone(), rows));
    }
    Ok(copied)
}

fn count(sql: &mut dyn Sql, table: &str) -> Result<u64, Fault> {
    sql.first(&format!("SELECT COUNT(*) FROM {table}"), &[])?.map_or(Ok(0), |row| row.number(0))
}

/// A table of the book. Its names come from our own migrations.
struct Table {
    name: String,
    columns: Vec<String>,
    /// What its rows are told apart by, as places among the columns.
    key: Vec<usize>,
}

/// In the order they were made in: whatever refers to another table comes after it.
fn tables(sql: &mut dyn Sql) -> Result<Vec<Table>, Fault> {
    let names = migrations::tables().into_iter().filter(|name| !LEFT_OUT.contains(name));
    names.map(|name| Table::read(sql, name)).collect()
}

impl Table {
    fn read(sql: &mut dyn Sql, name: &str) -> Result<Self, Fault> {
        let (columns, key) = match sql.dialect() {
            Dialect::Sqlite => (
                "SELECT name FROM pragma_table_info($1) ORDER BY cid",
                "SELECT name FROM (
                   SELECT name, -1 AS list, pk AS place FROM pragma_table_info($1) WHERE pk > 0
                   UNION ALL SELECT i.name, l.seq, i.seqno FROM pragma_index_list($1) l, pragma_index_info(l.name) i WHERE l.origin = 'u'
                 ) ORDER BY list, place",
            ),
            Dialect::Postgres => (
                "SELECT column_name::text FROM information_schema.columns
                 WHERE table_schema = current_schema() AND table_name = $1 ORDER BY ordinal_position",
                "SELECT k.column_name::text FROM information_schema.table_constraints c
                 JOIN information_schema.key_column_usage k USING (constraint_schema, constraint_name)
                 WHERE c.table_schema = current_schema() AND c.table_name = $1 AND c.constraint_type IN ('PRIMARY KEY', 'UNIQUE')
                 ORDER BY c.constraint_type, k.ordinal_position",
            ),
        };
        let mut names = |query: &str| -> Result<Vec<String>, Fault> {
            sql.query(query, &[name.into()])?.iter().map(|row| row.text(0)).collect()
        };
        let (columns, mut key) = (names(columns)?, names(key)?);
        // A primary key is enough, and a second unique constraint does no harm.
        key.dedup();
        let places: Option<Vec<usize>> = key.iter().map(|name| columns.iter().position(|column| column == name)).collect();
        match places.filter(|places| !places.is_empty()) {
            Some(key) => Ok(Self { name: name.to_owned(), columns, key }),
            None => Err(Fault(format!("the rows of {name} cannot be told apart"))),
        }
    }

    /// Reads all rows, a page at a time, each after the last by their key.
    fn pages(&self, sql: &mut dyn Sql, take: &mut dyn FnMut(&[Row]) -> Result<(), Fault>) -> Result<(), Fault> {
        let columns = self.columns.join(", ");
        let key: Vec<&str> = self.key.iter().map(|place| self.columns[*place].as_str()).collect();
        let (order, marks) = (key.join(", "), marks(1, key.len()));
        let first = format!("SELECT {columns} FROM {} ORDER BY {order} LIMIT {PAGE}", self.name);
        let next = format!("SELECT {columns} FROM {} WHERE ({order}) > ({marks}) ORDER BY {order} LIMIT {PAGE}", self.name);
        let mut page = sql.query(&first, &[])?;
        while let Some(last) = page.last() {
            take(&page)?;
            let after: Vec<Value<'_>> = self.key.iter().map(|place| value(&last.0[*place])).collect();
            page = sql.query(&next, &after)?;
        }
        Ok(())
    }

    fn insert(&self, sql: &mut dyn Sql, rows: &[Row]) -> Result<(), Fault> {
        let width = self.columns.len();
        for rows in rows.chunks((VALUES / width).max(1)) {
            let groups: Vec<String> = (0..rows.len()).map(|row| format!("({})", marks(row * width + 1, width))).collect();
            let text = format!("INSERT INTO {} ({}) VALUES {}", self.name, self.columns.join(", "), groups.join(", "));
            let values: Vec<Value<'_>> = rows.iter().flat_map(|row| row.0.iter().map(value)).collect();
            sql.execute(&text, &values)?;
        }
        Ok(())
    }

    /// PostgreSQL gives the next id from a sequence of its own, which saw none of these rows.
    fn set_sequence(&self, sql: &mut dyn Sql) -> Result<(), Fault> {
        if sql.dialect() != Dialect::Postgres {
            return Ok(());
        }
        let sequence = sql.first("SELECT pg_get_serial_sequence($1, 'id') FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = $1 AND column_name = 'id'", &[self.name.as_str().into()])?;
        if let Some(sequence) = sequence.map_or(Ok(None), |row| row.opt_text(0))? {
            let set = format!("SELECT setval('{sequence}', COALESCE(MAX(id), 0) + 1, false) FROM {}", self.name);
            sql.query(&set, &[])?;
        }
        Ok(())
    }
}

/// `$3, $4, $5` for three from 3 on.
fn marks(from: usize, count: usize) -> String {
    (from..from + count).map(|number| format!("${number}")).collect::<Vec<_>>().join(", ")
}

fn value(cell: &Cell) -> Value<'_> {
    match cell {
        Cell::Null => Value::Null,
        Cell::Int(value) => Value::Int(*value),
        Cell::Text(value) => Value::Text(value),
        Cell::Bytes(value) => Value::Bytes(value),
    }
}

/// Of all rows of a table, in whatever order: engines sort text differently.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum(u128);

impl Sum {
    fn add(&mut self, rows: &[Row]) {
        for row in rows {
            let mut hash = Sha256::new();
            for cell in &row.0 {
                let (kind, bytes) = match cell {
                    Cell::Null => (0, Vec::new()),
                    Cell::Int(value) => (1, value.to_be_bytes().to_vec()),
                    Cell::Text(value) => (2, value.clone().into_bytes()),
                    Cell::Bytes(value) => (3, value.clone()),
                };
                hash.update([kind]);
                hash.update((bytes.len() as u64).to_be_bytes());
                hash.update(bytes);
            }
            let hash = hash.finalize();
            let part = hash.iter().take(16).fold(0_u128, |part, byte| (part << 8) | u128::from(*byte));
            self.0 = self.0.wrapping_add(part);
        }
    }
}
