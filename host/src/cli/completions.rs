//! `provisor completions`: scripts that let a shell complete our commands.

use clap::Args;
use clap_complete::Shell;
use serde::Serialize;

use super::{Context, Exit, Failure};

/// Print a script that lets your shell complete provisor's commands
#[derive(Args)]
#[command(after_help = "\
Examples:
  provisor completions bash > ~/.local/share/bash-completion/completions/provisor
  provisor completions zsh > ~/.zfunc/_provisor        (with ~/.zfunc in fpath)
  provisor completions fish > ~/.config/fish/completions/provisor.fish")]
pub(super) struct Completions {
    /// Your shell
    shell: Shell,
}

#[derive(Serialize)]
struct Script {
    shell: String,
    script: String,
}

pub(super) fn run(command: &Completions, context: &Context, mut program: clap::Command) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(command.shell, &mut program, "provisor", &mut script);
    let script = Script { shell: command.shell.to_string(), script: String::from_utf8_lossy(&script).into_owned() };
    context.output.record(&script, |script| script.script.trim_end().to_owned())?;
    Ok(Exit::Done)
}
