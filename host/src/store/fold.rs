//! Folding over rows within SQLite, as an aggregate function of its SQL.
//!
//! A function is handed a row's values where SQLite has them. Who steps through the rows asks for each column by itself, in three or four
//! calls, most of which look at the statement and the connection first: a quarter of the time in which rows of the audit log are verified.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use rusqlite::functions::{Aggregate, Context, FunctionFlags};
use rusqlite::types::ValueRef;

use super::sql::Value;

const NAME: &str = "fold";
/// The widest row that is scanned or folded over.
pub(super) const SCANNED_MAX: usize = 16;

/// Hands columns of rows to a step, in no order that is promised, with the state that it made of those before; the last state. `from`
/// is what follows FROM in a query.
pub(super) fn fold<S: Send + 'static>(
    connection: &Connection,
    columns: &str,
    from: &str,
    values: &[Value<'_>],
    state: S,
    step: fn(&mut S, &[Value<'_>]),
) -> rusqlite::Result<S> {
    let state = Arc::new(Mutex::new(Some(state)));
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY;
    connection.create_aggregate_function(NAME, -1, flags, Function { state: Arc::clone(&state), step })?;
    let query = format!("SELECT {NAME}({columns}) FROM {from}");
    let folded = connection.query_row(&query, rusqlite::params_from_iter(values), |_| Ok(()));
    let removed = connection.remove_function(NAME, -1);
    folded.and(removed)?;
    take(&state)
}

struct Function<S> {
    /// While no row is handed to the step.
    state: Arc<Mutex<Option<S>>>,
    step: fn(&mut S, &[Value<'_>]),
}

fn take<S>(state: &Mutex<Option<S>>) -> rusqlite::Result<S> {
    let state = state.lock().unwrap_or_else(PoisonError::into_inner).take();
    state.ok_or_else(|| rusqlite::Error::UserFunctionError("the state is not there".into()))
}

/// The state that a panic left is dropped with its query, and read by nobody.
impl<S: Send + 'static> Aggregate<AssertUnwindSafe<S>, Option<i64>> for Function<S> {
    fn init(&self, _context: &mut Context<'_>) -> rusqlite::Result<AssertUnwindSafe<S>> {
        take(&self.state).map(AssertUnwindSafe)
    }

    fn step(&self, context: &mut Context<'_>, state: &mut AssertUnwindSafe<S>) -> rusqlite::Result<()> {
        let mut cells = [Value::Null; SCANNED_MAX];
        let cells = cells.get_mut(..context.len()).ok_or(rusqlite::Error::InvalidParameterCount(context.len(), SCANNED_MAX))?;
        for (column, cell) in cells.iter_mut().enumerate() {
            *cell = borrowed(context.get_raw(column));
        }
        (self.step)(state, cells);
        Ok(())
    }

    fn finalize(&self, _context: &mut Context<'_>, state: Option<AssertUnwindSafe<S>>) -> rusqlite::Result<Option<i64>> {
        if let Some(AssertUnwindSafe(state)) = state {
            *self.state.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
        }
        Ok(None)
    }
}

/// What a scan or a fold sees. A text that is none and a float are of a kind that no column has, so that whoever reads them refuses them.
pub(super) fn borrowed(value: ValueRef<'_>) -> Value<'_> {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(value) => Value::Int(value),
        ValueRef::Text(value) => std::str::from_utf8(value).map_or(Value::Bytes(value), Value::Text),
        ValueRef::Blob(value) => Value::Bytes(value),
        ValueRef::Real(_) => Value::Bytes(&[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sql::Sql;
    use crate::store::sqlite::Sqlite;

    /// Rows as they were seen, and a number that is unbearable.
    #[derive(Default)]
    struct Seen {
        rows: Vec<(i64, String)>,
        unbearable: Option<i64>,
    }

    impl Seen {
        fn see(&mut self, columns: &[Value<'_>]) {
            let [Value::Int(number), rest @ ..] = columns else { panic!("{columns:?}") };
            assert_ne!(Some(*number), self.unbearable);
            self.rows.push((*number, format!("{rest:?}")));
        }
    }

    fn book() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b);
                 INSERT INTO t VALUES
                   (3, 'drei', NULL), (1, x'00ff', 1.5), (2, CAST(x'ff' AS TEXT), ''), (4, CAST(x'610062' AS TEXT), x'')",
            )
            .unwrap();
        connection
    }

    fn seen(book: &Connection, columns: &str, from: &str, seen: Seen) -> rusqlite::Result<Vec<(i64, String)>> {
        let seen = fold(book, columns, from, &[4_i64.into()], seen, Seen::see)?;
        Ok(seen.rows)
    }

    #[test]
    fn every_row_is_seen_as_a_scan_sees_it() {
        let book = book();
        let mut scanned = Seen::default();
        let mut engine = Sqlite::new(&book);
        engine.scan("SELECT id, a, b FROM t WHERE id <= $1", &[4_i64.into()], &mut |row| scanned.see(row)).unwrap();
        assert_eq!(scanned.rows.len(), 4);
        assert_eq!(seen(&book, "id, a, b", "t WHERE id <= $1", Seen::default()).unwrap(), scanned.rows);
        assert_eq!(seen(&book, "id, a, b", "t WHERE id > $1", Seen::default()).unwrap(), []);
    }

    /// And leaves the connection as it was.
    #[test]
    fn a_fold_that_fails_is_an_error_of_its_query_alone() {
        let book = book();
        let wide = format!("id{}", ", a".repeat(SCANNED_MAX));
        let failing = [("id, a", "t", Some(2)), ("id, b", "nowhere", None), (&*wide, "t", None), ("id, a", "t", None)];
        for (columns, table, unbearable) in failing {
            let found = seen(&book, columns, &format!("{table} WHERE id <= $1"), Seen { unbearable, ..Seen::default() });
            assert_eq!(found.is_ok(), (columns, table, unbearable) == failing[3], "{found:?}");
            let left = book.execute_batch("SELECT fold(1)").unwrap_err().to_string();
            assert!(left.contains("no such function"), "{left}");
        }
    }
}
