//! What the nouns need of a database engine: one SQL text, parameters `$1`, `$2`, .. in the order of their first appearance (SQLite
//! numbers named parameters so), and values of four kinds.

use jiff::Timestamp;
use provisor_providers::books::Fault;

/// One connection inside a transaction.
pub(crate) trait Sql {
    /// Runs a statement; how many rows it changed.
    fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<usize, Fault>;
    /// Runs a query, or a statement with RETURNING.
    fn query(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, Fault>;
    /// Runs a query and hands on each row as it comes, borrowed. An engine that cannot stream reads them all first.
    fn scan(&mut self, sql: &str, values: &[Value<'_>], each: &mut dyn FnMut(&[Value<'_>])) -> Result<(), Fault> {
        for row in self.query(sql, values)? {
            each(&row.0.iter().map(Value::from).collect::<Vec<_>>());
        }
        Ok(())
    }
    /// Runs statements without parameters.
    fn batch(&mut self, sql: &str) -> Result<(), Fault>;
}

impl dyn Sql + '_ {
    /// The first row, if any.
    pub(crate) fn first(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Option<Row>, Fault> {
        Ok(self.query(sql, values)?.into_iter().next())
    }

    /// The id that an INSERT .. RETURNING id gave.
    pub(crate) fn insert(&mut self, sql: &str, values: &[Value<'_>]) -> Result<i64, Fault> {
        self.first(sql, values)?.ok_or_else(|| Fault("an insert returned no id".to_owned()))?.int(0)
    }
}

/// A parameter.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'a> {
    Null,
    Int(i64),
    Text(&'a str),
    Bytes(&'a [u8]),
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<u32> for Value<'_> {
    fn from(value: u32) -> Self {
        Self::Int(value.into())
    }
}

impl From<Timestamp> for Value<'_> {
    fn from(value: Timestamp) -> Self {
        Self::Int(value.as_millisecond())
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(value: &'a String) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(value: &'a [u8]) -> Self {
        Self::Bytes(value)
    }
}

impl<'a> From<&'a Cell> for Value<'a> {
    fn from(cell: &'a Cell) -> Self {
        match cell {
            Cell::Null => Self::Null,
            Cell::Int(value) => Self::Int(*value),
            Cell::Text(value) => Self::Text(value),
            Cell::Bytes(value) => Self::Bytes(value),
        }
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A value of a row.
#[derive(Debug, Clone)]
pub(crate) enum Cell {
    Null,
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// A row; columns by their place in the query. A wrong kind is a fault: the book was changed by another hand.
pub(crate) struct Row(pub(crate) Vec<Cell>);

impl Row {
    pub(crate) fn int(&self, column: usize) -> Result<i64, Fault> {
        self.opt_int(column)?.ok_or_else(|| unexpected(column))
    }

    pub(crate) fn opt_int(&self, column: usize) -> Result<Option<i64>, Fault> {
        match self.0.get(column) {
            Some(Cell::Int(value)) => Ok(Some(*value)),
            Some(Cell::Null) => Ok(None),
            _ => Err(unexpected(column)),
        }
    }

    /// An integer of a narrower kind.
    pub(crate) fn number<T: TryFrom<i64>>(&self, column: usize) -> Result<T, Fault> {
        T::try_from(self.int(column)?).map_err(|_| unexpected(column))
    }

    pub(crate) fn time(&self, column: usize) -> Result<Timestamp, Fault> {
        self.opt_time(column)?.ok_or_else(|| unexpected(column))
    }

    pub(crate) fn opt_time(&self, column: usize) -> Result<Option<Timestamp>, Fault> {
        self.opt_int(column)?.map(|ms| Timestamp::from_millisecond(ms).map_err(|_| unexpected(column))).transpose()
    }

    pub(crate) fn text(&self, column: usize) -> Result<String, Fault> {
        self.opt_text(column)?.ok_or_else(|| unexpected(column))
    }

    pub(crate) fn opt_text(&self, column: usize) -> Result<Option<String>, Fault> {
        match self.0.get(column) {
            Some(Cell::Text(value)) => Ok(Some(value.clone())),
            Some(Cell::Null) => Ok(None),
            _ => Err(unexpected(column)),
        }
    }

    /// A text in one of a few spellings.
    pub(crate) fn spelled<T>(&self, column: usize, parse: impl Fn(&str) -> Option<T>) -> Result<T, Fault> {
        parse(&self.text(column)?).ok_or_else(|| unexpected(column))
    }

    pub(crate) fn bytes(&self, column: usize) -> Result<Vec<u8>, Fault> {
        match self.0.get(column) {
            Some(Cell::Bytes(value)) => Ok(value.clone()),
            _ => Err(unexpected(column)),
        }
    }

    /// Bytes of a fixed length.
    pub(crate) fn array<const N: usize>(&self, column: usize) -> Result<[u8; N], Fault> {
        self.bytes(column)?.try_into().map_err(|_| unexpected(column))
    }
}

fn unexpected(column: usize) -> Fault {
    Fault(format!("column {column} holds a value of the wrong kind: was the book changed by another program?"))
}
