//! The audit log: one hash chain per account.

use provisor_providers::books::{AuditRow, Fault};

use super::Transaction;
use super::sql::{Row, Sql};
use crate::audit::{GENESIS, Link};

pub(super) fn append(sql: &mut dyn Sql, row: &AuditRow) -> Result<(), Fault> {
    let stream = row.account.map_or(0, |account| account.0);
    let head = sql.first("SELECT seq, chain_hash FROM chain_heads WHERE stream = $1", &[stream.into()])?;
    let (seq, previous) = head.map_or(Ok((0, GENESIS)), |head| Ok((head.int(0)?, head.array(1)?)))?;
    let link = Link { stream, seq: seq + 1, row };
    let hash = link.hash(&previous);
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
    sql.execute(
        "INSERT INTO chain_heads (stream, seq, chain_hash) VALUES ($1, $2, $3)
         ON CONFLICT (stream) DO UPDATE SET seq = excluded.seq, chain_hash = excluded.chain_hash",
        &[stream.into(), link.seq.into(), hash.as_slice().into()],
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

impl Transaction<'_> {
    /// The streams and their heads: sequence and hash.
    pub fn chain_heads(&mut self) -> Result<Vec<(i64, i64, [u8; 32])>, Fault> {
        let rows = self.sql.query("SELECT stream, seq, chain_hash FROM chain_heads ORDER BY stream", &[])?;
        rows.iter().map(|row| Ok((row.int(0)?, row.int(1)?, row.array(2)?))).collect()
    }

    /// Rows of a stream after a sequence number, `limit` of them.
    pub fn audit_rows(&mut self, stream: i64, after: i64, limit: u32) -> Result<Vec<StoredAuditRow>, Fault> {
        let rows = self.sql.query(
            "SELECT stream, seq, at, account_id, key_id, peer, method, path, status, reason, request_id, event, detail, chain_hash
             FROM audit WHERE stream = $1 AND seq > $2 ORDER BY seq LIMIT $3",
            &[stream.into(), after.into(), limit.into()],
        )?;
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
