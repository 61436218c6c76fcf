//! Mail on its way. As with webhooks, what a postman did is written only if no other took the mail after it.

use jiff::Timestamp;
use provisor_providers::books::Fault;

use super::Transaction;
use super::sql::Row;

/// A mail to be sent now.
#[derive(Debug)]
pub struct QueuedMail {
    /// The row.
    pub id: i64,
    /// Counts the postmen that took it.
    pub fence: i64,
    /// Earlier attempts.
    pub attempts: u32,
    /// What it is about.
    pub kind: String,
    /// The reseller's name; empty for the operator.
    pub name: String,
    /// Where to.
    pub address: String,
    /// One line.
    pub subject: String,
    /// Plain text.
    pub body: String,
    /// When it was written.
    pub created_at: Timestamp,
}

/// What an attempt came to.
#[derive(Debug, Clone)]
pub enum Sent {
    /// It is with the next server, or in its file.
    Sent,
    /// It did not work.
    Failed {
        /// Why.
        error: String,
        /// When to try again; never, if none.
        again_at: Option<Timestamp>,
    },
}

/// A mail as it is listed.
#[derive(Debug)]
pub struct MailSummary {
    /// The row.
    pub id: i64,
    /// Where to.
    pub address: String,
    /// What it is about.
    pub kind: String,
    /// One line.
    pub subject: String,
    /// When it was written.
    pub created_at: Timestamp,
    /// Attempts so far.
    pub attempts: u32,
    /// When it was sent.
    pub sent_at: Option<Timestamp>,
    /// When it was given up.
    pub dead_at: Option<Timestamp>,
    /// What went wrong last.
    pub last_error: Option<String>,
}

impl Transaction<'_> {
    /// Takes mails that are due; they are due again at `until`, which is later than any attempt takes.
    pub fn claim_mails(&mut self, now: Timestamp, until: Timestamp, limit: u32) -> Result<Vec<QueuedMail>, Fault> {
        let taken = self.sql.query(
            "UPDATE mails SET fence = fence + 1, next_at = $1 WHERE id IN
               (SELECT id FROM mails WHERE next_at IS NOT NULL AND next_at <= $2 ORDER BY next_at, id LIMIT $3)
             RETURNING id, fence, attempts, kind, subject, body, created_at, account_id, address",
            &[until.into(), now.into(), limit.into()],
        )?;
        taken.iter().map(|row| self.queued(row)).collect()
    }

    fn queued(&mut self, row: &Row) -> Result<QueuedMail, Fault> {
        let (name, address) = match (row.opt_int(7)?, row.opt_text(8)?) {
            (Some(account), _) => {
                let account = super::accounts::find(self.sql, account)?;
                (account.name, account.email)
            }
            (None, address) => (String::new(), address.unwrap_or_default()),
        };
        Ok(QueuedMail {
            id: row.int(0)?,
            fence: row.int(1)?,
            attempts: row.number(2)?,
            kind: row.text(3)?,
            name,
            address,
            subject: row.text(4)?,
            body: row.text(5)?,
            created_at: row.time(6)?,
        })
    }

    /// Writes what an attempt came to, unless another postman took the mail since.
    pub fn settle_mail(&mut self, id: i64, fence: i64, sent: &Sent, now: Timestamp) -> Result<(), Fault> {
        let (error, next_at, sent_at, dead_at) = match sent {
            Sent::Sent => (None, None, Some(now), None),
            Sent::Failed { error, again_at: None } => (Some(error), None, None, Some(now)),
            Sent::Failed { error, again_at } => (Some(error), *again_at, None, None),
        };
        self.sql.execute(
            "UPDATE mails SET attempts = attempts + 1, next_at = $1, sent_at = $2, dead_at = $3, last_error = $4
             WHERE id = $5 AND fence = $6",
            &[next_at.into(), sent_at.into(), dead_at.into(), error.into(), id.into(), fence.into()],
        )?;
        Ok(())
    }

    /// The newest mails.
    pub fn mails(&mut self, limit: u32) -> Result<Vec<MailSummary>, Fault> {
        let rows = self.sql.query(
            "SELECT m.id, COALESCE(a.email, m.address), m.kind, m.subject, m.created_at, m.attempts, m.sent_at, m.dead_at, m.last_error
             FROM mails m LEFT JOIN accounts a ON a.id = m.account_id ORDER BY m.id DESC LIMIT $1",
            &[limit.into()],
        )?;
        rows.iter()
            .map(|row| {
                Ok(MailSummary {
                    id: row.int(0)?,
                    address: row.text(1)?,
                    kind: row.text(2)?,
                    subject: row.text(3)?,
                    created_at: row.time(4)?,
                    attempts: row.number(5)?,
                    sent_at: row.opt_time(6)?,
                    dead_at: row.opt_time(7)?,
                    last_error: row.opt_text(8)?,
                })
            })
            .collect()
    }
}
