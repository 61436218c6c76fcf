//! `provisor store`: moving a book from one engine to the other.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use provisor_providers::books::Fault;
use serde::Serialize;

use super::book::{block_on, database_password};
use super::unshown::Unshown;
use super::{Context, Exit, Failure};
use crate::clock::{Clock, System};
use crate::config::StoreUrl;
use crate::store::{self, Progress};
use crate::vault::Vault;

/// Cells of the bar.
const BAR: usize = 30;

/// Move a book between SQLite and PostgreSQL, put one to use that was restored, make a sandbox
#[derive(Args)]
pub(super) struct Store {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one of them, once")]
enum Command {
    /// Copy a whole book into an empty database
    #[command(after_help = "\
Examples:
  provisor store copy --from sqlite:provisor.db --to 'postgres://provisor@db.example.com/provisor'
  provisor store copy --from 'postgres:///provisor?host=/var/run/postgresql' --to sqlite:copy.db

Stop `provisor serve` first: what is written meanwhile is not copied. The copy is one transaction: rows are counted and compared on
both sides and the audit chains verified before it counts. The password of a PostgreSQL database is the one that the configuration
names with store.password. Then set store.url to the copy; the data directory with its master keys stays as it is.")]
    Copy {
        /// The book, as store.url names it; a relative file starts at the data directory
        #[arg(long, value_name = "URL", value_parser = Unshown::<StoreUrl>::new())]
        from: StoreUrl,
        /// Where it goes; nothing may be there
        #[arg(long, value_name = "URL", value_parser = Unshown::<StoreUrl>::new())]
        to: StoreUrl,
    },
    /// Make a new book a sandbox: its keys begin with `kh_test_`, so that nobody takes them for real ones
    #[command(after_help = "\
Example:
  provisor store sandbox --data /var/lib/provisor-sandbox

For the server that resellers try their programs out on, beside the one that they buy from. Keys that are made then are told from real ones
where the API has two kinds; GP's are not. There is no way back, and none for a book that has resellers.")]
    Sandbox,
    /// Refuse requests that a restored book may have accepted and forgotten
    #[command(after_help = "\
Examples:
  provisor store fence                                     # lost is what was accepted until now
  provisor store fence --lost-until 2027-03-01T09:30:00Z   # the old book ended then

A book that comes back from a backup does not know which requests were accepted since: whoever has seen one could send it again. Requests
that are signed for a moment up to 300 s after the last lost one are refused with `timestamp_out_of_window`. A copy that `provisor backup`
made does so by itself when it is served first, as if it had lost all until then; this command says it of a book in PostgreSQL, and
shortens it where the moment is known. The server reads it when it starts.")]
    Fence {
        /// When the old book accepted its last request, at the latest
        #[arg(long, value_name = "TIME")]
        lost_until: Option<Timestamp>,
    },
}

#[derive(Serialize)]
struct Sandbox {
    sandbox: bool,
}

#[derive(Serialize)]
struct Fenced {
    lost_until: Timestamp,
}

#[derive(Serialize)]
struct Copied {
    table: String,
    rows: u64,
}

pub(super) fn run(command: Store, context: &Context) -> Result<Exit, Failure> {
    match command.command {
        Command::Copy { from, to } => copy(from, to, context),
        Command::Sandbox => sandbox(context),
        Command::Fence { lost_until } => fence(lost_until, context),
    }
}

fn sandbox(context: &Context) -> Result<Exit, Failure> {
    let store = context.book()?;
    let is_made = block_on(async { store.transact(|books| books.make_sandbox()).await.map_err(Failure::failed) })?;
    if !is_made {
        return Err(Failure::usage(anyhow!(
            "this book has resellers already; a sandbox begins without any, in a directory of its own"
        )));
    }
    context.output.record(&Sandbox { sandbox: true }, |_| {
        "this book is a sandbox: the keys that are made in it are for trying out".to_owned()
    })?;
    Ok(Exit::Done)
}

fn fence(lost_until: Option<Timestamp>, context: &Context) -> Result<Exit, Failure> {
    let (store, now) = (context.book()?, System.now());
    let lost_until = lost_until.unwrap_or(now);
    if lost_until > now {
        return Err(Failure::usage(anyhow!("{lost_until} is still to come")));
    }
    block_on(async { store.transact(move |books| books.set_fence(lost_until)).await.map_err(Failure::failed) })?;
    context.output.record(&Fenced { lost_until }, |fenced| {
        format!("once the server is started anew, it refuses what may have been accepted until {}", fenced.lost_until)
    })?;
    Ok(Exit::Done)
}

fn copy(from: StoreUrl, to: StoreUrl, context: &Context) -> Result<Exit, Failure> {
    let directory = context.paths.data()?;
    let config = context.paths.configuration(&context.environment)?;
    let vault = Arc::new(Vault::open(&directory).map_err(Failure::usage)?);
    let placed = |url: StoreUrl| match url {
        StoreUrl::Sqlite(path) => StoreUrl::Sqlite(directory.join(path)),
        url @ StoreUrl::Postgres(_) => url,
    };
    let (from, to) = (placed(from), placed(to));
    let password = |url| database_password(url, &config, &context.environment);
    let cannot = |what: &str, fault: Fault| Failure::failed(anyhow::Error::from(fault).context(what.to_owned()));
    let source = match &from {
        StoreUrl::Sqlite(path) if !path.exists() => {
            return Err(Failure::usage(anyhow!("there is no book {}", path.display())));
        }
        StoreUrl::Sqlite(path) => store::Store::open_sqlite(path, Arc::clone(&vault)),
        StoreUrl::Postgres(url) => store::Store::open_postgres(url, password(&from)?.as_ref(), Arc::clone(&vault)),
    };
    let source = source.map_err(|fault| cannot("cannot open the book that is to be copied", fault))?;
    let mut bar = Bar::new();
    let copied = store::copy(&source, (&to, password(&to)?.as_ref()), &vault, &mut |progress| bar.show(progress));
    bar.end();
    let copied = copied.map_err(|fault| cannot("the book was not copied, and nothing of it stays", fault))?;
    let copied: Vec<Copied> = copied.into_iter().map(|(table, rows)| Copied { table, rows }).collect();
    context.output.records(["table", "rows"], &copied, |copied| [copied.table.clone(), copied.rows.to_string()])?;
    Ok(Exit::Done)
}

/// A bar that is drawn over itself on a terminal, and a line for each table elsewhere.
struct Bar {
    on_terminal: bool,
    table: String,
}

impl Bar {
    fn new() -> Self {
        Self { on_terminal: io::stderr().is_terminal(), table: String::new() }
    }

    fn show(&mut self, progress: Progress<'_>) {
        let (done, all) = progress.total;
        if self.on_terminal {
            let percent = usize::try_from(done * 100 / all.max(1)).unwrap_or(100);
            let full = percent * BAR / 100;
            let bar = format!("{}{}", "=".repeat(full), " ".repeat(BAR - full));
            Self::write(&format!("\r[{bar}] {percent:>3} %  {:<20}", progress.table));
        } else if self.table != progress.table {
            progress.table.clone_into(&mut self.table);
            Self::write(&format!("copying {}, {done} of {all} rows so far\n", progress.table));
        }
    }

    fn end(&self) {
        if self.on_terminal {
            Self::write(&format!("\r{:width$}\r", "", width = BAR + 32));
        }
    }

    fn write(text: &str) {
        let mut out = io::stderr();
        // With stderr gone nobody watches.
        let _gone = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}
