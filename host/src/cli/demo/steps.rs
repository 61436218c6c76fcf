//! The demo's steps: every operation at each provider, then what the host exists for.

use std::time::{Duration, Instant};

use crate::cli::Failure;
use crate::plugin::Caller;
use crate::plugin::contract::{Call, Order, Outcome, PowerAction, Problem, ProblemKind, Service, ServiceRef, Setting, State};
use crate::plugin::words::to_json;

use super::Report;
use super::world::World;

/// How long a new service may take to be there; the simulated fulfilment takes a second.
const PATIENCE: Duration = Duration::from_secs(15);
const DEADLINE_MS: u32 = 20_000;

pub(super) async fn kernelhost(world: &World, report: &mut Report) -> Result<(), Failure> {
    let caller = world.caller("kernelhost", world.address(), true)?;
    let mut run = Run { provider: "kernelhost", caller: &caller, report };
    run.asking().await?;
    let Some(service) = run.create(kernelhost_order("demo.example.com")).await? else { return Ok(()) };
    let service = run.lifecycle(service).await?;
    run.unsupported("change-package", caller.change_package(call("kh-package"), reference(&service), "43".to_owned(), none()))
        .await?;
    for action in [PowerAction::Stop, PowerAction::Start, PowerAction::Reboot] {
        let key = format!("power-{}", word(&action));
        run.change("power", None, caller.power(call(&key), reference(&service), action)).await?;
    }
    run.ask("credentials", caller.credentials(reference(&service)), |login| {
        (format!("user {}, the password is not shown", login.username.as_deref().unwrap_or("?")), login.password.is_some())
    })
    .await?;
    run.terminate(service).await
}

pub(super) async fn gp(world: &World, report: &mut Report) -> Result<(), Failure> {
    let caller = world.caller("gp", world.address(), true)?;
    let mut run = Run { provider: "gp", caller: &caller, report };
    run.asking().await?;
    let Some(service) = run.create(gp_order("demo.example.com")).await? else { return Ok(()) };
    let service = run.lifecycle(service).await?;
    let changed = caller.change_package(call("gp-package"), reference(&service), "20k".to_owned(), none());
    run.change("change-package", Some(State::Active), changed).await?;
    run.unsupported("power", caller.power(call("gp-power"), reference(&service), PowerAction::Reboot)).await?;
    run.unsupported("credentials", caller.credentials(reference(&service))).await?;
    run.terminate(service).await
}

/// The three things that panel modules get wrong.
pub(super) async fn why_it_exists(world: &World, report: &mut Report) -> Result<(), Failure> {
    for (provider, order, target) in [
        ("kernelhost", kernelhost_order as fn(&str) -> Order, "/v1/orders "),
        ("gp", gp_order as fn(&str) -> Order, "/autoregister/ "),
    ] {
        create_twice(world, report, provider, order("twice.example.com")).await?;
        lost_answer(world, report, provider, order("lost.example.com"), target).await?;
    }
    outside_the_profile(world, report).await
}

/// The same create, asked twice under one key: one service, one charge.
async fn create_twice(world: &World, report: &mut Report, provider: &'static str, order: Order) -> Result<(), Failure> {
    let (began, before) = (Instant::now(), world.balance()?);
    let caller = world.caller(provider, world.address(), true)?;
    let first = caller.create(call("twice"), order.clone()).await;
    let charged_once = world.balance()?;
    let second = caller.create(Call { attempt: 2, ..call("twice") }, order).await;
    let charged_in_all = world.balance()?;
    let held = same_service(&first, &second) && charged_once < before && charged_in_all == charged_once;
    let outcome = if held { "asked twice: one service, one charge".to_owned() } else { told(&[&first, &second]) };
    report.step(provider, "create", &outcome, began, held)
}

/// The connection is cut after the provider has committed: the client finds out, and there is one service.
async fn lost_answer(
    world: &World,
    report: &mut Report,
    provider: &'static str,
    order: Order,
    target: &'static str,
) -> Result<(), Failure> {
    let (began, before) = (Instant::now(), world.balance()?);
    let caller = world.caller(provider, world.lossy.address(), true)?;
    world.lossy.lose_next(target);
    let first = caller.create(call("lost"), order.clone()).await;
    let lost = world.lossy.has_lost();
    let charged_once = world.balance()?;
    let second = caller.create(Call { attempt: 2, ..call("lost") }, order).await;
    let charged_in_all = world.balance()?;
    let held = lost && same_service(&first, &second) && charged_once < before && charged_in_all == charged_once;
    let outcome =
        if held { "answer lost after the commit: one service, one charge".to_owned() } else { told(&[&first, &second]) };
    report.step(provider, "create", &outcome, began, held)
}

/// A component that asks for another address than its profile's gets nothing through.
async fn outside_the_profile(world: &World, report: &mut Report) -> Result<(), Failure> {
    let began = Instant::now();
    let caller = world.caller("kernelhost", world.address(), true)?.told_base_url("http://127.0.0.1:1/elsewhere");
    let (outcome, held) = match caller.check().await {
        Err(problem) if problem.kind == ProblemKind::Unreachable && problem.message.contains("egress") => {
            ("another address than the profile's: refused by egress".to_owned(), true)
        }
        Err(problem) => (problem.message, false),
        Ok(_) => ("it got through".to_owned(), false),
    };
    report.step("kernelhost", "check", &outcome, began, held)
}

struct Run<'a> {
    provider: &'static str,
    caller: &'a Caller,
    report: &'a mut Report,
}

impl Run<'_> {
    async fn asking(&mut self) -> Result<(), Failure> {
        let caller = self.caller;
        self.ask("check", caller.check(), |account| {
            (format!("connected{}", account.name.as_ref().map(|name| format!(" as {name}")).unwrap_or_default()), true)
        })
        .await?;
        self.ask("balance", caller.balance(), |money| {
            let currency = money.currency.clone().unwrap_or_default();
            (format!("{} {currency}", provisor_providers::money::Minor(money.minor)).trim_end().to_owned(), money.minor > 0)
        })
        .await?;
        self.ask("catalog", caller.catalog(), |plans| (format!("{} plans", plans.len()), plans.len() > 6)).await
    }

    /// Creates and waits until the service is there.
    async fn create(&mut self, order: Order) -> Result<Option<Service>, Failure> {
        let began = Instant::now();
        let created = self.caller.create(call("create"), order).await;
        let held = created.is_ok();
        self.report.step(self.provider, "create", &told(&[&created]), began, held)?;
        let Ok(Outcome::Done(mut service) | Outcome::Pending(mut service)) = created else { return Ok(None) };
        let began = Instant::now();
        while service.state == State::Pending && began.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(100)).await;
            match self.caller.status(reference(&service)).await {
                Ok(now) => service = now,
                Err(problem) => {
                    self.report.step(self.provider, "status", &problem.message, began, false)?;
                    return Ok(None);
                }
            }
        }
        let held = service.state == State::Active;
        self.report.step(self.provider, "status", &describe(&service), began, held)?;
        Ok(Some(service))
    }

    /// What every provider here can do with a service.
    async fn lifecycle(&mut self, service: Service) -> Result<Service, Failure> {
        let (caller, at) = (self.caller, || reference(&service));
        self.change("suspend", Some(State::Suspended), caller.suspend(call("suspend"), at(), Some("demo".to_owned()))).await?;
        self.change("unsuspend", Some(State::Active), caller.unsuspend(call("unsuspend"), at())).await?;
        // Where the provider shows no due date, any will do: the charge is what can be seen.
        let due = service.due_at.clone().unwrap_or_else(|| jiff::Timestamp::now().to_string());
        let mut renew = call("renew");
        if let Ok(balance) = caller.balance().await {
            renew
                .notes
                .push(crate::plugin::contract::Property { name: "balance-before".to_owned(), value: balance.minor.to_string() });
        }
        self.change("renew", Some(State::Active), caller.renew(renew, at(), due)).await?;
        let password = Some("Correct-Horse-7".to_owned());
        self.change("reset-password", None, caller.reset_password(call("password"), at(), password)).await?;
        Ok(service)
    }

    async fn terminate(&mut self, service: Service) -> Result<(), Failure> {
        let terminated = self.caller.terminate(call("terminate"), reference(&service));
        self.change("terminate", Some(State::Terminated), terminated).await
    }

    async fn ask<T>(
        &mut self,
        operation: &str,
        answer: impl Future<Output = Result<T, Problem>>,
        tell: impl FnOnce(&T) -> (String, bool),
    ) -> Result<(), Failure> {
        let began = Instant::now();
        let (outcome, held) = answer.await.map_or_else(|problem| (problem.message, false), |value| tell(&value));
        self.report.step(self.provider, operation, &outcome, began, held)
    }

    /// A change must be done, and leave the service in a state if one is named.
    async fn change(
        &mut self,
        operation: &str,
        state: Option<State>,
        outcome: impl Future<Output = Result<Outcome, Problem>>,
    ) -> Result<(), Failure> {
        let began = Instant::now();
        let outcome = outcome.await;
        let held = matches!(&outcome, Ok(Outcome::Done(service)) if state.is_none_or(|state| service.state == state));
        self.report.step(self.provider, operation, &told(&[&outcome]), began, held)
    }

    async fn unsupported<T>(&mut self, operation: &str, answer: impl Future<Output = Result<T, Problem>>) -> Result<(), Failure> {
        let began = Instant::now();
        let (outcome, held) = match answer.await {
            Err(problem) if problem.kind == ProblemKind::Unsupported => {
                ("unsupported by this provider, and says so".to_owned(), true)
            }
            Err(problem) => (problem.message, false),
            Ok(_) => ("done, though the provider has no such operation".to_owned(), false),
        };
        self.report.step(self.provider, operation, &outcome, began, held)
    }
}

fn kernelhost_order(domain: &str) -> Order {
    Order {
        plan: "42".to_owned(),
        term: Some("monthly".to_owned()),
        domain: Some(domain.to_owned()),
        email: None,
        password: None,
        note: None,
        options: Vec::new(),
    }
}

fn gp_order(domain: &str) -> Order {
    Order {
        plan: "10k".to_owned(),
        term: None,
        domain: Some(domain.to_owned()),
        email: Some("customer@example.com".to_owned()),
        password: Some("Correct-Horse-6".to_owned()),
        note: None,
        options: Vec::new(),
    }
}

fn call(key: &str) -> Call {
    Call { idempotency_key: format!("demo-{key}"), attempt: 1, deadline_ms: DEADLINE_MS, notes: Vec::new() }
}

fn reference(service: &Service) -> ServiceRef {
    ServiceRef { remote_id: Some(service.remote_id.clone()), domain: None, username: None }
}

fn none() -> Vec<Setting> {
    Vec::new()
}

fn word<T: serde::Serialize>(value: &T) -> String {
    to_json(value).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

fn describe(service: &Service) -> String {
    format!("{}, {}", word(&service.state), service.remote_id)
}

fn told(outcomes: &[&Result<Outcome, Problem>]) -> String {
    let one = |outcome: &&Result<Outcome, Problem>| match outcome {
        Ok(Outcome::Done(service)) => format!("done: {}", describe(service)),
        Ok(Outcome::Pending(service)) => format!("pending: {}", service.remote_id),
        Err(problem) => format!("{}: {}", word(&problem.kind), problem.message),
    };
    outcomes.iter().map(one).collect::<Vec<_>>().join("; then ")
}

fn same_service(first: &Result<Outcome, Problem>, second: &Result<Outcome, Problem>) -> bool {
    let id = |outcome: &Result<Outcome, Problem>| match outcome {
        Ok(Outcome::Done(service) | Outcome::Pending(service)) => Some(service.remote_id.clone()),
        Err(_) => None,
    };
    id(first).is_some() && id(first) == id(second)
}
