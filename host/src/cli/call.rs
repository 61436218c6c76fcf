//! `provisor call`: one operation of the contract, through the component.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use base16ct::lower as hex;
use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::book::block_on;
use super::{Context, Exit, Failure};
use crate::clock::{Clock, System};
use crate::plugin::Caller;
use crate::plugin::contract::{
    Call as ContractCall, Effect, Order, Outcome, PowerAction, Problem, ProblemKind, ServiceRef, Setting,
};
use crate::plugin::words::to_json;

/// Ask a provider for one operation, through its component
#[derive(Args)]
#[command(after_help = "\
Operations:
  asking    check, balance, catalog, list-services, status, credentials, sign-on, invoices, invoice-pdf, get-webhook
  changing  create, suspend, unsuspend, terminate, renew, reset-password, change-package, power

Values for --set:
  create           term, email, password, note; every other name is an option of the plan
  suspend          reason            renew        due_at (the due date that is being renewed)
  reset-password   password          power        action (start, stop, reboot, reinstall)
  sign-on          target            list-services, invoices   cursor
  invoice-pdf      id, file (to be made)    change-package     every name is an option of the plan

Examples:
  provisor call check --profile kh-main
  provisor call create --profile kh-main --plan 42 --set term=monthly --set hostname=a.example.com
  provisor call create --profile gp-main --plan 10k --domain example.com --set email=a@example.com --set-env password=NEW_PASSWORD
  provisor call renew --profile gp-main --domain example.com --set due_at=2027-01-15T00:00:00Z

Webhooks are set with `provisor profile webhook`, which keeps the secret.
This command keeps no journal: repeat a change with the same --idempotency-key, or ask for the status first.")]
pub(super) struct Call {
    /// The operation's name in the contract
    operation: String,
    /// The profile of the configuration to ask as
    #[arg(long, value_name = "NAME")]
    profile: String,
    /// The provider's id of the service
    #[arg(long, value_name = "REMOTE-ID")]
    service: Option<String>,
    /// The component to ask, in place of the built-in one
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
    /// The service's domain
    #[arg(long)]
    domain: Option<String>,
    /// The plan to order or to change to
    #[arg(long)]
    plan: Option<String>,
    /// A value of the operation
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// A value of the operation that an environment variable holds, for passwords
    #[arg(long, value_name = "NAME=VARIABLE")]
    set_env: Vec<String>,
    /// One for every try at one change [default: a new one, which is printed with the result]
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Which try it is
    #[arg(long, value_name = "N", default_value_t = 1)]
    attempt: u32,
    /// How long it may take
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=600))]
    deadline: u32,
}

pub(super) fn run(command: Call, context: &Context) -> Result<Exit, Failure> {
    let home = context.home()?;
    let values = Values::read(&command, context)?;
    block_on(async move {
        let engine = Context::engine(&home)?;
        let plugin = Context::component(&engine, command.plugin.as_deref()).await?;
        let caller = context.caller(&home, &plugin, &command.profile)?;
        let asked = Asked { command: &command, caller, values };
        match asked.answer().await {
            Ok((value, people)) => {
                context.output.record(&value, |_| people)?;
                Ok(Exit::Done)
            }
            Err(Stopped::Usage(failure)) => Err(failure),
            Err(Stopped::Problem(problem)) => report(context, &asked, &problem),
        }
    })
}

/// The values of --set and --set-env. Any of them may be a secret.
struct Values(BTreeMap<String, SecretString>);

impl Values {
    fn read(command: &Call, context: &Context) -> Result<Self, Failure> {
        let pair = |text: &String| {
            let parts = text.split_once('=').filter(|(name, _)| !name.is_empty());
            parts
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .ok_or_else(|| Failure::usage(anyhow!("--set and --set-env take NAME=VALUE")))
        };
        let mut values = BTreeMap::new();
        for text in &command.set {
            let (name, value) = pair(text)?;
            values.insert(name, value.into());
        }
        for text in &command.set_env {
            let (name, variable) = pair(text)?;
            values.insert(name, context.environment.secret(&variable).map_err(Failure::usage)?);
        }
        Ok(Self(values))
    }

    fn text(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|value| value.expose_secret().to_owned())
    }

    fn required(&self, name: &str) -> Result<String, Stopped> {
        self.text(name).ok_or_else(|| Stopped::usage(format!("this operation needs --set {name}=...")))
    }

    /// What is no value of the operation itself is an option of the plan.
    fn options(&self, own: &[&str]) -> Vec<Setting> {
        let options = self.0.iter().filter(|(name, _)| !own.contains(&name.as_str()));
        options.map(|(name, value)| Setting { name: name.clone(), value: value.expose_secret().to_owned() }).collect()
    }
}

enum Stopped {
    Usage(Failure),
    Problem(Problem),
}

impl Stopped {
    fn usage(message: String) -> Self {
        Self::Usage(Failure::usage(anyhow!(message)))
    }
}

impl From<Problem> for Stopped {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

struct Asked<'a> {
    command: &'a Call,
    caller: Caller,
    values: Values,
}

impl Asked<'_> {
    /// The result as JSON and for people.
    async fn answer(&self) -> Result<(Value, String), Stopped> {
        let Self { command, caller, .. } = self;
        let service = || ServiceRef { remote_id: command.service.clone(), domain: command.domain.clone(), username: None };
        let cursor = || self.values.text("cursor");
        match command.operation.as_str() {
            "check" => shown(&caller.check().await?),
            "balance" => shown(&caller.balance().await?),
            "catalog" => shown(&caller.catalog().await?),
            "list-services" => shown(&caller.list_services(cursor()).await?),
            "status" => shown(&caller.status(service()).await?),
            "credentials" => shown(&caller.credentials(service()).await?),
            "sign-on" => shown(&caller.sign_on(service(), self.values.required("target")?).await?),
            "invoices" => shown(&caller.invoices(cursor()).await?),
            "get-webhook" => shown(&caller.get_webhook().await?),
            "invoice-pdf" => self.invoice_pdf().await,
            change => self.change(change, service()).await,
        }
    }

    async fn invoice_pdf(&self) -> Result<(Value, String), Stopped> {
        let (id, file) = (self.values.required("id")?, self.values.required("file")?);
        let pdf = self.caller.invoice_pdf(id).await?;
        let written = File::create_new(&file).and_then(|mut made| made.write_all(&pdf));
        written.with_context(|| format!("cannot write {file}")).map_err(|error| Stopped::Usage(Failure::usage(error)))?;
        Ok((json!({ "file": file, "size": pdf.len() }), format!("{file}: {} bytes", pdf.len())))
    }

    async fn change(&self, operation: &str, service: ServiceRef) -> Result<(Value, String), Stopped> {
        let Self { command, caller, values } = self;
        let plan = || command.plan.clone().ok_or_else(|| Stopped::usage("this operation needs --plan".to_owned()));
        let call = self.call(operation, &service).await?;
        let key = call.idempotency_key.clone();
        let outcome = match operation {
            "create" => caller.create(call, self.order(plan()?)).await,
            "suspend" => caller.suspend(call, service, values.text("reason")).await,
            "unsuspend" => caller.unsuspend(call, service).await,
            "terminate" => caller.terminate(call, service).await,
            "renew" => caller.renew(call, service, values.required("due_at")?).await,
            "reset-password" => caller.reset_password(call, service, values.text("password")).await,
            "change-package" => caller.change_package(call, service, plan()?, values.options(&[])).await,
            "power" => caller.power(call, service, action(&values.required("action")?)?).await,
            other => {
                return Err(Stopped::usage(format!("there is no operation `{other}`; `provisor call --help` lists them")));
            }
        };
        let (word, service) = match outcome? {
            Outcome::Done(service) => ("done", service),
            Outcome::Pending(service) => ("pending", service),
        };
        let (service, people) = shown(&service)?;
        let value = json!({ "operation": operation, "outcome": word, "idempotency_key": key, "service": service });
        Ok((value, format!("{operation}: {word}\n{people}")))
    }

    fn order(&self, plan: String) -> Order {
        let own = ["term", "email", "password", "note"];
        let [term, email, password, note] = own.map(|name| self.values.text(name));
        let domain = self.command.domain.clone();
        Order { plan, term, domain, email, password, note, options: self.values.options(&own) }
    }

    /// The call, with the evidence that the provider wants read before the first try.
    async fn call(&self, operation: &str, service: &ServiceRef) -> Result<ContractCall, Stopped> {
        let info = self.caller.provider();
        let capability = info.and_then(|info| info.capabilities.iter().find(|capability| capability.operation == operation));
        let wanted = capability.filter(|_| self.command.attempt == 1).map(|capability| capability.evidence.as_slice());
        let mut notes = Vec::new();
        for name in wanted.unwrap_or_default() {
            notes.extend(self.caller.evidence(name, service.clone()).await?);
        }
        let fresh = || format!("call-{}", hex::encode_string(&System.seed()[..12]));
        Ok(ContractCall {
            idempotency_key: self.command.idempotency_key.clone().unwrap_or_else(fresh),
            attempt: self.command.attempt,
            deadline_ms: self.command.deadline * 1000,
            notes,
        })
    }
}

fn action(word: &str) -> Result<PowerAction, Stopped> {
    match word {
        "start" => Ok(PowerAction::Start),
        "stop" => Ok(PowerAction::Stop),
        "reboot" => Ok(PowerAction::Reboot),
        "reinstall" => Ok(PowerAction::Reinstall),
        _ => Err(Stopped::usage(format!("`{word}` is not an action: start, stop, reboot or reinstall"))),
    }
}

fn shown<T: serde::Serialize>(value: &T) -> Result<(Value, String), Stopped> {
    let value = to_json(value).map_err(|error| Stopped::Usage(Failure::failed(error)))?;
    let people = serde_json::to_string_pretty(&value).unwrap_or_default();
    Ok((value, people))
}

/// What the caller can do about a problem.
pub(super) fn exit_of(problem: &Problem) -> Exit {
    match (problem.kind, problem.effect) {
        (_, Effect::Unknown) => Exit::Unknown,
        (ProblemKind::Unreachable | ProblemKind::RateLimited, _) => Exit::Unreachable,
        (ProblemKind::Invalid, _) => Exit::Usage,
        _ => Exit::Failed,
    }
}

/// A problem is a result: it goes to stdout as JSON, and to people with what they can do about it.
fn report(context: &Context, asked: &Asked<'_>, problem: &Problem) -> Result<Exit, Failure> {
    let exit = exit_of(problem);
    let words = to_json(problem).map_err(Failure::failed)?;
    let people = format!("{}: {}", words["kind"].as_str().unwrap_or_default(), problem.message);
    let value = json!({ "operation": asked.command.operation, "outcome": "failed", "problem": words });
    if context.output.is_json() {
        context.output.record(&value, |_| String::new())?;
    } else {
        context.output.error(exit, &anyhow!(people));
    }
    Ok(exit)
}
