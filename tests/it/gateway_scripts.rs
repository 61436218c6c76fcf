//! Random scripts of panel calls, faults of the provider and kill -9 of the gateway. Whatever happens on the way: at the end each
//! service stands as it was last asked for, there is one live service per key, each intended change was charged once, and nothing
//! was destroyed that nobody asked for.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use provisor_tests::binary::is_long;
use provisor_tests::book::Engine;
use provisor_tests::desk::{Desk, SHOPS, Shop, text};
use provisor_tests::faults::{Answer, Fault};
use serde_json::{Value, json};

/// Services of one script.
const SERVICES: usize = 3;
/// Steps of one script at most.
const STEPS: usize = 14;
/// How long a panel repeats one call until it is answered with an end.
const PATIENCE: Duration = Duration::from_secs(90);

/// One step of a script.
#[derive(Debug, Clone)]
enum Step {
    /// The panel asks, and waits this many seconds.
    Call { service: usize, call: Call, wait: u8 },
    /// The next requests to the provider go wrong.
    Break { fault: Fault, times: usize },
    /// The gateway is killed in the middle of whatever it does, and started again.
    Kill { after_ms: u64 },
    /// The panel asks, the provider makes the change, and the gateway is killed before it hears of it.
    Orphan { service: usize, call: Call },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Create,
    Suspend,
    Unsuspend,
    Renew,
    Terminate,
}

impl Call {
    fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Suspend => "suspend",
            Self::Unsuspend => "unsuspend",
            Self::Renew => "renew",
            Self::Terminate => "terminate",
        }
    }
}

/// How long the provider has to make a change whose answer is held back.
const HELD_MS: u64 = 350;

impl Call {
    /// Where a provider is asked for it.
    fn path(self, shop: Shop) -> &'static str {
        match (shop.provider, self) {
            ("gp", Self::Create) => "/autoregister/",
            ("gp", Self::Suspend) => "/suspended/",
            ("gp", Self::Unsuspend) => "/active/",
            ("gp", Self::Renew) => "/renew/",
            ("gp", Self::Terminate) => "/delete/",
            (_, Self::Create) => "POST /cp/kh_reseller_api/v1/orders",
            _ => "/actions",
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let call = prop_oneof![
        4 => Just(Call::Create), 2 => Just(Call::Suspend), 2 => Just(Call::Unsuspend), 2 => Just(Call::Renew),
        2 => Just(Call::Terminate)
    ];
    let answer = prop_oneof![
        4 => Just(Answer::Cut),
        1 => (1_u64..400).prop_map(|ms| Answer::Late(Duration::from_millis(ms))),
        1 => Just(Answer::TooMany(1)),
        2 => prop::sample::select(vec![500_u16, 502, 503, 504]).prop_map(Answer::Status),
        1 => Just(Answer::Half),
        1 => Just(Answer::Html),
    ];
    let fault = (any::<bool>(), answer).prop_filter_map("an answer that needs the server's", |(reaches, answer)| {
        let needs = matches!(answer, Answer::Late(_) | Answer::Half);
        (reaches || !needs).then_some(Fault { reaches, answer })
    });
    let step = prop_oneof![
        6 => (0..SERVICES, call.clone(), 0_u8..2).prop_map(|(service, call, wait)| Step::Call { service, call, wait }),
        3 => (fault, 1_usize..4).prop_map(|(fault, times)| Step::Break { fault, times }),
        1 => (0_u64..80).prop_map(|after_ms| Step::Kill { after_ms }),
        1 => (0..SERVICES, call).prop_map(|(service, call)| Step::Orphan { service, call }),
    ];
    prop::collection::vec(step, 1..STEPS)
}

/// What a panel knows of one of its services.
struct Known {
    key: String,
    shop: Shop,
    order: Value,
    /// What it asked for last: a state, if it got so far as to ask.
    wanted: Option<&'static str>,
    /// The highest generation it heard of.
    creations: u32,
}

/// The desk and the model of one script.
struct Play<'a> {
    desk: &'a mut Desk,
    known: Vec<Known>,
}

impl Play<'_> {
    /// Asks once; what the panel would do next: nothing, or ask again.
    async fn ask(&mut self, service: usize, call: Call, wait: u8) {
        let known = &self.known[service];
        let body = match call {
            Call::Create => known.order.clone(),
            Call::Renew => json!({"due_at": self.due_date(&known.key).await}),
            _ => json!({}),
        };
        let known = &self.known[service];
        let path = format!("/v1/services/{}/{}", known.key, call.name());
        let prefer = format!("wait={wait}");
        let answer = self.desk.try_send("POST", &path, Some(&body), &[("Prefer", &prefer)]).await;
        // Without an answer the panel does not know, so it will ask for the same again at the end.
        let (status, told) = answer.map_or((0, Value::Null), |answer| (answer.status, answer.json()));
        self.note(service, call, status, &told);
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

    fn note(&mut self, service: usize, call: Call, status: u16, told: &Value) {
        let known = &mut self.known[service];
        // Refused: the panel shows the error, and its wish is what it was.
        if matches!(status, 400..=499 | 502 | 503) {
            return;
        }
        match call {
            Call::Create => {
                let generation = told["operation"]["generation"].as_u64().or(told["service"]["generation"].as_u64());
                known.creations = known.creations.max(generation.and_then(|found| u32::try_from(found).ok()).unwrap_or(0));
                known.wanted = Some("active");
            }
            Call::Suspend => known.wanted = Some("suspended"),
            Call::Unsuspend => known.wanted = Some("active"),
            Call::Terminate => known.wanted = Some("terminated"),
            Call::Renew => {}
        }
    }

    /// Repeats the last wish until it has come true, as a panel's queue or its staff would.
    async fn settle(&self, known: &Known) -> Value {
        let call = match known.wanted.unwrap() {
            "suspended" => Call::Suspend,
            "terminated" => Call::Terminate,
            _ if known.creations == 0 => Call::Create,
            _ => Call::Unsuspend,
        };
        let body = if call == Call::Create { known.order.clone() } else { json!({}) };
        let path = format!("/v1/services/{}/{}", known.key, call.name());
        let began = Instant::now();
        loop {
            let answer = self.desk.send("POST", &path, Some(&body), &[("Prefer", "wait=5")]).await;
            let told = answer.json();
            let service = self.desk.service(&known.key).await;
            if answer.status == 200 {
                return service;
            }
            let is_never =
                told["kind"] == "not-found" || told["detail"].as_str().is_some_and(|why| why.contains("never came to be"));
            if is_never && known.wanted != Some("terminated") {
                return service;
            }
            assert!(began.elapsed() < PATIENCE, "{} does not end: {told}", known.key);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn play(desk: &mut Desk, shop: Shop, round: usize, steps: Vec<Step>) {
    let known = (0..SERVICES).map(|index| Known {
        key: format!("script-{round}-{index}"),
        shop,
        order: shop.order(&format!("s{round}-{index}.example.com")),
        wanted: None,
        creations: 0,
    });
    let (charges, live) = (desk.charges(), desk.live(shop));
    let known: Vec<Known> = known.collect();
    let mut play = Play { desk, known };
    for step in steps {
        match step {
            Step::Call { service, call, wait } => play.ask(service, call, wait).await,
            Step::Break { fault, times } => play.desk.upstream.inject(" /", fault, times),
            Step::Kill { after_ms } => play.kill_after(after_ms).await,
            Step::Orphan { service, call } => {
                let held = Fault { reaches: true, answer: Answer::Late(Duration::from_secs(3)) };
                play.desk.upstream.inject(call.path(shop), held, 1);
                play.ask(service, call, 0).await;
                play.kill_after(HELD_MS).await;
                // What was not asked for after all is not held when it is.
                play.desk.upstream.heal();
            }
        }
    }
    play.desk.upstream.heal();
    judge(&mut play, shop, charges, live).await;
}

/// What must hold once everything has come to its end.
async fn judge(play: &mut Play<'_>, shop: Shop, charges: i64, live: i64) {
    let mut ends: BTreeMap<String, Value> = BTreeMap::new();
    for known in play.known.iter().filter(|known| known.wanted.is_some()) {
        ends.insert(known.key.clone(), play.settle(known).await);
    }
    let open = play.desk.send("GET", "/v1/operations?limit=200", None, &[]).await.json();
    let operations: Vec<&Value> = open["operations"].as_array().unwrap().iter().collect();
    for operation in operations.iter().filter(|operation| !matches!(text(operation, "state"), "done" | "failed")) {
        play.desk.until(text(operation, "id"), &["done", "failed"]).await;
    }
    let (mut expected_live, mut expected_charges) = (0, 0);
    for known in &play.known {
        assert_eq!(known.shop, shop);
        let filter = format!(
            "SELECT COUNT(*) FROM operations o JOIN managed_services s ON s.id = o.service_id
                              WHERE s.service_key = '{}' AND o.state = 'done' AND o.sent_at IS NOT NULL AND o.kind",
            known.key
        );
        expected_charges += play.desk.book.number(&format!("{filter} IN ('create', 'renew')"));
        let Some(end) = ends.get(&known.key) else { continue };
        let state = end["state"].as_str().unwrap_or("never");
        if let (Some(wanted), true) = (known.wanted, end["state"].is_string() && state != "failed") {
            assert_eq!(state, wanted, "{}: {end}", known.key);
        }
        expected_live += i64::from(matches!(state, "active" | "suspended"));
    }
    assert_eq!(play.desk.live(shop) - live, expected_live, "one live service per key that is not ended");
    assert_eq!(play.desk.charges() - charges, expected_charges, "one charge per change that was made");
}

/// One gateway and one provider for all scripts of a shop: what one script leaves must not disturb the next.
fn run(engine: Engine, shop: Shop, scripts: u32) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let journal = "first_pause_ms = 10\nquiet_ms = 50\nretry_for_s = 20\n";
    let desk = std::cell::RefCell::new(runtime.block_on(Desk::with(engine, journal)));
    let round = std::cell::Cell::new(0);
    let config = Config { cases: scripts, max_shrink_iters: 30, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&steps(), |steps| {
            round.set(round.get() + 1);
            runtime.block_on(play(&mut desk.borrow_mut(), shop, round.get(), steps));
            Ok(())
        })
        .unwrap();
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
    run(Engine::of_module(module_path!()), SHOPS[0], scripts());
}

#[test]
fn scripts_without_idempotency() {
    run(Engine::of_module(module_path!()), SHOPS[1], scripts());
}
