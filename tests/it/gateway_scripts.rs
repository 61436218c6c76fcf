//! Random scripts of panel calls, faults of the provider and of what it tells, and kill -9 of the gateway. Whatever happens on the way:
//! at the end each service stands as it was last asked for, there is one live service per key, each intended change was made and charged
//! once, no operation is lost, and nothing was destroyed that nobody asked for.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use provisor_tests::binary::is_long;
use provisor_tests::book::Engine;
use provisor_tests::desk::{Desk, GP, KERNELHOST, Shop, text};
use provisor_tests::faults::{Answer, Fault};
use provisor_tests::resellers::unique;
use serde_json::{Value, json};

/// Services of one script.
const SERVICES: usize = 3;
/// Steps of one script at most.
const STEPS: usize = 18;
/// How long a panel repeats one call until it is answered with an end.
const PATIENCE: Duration = Duration::from_secs(90);
/// GP's packages that scripts use, in the provider's order: a later one costs more. The first is the one that is ordered.
const PACKAGES: [&str; 3] = ["10k", "20k", "40k"];

/// One step of a script.
#[derive(Debug, Clone)]
enum Step {
    /// The panel asks, and waits this many seconds.
    Call { service: usize, call: Call, wait: u8 },
    /// The panel asks for the last change with an idempotency key again.
    Repeat { service: usize, wait: u8 },
    /// The next requests to the provider go wrong.
    Break { fault: Fault, times: usize },
    /// The next webhooks of the provider go wrong.
    Mislead { fault: Fault, times: usize },
    /// The gateway is killed in the middle of whatever it does, and started again.
    Kill { after_ms: u64 },
    /// The panel asks, the provider makes the change, and the gateway is killed before it hears of it.
    Orphan { service: usize, call: Call },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Create,
    Adopt(Whose),
    Suspend,
    Unsuspend,
    Renew,
    Terminate,
    ResetPassword,
    ChangePackage(&'static str),
    Power(&'static str),
}

/// What a panel would adopt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// What stands at the provider and no key has.
    Nobodys,
    /// What the next key has, or had.
    Anothers,
}

impl Call {
    fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Adopt(_) => "adopt",
            Self::Suspend => "suspend",
            Self::Unsuspend => "unsuspend",
            Self::Renew => "renew",
            Self::Terminate => "terminate",
            Self::ResetPassword => "reset-password",
            Self::ChangePackage(_) => "change-package",
            Self::Power(_) => "power",
        }
    }

    /// Whether only an idempotency key makes two of them one change.
    fn needs_key(self) -> bool {
        matches!(self, Self::ResetPassword | Self::ChangePackage(_) | Self::Power(_))
    }
}

/// How long the provider has to make a change whose answer is held back.
const HELD_MS: u64 = 350;

impl Call {
    /// Where a provider is asked for it.
    fn path(self, shop: Shop) -> &'static str {
        match (shop.provider, self) {
            ("gp", Self::Create) => "/autoregister/",
            ("gp", Self::Adopt(_)) => "/list/",
            ("gp", Self::Suspend) => "/suspended/",
            ("gp", Self::Unsuspend) => "/active/",
            ("gp", Self::Renew) => "/renew/",
            ("gp", Self::Terminate) => "/delete/",
            ("gp", Self::ResetPassword) => "/passwordreset/",
            ("gp", Self::ChangePackage(_)) => "/packageupdate/",
            (_, Self::Create) => "POST /cp/kh_reseller_api/v1/orders",
            (_, Self::Adopt(_)) => "GET /cp/kh_reseller_api/v1/services/",
            _ => "/actions",
        }
    }
}

/// What a panel asks of a shop.
fn calls(shop: Shop) -> impl Strategy<Value = Call> + Clone {
    let own = if shop == GP {
        prop::sample::select(PACKAGES.map(Call::ChangePackage).to_vec())
    } else {
        prop::sample::select(["stop", "start", "reboot", "reinstall"].map(Call::Power).to_vec())
    };
    prop_oneof![
        5 => Just(Call::Create), 2 => Just(Call::Suspend), 2 => Just(Call::Unsuspend), 2 => Just(Call::Renew),
        2 => Just(Call::Terminate), 2 => Just(Call::ResetPassword), 3 => own, 1 => Just(Call::Adopt(Whose::Nobodys)),
        1 => Just(Call::Adopt(Whose::Anothers))
    ]
}

/// What becomes of a request to the provider.
fn faults() -> impl Strategy<Value = Fault> {
    let answer = prop_oneof![
        4 => Just(Answer::Cut),
        1 => (1_u64..400).prop_map(|ms| Answer::Late(Duration::from_millis(ms))),
        1 => Just(Answer::TooMany(1)),
        2 => prop::sample::select(vec![500_u16, 502, 503, 504]).prop_map(Answer::Status),
        1 => Just(Answer::Half),
        1 => Just(Answer::Html),
        1 => Just(Answer::Twice),
    ];
    (any::<bool>(), answer).prop_filter_map("an answer that needs the server's", |(reaches, answer)| {
        let needs = matches!(answer, Answer::Late(_) | Answer::Half | Answer::Twice);
        (reaches || !needs).then_some(Fault { reaches, answer })
    })
}

/// What becomes of a webhook: lost for good, told again later, doubled at once or later, late.
fn misleading() -> impl Strategy<Value = Fault> {
    prop_oneof![
        3 => Just(Fault { reaches: false, answer: Answer::Empty }),
        1 => any::<bool>().prop_map(|reaches| Fault { reaches, answer: Answer::Cut }),
        1 => any::<bool>().prop_map(|reaches| Fault { reaches, answer: Answer::Status(503) }),
        2 => Just(Fault { reaches: true, answer: Answer::Twice }),
        2 => (1_u64..2_000).prop_map(|ms| Fault { reaches: true, answer: Answer::Held(Duration::from_millis(ms)) }),
    ]
}

fn steps(shop: Shop) -> impl Strategy<Value = Vec<Step>> {
    // GP tells nothing.
    let events = if shop == GP { 0 } else { 2 };
    let step = prop_oneof![
        8 => (0..SERVICES, calls(shop), 0_u8..2).prop_map(|(service, call, wait)| Step::Call { service, call, wait }),
        1 => (0..SERVICES, 0_u8..2).prop_map(|(service, wait)| Step::Repeat { service, wait }),
        3 => (faults(), 1_usize..4).prop_map(|(fault, times)| Step::Break { fault, times }),
        events => (misleading(), 1_usize..4).prop_map(|(fault, times)| Step::Mislead { fault, times }),
        1 => (0_u64..80).prop_map(|after_ms| Step::Kill { after_ms }),
        1 => (0..SERVICES, calls(shop)).prop_map(|(service, call)| Step::Orphan { service, call }),
    ];
    prop::collection::vec(step, 1..STEPS)
}

/// A request of a panel.
#[derive(Debug, Clone)]
struct Asked {
    call: Call,
    body: Value,
    idempotency_key: Option<String>,
}

/// What a panel knows of one of its services.
struct Known {
    key: String,
    order: Value,
    /// What it asked for last: a state, if it got so far as to ask.
    wanted: Option<&'static str>,
    /// The highest generation it heard of.
    creations: u32,
    /// What was asked for by each operation that it was told of.
    told: BTreeMap<String, Asked>,
    /// The last change with an idempotency key.
    last: Option<Asked>,
    /// Those whose end it does not know: it asks for them again.
    open: Vec<Asked>,
}

impl Known {
    fn new(key: String, order: Value) -> Self {
        let (told, open) = (BTreeMap::new(), Vec::new());
        Self { key, order, wanted: None, creations: 0, told, last: None, open }
    }

    /// Learns from an answer; 0 stands for none, and then the panel does not know, so that it will ask for the same again at the end.
    fn note(&mut self, asked: &Asked, status: u16, answer: &Value) {
        if let Some(id) = answer["operation"]["id"].as_str() {
            self.told.insert(id.to_owned(), asked.clone());
        }
        if asked.idempotency_key.is_some() {
            self.open.retain(|open| open.idempotency_key != asked.idempotency_key);
            if is_open(status) {
                self.open.push(asked.clone());
            }
        }
        // Refused: the panel shows the error, and its wish is what it was.
        if matches!(status, 400..=499 | 502 | 503) {
            return;
        }
        match asked.call {
            Call::Create | Call::Adopt(_) => {
                let generation = answer["operation"]["generation"].as_u64().or(answer["service"]["generation"].as_u64());
                self.creations = self.creations.max(generation.and_then(|found| u32::try_from(found).ok()).unwrap_or(0));
                self.wanted = Some("active");
            }
            Call::Suspend => self.wanted = Some("suspended"),
            Call::Unsuspend => self.wanted = Some("active"),
            Call::Terminate => self.wanted = Some("terminated"),
            _ => {}
        }
    }

    /// The last wish as a request.
    fn wish(&self) -> Asked {
        let call = match self.wanted.unwrap() {
            "suspended" => Call::Suspend,
            "terminated" => Call::Terminate,
            _ if self.creations == 0 => Call::Create,
            _ => Call::Unsuspend,
        };
        let body = if call == Call::Create { self.order.clone() } else { json!({}) };
        Asked { call, body, idempotency_key: None }
    }
}

/// Whether a panel asks again after an answer: its change is under way, or nobody knows.
fn is_open(status: u16) -> bool {
    matches!(status, 0 | 202 | 504)
}

/// The desk and the model of one script.
struct Play<'a> {
    desk: &'a mut Desk,
    shop: Shop,
    known: Vec<Known>,
    /// What stands at the provider and no key has, as it is adopted.
    nobodys: Value,
}

impl Play<'_> {
    /// Asks once; what the panel would do next: nothing, or ask again.
    async fn ask(&mut self, service: usize, call: Call, wait: u8) {
        let Some(body) = self.body(service, call).await else { return };
        let idempotency_key = call.needs_key().then(|| format!("change-{}", unique()));
        let asked = Asked { call, body, idempotency_key };
        if call.needs_key() {
            self.known[service].last = Some(asked.clone());
        }
        self.send(service, &asked, wait).await;
    }

    async fn send(&mut self, service: usize, asked: &Asked, wait: u8) {
        let answer = self.try_send(&self.known[service].key, asked, wait).await;
        let (status, told) = answer.unwrap_or((0, Value::Null));
        self.known[service].note(asked, status, &told);
    }

    async fn try_send(&self, key: &str, asked: &Asked, wait: u8) -> Option<(u16, Value)> {
        let (path, prefer) = (format!("/v1/services/{key}/{}", asked.call.name()), format!("wait={wait}"));
        let idempotency_key = asked.idempotency_key.as_deref().map(|key| ("Idempotency-Key", key));
        let headers: Vec<(&str, &str)> = [("Prefer", prefer.as_str())].into_iter().chain(idempotency_key).collect();
        let answer = self.desk.try_send("POST", &path, Some(&asked.body), &headers).await.ok()?;
        Some((answer.status, answer.json()))
    }

    /// What is sent along; none where there is nothing to ask for.
    async fn body(&self, service: usize, call: Call) -> Option<Value> {
        let known = &self.known[service];
        Some(match call {
            Call::Create => known.order.clone(),
            Call::Adopt(Whose::Nobodys) => self.nobodys.clone(),
            Call::Adopt(Whose::Anothers) => {
                let other = self.desk.service(&self.known[(service + 1) % SERVICES].key).await;
                self.shop.adoption(&other)?
            }
            Call::Renew => json!({"due_at": self.due_date(&known.key).await}),
            Call::ResetPassword => json!({"password": format!("Passw0rd-{}", unique())}),
            Call::ChangePackage(plan) => json!({"plan": plan}),
            Call::Power(action) => json!({"action": action}),
            Call::Suspend | Call::Unsuspend | Call::Terminate => json!({}),
        })
    }

    async fn kill_after(&mut self, milliseconds: u64) {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        self.desk.kill();
        self.desk.start();
    }

    /// The due date that the panel knows of. A provider that shows none is paid for one of its own.
    async fn due_date(&self, key: &str) -> String {
        let service = self.desk.service(key).await;
        service["due_at"].as_str().map_or_else(|| "2050-01-15".to_owned(), str::to_owned)
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Call { service, call, wait } => self.ask(service, call, wait).await,
            Step::Repeat { service, wait } => {
                if let Some(asked) = self.known[service].last.clone() {
                    self.send(service, &asked, wait).await;
                }
            }
            Step::Break { fault, times } => self.desk.upstream.inject(" /", fault, times),
            Step::Mislead { fault, times } => self.desk.events.inject(" /", fault, times),
            Step::Kill { after_ms } => self.kill_after(after_ms).await,
            Step::Orphan { service, call } => {
                let held = Fault { reaches: true, answer: Answer::Late(Duration::from_secs(3)) };
                self.desk.upstream.inject(call.path(self.shop), held, 1);
                self.ask(service, call, 0).await;
                self.kill_after(HELD_MS).await;
                // What was not asked for after all is not held when it is.
                self.desk.upstream.heal();
            }
        }
    }

    /// Repeats the last wish until it has come true, as a panel's queue or its staff would, and every change whose end is not known.
    async fn settle(&mut self, service: usize) {
        if self.known[service].wanted.is_some() {
            let wish = self.known[service].wish();
            self.until_ended(service, &wish).await;
        }
        for asked in self.known[service].open.clone() {
            self.until_ended(service, &asked).await;
        }
    }

    async fn until_ended(&mut self, service: usize, asked: &Asked) {
        let began = Instant::now();
        loop {
            let key = &self.known[service].key;
            let (status, told) = self.try_send(key, asked, 5).await.unwrap();
            assert!(began.elapsed() < PATIENCE, "{key} does not end: {asked:?} {told}");
            self.known[service].note(asked, status, &told);
            let is_never =
                told["kind"] == "not-found" || told["detail"].as_str().is_some_and(|why| why.contains("never came to be"));
            let has_ended = match asked.idempotency_key {
                Some(_) => status == 200 || matches!(status, 400..=499),
                None => status == 200 || is_never && asked.call != Call::Terminate,
            };
            if has_ended {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A service's operations that were done, the first one first.
    async fn done(&self, key: &str) -> Vec<Value> {
        let path = format!("/v1/operations?service={key}&state=done&limit=200");
        let told = self.desk.send("GET", &path, None, &[]).await.json();
        let mut operations = told["operations"].as_array().unwrap().clone();
        operations.reverse();
        operations
    }
}

async fn play(desk: &mut Desk, shop: Shop, round: usize, steps: Vec<Step>) {
    let known = (0..SERVICES)
        .map(|index| Known::new(format!("script-{round}-{index}"), shop.order(&format!("s{round}-{index}.example.com"))));
    let nobodys = desk.nobodys(shop).await;
    let before = Counts::of(desk, shop);
    let mut play = Play { desk, shop, known: known.collect(), nobodys };
    for step in steps {
        play.step(step).await;
    }
    play.desk.upstream.heal();
    play.desk.events.heal();
    for service in 0..SERVICES {
        play.settle(service).await;
    }
    judge(&play, &before).await;
}

/// What the provider has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Counts {
    /// Services that live.
    live: i64,
    /// Charges.
    charges: i64,
    /// Switched machines and new passwords of services, where the provider tells.
    actions: i64,
}

impl Counts {
    fn of(desk: &Desk, shop: Shop) -> Self {
        let actions = ["start", "stop", "reboot", "reinstall", "reset_password"];
        let actions = actions.map(|action| format!("CAST(body AS TEXT) LIKE '%\"action\":\"{action}\"%'")).join(" OR ");
        let actions = desk.provider.number(&format!("SELECT COUNT(*) FROM idempotency WHERE status = 202 AND ({actions})"));
        Self { live: desk.live(shop), charges: desk.charges(), actions }
    }

    fn since(self, before: &Self) -> Self {
        let Self { live, charges, actions } = self;
        Self { live: live - before.live, charges: charges - before.charges, actions: actions - before.actions }
    }
}

/// What must hold once everything has come to its end.
async fn judge(play: &Play<'_>, before: &Counts) {
    let desk = &*play.desk;
    let listed = desk.send("GET", "/v1/operations?limit=200", None, &[]).await.json();
    let operations = listed["operations"].as_array().unwrap().iter().map(|operation| text(operation, "id"));
    for id in play.known.iter().flat_map(|known| known.told.keys().map(String::as_str)).chain(operations) {
        desk.until(id, &["done", "failed"]).await;
    }
    let mut expected = Counts::default();
    let mut adoptions = 0;
    for known in &play.known {
        let done = play.done(&known.key).await;
        let end = desk.service(&known.key).await;
        let state = end["state"].as_str().unwrap_or("never");
        if let (Some(wanted), true) = (known.wanted, end["state"].is_string() && state != "failed") {
            assert_eq!(state, wanted, "{}: {end}", known.key);
        }
        let is_live = matches!(state, "active" | "suspended");
        expected.live += i64::from(is_live);
        adoptions += done.iter().filter(|operation| operation["operation"] == "adopt").count();
        let life = Life::of(&done, &known.told);
        expected.charges += paid_terms(desk, &known.key) + life.upgrades;
        expected.actions += if play.shop == KERNELHOST { life.actions } else { 0 };
        if is_live {
            compare(play, &end, &life).await;
        }
    }
    // What was adopted is counted with its key, whatever became of it.
    expected.live -= i64::from(adoptions > 0);
    assert!(adoptions <= 1, "{adoptions} keys had one service");
    assert_eq!(
        Counts::of(desk, play.shop).since(before),
        expected,
        "one live service per key, one charge and action per change: {listed}"
    );
    let twice = "SELECT COUNT(*) FROM (SELECT 1 FROM operations WHERE state = 'done'
                   AND (sameness LIKE '%key/%' OR kind IN ('create', 'adopt', 'renew')) GROUP BY service_id, sameness
                   HAVING COUNT(*) > 1) twice";
    assert_eq!(desk.book.number(twice), 0, "a change was made twice");
}

/// Orders and renewals of a key that were made.
fn paid_terms(desk: &Desk, key: &str) -> i64 {
    desk.book.number(&format!(
        "SELECT COUNT(*) FROM operations o JOIN managed_services s ON s.id = o.service_id
         WHERE s.service_key = '{key}' AND o.state = 'done' AND o.sent_at IS NOT NULL AND o.kind IN ('create', 'renew')"
    ))
}

/// What a key's services have been through, by what was asked for.
#[derive(Default)]
struct Life<'a> {
    /// The package at the end.
    package: &'a str,
    /// Changes to a dearer package.
    upgrades: i64,
    /// Switched machines and new passwords.
    actions: i64,
    /// The password at the end, where the panel set it.
    password: Option<&'a str>,
}

impl<'a> Life<'a> {
    fn of(done: &[Value], told: &'a BTreeMap<String, Asked>) -> Self {
        let mut life = Self { package: PACKAGES[0], ..Self::default() };
        let rank = |package: &str| PACKAGES.iter().position(|known| *known == package);
        for operation in done {
            let asked = || &told.get(text(operation, "id")).unwrap_or_else(|| panic!("nobody was told of {operation}")).body;
            match text(operation, "operation") {
                "create" | "adopt" => (life.package, life.password) = (PACKAGES[0], None),
                "change-package" => {
                    let package = text(asked(), "plan");
                    life.upgrades += i64::from(rank(package) > rank(life.package));
                    life.package = package;
                }
                "reset-password" => {
                    life.actions += 1;
                    life.password = Some(text(asked(), "password"));
                }
                "power" => {
                    life.actions += 1;
                    // Reinstalled, a machine has a password of its own.
                    life.password = life.password.filter(|_| asked()["action"] != "reinstall");
                }
                _ => {}
            }
        }
        life
    }
}

/// A live service at the provider, against what was asked for.
async fn compare(play: &Play<'_>, service: &Value, life: &Life<'_>) {
    if play.shop == GP {
        let (domain, package) = (text(service, "domain"), life.package);
        let license =
            format!("SELECT COUNT(*) FROM licenses WHERE domain = '{domain}' AND package = '{package}' AND state <> 'cancelled'");
        assert_eq!(play.desk.provider.number(&license), 1, "{package}: {service}");
    } else if let Some(password) = life.password {
        let path = format!("/v1/services/{}/credentials", text(service, "key"));
        let login = play.desk.send("GET", &path, None, &[]).await.json();
        assert_eq!(login["password"], password, "{service}");
    }
}

/// One gateway and one provider for all scripts of a shop: what one script leaves must not disturb the next.
fn run(engine: Engine, shop: Shop, scripts: u32) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let journal = "first_pause_ms = 10\nquiet_ms = 50\nretry_for_s = 20\n";
    let mut desk = runtime.block_on(Desk::with(engine, journal));
    if shop == GP {
        // Packages that were changed do not cost the same.
        desk.reconfigure(|settings| settings.replace("settings = { renew_price = \"4.90\" }", ""));
    } else {
        runtime.block_on(desk.listen());
    }
    let desk = std::cell::RefCell::new(desk);
    let round = std::cell::Cell::new(0);
    // A failed script leaves the desk as it is, so that what a shorter one finds there says nothing: the first failure is told as it was.
    let config = Config { cases: scripts, max_shrink_iters: 0, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&steps(shop), |steps| {
            round.set(round.get() + 1);
            runtime.block_on(play(&mut desk.borrow_mut(), shop, round.get(), steps));
            Ok(())
        })
        .unwrap();
    let heard = desk.borrow().book.number("SELECT COUNT(*) FROM provider_events");
    assert_eq!(heard > 0, shop == KERNELHOST, "{heard} webhooks were heard");
}

/// Half of them at each provider; a gateway on a database server takes longer to be there again.
fn scripts() -> u32 {
    match (Engine::of_module(module_path!()), is_long()) {
        (Engine::Sqlite, false) => 50,
        (Engine::Sqlite, true) => 500,
        (Engine::Postgres, false) => 8,
        (Engine::Postgres, true) => 80,
    }
}

#[test]
fn scripts_with_idempotency() {
    run(Engine::of_module(module_path!()), KERNELHOST, scripts());
}

#[test]
fn scripts_without_idempotency() {
    run(Engine::of_module(module_path!()), GP, scripts());
}
