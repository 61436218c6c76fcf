//! The journal of changes: each is written here before it is tried, and stays with what became of it.

use jiff::Timestamp;
use provisor_providers::books::Fault;
use secrecy::SecretString;

use super::Transaction;
use super::sql::{Row, Value};
use crate::vault::Place;

/// How a change stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperationState {
    /// Written down, not tried.
    Recorded,
    /// An attempt is under way.
    Running,
    /// For the provider, a payment, or the next attempt.
    Waiting,
    /// An answer was lost: whether the change was made is being found out.
    Unknown,
    /// Made.
    Done,
    /// Not made.
    Failed,
    /// Nobody could find out in time: a person is needed. Nothing else is done to the service until then.
    Dead,
}

impl OperationState {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Recorded, Self::Running, Self::Waiting, Self::Unknown, Self::Done, Self::Failed, Self::Dead];

    /// Its spelling, in the book and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Unknown => "unknown",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Dead => "dead",
        }
    }

    /// The state of a spelling.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether nothing more becomes of it.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}

/// A change that was asked for.
#[derive(Debug, Clone)]
pub struct Operation {
    /// The row.
    pub id: i64,
    /// Its id for panels and people; the idempotency key towards the provider as well.
    pub ulid: String,
    /// Which service.
    pub service: i64,
    /// Which of its generations.
    pub generation: u32,
    /// The contract's name of the operation.
    pub kind: String,
    /// What makes another request the same change.
    pub sameness: String,
    /// The profile it is made with.
    pub profile: String,
    /// The request as JSON, without its password and without options that may be secret.
    pub change: String,
    /// The version of a master key, and under a key derived from it a MAC over the whole request, its password included.
    pub change_mac: Vec<u8>,
    /// It charges at a provider without idempotency: no other such change of the profile is under way meanwhile.
    pub is_alone: bool,
    /// How it stands.
    pub state: OperationState,
    /// Attempts begun.
    pub attempts: u32,
    /// Of them, those that may have had an effect nobody saw.
    pub doubts: u32,
    /// The provider took it on: its status is asked, nothing is sent again.
    pub is_accepted: bool,
    /// Evidence read before the first attempt, by name.
    pub notes: Vec<(String, String)>,
    /// Counts who took it.
    pub fence: i64,
    /// When something is to be done.
    pub next_at: Option<Timestamp>,
    /// When something was first sent.
    pub sent_at: Option<Timestamp>,
    /// When the provider took it on.
    pub accepted_at: Option<Timestamp>,
    /// The last problem, as the contract's JSON.
    pub problem: Option<String>,
    /// The request that asked for it first.
    pub request_id: String,
    /// Whether somebody was told that it is under way.
    pub was_awaited: bool,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// One attempt.
#[derive(Debug, Clone)]
pub struct OperationAttempt {
    /// From 1.
    pub number: u32,
    /// When.
    pub began_at: Timestamp,
    /// When it ended; an attempt that a crash interrupted has no end.
    pub ended_at: Option<Timestamp>,
    /// `running`, `done`, `pending`, `failed` or `interrupted`.
    pub outcome: String,
    /// The problem, as the contract's JSON.
    pub problem: Option<String>,
}

/// Which operations are listed, the newest first.
#[derive(Debug, Clone, Default)]
pub struct OperationFilter {
    /// Only this panel's.
    pub panel: Option<i64>,
    /// Only in this state.
    pub state: Option<OperationState>,
    /// Only of this service key.
    pub service: Option<String>,
    /// Only older than this id.
    pub before: Option<String>,
    /// How many at most.
    pub limit: u32,
}

/// An operation that has ended, and the panel that is to be told.
#[derive(Debug)]
pub(crate) struct Untold {
    pub(crate) operation: Operation,
    pub(crate) service: super::Managed,
    /// The panel's name.
    pub(crate) panel: String,
    /// Earlier attempts at telling it.
    pub(crate) attempts: u32,
}

/// Who tells panels of what has ended.
#[derive(Debug, Clone)]
pub(crate) struct Teller {
    /// Now.
    pub(crate) now: Timestamp,
    /// When somebody else may tell it.
    pub(crate) again: Timestamp,
    /// Panels that are told no more now.
    pub(crate) not_to: Vec<String>,
    /// How many at most.
    pub(crate) limit: u32,
}

/// Who takes operations that are due.
#[derive(Debug, Clone)]
pub(crate) struct Taker {
    /// Names this process.
    pub(crate) holder: String,
    /// Now.
    pub(crate) now: Timestamp,
    /// How long it keeps others off.
    pub(crate) until: Timestamp,
    /// Profiles of which no more are taken now.
    pub(crate) not_of: Vec<String>,
    /// How many at most.
    pub(crate) limit: u32,
}

const COLUMNS: &str = "o.id, o.ulid, o.service_id, o.generation, o.kind, o.sameness, o.profile, o.change, o.change_mac, o.is_alone, \
                       o.state, o.attempts, o.doubts, o.is_accepted, o.notes, o.fence, o.next_at, o.sent_at, o.accepted_at, o.problem, \
                       o.request_id, o.was_awaited, o.created_at, o.ended_at";

const PASSWORD: &str = "sealed_password";
const OPTIONS: &str = "sealed_options";

fn place<'a>(ulid: &'a str, column: &'static str) -> Place<'a> {
    Place { table: "operations", row: ulid, column }
}

/// What comes with a change and may be secret: sealed until the change has ended, and then gone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    /// The password.
    pub(crate) password: Option<SecretString>,
    /// Options, as a JSON object.
    pub(crate) options: Option<SecretString>,
}

impl Transaction<'_> {
    /// Writes a change down; the row is the answer's, whatever `id` says.
    pub(crate) fn add_operation(&mut self, new: &Operation, kept: &Kept) -> Result<Operation, Fault> {
        let password = self.sealed(&new.ulid, PASSWORD, kept.password.as_ref())?;
        let options = self.sealed(&new.ulid, OPTIONS, kept.options.as_ref())?;
        let id = self.sql.insert_one(
            "INSERT INTO operations (ulid, service_id, generation, kind, sameness, profile, change, change_mac, sealed_password,
               sealed_options, is_alone, state, attempts, doubts, is_accepted, notes, fence, next_at, request_id, was_awaited, created_at,
               ended_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 0, $13, 0, '[]', 0, $14, $15, 0, $16, $17)",
            &[
                (&new.ulid).into(),
                new.service.into(),
                new.generation.into(),
                (&new.kind).into(),
                (&new.sameness).into(),
                (&new.profile).into(),
                (&new.change).into(),
                new.change_mac.as_slice().into(),
                password.as_deref().into(),
                options.as_deref().into(),
                i64::from(new.is_alone).into(),
                new.state.as_str().into(),
                new.doubts.into(),
                new.next_at.into(),
                (&new.request_id).into(),
                new.created_at.into(),
                new.ended_at.into(),
            ],
        )?;
        Ok(Operation { id, ..new.clone() })
    }

    fn sealed(&self, ulid: &str, column: &'static str, value: Option<&SecretString>) -> Result<Option<Vec<u8>>, Fault> {
        let sealed = value.map(|value| self.vault.seal(place(ulid, column), value)).transpose();
        sealed.map_err(|error| Fault(error.to_string()))
    }

    /// Any panel's operation, and the key of its service.
    pub fn operation_of(&mut self, ulid: &str) -> Result<Option<(Operation, String)>, Fault> {
        let filter = OperationFilter { limit: 1, ..OperationFilter::default() };
        Ok(self.list_operations(&filter, Some(ulid))?.into_iter().next())
    }

    /// A panel's operation, or any.
    pub(crate) fn operation(&mut self, panel: Option<i64>, ulid: &str) -> Result<Option<Operation>, Fault> {
        let filter = OperationFilter { panel, limit: 1, ..OperationFilter::default() };
        Ok(self.list_operations(&filter, Some(ulid))?.into_iter().next().map(|(operation, _)| operation))
    }

    /// Operations and the keys of their services, the newest first.
    pub fn operations(&mut self, filter: &OperationFilter) -> Result<Vec<(Operation, String)>, Fault> {
        self.list_operations(filter, None)
    }

    fn list_operations(&mut self, filter: &OperationFilter, ulid: Option<&str>) -> Result<Vec<(Operation, String)>, Fault> {
        let mut values: Vec<Value<'_>> = Vec::new();
        let mut conditions = Vec::new();
        let wanted: [(&str, Option<Value<'_>>); 5] = [
            ("s.panel_id =", filter.panel.map(Into::into)),
            ("o.state =", filter.state.map(|state| state.as_str().into())),
            ("s.service_key =", filter.service.as_deref().map(Into::into)),
            ("o.ulid <", filter.before.as_deref().map(Into::into)),
            ("o.ulid =", ulid.map(Into::into)),
        ];
        for (condition, value) in wanted {
            if let Some(value) = value {
                values.push(value);
                conditions.push(format!("{condition} ${}", values.len()));
            }
        }
        let conditions = if conditions.is_empty() { "1 = 1".to_owned() } else { conditions.join(" AND ") };
        values.push(filter.limit.into());
        let query = format!(
            "SELECT {COLUMNS}, s.service_key FROM operations o JOIN managed_services s ON s.id = o.service_id
             WHERE {conditions} ORDER BY o.ulid DESC LIMIT ${}",
            values.len()
        );
        self.sql.query(&query, &values)?.iter().map(|row| Ok((read(row)?, row.text(24)?))).collect()
    }

    /// The newest operation that is the same change.
    pub(crate) fn same_operation(&mut self, service: i64, sameness: &str) -> Result<Option<Operation>, Fault> {
        let query =
            format!("SELECT {COLUMNS} FROM operations o WHERE o.service_id = $1 AND o.sameness = $2 ORDER BY o.id DESC LIMIT 1");
        self.sql.first(&query, &[service.into(), sameness.into()])?.as_ref().map(read).transpose()
    }

    /// What is not ended yet of a service, the oldest first: they are worked off in this order.
    pub(crate) fn open_operations(&mut self, service: i64) -> Result<Vec<Operation>, Fault> {
        let query =
            format!("SELECT {COLUMNS} FROM operations o WHERE o.service_id = $1 AND o.ended_at IS NULL ORDER BY o.id LIMIT 100");
        self.sql.query(&query, &[service.into()])?.iter().map(read).collect()
    }

    /// What came with an operation and may be secret, while it is not ended.
    pub(crate) fn kept_with(&mut self, operation: &Operation) -> Result<Kept, Fault> {
        Ok(Kept { password: self.opened(operation, PASSWORD)?, options: self.opened(operation, OPTIONS)? })
    }

    fn opened(&mut self, operation: &Operation, column: &'static str) -> Result<Option<SecretString>, Fault> {
        let query = format!("SELECT {column} FROM operations WHERE id = $1 AND {column} IS NOT NULL");
        let Some(row) = self.sql.first(&query, &[operation.id.into()])? else { return Ok(None) };
        let value = self.vault.open_value(place(&operation.ulid, column), &row.bytes(0)?);
        value.map(Some).map_err(|error| Fault(error.to_string()))
    }

    /// Writes an operation back, unless another has taken it since; whether it was written. What has ended keeps nothing secret.
    pub(crate) fn save_operation(&mut self, operation: &Operation) -> Result<bool, Fault> {
        let notes = serde_json::json!(operation.notes).to_string();
        let saved = self.sql.execute(
            "UPDATE operations SET state = $1, attempts = $2, doubts = $3, is_accepted = $4, notes = $5, next_at = $6, sent_at = $7,
               accepted_at = $8, problem = $9, ended_at = $10, held_until = CASE WHEN $1 = 'running' THEN held_until END,
               sealed_password = CASE WHEN CAST($10 AS BIGINT) IS NULL THEN sealed_password END,
               sealed_options = CASE WHEN CAST($10 AS BIGINT) IS NULL THEN sealed_options END,
               tell_at = CASE WHEN was_awaited = 1 THEN CAST($10 AS BIGINT) END
             WHERE id = $11 AND fence = $12",
            &[
                operation.state.as_str().into(),
                operation.attempts.into(),
                operation.doubts.into(),
                i64::from(operation.is_accepted).into(),
                (&notes).into(),
                operation.next_at.into(),
                operation.sent_at.into(),
                operation.accepted_at.into(),
                operation.problem.as_deref().into(),
                operation.ended_at.into(),
                operation.id.into(),
                operation.fence.into(),
            ],
        )?;
        Ok(saved == 1)
    }

    /// Notes that somebody was told to come back for it.
    pub(crate) fn note_awaited(&mut self, operation: i64) -> Result<(), Fault> {
        self.sql.execute(
            "UPDATE operations SET was_awaited = 1, tell_at = ended_at WHERE id = $1 AND was_awaited = 0",
            &[operation.into()],
        )?;
        Ok(())
    }

    /// Has something done about an operation at once.
    pub(crate) fn hurry(&mut self, operation: i64, now: Timestamp) -> Result<(), Fault> {
        self.sql.execute(
            "UPDATE operations SET next_at = $1 WHERE id = $2 AND ended_at IS NULL AND next_at > $1",
            &[now.into(), operation.into()],
        )?;
        Ok(())
    }

    /// The same for every operation of a profile that the provider took on.
    pub(crate) fn hurry_accepted(&mut self, profile: &str, now: Timestamp) -> Result<(), Fault> {
        self.sql.execute(
            "UPDATE operations SET next_at = $1 WHERE profile = $2 AND is_accepted = 1 AND next_at > $1 AND ended_at IS NULL",
            &[now.into(), profile.into()],
        )?;
        Ok(())
    }

    /// Takes operations that are due: of one service only the oldest, and of those that must be alone, one in a profile. An attempt
    /// that was never ended counts as interrupted.
    pub(crate) fn take_operations(&mut self, by: &Taker) -> Result<Vec<Operation>, Fault> {
        self.claim_journal();
        let mut values: Vec<Value<'_>> = vec![by.now.into()];
        values.extend(by.not_of.iter().map(Value::from));
        let not_of: Vec<String> = (2..=values.len()).map(|place| format!(" AND o.profile <> ${place}")).collect();
        let not_of = not_of.concat();
        values.push(by.limit.into());
        let query = format!(
            "SELECT {COLUMNS} FROM operations o
             WHERE o.next_at IS NOT NULL AND o.next_at <= $1 AND (o.held_until IS NULL OR o.held_until <= $1){not_of}
               AND NOT EXISTS (SELECT 1 FROM operations e WHERE e.service_id = o.service_id AND e.id < o.id AND e.ended_at IS NULL)
             ORDER BY o.next_at, o.id LIMIT ${}",
            values.len()
        );
        let due: Vec<Operation> = self.sql.query(&query, &values)?.iter().map(read).collect::<Result<_, _>>()?;
        let mut taken = Vec::with_capacity(due.len());
        for operation in due {
            if operation.is_alone && self.is_another_alone(&operation)? {
                continue;
            }
            taken.push(self.take(operation, by)?);
        }
        Ok(taken)
    }

    fn is_another_alone(&mut self, operation: &Operation) -> Result<bool, Fault> {
        let query = "SELECT 1 FROM operations WHERE profile = $1 AND is_alone = 1 AND ended_at IS NULL AND id <> $2
                       AND state IN ('running', 'unknown') LIMIT 1";
        Ok(self.sql.first(query, &[(&operation.profile).into(), operation.id.into()])?.is_some())
    }

    fn take(&mut self, operation: Operation, by: &Taker) -> Result<Operation, Fault> {
        let taken = Operation {
            state: OperationState::Running,
            attempts: operation.attempts + 1,
            fence: operation.fence + 1,
            next_at: Some(by.until),
            ..operation
        };
        self.sql.execute(
            "UPDATE operations SET state = 'running', attempts = $1, fence = $2, holder = $3, held_until = $4, next_at = $4
             WHERE id = $5",
            &[taken.attempts.into(), taken.fence.into(), (&by.holder).into(), by.until.into(), taken.id.into()],
        )?;
        self.sql.execute(
            "UPDATE operation_attempts SET outcome = 'interrupted' WHERE operation_id = $1 AND ended_at IS NULL",
            &[taken.id.into()],
        )?;
        self.sql.execute(
            "INSERT INTO operation_attempts (operation_id, number, began_at, outcome) VALUES ($1, $2, $3, 'running')",
            &[taken.id.into(), taken.attempts.into(), by.now.into()],
        )?;
        Ok(taken)
    }

    /// Lets this process take what one that is gone was holding: at once, or at `later` what may be at work at a provider without
    /// idempotency still. Only for a book that one process alone has open. How many there were.
    pub(crate) fn release_operations(&mut self, now: Timestamp, later: Timestamp) -> Result<usize, Fault> {
        self.sql.execute(
            "UPDATE operations SET held_until = NULL, next_at = CASE WHEN is_alone = 1 AND doubts > 0 THEN $1 ELSE $2 END
             WHERE held_until IS NOT NULL AND ended_at IS NULL",
            &[later.into(), now.into()],
        )
    }

    /// Keeps others off for longer from what this process is at.
    pub(crate) fn hold_operations(&mut self, holder: &str, operations: &[i64], until: Timestamp) -> Result<usize, Fault> {
        let mut values: Vec<Value<'_>> = vec![until.into(), holder.into()];
        values.extend(operations.iter().map(|id| Value::Int(*id)));
        let places: Vec<String> = (3..=values.len()).map(|place| format!("${place}")).collect();
        let update = format!(
            "UPDATE operations SET held_until = $1, next_at = $1 WHERE holder = $2 AND state = 'running' AND id IN ({})",
            places.join(", ")
        );
        self.sql.execute(&update, &values)
    }

    /// Writes how an attempt ended.
    pub(crate) fn end_attempt(
        &mut self,
        operation: &Operation,
        outcome: &str,
        problem: Option<&str>,
        now: Timestamp,
    ) -> Result<(), Fault> {
        self.sql.execute(
            "UPDATE operation_attempts SET ended_at = $1, outcome = $2, problem = $3 WHERE operation_id = $4 AND number = $5",
            &[now.into(), outcome.into(), problem.into(), operation.id.into(), operation.attempts.into()],
        )?;
        Ok(())
    }

    /// The last attempts, the newest first, at most 100.
    pub fn operation_attempts(&mut self, operation: i64) -> Result<Vec<OperationAttempt>, Fault> {
        let rows = self.sql.query(
            "SELECT number, began_at, ended_at, outcome, problem FROM operation_attempts WHERE operation_id = $1
             ORDER BY number DESC LIMIT 100",
            &[operation.into()],
        )?;
        rows.iter()
            .map(|row| {
                Ok(OperationAttempt {
                    number: row.number(0)?,
                    began_at: row.time(1)?,
                    ended_at: row.opt_time(2)?,
                    outcome: row.text(3)?,
                    problem: row.opt_text(4)?,
                })
            })
            .collect()
    }

    /// Takes ended operations of which a panel is to be told; they are due again later,
    /// should this process not come to tell it.
    pub(crate) fn claim_untold(&mut self, by: &Teller) -> Result<Vec<Untold>, Fault> {
        self.claim_journal();
        let mut values: Vec<Value<'_>> = vec![by.now.into()];
        values.extend(by.not_to.iter().map(Value::from));
        let not_to: Vec<String> = (2..=values.len()).map(|place| format!(" AND p.name <> ${place}")).collect();
        let not_to = not_to.concat();
        values.push(by.limit.into());
        let query = format!(
            "SELECT {COLUMNS}, p.name, o.tell_attempts FROM operations o JOIN managed_services s ON s.id = o.service_id
             JOIN panels p ON p.id = s.panel_id
             WHERE o.tell_at IS NOT NULL AND o.tell_at <= $1{not_to} ORDER BY o.tell_at, o.id LIMIT ${}",
            values.len()
        );
        let rows = self.sql.query(&query, &values)?;
        let mut untold = Vec::with_capacity(rows.len());
        for row in &rows {
            let operation = read(row)?;
            let service = self.managed_row(operation.service)?;
            let service = service.ok_or_else(|| Fault("an operation without a service".to_owned()))?;
            self.sql.execute("UPDATE operations SET tell_at = $1 WHERE id = $2", &[by.again.into(), operation.id.into()])?;
            untold.push(Untold { operation, service, panel: row.text(24)?, attempts: row.number(25)? });
        }
        Ok(untold)
    }

    /// Writes whether a panel was told, and when it is to be told again.
    pub(crate) fn settle_told(&mut self, operation: i64, error: Option<&str>, again_at: Option<Timestamp>) -> Result<(), Fault> {
        self.sql.execute(
            "UPDATE operations SET tell_at = $1, tell_error = $2, tell_attempts = tell_attempts + 1 WHERE id = $3",
            &[again_at.into(), error.into(), operation.into()],
        )?;
        Ok(())
    }

    /// How many operations are in each state, those that ended aside.
    pub fn open_operation_counts(&mut self) -> Result<Vec<(OperationState, i64)>, Fault> {
        let rows = self.sql.query("SELECT state, COUNT(*) FROM operations WHERE ended_at IS NULL GROUP BY state", &[])?;
        rows.iter().map(|row| Ok((row.spelled(0, OperationState::parse)?, row.int(1)?))).collect()
    }

    /// When the oldest change was asked for that is not ended.
    pub(crate) fn oldest_open_operation(&mut self) -> Result<Option<Timestamp>, Fault> {
        let row = self.sql.first("SELECT MIN(created_at) FROM operations WHERE ended_at IS NULL", &[])?;
        row.map_or(Ok(None), |row| row.opt_time(0))
    }

    /// Remembers an event that a provider told; false if it was told before.
    pub(crate) fn note_provider_event(&mut self, profile: &str, event_id: &str, now: Timestamp) -> Result<bool, Fault> {
        let noted = self.sql.execute(
            "INSERT INTO provider_events (profile, event_id, received_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            &[profile.into(), event_id.into(), now.into()],
        )?;
        Ok(noted == 1)
    }
}

fn read(row: &Row) -> Result<Operation, Fault> {
    let notes = serde_json::from_str(&row.text(14)?).map_err(|error| Fault(format!("an operation's notes: {error}")))?;
    Ok(Operation {
        id: row.int(0)?,
        ulid: row.text(1)?,
        service: row.int(2)?,
        generation: row.number(3)?,
        kind: row.text(4)?,
        sameness: row.text(5)?,
        profile: row.text(6)?,
        change: row.text(7)?,
        change_mac: row.bytes(8)?,
        is_alone: row.int(9)? == 1,
        state: row.spelled(10, OperationState::parse)?,
        attempts: row.number(11)?,
        doubts: row.number(12)?,
        is_accepted: row.int(13)? == 1,
        notes,
        fence: row.int(15)?,
        next_at: row.opt_time(16)?,
        sent_at: row.opt_time(17)?,
        accepted_at: row.opt_time(18)?,
        problem: row.opt_text(19)?,
        request_id: row.text(20)?,
        was_awaited: row.int(21)? == 1,
        created_at: row.time(22)?,
        ended_at: row.opt_time(23)?,
    })
}
