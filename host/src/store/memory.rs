//! What the writer of a SQLite book remembers from one transaction to the next, so that a request need not read what the one before
//! it wrote, nor write what the one after it writes again.
//!
//! The book stays the truth: everything here comes from it, is in it with the commit that answers the request, and is read anew
//! when another process wrote to the book or a transaction was taken back. PostgreSQL has several writers, who share only their
//! database; nothing is remembered there.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::Arc;

use jiff::Timestamp;
use provisor_providers::books::{Fault, IdempotencyScope, KeyRow, Product};

use super::audit_log::{self, Head};
use super::keys::{self, Use};
use super::sql::{Sql, Value, unexpected};

/// Keys, chains, and products remembered at a time; more than are busy at once.
const REMEMBERED: usize = 10_000;
/// Of the index of a log.
const PARTS: usize = 32;

/// All that one writer remembers.
#[derive(Default)]
pub(super) struct Memory {
    /// SQLite's number for what others wrote.
    data_version: Option<i64>,
    pub(super) logs: Logs,
    pub(super) hot: Hot,
}

impl Memory {
    /// Before a transaction: what the first has to read is a day's records, and nobody should wait for the book meanwhile.
    pub(super) fn read_ahead(&mut self, sql: &mut dyn Sql) {
        if self.data_version.is_none() {
            // What this did not read, the transaction will, or it fails for the same reason.
            let _unread = self.logs.read_on(sql);
        }
    }

    /// At the beginning of a transaction, when nobody else can write: forgets what others may have changed, and learns what they added
    /// to the logs.
    pub(super) fn catch_up(&mut self, sql: &mut dyn Sql) -> Result<(), Fault> {
        let version = sql.first("PRAGMA data_version", &[])?.map(|row| row.int(0)).transpose()?;
        if version.is_none() || self.data_version != version {
            self.hot = Hot::default();
            self.logs.read_on(sql)?;
            self.data_version = version;
        }
        Ok(())
    }

    /// After a transaction was taken back.
    pub(super) fn take_back(&mut self) {
        self.hot = Hot::default();
        self.logs.take_back();
    }
}

/// The indexes of two tables to which rows are only added at the end: spent nonces, and records under idempotency keys. In the book such
/// an index would be written to at a place of its own for each request, and a page that changed costs more than all else a request writes.
/// They hold as many as keys' limits allow for the time that each counts: 600 s of requests, a day of orders.
#[derive(Default)]
pub(crate) struct Logs {
    /// Until when each nonce is spent, in Unix milliseconds.
    nonces: LogIndex,
    /// In which row each record is.
    records: LogIndex,
}

impl Logs {
    /// Spends a nonce of a key; none if it is spent. The caller adds the row of this number to the log.
    pub(super) fn spend(&mut self, key: KeyRow, nonce: &str, now: Timestamp, until: Timestamp) -> Option<i64> {
        let nonces = &mut self.nonces;
        let nonce = nonces.hash((key.0, nonce));
        let part = nonces.part(nonce);
        if part.known.get(&nonce).is_some_and(|until| *until > now.as_millisecond()) {
            return None;
        }
        if part.is_due() {
            part.let_go(|until| until > now.as_millisecond());
        }
        Some(nonces.add(nonce, until.as_millisecond()))
    }

    /// The row of the last record that was added for a request. It may be gone since.
    pub(super) fn record(&mut self, scope: &IdempotencyScope<'_>) -> Option<i64> {
        let record = self.records.hash(asked(scope));
        self.records.part(record).known.get(&record).copied()
    }

    /// Adds a record. The caller adds the row of this number to the log.
    pub(super) fn add_record(&mut self, scope: &IdempotencyScope<'_>) -> i64 {
        let hash = self.records.hash(asked(scope));
        self.records.add(hash, self.records.last + 1)
    }

    /// Whether beside this one there may be many that are in the log no more.
    pub(super) fn has_swept_records(&mut self, scope: &IdempotencyScope<'_>) -> bool {
        self.records.part(self.records.hash(asked(scope))).is_due()
    }

    /// Forgets those beside this one that were before a row.
    pub(super) fn let_go_of_records(&mut self, scope: &IdempotencyScope<'_>, oldest: i64) {
        self.records.part(self.records.hash(asked(scope))).let_go(|row| row >= oldest);
    }

    /// How many records are remembered.
    #[cfg(test)]
    pub(super) fn count_records(&self) -> usize {
        self.records.len()
    }

    /// Reads the rows of the logs that came since.
    fn read_on(&mut self, sql: &mut dyn Sql) -> Result<(), Fault> {
        let mut is_broken = false;
        let (nonces, records) = (&mut self.nonces, &mut self.records);
        let query = "SELECT id, key_id, nonce, expires_at FROM nonces WHERE id > $1 ORDER BY id";
        sql.scan(query, &[nonces.last.into()], &mut |row| match row {
            [Value::Int(id), Value::Int(key), Value::Text(nonce), Value::Int(until)] => {
                nonces.read(*id, nonces.hash((*key, *nonce)), *until);
            }
            _ => is_broken = true,
        })?;
        let query = "SELECT id, key_id, method, path, idempotency_key FROM idempotency WHERE id > $1 ORDER BY id";
        sql.scan(query, &[records.last.into()], &mut |row| match row {
            [Value::Int(id), Value::Int(key), Value::Text(method), Value::Text(path), Value::Text(name)] => {
                records.read(*id, records.hash((*key, *method, *path, *name)), *id);
            }
            _ => is_broken = true,
        })?;
        if is_broken { Err(unexpected(2)) } else { Ok(()) }
    }

    /// Marks a point to which what was added can be undone. Marks nest.
    pub(super) fn mark(&mut self) {
        self.each(LogIndex::mark);
    }

    /// Drops the last mark.
    pub(super) fn keep(&mut self) {
        self.each(LogIndex::keep);
    }

    /// Takes back what was added since the last mark, and drops it.
    pub(super) fn undo(&mut self) {
        self.each(LogIndex::undo);
    }

    /// After a commit.
    pub(super) fn settle(&mut self) {
        self.each(|log| log.fresh.clear());
    }

    fn take_back(&mut self) {
        self.each(|log| {
            log.take_back_to(0);
            log.marks.clear();
        });
    }

    fn each(&mut self, mut work: impl FnMut(&mut LogIndex)) {
        work(&mut self.nonces);
        work(&mut self.records);
    }
}

fn asked<'a>(scope: &IdempotencyScope<'a>) -> (i64, &'a str, &'a str, &'a str) {
    (scope.key.0, scope.method, scope.path, scope.idempotency_key)
}

/// The index of one log. It knows what was added by a hash of 64 bits under a key that no caller knows: that a new one among a million
/// is taken for another of them happens once in 10^13 times.
#[derive(Default)]
struct LogIndex {
    hasher: RandomState,
    parts: [Part; PARTS],
    /// The last row of the log that is known. The book keeps its newest row, so that numbers only grow.
    last: i64,
    /// What this transaction added, with what was known of it before.
    fresh: Vec<(u64, Option<i64>)>,
    marks: Vec<usize>,
}

impl LogIndex {
    fn hash(&self, what: impl Hash) -> u64 {
        self.hasher.hash_one(what)
    }

    /// The part of a hash: by bits that the map inside does not go by.
    fn part(&mut self, hash: u64) -> &mut Part {
        &mut self.parts[(hash >> 40) as usize % PARTS]
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.parts.iter().map(|part| part.known.len()).sum()
    }

    /// Adds one at the end; the number of its row.
    fn add(&mut self, hash: u64, value: i64) -> i64 {
        let before = self.part(hash).known.insert(hash, value);
        self.fresh.push((hash, before));
        self.last += 1;
        self.last
    }

    fn read(&mut self, row: i64, hash: u64, value: i64) {
        self.part(hash).known.insert(hash, value);
        self.last = row;
    }

    fn mark(&mut self) {
        self.marks.push(self.fresh.len());
    }

    fn keep(&mut self) {
        self.marks.pop();
    }

    fn undo(&mut self) {
        if let Some(mark) = self.marks.pop() {
            self.take_back_to(mark);
        }
    }

    fn take_back_to(&mut self, mark: usize) {
        for (hash, before) in self.fresh.split_off(mark).into_iter().rev() {
            self.last -= 1;
            let known = &mut self.part(hash).known;
            match before {
                Some(value) => known.insert(hash, value),
                None => known.remove(&hash),
            };
        }
    }
}

/// A part of an index. One map of all would hold everybody up each time it grows: for tens of milliseconds with a quarter of a million.
#[derive(Default)]
struct Part {
    known: HashMap<u64, i64, BuildHasherDefault<Hashed>>,
    /// How many there were after those whose time was over had been let go of.
    kept: usize,
}

impl Part {
    /// Seldom enough that letting go costs each little, often enough that there are never many more than the log holds.
    fn is_due(&self) -> bool {
        self.known.len() > 2 * self.kept + REMEMBERED / PARTS
    }

    fn let_go(&mut self, is_live: impl Fn(i64) -> bool) {
        self.known.retain(|_, value| is_live(*value));
        self.kept = self.known.len();
    }
}

/// Of what is a hash already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| (hash << 8) | u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What every request reads and writes, remembered until it is written back, once for all the transactions of a group; and what orders
/// read of the catalogue.
#[derive(Default)]
pub(crate) struct Hot {
    keys: HashMap<KeyRow, Entry<Use>>,
    heads: HashMap<i64, Entry<Head>>,
    products: HashMap<i64, Arc<Product>>,
}

struct Entry<T> {
    value: T,
    is_written: bool,
}

impl Hot {
    /// How a key stands, if that is remembered.
    pub(super) fn key(&self, key: KeyRow) -> Option<Use> {
        self.keys.get(&key).map(|entry| entry.value)
    }

    /// Remembers what was read.
    pub(super) fn read_key(&mut self, key: KeyRow, value: Use) {
        self.keys.insert(key, Entry { value, is_written: true });
    }

    /// Changes what is remembered; false if nothing is.
    pub(super) fn change_key(&mut self, key: KeyRow, change: impl FnOnce(&mut Use)) -> bool {
        let Some(entry) = self.keys.get_mut(&key) else { return false };
        change(&mut entry.value);
        entry.is_written = false;
        true
    }

    /// The last row of a chain, if that is remembered.
    pub(super) fn head(&self, stream: i64) -> Option<Head> {
        self.heads.get(&stream).map(|entry| entry.value)
    }

    /// Sets the last row of a chain.
    pub(super) fn set_head(&mut self, stream: i64, value: Head) {
        self.heads.insert(stream, Entry { value, is_written: false });
    }

    /// A product, if it is remembered.
    pub(super) fn product(&self, id: i64) -> Option<Arc<Product>> {
        self.products.get(&id).cloned()
    }

    /// Remembers what was read.
    pub(super) fn read_product(&mut self, product: &Arc<Product>) {
        self.products.insert(product.id, Arc::clone(product));
    }

    /// Before it is changed.
    pub(super) fn forget_product(&mut self, id: i64) {
        self.products.remove(&id);
    }

    /// Writes back what is not in the book yet.
    pub(super) fn write_back(&mut self, sql: &mut dyn Sql) -> Result<(), Fault> {
        for (key, entry) in self.keys.iter_mut().filter(|(_, entry)| !entry.is_written) {
            keys::write_use(sql, *key, &entry.value)?;
            entry.is_written = true;
        }
        for (stream, entry) in self.heads.iter_mut().filter(|(_, entry)| !entry.is_written) {
            audit_log::write_head(sql, *stream, &entry.value)?;
            entry.is_written = true;
        }
        if self.keys.len().max(self.heads.len()).max(self.products.len()) > REMEMBERED {
            *self = Self::default();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: KeyRow = KeyRow(1);

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).unwrap()
    }

    #[test]
    fn a_nonce_is_spent_once_for_each_key_until_its_time_is_over() {
        let mut logs = Logs::default();
        assert_eq!(logs.spend(KEY, "n", at(0), at(600)), Some(1));
        assert_eq!(logs.spend(KEY, "n", at(599), at(1199)), None);
        assert_eq!(logs.spend(KeyRow(2), "n", at(599), at(1199)), Some(2));
        assert_eq!(logs.spend(KEY, "n", at(600), at(1200)), Some(3));
        assert_eq!(logs.spend(KEY, "n", at(1199), at(1799)), None);
    }

    fn scope(idempotency_key: &str) -> IdempotencyScope<'_> {
        IdempotencyScope { key: KEY, method: "POST", path: "/v1/orders", idempotency_key }
    }

    #[test]
    fn what_is_taken_back_was_never_added_and_what_was_before_is_again() {
        let mut memory = Memory::default();
        let logs = &mut memory.logs;
        logs.spend(KEY, "outside", at(0), at(600));
        logs.mark();
        logs.spend(KEY, "kept", at(0), at(600));
        assert_eq!(logs.add_record(&scope("kept")), 1);
        logs.mark();
        logs.spend(KEY, "undone", at(0), at(600));
        assert_eq!((logs.add_record(&scope("undone")), logs.add_record(&scope("kept"))), (2, 3));
        logs.undo();
        logs.keep();
        assert_eq!(logs.spend(KEY, "undone", at(0), at(600)), Some(3), "the log has no gap");
        assert!(logs.spend(KEY, "kept", at(0), at(600)).is_none());
        assert_eq!((logs.record(&scope("undone")), logs.record(&scope("kept"))), (None, Some(1)));

        logs.settle();
        assert_eq!(logs.spend(KEY, "kept", at(700), at(1300)), Some(4));
        assert_eq!(logs.add_record(&scope("kept")), 2);
        memory.take_back();
        assert!(memory.logs.spend(KEY, "kept", at(500), at(1100)).is_none(), "as it was spent before");
        assert_eq!(memory.logs.record(&scope("kept")), Some(1));
    }

    #[test]
    fn a_record_is_found_under_all_that_names_it() {
        let mut logs = Logs::default();
        let row = logs.add_record(&scope("name"));
        assert_eq!(logs.record(&scope("name")), Some(row));
        for other in [
            scope("nam"),
            IdempotencyScope { key: KeyRow(2), ..scope("name") },
            IdempotencyScope { method: "PUT", ..scope("name") },
            IdempotencyScope { path: "/v1/orders/1", ..scope("name") },
        ] {
            assert_eq!(logs.record(&other), None);
        }
    }

    #[test]
    fn those_whose_time_is_over_are_let_go_of() {
        let mut logs = Logs::default();
        for number in 0..100_000_i64 {
            logs.spend(KEY, &number.to_string(), at(number), at(number + 600));
            logs.settle();
        }
        let held = logs.nonces.len();
        assert!(held < 2 * 600 + REMEMBERED + 601, "{held}");
        assert!(logs.spend(KEY, "99500", at(100_000), at(100_600)).is_none());
    }
}
