//! Billing cycles: how long a term is.

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use crate::books::Fault;

/// A term's months (the names are WHMCS's, spec 8).
pub fn months(cycle: &str) -> Option<i32> {
    Some(match cycle {
        "monthly" => 1,
        "quarterly" => 3,
        "semiannually" => 6,
        "annually" => 12,
        "biennially" => 24,
        "triennially" => 36,
        _ => return None,
    })
}

/// When the term that begins at `from` ends, in UTC, for a service that was made at `made`.
///
/// A month after January 31 is the last of February, and a month after that is March 31 again: the day is the one the service
/// was made on, unless the operator moved its due date off that day.
pub fn term_end(made: Timestamp, from: Timestamp, cycle: &str) -> Result<Timestamp, Fault> {
    let months = months(cycle).ok_or_else(|| Fault(format!("no such billing cycle: {cycle}")))?;
    let (first, begin) = (made.to_zoned(TimeZone::UTC), from.to_zoned(TimeZone::UTC));
    let passed = 12 * (i32::from(begin.year()) - i32::from(first.year())) + i32::from(begin.month()) - i32::from(first.month());
    let end = match first.checked_add(passed.months()) {
        Ok(regular) if regular == begin => first.checked_add((passed + months).months()),
        _ => begin.checked_add(months.months()),
    };
    end.map(|end| end.timestamp()).map_err(|_| Fault(format!("the term from {from} on has no end")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_term_ends_on_the_day_it_began_or_the_months_last() {
        for (from, cycle, end) in [
            ("2027-01-15T10:20:30Z", "monthly", "2027-02-15T10:20:30Z"),
            ("2027-01-31T00:00:00Z", "monthly", "2027-02-28T00:00:00Z"),
            ("2028-01-31T00:00:00Z", "monthly", "2028-02-29T00:00:00Z"),
            ("2027-11-30T23:59:59Z", "quarterly", "2028-02-29T23:59:59Z"),
            ("2027-08-31T00:00:00Z", "semiannually", "2028-02-29T00:00:00Z"),
            ("2028-02-29T12:00:00Z", "annually", "2029-02-28T12:00:00Z"),
            ("2028-02-29T12:00:00Z", "biennially", "2030-02-28T12:00:00Z"),
            ("2028-02-29T12:00:00Z", "triennially", "2031-02-28T12:00:00Z"),
            // The clocks of Berlin change on this day; ours do not.
            ("2027-02-28T01:30:00Z", "monthly", "2027-03-28T01:30:00Z"),
        ] {
            assert_eq!(term_end(at(from), at(from), cycle).unwrap(), at(end), "{from} {cycle}");
        }
    }

    #[test]
    fn short_months_do_not_wear_the_day_down() {
        let made = at("2027-01-31T08:00:00Z");
        let mut due = made;
        let mut days = Vec::new();
        for _ in 0..5 {
            due = term_end(made, due, "monthly").unwrap();
            days.push(due.strftime("%m-%d").to_string());
        }
        assert_eq!(days, ["02-28", "03-31", "04-30", "05-31", "06-30"]);

        let leap_day = at("2028-02-29T00:00:00Z");
        assert_eq!(term_end(leap_day, at("2031-02-28T00:00:00Z"), "annually").unwrap(), at("2032-02-29T00:00:00Z"));
    }

    #[test]
    fn a_moved_due_date_still_buys_a_whole_term() {
        let made = at("2027-01-10T00:00:00Z");
        assert_eq!(term_end(made, at("2027-02-20T00:00:00Z"), "monthly").unwrap(), at("2027-03-20T00:00:00Z"));
    }

    #[test]
    fn there_are_six_cycles_and_an_end_of_time() {
        assert!(["", "Monthly", "onetime", "free", "weekly"].iter().all(|cycle| months(cycle).is_none()));
        assert!(term_end(Timestamp::MAX, Timestamp::MAX, "monthly").is_err());
    }
}
