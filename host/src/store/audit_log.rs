//! The audit log: one hash chain per account.
//!
//! Where several processes write, an index leads from a stream to its rows. Where one does, on SQLite, such an index would be written to
//! at a place of its own for each account that asks something; there each block of rows has an index of its own, of a few pages, and every
//! 64th row of a stream stands in one over all blocks, which says where to begin.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::RangeInclusive;

use jiff::Timestamp;
use provisor_providers::books::{AuditRow, Fault};

use super::Transaction;
use super::fold::fold;
use super::sql::{Dialect, Row, Sql, Value};
use super::sqlite::fault;
use crate::audit::{GENESIS, Link, Part};

/// The last row of a chain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    seq: i64,
    hash: [u8; 32],
}

pub(super) fn append(sql: &mut dyn Sql, row: &AuditRow) -> Result<(), Fault> {
    let stream = row.account.map_or(0, |account| account.0);
    let head = head(sql, stream)?;
    let link = Link::new(stream, head.seq + 1, row);
    let hash = link.hash(&head.hash);
    sql.execute(
        "INSERT INTO audit (stream, seq, at, account_id, key_id, peer, method, path, status, reason, request_id, event, detail,
                            chain_hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        &[
            stream.into(),
            link.seq.into(),
            row.at.into(),
            row.account.map(|account| account.0).into(),
            row.key_id.as_deref().into(),
            (&link.peer).into(),
            (&row.method).into(),
            (&row.path).into(),
            i64::from(row.status).into(),
            row.reason.as_deref().into(),
            (&row.request_id).into(),
            (&row.event).into(),
            row.detail.as_deref().into(),
            hash.as_slice().into(),
        ],
    )?;
    let head = Head { seq: link.seq, hash };
    match sql.hot() {
        Some(hot) => {
            hot.set_head(stream, head);
            Ok(())
        }
        None => write_head(sql, stream, &head),
    }
}

fn head(sql: &mut dyn Sql, stream: i64) -> Result<Head, Fault> {
    if let Some(head) = sql.hot().and_then(|hot| hot.head(stream)) {
        return Ok(head);
    }
    let row = sql.first("SELECT seq, chain_hash FROM chain_heads WHERE stream = $1", &[stream.into()])?;
    row.map_or(Ok(Head { seq: 0, hash: GENESIS }), |row| Ok(Head { seq: row.int(0)?, hash: row.array(1)? }))
}

/// What is remembered of a chain, into the book.
pub(super) fn write_head(sql: &mut dyn Sql, stream: i64, head: &Head) -> Result<(), Fault> {
    sql.execute(
        "INSERT INTO chain_heads (stream, seq, chain_hash) VALUES ($1, $2, $3)
         ON CONFLICT (stream) DO UPDATE SET seq = excluded.seq, chain_hash = excluded.chain_hash",
        &[stream.into(), head.seq.into(), head.hash.as_slice().into()],
    )?;
    Ok(())
}

/// A row of the log as it stands in the book.
#[derive(Debug, Clone)]
pub struct StoredAuditRow {
    /// Its place in the table: rows that came later have greater ones.
    pub id: i64,
    /// An account's id, or 0.
    pub stream: i64,
    /// From 1, without gaps.
    pub seq: i64,
    /// What happened.
    pub row: AuditRow,
    /// Over the hash before it and this row.
    pub chain_hash: [u8; 32],
}

/// A row as it stands in the table, borrowed and unjudged: another hand may have written anything.
pub(crate) struct RawAuditRow<'a> {
    /// Its place in the table.
    pub(crate) id: i64,
    /// The hashed columns, `stream` and `seq` first.
    pub(crate) hashed: &'a [Value<'a>],
    pub(crate) chain_hash: Value<'a>,
}

impl<'a> RawAuditRow<'a> {
    /// A row of a scan or a fold of this file.
    pub(crate) fn of(columns: &'a [Value<'a>]) -> Option<Self> {
        match columns {
            [Value::Int(id), hashed @ .., chain_hash] => Some(Self { id: *id, hashed, chain_hash: *chain_hash }),
            _ => None,
        }
    }
}

const SCAN_BATCH: u32 = 10_000;

/// Rows of a block, and how many rows of a stream make a step, as the indexes of the migrations have them.
const BLOCK: i64 = 1024;
const STEP: i64 = 64;

const COLUMNS: &str =
    "id, stream, seq, at, account_id, key_id, peer, method, path, status, reason, request_id, event, detail, chain_hash";

/// What a fold reads.
const PLACES: &str = "audit WHERE id >= $1 AND id <= $2";

/// One by one: SQLite looks at the ends alone only where a query asks for a single one.
const ENDS: &str = "SELECT (SELECT MIN(id) FROM audit), (SELECT MAX(id) FROM audit)";

impl Transaction<'_> {
    /// Hands the rows at some places of the table to a step, for [`RawAuditRow::of`], with the state that it made of those before; the
    /// last state. All that it sees is of one moment.
    pub(crate) fn fold_audit<S: Send + 'static>(
        &mut self,
        places: RangeInclusive<i64>,
        mut state: S,
        step: fn(&mut S, &[Value<'_>]),
    ) -> Result<S, Fault> {
        let (first, last) = (*places.start(), *places.end());
        if let Some(connection) = self.sql.sqlite() {
            return fold(connection, COLUMNS, PLACES, &[first.into(), last.into()], state, step).map_err(|error| fault(&error));
        }
        let query = format!("SELECT {COLUMNS} FROM audit WHERE id > $1 AND id <= $2 ORDER BY id LIMIT {SCAN_BATCH}");
        self.scan_batches(&query, (first.saturating_sub(1), last), 0, &mut |columns| step(&mut state, columns))?;
        Ok(state)
    }

    /// A place in the table before which there are about as many rows as behind it.
    pub(crate) fn middle_of_audit(&mut self) -> Result<i64, Fault> {
        let row = self.sql.first(ENDS, &[])?;
        let (first, last) = row.map_or(Ok((None, None)), |row| Ok((row.opt_int(0)?, row.opt_int(1)?)))?;
        Ok(first.unwrap_or(0).midpoint(last.unwrap_or(0)))
    }

    /// Hands on a stream's rows by their sequence.
    pub(crate) fn scan_audit(&mut self, stream: i64, each: &mut dyn FnMut(RawAuditRow<'_>)) -> Result<(), Fault> {
        let mut each = |columns: &[Value<'_>]| RawAuditRow::of(columns).into_iter().for_each(&mut *each);
        if self.sql.dialect() == Dialect::Postgres {
            let query = format!("SELECT {COLUMNS} FROM audit WHERE seq > $1 AND stream = $2 ORDER BY seq LIMIT {SCAN_BATCH}");
            return self.scan_batches(&query, (i64::MIN, stream), 2, &mut each);
        }
        // Nobody is relied on to have left them in their order.
        let mut places = Vec::new();
        let query = format!("SELECT id, seq FROM audit WHERE id / {BLOCK} = $1 AND stream = $2");
        self.blocks(i64::MIN, &mut |sql, block| {
            sql.scan(&query, &[block.into(), stream.into()], &mut |columns| {
                if let [Value::Int(id), Value::Int(seq)] = columns {
                    places.push((*seq, *id));
                }
            })?;
            Ok(true)
        })?;
        places.sort_unstable();
        let query = format!("SELECT {COLUMNS} FROM audit WHERE id = $1");
        places.into_iter().try_for_each(|(_, id)| self.sql.scan(&query, &[id.into()], &mut each))
    }

    /// For an engine that hands over a whole result at once: batch after batch, each behind the last one's `column`.
    fn scan_batches(
        &mut self,
        query: &str,
        (mut after, other): (i64, i64),
        column: usize,
        each: &mut dyn FnMut(&[Value<'_>]),
    ) -> Result<(), Fault> {
        loop {
            let mut read = 0;
            self.sql.scan(query, &[after.into(), other.into()], &mut |columns| {
                if let Some(Value::Int(last)) = columns.get(column) {
                    after = *last;
                }
                read += 1;
                each(columns);
            })?;
            if read < SCAN_BATCH {
                return Ok(());
            }
        }
    }

    /// Visits each block that has rows, from the one of a place on, as long as `visit` wants more.
    fn blocks(&mut self, from: i64, visit: &mut dyn FnMut(&mut dyn Sql, i64) -> Result<bool, Fault>) -> Result<(), Fault> {
        let mut from = Some(from);
        while let Some(place) = from {
            let row = self.sql.first("SELECT id FROM audit WHERE id >= $1 ORDER BY id LIMIT 1", &[place.into()])?;
            let Some(block) = row.map(|row| row.int(0)).transpose()?.map(|id| id / BLOCK) else { break };
            let goes_on = visit(self.sql, block)?;
            // Of the places before the first, where another hand may have put a row, a block begins behind a multiple.
            let next = if block < 0 { Some(block * BLOCK + 1) } else { (block + 1).checked_mul(BLOCK) };
            from = next.filter(|_| goes_on);
        }
        Ok(())
    }

    /// Where a stream's chain begins once its older rows were archived: the last archived sequence and its hash.
    pub(crate) fn chain_bases(&mut self) -> Result<Vec<(i64, i64, [u8; 32])>, Fault> {
        let rows = self.sql.query("SELECT stream, seq, chain_hash FROM chain_bases", &[])?;
        rows.iter().map(|row| Ok((row.int(0)?, row.int(1)?, row.array(2)?))).collect()
    }

    /// What can be archived: of each stream its rows from the first one to the last before the first that is not older than a moment,
    /// with the hash before them and the hash of the last.
    pub fn archivable(&mut self, before: Timestamp) -> Result<Vec<Part>, Fault> {
        let bases: HashMap<i64, (i64, [u8; 32])> =
            self.chain_bases()?.into_iter().map(|(stream, seq, hash)| (stream, (seq, hash))).collect();
        // First: a row that is added meanwhile lies behind these.
        let heads = self.chain_heads()?;
        let younger = self.first_since(before)?;
        let mut parts = Vec::new();
        for (stream, head, _) in heads {
            let (base, hash) = bases.get(&stream).copied().unwrap_or((0, GENESIS));
            let last = younger.get(&stream).map_or(head, |younger| younger - 1);
            if let Some(row) = self.audit_rows(stream, last - 1, 1)?.pop().filter(|row| row.seq == last) {
                parts.push(Part { stream, first: base + 1, last, before: hash, head: row.chain_hash });
            }
        }
        Ok(parts)
    }

    /// Of each stream the first row that is not older than a moment. A part of the table at a time: no statement reads all of it.
    fn first_since(&mut self, moment: Timestamp) -> Result<HashMap<i64, i64>, Fault> {
        let mut found = HashMap::new();
        let mut after = i64::MIN;
        loop {
            let end = "SELECT id FROM audit WHERE id > $1 ORDER BY id LIMIT 1 OFFSET $2";
            let end = self.sql.first(end, &[after.into(), SCAN_BATCH.into()])?.map(|row| row.int(0)).transpose()?;
            let rows = self.sql.query(
                "SELECT stream, MIN(seq) FROM audit WHERE id > $1 AND id <= $2 AND at >= $3 GROUP BY stream",
                &[after.into(), end.unwrap_or(i64::MAX).into(), moment.into()],
            )?;
            for row in rows {
                let first = found.entry(row.int(0)?).or_insert(i64::MAX);
                *first = row.int(1)?.min(*first);
            }
            match end {
                Some(end) => after = end,
                None => return Ok(found),
            }
        }
    }

    /// Removes what is archived, of each stream up to a sequence number, among the next rows of the table behind a place: the chains
    /// begin behind them from this commit on. Up to which place it looked, and how many rows it removed; nothing at the table's end.
    pub fn remove_archived(
        &mut self,
        archived: &HashMap<i64, i64>,
        after: i64,
        limit: u32,
        now: Timestamp,
    ) -> Result<Option<(i64, usize)>, Fault> {
        let rows = self.sql.query(
            "SELECT id, stream, seq, chain_hash FROM audit WHERE id > $1 ORDER BY id LIMIT $2",
            &[after.into(), limit.into()],
        )?;
        let Some(end) = rows.last().map(|row| row.int(0)).transpose()? else { return Ok(None) };
        let mut bases: HashMap<i64, (i64, Option<[u8; 32]>)> = HashMap::new();
        for row in &rows {
            let (stream, seq) = (row.int(1)?, row.int(2)?);
            let Some(last) = archived.get(&stream) else { continue };
            let base = match bases.entry(stream) {
                Entry::Occupied(base) => base.into_mut(),
                Entry::Vacant(unread) => {
                    let base = self.sql.first("SELECT seq FROM chain_bases WHERE stream = $1", &[stream.into()])?;
                    unread.insert((base.map_or(Ok(0), |row| row.int(0))?, None))
                }
            };
            if seq == base.0 + 1 && seq <= *last {
                *base = (seq, Some(row.array(3)?));
            }
        }
        for (stream, (seq, hash)) in bases {
            let Some(hash) = hash else { continue };
            self.sql.execute(
                "INSERT INTO chain_bases (stream, seq, chain_hash, archived_at) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (stream) DO UPDATE SET
                   seq = excluded.seq, chain_hash = excluded.chain_hash, archived_at = excluded.archived_at",
                &[stream.into(), seq.into(), hash.as_slice().into(), now.into()],
            )?;
        }
        let removed = self.sql.execute(
            "DELETE FROM audit WHERE id > $1 AND id <= $2
               AND seq <= (SELECT b.seq FROM chain_bases b WHERE b.stream = audit.stream)",
            &[after.into(), end.into()],
        )?;
        Ok(Some((end, removed)))
    }

    /// One stream's head.
    pub(crate) fn chain_head(&mut self, stream: i64) -> Result<Option<i64>, Fault> {
        self.sql.forget()?;
        self.sql.first("SELECT seq FROM chain_heads WHERE stream = $1", &[stream.into()])?.map(|row| row.int(0)).transpose()
    }

    /// The streams and their heads: sequence and hash.
    pub fn chain_heads(&mut self) -> Result<Vec<(i64, i64, [u8; 32])>, Fault> {
        self.sql.forget()?;
        let rows = self.sql.query("SELECT stream, seq, chain_hash FROM chain_heads ORDER BY stream", &[])?;
        rows.iter().map(|row| Ok((row.int(0)?, row.int(1)?, row.array(2)?))).collect()
    }

    /// The newest rows over all streams, oldest first.
    pub fn newest_audit_rows(&mut self, limit: u32) -> Result<Vec<StoredAuditRow>, Fault> {
        let mut rows = self.sql.query(&format!("SELECT {COLUMNS} FROM audit ORDER BY id DESC LIMIT $1"), &[limit.into()])?;
        rows.reverse();
        rows.iter().map(read).collect()
    }

    /// Rows of a stream after a sequence number, `limit` of them.
    pub fn audit_rows(&mut self, stream: i64, after: i64, limit: u32) -> Result<Vec<StoredAuditRow>, Fault> {
        if self.sql.dialect() == Dialect::Postgres {
            let query = format!("SELECT {COLUMNS} FROM audit WHERE stream = $1 AND seq > $2 ORDER BY seq LIMIT $3");
            let rows = self.sql.query(&query, &[stream.into(), after.into(), limit.into()])?;
            return rows.iter().map(read).collect();
        }
        let step = format!("SELECT id FROM audit WHERE stream = $1 AND seq <= $2 AND seq % {STEP} = 0 ORDER BY seq DESC LIMIT 1");
        let step = self.sql.first(&step, &[stream.into(), after.into()])?.map(|row| row.int(0)).transpose()?;
        let begin = step.map_or(i64::MIN, |id| id - id % BLOCK);
        let query =
            format!("SELECT {COLUMNS} FROM audit WHERE id / {BLOCK} = $1 AND stream = $2 AND seq > $3 ORDER BY id LIMIT $4");
        let (mut found, mut left) = (Vec::new(), limit);
        self.blocks(begin, &mut |sql, block| {
            for row in sql.query(&query, &[block.into(), stream.into(), after.into(), left.into()])? {
                found.push(read(&row)?);
                left -= 1;
            }
            Ok(left > 0)
        })?;
        Ok(found)
    }
}

fn read(row: &Row) -> Result<StoredAuditRow, Fault> {
    Ok(StoredAuditRow {
        id: row.int(0)?,
        stream: row.int(1)?,
        seq: row.int(2)?,
        row: AuditRow {
            at: row.time(3)?,
            account: row.opt_int(4)?.map(provisor_providers::books::AccountId),
            key_id: row.opt_text(5)?,
            peer: row.spelled(6, |text| text.parse().ok())?,
            method: row.text(7)?,
            path: row.text(8)?,
            status: row.number(9)?,
            reason: row.opt_text(10)?,
            request_id: row.text(11)?,
            event: row.text(12)?,
            detail: row.opt_text(13)?,
        },
        chain_hash: row.array(14)?,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use provisor_providers::books::{AccountId, Books};

    use super::*;
    use crate::store::Store;
    use crate::vault::Vault;

    /// Some streams that are always there, one that comes seldom, and one that was away for blocks of rows.
    fn stream_of(number: i64) -> i64 {
        match number {
            0..100 | 7900..8000 => 4,
            _ if number % 301 == 0 => 3,
            _ => number % 3,
        }
    }

    fn row(number: i64) -> AuditRow {
        let stream = stream_of(number);
        AuditRow {
            account: Some(stream).filter(|stream| *stream > 0).map(AccountId),
            method: "GET".to_owned(),
            ..AuditRow::of_event("request", Timestamp::from_millisecond(number).unwrap(), [203, 0, 113, 7].into(), String::new())
        }
    }

    #[tokio::test]
    async fn rows_of_a_stream_are_found_wherever_they_stand() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_sqlite(&folder.path().join("book.db"), Arc::new(Vault::open(folder.path()).unwrap())).unwrap();
        let written = store.transact(|books| {
            (0..8000).try_for_each(|number| books.audit(&row(number)))?;
            // An archive took the first rows of one, and leaves a hole.
            books.remove_archived(&HashMap::from([(1, 1100)]), i64::MIN, 8000, Timestamp::UNIX_EPOCH)
        });
        assert_eq!(written.await.unwrap().unwrap().1, 1100);
        let seqs = |rows: Vec<StoredAuditRow>| rows.iter().map(|row| row.seq).collect::<Vec<_>>();
        for stream in 0..6 {
            let query = "SELECT seq FROM audit WHERE stream = $1 ORDER BY id";
            let all = store.read(|books| books.sql.query(query, &[stream.into()])?.iter().map(|row| row.int(0)).collect());
            let all: Vec<i64> = all.unwrap();
            for after in [i64::MIN, -1, 0, 1, 62, 63, 64, 65, 99, 100, 101, 199, 1100, 1500, 2047, 2048, 2600, 2700, i64::MAX] {
                for limit in [0, 1, 2, 64, 1000, 5000] {
                    let found = seqs(store.read(|books| books.audit_rows(stream, after, limit)).unwrap());
                    let wanted: Vec<i64> = all.iter().copied().filter(|seq| *seq > after).take(limit as usize).collect();
                    assert_eq!(found, wanted, "stream {stream} after {after}, {limit} of them");
                }
            }
        }
        assert_eq!(seqs(store.read(|books| books.newest_audit_rows(3)).unwrap()), [198, 199, 200]);
    }

    /// More rows than one part of the table has; of one stream the clock went back.
    #[tokio::test]
    async fn what_can_be_archived_ends_before_the_first_younger_row() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_sqlite(&folder.path().join("book.db"), Arc::new(Vault::open(folder.path()).unwrap())).unwrap();
        let at = |number: i64| Timestamp::from_millisecond(if number == 20_000 { 50 } else { number }).unwrap();
        let written = store.transact(move |books| {
            (0..24_000).try_for_each(|number| {
                let account = Some(AccountId(number % 3)).filter(|account| account.0 > 0);
                books.audit(&AuditRow { account, at: at(number), ..row(0) })
            })
        });
        written.await.unwrap();
        for before in [0, 1, 2, 100, 9_999, 10_000, 10_001, 20_000, 20_001, 23_999, 24_000] {
            let parts = store.read(|books| books.archivable(Timestamp::from_millisecond(before).unwrap())).unwrap();
            let found: Vec<_> = parts.iter().map(|part| (part.stream, part.first, part.last)).collect();
            let older = |stream| {
                (0..24_000).filter(move |number| number % 3 == stream).take_while(|number| at(*number).as_millisecond() < before)
            };
            let wanted = (0..3).map(|stream| (stream, 1, i64::try_from(older(stream).count()).unwrap()));
            assert_eq!(found, wanted.filter(|(_, _, last)| *last > 0).collect::<Vec<_>>(), "before {before}");
        }
    }

    /// Nothing would be wrong otherwise, but all of the table read, or read in another order and then once more.
    #[test]
    fn the_log_is_read_by_its_places() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_sqlite(&folder.path().join("book.db"), Arc::new(Vault::open(folder.path()).unwrap())).unwrap();
        let plan = |query: &str, values: &[Value<'_>]| {
            let rows = store.read(|books| books.sql.query(&format!("EXPLAIN QUERY PLAN {query}"), values)).unwrap();
            rows.iter().map(|row| row.text(3).unwrap()).filter(|step| step.contains("audit")).collect::<Vec<_>>()
        };
        assert_eq!(plan(ENDS, &[]), ["SEARCH audit", "SEARCH audit"]);
        let places = plan(&format!("SELECT {COLUMNS} FROM {PLACES}"), &[1_i64.into(), 2_i64.into()]);
        assert_eq!(places, ["SEARCH audit USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"]);
    }

    /// A row that another hand put at the end of all places leaves an end to the search.
    #[tokio::test]
    async fn the_last_place_of_all_ends_the_search() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_sqlite(&folder.path().join("book.db"), Arc::new(Vault::open(folder.path()).unwrap())).unwrap();
        let written = store.transact(|books| {
            (0..3).try_for_each(|_| books.audit(&row(1)))?;
            books.sql.execute("UPDATE audit SET id = $1 WHERE seq = 3", &[i64::MAX.into()])
        });
        written.await.unwrap();
        assert_eq!(store.read(|books| books.audit_rows(4, 0, 10)).unwrap().len(), 3);
    }
}
