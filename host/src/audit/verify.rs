//! Walks every chain from its first row to its head, and past every checkpoint.
//!
//! The rows are swept in the order in which the table has them, which is that in which they came and what a disk and a cache like best:
//! on two threads, one for each half of the table. A row's own hash shows whether it follows from the row before, so what the two saw of
//! a stream is joined where the halves meet. A stream in which anything is amiss is then walked once more in the order of its sequence,
//! to name the first bad row.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use provisor_providers::books::Fault;

use super::chain::{Encoded, GENESIS};
use super::checkpoint::Checkpoint;
use crate::store::{RawAuditRow, Store, Transaction, Value};

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every row follows from the one before.
    Whole {
        /// How many streams.
        streams: u64,
        /// How many rows.
        rows: u64,
    },
    /// The first bad row of each stream that has one, by stream.
    Broken(Vec<BadRow>),
}

/// The first row of a stream that is not as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadRow {
    /// The stream: an account's id, or 0.
    pub stream: i64,
    /// The sequence number at which the wrong row, or none, stands.
    pub seq: i64,
    /// What is wrong with it.
    pub what: What,
}

/// What is wrong with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Its hash is not that of its columns and the row before.
    Changed,
    /// A column holds a value of the wrong kind.
    Malformed,
    /// It is not there.
    Missing,
    /// It stands where no row can stand: a second time, or among those that were archived.
    Unexpected,
    /// It stands before a row whose number is smaller: rows are added at the end alone.
    Displaced,
    /// It stands behind the chain's head.
    PastHead,
    /// The chain's head names another hash.
    HeadDiffers,
    /// A signed checkpoint saw other rows: one of those from here to `until` was written anew.
    Rewritten {
        /// The row at which the checkpoint was made.
        until: i64,
    },
    /// Rows that belong to no stream, which is always 0 then.
    Stray,
}

impl What {
    /// One word, for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Malformed => "malformed",
            Self::Missing => "missing",
            Self::Unexpected => "unexpected",
            Self::Displaced => "displaced",
            Self::PastHead => "past_head",
            Self::HeadDiffers => "head_differs",
            Self::Rewritten { .. } => "rewritten",
            Self::Stray => "stray",
        }
    }
}

impl fmt::Display for BadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, seq, what } = self;
        match what {
            What::Changed => write!(f, "stream {stream}: row {seq} was changed"),
            What::Malformed => write!(f, "stream {stream}: row {seq} was changed: a column holds a value of the wrong kind"),
            What::Missing => write!(f, "stream {stream}: row {seq} is missing"),
            What::Unexpected => write!(f, "stream {stream}: row {seq} stands where none belongs"),
            What::Displaced => write!(f, "stream {stream}: row {seq} stands before the one that it follows"),
            What::PastHead => write!(f, "stream {stream}: row {seq} stands behind the chain's head"),
            What::HeadDiffers => write!(f, "stream {stream}: row {seq} is not the one that the chain's head names"),
            What::Rewritten { until } if until == seq => {
                write!(f, "stream {stream}: row {seq} was rewritten after it was signed")
            }
            What::Rewritten { until } => {
                write!(f, "stream {stream}: a row from {seq} to {until} was rewritten after row {until} was signed")
            }
            What::Stray => f.write_str("there are rows without a stream or a sequence number"),
        }
    }
}

/// Walks every chain from its first row to its head, on this thread.
pub fn verify(books: &mut Transaction<'_>) -> Result<Verdict, Fault> {
    verify_against(books, &[])
}

/// Walks every chain, and compares it with what checkpoints say. Those must have been read before this is called: what they name is
/// then in the book.
pub fn verify_against(books: &mut Transaction<'_>, checkpoints: &[Checkpoint]) -> Result<Verdict, Fault> {
    let unwalked = Arc::new(unwalked(books, checkpoints)?);
    let swept = sweep(books, i64::MIN..=i64::MAX, &unwalked)?;
    judge(books, &unwalked, vec![swept])
}

/// The same with two threads and two connections.
pub fn verify_store(store: &Store, checkpoints: &[Checkpoint]) -> Result<Verdict, Fault> {
    // Before the rows: whoever writes meanwhile adds rows behind these heads, and takes none away.
    let (unwalked, middle) = store.read(|books| Ok((Arc::new(unwalked(books, checkpoints)?), books.middle_of_audit()?)))?;
    let swept = std::thread::scope(|scope| {
        let other = scope.spawn(|| store.read(|books| sweep(books, middle.saturating_add(1)..=i64::MAX, &unwalked)));
        let own = store.read(|books| sweep(books, i64::MIN..=middle, &unwalked));
        let other = other.join().map_err(|_| Fault("a thread that verifies the audit log ended early".to_owned()))?;
        Ok::<_, Fault>(vec![own?, other?])
    })?;
    store.read(|books| judge(books, &unwalked, swept))
}

/// Joins what was swept, and walks each stream in which anything is amiss once more by its sequence, to name the first bad row.
fn judge(books: &mut Transaction<'_>, unwalked: &Arc<HashMap<i64, Chain>>, mut swept: Vec<Swept>) -> Result<Verdict, Fault> {
    let streams: BTreeSet<i64> =
        unwalked.keys().copied().chain(swept.iter().flat_map(|swept| swept.streams.keys().copied())).collect();
    let nothing = Chain::default();
    let (mut rows, mut bad, mut doubtful) = (0_u64, Vec::new(), Vec::new());
    for stream in &streams {
        let chain = unwalked.get(stream).unwrap_or(&nothing);
        let pieces = swept.iter_mut().filter_map(|swept| swept.streams.remove(stream)).collect();
        match joined(chain, pieces) {
            // A row behind the head was written meanwhile, or beside the log.
            Ok(last) if last <= chain.head || books.chain_head(*stream)?.is_some_and(|head| last <= head) => {
                rows = rows.saturating_add(last.abs_diff(chain.base));
            }
            joined => {
                let chain = walk(books, *stream, chain.clone())?;
                rows = rows.saturating_add(chain.seq.abs_diff(chain.base));
                match chain.flaw {
                    Some((seq, what)) => bad.push(BadRow { stream: *stream, seq, what }),
                    None if joined.is_err() => doubtful.push(*stream),
                    None => {}
                }
            }
        }
    }
    bad.extend(unled(books, unwalked, &doubtful)?);
    bad.sort_by_key(|bad| bad.stream);
    if bad.is_empty() && swept.iter().any(|swept| swept.has_strays) {
        bad.push(BadRow { stream: 0, seq: 0, what: What::Stray });
    }
    Ok(if bad.is_empty() { Verdict::Whole { streams: streams.len() as u64, rows } } else { Verdict::Broken(bad) })
}

/// Looks again at streams of which a sweep saw more than a walk. Two sweeps may part what was written meanwhile; what one sweep sees too,
/// stands in the table where its index does not lead.
fn unled(books: &mut Transaction<'_>, unwalked: &Arc<HashMap<i64, Chain>>, streams: &[i64]) -> Result<Vec<BadRow>, Fault> {
    if streams.is_empty() {
        return Ok(Vec::new());
    }
    let mut swept = sweep(books, i64::MIN..=i64::MAX, unwalked)?;
    let nothing = Chain::default();
    let judged = streams.iter().filter_map(|stream| {
        let pieces = swept.streams.remove(stream).into_iter().collect();
        let seq = joined(unwalked.get(stream).unwrap_or(&nothing), pieces).err()?;
        Some(BadRow { stream: *stream, seq, what: What::Unexpected })
    });
    Ok(judged.collect())
}

/// A chain, as far as it was walked.
#[derive(Clone)]
struct Chain {
    /// The last row that was archived.
    base: i64,
    seq: i64,
    hash: [u8; 32],
    /// Where the last row stands in the table.
    place: i64,
    /// The head, as it was before the walk.
    head: i64,
    /// What must be met further on; the nearest is the last.
    marks: Vec<Mark>,
    /// The last row that a checkpoint confirmed.
    confirmed: i64,
    flaw: Option<(i64, What)>,
}

impl Default for Chain {
    fn default() -> Self {
        Self { base: 0, seq: 0, hash: GENESIS, place: i64::MIN, head: 0, marks: Vec::new(), confirmed: 0, flaw: None }
    }
}

/// The hash that somebody saw at a row.
#[derive(Clone)]
struct Mark {
    seq: i64,
    hash: [u8; 32],
    is_checkpoint: bool,
}

impl Chain {
    fn follow(&mut self, read: &Read, encoded: &mut Encoded) {
        let seq = read.seq;
        if self.flaw.is_some() {
            return;
        }
        if !follows(seq, self.seq) {
            let is_behind = seq <= self.seq;
            self.flaw = Some(if is_behind { (seq, What::Unexpected) } else { (self.seq.saturating_add(1), What::Missing) });
            return;
        }
        if !read.is_well_formed {
            self.flaw = Some((seq, What::Malformed));
            return;
        }
        if encoded.hash(&self.hash) != read.stored {
            self.flaw = Some((seq, What::Changed));
            return;
        }
        if read.place <= self.place {
            self.flaw = Some((seq, What::Displaced));
            return;
        }
        (self.seq, self.hash, self.place) = (seq, read.stored, read.place);
        self.meet();
    }

    /// Compares the row just walked with what was seen at it.
    fn meet(&mut self) {
        while let Some(mark) = self.marks.pop_if(|mark| mark.seq <= self.seq) {
            let differs = mark.seq == self.seq && mark.hash != self.hash;
            if differs && mark.is_checkpoint {
                // At an archived row, that row.
                self.flaw = Some((self.confirmed.saturating_add(1).min(self.seq), What::Rewritten { until: self.seq }));
                return;
            }
            if differs {
                self.flaw = Some((self.seq, What::HeadDiffers));
                return;
            }
            if mark.is_checkpoint {
                self.confirmed = mark.seq;
            }
        }
    }

    /// After the last row: nothing that was seen may be ahead, and the head not behind.
    fn end(&mut self, stream: i64, books: &mut Transaction<'_>) -> Result<(), Fault> {
        if self.flaw.is_some() {
            return Ok(());
        }
        if !self.marks.is_empty() {
            self.flaw = Some((self.seq.saturating_add(1), What::Missing));
        } else if self.seq > self.head {
            // Written meanwhile, or beside the log.
            let head = books.chain_head(stream)?.unwrap_or(0);
            if head < self.seq {
                self.flaw = Some((head.saturating_add(1), What::PastHead));
            }
        }
        Ok(())
    }
}

/// Whether a row is the next after another. The last number of all has none.
fn follows(seq: i64, last: i64) -> bool {
    last.checked_add(1) == Some(seq)
}

/// Every chain as it begins, with what must be met on the way.
fn unwalked(books: &mut Transaction<'_>, checkpoints: &[Checkpoint]) -> Result<HashMap<i64, Chain>, Fault> {
    let mut chains: HashMap<i64, Chain> = HashMap::new();
    for (stream, seq, hash) in books.chain_bases()? {
        chains.insert(stream, Chain { base: seq, seq, hash, confirmed: seq, ..Chain::default() });
    }
    for (stream, seq, hash) in books.chain_heads()? {
        let chain = chains.entry(stream).or_default();
        chain.head = seq;
        chain.marks.push(Mark { seq, hash, is_checkpoint: false });
    }
    for checkpoint in checkpoints {
        let mark = Mark { seq: checkpoint.size, hash: checkpoint.head, is_checkpoint: true };
        chains.entry(checkpoint.stream).or_default().marks.push(mark);
    }
    for chain in chains.values_mut() {
        chain.marks.sort_by_key(|mark| std::cmp::Reverse(mark.seq));
        chain.meet();
    }
    Ok(chains)
}

/// One stream's rows by their sequence.
fn walk(books: &mut Transaction<'_>, stream: i64, mut chain: Chain) -> Result<Chain, Fault> {
    let mut scratch = Encoded::default();
    books.scan_audit(stream, &mut |row| {
        if let Some(read) = Read::of(&row, &mut scratch) {
            chain.follow(&read, &mut scratch);
        }
    })?;
    chain.end(stream, books)?;
    Ok(chain)
}

/// Rows between two places in the table: what two sweeps saw can be joined.
struct Swept {
    streams: HashMap<i64, Piece>,
    has_strays: bool,
    /// Every chain, for what must be met.
    unwalked: Arc<HashMap<i64, Chain>>,
    /// The row that is looked at.
    scratch: Encoded,
}

/// Rows of a stream.
struct Piece {
    first: i64,
    last: i64,
    /// Of the last row.
    hash: [u8; 32],
    /// Where the last row stands in the table.
    place: i64,
    /// The first row and its hash, to be compared once the row before it is known.
    border: (Vec<u8>, [u8; 32]),
    /// What must be met, as in the chain.
    marks: Vec<Mark>,
    /// The first row at which anything is amiss.
    flaw: Option<i64>,
}

fn sweep(books: &mut Transaction<'_>, places: RangeInclusive<i64>, unwalked: &Arc<HashMap<i64, Chain>>) -> Result<Swept, Fault> {
    let (unwalked, scratch) = (Arc::clone(unwalked), Encoded::default());
    books.fold_audit(places, Swept { streams: HashMap::new(), has_strays: false, unwalked, scratch }, Swept::see)
}

impl Swept {
    fn see(&mut self, columns: &[Value<'_>]) {
        let Some(read) = RawAuditRow::of(columns).and_then(|row| Read::of(&row, &mut self.scratch)) else {
            self.has_strays = true;
            return;
        };
        match self.streams.entry(read.stream) {
            Entry::Occupied(mut piece) => piece.get_mut().add(&read, &mut self.scratch),
            Entry::Vacant(stream) => {
                let marks = self.unwalked.get(&read.stream).map(|chain| chain.marks.clone()).unwrap_or_default();
                stream.insert(Piece::begin(&read, &self.scratch, marks));
            }
        }
    }
}

impl Piece {
    fn begin(read: &Read, encoded: &Encoded, marks: Vec<Mark>) -> Self {
        let border = (encoded.row().to_vec(), read.stored);
        let flaw = (!read.is_well_formed).then_some(read.seq);
        let mut piece = Self { first: read.seq, last: read.seq, hash: read.stored, place: read.place, border, marks, flaw };
        piece.meet();
        piece
    }

    fn add(&mut self, read: &Read, encoded: &mut Encoded) {
        if self.flaw.is_some() {
            return;
        }
        let is_next = read.is_well_formed && follows(read.seq, self.last) && read.place > self.place;
        self.flaw = (!is_next || encoded.hash(&self.hash) != read.stored).then_some(read.seq);
        (self.last, self.hash, self.place) = (read.seq, read.stored, read.place);
        self.meet();
    }

    fn meet(&mut self) {
        while let Some(mark) = self.marks.pop_if(|mark| mark.seq <= self.last) {
            if mark.seq == self.last && mark.hash != self.hash {
                self.flaw = self.flaw.or(Some(self.last));
            }
        }
    }
}

/// The last row of a chain whose pieces follow each other from its base on, in the order of the table, past all that must be met; where
/// they do not, the row at which that shows.
fn joined(chain: &Chain, pieces: Vec<Piece>) -> Result<i64, i64> {
    let (mut seq, mut hash) = (chain.seq, chain.hash);
    let mut scratch = Encoded::default();
    if let Some((seq, _)) = chain.flaw {
        return Err(seq);
    }
    for Piece { first, last, hash: end, border: (row, stored), flaw, .. } in pieces {
        scratch.set(&row);
        if !follows(first, seq) || scratch.hash(&hash) != stored {
            return Err(first);
        }
        if let Some(flaw) = flaw {
            return Err(flaw);
        }
        (seq, hash) = (last, end);
    }
    if chain.marks.iter().all(|mark| mark.seq <= seq) { Ok(seq) } else { Err(seq.saturating_add(1)) }
}

/// A row that says to which stream it belongs.
struct Read {
    stream: i64,
    seq: i64,
    stored: [u8; 32],
    is_well_formed: bool,
    /// Where it stands in the table.
    place: i64,
}

/// What the hashed columns hold, in their order.
const KINDS: [Kind; 13] = {
    use Kind::{Int, OptionalInt, OptionalText, Text};
    [Int, Int, Int, OptionalInt, OptionalText, Text, Text, Text, Int, OptionalText, Text, Text, OptionalText]
};

#[derive(Clone, Copy)]
enum Kind {
    Int,
    OptionalInt,
    Text,
    OptionalText,
}

impl Read {
    /// Encodes a row. Nothing if it says of no stream that it belongs to it.
    fn of(row: &RawAuditRow<'_>, scratch: &mut Encoded) -> Option<Self> {
        let [Value::Int(stream), Value::Int(seq), ..] = *row.hashed else { return None };
        let stored = match row.chain_hash {
            Value::Bytes(bytes) => bytes.try_into().ok(),
            _ => None,
        };
        let mut is_well_formed = row.hashed.len() == KINDS.len() && stored.is_some();
        scratch.clear();
        for (kind, value) in KINDS.into_iter().zip(row.hashed) {
            match (kind, *value) {
                (Kind::Int | Kind::OptionalInt, Value::Int(value)) => scratch.int(value),
                (Kind::Text | Kind::OptionalText, Value::Text(value)) => scratch.text(value),
                (Kind::OptionalInt | Kind::OptionalText, Value::Null) => scratch.absent(),
                _ => {
                    is_well_formed = false;
                    break;
                }
            };
        }
        Some(Self { stream, seq, stored: stored.unwrap_or_default(), is_well_formed, place: row.id })
    }
}

#[cfg(test)]
mod tests {
    use provisor_providers::books::{AccountId, AuditRow};

    use super::super::chain::Link;
    use super::*;

    /// A fold is promised no order: rows that come in another than their places have must not pass.
    #[test]
    fn a_sweep_passes_rows_in_the_order_of_their_places_alone() {
        let row = AuditRow {
            account: Some(AccountId(4)),
            method: "GET".to_owned(),
            path: "/".to_owned(),
            ..AuditRow::of_event("request", jiff::Timestamp::UNIX_EPOCH, [203, 0, 113, 7].into(), String::new())
        };
        let flaw = |places: [i64; 2]| {
            let unwalked = Arc::new(HashMap::new());
            let mut swept = Swept { streams: HashMap::new(), has_strays: false, unwalked, scratch: Encoded::default() };
            let mut before = GENESIS;
            for (seq, place) in (1..).zip(places) {
                before = Link::new(4, seq, &row).hash(&before);
                swept.see(&[
                    place.into(),
                    4_i64.into(),
                    seq.into(),
                    row.at.into(),
                    4_i64.into(),
                    Value::Null,
                    Value::Text("203.0.113.7"),
                    Value::Text("GET"),
                    Value::Text("/"),
                    200_i64.into(),
                    Value::Null,
                    Value::Text(""),
                    Value::Text("request"),
                    Value::Null,
                    Value::Bytes(&before),
                ]);
            }
            swept.streams[&4].flaw
        };
        assert_eq!(flaw([7, 8]), None);
        assert_eq!(flaw([7, 7]), Some(2));
        assert_eq!(flaw([8, 7]), Some(2));
    }
}
