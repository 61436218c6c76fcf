//! Measurements of two things in turn, so that what disturbs the machine disturbs both.

use std::time::{Duration, Instant};

/// Turns of each.
pub const ROUNDS: usize = 9;

/// The median times of two pieces of work, done in turn.
pub struct Pair {
    /// Of the first.
    pub first: Duration,
    /// Of the second.
    pub second: Duration,
    /// The median of the rounds' ratios, first to second.
    pub ratio: f64,
}

/// Runs both in turn, after one turn to warm up that does not count.
pub async fn in_turn(mut first: impl AsyncFnMut(), mut second: impl AsyncFnMut()) -> Pair {
    let mut rounds = Vec::new();
    for round in 0..=ROUNDS {
        let started = Instant::now();
        first().await;
        let between = Instant::now();
        second().await;
        if round > 0 {
            rounds.push((between - started, between.elapsed()));
        }
    }
    let ratios = rounds.iter().map(|(first, second)| first.as_secs_f64() / second.as_secs_f64());
    Pair {
        first: median(rounds.iter().map(|round| round.0.as_secs_f64())),
        second: median(rounds.iter().map(|round| round.1.as_secs_f64())),
        ratio: middle(ratios.collect()),
    }
}

fn median(seconds: impl Iterator<Item = f64>) -> Duration {
    Duration::from_secs_f64(middle(seconds.collect()))
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// How often something was done in a second.
#[expect(clippy::cast_precision_loss, reason = "a measurement is not that precise")]
pub fn per_second(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}
