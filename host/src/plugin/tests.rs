use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use super::contract::{Call, Effect, Money, Order, Outcome, ProblemKind, Retry, ServiceRef, Setting};
use super::*;
use crate::egress::upstream::{Step, Upstream, ok};

const BALANCE: &str = r#"{"balance":{"amount":"12.50","currency":"EUR"},"card_on_file":false}"#;
const SECRET: &str = "MARKED-secret-of-the-profile";

fn quick() -> Options {
    let egress = EgressOptions { first_byte_timeout: Duration::from_secs(1), ..EgressOptions::default() };
    Options { concurrency: 4, egress, ..Options::default() }
}

fn profile(upstream: &Upstream) -> Profile {
    Profile {
        name: "test".to_owned(),
        provider: "kernelhost".to_owned(),
        base_url: Some(format!("http://127.0.0.1:{}/cp/kh_reseller_api/", upstream.port)),
        key: "kh_live_0123456789ABCDEFGHIJKLMNOPQRSTUV".to_owned(),
        secret: SecretString::from(SECRET),
        settings: BTreeMap::new(),
        hosts: Vec::new(),
        allow_private: true,
    }
}

/// The built-in component, compiled once for all tests.
async fn builtin_plugin() -> &'static Plugin {
    static PLUGIN: OnceCell<Plugin> = OnceCell::const_new();
    PLUGIN.get_or_init(|| async { Host::start(quick()).unwrap().builtin().await.unwrap() }).await
}

async fn bound(upstream: &Upstream) -> Caller {
    builtin_plugin().await.bind(profile(upstream)).unwrap()
}

fn call(deadline_ms: u32) -> Call {
    Call { idempotency_key: "create-17.1".to_owned(), attempt: 1, deadline_ms, notes: Vec::new() }
}

fn order(note: Option<String>) -> Order {
    let password = Some("MARKED-password".to_owned());
    Order { plan: "42".to_owned(), term: None, domain: None, email: None, password, note, options: Vec::new() }
}

#[tokio::test]
async fn the_builtin_component_asks_and_changes() {
    let upstream = Upstream::start(|request| {
        if request.starts_with("GET") {
            ok(BALANCE)
        } else {
            ok(r#"{"id":17,"status":"paid","product_id":42,"billing_cycle":"monthly","service_id":null,"invoice_id":3}"#)
        }
    })
    .await;
    let caller = bound(&upstream).await;
    assert_eq!(caller.balance().await, Ok(Money { minor: 1250, currency: Some("EUR".to_owned()) }));
    // The body does not fit into one write of wasi:io.
    let note = "n".repeat(50_000);
    let outcome = caller.create(call(10_000), order(Some(note.clone()))).await.unwrap();
    assert!(matches!(outcome, Outcome::Pending(service) if service.remote_id == "order/17"));
    let requests = upstream.requests();
    assert!(requests[0].starts_with("GET /cp/kh_reseller_api/v1/billing/balance HTTP/1.1\r\n"));
    assert!(requests[0].contains(&format!("host: 127.0.0.1:{}\r\n", upstream.port)));
    assert!(requests[1].starts_with("POST /cp/kh_reseller_api/v1/orders HTTP/1.1\r\n"));
    assert!(requests[1].contains(&note));
    assert_eq!(upstream.connections(), 1);
    assert!(requests.iter().all(|request| !request.contains("MARKED")));
}

#[tokio::test]
async fn a_component_can_tell_failures_apart() {
    for (script, kind, effect) in [
        (vec![Step::Close], ProblemKind::Unreachable, Effect::Unknown),
        (vec![Step::Say(b"HTTP/1.1 200 OK\r\ncontent-length: 2000000\r\n\r\n".to_vec())], ProblemKind::Protocol, Effect::Unknown),
        (vec![Step::Say(b"nonsense\r\n\r\n".to_vec())], ProblemKind::Protocol, Effect::Unknown),
    ] {
        let upstream = Upstream::start(move |_| script.clone()).await;
        let problem = bound(&upstream).await.create(call(1500), order(None)).await.unwrap_err();
        assert_eq!((problem.kind, problem.effect), (kind, effect), "{}", problem.message);
    }
    let upstream = Upstream::start(|_| ok("{}")).await;
    let plugin = builtin_plugin().await;
    let closed = Profile { base_url: Some("http://127.0.0.1:1".to_owned()), ..profile(&upstream) };
    let problem = plugin.bind(closed).unwrap().create(call(1500), order(None)).await.unwrap_err();
    assert_eq!((problem.kind, problem.effect), (ProblemKind::Unreachable, Effect::None), "{}", problem.message);
}

#[tokio::test]
async fn a_silent_provider_leaves_an_unknown_effect() {
    let upstream = Upstream::start(|_| vec![Step::Wait(Duration::from_mins(1))]).await;
    let caller = bound(&upstream).await;
    let started = std::time::Instant::now();
    let problem = caller.create(call(1500), order(None)).await.unwrap_err();
    assert_eq!(problem.effect, Effect::Unknown, "{}", problem.message);
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_unknown_provider_and_unfit_profiles_are_named() {
    let upstream = Upstream::start(|_| ok("{}")).await;
    let plugin = builtin_plugin().await;
    let refused = |profile: Profile| plugin.bind(profile).map(|_| ()).unwrap_err().to_string();
    let known = "there is no provider `nobody`; there are: kernelhost, gp";
    assert_eq!(refused(Profile { provider: "nobody".to_owned(), ..profile(&upstream) }), known);
    let settings = BTreeMap::from([("colour".to_owned(), SecretString::from("blue"))]);
    assert_eq!(refused(Profile { settings, ..profile(&upstream) }), "the provider has no setting `colour`");
    assert!(refused(Profile { allow_private: false, ..profile(&upstream) }).contains("allow_private"));
    assert!(!format!("{:?}", profile(&upstream)).contains("MARKED"));
}

#[tokio::test]
async fn a_provider_that_echoes_what_it_was_sent_gives_no_secret_away() {
    let upstream = Upstream::start(|_| {
        let body = format!(
            r#"{{"type":"x/refused","title":"t","status":422,"detail":"{SECRET} MARKED-password MARKED-option vm.example.com",
                "reason":"{SECRET}"}}"#
        );
        vec![Step::Say(
            format!("HTTP/1.1 422 No\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
                .into_bytes(),
        )]
    })
    .await;
    let option = |name: &str, value: &str| Setting { name: name.to_owned(), value: value.to_owned() };
    let options = vec![option("hostname", "vm.example.com"), option("motd", "MARKED-option")];
    let problem = bound(&upstream).await.create(call(3000), Order { options, ..order(None) }).await.unwrap_err();
    let told = format!("{problem:?}");
    assert!(told.contains("vm.example.com") && !told.contains("MARKED"), "{told}");
}

#[tokio::test]
async fn the_builtin_component_imports_exactly_the_checked_in_list() {
    let (contents, refusals) = audit::audit(builtin::COMPONENT);
    assert_eq!(refusals, []);
    let interfaces: Vec<&str> = contents.imports.iter().map(|name| name.split('@').next().unwrap()).collect();
    let listed: Vec<&str> = include_str!("imports.txt").lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(interfaces, listed);
    assert_eq!(contents.contract_version.as_deref(), Some(CONTRACT_VERSION));
}

#[test]
fn the_builtin_component_names_no_machine() {
    let text = String::from_utf8_lossy(builtin::COMPONENT);
    for path in ["/home/", "/root/", "/Users/", env!("CARGO_MANIFEST_DIR"), env!("OUT_DIR")] {
        assert!(!text.contains(path), "{path}");
    }
}

#[test]
fn bytes_that_are_no_provider_are_named_for_what_they_are() {
    let component = |text: &str| wat::parse_str(text).unwrap();
    let whole = builtin::COMPONENT;
    let contract = |version: &str, more: &str| {
        let exports: String = ["types", "provisioning", "events"]
            .map(|name| format!(r#"(export "provisor:provisioning/{name}@{version}" (instance $i))"#))
            .concat();
        component(&format!("(component {more} (instance $i) {exports})"))
    };
    for (bytes, expected) in [
        (Vec::new(), Refusal::NotWasm),
        (b"#!/bin/sh".to_vec(), Refusal::NotWasm),
        (b"\0as".to_vec(), Refusal::Truncated(3)),
        (component("(module)"), Refusal::CoreModule),
        (whole[..20].to_vec(), Refusal::Truncated(20)),
        (whole[..whole.len() / 2].to_vec(), Refusal::Truncated(whole.len() / 2)),
        (vec![0; SIZE_MAX + 1], Refusal::TooLarge(SIZE_MAX + 1)),
        (contract("0.2.0", ""), Refusal::Version { found: "0.2.0".to_owned() }),
        (component("(component)"), Refusal::Export("events")),
        (
            contract("0.1.0", r#"(import "wasi:filesystem/types@0.2.6" (instance))"#),
            Refusal::Import("wasi:filesystem/types@0.2.6".to_owned()),
        ),
        (
            contract("0.1.0", r#"(import "wasi:sockets/tcp@0.2.6" (instance))"#),
            Refusal::Import("wasi:sockets/tcp@0.2.6".to_owned()),
        ),
        (contract("0.1.0", r#"(import "wasi:io/poll@0.3.0" (instance))"#), Refusal::Import("wasi:io/poll@0.3.0".to_owned())),
        (
            contract("0.1.0", r#"(import "wasi:io/poll@0.2.0-rc-1" (instance))"#),
            Refusal::Import("wasi:io/poll@0.2.0-rc-1".to_owned()),
        ),
        (contract("0.1.0", r#"(import "f" (func))"#), Refusal::Import("f".to_owned())),
    ] {
        let (_, refusals) = audit::audit(&bytes);
        assert_eq!(refusals.first(), Some(&expected), "{refusals:?}");
    }
    // A nested component's imports are not the component's.
    let nested = contract("0.1.0", r#"(component (import "wasi:filesystem/types@0.2.6" (instance)))"#);
    assert_eq!(audit::audit(&nested).1, []);
}

#[tokio::test]
async fn refused_bytes_never_run() {
    let host = Host::start(quick()).unwrap();
    let loaded = host.load(b"#!/bin/sh".as_slice()).await.map(|_| ());
    assert_eq!(loaded, Err(LoadError::Refused(vec![Refusal::NotWasm])));
    // The right names with nothing behind them.
    let exports: String = ["types", "provisioning", "events"]
        .map(|name| format!(r#"(export "provisor:provisioning/{name}@0.1.0" (instance $i))"#))
        .concat();
    let hollow = wat::parse_str(format!("(component (instance $i) {exports})")).unwrap();
    assert!(matches!(host.load(hollow.clone()).await.map(|_| ()), Err(LoadError::Contract(_))));
    let inspection = host.inspect(hollow).await;
    assert!(inspection.providers.is_empty() && inspection.refusals.len() == 1);
    let good = host.inspect(builtin::COMPONENT).await;
    assert_eq!((good.refusals.len(), good.providers.len()), (0, 2));
}

#[tokio::test]
async fn a_compiled_component_is_used_again() {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::start(|_| ok(BALANCE)).await);
    for _ in 0..2 {
        let cache = Some(Cache::open(dir.path().join("cache"), Zeroizing::new([7; 32])).unwrap());
        let host = Host::start(Options { cache, ..quick() }).unwrap();
        let caller = host.builtin().await.unwrap().bind(profile(&upstream)).unwrap();
        assert_eq!(caller.balance().await.map(|money| money.minor), Ok(1250));
    }
    assert_eq!(std::fs::read_dir(dir.path().join("cache")).unwrap().count(), 1);
}

#[test]
fn a_stopped_change_says_whether_it_may_have_acted() {
    let stopped = CallError::Wall(Duration::from_secs(1));
    let problem = stopped.problem(true);
    assert_eq!((problem.kind, problem.effect), (ProblemKind::Internal, Effect::Unknown));
    assert_eq!(stopped.problem(false).effect, Effect::None);
    assert_eq!(CallError::Stack.problem(false).retry, Retry::Never);
}

#[tokio::test]
async fn an_operation_a_provider_lacks_is_unsupported() {
    let upstream = Upstream::start(|_| ok("{}")).await;
    let service = ServiceRef { remote_id: Some("service/1".to_owned()), domain: None, username: None };
    let problem = bound(&upstream).await.sign_on(service, "anywhere".to_owned()).await.unwrap_err();
    assert_eq!((problem.kind, upstream.connections()), (ProblemKind::Unsupported, 0));
}
