//! `provisor vault`: the master keys, and what is sealed under them.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde::Serialize;
use zeroize::Zeroizing;

use super::book::block_on;
use super::{Context, Exit, Failure};
use crate::clock::{Clock, System};
use crate::store::{Resealed, Store};

/// Values in one transaction, so that no request waits long behind one.
const BATCH: u32 = 200;
/// How often a long job says how far it is.
const PROGRESS: Duration = Duration::from_secs(1);

/// Make master keys, and seal the book's secrets anew under the newest
#[derive(Args)]
#[command(after_help = "\
To change the master key while the server runs:
  provisor vault new-key                   makes master.key.v2; copy it to where your backups of keys are
  provisor vault rotate                    seals every secret anew; may be stopped and begun again at any time
  provisor vault status                    shows that nothing is left under version 1
  provisor vault retire 1                  the book no longer needs master.key.v1; older backups of the book still do

Running servers of this data directory take up a new key within 5 seconds; servers elsewhere need a copy of its file first.")]
pub(super) struct Vault {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the master keys at hand, and how many values are sealed under each
    Status,
    /// Make the next master key; from then on it seals
    NewKey,
    /// Seal every secret that is under an older key anew under the newest
    Rotate,
    /// Let the book forget a master key under which nothing is sealed any more
    Retire {
        /// The key's version
        version: u32,
    },
}

pub(super) fn run(command: &Vault, context: &Context) -> Result<Exit, Failure> {
    match command.command {
        Command::Status => status(context),
        Command::NewKey => new_key(context),
        Command::Rotate => rotate(context),
        Command::Retire { version } => retire(context, version),
    }
}

#[derive(Serialize)]
struct Status {
    version: u32,
    fingerprint: Option<String>,
    table: Option<&'static str>,
    column: Option<&'static str>,
    values: u64,
}

fn status(context: &Context) -> Result<Exit, Failure> {
    let store = context.book()?;
    let mut lines = Vec::new();
    let sealed = store.read(|books| books.sealed_values()).map_err(Failure::failed)?;
    let keys = store.vault().fingerprints();
    let fingerprint = |version| keys.iter().find(|(known, _)| *known == version).map(|(_, fingerprint)| fingerprint.clone());
    for values in &sealed {
        lines.push(Status {
            version: values.version,
            fingerprint: fingerprint(values.version),
            table: Some(values.table),
            column: Some(values.column),
            values: values.values,
        });
    }
    for (version, fingerprint) in keys.iter().filter(|(version, _)| sealed.iter().all(|values| values.version != *version)) {
        let fingerprint = Some(fingerprint.clone());
        lines.push(Status { version: *version, fingerprint, table: None, column: None, values: 0 });
    }
    lines.sort_by_key(|line| line.version);
    context.output.records(["key", "fingerprint", "table", "column", "values"], &lines, |line| {
        [
            format!("v{}", line.version),
            line.fingerprint.clone().unwrap_or_else(|| "MISSING".to_owned()),
            line.table.unwrap_or_default().to_owned(),
            line.column.unwrap_or_default().to_owned(),
            line.values.to_string(),
        ]
    })?;
    let is_missing = store.is_sealed() || lines.iter().any(|line| line.fingerprint.is_none());
    Ok(if is_missing { Exit::Failed } else { Exit::Done })
}

#[derive(Serialize)]
struct Made {
    version: u32,
    file: String,
}

fn new_key(context: &Context) -> Result<Exit, Failure> {
    let store = opened(context)?;
    let (version, file) = store.vault().create_next_key(&Zeroizing::new(System.seed())).map_err(Failure::failed)?;
    block_on(async { store.refresh_keys().await.map_err(Failure::failed) })?;
    let made = Made { version, file: file.display().to_string() };
    context.output.record(&made, |made| {
        format!("{} seals from now on. Keep a copy of it elsewhere, then run `provisor vault rotate`", made.file)
    })?;
    Ok(Exit::Done)
}

/// A book whose keys are all at hand: a new key for another would only add to the confusion.
fn opened(context: &Context) -> Result<Store, Failure> {
    let store = context.book()?;
    if store.is_sealed() {
        return Err(Failure::failed(anyhow!("a master key of this book is missing; `provisor vault status` shows which")));
    }
    Ok(store)
}

#[derive(Serialize)]
struct Rotated {
    version: u32,
    resealed: u64,
    unopened: u64,
}

fn rotate(context: &Context) -> Result<Exit, Failure> {
    let store = opened(context)?;
    let mut rotated = Rotated { version: store.vault().newest(), resealed: 0, unopened: 0 };
    // A server that had not noticed the key yet may have sealed under the old one behind the first pass.
    loop {
        let pass = block_on(pass(&store))?;
        rotated.resealed += pass.resealed;
        rotated.unopened = pass.unopened;
        if pass.resealed == 0 {
            break;
        }
    }
    context.output.record(&rotated, |rotated| {
        let unopened = match rotated.unopened {
            0 => String::new(),
            unopened => format!("; {unopened} do not open and stay as they are"),
        };
        format!("{} values sealed anew under v{}{unopened}", rotated.resealed, rotated.version)
    })?;
    Ok(if rotated.unopened == 0 { Exit::Done } else { Exit::Failed })
}

async fn pass(store: &Store) -> Result<Resealed, Failure> {
    let mut total = Resealed { next: Some((0, 0)), ..Resealed::default() };
    let mut told = Instant::now();
    while let Some(from) = total.next {
        let batch = store.transact(move |books| books.reseal(from, BATCH)).await.map_err(Failure::failed)?;
        total.next = batch.next;
        total.resealed += batch.resealed;
        total.unopened += batch.unopened;
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            tracing::info!(resealed = total.resealed, "sealing anew");
        }
    }
    Ok(total)
}

#[derive(Serialize)]
struct Retired {
    version: u32,
    retired: bool,
}

fn retire(context: &Context, version: u32) -> Result<Exit, Failure> {
    let store = opened(context)?;
    if version >= store.vault().newest() {
        return Err(Failure::usage(anyhow!("version {version} is the newest key, which seals; make the next one first")));
    }
    let forgotten = store.transact(move |books| {
        let is_used = books.sealed_values()?.iter().any(|values| values.version == version);
        if is_used { Ok(None) } else { books.forget_master_key(version).map(Some) }
    });
    match block_on(async { forgotten.await.map_err(Failure::failed) })? {
        None => Err(Failure::failed(anyhow!("values are still sealed under v{version}; run `provisor vault rotate` first"))),
        Some(false) => Err(Failure::usage(anyhow!("the book knows no master key v{version}"))),
        Some(true) => {
            context.output.record(&Retired { version, retired: true }, |retired| {
                let version = retired.version;
                format!(
                    "v{version} is no longer needed by this book; master.key.v{version} opens older backups of it, so keep a copy"
                )
            })?;
            Ok(Exit::Done)
        }
    }
}
