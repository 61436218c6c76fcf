//! What the writer of a SQLite book remembers from one transaction to the next, so that a request need not read what the one before
//! it wrote, nor write what the one after it writes again.
//!
//! The book stays the truth: everything here comes from it, is in it with the commit that answers the request, and is read anew
//! when another process wrote to the book or a transaction was taken back. PostgreSQL has several writers, who share only their
//! database; nothing is remembered there.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use provisor_providers::books::{Fault, KeyRow, Product};

use super::audit_log::{self, Head};
use super::keys::{self, Use};
use super::sql::{Sql, Value, unexpected};

/// Keys, chains, and products remembered at a time; more than are busy at once.
const REMEMBERED: usize = 10_000;

/// All that one writer remembers.
#[derive(Default)]
pub(super) struct Memory {
    /// SQLite's number for what others wrote.
    data_version: Option<i64>,
    pub(super) nonces: Nonces,
    pub(super) hot: Hot,
}

impl Memory {
    /// At the beginning of a transaction, when nobody else can write: forgets what others may have changed, and learns which nonces
    /// they spent.
    pub(super) fn catch_up(&mut self, sql: &mut dyn Sql) -> Result<(), Fault> {
        let version = sql.first("PRAGMA data_version", &[])?.map(|row| row.int(0)).transpose()?;
        if version.is_none() || self.data_version != version {
            self.hot = Hot::default();
            self.nonces.read_on(sql)?;
            self.data_version = version;
        }
        Ok(())
    }

    /// After a commit.
    pub(super) fn settle(&mut self) {
        self.nonces.fresh.clear();
    }

    /// After a transaction was taken back.
    pub(super) fn take_back(&mut self) {
        self.hot = Hot::default();
        self.nonces.take_back_to(0);
        self.nonces.marks.clear();
    }
}

/// Which nonces are spent. In the book they are a log, to which each adds a row at the end; this is its index. An index in the book
/// would be written to at a random place for each request, and a page that changed costs more than all else a request writes.
#[derive(Default)]
pub(crate) struct Nonces {
    /// Each key's, and from when on they may be spent again, in Unix milliseconds.
    spent: HashMap<KeyRow, HashMap<Box<str>, i64>>,
    /// How many there are, and how many there were after those whose time was over had been let go of.
    count: usize,
    kept: usize,
    /// The last row of the log that is known. The book keeps its newest row, so that numbers only grow.
    last: i64,
    /// What this transaction spent, with what was known of it before.
    fresh: Vec<(KeyRow, Box<str>, Option<i64>)>,
    marks: Vec<usize>,
}

impl Nonces {
    /// Spends one; none if it is spent. The caller adds the row of this number to the log.
    pub(super) fn spend(&mut self, key: KeyRow, nonce: &str, now: Timestamp, until: Timestamp) -> Option<i64> {
        let before = self.spent.get(&key).and_then(|of_key| of_key.get(nonce)).copied();
        if before.is_some_and(|until| until > now.as_millisecond()) {
            return None;
        }
        if self.count > 2 * self.kept + REMEMBERED {
            self.let_go(now);
        }
        self.fresh.push((key, nonce.into(), before));
        self.put(key, nonce.into(), until.as_millisecond());
        self.last += 1;
        Some(self.last)
    }

    fn put(&mut self, key: KeyRow, nonce: Box<str>, until: i64) {
        if self.spent.entry(key).or_default().insert(nonce, until).is_none() {
            self.count += 1;
        }
    }

    /// Seldom enough that it costs each nonce little, often enough that there are never many more than the window holds.
    fn let_go(&mut self, now: Timestamp) {
        self.spent.retain(|_, of_key| {
            of_key.retain(|_, until| *until > now.as_millisecond());
            !of_key.is_empty()
        });
        self.count = self.spent.values().map(HashMap::len).sum();
        self.kept = self.count;
    }

    /// Reads the rows of the log that came since.
    fn read_on(&mut self, sql: &mut dyn Sql) -> Result<(), Fault> {
        let query = "SELECT id, key_id, nonce, expires_at FROM nonces WHERE id > $1 ORDER BY id";
        let mut broken = false;
        sql.scan(query, &[self.last.into()], &mut |row| match row {
            [Value::Int(id), Value::Int(key), Value::Text(nonce), Value::Int(until)] => {
                self.last = *id;
                self.put(KeyRow(*key), (*nonce).into(), *until);
            }
            _ => broken = true,
        })?;
        if broken { Err(unexpected(2)) } else { Ok(()) }
    }

    pub(super) fn mark(&mut self) {
        self.marks.push(self.fresh.len());
    }

    pub(super) fn keep(&mut self) {
        self.marks.pop();
    }

    pub(super) fn undo(&mut self) {
        if let Some(mark) = self.marks.pop() {
            self.take_back_to(mark);
        }
    }

    fn take_back_to(&mut self, mark: usize) {
        for (key, nonce, before) in self.fresh.drain(mark..).rev() {
            self.last -= 1;
            let Some(of_key) = self.spent.get_mut(&key) else { continue };
            match before {
                Some(until) => {
                    of_key.insert(nonce, until);
                }
                None => self.count -= usize::from(of_key.remove(&nonce).is_some()),
            }
        }
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
        let mut nonces = Nonces::default();
        assert_eq!(nonces.spend(KEY, "n", at(0), at(600)), Some(1));
        assert_eq!(nonces.spend(KEY, "n", at(599), at(1199)), None);
        assert_eq!(nonces.spend(KeyRow(2), "n", at(599), at(1199)), Some(2));
        assert_eq!(nonces.spend(KEY, "n", at(600), at(1200)), Some(3));
        assert_eq!(nonces.spend(KEY, "n", at(1199), at(1799)), None);
    }

    #[test]
    fn what_is_taken_back_was_never_spent_and_what_was_before_is_again() {
        let mut nonces = Nonces::default();
        nonces.spend(KEY, "outside", at(0), at(600));
        nonces.mark();
        nonces.spend(KEY, "kept", at(0), at(600));
        nonces.mark();
        nonces.spend(KEY, "undone", at(0), at(600));
        nonces.undo();
        nonces.keep();
        assert_eq!(nonces.spend(KEY, "undone", at(0), at(600)), Some(3), "the log has no gap");
        assert!(nonces.spend(KEY, "kept", at(0), at(600)).is_none());

        let mut memory = Memory { nonces, ..Memory::default() };
        memory.settle();
        assert_eq!(memory.nonces.spend(KEY, "kept", at(700), at(1300)), Some(4));
        memory.take_back();
        assert!(memory.nonces.spend(KEY, "kept", at(500), at(1100)).is_none(), "as it was spent before");
    }

    #[test]
    fn those_whose_time_is_over_are_let_go_of() {
        let mut nonces = Nonces::default();
        for number in 0..100_000_i64 {
            nonces.spend(KEY, &number.to_string(), at(number), at(number + 600));
            nonces.fresh.clear();
        }
        assert!(nonces.count < 2 * 600 + REMEMBERED + 601, "{}", nonces.count);
        assert_eq!(nonces.count, nonces.spent[&KEY].len());
        assert!(nonces.spend(KEY, "99500", at(100_000), at(100_600)).is_none());
    }
}
