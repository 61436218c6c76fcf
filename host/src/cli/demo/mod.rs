//! `provisor demo`: the main job, with both ends on this machine.

mod lossy;
mod steps;
mod world;

use std::io::Write as _;
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use self::world::World;
use super::book::block_on;
use super::output::Output;
use super::serve::stop_signal;
use super::{Context, Exit, Failure};

/// Provision on both providers, through the component, with nothing to set up
#[derive(Args)]
#[command(after_help = "\
The demo runs both providers' APIs in a temporary directory on loopback, and asks them through the sandboxed component as a panel
would. Its keys may ask far more often than the documented 60 times a minute, so that the demo need not wait.

Examples:
  provisor demo                            exit code 0 only if everything held
  provisor demo --keep                     then serves on, and prints curl lines to paste
  provisor demo --json                     one object per step: provider, operation, outcome, ms")]
pub(super) struct Demo {
    /// Serve on afterwards and print curl lines; ctrl-c ends it
    #[arg(long)]
    keep: bool,
}

pub(super) fn run(command: &Demo, context: &Context) -> Result<Exit, Failure> {
    let output = context.output;
    block_on(async move {
        let world = World::start().await?;
        let mut report = Report::new(output);
        report.title(&format!("Both APIs serve on http://{}; the demo's keys have higher limits than usual.", world.address()));
        steps::kernelhost(&world, &mut report).await?;
        steps::gp(&world, &mut report).await?;
        steps::why_it_exists(&world, &mut report).await?;
        report.summary()?;
        if command.keep {
            report.title(&world.curl_lines());
            stop_signal()?.await;
        }
        world.stop().await;
        Ok(if report.failed == 0 { Exit::Done } else { Exit::Failed })
    })
}

#[derive(Serialize)]
struct Step<'a> {
    provider: &'a str,
    operation: &'a str,
    outcome: &'a str,
    ms: u64,
}

/// Prints each step as it ends.
struct Report {
    output: Output,
    held: u32,
    failed: u32,
    began: Instant,
}

impl Report {
    fn new(output: Output) -> Self {
        Self { output, held: 0, failed: 0, began: Instant::now() }
    }

    /// For people only.
    fn title(&self, text: &str) {
        if !self.output.is_json() {
            // A closed stdout is noticed at the next step.
            let _closed = writeln!(std::io::stdout(), "{text}\n");
        }
    }

    /// One line of the table; `held` says whether it came out as it must.
    fn step(&mut self, provider: &str, operation: &str, outcome: &str, began: Instant, held: bool) -> Result<(), Failure> {
        let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        *(if held { &mut self.held } else { &mut self.failed }) += 1;
        let outcome = if held { outcome.to_owned() } else { format!("UNEXPECTED: {outcome}") };
        let step = Step { provider, operation, outcome: &outcome, ms };
        self.output
            .record(&step, |step| format!("{:<11} {:<16} {:>5} ms  {}", step.provider, step.operation, step.ms, step.outcome))
    }

    fn summary(&self) -> Result<(), Failure> {
        if self.output.is_json() {
            return Ok(());
        }
        let seconds = self.began.elapsed().as_secs_f64();
        let text = match self.failed {
            0 => format!("\n{} steps, all as they must be, in {seconds:.1} s.", self.held),
            failed => format!("\n{failed} of {} steps did not come out as they must.", self.held + failed),
        };
        self.output.record(&(), |()| text)
    }
}
