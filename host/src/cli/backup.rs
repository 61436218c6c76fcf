//! `provisor backup`: a copy of the book while it is in use.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use serde::Serialize;

use super::{Context, Exit, Failure};
use crate::config::StoreUrl;
use crate::store::back_up;

/// Copy the book, while it is served or not, into a new file
#[derive(Args)]
#[command(after_help = "\
The copy is of one moment, and opens by itself: put it in the book's place to restore it. Served then, it refuses for five minutes
requests that the book may have accepted since; see `provisor store fence`. Secrets in it are sealed: it is worth nothing without the
master key (master.key.v1 in the data directory), which is kept elsewhere. A book in PostgreSQL is backed up by PostgreSQL's own means,
such as pg_dump or pg_basebackup.")]
pub(super) struct Backup {
    /// The file to make; one that is there is not overwritten
    file: PathBuf,
}

#[derive(Serialize)]
struct Made {
    file: PathBuf,
    bytes: u64,
}

pub(super) fn run(command: &Backup, context: &Context) -> Result<Exit, Failure> {
    let config = context.paths.configuration(&context.environment)?;
    let StoreUrl::Sqlite(path) = &config.store.url else {
        return Err(Failure::usage(anyhow!("this book is in PostgreSQL: use pg_dump, pg_basebackup or a standby")));
    };
    let book = context.paths.data()?.join(path);
    if command.file.exists() {
        return Err(Failure::usage(anyhow!("{} is there already", command.file.display())));
    }
    back_up(&book, &command.file).map_err(|fault| {
        Failure::failed(anyhow::Error::from(fault).context(format!("cannot copy the book {}", book.display())))
    })?;
    let bytes = command.file.metadata().map_err(Failure::failed)?.len();
    let made = Made { file: command.file.clone(), bytes };
    context.output.record(&made, |made| format!("{}: {} bytes, without the master key", made.file.display(), made.bytes))?;
    Ok(Exit::Done)
}
