//! `provisor wire`: the providers' signatures by hand, to see where another implementation differs.

mod gp;
mod kernelhost;

use clap::{Args, Subcommand};
use secrecy::SecretString;

use super::{Context, Exit, Failure};

/// Sign, hash and seal as the providers do, by hand
#[derive(Args)]
#[command(after_help = "\
Secrets come from the environment, so that they stand in no shell history:
  KernelHost  KH_KEY, KH_SECRET, KH_WEBHOOK_SECRET
  GP          GP_API_KEY

Examples:
  provisor wire kernelhost sign --method GET --path /v1/me
  provisor wire kernelhost verify-webhook --header 't=1767225600,v1=..' --body-file body.json
  provisor wire gp hash --domain example.com
  printf '%s' 'S3cure!pass' | provisor wire gp seal
  provisor wire gp open --envelope 'AAECAwQF..'")]
pub(super) struct Wire {
    #[command(subcommand)]
    provider: Provider,
}

#[derive(Subcommand)]
enum Provider {
    /// The KernelHost Reseller API: signed REST
    #[command(subcommand, name = "kernelhost")]
    KernelHost(kernelhost::Command),
    /// The GP firewall reseller API: hashed forms
    #[command(subcommand)]
    Gp(gp::Command),
}

pub(super) fn run(command: Wire, context: &Context) -> Result<Exit, Failure> {
    match command.provider {
        Provider::KernelHost(command) => kernelhost::run(command, context),
        Provider::Gp(command) => gp::run(command, context),
    }
}

fn secret(context: &Context, variable: &str) -> Result<SecretString, Failure> {
    context.environment.secret(variable).map_err(Failure::usage)
}
