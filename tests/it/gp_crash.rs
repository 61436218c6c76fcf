//! The shipped binary, killed while packages are created and renewed by the real client: each is paid once, and nothing that was
//! paid is missing.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use provisor::audit::{Verdict, verify};
use provisor_providers::contract::{self, Call, Order, Property, ServiceRef};
use provisor_providers::gp::Client;
use provisor_providers::provisioning::{Connection, Provisioning};
use provisor_tests::binary::{SERVE, is_long, provisor_on, run_on};
use provisor_tests::book::{Book, Engine};
use provisor_tests::daemon::Daemon;
use provisor_tests::resellers::unique;
use provisor_tests::world::World;
use tokio::task::{JoinSet, LocalSet};

/// Resellers, each with a profile of its own: the credit is the evidence for a renewal, so one profile's charges are made in turn.
const RESELLERS: usize = 6;
const CREDIT: i64 = 10_000_000;
const PRICE: i64 = 490;
/// So often is a package renewed before the next one is made.
const RENEWALS: usize = 3;
/// A server lives at most so long after it began to listen: making a package takes the time floor.
const LIFE_MS: u64 = 700;
const DEADLINE_MS: u32 = 60_000;

/// A change that is wanted.
#[derive(Clone)]
enum Wanted {
    Package,
    /// The credit that was read before the first try.
    Renewal {
        before: i64,
    },
}

/// A reseller's panel, which never gives a change up.
struct Panel {
    secret: String,
    at: Connection,
    world: World,
    /// What was told to be done: domains, and how often each was renewed.
    packages: Vec<(String, usize)>,
    /// The change under way and how often it was tried.
    open: Option<(Wanted, u32)>,
    /// Changes whose outcome was not known when the server was killed.
    unknown: usize,
}

impl Panel {
    fn new(secret: String) -> Self {
        let at = connection("http://127.0.0.1:1", &secret);
        Self { secret, at, world: World::default(), packages: Vec::new(), open: None, unknown: 0 }
    }

    fn meet(&mut self, server: &Daemon) {
        self.at = connection(&server.base_url("gp"), &self.secret);
    }

    /// Makes changes until the server is gone.
    async fn go_on(mut self) -> Self {
        loop {
            if self.open.is_none() && !self.want().await || !self.settle().await {
                return self;
            }
        }
    }

    /// Decides what to do next. False when the evidence cannot be read.
    async fn want(&mut self) -> bool {
        let is_renewed = self.packages.last().is_none_or(|(_, times)| *times == RENEWALS);
        let wanted = if is_renewed {
            self.packages.push((format!("shop-{}.example.com", unique()), 0));
            Wanted::Package
        } else {
            let Ok(credit) = Client.balance(&self.world, &self.at).await else { return false };
            Wanted::Renewal { before: credit.minor }
        };
        self.open = Some((wanted, 0));
        true
    }

    /// Tries the change under way. False when the server is gone.
    async fn settle(&mut self) -> bool {
        let Some((wanted, tried)) = &mut self.open else { return true };
        *tried += 1;
        let (domain, renewals) = self.packages.last_mut().unwrap();
        let mut call = Call { idempotency_key: domain.clone(), attempt: *tried, deadline_ms: DEADLINE_MS, notes: Vec::new() };
        let done = match wanted {
            Wanted::Package => Client.create(&self.world, &self.at, call, order(domain)).await,
            Wanted::Renewal { before } => {
                call.notes.push(Property { name: "balance-before".to_owned(), value: before.to_string() });
                let service = ServiceRef { remote_id: Some(domain.clone()), domain: None, username: None };
                Client.renew(&self.world, &self.at, call, service, String::new()).await
            }
        };
        match done {
            Ok(_) => {
                *renewals += usize::from(matches!(wanted, Wanted::Renewal { .. }));
                self.open = None;
                true
            }
            Err(problem) => {
                assert_eq!(problem.kind, contract::ProblemKind::Unreachable, "{}", problem.message);
                self.unknown += usize::from(problem.effect == contract::Effect::Unknown);
                false
            }
        }
    }
}

fn connection(base_url: &str, secret: &str) -> Connection {
    let settings = vec![contract::Setting { name: "allow_private".to_owned(), value: "true".to_owned() }];
    let (provider, base_url) = ("gp".to_owned(), base_url.to_owned());
    contract::Connection { provider, base_url, key: String::new(), secret: secret.to_owned(), settings }.into()
}

fn order(domain: &str) -> Order {
    Order {
        plan: "10k".to_owned(),
        term: None,
        domain: Some(domain.to_owned()),
        email: Some("customer@example.com".to_owned()),
        password: Some("S3cure!pass".to_owned()),
        note: None,
        options: Vec::new(),
    }
}

/// A server that charges each renewal it is asked for: nothing but the client keeps them apart.
fn serve(data: &Path, url: &str) -> Daemon {
    let mut command = provisor_on(data, url);
    command.args(SERVE).stderr(Stdio::null()).env("PROVISOR_SERVER__GP__RENEW_DEDUPE", "false");
    Daemon::start(command)
}

/// A reseller with credit, and its API key.
fn reseller(data: &Path, url: &str) -> String {
    let credit = (CREDIT / 100).to_string();
    let made = run_on(data, url, &["reseller", "create", "--name", "T", "--email", "t@example.com", "--credit", &credit]);
    let id = made["id"].to_string();
    let limits = ["--per-minute", "1000000", "--burst", "1000000", "--per-day", "100000000"];
    let create = ["key", "create", "--reseller", &id, "--provider", "gp", "--ip", "127.0.0.1"];
    run_on(data, url, &[&create[..], &limits].concat())["api_key"].as_str().unwrap().to_owned()
}

fn random_life() -> Duration {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    Duration::from_micros(u64::from_le_bytes(bytes) % (LIFE_MS * 1000))
}

#[tokio::test]
async fn packages_survive_kill_9_and_are_paid_once() {
    let engine = Engine::of_module(module_path!());
    let rounds = if is_long() { 5 } else { 1 } * if engine == Engine::Sqlite { 20 } else { 4 };
    let book = Book::new(engine);
    let (data, url) = (book.directory(), &book.url());
    let mut panels: Vec<Panel> = (0..RESELLERS).map(|_| Panel::new(reseller(data, url))).collect();
    LocalSet::new()
        .run_until(async {
            for _ in 0..rounds {
                let server = serve(data, url);
                let mut running = JoinSet::new();
                for mut panel in panels.drain(..) {
                    panel.meet(&server);
                    running.spawn_local(panel.go_on());
                }
                tokio::time::sleep(random_life()).await;
                server.kill();
                panels = running.join_all().await;
            }
            let server = serve(data, url);
            for panel in &mut panels {
                panel.meet(&server);
                assert!(panel.settle().await, "the last server answers everything");
            }
            server.kill();
        })
        .await;
    compare(&book, &panels);
    let unknown: usize = panels.iter().map(|panel| panel.unknown).sum();
    assert!(unknown > 0, "no kill met a change under way: this test showed nothing");
}

/// The book against what the panels were told.
fn compare(book: &Book, panels: &[Panel]) {
    let mut charges = 0;
    for (domain, renewals) in panels.iter().flat_map(|panel| &panel.packages) {
        let count = |kind: &str| {
            book.number(&format!(
                "SELECT COUNT(*) FROM ledger WHERE reference = '{domain}' AND kind = '{kind}' AND amount = -{PRICE}"
            ))
        };
        let renewals = i64::try_from(*renewals).unwrap();
        assert_eq!((count("gp.autoregister"), count("gp.renew")), (1, renewals), "{domain}");
        assert_eq!(book.number(&format!("SELECT COUNT(*) FROM licenses WHERE domain = '{domain}'")), 1);
        charges += 1 + renewals;
    }
    assert_eq!(book.number("SELECT COUNT(*) FROM ledger WHERE amount < 0"), charges);
    let left = i64::try_from(RESELLERS).unwrap() * CREDIT - charges * PRICE;
    assert_eq!(book.number("SELECT SUM(balance) FROM accounts"), left);
    assert_eq!(book.number("SELECT SUM(amount) FROM ledger"), left);
    assert!(matches!(book.open().read(verify).unwrap(), Verdict::Whole { .. }), "the audit chain");
    let renewals: usize = panels.iter().flat_map(|panel| &panel.packages).map(|package| package.1).sum();
    println!(
        "{} packages and {renewals} renewals, each paid once",
        panels.iter().map(|panel| panel.packages.len()).sum::<usize>()
    );
}
