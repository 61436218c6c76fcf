//! Folding over rows within SQLite, as an aggregate function of its SQL.
//!
//! A function is handed a row's values where SQLite has them. Who steps through the rows asks for each column by itself, in three or four
//! calls, most of which look at the statement and the connection first: a quarter of the time in which rows of the audit log are verified.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use rusqlite::functions::{Aggregate, Context, FunctionFlags};
use rusqlite::types::ValueRef;

use super::sql::{Fold, Value};

const NAME: &str = "fold";
/// The widest row that is scanned or folded over.
pub(super) const SCANNED_MAX: usize = 16;

/// Hands rows to a fold, and gives it back. Fails while another statement of the connection is under way.
pub(super) fn fold(
    connection: &Connection,
    columns: &str,
    from: &str,
    values: &[Value<'_>],
    fold: Box<dyn Fold>,
) -> rusqlite::Result<Option<Box<dyn Fold>>> {
    let held = Held(Arc::new(Mutex::new(Some(fold))));
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY;
    connection.create_aggregate_function(NAME, -1, flags, held.clone())?;
    let query = format!("SELECT {NAME}({columns}) FROM {from}");
    let folded = connection.query_row(&query, rusqlite::params_from_iter(values), |_| Ok(()));
    connection.remove_function(NAME, -1)?;
    folded.map(|()| held.take())
}

/// Where a fold is while no row is handed to it.
#[derive(Clone)]
struct Held(Arc<Mutex<Option<Box<dyn Fold>>>>);

impl Held {
    fn take(&self) -> Option<Box<dyn Fold>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A fold that panicked is dropped with its query, and read by nobody.
type Folding = AssertUnwindSafe<Option<Box<dyn Fold>>>;

impl Aggregate<Folding, Option<i64>> for Held {
    fn init(&self, _context: &mut Context<'_>) -> rusqlite::Result<Folding> {
        Ok(AssertUnwindSafe(self.take()))
    }

    fn step(&self, context: &mut Context<'_>, folding: &mut Folding) -> rusqlite::Result<()> {
        let mut cells = [Value::Null; SCANNED_MAX];
        let cells = cells.get_mut(..context.len()).ok_or(rusqlite::Error::InvalidParameterCount(context.len(), SCANNED_MAX))?;
        for (column, cell) in cells.iter_mut().enumerate() {
            *cell = borrowed(context.get_raw(column));
        }
        if let Some(fold) = &mut folding.0 {
            fold.row(cells);
        }
        Ok(())
    }

    fn finalize(&self, _context: &mut Context<'_>, folding: Option<Folding>) -> rusqlite::Result<Option<i64>> {
        if let Some(AssertUnwindSafe(fold)) = folding {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = fold;
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
    use std::any::Any;

    use super::*;
    use crate::store::sql::Sql;
    use crate::store::sqlite::Sqlite;

    /// Notes what it sees, and panics at a number.
    #[derive(Default)]
    struct Seen {
        rows: Vec<(i64, String)>,
        unbearable: Option<i64>,
    }

    impl Fold for Seen {
        fn row(&mut self, columns: &[Value<'_>]) {
            let [Value::Int(number), rest @ ..] = columns else { panic!("{columns:?}") };
            assert_ne!(Some(*number), self.unbearable);
            self.rows.push((*number, format!("{rest:?}")));
        }
    }

    fn book() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, a, b)").unwrap();
        connection
            .execute_batch("INSERT INTO t VALUES (3, 'drei', NULL), (1, x'00ff', 1.5), (2, CAST(x'ff' AS TEXT), '')")
            .unwrap();
        connection
    }

    fn seen(connection: &Connection, columns: &str, from: &str, seen: Seen) -> rusqlite::Result<Vec<(i64, String)>> {
        let fold: Box<dyn Any> = fold(connection, columns, from, &[3_i64.into()], Box::new(seen))?.unwrap();
        Ok(fold.downcast::<Seen>().unwrap().rows)
    }

    #[test]
    fn every_row_is_seen_as_a_scan_sees_it() {
        let book = book();
        let mut scanned = Vec::new();
        let mut each = |row: &[Value<'_>]| {
            let [Value::Int(number), rest @ ..] = row else { panic!("{row:?}") };
            scanned.push((*number, format!("{rest:?}")));
        };
        Sqlite::new(&book).scan("SELECT id, a, b FROM t WHERE id <= $1", &[3_i64.into()], &mut each).unwrap();
        assert_eq!(scanned.len(), 3);
        assert_eq!(seen(&book, "id, a, b", "t WHERE id <= $1", Seen::default()).unwrap(), scanned);
        assert_eq!(seen(&book, "id, a, b", "t WHERE id > $1", Seen::default()).unwrap(), []);
    }

    /// What fails leaves the connection as it was.
    #[test]
    fn a_fold_that_fails_is_an_error_of_its_query_alone() {
        let book = book();
        let unbearable = Seen { unbearable: Some(2), ..Seen::default() };
        assert!(seen(&book, "id, a", "t WHERE id <= $1", unbearable).is_err());
        assert!(seen(&book, "id, b", "nowhere WHERE id <= $1", Seen::default()).is_err());
        let wide = format!("id{}", ", a".repeat(SCANNED_MAX));
        assert!(seen(&book, &wide, "t WHERE id <= $1", Seen::default()).is_err());
        assert_eq!(seen(&book, "id", "t WHERE id < $1", Seen::default()).unwrap().len(), 2);
        assert!(book.execute_batch("SELECT fold(1)").is_err(), "the function is there while rows are folded alone");
    }
}
