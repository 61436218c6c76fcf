//! The audit log: one hash chain per account.

use jiff::Timestamp;
use provisor_providers::books::{AuditRow, Fault};

use super::Transaction;
use super::sql::{Dialect, Row, Sql, Value};
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
    let link = Link { stream, seq: head.seq + 1, row };
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
            (&row.peer.to_string()).into(),
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
    /// The hashed columns, `stream` and `seq` first.
    pub(crate) hashed: &'a [Value<'a>],
    pub(crate) chain_hash: Value<'a>,
}

/// Which rows are scanned.
#[derive(Debug, Clone, Copy)]
pub(crate) enum AuditRows {
    /// All, in the order in which the table has them.
    All,
    /// Every other block of each stream, in that order: 0 or 1.
    Half(i64),
    /// One stream's, by their sequence.
    Stream(i64),
}

/// Rows of a stream that belong to the same half.
pub(crate) const AUDIT_BLOCK: i64 = 4096;

const SCAN_BATCH: u32 = 10_000;

const COLUMNS: &str =
    "stream, seq, at, account_id, key_id, peer, method, path, status, reason, request_id, event, detail, chain_hash";

impl Transaction<'_> {
    /// Hands on rows, borrowed.
    pub(crate) fn scan_audit(&mut self, rows: AuditRows, each: &mut dyn FnMut(RawAuditRow<'_>)) -> Result<(), Fault> {
        let mut each = |columns: &[Value<'_>]| {
            if let Some((chain_hash, hashed)) = columns.split_last() {
                each(RawAuditRow { hashed, chain_hash: *chain_hash });
            }
        };
        // A row whose numbers are none, or negative, falls to the first half.
        let is_odd = format!("(stream + seq / {AUDIT_BLOCK}) % 2 = 1");
        let which = match rows {
            AuditRows::All | AuditRows::Stream(_) => "1 = 1".to_owned(),
            AuditRows::Half(1) => is_odd,
            AuditRows::Half(_) => format!("({is_odd}) IS NOT TRUE"),
        };
        match (rows, self.sql.dialect()) {
            (AuditRows::Stream(stream), Dialect::Sqlite) => {
                let query = format!("SELECT {COLUMNS} FROM audit WHERE stream = $1 ORDER BY seq");
                self.sql.scan(&query, &[stream.into()], &mut each)
            }
            (_, Dialect::Sqlite) => self.sql.scan(&format!("SELECT {COLUMNS} FROM audit WHERE {which}"), &[], &mut each),
            (AuditRows::Stream(stream), Dialect::Postgres) => self.scan_stream(stream, &which, &mut each),
            (_, Dialect::Postgres) => {
                let streams = self.sql.query("SELECT DISTINCT stream FROM audit ORDER BY stream", &[])?;
                streams.iter().try_for_each(|row| self.scan_stream(row.int(0)?, &which, &mut each))
            }
        }
    }

    /// In batches, for an engine that hands over a whole result at once.
    fn scan_stream(&mut self, stream: i64, which: &str, each: &mut dyn FnMut(&[Value<'_>])) -> Result<(), Fault> {
        let query =
            format!("SELECT {COLUMNS} FROM audit WHERE stream = $1 AND seq > $2 AND {which} ORDER BY seq LIMIT {SCAN_BATCH}");
        let mut after = i64::MIN;
        loop {
            let mut read = 0;
            self.sql.scan(&query, &[stream.into(), after.into()], &mut |columns| {
                if let Some(Value::Int(seq)) = columns.get(1) {
                    after = *seq;
                }
                read += 1;
                each(columns);
            })?;
            if read < SCAN_BATCH {
                return Ok(());
            }
        }
    }

    /// Where a stream's chain begins once its older rows were archived: the last archived sequence and its hash.
    pub(crate) fn chain_bases(&mut self) -> Result<Vec<(i64, i64, [u8; 32])>, Fault> {
        let rows = self.sql.query("SELECT stream, seq, chain_hash FROM chain_bases", &[])?;
        rows.iter().map(|row| Ok((row.int(0)?, row.int(1)?, row.array(2)?))).collect()
    }

    /// What of a stream can be archived: its rows from the first one to the last before the first that is not older than a moment, with
    /// the hash before them and the hash of the last.
    pub fn archivable(&mut self, stream: i64, before: Timestamp) -> Result<Option<Part>, Fault> {
        let base = self.chain_bases()?.into_iter().find(|(based, ..)| *based == stream);
        let (base, hash) = base.map_or((0, GENESIS), |(_, seq, hash)| (seq, hash));
        let younger = "SELECT MIN(seq) FROM audit WHERE stream = $1 AND at >= $2";
        let younger = self.sql.first(younger, &[stream.into(), before.into()])?.map_or(Ok(None), |row| row.opt_int(0))?;
        let last = match younger {
            Some(younger) => younger - 1,
            None => self.chain_head(stream)?.unwrap_or(0),
        };
        let head = "SELECT chain_hash FROM audit WHERE stream = $1 AND seq = $2";
        let head = self.sql.first(head, &[stream.into(), last.into()])?;
        head.map(|head| Ok(Part { stream, first: base + 1, last, before: hash, head: head.array(0)? })).transpose()
    }

    /// Removes a batch of archived rows: the chain begins behind them from this commit on. False when none is left.
    pub fn remove_archived(&mut self, stream: i64, last: i64, limit: u32, now: Timestamp) -> Result<bool, Fault> {
        let base = self.chain_bases()?.into_iter().find(|(based, ..)| *based == stream).map_or(0, |(_, seq, _)| seq);
        let to = last.min(base + i64::from(limit));
        let row = self.sql.first("SELECT chain_hash FROM audit WHERE stream = $1 AND seq = $2", &[stream.into(), to.into()])?;
        let Some(row) = row.filter(|_| to > base) else { return Ok(false) };
        self.sql.execute(
            "INSERT INTO chain_bases (stream, seq, chain_hash, archived_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (stream) DO UPDATE SET seq = excluded.seq, chain_hash = excluded.chain_hash, archived_at = excluded.archived_at",
            &[stream.into(), to.into(), row.bytes(0)?.as_slice().into(), now.into()],
        )?;
        self.sql.execute("DELETE FROM audit WHERE stream = $1 AND seq <= $2", &[stream.into(), to.into()])?;
        Ok(to < last)
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

    /// The newest rows over all streams, oldest first. It looks at so many of each stream.
    pub fn newest_audit_rows(&mut self, limit: u32) -> Result<Vec<StoredAuditRow>, Fault> {
        // CROSS, so that SQLite looks up each stream's last rows, and does not go through the whole log.
        let query = format!(
            "SELECT {COLUMNS} FROM (SELECT stream AS chain, seq AS head FROM chain_heads) heads
             CROSS JOIN audit WHERE stream = chain AND seq > head - $1 ORDER BY at DESC, stream DESC, seq DESC LIMIT $1"
        );
        let mut rows = self.sql.query(&query, &[limit.into()])?;
        rows.reverse();
        rows.iter().map(read).collect()
    }

    /// Rows of a stream after a sequence number, `limit` of them.
    pub fn audit_rows(&mut self, stream: i64, after: i64, limit: u32) -> Result<Vec<StoredAuditRow>, Fault> {
        let query = format!("SELECT {COLUMNS} FROM audit WHERE stream = $1 AND seq > $2 ORDER BY seq LIMIT $3");
        let rows = self.sql.query(&query, &[stream.into(), after.into(), limit.into()])?;
        rows.iter().map(read).collect()
    }
}

fn read(row: &Row) -> Result<StoredAuditRow, Fault> {
    Ok(StoredAuditRow {
        stream: row.int(0)?,
        seq: row.int(1)?,
        row: AuditRow {
            at: row.time(2)?,
            account: row.opt_int(3)?.map(provisor_providers::books::AccountId),
            key_id: row.opt_text(4)?,
            peer: row.spelled(5, |text| text.parse().ok())?,
            method: row.text(6)?,
            path: row.text(7)?,
            status: row.number(8)?,
            reason: row.opt_text(9)?,
            request_id: row.text(10)?,
            event: row.text(11)?,
            detail: row.opt_text(12)?,
        },
        chain_hash: row.array(13)?,
    })
}
