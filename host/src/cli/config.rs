//! `provisor config`: what is set, and where.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Context, Exit, Failure};
use crate::config::DEFAULT;

/// Show the configuration, or where it is
#[derive(Args)]
#[command(after_help = "\
Examples:
  provisor config show                     what holds after the file and the environment; secrets stay names
  provisor config show --default > provisor.toml
                                           a file to start from: every setting, with its comment
  PROVISOR_SERVER__LISTEN=0.0.0.0:80 provisor config show
                                           any setting can come from the environment")]
pub(super) struct Config {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the configuration that holds: the file, then the environment
    Show {
        /// Print the default file with its comments instead
        #[arg(long)]
        default: bool,
    },
    /// Print where the configuration and the data are
    Path,
}

pub(super) fn run(command: &Config, context: &Context) -> Result<Exit, Failure> {
    match command.command {
        Command::Show { default: true } => show_default(context),
        Command::Show { default: false } => show(context),
        Command::Path => path(context),
    }
}

fn show(context: &Context) -> Result<Exit, Failure> {
    let config = context.paths.configuration(&context.environment)?;
    let text = toml::to_string(&config).map_err(Failure::failed)?;
    context.output.record(&config, |_| text.trim_end().to_owned())?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct DefaultFile {
    text: &'static str,
}

fn show_default(context: &Context) -> Result<Exit, Failure> {
    context.output.record(&DefaultFile { text: DEFAULT }, |file| file.text.trim_end().to_owned())?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Places {
    config: String,
    config_exists: bool,
    data: String,
    data_exists: bool,
}

fn path(context: &Context) -> Result<Exit, Failure> {
    let (config, data) = (context.paths.config_file()?, context.paths.data()?);
    let places = Places {
        config_exists: config.exists(),
        data_exists: data.exists(),
        config: config.display().to_string(),
        data: data.display().to_string(),
    };
    let absent = |exists| if exists { "" } else { "  (not there)" };
    context.output.record(&places, |places| {
        let Places { config, data, .. } = places;
        format!("config  {config}{}\ndata    {data}{}", absent(places.config_exists), absent(places.data_exists))
    })?;
    Ok(Exit::Done)
}
