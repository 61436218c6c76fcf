//! Work that is looked for again and again, until it is told to stop.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// When to look, and whether to go on.
pub(crate) struct Ticks {
    interval: Interval,
    stopped: watch::Receiver<bool>,
}

impl Ticks {
    /// The first comes at once. Those that are missed are not made up for.
    pub(crate) fn every(period: Duration, stopped: watch::Receiver<bool>) -> Self {
        let mut interval = interval(period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { interval, stopped }
    }

    /// Waits for the next; false once it is time to stop.
    pub(crate) async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.interval.tick() => true,
            // Whoever could say so is gone: that says it, too.
            _ = self.stopped.wait_for(|stopped| *stopped) => false,
        }
    }

    /// Waits until it is time to stop.
    pub(crate) async fn stopped(&mut self) {
        let _said = self.stopped.wait_for(|stopped| *stopped).await;
    }

    /// Whether it is time to stop.
    pub(crate) fn are_stopped(&self) -> bool {
        *self.stopped.borrow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn they_come_until_they_are_stopped() {
        let (stop, stopped) = watch::channel(false);
        let mut ticks = Ticks::every(Duration::from_millis(1), stopped);
        assert!(ticks.next().await && ticks.next().await && !ticks.are_stopped());
        stop.send(true).unwrap();
        ticks.stopped().await;
        assert!(!ticks.next().await && !ticks.next().await && ticks.are_stopped());
    }

    #[tokio::test]
    async fn they_end_with_whoever_could_stop_them() {
        let (stop, stopped) = watch::channel(false);
        let mut ticks = Ticks::every(Duration::from_millis(1), stopped);
        assert!(ticks.next().await);
        drop(stop);
        assert!(!ticks.next().await);
    }
}
