//! Prometheus' text format, version 0.0.4, and the histogram that both wings count in.

use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The format's media type.
pub(crate) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What monitoring is told.
pub(crate) struct Exposition(String);

impl Exposition {
    /// Begins with what every wing says of its host.
    pub(crate) fn new(is_sealed: bool) -> Self {
        let mut all = Self(String::new());
        all.gauge("provisor_build_info", "Which version runs.").sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
        all.gauge("provisor_sealed", "Whether the book's master key is missing.").sample(&[], u8::from(is_sealed));
        all
    }

    pub(crate) fn gauge(&mut self, name: &'static str, help: &str) -> Metric<'_> {
        self.metric("gauge", name, help)
    }

    pub(crate) fn counter(&mut self, name: &'static str, help: &str) -> Metric<'_> {
        self.metric("counter", name, help)
    }

    pub(crate) fn histogram(&mut self, name: &'static str, help: &str) -> Metric<'_> {
        self.metric("histogram", name, help)
    }

    pub(crate) fn into_text(self) -> String {
        self.0
    }

    fn metric(&mut self, kind: &str, name: &'static str, help: &str) -> Metric<'_> {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
        Metric { all: self, name }
    }

    fn line(&mut self, line: impl Display) {
        // A string takes whatever is written to it.
        let _written = writeln!(self.0, "{line}");
    }
}

/// Samples of one metric.
pub(crate) struct Metric<'a> {
    all: &'a mut Exposition,
    name: &'static str,
}

impl Metric<'_> {
    /// A label's value is a name of ours or one that the configuration allows: nothing in it wants escaping.
    pub(crate) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.suffixed("", labels, value);
    }

    /// All that a histogram counted.
    pub(crate) fn counted<const N: usize>(&mut self, labels: &[(&str, &str)], counted: &Histogram<N>) {
        let mut count = 0;
        for (bound, bucket) in counted.bounds_ms.iter().zip(&counted.buckets) {
            count += bucket.load(Ordering::Relaxed);
            let bound = seconds(1000 * bound);
            self.suffixed("_bucket", &[labels, &[("le", &bound)]].concat(), count);
        }
        count += counted.above.load(Ordering::Relaxed);
        self.suffixed("_bucket", &[labels, &[("le", "+Inf")]].concat(), count);
        self.suffixed("_sum", labels, seconds(counted.sum_us.load(Ordering::Relaxed)));
        self.suffixed("_count", labels, count);
    }

    fn suffixed(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect::<Vec<_>>().join(",");
        let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
        self.all.line(format_args!("{}{suffix}{labels} {value}", self.name));
    }
}

/// How long things took, counted by bounds in milliseconds.
pub(crate) struct Histogram<const N: usize> {
    bounds_ms: &'static [u64; N],
    buckets: [AtomicU64; N],
    above: AtomicU64,
    sum_us: AtomicU64,
}

impl<const N: usize> Histogram<N> {
    pub(crate) fn new(bounds_ms: &'static [u64; N]) -> Self {
        Self { bounds_ms, buckets: [const { AtomicU64::new(0) }; N], above: AtomicU64::new(0), sum_us: AtomicU64::new(0) }
    }

    pub(crate) fn count(&self, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let place = self.bounds_ms.iter().position(|bound| took_us <= 1000 * bound);
        place.map_or(&self.above, |place| &self.buckets[place]).fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(took_us, Ordering::Relaxed);
    }
}

fn seconds(microseconds: u64) -> String {
    format!("{}.{:06}", microseconds / 1_000_000, microseconds % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_up_to_each_bound() {
        let took = Histogram::new(&[1, 1500]);
        for microseconds in [0, 1000, 1001, 1_500_000, 1_500_001] {
            took.count(Duration::from_micros(microseconds));
        }
        let mut all = Exposition(String::new());
        all.histogram("took_seconds", "How long.").counted(&[("api", "gp")], &took);
        assert_eq!(
            all.into_text(),
            "# HELP took_seconds How long.\n# TYPE took_seconds histogram\n\
             took_seconds_bucket{api=\"gp\",le=\"0.001000\"} 2\n\
             took_seconds_bucket{api=\"gp\",le=\"1.500000\"} 4\n\
             took_seconds_bucket{api=\"gp\",le=\"+Inf\"} 5\n\
             took_seconds_sum{api=\"gp\"} 3.002002\n\
             took_seconds_count{api=\"gp\"} 5\n"
        );
    }
}
