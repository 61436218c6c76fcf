//! GP's hash and password envelope.

use std::io::Read;

use anyhow::anyhow;
use clap::Subcommand;
use provisor_providers::gp::{hash, password};
use provisor_providers::server::Rules;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use zeroize::Zeroizing;

use super::secret;
use crate::cli::output::Shown;
use crate::cli::{Context, Exit, Failure};
use crate::clock::{Clock, System};

#[derive(Subcommand)]
pub(in crate::cli) enum Command {
    /// Make the hash of a request, with `GP_API_KEY`
    Hash {
        /// The package's domain, as it is sent
        #[arg(long)]
        domain: String,
        /// Ten digits, kept as they are [default: the digits of now, shuffled]
        #[arg(long, value_name = "DIGITS")]
        timestamp: Option<String>,
    },
    /// Seal the password on stdin, with `GP_API_KEY`; one line break at its end is left out
    Seal {
        /// 16 bytes as 32 hex digits; never use one twice [default: random]
        #[arg(long, value_name = "HEX")]
        iv: Option<String>,
    },
    /// Open a sealed password and print it, with `GP_API_KEY`
    Open {
        /// As `seal` prints it
        #[arg(long, value_name = "BASE64")]
        envelope: String,
    },
}

pub(super) fn run(command: Command, context: &Context) -> Result<Exit, Failure> {
    let api_key = secret(context, "GP_API_KEY")?;
    // Once, as the client does when it loads the key: PHP trims it for the hash alone.
    let api_key = SecretString::from(hash::php_trim(api_key.expose_secret()));
    match command {
        Command::Hash { domain, timestamp } => hash(&api_key, &domain, timestamp, context),
        Command::Seal { iv } => seal(&api_key, iv.as_deref(), context),
        Command::Open { envelope } => open(&api_key, &envelope, context),
    }
}

#[derive(Serialize)]
struct Hash {
    hash: String,
    timestamp: String,
}

fn hash(api_key: &SecretString, domain: &str, timestamp: Option<String>, context: &Context) -> Result<Exit, Failure> {
    let moment = System.moment(Rules::default());
    let timestamp = timestamp.unwrap_or_else(|| hash::shuffled_timestamp(moment.now, &mut moment.rng()));
    let hash = Hash { hash: hash::hash(api_key.expose_secret(), domain, &timestamp), timestamp };
    context.output.record(&hash, |made| format!("hash       {}\ntimestamp  {}", made.hash, made.timestamp))?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Sealed {
    envelope: String,
}

fn seal(api_key: &SecretString, iv: Option<&str>, context: &Context) -> Result<Exit, Failure> {
    let mut bytes = [0; 16];
    if let Some(iv) = iv {
        if !base16ct::mixed::decode(iv, &mut bytes).is_ok_and(|read| read.len() == 16) {
            return Err(Failure::usage(anyhow!("--iv: 16 bytes are 32 hex digits")));
        }
    } else {
        bytes.copy_from_slice(&System.seed()[..16]);
    }
    let mut password = Zeroizing::new(String::new());
    std::io::stdin()
        .read_to_string(&mut password)
        .map_err(|error| Failure::usage(anyhow::Error::from(error).context("cannot read the password from stdin")))?;
    let line = password.strip_suffix('\n').map_or(password.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    let envelope = password::seal(api_key.expose_secret(), line, bytes).map_err(Failure::usage)?;
    context.output.record(&Sealed { envelope }, |sealed| sealed.envelope.clone())?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Opened {
    password: Shown,
}

fn open(api_key: &SecretString, envelope: &str, context: &Context) -> Result<Exit, Failure> {
    let password = password::open(api_key.expose_secret(), envelope).map_err(Failure::failed)?;
    context.output.record(&Opened { password: Shown(password) }, |opened| opened.password.text().to_owned())?;
    Ok(Exit::Done)
}
