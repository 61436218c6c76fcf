//! Signed checkpoints of the audit chains, in a file beside the book (spec/kernelhost 2.15).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;

use super::State;
use crate::audit::Signer;
use crate::store::Store;
use crate::ticks::Ticks;

const TICK: Duration = Duration::from_millis(250);
/// A checkpoint is due after so many requests,
const ROWS: u64 = 1000;
/// or so long after the last one.
const PERIOD: Duration = Duration::from_mins(1);
/// Reading all heads must not become what the server does: between two checkpoints lies so many times what the last one took.
const REST: u32 = 20;

/// What is to be signed next.
pub(super) struct Checkpoints {
    /// Where to; nothing where nobody wants any.
    file: Option<PathBuf>,
    rows: AtomicU64,
    signed: Mutex<Signed>,
}

struct Signed {
    /// The size of each stream when it was last signed.
    sizes: HashMap<i64, i64>,
    at: Instant,
    took: Duration,
}

impl Checkpoints {
    pub(super) fn new(file: Option<PathBuf>) -> Self {
        let signed = Signed { sizes: HashMap::new(), at: Instant::now(), took: Duration::ZERO };
        Self { file, rows: AtomicU64::new(0), signed: Mutex::new(signed) }
    }

    /// A request leaves a row.
    pub(super) fn count(&self) {
        self.rows.fetch_add(1, Ordering::Relaxed);
    }

    fn is_due(&self) -> bool {
        let signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = signed.at.elapsed();
        let is_time = self.rows.load(Ordering::Relaxed) >= ROWS || passed >= PERIOD;
        is_time && passed >= signed.took * REST
    }

    /// Signs the streams that grew since they were last signed.
    fn write(&self, store: &Store, now: Timestamp) {
        let Some(file) = &self.file else { return };
        let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = Instant::now();
        self.rows.store(0, Ordering::Relaxed);
        match sign(store, file, now, &signed.sizes) {
            Ok(grown) => signed.sizes.extend(grown),
            Err(error) => tracing::error!(%error, file = %file.display(), "a checkpoint of the audit log was not written"),
        }
        (signed.at, signed.took) = (Instant::now(), begin.elapsed());
    }
}

/// The streams that were signed, and their sizes.
fn sign(store: &Store, file: &std::path::Path, now: Timestamp, sizes: &HashMap<i64, i64>) -> Result<Vec<(i64, i64)>, String> {
    // A sealed book waits for its key.
    let Some(signer) = Signer::of(store.vault()) else { return Ok(Vec::new()) };
    let mut heads = store.read(|books| books.chain_heads()).map_err(|error| error.to_string())?;
    heads.retain(|(stream, size, _)| sizes.get(stream) != Some(size));
    signer.append(file, now, &heads).map_err(|error| error.to_string())?;
    Ok(heads.into_iter().map(|(stream, size, _)| (stream, size)).collect())
}

pub(super) async fn run(state: Arc<State>, stopped: watch::Receiver<bool>) {
    let mut ticks = Ticks::every(TICK, stopped);
    while ticks.next().await {
        if state.checkpoints.is_due() {
            write(&state).await;
        }
    }
}

/// Signs what there is to be signed, and returns once it is on the disk.
pub(super) async fn write(state: &Arc<State>) {
    let state = Arc::clone(state);
    let written = tokio::task::spawn_blocking(move || state.checkpoints.write(&state.store, state.clock.now()));
    // The panic hook has logged a panic in there.
    let _ended = written.await;
}
