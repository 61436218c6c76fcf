//! What a component writes to its standard output and error: kept small, stripped of secrets, told to the log once per call.

use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use zeroize::Zeroizing;

use crate::redaction::Secrets;

/// Bytes kept of one call's output; the rest is dropped.
pub(super) const OUTPUT_MAX: usize = 8 * 1024;
const ENTRIES_PER_SECOND: u32 = 20;

/// The output of one call. Clones write to the same place; a full one swallows, so that a flood costs the component its own time
/// and nobody else anything.
#[derive(Clone, Default)]
pub(super) struct GuestLog {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    bytes: Zeroizing<Vec<u8>>,
    dropped: usize,
}

impl GuestLog {
    fn add(&self, bytes: &[u8]) {
        let Ok(mut kept) = self.kept.lock() else { return };
        let room = OUTPUT_MAX.saturating_sub(kept.bytes.len()).min(bytes.len());
        kept.bytes.extend_from_slice(&bytes[..room]);
        kept.dropped += bytes.len() - room;
    }

    /// What was written, in one printable line without secrets; `None` if nothing was.
    pub(super) fn text(&self, secrets: &Secrets) -> Option<String> {
        let kept = self.kept.lock().ok()?;
        if kept.bytes.is_empty() {
            return None;
        }
        let whole = Zeroizing::new(String::from_utf8_lossy(&kept.bytes).into_owned());
        let mut text = secrets.redact(&whole);
        if kept.dropped > 0 {
            // What was cut in the middle of a secret no longer looks like one.
            let end = secrets.tail(&text);
            text.truncate(text.len() - end);
            let _ = write!(text, "[{} more bytes]", kept.dropped);
        }
        // Line breaks and terminal sequences would forge other entries.
        Some(text.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
    }
}

impl IsTerminal for GuestLog {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestLog {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for GuestLog {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.add(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(OUTPUT_MAX)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for GuestLog {
    async fn ready(&mut self) {}
}

impl AsyncWrite for GuestLog {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.add(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// How often output reaches the log, over all components.
#[derive(Default)]
pub(super) struct LogRate {
    window: Mutex<Option<Window>>,
}

struct Window {
    since: Instant,
    told: u32,
    skipped: u32,
}

impl LogRate {
    /// Whether there is room for one more entry, and if so, how many were left out before it.
    pub(super) fn admit(&self) -> Option<u32> {
        let mut slot = self.window.lock().ok()?;
        let window = slot.get_or_insert_with(|| Window { since: Instant::now(), told: 0, skipped: 0 });
        if window.since.elapsed() >= Duration::from_secs(1) {
            window.since = Instant::now();
            window.told = 0;
        }
        if window.told >= ENTRIES_PER_SECOND {
            window.skipped += 1;
            return None;
        }
        window.told += 1;
        Some(std::mem::take(&mut window.skipped))
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    fn secrets(values: &[&str]) -> Secrets {
        let values: Vec<SecretString> = values.iter().map(|value| SecretString::from(*value)).collect();
        Secrets::new(&values)
    }

    #[test]
    fn a_flood_is_cut_and_leaves_no_part_of_a_secret() {
        let log = GuestLog::default();
        log.add(&vec![b'x'; OUTPUT_MAX - 7]);
        log.add(b"topsecret and on and on");
        let text = log.text(&secrets(&["topsecret"])).unwrap();
        assert!(text.ends_with("x[16 more bytes]"), "{}", &text[text.len() - 40..]);
        assert!(!text.contains("topse"));
    }

    #[test]
    fn the_log_takes_so_many_entries_and_counts_the_rest() {
        let rate = LogRate::default();
        for _ in 0..ENTRIES_PER_SECOND {
            assert_eq!(rate.admit(), Some(0));
        }
        assert_eq!((rate.admit(), rate.admit()), (None, None));
        rate.window.lock().unwrap().as_mut().unwrap().since -= Duration::from_secs(1);
        assert_eq!((rate.admit(), rate.admit()), (Some(2), Some(0)));
    }

    #[test]
    fn output_forges_no_entry() {
        let log = GuestLog::default();
        log.add(b"line\nERROR forged\x1b[31m\r\n");
        assert_eq!(log.text(&secrets(&[])).unwrap(), "line ERROR forged [31m");
        assert_eq!(GuestLog::default().text(&secrets(&[])), None);
    }
}
