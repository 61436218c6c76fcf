//! `provisor audit`: whether the audit log is as it was written, and what stands in it.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::book::block_on;
use super::output::plain;
use super::{Context, Exit, Failure};
use crate::audit::{BadRow, Line, Notes, Part, Segment, Signer, Verdict, Verifier, files, verify_store};
use crate::clock::{Clock, System};
use crate::store::{Store, StoredAuditRow};

/// Rows read at a time.
const BATCH: u32 = 1000;
/// How often what is followed is looked at.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);

/// Verify, export and read the audit log
#[derive(Args)]
#[command(after_help = "\
Examples:
  provisor audit verify                    every chain, against the checkpoints of the data directory
  provisor audit verify --checkpoints /mnt/elsewhere/*.notes
  provisor audit export --since 2027-01-01T00:00:00Z --out january.jsonl
  provisor audit archive --before 2027-01-01T00:00:00Z --out 2026.jsonl
  provisor audit list --stream 1 --last 50 what reseller 1 did last
  provisor audit tail --follow             what everybody does, as it happens
  provisor audit key                       what verifies this host's checkpoints, to be kept elsewhere")]
pub(super) struct Audit {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check every row against its chain, and the chains against signed checkpoints; names the first bad row of each stream
    Verify(Verify),
    /// Write rows as JSON, one object per line, to stdout or a file
    Export(Export),
    /// Show the last rows of a stream
    List {
        /// The reseller's number; 0 for requests that belong to nobody
        #[arg(long, value_name = "ID")]
        stream: i64,
        /// How many
        #[arg(long, value_name = "N", default_value_t = 20)]
        last: u32,
    },
    /// Show the last rows of all streams, and those that come
    Tail(Tail),
    /// Move old rows out of the book into a signed file; the chains go on from there
    Archive(Archive),
    /// Check a file that `audit archive` made
    VerifyArchive {
        /// The file with the rows; its note stands beside it
        file: PathBuf,
        /// A key that verifies the note, as `audit key` prints it, where the master key is no longer at hand
        #[arg(long = "key", value_name = "KEY")]
        keys: Vec<Verifier>,
    },
    /// Print the keys that verify checkpoints: one for each master key at hand, the newest last
    Key,
}

#[derive(Args)]
struct Verify {
    /// Further checkpoint files, such as copies kept elsewhere; those of the data directory are always read
    #[arg(long, value_name = "FILE", num_args = 1..)]
    checkpoints: Vec<PathBuf>,
    /// A key that verifies checkpoints, as `audit key` prints it, where the master key is no longer at hand
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<Verifier>,
}

#[derive(Args)]
struct Tail {
    /// Only this reseller's rows; 0 for those that belong to nobody
    #[arg(long, value_name = "ID")]
    stream: Option<i64>,
    /// How many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(..=10_000))]
    last: u32,
    /// Go on with the rows that are written from now on, until it is interrupted
    #[arg(long, short)]
    follow: bool,
}

#[derive(Args)]
struct Archive {
    /// Move what is older than this moment, such as 2027-01-01T00:00:00Z
    #[arg(long, value_name = "TIME")]
    before: Timestamp,
    /// Into this file, which must not exist yet; FILE.note, which signs it, is made beside it
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Args)]
struct Export {
    /// Only this reseller's rows; 0 for those that belong to nobody
    #[arg(long, value_name = "ID")]
    stream: Option<i64>,
    /// From this row of each stream on
    #[arg(long, value_name = "SEQ", default_value_t = 1)]
    from: i64,
    /// To this row of each stream
    #[arg(long, value_name = "SEQ", default_value_t = i64::MAX)]
    to: i64,
    /// From this moment on, such as 2027-01-15T08:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Before this moment
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// Into this file, which must not exist yet, instead of stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(command: Audit, context: &Context) -> Result<Exit, Failure> {
    match command.command {
        Command::Verify(command) => verify(&command, context),
        Command::Export(command) => export(&command, context),
        Command::List { stream, last } => list(context, stream, last),
        Command::Tail(command) => tail(&command, context),
        Command::Archive(command) => archive(&command, context),
        Command::VerifyArchive { file, keys } => verify_archive(&file, keys, context),
        Command::Key => key(context),
    }
}

#[derive(Serialize)]
struct Whole {
    ok: bool,
    streams: u64,
    rows: u64,
    checkpoints: u64,
    torn_checkpoints: u64,
    seconds: f64,
}

#[derive(Serialize)]
struct Bad {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<i64>,
    what: &'static str,
    message: String,
}

fn verify(command: &Verify, context: &Context) -> Result<Exit, Failure> {
    let home = context.home()?;
    let store = home.book()?;
    let mut verifiers = Verifier::all(store.vault());
    verifiers.extend(command.keys.iter().cloned());
    let mut notes = Notes::default();
    let mut bad = Vec::new();
    let own = files(&home.directory).context("cannot read the checkpoints").map_err(Failure::failed)?;
    for file in own.iter().chain(&command.checkpoints) {
        let read = notes.read_file(file, &verifiers).with_context(|| format!("cannot read {}", file.display()));
        read.map_err(Failure::usage)?;
        bad.extend(notes.refused.drain(..).map(|line| Bad {
            ok: false,
            stream: None,
            seq: None,
            what: "checkpoint",
            message: format!("{}: no key at hand confirms the note at line {line}", file.display()),
        }));
    }
    let started = Instant::now();
    match verify_store(&store, &notes.checkpoints).map_err(Failure::failed)? {
        Verdict::Whole { streams, rows } if bad.is_empty() => {
            let seconds = started.elapsed().as_secs_f64();
            let whole = Whole { ok: true, streams, rows, checkpoints: notes.notes, torn_checkpoints: notes.torn, seconds };
            context.output.record(&whole, |whole| people(whole, own.is_empty()))?;
            return Ok(Exit::Done);
        }
        Verdict::Whole { .. } => {}
        Verdict::Broken(rows) => bad.extend(rows.into_iter().map(told)),
    }
    for bad in &bad {
        context.output.record(bad, |bad| bad.message.clone())?;
    }
    Ok(Exit::Failed)
}

fn people(whole: &Whole, has_no_file: bool) -> String {
    let Whole { streams, rows, checkpoints, torn_checkpoints, seconds, .. } = whole;
    let mut lines = vec![format!("whole: {rows} rows in {streams} chains, {checkpoints} checkpoints, {seconds:.1} s")];
    if *torn_checkpoints > 0 {
        lines.push(format!("{torn_checkpoints} checkpoints were cut off while they were written, and say nothing"));
    }
    if has_no_file && *rows > 0 {
        lines
            .push("there are no checkpoints: a cut tail or a log that was written anew as a whole would not be found".to_owned());
    }
    lines.join("\n")
}

fn told(row: BadRow) -> Bad {
    let (stream, seq) = (Some(row.stream), Some(row.seq));
    Bad { ok: false, stream, seq, what: row.what.as_str(), message: row.to_string() }
}

#[derive(Serialize)]
struct Exported {
    rows: u64,
    file: String,
}

fn export(command: &Export, context: &Context) -> Result<Exit, Failure> {
    let store = context.book()?;
    let Some(file) = &command.out else {
        let written = write_rows(&store, command, BufWriter::new(io::stdout().lock()));
        return match written {
            // Whoever reads may stop early: that is no failure.
            Err(Stopped::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done),
            written => written.map(|_| Exit::Done).map_err(Failure::from),
        };
    };
    let opened = fs::OpenOptions::new().write(true).create_new(true).open(file);
    let opened = opened.with_context(|| format!("cannot make {}", file.display())).map_err(Failure::usage)?;
    let rows = write_rows(&store, command, BufWriter::new(&opened)).map_err(Failure::from)?;
    File::sync_all(&opened).with_context(|| format!("cannot write {}", file.display())).map_err(Failure::failed)?;
    let exported = Exported { rows, file: file.display().to_string() };
    context.output.record(&exported, |exported| format!("{} rows in {}", exported.rows, exported.file))?;
    Ok(Exit::Done)
}

enum Stopped {
    Write(io::Error),
    Read(provisor_providers::books::Fault),
}

impl From<Stopped> for Failure {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Write(error) => Self::failed(anyhow::Error::from(error).context("cannot write the rows")),
            Stopped::Read(fault) => Self::failed(fault),
        }
    }
}

impl Export {
    fn wants(&self, row: &StoredAuditRow) -> bool {
        self.since.is_none_or(|since| row.row.at >= since) && self.until.is_none_or(|until| row.row.at < until)
    }
}

/// Stream by stream, a batch at a time: no row is held back, and no transaction stays open while somebody reads slowly.
fn write_rows(store: &Store, command: &Export, mut out: impl Write) -> Result<u64, Stopped> {
    let heads = store.read(|books| books.chain_heads()).map_err(Stopped::Read)?;
    let mut written = 0;
    for (stream, head, _) in heads {
        if command.stream.is_some_and(|wanted| wanted != stream) {
            continue;
        }
        let (mut after, end) = (command.from.max(1) - 1, command.to.min(head));
        while after < end {
            let rows = store.read(|books| books.audit_rows(stream, after, batch(after, end))).map_err(Stopped::Read)?;
            let Some(last) = rows.last().map(|row| row.seq) else { break };
            after = last;
            for row in rows.into_iter().filter(|row| command.wants(row)) {
                write_line(&mut out, row).map_err(Stopped::Write)?;
                written += 1;
            }
        }
    }
    out.flush().map_err(Stopped::Write)?;
    Ok(written)
}

#[derive(Serialize)]
struct Archived {
    rows: u64,
    streams: usize,
    file: String,
}

/// The rows are on the disk and signed before the first of them is removed; a batch is removed with the move of the chain's base. So the
/// log verifies at every instant, and what a kill leaves is archived the next time.
fn archive(command: &Archive, context: &Context) -> Result<Exit, Failure> {
    let store = context.book()?;
    let signer = Signer::of(store.vault()).ok_or_else(|| Failure::failed(anyhow!("no master key is at hand to sign with")))?;
    if let Verdict::Broken(bad) = verify_store(&store, &[]).map_err(Failure::failed)? {
        let named = bad.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        return Err(Failure::failed(anyhow!("the log is not whole, and nothing was archived: {named}")));
    }
    let parts = store.read(|books| books.archivable(command.before)).map_err(Failure::failed)?;
    let file = &command.out;
    let opened = fs::OpenOptions::new().write(true).create_new(true).open(file);
    let opened = opened.with_context(|| format!("cannot make {}", file.display())).map_err(Failure::usage)?;
    let mut hashing = Hashing { digest: Sha256::new(), out: BufWriter::new(&opened) };
    let mut rows = 0;
    for part in &parts {
        rows += write_part(&store, part, &mut hashing).map_err(Failure::from)?;
    }
    let Hashing { digest, out } = hashing;
    drop(out);
    let segment = Segment { at: System.now(), sha256: digest.finalize().into(), parts };
    opened
        .sync_all()
        .and_then(|()| write_note(file, &segment.note(&signer)))
        .context("cannot write the archive")
        .map_err(Failure::failed)?;
    block_on(remove(&store, &segment.parts, rows))?;
    let archived = Archived { rows, streams: segment.parts.len(), file: file.display().to_string() };
    context.output.record(&archived, |archived| {
        format!("{} rows of {} chains moved to {}; keep it and its note", archived.rows, archived.streams, archived.file)
    })?;
    Ok(Exit::Done)
}

fn write_part(store: &Store, part: &Part, mut out: impl Write) -> Result<u64, Stopped> {
    let (mut after, mut written) = (part.first - 1, 0);
    while after < part.last {
        let rows = store.read(|books| books.audit_rows(part.stream, after, batch(after, part.last))).map_err(Stopped::Read)?;
        let Some(last) = rows.last().map(|row| row.seq) else { break };
        after = last;
        for row in rows {
            write_line(&mut out, row).map_err(Stopped::Write)?;
            written += 1;
        }
    }
    out.flush().map_err(Stopped::Write)?;
    Ok(written)
}

/// As many rows as are wanted: a search for more would go on to the table's end.
fn batch(after: i64, last: i64) -> u32 {
    u32::try_from(last - after).map_or(BATCH, |left| left.min(BATCH))
}

fn write_line(mut out: impl Write, row: StoredAuditRow) -> io::Result<()> {
    serde_json::to_writer(&mut out, &Line::from(row))?;
    out.write_all(b"\n")
}

/// Hashes what is written.
struct Hashing<W> {
    digest: Sha256,
    out: W,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.digest.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn note_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".note");
    name.into()
}

fn write_note(file: &Path, note: &str) -> io::Result<()> {
    let mut opened = fs::OpenOptions::new().write(true).create_new(true).open(note_of(file))?;
    opened.write_all(note.as_bytes())?;
    opened.sync_all()
}

/// Between its transactions a server that waits for the book has its turn.
async fn remove(store: &Store, parts: &[Part], mut left: u64) -> Result<(), Failure> {
    let archived: Arc<HashMap<i64, i64>> = Arc::new(parts.iter().map(|part| (part.stream, part.last)).collect());
    let mut after = i64::MIN;
    while left > 0 {
        let (begun, archived) = (Instant::now(), Arc::clone(&archived));
        let removed = store.transact(move |books| books.remove_archived(&archived, after, BATCH, System.now()));
        let Some((end, removed)) = removed.await.map_err(Failure::failed)? else { break };
        after = end;
        left = left.saturating_sub(removed as u64);
        tokio::time::sleep(begun.elapsed()).await;
    }
    Ok(())
}

#[derive(Serialize)]
struct Sound {
    ok: bool,
    rows: u64,
    streams: usize,
}

fn verify_archive(file: &Path, keys: Vec<Verifier>, context: &Context) -> Result<Exit, Failure> {
    let mut verifiers = Verifier::all(&context.home()?.vault);
    verifiers.extend(keys);
    let note = fs::read_to_string(note_of(file)).with_context(|| format!("cannot read {}", note_of(file).display()));
    let Some(segment) = Segment::read(&note.map_err(Failure::usage)?, &verifiers) else {
        return Err(Failure::failed(anyhow!("no key at hand confirms {}", note_of(file).display())));
    };
    let opened = File::open(file).with_context(|| format!("cannot read {}", file.display())).map_err(Failure::usage)?;
    match segment.verify(BufReader::new(opened)).map_err(Failure::failed)? {
        Ok(rows) => {
            let sound = Sound { ok: true, rows, streams: segment.parts.len() };
            context.output.record(&sound, |sound| format!("whole: {} rows of {} chains", sound.rows, sound.streams))?;
            Ok(Exit::Done)
        }
        Err(bad) => {
            context.output.record(&told(bad), |bad| bad.message.clone())?;
            Ok(Exit::Failed)
        }
    }
}

fn list(context: &Context, stream: i64, last: u32) -> Result<Exit, Failure> {
    let rows = context.book()?.read(|books| {
        let head = books.chain_heads()?.into_iter().find(|(known, ..)| *known == stream);
        head.map_or(Ok(Vec::new()), |(_, head, _)| books.audit_rows(stream, head - i64::from(last), last))
    });
    let rows: Vec<Line> = rows.map_err(Failure::failed)?.into_iter().map(Line::from).collect();
    context.output.records(["seq", "at", "from", "event", "request", "status", "reason", "detail"], &rows, |row| {
        [
            row.seq.to_string(),
            row.at.clone(),
            row.peer.clone(),
            row.event.clone(),
            format!("{} {}", row.method, row.path),
            row.status.to_string(),
            row.reason.clone().unwrap_or_default(),
            row.detail.clone().unwrap_or_default(),
        ]
    })?;
    Ok(Exit::Done)
}

fn tail(command: &Tail, context: &Context) -> Result<Exit, Failure> {
    let store = context.book()?;
    match show_tail(command, &store, context.output.is_json(), io::stdout().lock()) {
        // Whoever reads may stop early: that is no failure.
        Err(Stopped::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        shown => shown.map(|()| Exit::Done).map_err(Failure::from),
    }
}

fn show_tail(command: &Tail, store: &Store, is_json: bool, mut out: impl Write) -> Result<(), Stopped> {
    // What is written from here on belongs to what is followed.
    let heads = store.read(|books| books.chain_heads()).map_err(Stopped::Read)?;
    let shown: BTreeMap<i64, i64> = heads.into_iter().map(|(stream, head, _)| (stream, head)).collect();
    let last = store.read(|books| match command.stream {
        Some(stream) => {
            let head = shown.get(&stream).copied().unwrap_or(0);
            books.audit_rows(stream, head - i64::from(command.last), command.last)
        }
        None => books.newest_audit_rows(command.last),
    });
    let was_there = |row: &StoredAuditRow| shown.get(&row.stream).is_some_and(|head| row.seq <= *head);
    show(last.map_err(Stopped::Read)?.into_iter().filter(was_there), is_json, &mut out)?;
    if command.follow { follow(command.stream, shown, store, is_json, out) } else { Ok(()) }
}

/// Until somebody ends it. The rows of each stream come in their order; over streams, as far as they are read at once.
fn follow(
    stream: Option<i64>,
    mut shown: BTreeMap<i64, i64>,
    store: &Store,
    is_json: bool,
    mut out: impl Write,
) -> Result<(), Stopped> {
    let is_wanted = |of: i64| stream.is_none_or(|wanted| wanted == of);
    loop {
        std::thread::sleep(FOLLOW_EVERY);
        let heads = store.read(|books| books.chain_heads()).map_err(Stopped::Read)?;
        let mut new = Vec::new();
        for (stream, head, _) in heads.into_iter().filter(|(stream, ..)| is_wanted(*stream)) {
            let after = shown.entry(stream).or_insert(0);
            if *after < head {
                let rows = store.read(|books| books.audit_rows(stream, *after, BATCH)).map_err(Stopped::Read)?;
                *after = rows.last().map_or(head, |row| row.seq);
                new.extend(rows);
            }
        }
        new.sort_by_key(|row| row.row.at);
        show(new.into_iter(), is_json, &mut out)?;
    }
}

fn show(rows: impl Iterator<Item = StoredAuditRow>, is_json: bool, mut out: impl Write) -> Result<(), Stopped> {
    for row in rows {
        let written = if is_json { write_line(&mut out, row) } else { writeln!(out, "{}", in_one_line(&Line::from(row))) };
        written.map_err(Stopped::Write)?;
    }
    out.flush().map_err(Stopped::Write)
}

fn in_one_line(row: &Line) -> String {
    let place = format!("{}/{}", row.stream, row.seq);
    let mut line = format!("{:24}  {place:>10}  {:15}  {}  {}", row.at, row.peer, row.status, row.event);
    for more in [Some(&row.method), Some(&row.path), row.reason.as_ref(), row.detail.as_ref()].into_iter().flatten() {
        if !more.is_empty() {
            line.push_str("  ");
            line.push_str(more);
        }
    }
    plain(&line)
}

#[derive(Serialize)]
struct Key {
    key: String,
}

fn key(context: &Context) -> Result<Exit, Failure> {
    let home = context.home()?;
    if Signer::of(&home.vault).is_none() {
        return Err(Failure::failed(anyhow!("no master key is at hand, from which the key would be derived")));
    }
    for verifier in Verifier::all(&home.vault) {
        context.output.record(&Key { key: verifier.to_string() }, |key| key.key.clone())?;
    }
    Ok(Exit::Done)
}
