//! Values on their way to and from PostgreSQL.

use std::error::Error;

use bytes::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type};

use crate::store::sql::{Cell, Value};

type Unreadable = Box<dyn Error + Sync + Send>;

impl Value<'_> {
    /// What the server is told that a parameter is; of an absent one it finds out by itself.
    pub(super) fn kind(&self) -> Type {
        match self {
            Self::Null => Type::UNKNOWN,
            Self::Int(_) => Type::INT8,
            Self::Text(_) => Type::TEXT,
            Self::Bytes(_) => Type::BYTEA,
        }
    }
}

impl ToSql for Value<'_> {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Unreadable> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(value) => value.to_sql(kind, out),
            Self::Text(value) => value.to_sql(kind, out),
            Self::Bytes(value) => value.to_sql(kind, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Unreadable> {
        let fits = match self {
            Self::Null => true,
            Self::Int(_) => *kind == Type::INT8,
            Self::Text(_) => <&str as ToSql>::accepts(kind),
            Self::Bytes(_) => *kind == Type::BYTEA,
        };
        if fits { self.to_sql(kind, out) } else { Err(format!("a parameter of the wrong kind: {kind} is wanted").into()) }
    }
}

impl<'a> FromSql<'a> for Cell {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Unreadable> {
        Ok(match *kind {
            Type::INT8 => Self::Int(i64::from_sql(kind, raw)?),
            Type::INT4 => Self::Int(i32::from_sql(kind, raw)?.into()),
            Type::INT2 => Self::Int(i16::from_sql(kind, raw)?.into()),
            Type::BOOL => Self::Int(bool::from_sql(kind, raw)?.into()),
            // A sum of integers is one.
            Type::NUMERIC => Self::Int(whole(raw).ok_or("a number that is not whole, or too large")?),
            Type::BYTEA => Self::Bytes(raw.to_vec()),
            _ => Self::Text(String::from_sql(kind, raw)?),
        })
    }

    fn from_sql_null(_: &Type) -> Result<Self, Unreadable> {
        Ok(Self::Null)
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// A whole number from PostgreSQL's NUMERIC: four 16-bit words (count of digits, weight of the first, sign, scale), then digits to
/// the base 10,000.
fn whole(raw: &[u8]) -> Option<i64> {
    let words: Vec<i16> = raw.chunks_exact(2).map(|word| i16::from_be_bytes([word[0], word[1]])).collect();
    let [_count, weight, sign, _scale, digits @ ..] = words.as_slice() else { return None };
    let places = usize::try_from(i32::from(*weight) + 1).ok()?;
    if digits.iter().skip(places).any(|digit| *digit != 0) {
        return None;
    }
    let digits = digits.iter().copied().chain(std::iter::repeat(0)).take(places);
    // Summed below zero, where there is room for one more.
    let negative = digits.map(i64::from).try_fold(0_i64, |sum, digit| sum.checked_mul(10_000)?.checked_sub(digit))?;
    match *sign {
        0 => negative.checked_neg(),
        0x4000 => Some(negative),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(words: &[i16]) -> Option<i64> {
        whole(&words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>())
    }

    #[test]
    fn sums_are_read_as_they_come() {
        for (words, value) in [
            (&[0, 0, 0, 0][..], Some(0)),
            (&[1, 0, 0, 0, 42], Some(42)),
            (&[1, 1, 0, 0, 1], Some(10_000)),
            (&[2, 1, 0x4000, 0, 12, 3456], Some(-123_456)),
            (&[5, 4, 0, 0, 922, 3372, 368, 5477, 5807], Some(i64::MAX)),
            (&[5, 4, 0x4000, 0, 922, 3372, 368, 5477, 5808], Some(i64::MIN)),
            (&[5, 4, 0, 0, 922, 3372, 368, 5477, 5808], None),
            (&[1, -1, 0, 2, 5000], None),
            (&[0, 0, -0x4000, 0], None),
            (&[1, 0], None),
        ] {
            assert_eq!(numeric(words), value, "{words:?}");
        }
    }
}
