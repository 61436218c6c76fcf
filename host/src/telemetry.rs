//! The log: to stderr only, since stdout belongs to what a command was asked for. And the ids under which requests are found in it.

use std::io::IsTerminal;

use jiff::Timestamp;
use provisor_providers::server::ulid;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::clock::Clock;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people; in colour on a terminal.
    Pretty,
    /// One JSON object per line.
    Json,
}

/// Starts the log, for the whole process. `filter` is a level (`info`) or directives (`provisor=debug,hyper=warn`). A second call
/// changes nothing.
pub fn init(format: Format, filter: &str) -> Result<(), ParseError> {
    let filter = EnvFilter::builder().parse(filter)?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // An error here says that somebody's log is already running, as under tests; that one serves.
    let _running = match format {
        Format::Pretty => log.with_ansi(std::io::stderr().is_terminal()).try_init(),
        Format::Json => log.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// A new request's id: a ULID, so ids sort by time.
pub fn request_id(clock: &dyn Clock) -> String {
    request_id_of(clock.now(), &clock.seed())
}

/// The id of a request that has its randomness: everybody may know the one, and nobody learns the other from it.
pub fn request_id_of(now: Timestamp, seed: &[u8; 32]) -> String {
    ulid(now, seed, &[b"request id"]).to_string()
}

#[cfg(test)]
mod tests {
    use ulid::Ulid;

    use super::*;
    use crate::clock::System;

    #[test]
    fn a_request_id_tells_its_time_and_comes_once() {
        let before = System.now().as_millisecond();
        let id = request_id(&System);
        let read = Ulid::from_string(&id).unwrap();
        assert!(i64::try_from(read.timestamp_ms()).unwrap() >= before);
        assert_ne!(read.random(), 0);
        assert_ne!(id, request_id(&System));
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_refused() {
        assert!(init(Format::Pretty, "provisor=loud").is_err());
    }
}
