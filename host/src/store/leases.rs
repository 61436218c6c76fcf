//! Leases: what one of several hosts does at a time.

use jiff::{SignedDuration, Timestamp};
use provisor_providers::books::Fault;

use super::Transaction;
use super::sql::Claim;

/// What happens without a request, and is done by one host at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Schedule {
    /// The server's: orders that fall due, records whose time is over.
    Server,
    /// The journal's.
    Journal,
}

impl Schedule {
    /// The lease's name.
    fn name(self) -> &'static str {
        match self {
            Self::Server => "schedule",
            Self::Journal => "journal",
        }
    }
}

/// How long a host that is gone keeps others waiting.
const LEASE: SignedDuration = SignedDuration::from_secs(3);
/// A lease that lasts longer than this was given by a clock that has gone back since.
const BELIEVED: SignedDuration = SignedDuration::from_mins(1);

impl Transaction<'_> {
    /// Whether this host does what a schedule has; it takes that over when no other does. Good for this transaction: the lease is read in
    /// it, and no two hosts' scheduled transactions overlap.
    pub(crate) fn hold_schedule(&mut self, schedule: Schedule, holder: &str, now: Timestamp) -> Result<bool, Fault> {
        self.sql.claim(Claim::Schedule);
        let name = schedule.name();
        let row = self.sql.first("SELECT holder, until FROM leases WHERE name = $1", &[name.into()])?;
        if let Some(row) = &row {
            let (is_mine, until) = (row.text(0)? == holder, row.time(1)?);
            let is_over = until <= now || until > now + BELIEVED;
            if !is_mine && !is_over {
                return Ok(false);
            }
            // Half of it is left: no need to write.
            if is_mine && !is_over && until > now + LEASE / 2 {
                return Ok(true);
            }
        }
        self.sql.execute(
            "INSERT INTO leases (name, holder, until) VALUES ($1, $2, $3)
             ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until",
            &[name.into(), holder.into(), (now + LEASE).into()],
        )?;
        Ok(true)
    }

    /// Lets another host take over at once.
    pub(crate) fn release_schedule(&mut self, schedule: Schedule, holder: &str) -> Result<(), Fault> {
        self.sql.claim(Claim::Schedule);
        self.sql.execute("DELETE FROM leases WHERE name = $1 AND holder = $2", &[schedule.name().into(), holder.into()])?;
        Ok(())
    }
}
