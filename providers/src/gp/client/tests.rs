use super::super::script::*;
use super::super::wire::text;
use super::*;
use crate::contract::{Effect, Retry};

/// A change, as the tables below name it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Change {
    Create,
    Suspend,
    Unsuspend,
    Terminate,
    Renew,
    Password,
    Package,
}

fn make(change: Change, net: &Net, call: Call) -> Result<Outcome, Problem> {
    let (at, service) = (at(), named("example.com"));
    match change {
        Change::Create => run(Client.create(net, &at, call, order())),
        Change::Suspend => run(Client.suspend(net, &at, call, service, None)),
        Change::Unsuspend => run(Client.unsuspend(net, &at, call, service)),
        Change::Terminate => run(Client.terminate(net, &at, call, service)),
        Change::Renew => run(Client.renew(net, &at, call, service, "2027-01-15T08:00:00Z".to_owned())),
        Change::Password => run(Client.reset_password(net, &at, call, service, Some(PASSWORD.into()))),
        Change::Package => run(Client.change_package(net, &at, call, service, "20k".to_owned(), Vec::new())),
    }
}

fn done(outcome: Outcome) -> Service {
    match outcome {
        Outcome::Done(service) => service,
        Outcome::Pending(_) => panic!("GP never leaves anything pending"),
    }
}

const ALL: [Change; 7] =
    [Change::Create, Change::Suspend, Change::Unsuspend, Change::Terminate, Change::Renew, Change::Password, Change::Package];
const LIVE: &str = r#"{"status":"active","exist":"exists"}"#;
const SUSPENDED: &str = r#"{"status":"suspended","exist":"exists"}"#;
const ABSENT: &str = r#"{"status":"Package not Found!"}"#;
const OK: &str = r#"{"status":"ok"}"#;
const TOKEN: &str = r#"{"status":"ok","token":"0123456789abcdef0123456789abcdef01234567"}"#;
const RICH: &str = r#"{"status":"OK - 100.00"}"#;
const POORER: &str = r#"{"status":"OK - 95.10"}"#;
const FAILED: &str = r#"{"status":"Connection failed"}"#;
const LOST: &str = "lost";

/// Answers in short: a body at status 200, or what is no answer.
fn script(answers: &[&str]) -> Net {
    Net::new(answers.iter().map(|answer| match *answer {
        LOST => lost(),
        body => json(200, body),
    }))
}

#[test]
fn every_change_in_good_weather() {
    for (change, answers, asked, state) in [
        (Change::Create, &[ABSENT, TOKEN][..], &["list", "autoregister"][..], State::Active),
        (Change::Suspend, &[OK], &["suspended"], State::Suspended),
        (Change::Unsuspend, &[OK], &["active"], State::Active),
        (Change::Terminate, &[OK], &["delete"], State::Terminated),
        (Change::Renew, &[RICH, OK, LIVE], &["getcredit", "renew", "list"], State::Active),
        (Change::Password, &[OK, SUSPENDED], &["passwordreset", "list"], State::Suspended),
        (Change::Package, &[LIVE, OK], &["list", "packageupdate"], State::Active),
    ] {
        let net = script(answers);
        let service = done(make(change, &net, call(1)).unwrap());
        assert_eq!(net.asked(), asked, "{change:?}");
        assert_eq!((service.remote_id.as_str(), service.state), ("example.com", state), "{change:?}");
    }
}

#[test]
fn what_create_sends() {
    let net = script(&[ABSENT, TOKEN]);
    let service = done(make(Change::Create, &net, call(1)).unwrap());
    assert_eq!(service.properties, [property("token", "0123456789abcdef0123456789abcdef01234567")]);
    assert_eq!(service.plan.as_deref(), Some("10k"));
    let request = &net.sent.borrow()[1];
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "https://gp.example/api/v1/autoregister/"));
    let sent = net.form(1);
    assert_eq!(sent.get("package"), Some("10k"));
    assert_eq!(sent.get("uemail"), Some("customer@example.com"));
    assert_eq!(password::open(API_KEY, sent.get("password").unwrap()).unwrap().expose_secret(), PASSWORD);
    let (domain, timestamp) = (sent.get("domain").unwrap(), sent.get("timestamp").unwrap());
    assert_eq!(domain, "example.com");
    assert!(super::super::hash::verify(API_KEY, domain, timestamp, sent.get("hash").unwrap()));
    assert!(super::super::hash::is_fresh(timestamp, net.now()));
}

#[test]
fn a_live_package_nobody_told_of_is_left_alone() {
    for answer in [LIVE, SUSPENDED, r#"{"status":"limbo","exist":"exists"}"#] {
        let net = script(&[answer]);
        let problem = make(Change::Create, &net, call(1)).unwrap_err();
        assert_eq!((problem.kind, problem.effect), (ProblemKind::AlreadyExists, Effect::None));
        assert_eq!(net.asked(), ["list"]);
    }
    // An ended one is none.
    let net = script(&[r#"{"status":"cancelled","exist":"exists"}"#, TOKEN]);
    assert!(make(Change::Create, &net, call(1)).is_ok());
    // Without knowing, nothing is made.
    let net = script(&[r#"{"status":"Error"}"#]);
    assert_eq!(make(Change::Create, &net, call(1)).unwrap_err().effect, Effect::None);
    assert_eq!(net.asked(), ["list"]);
}

/// The host journals how the domain stands before it lets the first try go: a later one is not to take for its own what was there.
#[test]
fn what_the_host_noted_says_whose_package_it_is() {
    let noted = |state, attempt| Call { notes: vec![property("status-before", state)], ..call(attempt) };
    for attempt in [1, 2] {
        for state in ["active", "suspended", "unknown"] {
            let net = script(&[]);
            let problem = make(Change::Create, &net, noted(state, attempt)).unwrap_err();
            assert_eq!((problem.kind, problem.effect), (ProblemKind::AlreadyExists, Effect::None), "{state} {attempt}");
            assert_eq!(net.asked().len(), 0);
        }
    }
    for state in ["missing", "terminated"] {
        let net = script(&[TOKEN]);
        assert!(make(Change::Create, &net, noted(state, 1)).is_ok());
        assert_eq!(net.asked(), ["autoregister"]);
        let net = script(&[LIVE]);
        assert!(make(Change::Create, &net, noted(state, 2)).is_ok());
        assert_eq!(net.asked(), ["list"]);
    }
}

/// After a lost answer evidence decides, and what it proves done is never sent again.
#[test]
fn lost_answers_are_made_up_for() {
    use Change::{Create, Package, Password, Renew, Suspend, Terminate, Unsuspend};
    for (change, answers, asked) in [
        (Create, &[ABSENT, LOST, LIVE][..], &["list", "autoregister", "list"][..]),
        (Create, &[ABSENT, LOST, ABSENT, ABSENT, TOKEN], &["list", "autoregister", "list", "list", "autoregister"]),
        (Suspend, &[LOST, SUSPENDED], &["suspended", "list"]),
        (Suspend, &[LOST, LIVE, LIVE, OK], &["suspended", "list", "list", "suspended"]),
        (Unsuspend, &[LOST, LIVE], &["active", "list"]),
        (Unsuspend, &[LOST, SUSPENDED, SUSPENDED, OK], &["active", "list", "list", "active"]),
        (Terminate, &[LOST, ABSENT], &["delete", "list"]),
        (Terminate, &[LOST, LIVE, LIVE, OK], &["delete", "list", "list", "delete"]),
        // It went through after all, between looking and trying again.
        (
            Terminate,
            &[LOST, LIVE, LIVE, r#"{"status":"Package not found!"}"#, ABSENT],
            &["delete", "list", "list", "delete", "list"],
        ),
        (Renew, &[RICH, LOST, POORER, LIVE], &["getcredit", "renew", "getcredit", "list"]),
        (Renew, &[RICH, LOST, RICH, RICH, OK, LIVE], &["getcredit", "renew", "getcredit", "getcredit", "renew", "list"]),
        (Password, &[LOST, OK, LIVE], &["passwordreset", "passwordreset", "list"]),
        (Package, &[LIVE, LOST, OK], &["list", "packageupdate", "packageupdate"]),
    ] {
        let net = script(answers);
        assert!(make(change, &net, call(1)).is_ok(), "{change:?} {asked:?}");
        assert_eq!(net.asked(), asked, "{change:?}");
    }
}

#[test]
fn a_later_call_looks_before_it_sends() {
    use Change::{Create, Suspend, Terminate, Unsuspend};
    for (change, answers, asked) in [
        (Create, &[LIVE][..], &["list"][..]),
        (Create, &[ABSENT, ABSENT, TOKEN], &["list", "list", "autoregister"]),
        (Suspend, &[SUSPENDED], &["list"]),
        (Suspend, &[LIVE, LIVE, OK], &["list", "list", "suspended"]),
        (Unsuspend, &[LIVE], &["list"]),
        (Terminate, &[ABSENT], &["list"]),
    ] {
        let net = script(answers);
        assert!(make(change, &net, call(2)).is_ok(), "{change:?}");
        assert_eq!(net.asked(), asked, "{change:?}");
    }
}

/// The server may answer with what it told another call, whose shuffle was the same by chance.
#[test]
fn old_evidence_is_not_believed() {
    for (change, answers, asked) in [
        (Change::Create, &[ABSENT, LOST, ABSENT, LIVE][..], &["list", "autoregister", "list", "list"][..]),
        (Change::Terminate, &[LOST, LIVE, ABSENT], &["delete", "list", "list"]),
        (Change::Renew, &[RICH, LOST, RICH, POORER, LIVE], &["getcredit", "renew", "getcredit", "getcredit", "list"]),
    ] {
        let net = script(answers);
        assert!(make(change, &net, call(1)).is_ok(), "{change:?}");
        assert_eq!(net.asked(), asked, "{change:?}");
    }
}

#[test]
fn a_renewal_is_never_paid_twice() {
    let noted = |attempt| Call { notes: vec![property("balance-before", "10000")], ..call(attempt) };
    let change = Change::Renew;
    // The host's note stands in for asking first.
    let net = script(&[OK, LIVE]);
    assert!(make(change, &net, noted(1)).is_ok());
    assert_eq!(net.asked(), ["renew", "list"]);
    // An earlier call was paid: nothing is sent.
    let net = script(&[POORER, LIVE]);
    assert!(make(change, &net, noted(2)).is_ok());
    assert_eq!(net.asked(), ["getcredit", "list"]);
    // It was not.
    let net = script(&[RICH, RICH, OK, LIVE]);
    assert!(make(change, &net, noted(2)).is_ok());
    assert_eq!(net.asked(), ["getcredit", "getcredit", "renew", "list"]);
    // More than before proves nothing.
    let net = script(&[r#"{"status":"OK - 100.01"}"#]);
    assert_eq!(make(change, &net, noted(2)).unwrap_err().effect, Effect::Unknown);
    // Without evidence nothing is sent at all.
    let net = script(&[]);
    let problem = make(change, &net, call(2)).unwrap_err();
    assert_eq!(
        (problem.effect, problem.retry, problem.remote_id),
        (Effect::Unknown, Retry::AfterFix, Some("example.com".into()))
    );
    // Nor on a note that is none.
    let bad = Call { notes: vec![property("balance-before", "100.00")], ..call(1) };
    assert_eq!(make(change, &script(&[]), bad).unwrap_err().kind, ProblemKind::Internal);
}

#[test]
fn with_a_price_only_the_price_proves_a_renewal() {
    let at = at_with(&[("renew_price", "4.90")]);
    let renew = |net: &Net| run(Client.renew(net, &at, call(1), named("example.com"), String::new()));
    for (credit, effect) in [("95.10", None), ("95.00", Some(Effect::Unknown)), ("90.20", Some(Effect::Unknown))] {
        let after = format!(r#"{{"status":"OK - {credit}"}}"#);
        let net = script(&[RICH, LOST, &after, LIVE]);
        assert_eq!(renew(&net).err().map(|problem| problem.effect), effect, "{credit}");
        assert_eq!(net.asked().iter().filter(|asked| *asked == "renew").count(), 1);
    }
}

#[test]
fn a_price_that_is_wrong_by_now_says_nothing_of_what_was_paid() {
    for (attempt, effect) in [(1, Effect::None), (2, Effect::Unknown)] {
        let at = at_with(&[("renew_price", "4,90")]);
        let problem = run(Client.renew(&script(&[]), &at, call(attempt), named("example.com"), String::new())).unwrap_err();
        assert_eq!((problem.kind, problem.effect), (ProblemKind::Invalid, effect));
    }
}

#[test]
fn every_try_has_a_hash_of_its_own() {
    let net = script(&[LOST, OK, LIVE]);
    make(Change::Password, &net, call(1)).unwrap();
    let (first, second) = (net.form(0), net.form(1));
    for name in ["hash", "timestamp", "password"] {
        assert_ne!(first.get(name), second.get(name), "{name}");
    }
    let iv = |envelope: Option<&str>| password::Envelope::read(envelope.unwrap()).unwrap().iv();
    assert_ne!(iv(first.get("password")), iv(second.get("password")));
}

/// Eight zeros leave 90 shuffles: by chance alone, some of so many would be equal.
#[test]
fn no_shuffle_is_sent_twice_even_in_the_worst_second() {
    let look = || [json(500, ""), json(500, ""), json(500, ""), json(200, RICH)];
    let round = || std::iter::once(json(500, "")).chain(look()).chain(look());
    let net = Net::new((0..4).flat_map(|_| round())).frozen_at(1_800_000_000);
    let noted = Call { notes: vec![property("balance-before", "10000")], ..call(1) };
    assert!(make(Change::Renew, &net, noted).is_err());
    let sent: Vec<Option<String>> =
        (0..net.asked().len()).map(|attempt| net.form(attempt).get("timestamp").map(str::to_owned)).collect();
    let distinct: std::collections::BTreeSet<_> = sent.iter().collect();
    assert_eq!(sent.len(), 36);
    assert_eq!(distinct.len(), sent.len());
}

#[test]
fn a_refused_connection_is_tried_once_more() {
    let net = script(&[FAILED, OK]);
    assert!(make(Change::Suspend, &net, call(1)).is_ok());
    assert_ne!(net.form(0).get("hash"), net.form(1).get("hash"));
    let net = script(&[FAILED, FAILED]);
    let problem = make(Change::Suspend, &net, call(1)).unwrap_err();
    assert_eq!((problem.kind, problem.effect, problem.retry), (ProblemKind::Unauthorized, Effect::None, Retry::AfterFix));
    let net = script(&[FAILED, FAILED]);
    assert_eq!(run(Client.balance(&net, &at())).unwrap_err().kind, ProblemKind::Unauthorized);
    assert_eq!(net.asked().len(), 2);
}

#[test]
fn the_texts_become_problems() {
    use ProblemKind::{AlreadyExists, Invalid, NotFound, PaymentRequired, Refused, WrongState};
    for (status, kind, field) in [
        ("Request Missing data!", Invalid, None),
        ("Request Missing data! hash", Invalid, None),
        ("Request Missing data! domain", Invalid, Some("domain")),
        ("Request Missing data! package", Invalid, Some("plan")),
        ("Request Missing data! uemail", Invalid, Some("email")),
        ("request missing DATA!  password ", Invalid, Some("password")),
        (text::MISSING_PASSWORD, Invalid, Some("password")),
        (text::INVALID_PASSWORD, Invalid, Some("password")),
        (text::INVALID_PACKAGE, Invalid, Some("plan")),
        (text::INVALID_EMAIL, Invalid, Some("email")),
        ("Package not Found!", NotFound, None),
        (" PACKAGE NOT FOUND! ", NotFound, None),
        (text::NO_ACTIVE_PACKAGE, NotFound, None),
        (text::IS_SUSPENDED, WrongState, None),
        (text::DOWNGRADE, Refused, None),
        (text::INSUFFICIENT_CREDIT, PaymentRequired, None),
        (text::UNPAID, PaymentRequired, None),
        (text::CLOSED, Refused, None),
        (text::ALREADY_REGISTERED, AlreadyExists, None),
        ("Error", Refused, None),
        ("Error deleting example.com", Refused, None),
        ("okay", Refused, None),
        ("ok.", Refused, None),
        ("", Refused, None),
        ("something new", Refused, None),
    ] {
        let net = Net::new([json(200, serde_json::json!({ "status": status }).to_string())]);
        let problem = make(Change::Suspend, &net, call(1)).unwrap_err();
        assert_eq!((problem.kind, problem.effect, problem.field.as_deref()), (kind, Effect::None, field), "{status}");
        assert_eq!(problem.provider_code.as_deref(), Some(status.trim()));
    }
    for status in ["ok", "OK", " Ok\t"] {
        let net = Net::new([json(200, serde_json::json!({ "status": status, "more": [1] }).to_string())]);
        assert!(make(Change::Suspend, &net, call(1)).is_ok(), "{status}");
    }
}

/// An answer that is none proves nothing: without evidence the effect is unknown, with it the evidence counts.
#[test]
fn hostile_answers_are_neither_success_nor_failure() {
    let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    for (status, body) in [
        (200, "<html><body>ok</body></html>"),
        (200, ""),
        (200, "ok"),
        (200, "\"ok\""),
        (200, "null"),
        (200, "42"),
        (200, r#"{"status":1}"#),
        (200, r#"{"status":null}"#),
        (200, r#"{"Status":"ok"}"#),
        (200, r#"{"status":"ok","status":"Error"}"#),
        (200, r#"{"status":"ok""#),
        (200, &deep),
        (500, OK),
        (502, "<html>"),
        (503, OK),
        (504, r#"{"status":"Error"}"#),
        (400, OK),
        (403, r#"{"status":"suspended"}"#),
        (101, OK),
    ] {
        let short = &body[..body.len().min(40)];
        let net = Net::new([json(status, body)]).then(lost());
        assert_eq!(make(Change::Suspend, &net, call(1)).unwrap_err().effect, Effect::Unknown, "{status} {short}");
        // With nothing but such answers, that is what the problem says.
        let problem = make(Change::Suspend, &Net::always(json(status, body)), call(1)).unwrap_err();
        assert_eq!((problem.kind, problem.effect), (ProblemKind::Protocol, Effect::Unknown), "{status} {short}");
        let net = Net::new([json(status, body)]).then(json(200, SUSPENDED));
        assert!(make(Change::Suspend, &net, call(1)).is_ok(), "{status} {short}");
        assert_eq!(net.asked(), ["suspended", "list"]);
        // What only asks has no effect.
        let net = Net::always(json(status, body));
        assert_eq!(run(Client.status(&net, &at(), named("example.com"))).unwrap_err().effect, Effect::None, "{status} {short}");
    }
}

#[test]
fn what_was_not_executed_is_said_so() {
    for (status, body, kind, sends) in [
        (301, "", ProblemKind::Protocol, 1),
        (308, OK, ProblemKind::Protocol, 1),
        (404, "<html>", ProblemKind::Protocol, 1),
        (401, "", ProblemKind::Unauthorized, 1),
        (404, r#"{"status":"Package not found!"}"#, ProblemKind::NotFound, 1),
        (429, r#"{"status":"Too many requests"}"#, ProblemKind::RateLimited, 4),
    ] {
        let net = Net::always(json(status, body));
        let problem = make(Change::Suspend, &net, call(1)).unwrap_err();
        assert_eq!((problem.kind, problem.effect), (kind, Effect::None), "{status}");
        assert_eq!(net.asked().len(), sends, "{status}");
    }
    let net = Net::always(not_sent());
    let problem = make(Change::Suspend, &net, call(1)).unwrap_err();
    assert_eq!((problem.kind, problem.effect, problem.retry), (ProblemKind::Unreachable, Effect::None, Retry::AfterMs(5000)));
    assert_eq!(net.asked().len(), 4);
}

#[test]
fn the_deadline_holds() {
    let net = Net::always(json(200, OK));
    let problem = make(Change::Suspend, &net, Call { deadline_ms: 0, ..call(1) }).unwrap_err();
    assert_eq!((problem.kind, problem.effect, net.asked().len()), (ProblemKind::Unreachable, Effect::None, 0));
    // The provider wants a longer pause than there is time.
    let net = Net::always(with(json(429, "{}"), "retry-after", "90"));
    let problem = make(Change::Suspend, &net, call(1)).unwrap_err();
    assert_eq!((problem.kind, problem.retry, net.asked().len()), (ProblemKind::RateLimited, Retry::AfterMs(90_000), 1));
    for change in ALL {
        let net = Net::always(lost());
        let started = net.ticks();
        let noted = Call { notes: vec![property("balance-before", "10000")], ..call(1) };
        assert!(make(change, &net, noted).is_err());
        assert!(net.ticks() <= started + Duration::from_mins(1), "{change:?}");
        // Some of the time is left for looking.
        assert!(net.asked().len() >= 2 || matches!(change, Change::Create | Change::Package), "{change:?}");
    }
}

#[test]
fn an_answer_never_found_again_is_an_unknown_effect() {
    for (change, first) in [
        (Change::Create, &[ABSENT][..]),
        (Change::Suspend, &[]),
        (Change::Terminate, &[]),
        (Change::Renew, &[RICH]),
        (Change::Password, &[]),
        (Change::Package, &[LIVE]),
    ] {
        let net = script(first).then(lost());
        let problem = make(change, &net, call(1)).unwrap_err();
        assert_eq!((problem.effect, problem.remote_id.as_deref()), (Effect::Unknown, Some("example.com")), "{change:?}");
    }
    // The provider may mean the very package that the lost request moved to.
    let net = script(&[LIVE, LOST, r#"{"status":"Downgrade not allowed."}"#]);
    assert_eq!(make(Change::Package, &net, call(1)).unwrap_err().effect, Effect::Unknown);
    let net = script(&[LIVE, LOST, r#"{"status":"Insufficient credit"}"#]);
    assert_eq!(make(Change::Package, &net, call(1)).unwrap_err().effect, Effect::None);
}

#[test]
fn no_problem_tells_a_secret() {
    let echo = format!(r#"{{"status":"no: {API_KEY} {PASSWORD}"}}"#);
    let secrets = [API_KEY, PASSWORD];
    for change in ALL {
        for status in [200, 400, 500] {
            for first in [&[][..], &[ABSENT], &[LIVE], &[RICH]] {
                let net = script(first).then(json(status, &echo));
                if let Err(problem) = make(change, &net, call(1)) {
                    // No message passes on what came from outside unchecked; the password is known to few operations.
                    let told = format!("{problem:?}");
                    let knows_password = matches!(change, Change::Create | Change::Password);
                    assert!(!told.contains(secrets[0]), "{told}");
                    assert!(!knows_password || !told.contains(secrets[1]), "{told}");
                }
            }
        }
    }
    let net = Net::always(Err(crate::outside::SendError::Lost(format!("while sending {API_KEY}"))));
    assert!(!format!("{:?}", make(Change::Suspend, &net, call(1))).contains(API_KEY));
}

#[test]
fn the_credit_is_read_exactly() {
    for (status, minor) in [("OK - 1500.26", 150_026), ("ok - 0", 0), (" Ok -  3.5 ", 350), ("OK - -2.00", -200)] {
        let net = Net::new([json(200, format!(r#"{{"status":"{status}"}}"#))]);
        let currency = Some("EUR".to_owned());
        assert_eq!(run(Client.balance(&net, &at_with(&[("currency", "EUR")]))).unwrap(), Money { minor, currency }, "{status}");
    }
    for status in ["OK", "OK - ", "OK - 1,500.26", "OK - 1e3", "OK-1500.26", "Balance - 3.00", "OK - 1.005"] {
        let net = Net::new([json(200, format!(r#"{{"status":"{status}"}}"#))]);
        assert!(run(Client.balance(&net, &at())).is_err(), "{status}");
    }
}

#[test]
fn status_knows_the_missing_and_the_strange() {
    for (body, state) in [
        (LIVE, State::Active),
        (SUSPENDED, State::Suspended),
        (r#"{"status":"active"}"#, State::Active),
        (r#"{"status":"cancelled","exist":"exists"}"#, State::Terminated),
        (r#"{"status":"limbo","exist":"exists"}"#, State::Unknown),
        (ABSENT, State::Missing),
        (r#"{"status":"Package not found!","exist":false}"#, State::Missing),
    ] {
        let service = run(Client.status(&script(&[body]), &at(), named("EXAMPLE.com"))).unwrap();
        assert_eq!((service.state, service.remote_id.as_str()), (state, "example.com"), "{body}");
        assert_eq!(service.properties.is_empty(), state != State::Unknown);
    }
    for body in [OK, r#"{"status":"Error"}"#, r#"{"status":"limbo"}"#] {
        assert!(run(Client.status(&script(&[body]), &at(), named("example.com"))).is_err(), "{body}");
    }
}

#[test]
fn nothing_is_sent_in_the_clear_or_to_a_strange_address() {
    let allowed = [("allow_private", "true")];
    for (url, settings, good) in [
        ("https://gp.example/api/v1", &[][..], true),
        ("HTTPS://gp.example/api/v1", &[], true),
        ("http://gp.example/api/v1", &[], false),
        ("http://127.0.0.1:8080/api/v1", &[], false),
        ("http://127.0.0.1:8080/api/v1", &allowed, true),
        ("http://127.0.0.1:8080/api/v1", &[("allow_private", "yes")], false),
        ("https://user:pass@gp.example/api/v1", &[], false),
        ("https://gp.example/api/v1?x=", &[], false),
        ("https://gp.example/#", &[], false),
        ("https://gp.example/ api", &[], false),
        ("ftp://gp.example", &allowed, false),
        ("", &allowed, false),
    ] {
        let net = script(&[OK]);
        let result = run(Client.check(&net, &connection(url, API_KEY, settings)));
        assert_eq!(result.is_ok(), good, "{url}");
        assert_eq!(net.asked().len(), usize::from(good), "{url}");
    }
}

#[test]
fn keys_are_trimmed_once_and_weak_ones_told_of() {
    for (key, warned) in [("fifteen_bytes__", true), ("sixteen_bytes___", false), (" \tfifteen_bytes__\n", true)] {
        let account = run(Client.check(&script(&[OK]), &connection("https://gp.example", key, &[]))).unwrap();
        assert_eq!(!account.properties.is_empty(), warned, "{key:?}");
    }
    for key in ["", " \n", "a\0b"] {
        let problem = run(Client.check(&script(&[]), &connection("https://gp.example", key, &[]))).unwrap_err();
        assert_eq!(problem.field.as_deref(), Some("secret"), "{key:?}");
    }
    let net = script(&[OK, LIVE]);
    let at = connection("https://gp.example", &format!("{API_KEY}\n"), &[]);
    run(Client.reset_password(&net, &at, call(1), named("example.com"), Some(PASSWORD.into()))).unwrap();
    assert!(password::open(API_KEY, net.form(0).get("password").unwrap()).is_ok());
}

#[test]
fn orders_that_cannot_work_are_not_sent() {
    let refused = |change: fn(&mut Order)| {
        let (net, mut order) = (script(&[]), order());
        change(&mut order);
        run(Client.create(&net, &at(), call(1), order)).unwrap_err().field.unwrap_or_default()
    };
    assert_eq!(refused(|order| order.password = None), "password");
    assert_eq!(refused(|order| order.password = Some("0".to_owned())), "password");
    assert_eq!(refused(|order| order.domain = None), "domain");
    assert_eq!(refused(|order| order.domain = Some("münchen.de".to_owned())), "domain");
    assert_eq!(refused(|order| order.email = None), "email");
    assert_eq!(refused(|order| order.plan = "10k\r\n".to_owned()), "plan");
    assert_eq!(refused(|order| order.term = Some("yearly".to_owned())), "term");
    let service = ServiceRef { remote_id: None, domain: None, username: None };
    let net = script(&[]);
    assert_eq!(run(Client.terminate(&net, &at(), call(1), service)).unwrap_err().field.as_deref(), Some("domain"));
}

#[test]
fn the_catalogue_takes_its_prices_from_the_profile() {
    let plans = run(Client.catalog(&script(&[]), &at_with(&[("price_10k", "4.90"), ("price_1m", "90")]))).unwrap();
    let priced: Vec<(&str, Option<i64>)> =
        plans.iter().map(|plan| (plan.id.as_str(), plan.prices.first().map(|price| price.amount.minor))).collect();
    assert_eq!(priced[..3], [("Free", Some(0)), ("10k", Some(490)), ("20k", None)]);
    assert_eq!(priced[7], ("1M", Some(9000)));
    let problem = run(Client.catalog(&script(&[]), &at_with(&[("price_10k", "4,90")]))).unwrap_err();
    assert_eq!(problem.field.as_deref(), Some("price_10k"));
}

#[test]
fn sign_on_is_a_form_where_the_profile_says_so() {
    let sign_on = |settings: &[(&str, &str)], target: &str| {
        run(Client.sign_on(&script(&[]), &at_with(settings), named("example.com"), target.to_owned()))
    };
    assert_eq!(sign_on(&[], "gp-account").unwrap_err().kind, ProblemKind::Unsupported);
    assert_eq!(sign_on(&[("login_url", "https://gp.example/login")], "root").unwrap_err().kind, ProblemKind::Invalid);
    assert_eq!(sign_on(&[("login_url", "http://gp.example/login")], "client-dashboard").unwrap_err().kind, ProblemKind::Invalid);
    let settings = [
        ("login_url", "https://gp.example/login"),
        ("login_url_gp_account", "https://gp.example/account?x=1"),
        ("login_user", "reseller"),
        ("login_password", PASSWORD),
        ("login_user_field", "log"),
        ("login_domain_field", "site"),
    ];
    let form = sign_on(&settings, "gp-account").unwrap();
    assert_eq!(form.url, "https://gp.example/account?x=1");
    assert_eq!(form.fields, [property("log", "reseller"), property("password", PASSWORD), property("site", "example.com")]);
    // The customer never gets the reseller's password.
    let form = sign_on(&settings, "client-dashboard").unwrap();
    assert_eq!(form.fields, [property("log", "example.com"), property("site", "example.com")]);
}

#[test]
fn what_is_dangerous_names_its_evidence() {
    let info = Client.info();
    for (operation, evidence) in [("renew", "balance"), ("create", "status")] {
        let found = info.capabilities.iter().find(|capability| capability.operation == operation).unwrap();
        assert_eq!((found.charges, found.evidence.as_slice()), (true, &[evidence.to_owned()][..]));
    }
    let charging: Vec<&str> = info
        .capabilities
        .iter()
        .filter(|capability| capability.charges)
        .map(|capability| capability.operation.as_str())
        .collect();
    assert_eq!(charging, ["create", "change-package", "renew"]);
}
