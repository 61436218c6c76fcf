//! The operator's daily summaries: what the journal says of a day, made once.

use jiff::Timestamp;
use provisor_providers::books::{Fault, Mail};

use super::outbox::{self, Recipient};
use super::{OperationState, Transaction};

/// What the journal says of a time, and of now.
#[derive(Debug)]
pub(crate) struct Counts {
    /// Changes that were made in that time.
    pub(crate) done: i64,
    /// Changes that ended otherwise.
    pub(crate) failed: i64,
    /// What is not ended now.
    pub(crate) open: Vec<(OperationState, i64)>,
    /// Of that, what was asked for before a moment.
    pub(crate) overdue: i64,
    /// Services that differ from their panel's wish, by how.
    pub(crate) drifted: Vec<(String, i64)>,
    /// Services that no key owns.
    pub(crate) unowned: i64,
}

/// A summary of which a call-back is to be told.
#[derive(Debug)]
pub(crate) struct UntoldSummary {
    pub(crate) day: String,
    /// JSON.
    pub(crate) body: String,
    /// Earlier attempts at telling it.
    pub(crate) attempts: u32,
}

impl Transaction<'_> {
    /// Counts what ended from one moment until before another, and what stands now.
    pub(crate) fn summary_counts(&mut self, from: Timestamp, until: Timestamp, overdue: Timestamp) -> Result<Counts, Fault> {
        let mut ended = |state: OperationState| {
            let query = "SELECT COUNT(*) FROM operations WHERE ended_at >= $1 AND ended_at < $2 AND state = $3";
            self.sql.first(query, &[from.into(), until.into(), state.as_str().into()])?.map_or(Ok(0), |row| row.int(0))
        };
        let (done, failed) = (ended(OperationState::Done)?, ended(OperationState::Failed)?);
        let query = "SELECT COUNT(*) FROM operations WHERE ended_at IS NULL AND created_at <= $1";
        let overdue = self.sql.first(query, &[overdue.into()])?.map_or(Ok(0), |row| row.int(0))?;
        let query = "SELECT drift, COUNT(*) FROM managed_services WHERE drift IS NOT NULL GROUP BY drift ORDER BY drift";
        let drifted =
            self.sql.query(query, &[])?.iter().map(|row| Ok((row.text(0)?, row.int(1)?))).collect::<Result<_, Fault>>()?;
        let (open, unowned) = (self.open_operation_counts()?, self.unowned_count()?);
        Ok(Counts { done, failed, open, overdue, drifted, unowned })
    }

    /// Whether a day has its summary.
    pub(crate) fn has_summary(&mut self, day: &str) -> Result<bool, Fault> {
        Ok(self.sql.first("SELECT 1 FROM summaries WHERE day = $1", &[day.into()])?.is_some())
    }

    /// Writes a day's summary down, to be told to a call-back at `tell_at`.
    pub(crate) fn add_summary(&mut self, day: &str, body: &str, now: Timestamp, tell_at: Option<Timestamp>) -> Result<(), Fault> {
        self.sql.execute(
            "INSERT INTO summaries (day, body, made_at, tell_at) VALUES ($1, $2, $3, $4)",
            &[day.into(), body.into(), now.into(), tell_at.into()],
        )?;
        Ok(())
    }

    /// Puts a mail to the operator into the outbox.
    pub(crate) fn queue_operators_mail(&mut self, address: &str, mail: &Mail) -> Result<(), Fault> {
        outbox::queue_mail(self.sql, Recipient::Address(address), mail)
    }

    /// Takes a summary of which the call-back is to be told; it is due again at `again`, should this process not come to it.
    pub(crate) fn claim_summary(&mut self, now: Timestamp, again: Timestamp) -> Result<Option<UntoldSummary>, Fault> {
        self.claim_journal();
        let query = "UPDATE summaries SET tell_at = $1 WHERE day = (SELECT MIN(day) FROM summaries WHERE tell_at <= $2)
                     RETURNING day, body, tell_attempts";
        let row = self.sql.first(query, &[again.into(), now.into()])?;
        row.map(|row| Ok(UntoldSummary { day: row.text(0)?, body: row.text(1)?, attempts: row.number(2)? })).transpose()
    }

    /// Writes whether the call-back was told, and when it is to be told again.
    pub(crate) fn settle_summary(&mut self, day: &str, error: Option<&str>, again_at: Option<Timestamp>) -> Result<(), Fault> {
        self.sql.execute(
            "UPDATE summaries SET tell_at = $1, tell_error = $2, tell_attempts = tell_attempts + 1 WHERE day = $3",
            &[again_at.into(), error.into(), day.into()],
        )?;
        Ok(())
    }
}
