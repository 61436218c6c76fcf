//! The operator's daily summary: failures that nobody is told of otherwise, in one place and in time.
//!
//! It is written down with its mail in one transaction, once a day whatever happens to this process, and also when there is nothing
//! to tell: who hears nothing cannot know whether all is well. It holds counts and the names of profiles, and nothing of a customer.

use std::sync::Arc;
use std::time::Duration;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use provisor_providers::books::{Fault, Mail};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::Shared;
use crate::store::{Counts, OperationState, Schedule, StoreError, Transaction};
use crate::ticks::Ticks;

/// How often there is a look whether it is time.
const TICK: Duration = Duration::from_secs(5);
/// What a summary is about, and how old a change is that is open for too long.
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// When the operator gets a summary, and how.
#[derive(Debug, Clone)]
pub struct SummaryOptions {
    /// When, in UTC.
    pub at: Time,
    /// By mail to this address.
    pub mail: Option<String>,
    /// By a call-back.
    pub is_told: bool,
}

pub(super) async fn run(shared: Arc<Shared>, options: SummaryOptions, stopped: watch::Receiver<bool>) {
    let mut ticks = Ticks::every(TICK, stopped);
    while ticks.next().await {
        if let Err(error) = make(&shared, &options).await {
            tracing::error!(%error, "the day's summary has to wait");
        }
    }
}

async fn make(shared: &Shared, options: &SummaryOptions) -> Result<(), StoreError> {
    let now = shared.clock.now();
    let today = now.to_zoned(TimeZone::UTC).date();
    let Ok(until) = today.to_datetime(options.at).to_zoned(TimeZone::UTC).map(|at| at.timestamp()) else { return Ok(()) };
    let day = today.to_string();
    if now < until || shared.store.read(|books| books.has_summary(&day))? {
        return Ok(());
    }
    let all = shared.profiles.all();
    let left_alone: Vec<String> = all.keys().filter(|name| shared.breakers.is_open(name)).cloned().collect();
    let (holder, options) = (shared.holder.clone(), options.clone());
    shared
        .store
        .transact(move |books| {
            if !books.hold_schedule(Schedule::Journal, &holder, now)? || books.has_summary(&day)? {
                return Ok(());
            }
            write(books, &options, (now, until), &day, &left_alone)
        })
        .await
}

fn write(
    books: &mut Transaction<'_>,
    options: &SummaryOptions,
    (now, until): (Timestamp, Timestamp),
    day: &str,
    left_alone: &[String],
) -> Result<(), Fault> {
    let from = until - DAY;
    let counts = books.summary_counts(from, until, now - DAY)?;
    let body = json(&counts, (from, until), day, left_alone).to_string();
    books.add_summary(day, &body, now, options.is_told.then_some(now))?;
    if let Some(address) = &options.mail {
        let subject = format!(
            "Provisor: {} done, {} failed, {} for a person to settle",
            counts.done,
            counts.failed,
            open(&counts, OperationState::Dead)
        );
        let body = text(&counts, (from, until), left_alone);
        books.queue_operators_mail(address, &Mail { kind: "summary".to_owned(), subject, body, at: now })?;
    }
    Ok(())
}

fn open(counts: &Counts, state: OperationState) -> i64 {
    counts.open.iter().find(|(found, _)| *found == state).map_or(0, |(_, count)| *count)
}

fn json(counts: &Counts, (from, until): (Timestamp, Timestamp), day: &str, left_alone: &[String]) -> Value {
    let drift: serde_json::Map<String, Value> =
        counts.drifted.iter().map(|(kind, count)| (kind.clone(), (*count).into())).collect();
    json!({
        "day": day,
        "from": from.to_string(),
        "until": until.to_string(),
        "done": counts.done,
        "failed": counts.failed,
        "dead": open(counts, OperationState::Dead),
        "unknown": open(counts, OperationState::Unknown),
        "open_over_a_day": counts.overdue,
        "drift": drift,
        "unowned": counts.unowned,
        "left_alone": left_alone,
    })
}

fn text(counts: &Counts, (from, until): (Timestamp, Timestamp), left_alone: &[String]) -> String {
    let drift: Vec<String> = counts.drifted.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    let list = |words: &[String]| if words.is_empty() { "none".to_owned() } else { words.join(", ") };
    let lines = [
        ("changes made", counts.done.to_string()),
        ("changes not made", counts.failed.to_string()),
        ("dead: for a person to settle", open(counts, OperationState::Dead).to_string()),
        ("unknown: being settled", open(counts, OperationState::Unknown).to_string()),
        ("open for more than a day", counts.overdue.to_string()),
        ("services that differ", list(&drift)),
        ("services that no key owns", counts.unowned.to_string()),
        ("profiles left alone", list(left_alone)),
    ];
    let lines = lines.map(|(name, value)| format!("{name:<30}{value}")).join("\n");
    format!(
        "From {from} until {until}:\n\n{lines}\n\n\
         `provisor operations list --state dead` and `provisor operations drift` show which.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_day_is_told_in_the_same_words() {
        let counts = Counts { done: 0, failed: 0, open: Vec::new(), overdue: 0, drifted: Vec::new(), unowned: 0 };
        let until: Timestamp = "2027-01-15T06:00:00Z".parse().unwrap();
        let told = text(&counts, (until - DAY, until), &[]);
        assert!(
            told.starts_with("From 2027-01-14T06:00:00Z until 2027-01-15T06:00:00Z:\n\nchanges made                  0\n"),
            "{told}"
        );
        assert!(told.contains("profiles left alone           none\n"));
        let counts = Counts { drifted: vec![("gone".to_owned(), 2)], open: vec![(OperationState::Dead, 3)], ..counts };
        let (told, shown) =
            (text(&counts, (until - DAY, until), &["gp".to_owned()]), json(&counts, (until - DAY, until), "2027-01-15", &[]));
        for line in ["to settle  3\n", "being settled        0\n", "differ          gone 2\n", "alone           gp\n"] {
            assert!(told.contains(line), "{line}: {told}");
        }
        assert_eq!((&shown["drift"], &shown["dead"], &shown["unknown"]), (&json!({"gone": 2}), &json!(3), &json!(0)));
    }
}
