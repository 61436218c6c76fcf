//! Money: whole minor units, decimal text on the wire.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An amount in minor units (cents). Which currency it is stands beside it, in the row or message that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Minor(pub i64);

impl Minor {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The sum, unless it does not fit.
    pub fn plus(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The tax in a total that has it included, at so many hundredths of a percent of the net amount. Rounded once, to the nearest
    /// minor unit, a half away from zero; the net amount is the rest, so that both always add up.
    #[must_use]
    pub fn tax_within(self, basis_points: u32) -> Self {
        let (total, rate) = (i128::from(self.0), i128::from(basis_points));
        let whole = 10_000 + rate;
        let half = if total < 0 { -whole / 2 } else { whole / 2 };
        // A part of what fits fits.
        Self(i64::try_from((total * rate + half) / whole).unwrap_or(self.0))
    }

    /// So many times the amount, unless it does not fit.
    pub fn times(self, count: u32) -> Option<Self> {
        self.0.checked_mul(i64::from(count)).map(Self)
    }
}

/// Two decimals: every currency of the books has cents.
impl fmt::Display for Minor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let units = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:02}", units / 100, units % 100)
    }
}

/// Text that is not an amount of at most two decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an amount: expected digits with at most two decimals, such as 12.90")]
pub struct NotAnAmount;

/// Exact: `12`, `12.9`, `12.90`, `-3.00`. No exponent, no separators, no blanks; further decimals only when they are zeros.
impl FromStr for Minor {
    type Err = NotAnAmount;

    fn from_str(text: &str) -> Result<Self, NotAnAmount> {
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (whole, decimals) = digits.split_once('.').unwrap_or((digits, "0"));
        let all_digits = |part: &str| !part.is_empty() && part.len() <= 15 && part.bytes().all(|byte| byte.is_ascii_digit());
        if !all_digits(whole) || !all_digits(decimals) {
            return Err(NotAnAmount);
        }
        let (cents, rest) = decimals.split_at(decimals.len().min(2));
        if rest.bytes().any(|byte| byte != b'0') {
            return Err(NotAnAmount);
        }
        let cents: i64 = format!("{cents:0<2}").parse().map_err(|_| NotAnAmount)?;
        let units: i64 = whole.parse().map_err(|_| NotAnAmount)?;
        let minor = units.checked_mul(100).and_then(|units| units.checked_add(cents)).ok_or(NotAnAmount)?;
        Ok(Self(if negative { -minor } else { minor }))
    }
}

impl Serialize for Minor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Minor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_exactly_or_not_at_all() {
        for (text, minor) in [("12.90", 1290), ("12.9", 1290), ("12", 1200), ("-0.05", -5), ("1500.26", 150_026), ("1.500", 150)]
        {
            assert_eq!(text.parse(), Ok(Minor(minor)), "{text}");
        }
        for text in ["", ".", "1.", ".5", "1,50", "1e3", " 1", "1 ", "+1", "1.005", "--1", "9999999999999999", "١"] {
            assert_eq!(text.parse::<Minor>(), Err(NotAnAmount), "{text}");
        }
    }

    #[test]
    fn the_tax_in_a_total_is_rounded_once_and_the_rest_is_net() {
        for (total, basis_points, tax) in [
            (990, 0, 0),
            (990, 1900, 158),
            (11_900, 1900, 1900),
            (100, 2000, 17),
            (3, 10_000, 2),
            (1, 10_000, 1),
            (-1190, 1900, -190),
            (0, 1900, 0),
            (i64::MAX, 10_000, i64::MAX / 2 + 1),
        ] {
            assert_eq!(Minor(total).tax_within(basis_points), Minor(tax), "{total} at {basis_points}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for minor in [0, 1, 99, 100, 101, -1, -100, 123_456_789] {
            assert_eq!(Minor(minor).to_string().parse(), Ok(Minor(minor)));
            let json = serde_json::to_string(&Minor(minor)).unwrap();
            assert_eq!((json.starts_with('"'), serde_json::from_str(&json).ok()), (true, Some(Minor(minor))));
        }
    }
}
