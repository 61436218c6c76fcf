//! What keeps a book in order: records whose time is over go in small batches, pages are checked.

use jiff::{SignedDuration, Timestamp};
use provisor_providers::books::Fault;

use super::Transaction;
use super::sql::Dialect;

/// Rows per table and sweep, so that no request waits long behind one.
const BATCH: i64 = 1000;
/// How long failed signatures are kept: well past every window in which they count.
const FAILURES_KEPT: SignedDuration = SignedDuration::from_hours(24);
/// How long what was told to resellers stays to be looked at, and what could not be (our choices).
const TOLD_KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);
const UNTOLD_KEPT: SignedDuration = SignedDuration::from_hours(90 * 24);

const POSTGRES_SETTINGS: &[&str] = &["server_version", "fsync", "synchronous_commit", "full_page_writes"];
/// 2 is FULL.
const SQLITE_SETTINGS: &[&str] =
    &["journal_mode", "synchronous", "wal_autocheckpoint", "foreign_keys", "cell_size_check", "busy_timeout", "mmap_size"];

impl Transaction<'_> {
    /// Removes a batch of expired nonces, idempotency records, locks, failures, and of old deliveries and mails; how many rows went.
    pub(crate) fn sweep(&mut self, now: Timestamp) -> Result<usize, Fault> {
        let mut swept = 0;
        self.sql.forget()?;
        for (statement, before) in [
            (
                // The newest row stays, so that numbers only grow.
                "DELETE FROM nonces WHERE id IN
                   (SELECT id FROM nonces WHERE expires_at <= $1 AND id < (SELECT MAX(id) FROM nonces) LIMIT $2)",
                now,
            ),
            (
                "DELETE FROM idempotency WHERE (key_id, method, path, idempotency_key) IN
                   (SELECT key_id, method, path, idempotency_key FROM idempotency WHERE expires_at <= $1 LIMIT $2)",
                now,
            ),
            ("DELETE FROM locks WHERE (key_id, network) IN (SELECT key_id, network FROM locks WHERE until <= $1 LIMIT $2)", now),
            ("DELETE FROM failures WHERE id IN (SELECT id FROM failures WHERE at <= $1 LIMIT $2)", now - FAILURES_KEPT),
            ("DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries WHERE delivered_at <= $1 LIMIT $2)", now - TOLD_KEPT),
            ("DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries WHERE dead_at <= $1 LIMIT $2)", now - UNTOLD_KEPT),
            ("DELETE FROM mails WHERE id IN (SELECT id FROM mails WHERE sent_at <= $1 LIMIT $2)", now - TOLD_KEPT),
            ("DELETE FROM mails WHERE id IN (SELECT id FROM mails WHERE dead_at <= $1 LIMIT $2)", now - UNTOLD_KEPT),
            (
                "DELETE FROM provider_events WHERE (profile, event_id) IN
                   (SELECT profile, event_id FROM provider_events WHERE received_at <= $1 LIMIT $2)",
                now - TOLD_KEPT,
            ),
        ] {
            swept += self.sql.execute(statement, &[before.into(), BATCH.into()])?;
        }
        Ok(swept)
    }

    /// The settings that a book's safety rests on, by name, as they are in force where it is written.
    pub fn settings(&mut self) -> Result<Vec<(&'static str, String)>, Fault> {
        let (ask, names) = match self.sql.dialect() {
            Dialect::Sqlite => ("PRAGMA", SQLITE_SETTINGS),
            Dialect::Postgres => ("SHOW", POSTGRES_SETTINGS),
        };
        let mut settings = Vec::new();
        for name in names {
            let row = self.sql.first(&format!("{ask} {name}"), &[])?;
            let value =
                row.as_ref().map_or(Ok(String::new()), |row| row.text(0).or_else(|_| row.int(0).map(|value| value.to_string())));
            settings.push((*name, value?));
        }
        Ok(settings)
    }

    /// Whether the book's pages are in order, in SQLite's own words if not. PostgreSQL sees to its own pages.
    pub fn quick_check(&mut self) -> Result<(), Fault> {
        if self.sql.dialect() == Dialect::Postgres {
            return self.sql.first("SELECT 1", &[]).map(drop);
        }
        let found = self.sql.first("PRAGMA quick_check(1)", &[])?.map_or(Ok(String::new()), |row| row.text(0))?;
        if found == "ok" { Ok(()) } else { Err(Fault(format!("quick_check: {found}"))) }
    }
}
