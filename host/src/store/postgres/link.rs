//! One connection to a PostgreSQL server, asked and waited for on the caller's own thread.
//!
//! The connection is a future. Whoever asks moves it along on its own thread, and sleeps until the reactor, a thread of its own,
//! says that there is something to read: no question crosses to another thread and back.

use std::collections::HashMap;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use provisor_providers::books::Fault;
use tokio_postgres::Error;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use crate::store::sql::{Cell, Row, Value};

/// Longer than any statement may take by the server's own clock: past it the server or the way to it is gone.
const PATIENCE: Duration = Duration::from_secs(15);
/// Statements kept prepared; there are not that many.
const STATEMENTS: usize = 512;

/// Why a statement was not done, by what comes next.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Another transaction was there first: this one must be run again.
    Conflict(Fault),
    /// A value that must be unique is there already; perhaps since this transaction looked.
    Taken(Fault),
    /// The connection is of no use any more.
    Lost(Fault),
    /// It would fail again.
    Refused(Fault),
}

impl Trouble {
    pub(super) fn fault(&self) -> &Fault {
        match self {
            Self::Conflict(fault) | Self::Taken(fault) | Self::Lost(fault) | Self::Refused(fault) => fault,
        }
    }

    pub(super) fn into_fault(self) -> Fault {
        match self {
            Self::Conflict(fault) | Self::Taken(fault) | Self::Lost(fault) | Self::Refused(fault) => fault,
        }
    }

    /// What the server said of the error, without the values it is about.
    pub(super) fn of(error: &Error) -> Self {
        let Some(said) = error.as_db_error() else {
            let cause = std::error::Error::source(error).map_or(String::new(), |cause| format!(": {cause}"));
            return Self::Refused(Fault(format!("PostgreSQL: {error}{cause}")));
        };
        let fault = Fault(format!("PostgreSQL: {} ({})", said.message(), said.code().code()));
        match said.code().code() {
            // Serialization failure, deadlock, a lock not had in time.
            "40001" | "40P01" | "55P03" => Self::Conflict(fault),
            "23505" => Self::Taken(fault),
            // The server is a standby now, dropped an idle transaction, or does not know what it did.
            "25006" | "25P03" | "40003" => Self::Lost(fault),
            // The server stops, or the connection breaks.
            code if code.starts_with("57P") || code.starts_with("08") => Self::Lost(fault),
            _ => Self::Refused(fault),
        }
    }
}

/// A connection.
pub(super) struct Link {
    client: Option<Client>,
    wire: Wire,
    statements: HashMap<String, Statement>,
    patience: Duration,
}

/// How one of two batches ended.
pub(super) type Ran = Result<(), Trouble>;

/// Moves bytes when it is polled.
pub(super) type Connection = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// Nothing once it has ended: what waits for an answer hears of it only when the connection is gone.
struct Wire(Option<Connection>);

impl Link {
    pub(super) fn new(client: Client, connection: Connection) -> Self {
        // Unconstrained: no task is there to give way to, and one that would be told to would wait for itself.
        let connection = Box::pin(tokio::task::unconstrained(connection));
        Self { client: Some(client), wire: Wire(Some(connection)), statements: HashMap::new(), patience: PATIENCE }
    }

    /// Waits for so long for an answer from here on, or for as long as it does by default.
    pub(super) fn set_patience(&mut self, patience: Option<Duration>) {
        self.patience = patience.unwrap_or(PATIENCE);
    }

    /// Whether it is of no use any more.
    pub(super) fn is_closed(&self) -> bool {
        self.wire.0.is_none()
    }

    pub(super) fn close(&mut self) {
        self.wire.0 = None;
    }

    /// Runs statements without parameters.
    pub(super) fn batch(&mut self, sql: &str) -> Result<(), Trouble> {
        self.ask(async |client| client.batch_execute(sql).await)
    }

    /// Sends two batches at once; they run one after the other.
    pub(super) fn both(&mut self, first: &str, second: &str) -> Result<(Ran, Ran), Trouble> {
        let answers = self.ask(async |client| {
            let (first, second) = tokio::join!(biased; client.batch_execute(first), client.batch_execute(second));
            Ok((first, second))
        });
        answers.map(|(first, second)| (first.map_err(|error| Trouble::of(&error)), second.map_err(|error| Trouble::of(&error))))
    }

    pub(super) fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<usize, Trouble> {
        let statement = self.prepared(sql, values)?;
        let changed = self.ask(async |client| client.execute(&statement, &parameters(values)).await)?;
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    pub(super) fn query(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, Trouble> {
        let statement = self.prepared(sql, values)?;
        let rows = self.ask(async |client| client.query(&statement, &parameters(values)).await)?;
        let cells =
            |row: &tokio_postgres::Row| (0..row.len()).map(|column| row.try_get::<_, Cell>(column)).collect::<Result<_, _>>();
        rows.iter().map(|row| cells(row).map(Row)).collect::<Result<_, _>>().map_err(|error| Trouble::of(&error))
    }

    fn prepared(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Statement, Trouble> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let kinds: Vec<_> = values.iter().map(Value::kind).collect();
        let statement = self.ask(async |client| client.prepare_typed(sql, &kinds).await)?;
        if self.statements.len() >= STATEMENTS {
            self.statements.clear();
        }
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    fn ask<T>(&mut self, question: impl AsyncFnOnce(&Client) -> Result<T, Error>) -> Result<T, Trouble> {
        let Self { client: Some(client), wire, patience, .. } = self else { return Err(lost("the connection is closed")) };
        let answer = wait(question(client), *patience, |cx| wire.advance(cx));
        let Some(answer) = answer else {
            wire.0 = None;
            return Err(lost("the server does not answer"));
        };
        answer.map_err(|error| match Trouble::of(&error) {
            trouble @ Trouble::Lost(_) => trouble,
            trouble if wire.0.is_none() => Trouble::Lost(trouble.into_fault()),
            trouble => trouble,
        })
    }
}

impl Wire {
    fn advance(&mut self, cx: &mut Context<'_>) {
        if self.0.as_mut().is_some_and(|connection| connection.as_mut().poll(cx).is_ready()) {
            self.0 = None;
        }
    }
}

fn lost(why: &str) -> Trouble {
    Trouble::Lost(Fault(format!("PostgreSQL: {why}")))
}

fn parameters<'a>(values: &'a [Value<'a>]) -> Vec<&'a (dyn ToSql + Sync)> {
    values.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

/// Waits on this thread, advancing what the answer depends on; nothing when it takes too long.
pub(super) fn wait<T>(
    answer: impl Future<Output = T>,
    patience: Duration,
    mut advance: impl FnMut(&mut Context<'_>),
) -> Option<T> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut cx = Context::from_waker(&waker);
    let mut answer = pin!(tokio::task::unconstrained(answer));
    let until = Instant::now() + patience;
    loop {
        if let Poll::Ready(answer) = answer.as_mut().poll(&mut cx) {
            return Some(answer);
        }
        advance(&mut cx);
        let left = until.checked_duration_since(Instant::now())?;
        std::thread::park_timeout(left);
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // With the client gone the connection has one thing left to say: good-bye. Whether it is heard does not matter.
        drop(self.client.take());
        self.wire.advance(&mut Context::from_waker(Waker::noop()));
    }
}
