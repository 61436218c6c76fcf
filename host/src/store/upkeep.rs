//! What keeps a book in order: records whose time is over go in small batches, pages are checked.

use jiff::{SignedDuration, Timestamp};
use provisor_providers::books::Fault;

use super::Transaction;
use super::sql::Dialect;

/// Rows per table and sweep, so that no request waits long behind one.
const BATCH: u16 = 1000;
/// How long failed signatures are kept: well past every window in which they count.
const FAILURES_KEPT: SignedDuration = SignedDuration::from_hours(24);
/// How long what was told to resellers stays to be looked at, and what could not be (our choices).
const TOLD_KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);
const UNTOLD_KEPT: SignedDuration = SignedDuration::from_hours(90 * 24);

const POSTGRES_SETTINGS: &[&str] = &["server_version", "fsync", "synchronous_commit", "full_page_writes"];
/// 2 is FULL.
const SQLITE_SETTINGS: &[&str] = &["journal_mode", "synchronous", "foreign_keys", "cell_size_check", "busy_timeout", "mmap_size"];

impl Transaction<'_> {
    /// Removes a batch of expired nonces, idempotency records, locks, failures, and of old deliveries and mails; whether there may be
    /// more.
    pub(crate) fn sweep(&mut self, now: Timestamp) -> Result<bool, Fault> {
        let mut is_full = false;
        self.sql.forget()?;
        // The newest row of a log stays, so that numbers only grow.
        let log = |table| match self.sql.dialect() {
            // Its oldest rows expire first, or about: a record is written anew for an hour past its day at most. Those alone are looked at.
            Dialect::Sqlite => format!(
                "DELETE FROM {table} WHERE expires_at <= $1 AND id IN
                   (SELECT id FROM {table} WHERE id < (SELECT MAX(id) FROM {table}) ORDER BY id LIMIT $2)"
            ),
            Dialect::Postgres => format!(
                "DELETE FROM {table} WHERE id IN
                   (SELECT id FROM {table} WHERE expires_at <= $1 AND id < (SELECT MAX(id) FROM {table}) LIMIT $2)"
            ),
        };
        let (nonces, idempotency) = (log("nonces"), log("idempotency"));
        for (statement, before) in [
            (&*nonces, now),
            (&*idempotency, now),
            ("DELETE FROM locks WHERE (key_id, network) IN (SELECT key_id, network FROM locks WHERE until <= $1 LIMIT $2)", now),
            ("DELETE FROM failures WHERE id IN (SELECT id FROM failures WHERE at <= $1 LIMIT $2)", now - FAILURES_KEPT),
            ("DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries WHERE delivered_at <= $1 LIMIT $2)", now - TOLD_KEPT),
            ("DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries WHERE dead_at <= $1 LIMIT $2)", now - UNTOLD_KEPT),
            ("DELETE FROM mails WHERE id IN (SELECT id FROM mails WHERE sent_at <= $1 LIMIT $2)", now - TOLD_KEPT),
            ("DELETE FROM mails WHERE id IN (SELECT id FROM mails WHERE dead_at <= $1 LIMIT $2)", now - UNTOLD_KEPT),
        ] {
            is_full |= self.sql.execute(statement, &[before.into(), i64::from(BATCH).into()])? >= usize::from(BATCH);
        }
        Ok(is_full)
    }

    /// Removes a batch of what the journal has kept long enough: providers' events, and operations that ended at `ended` or before; how
    /// many rows went. What is not ended, or not told yet, stays, and of a live service's present generation what it rests on: its
    /// beginning, the last change of its state, and the last renewal, whose repeat would be paid again where a provider shows no due dates.
    pub(crate) fn sweep_journal(&mut self, now: Timestamp, ended: Option<Timestamp>) -> Result<usize, Fault> {
        let mut swept = self.sql.execute(
            "DELETE FROM provider_events WHERE (profile, event_id) IN
               (SELECT profile, event_id FROM provider_events WHERE received_at <= $1 LIMIT $2)",
            &[(now - TOLD_KEPT).into(), i64::from(BATCH).into()],
        )?;
        // Of profiles that have no inventory any more.
        swept += self.sql.execute("DELETE FROM unowned_services WHERE seen_at <= $1", &[(now - TOLD_KEPT).into()])?;
        swept += self.sql.execute("DELETE FROM summaries WHERE made_at <= $1", &[(now - UNTOLD_KEPT).into()])?;
        let Some(ended) = ended else { return Ok(swept) };
        self.claim_journal();
        let class = |kind: &str| {
            format!(
                "CASE {kind} WHEN 'create' THEN 1 WHEN 'adopt' THEN 1 WHEN 'suspend' THEN 2 WHEN 'unsuspend' THEN 2 WHEN 'renew' THEN 3 END"
            )
        };
        // COALESCE keeps SQLite from looking through all that is done: a service's own rows are few.
        let query = format!(
            "SELECT o.id FROM operations o JOIN managed_services s ON s.id = o.service_id
             WHERE o.ended_at <= $1 AND o.tell_at IS NULL
               AND NOT (o.state = 'done' AND s.is_live = 1 AND o.generation = s.generation AND {} IS NOT NULL AND NOT EXISTS
                         (SELECT 1 FROM operations l WHERE l.service_id = o.service_id AND l.id > o.id AND COALESCE(l.state, '') = 'done' AND {} = {}))
             ORDER BY o.ended_at, o.id LIMIT $2",
            class("o.kind"),
            class("l.kind"),
            class("o.kind"),
        );
        for row in self.sql.query(&query, &[ended.into(), i64::from(BATCH).into()])? {
            let id = row.int(0)?;
            swept += self.sql.execute("DELETE FROM operation_attempts WHERE operation_id = $1", &[id.into()])?;
            swept += self.sql.execute("DELETE FROM operations WHERE id = $1", &[id.into()])?;
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
