//! `provisor plugin`: the provider component in this binary, and others.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::book::block_on;
use super::{Context, Exit, Failure, read_file};
use crate::plugin::{Host, Inspection, Options, builtin};

/// Look at provider components
#[derive(Args)]
#[command(after_help = "\
Examples:
  provisor plugin export provisor.wasm     the component that this program has inside
  provisor plugin inspect provisor.wasm    what it wants, what it offers, and whether it would be loaded")]
pub(super) struct Plugin {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write the built-in component to a file
    Export {
        /// The file; one that exists is not overwritten
        file: PathBuf,
    },
    /// Show a component's imports, exports, providers, and why it would be refused
    Inspect {
        /// The component
        file: PathBuf,
    },
}

pub(super) fn run(command: Plugin, context: &Context) -> Result<Exit, Failure> {
    match command.command {
        Command::Export { file } => export(context, &file),
        Command::Inspect { file } => inspect(context, &file),
    }
}

#[derive(Serialize)]
struct Exported {
    file: String,
    size: usize,
}

fn export(context: &Context, file: &Path) -> Result<Exit, Failure> {
    let write = || {
        let mut created = std::fs::File::create_new(file)?;
        std::io::Write::write_all(&mut created, builtin::COMPONENT)
    };
    write().with_context(|| format!("cannot write {}", file.display())).map_err(Failure::usage)?;
    let exported = Exported { file: file.display().to_string(), size: builtin::COMPONENT.len() };
    context.output.record(&exported, |exported| format!("{}: {} bytes", exported.file, exported.size))?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Inspected {
    size: usize,
    sha256: String,
    contract_version: Option<String>,
    imports: Vec<String>,
    exports: Vec<String>,
    providers: Vec<Described>,
    refusals: Vec<String>,
}

#[derive(Serialize)]
struct Described {
    id: String,
    name: String,
    capabilities: Vec<String>,
}

impl From<Inspection> for Inspected {
    fn from(Inspection { contents, providers, refusals }: Inspection) -> Self {
        let described = providers.into_iter().map(|provider| Described {
            id: provider.id,
            name: provider.name,
            capabilities: provider.capabilities.into_iter().map(|capability| capability.operation).collect(),
        });
        Self {
            size: contents.size,
            sha256: contents.sha256,
            contract_version: contents.contract_version,
            imports: contents.imports,
            exports: contents.exports,
            providers: described.collect(),
            refusals,
        }
    }
}

fn inspect(context: &Context, file: &Path) -> Result<Exit, Failure> {
    let bytes = read_file(file)?;
    let inspected: Inspected = block_on(async move {
        let host = Host::start(Options::default()).map_err(Failure::failed)?;
        Ok(host.inspect(bytes).await.into())
    })?;
    context.output.record(&inspected, people)?;
    Ok(if inspected.refusals.is_empty() { Exit::Done } else { Exit::Failed })
}

fn people(inspected: &Inspected) -> String {
    let mut lines = vec![
        format!("size      {} bytes", inspected.size),
        format!("sha256    {}", inspected.sha256),
        format!("contract  {}", inspected.contract_version.as_deref().unwrap_or("none")),
    ];
    lines.extend(inspected.imports.iter().map(|name| format!("import    {name}")));
    lines.extend(inspected.exports.iter().map(|name| format!("export    {name}")));
    for provider in &inspected.providers {
        lines.push(format!("provider  {} ({}): {}", provider.id, provider.name, provider.capabilities.join(", ")));
    }
    lines.extend(inspected.refusals.iter().map(|refusal| format!("refused   {refusal}")));
    if inspected.refusals.is_empty() {
        lines.push("it would be loaded".to_owned());
    }
    lines.join("\n")
}
