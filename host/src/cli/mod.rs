//! The command line: one file per command, one printer, one meaning per exit code.

mod audit;
mod backup;
mod book;
mod call;
mod completions;
mod config;
mod demo;
mod doctor;
mod invoice;
mod key;
mod mail;
mod operations;
mod order;
pub mod output;
mod package;
mod panel;
mod paths;
mod plugin;
mod product;
mod profile;
mod ready;
mod reseller;
mod sandbox;
mod serve;
mod service;
mod store;
mod unshown;
mod vault;
mod webhook;
mod wire;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, CommandFactory, Parser, Subcommand};

use self::output::Output;
use self::paths::Paths;
use crate::config::Environment;
use crate::telemetry::{self, Format};

const ABOUT: &str = "Sells hosting providers' services through billing panels, and serves the providers' reseller APIs.";

const MORE: &str = "\
Examples:
  provisor config show                     what is set, and to what
  provisor wire kernelhost sign --method GET --path /v1/me
                                           a signed request, as a curl line
  provisor completions bash > ~/.local/share/bash-completion/completions/provisor

Exit codes:
  0  done
  1  failed: it was tried and refused, or a check found something wrong
  2  wrong use: arguments, input or configuration; nothing was tried
  3  out of reach: something that is needed does not answer; the same command may work later
  4  unknown: a change may or may not have happened; ask for its status before trying again

With --json, stdout has one JSON object per line and nothing else, and an error is {\"error\":{..}} on stderr.";

#[derive(Parser)]
#[command(name = "provisor", version, about = ABOUT, after_help = MORE, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes, before or after its name.
#[derive(Args)]
struct Common {
    /// Print JSON, one object per line, for programs
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    paths: Paths,
    /// What to log to stderr: a level such as debug, or directives such as provisor=debug,hyper=warn
    #[arg(long, global = true, value_name = "FILTER", env = "PROVISOR_LOG", default_value = "info", hide_env_values = true)]
    log: String,
    /// How log lines look
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        env = "PROVISOR_LOG_FORMAT",
        default_value = "pretty",
        hide_env_values = true
    )]
    log_format: Format,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Demo),
    Serve(serve::Serve),
    Call(call::Call),
    Panel(panel::Panel),
    Profile(profile::Profile),
    Operations(operations::Operations),
    Reseller(reseller::Reseller),
    Key(key::Key),
    Product(product::Product),
    Package(package::Package),
    Order(order::Order),
    Service(service::Service),
    Invoice(invoice::Invoice),
    Audit(audit::Audit),
    Vault(vault::Vault),
    Webhook(webhook::Webhook),
    Mail(mail::Mail),
    Plugin(plugin::Plugin),
    Backup(backup::Backup),
    Store(store::Store),
    Doctor(doctor::Doctor),
    Ready(ready::Ready),
    Config(config::Config),
    Wire(wire::Wire),
    Completions(completions::Completions),
}

/// What a command works with.
struct Context {
    environment: Environment,
    paths: Paths,
    output: Output,
}

/// How a command ended: the process's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It did what it should.
    Done = 0,
    /// It was tried and refused, or a check found something wrong.
    Failed = 1,
    /// Arguments, input or configuration; nothing was tried.
    Usage = 2,
    /// Something that is needed does not answer.
    Unreachable = 3,
    /// A change may or may not have happened.
    Unknown = 4,
}

/// Why a command did not do what it should.
#[derive(Debug)]
pub struct Failure {
    /// What the caller can do about it.
    pub exit: Exit,
    /// What went wrong, for people.
    pub error: anyhow::Error,
}

impl Failure {
    /// Arguments, input or configuration were wrong.
    pub fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { exit: Exit::Usage, error: error.into() }
    }

    /// Something that is needed does not answer.
    pub fn unreachable(error: impl Into<anyhow::Error>) -> Self {
        Self { exit: Exit::Unreachable, error: error.into() }
    }

    /// It was tried, and failed.
    pub fn failed(error: impl Into<anyhow::Error>) -> Self {
        Self { exit: Exit::Failed, error: error.into() }
    }
}

/// The bytes of a file, or with `-` of stdin. As long as they are: the operator named it.
fn read_file(file: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let opened: io::Result<Box<dyn Read>> =
        if file == Path::new("-") { Ok(Box::new(io::stdin())) } else { File::open(file).map(|file| Box::new(file) as _) };
    opened
        .and_then(|mut input| input.read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {}", file.display()))
        .map_err(Failure::usage)?;
    Ok(bytes)
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let json = std::env::args_os().take_while(|argument| argument != "--").any(|argument| argument == "--json");
    let output = Output::new(json);
    let exit = match Cli::try_parse() {
        Ok(cli) => run(cli, output),
        Err(error) => refuse(&error, output),
    };
    ExitCode::from(exit as u8)
}

fn run(cli: Cli, output: Output) -> Exit {
    let Common { paths, log, log_format, .. } = cli.common;
    let ended = telemetry::init(log_format, &log).map_err(Failure::usage).and_then(|()| {
        let context = Context { environment: Environment::of_process(), paths, output };
        match cli.command {
            Command::Demo(command) => demo::run(&command, &context),
            Command::Call(command) => call::run(command, &context),
            Command::Panel(command) => panel::run(command, &context),
            Command::Profile(command) => profile::run(command, &context),
            Command::Operations(command) => operations::run(command, &context),
            Command::Plugin(command) => plugin::run(command, &context),
            Command::Audit(command) => audit::run(command, &context),
            Command::Vault(command) => vault::run(&command, &context),
            Command::Backup(command) => backup::run(&command, &context),
            Command::Store(command) => store::run(command, &context),
            Command::Doctor(command) => doctor::run(&command, &context),
            Command::Ready(command) => ready::run(&command, &context),
            Command::Serve(command) => serve::run(&command, &context),
            Command::Reseller(command) => reseller::run(command, &context),
            Command::Key(command) => key::run(command, &context),
            Command::Product(command) => product::run(command, &context),
            Command::Package(command) => package::run(command, &context),
            Command::Order(command) => order::run(&command, &context),
            Command::Service(command) => service::run(&command, &context),
            Command::Invoice(command) => invoice::run(command, &context),
            Command::Webhook(command) => webhook::run(command, &context),
            Command::Mail(command) => mail::run(&command, &context),
            Command::Config(command) => config::run(&command, &context),
            Command::Wire(command) => wire::run(command, &context),
            Command::Completions(command) => completions::run(&command, &context, Cli::command()),
        }
    });
    ended.unwrap_or_else(|Failure { exit, error }| {
        output.error(exit, &error);
        exit
    })
}

/// Arguments that clap does not take, or a question for help or the version.
fn refuse(error: &clap::Error, output: Output) -> Exit {
    use clap::error::ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};

    let asked = matches!(error.kind(), DisplayHelp | DisplayVersion);
    if output.is_json() && !asked && error.kind() != DisplayHelpOnMissingArgumentOrSubcommand {
        let text = error.to_string();
        let message = text.strip_prefix("error: ").unwrap_or(&text).split("\n\n").next().unwrap_or_default();
        output.error(Exit::Usage, &anyhow::anyhow!("{}", message.trim()));
    } else {
        // Only a closed pipe can fail here, and nobody is left to hear of it.
        let _closed = error.print();
    }
    if asked { Exit::Done } else { Exit::Usage }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
