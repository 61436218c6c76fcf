//! One try at a transaction.
//!
//! Snapshot isolation (REPEATABLE READ): of two transactions that change the same row at once, the second is run again. It alone
//! would let two transactions each read what the other changes. So every transaction that uses an account's part of the book also
//! changes the account's row ([`Sql::claim`]), and no two of one account that overlap can both commit: within an account all are as
//! if one ran after the other. What lies outside accounts is decided by a single row each (stock, nonces, keys, leases), by a
//! unique index (domains), or in transactions that queue up at a lock of their own.
//!
//! Looked at in the light of this rule:
//! - Billing. A tick runs under the schedule's lock, an errand on every host. What they ask over all accounts (due orders, services,
//!   packages, abandoned payments) names candidates alone: each is read again inside its account before anything is decided. The
//!   operator's credit, card and closing change the account's row themselves.
//! - Webhooks. Whether a courier may take one more delivery depends on rows that another one may be taking, and on no row of an
//!   account: claims queue up at [`Claim::Outbox`]. What a delivery came to is decided by its row and its webhook's; a webhook that is
//!   disabled goes through its account, where events for it are written.
//! - Mail. A mail is taken and settled by its row alone; how many were written lately is counted inside the account.
//!
//! Those who lost are run again under advisory locks on what they claimed, and whoever claims a key before its first statement
//! waits for the lock before its snapshot is taken: a busy key's requests queue up instead of undoing each other.

use std::collections::BTreeSet;
use std::mem;

use provisor_providers::books::Fault;

use super::link::{Link, Trouble};
use crate::store::sql::{Claim, Dialect, Row, Sql, Value};

const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ";
/// A transaction that only reads, all of it as of one moment.
pub(super) const BEGIN_READING: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
const UNLOCK: &str = "SELECT pg_advisory_unlock_all()";
/// Keeps our advisory locks apart from those of other programs on the same database.
const LOCKS: i64 = 0x5052_4f56_0000_0000;
/// The lock under which the schema is brought up to date.
pub(super) const SCHEMA_LOCK: i64 = LOCKS;

/// How a try ended.
pub(super) enum Ended {
    /// What it wrote stays.
    Committed,
    /// Nothing of it stays.
    Undone,
    /// Nothing of it stays, through no fault of its own.
    Again(Trouble),
    /// Nothing of it stays, and a repeat would end alike.
    Failed(Fault),
    /// The connection broke while it committed.
    Unknown(Fault),
}

/// A transaction on a connection. It begins with its first statement.
pub(super) struct Attempt<'a> {
    link: &'a mut Link,
    /// What this and earlier tries used.
    claims: &'a mut BTreeSet<Claim>,
    /// What is locked, and the accounts whose row was changed.
    locked: BTreeSet<Claim>,
    marked: BTreeSet<i64>,
    state: State,
    /// Whether a value that is there already is worth another look.
    is_first: bool,
    /// Why it must be run again.
    trouble: Option<Trouble>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// No statement yet.
    Fresh,
    Open,
    /// A statement failed: the server takes no other until it is undone.
    Broken,
}

impl<'a> Attempt<'a> {
    /// Takes the locks of what earlier tries used.
    pub(super) fn new(link: &'a mut Link, claims: &'a mut BTreeSet<Claim>, is_first: bool) -> Self {
        let (locked, marked) = (BTreeSet::new(), BTreeSet::new());
        let mut attempt = Self { link, claims, locked, marked, state: State::Fresh, is_first, trouble: None };
        if !is_first && !attempt.claims.is_empty() {
            attempt.open_locked();
        }
        attempt
    }

    /// Begins after the locks of all claims are had, all asked for in the same order by everybody.
    fn open_locked(&mut self) {
        let locks: Vec<String> = self.claims.iter().map(|claim| format!("pg_advisory_lock({})", number(*claim))).collect();
        let answers = self.link.both(&format!("SELECT {}", locks.join(", ")), BEGIN);
        self.locked.clone_from(self.claims);
        self.state = State::Open;
        self.trouble = match answers {
            Ok((Ok(()), Ok(()))) => None,
            Ok((Err(Trouble::Refused(fault)), _)) => Some(Trouble::Conflict(fault)),
            Ok((Err(trouble), _) | (_, Err(trouble))) | Err(trouble) => Some(trouble),
        };
    }

    /// Whether a statement may be sent; begins the transaction.
    fn open(&mut self) -> Result<(), Fault> {
        if self.state == State::Fresh && self.trouble.is_none() {
            self.trouble = self.link.batch(BEGIN).err();
            self.state = State::Open;
        }
        if self.trouble.is_some() { Err(Fault("this transaction has to be run again".to_owned())) } else { Ok(()) }
    }

    fn note<T>(&mut self, answer: Result<T, Trouble>) -> Result<T, Fault> {
        answer.map_err(|trouble| {
            self.state = State::Broken;
            match trouble {
                Trouble::Refused(fault) => fault,
                Trouble::Taken(fault) if !self.is_first => fault,
                trouble => self.trouble.insert(trouble).fault().clone(),
            }
        })
    }

    /// Commits, or undoes what was done.
    pub(super) fn end(mut self, keep: bool) -> Ended {
        let trouble = self.trouble.take();
        if self.state == State::Fresh {
            return trouble.map_or(if keep { Ended::Committed } else { Ended::Undone }, Ended::Again);
        }
        let commits = keep && trouble.is_none() && self.state == State::Open;
        if commits {
            return self.commit();
        }
        let undone = if matches!(trouble, Some(Trouble::Lost(_))) { Ok(()) } else { self.finish("ROLLBACK") };
        match (trouble, undone) {
            (Some(trouble), _) | (None, Err(trouble @ Trouble::Lost(_))) => Ended::Again(trouble),
            (None, Err(trouble)) => {
                self.link.close();
                Ended::Failed(trouble.into_fault())
            }
            (None, Ok(())) if keep => {
                Ended::Failed(Fault("a statement failed and the work went on: nothing of it stays".to_owned()))
            }
            (None, Ok(())) => Ended::Undone,
        }
    }

    fn commit(&mut self) -> Ended {
        match self.finish("COMMIT") {
            Ok(()) => Ended::Committed,
            Err(trouble @ (Trouble::Conflict(_) | Trouble::Taken(_))) => Ended::Again(trouble),
            // The server said no, and lives: it is undone.
            Err(Trouble::Refused(fault)) => Ended::Failed(fault),
            Err(Trouble::Lost(fault)) => Ended::Unknown(fault),
        }
    }

    /// Ends the transaction and gives the locks back in one go.
    fn finish(&mut self, statement: &str) -> Result<(), Trouble> {
        if mem::take(&mut self.locked).is_empty() {
            return self.link.batch(statement);
        }
        let (ended, unlocked) = self.link.both(statement, UNLOCK)?;
        if ended.is_ok() && unlocked.is_err() {
            // They go with the connection.
            self.link.close();
        }
        ended
    }
}

impl Sql for Attempt<'_> {
    fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<usize, Fault> {
        self.open()?;
        let answer = self.link.execute(sql, values);
        self.note(answer)
    }

    fn query(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, Fault> {
        self.open()?;
        let answer = self.link.query(sql, values);
        self.note(answer)
    }

    fn batch(&mut self, sql: &str) -> Result<(), Fault> {
        self.open()?;
        let answer = self.link.batch(sql);
        if answer.is_ok() && sql.starts_with("ROLLBACK TO ") {
            self.state = State::Open;
            // Marks set since the savepoint went with it; setting one again does no harm.
            self.marked.clear();
        }
        self.note(answer)
    }

    fn is_run_again(&self) -> bool {
        self.trouble.is_some()
    }

    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    /// A failure shows in the next statement.
    fn claim(&mut self, claim: Claim) {
        let is_new = self.claims.insert(claim);
        if is_new && self.state == State::Fresh && self.trouble.is_none() {
            self.open_locked();
        }
        if let Claim::Account(id) = claim
            && self.marked.insert(id)
        {
            let marked = self.execute("UPDATE accounts SET balance = balance WHERE id = $1", &[id.into()]);
            if let Err(fault) = marked {
                tracing::debug!(%fault, "an account could not be claimed");
            }
        }
    }
}

fn number(claim: Claim) -> i64 {
    let (id, kind) = match claim {
        Claim::Key(id) => (id, 1),
        Claim::Account(id) => (id, 2),
        Claim::Stream(id) => (id, 3),
        Claim::Schedule => (1, 0),
        Claim::Journal => (2, 0),
        Claim::Outbox => (3, 0),
    };
    LOCKS.wrapping_add(id.wrapping_mul(4)).wrapping_add(kind)
}

/// A connection whose transaction somebody else begins and ends.
pub(super) struct Plain<'a>(pub(super) &'a mut Link);

impl Sql for Plain<'_> {
    fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<usize, Fault> {
        self.0.execute(sql, values).map_err(Trouble::into_fault)
    }

    fn query(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, Fault> {
        self.0.query(sql, values).map_err(Trouble::into_fault)
    }

    fn batch(&mut self, sql: &str) -> Result<(), Fault> {
        self.0.batch(sql).map_err(Trouble::into_fault)
    }

    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }
}
