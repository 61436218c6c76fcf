//! Both ends of the GP API against real books: the server on SQLite and PostgreSQL, and the client across a network that loses answers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so and ends")]

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use provisor_providers::books::{Books, License, LicenseState};
use provisor_providers::contract::{self, Call, Order, Outcome, Problem, Property, State};
use provisor_providers::gp::{Client, password, wire};
use provisor_providers::message::Headers;
use provisor_providers::provisioning::Provisioning;
use provisor_tests::book::Engine;
use provisor_tests::gp::{
    ALSO_HERE, HERE, House, KEY, OTHER_KEY, PASSWORD, PLENTY, THERE, Wire, at, call, failed, named, request, run, status,
};
use secrecy::SecretString;

fn house() -> House {
    House::on(Engine::of_module(module_path!()))
}

#[test]
fn the_life_of_a_package() {
    let house = house();
    let domain = "example.com";
    assert_eq!(house.ask("connection", domain, &[]), status("ok"));
    assert_eq!(house.ask("getcredit", domain, &[]), status("OK - 100.00"));
    assert_eq!(house.ask("list", domain, &[]), status("Package not Found!"));
    let made = house.register("Example.COM", "10K");
    let token = house.license(domain).unwrap().token;
    assert!(token.len() == 40 && token.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase()));
    assert_eq!(made, format!(r#"{{"status":"ok","token":"{token}"}}"#));
    assert_eq!(house.ask("list", domain, &[]), r#"{"status":"active","exist":"exists"}"#);
    let after_order = house.balance();
    assert!(after_order < 10_000);

    // The same again is the same package; another one is not.
    assert_eq!(house.register(domain, "10k"), made);
    assert_eq!(house.register(domain, "20k"), status("Domain already registered"));
    assert_eq!(house.balance(), after_order);

    let update = |state: &str, package: &str| house.ask("packageupdate", domain, &[("status", state), ("package", package)]);
    for _ in 0..2 {
        assert_eq!(house.ask("suspended", domain, &[]), status("ok"));
    }
    assert_eq!(house.ask("list", domain, &[]), r#"{"status":"suspended","exist":"exists"}"#);
    house.pass(60);
    assert_eq!(update("active", "20k"), status("Package is suspended. Please unsuspend it to continue."));
    let sealed = house.sealed(PASSWORD);
    let no_package = status("Error changing password. No active package found!");
    assert_eq!(house.ask("passwordreset", domain, &[("password", &sealed)]), no_package);
    for _ in 0..2 {
        assert_eq!(house.ask("active", domain, &[]), status("ok"));
    }
    assert_eq!(update("active", "5k"), status("Invalid package name"));
    assert_eq!(update("active", "Free"), status("Downgrade not allowed."));
    assert_eq!(update("active", "20K"), status("ok"));
    assert_eq!(house.license(domain).unwrap().package, "20k");

    assert_eq!(house.ask("delete", domain, &[]), status("ok"));
    for (endpoint, text) in [
        ("list", "Package not Found!"),
        ("suspended", "Package not Found!"),
        ("active", "Package not found!"),
        ("renew", "Package not found!"),
        ("delete", "Package not found!"),
    ] {
        assert_eq!(house.ask(endpoint, domain, &[]), status(text), "{endpoint}");
    }
    // A package of its own.
    house.pass(60);
    assert_ne!(house.register(domain, "10k"), made);
}

#[test]
fn money_moves_once_and_exactly() {
    let house = house();
    house.register("a.example", "10k");
    assert_eq!(house.balance(), 10_000 - 490);
    let due = |domain: &str| house.license(domain).unwrap().due_at.to_string()[..10].to_owned();
    assert_eq!(due("a.example"), "2026-10-21");
    // A second more than 20 of the 30 days are left: more than two thirds of 3.00, rounded up.
    house.pass(10 * 86_400 - 1);
    for _ in 0..2 {
        house.ask("packageupdate", "a.example", &[("status", "active"), ("package", "20k")]);
        assert_eq!(house.balance(), 9510 - 201);
    }
    for (seconds, balance) in [(0, 9309 - 790), (599, 9309 - 790), (1, 9309 - 2 * 790)] {
        house.pass(seconds);
        assert_eq!(house.ask("renew", "a.example", &[]), status("ok"));
        assert_eq!(house.balance(), balance, "{seconds}");
    }
    assert_eq!(due("a.example"), "2026-12-21");
    // Long overdue: the new term begins now.
    house.pass(100 * 86_400);
    house.ask("renew", "a.example", &[]);
    assert_eq!(due("a.example"), "2027-02-09");

    house.register("free.example", "Free");
    let before = house.balance();
    assert_eq!(house.ask("renew", "free.example", &[]), status("ok"));
    assert_eq!(house.register("rich.example", "1M"), status("Insufficient credit"));
    assert!(house.license("rich.example").is_none());
    assert_eq!(house.balance(), before);
}

/// Mails that told the first reseller of a suspension.
fn told(house: &House) -> u64 {
    let account = house.account;
    house.store.read(|books| books.account(account).mails_since("gp.suspended", Timestamp::UNIX_EPOCH)).unwrap()
}

const UNPAID: &str = "Package is unpaid. Please renew it to continue.";
const ACTIVE: &str = r#"{"status":"active","exist":"exists"}"#;
const SUSPENDED: &str = r#"{"status":"suspended","exist":"exists"}"#;

#[test]
fn an_unpaid_term_is_suspended_and_a_renewal_brings_it_back() {
    let house = house();
    let domain = "a.example";
    house.register(domain, "10k");
    let due = house.license(domain).unwrap().due_at;
    assert_eq!(house.tick(), Some(due));
    house.now.set(due);
    let end_of_patience = due + SignedDuration::from_hours(72);
    assert_eq!(house.tick(), Some(end_of_patience));
    house.pass(72 * 3600 - 1);
    assert_eq!(house.tick(), Some(end_of_patience));
    assert_eq!(house.ask("list", domain, &[]), ACTIVE);
    assert_eq!(told(&house), 0);
    house.pass(1);
    assert_eq!(house.tick(), None);
    assert_eq!(house.ask("list", domain, &[]), SUSPENDED);
    let license = house.license(domain).unwrap();
    assert_eq!((license.unpaid_since, license.due_at, told(&house)), (Some(end_of_patience), due, 1));

    // Nothing but the renewal brings it back, and what costs nothing does not.
    let upgrade = [("status", "active"), ("package", "20k")];
    let is_suspended = "Package is suspended. Please unsuspend it to continue.";
    assert_eq!(house.ask("packageupdate", domain, &upgrade), status(is_suspended));
    assert_eq!(house.ask("suspended", domain, &[]), status("ok"));
    assert_eq!(house.ask("active", domain, &[]), status(UNPAID));
    assert_eq!(house.register(domain, "10k"), format!(r#"{{"status":"ok","token":"{}"}}"#, license.token));
    assert_eq!((house.ask("list", domain, &[]).as_str(), house.balance()), (SUSPENDED, 10_000 - 490));
    assert_eq!(house.ask("renew", domain, &[]), status("ok"));
    assert_eq!((house.ask("list", domain, &[]).as_str(), house.balance()), (ACTIVE, 10_000 - 2 * 490));
    let renewed = house.license(domain).unwrap();
    assert_eq!((renewed.unpaid_since, renewed.due_at.to_string().as_str()), (None, "2026-11-24T14:13:20Z"));
    assert_eq!(house.tick(), Some(renewed.due_at));

    // A package that is gone is nobody's concern.
    assert_eq!(house.ask("delete", domain, &[]), status("ok"));
    assert_eq!(house.tick(), None);
}

#[test]
fn a_resellers_own_suspension_outlives_a_renewal() {
    let house = house();
    let domain = "a.example";
    house.register(domain, "10k");
    assert_eq!(house.ask("suspended", domain, &[]), status("ok"));
    assert_eq!(house.tick(), None);
    house.pass(40 * 86_400);
    assert_eq!((house.tick(), told(&house)), (None, 0));
    assert_eq!(house.ask("active", domain, &[]), status(UNPAID));
    assert_eq!(house.ask("renew", domain, &[]), status("ok"));
    assert_eq!(house.ask("list", domain, &[]), SUSPENDED);
    assert_eq!(house.ask("active", domain, &[]), status("ok"));
    assert_eq!(house.tick(), Some(house.license(domain).unwrap().due_at));
    // Back within the days of patience, it has what is left of them.
    house.ask("suspended", domain, &[]);
    house.pass(32 * 86_400);
    assert_eq!(house.ask("active", domain, &[]), status("ok"));
    assert!(house.tick().is_some());
    assert_eq!(house.ask("list", domain, &[]), ACTIVE);
    house.pass(3 * 86_400);
    assert_eq!(house.tick(), None);
    assert_eq!(house.ask("list", domain, &[]), SUSPENDED);
}

#[test]
fn what_costs_nothing_goes_on_and_an_upgrade_of_it_is_paid() {
    let house = house();
    house.register("free.example", "Free");
    for months in 1..=3 {
        let due = house.license("free.example").unwrap().due_at;
        house.now.set(due);
        assert!(house.tick().unwrap() > due, "{months}");
    }
    assert_eq!(house.ask("list", "free.example", &[]), ACTIVE);
    assert_eq!((house.balance(), told(&house)), (10_000, 0));
    let upgrade = [("status", "active"), ("package", "10k")];
    assert_eq!(house.ask("packageupdate", "free.example", &upgrade), status("ok"));
    assert_eq!(house.balance(), 10_000 - 490);
}

#[test]
fn many_unpaid_packages_are_suspended_in_small_parts_and_with_few_mails() {
    let house = house();
    let account = house.account;
    house.register("a.example", "10k");
    let one = house.license("a.example").unwrap();
    house.transact(move |books| {
        for number in 0..150 {
            let license = License { id: 0, domain: format!("a{number}.example"), ..one.clone() };
            books.account(account).add_license(&license)?;
        }
        Ok(())
    });
    house.pass(365 * 86_400);
    assert_eq!(house.tick(), None);
    assert_eq!(house.license("a149.example").unwrap().state, LicenseState::Suspended);
    assert_eq!(told(&house), 20);
}

#[test]
fn a_closed_reseller_is_sold_nothing_more() {
    let house = house();
    house.register("a.example", "10k");
    let (account, now) = (house.account, house.now.get());
    assert!(house.transact(move |books| books.close_account(account, Some(now))));
    let closed = status("Reseller account is closed");
    assert_eq!(house.register("b.example", "10k"), closed);
    assert_eq!(house.register("free.example", "Free"), closed);
    assert_eq!(house.ask("renew", "a.example", &[]), closed);
    let upgrade = [("status", "active"), ("package", "20k")];
    assert_eq!(house.ask("packageupdate", "a.example", &upgrade), closed);
    assert_eq!(house.balance(), 10_000 - 490);
    // What there is can be looked at and ended.
    assert_eq!(house.ask("list", "a.example", &[]), ACTIVE);
    assert_eq!(house.ask("suspended", "a.example", &[]), status("ok"));
    assert_eq!(house.ask("delete", "a.example", &[]), status("ok"));
}

#[test]
fn an_upgrade_leaves_the_package_in_the_state_it_names() {
    let house = house();
    let update = |domain: &str, state: &str, package: &str| {
        house.pass(1);
        house.ask("packageupdate", domain, &[("status", state), ("package", package)])
    };
    house.register("a.example", "10k");
    house.register("b.example", "10k");
    let before = house.balance();
    assert_eq!(update("a.example", "suspended", "20k"), status("ok"));
    assert_eq!(house.ask("list", "a.example", &[]), SUSPENDED);
    assert_eq!((house.license("a.example").unwrap().package.as_str(), before - house.balance()), ("20k", 300));
    assert_eq!(house.ask("active", "a.example", &[]), status("ok"));
    // A package that ends now has no rest to pay for.
    assert_eq!(update("b.example", "cancelled", "1M"), status("ok"));
    assert_eq!(house.ask("list", "b.example", &[]), status("Package not Found!"));
    assert_eq!(before - house.balance(), 300);
    assert_eq!(house.tick(), Some(house.license("a.example").unwrap().due_at));
    for wrong in ["Active", "gone"] {
        assert_eq!(update("a.example", wrong, "40k"), status("Request Missing data! status"), "{wrong}");
    }
}

#[test]
fn others_learn_one_thing_only() {
    let house = house();
    house.register("a.example", "10k");
    let sealed = password::seal(OTHER_KEY, PASSWORD, [1; 16]).unwrap();
    for (endpoint, text) in [
        ("autoregister", "Domain already registered"),
        ("list", "Package not Found!"),
        ("suspended", "Package not Found!"),
        ("delete", "Package not found!"),
        ("renew", "Package not found!"),
        ("packageupdate", "Package not found!"),
        ("passwordreset", "Error changing password. No active package found!"),
    ] {
        let signed = house.fields(OTHER_KEY, "a.example");
        let mut fields: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
        fields.extend([("package", "10k"), ("password", sealed.as_str()), ("uemail", "a@example.com"), ("status", "active")]);
        assert_eq!(house.post(endpoint, &fields, THERE).json, status(text), "{endpoint}");
    }
    assert!(house.license("a.example").is_some());
}

#[test]
fn the_order_of_checks() {
    let house = house();
    let signed = house.fields(KEY, "example.com");
    let [domain, hash, timestamp] = signed.each_ref().map(|(_, value)| value.as_str());
    let upper = hash.to_uppercase();
    for (fields, expected) in [
        (&[][..], "Request Missing data!"),
        (&[("domain", ""), ("other", "x")], "Request Missing data!"),
        (&[("hash", hash), ("timestamp", timestamp)], "Request Missing data! domain"),
        (&[("domain", domain), ("timestamp", timestamp)], "Request Missing data! hash"),
        (&[("domain", domain), ("hash", hash)], "Request Missing data! timestamp"),
        (&[("domain", domain), ("domain", domain), ("hash", hash), ("timestamp", timestamp)], "Request Missing data! domain"),
        (&[("domain", "example.com."), ("hash", hash), ("timestamp", timestamp)], "Request Missing data! domain"),
        (&[("domain", domain), ("hash", &hash[..39]), ("timestamp", timestamp)], "Request Missing data! hash"),
        (&[("domain", domain), ("hash", hash), ("timestamp", "179000000")], "Request Missing data! timestamp"),
        (&[("domain", "EXAMPLE.com"), ("hash", hash), ("timestamp", timestamp)], "Connection failed"),
        (&[("domain", domain), ("hash", &upper), ("timestamp", timestamp)], "ok"),
        // Spelled otherwise, it is the same hash.
        (&[("domain", domain), ("hash", hash), ("timestamp", timestamp)], "Connection failed"),
    ] {
        assert_eq!(house.post("connection", fields, HERE).json, status(expected));
    }
    let good = house.fields(KEY, "example.com");
    let good: Vec<(&str, &str)> = good.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(house.post("connection", &good, THERE).json, failed());
    assert_eq!(house.post("connection", &good, "203.0.113.1").json, failed());
    assert_eq!(house.post("connection", &good, "::ffff:192.0.2.10").json, status("ok"));
}

#[test]
fn what_is_not_a_post_to_an_endpoint() {
    let house = house();
    for (method, target, code, text, location) in [
        ("GET", "/list/", 405, "Method not allowed. Use POST.", None),
        ("GET", "/nowhere", 405, "Method not allowed. Use POST.", None),
        ("post", "/list/", 405, "Method not allowed. Use POST.", None),
        ("POST", "/list", 308, "Use the address with the ending slash.", Some("list/")),
        ("POST", "/", 404, "Unknown endpoint", None),
        ("POST", "/LIST/", 404, "Unknown endpoint", None),
        ("POST", "//list/", 404, "Unknown endpoint", None),
        ("POST", "/list//", 404, "Unknown endpoint", None),
        ("POST", "/%6cist/", 404, "Unknown endpoint", None),
        ("POST", "/list/?domain=a.example", 200, "Request Missing data!", None),
    ] {
        let said = house.serve(request(method, target, ""), HERE);
        assert_eq!((said.status, said.json), (code, status(text)), "{method} {target}");
        assert_eq!(said.headers.once("location"), location);
        assert_eq!(said.headers.once("allow"), (code == 405).then_some("POST"));
    }
    let mut strange = request("POST", "/connection/", "{}");
    strange.headers = Headers::new().with("Content-Type", "application/json");
    assert_eq!(house.serve(strange, HERE).json, status("Request Missing data!"));
}

#[test]
fn phps_multipart_works_too() {
    let house = house();
    let sealed = house.sealed(PASSWORD);
    let more = [("package", "10k"), ("password", sealed.as_str()), ("uemail", "a@example.com")];
    let signed = house.fields(KEY, "example.com");
    let fields = signed.iter().map(|(name, value)| (*name, value.as_str())).chain(more);
    let mut body: String = fields
        .map(|(name, value)| format!("--b0\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"))
        .collect::<Vec<_>>()
        .concat();
    body.push_str("--b0--\r\n");
    let mut posted = request("POST", "/autoregister/", &body);
    posted.headers = Headers::new().with("Content-Type", "multipart/form-data; boundary=b0");
    assert!(house.serve(posted, HERE).json.starts_with(r#"{"status":"ok","token":""#));
}

#[test]
fn a_hash_is_good_for_one_request() {
    let house = house();
    house.register("example.com", "10k");
    let balance = house.balance();
    let signed = house.fields(KEY, "example.com");
    let fields: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let first = house.post("renew", &fields, HERE).json;
    let paid = house.balance();
    assert!(first == status("ok") && paid < balance);
    house.rules.borrow_mut().renew_dedupe = false;
    // A transport's retry gets the answer, not the effect.
    assert_eq!(house.post("renew", &fields, HERE).json, first);
    assert_eq!(house.last_audited().0, "gp.resent");
    let reused = ("gp.hash_reuse".to_owned(), Some("hash_reuse".to_owned()));
    // Anything else under the hash is a replay.
    assert_eq!(house.post("renew", &fields, ALSO_HERE).json, failed());
    assert_eq!(house.last_audited(), reused);
    let mut more = fields.clone();
    more.push(("extra", "1"));
    assert_eq!(house.post("renew", &more, HERE).json, failed());
    assert_eq!(house.last_audited(), reused);
    for endpoint in ["delete", "suspended", "list", "getcredit"] {
        assert_eq!(house.post(endpoint, &fields, HERE).json, failed(), "{endpoint}");
        assert_eq!(house.last_audited(), reused);
    }
    house.pass(60);
    assert_eq!(house.post("renew", &fields, HERE).json, first);
    house.pass(1);
    assert_eq!(house.post("renew", &fields, HERE).json, failed());
    assert_eq!(house.balance(), paid);
    // Honest shuffles collide, so none of this has locked the key.
    assert_eq!(house.ask("list", "example.com", &[]), r#"{"status":"active","exist":"exists"}"#);
    // A year later the digits may be fresh again; the hash is not.
    house.rules.borrow_mut().freshness = false;
    house.pass(365 * 86_400);
    assert_eq!(house.post("delete", &fields, HERE).json, failed());
}

#[test]
fn stale_digits_are_refused_unless_the_operator_says_otherwise() {
    let house = house();
    let captured = || {
        let signed = house.fields(KEY, "example.com");
        house.pass(12_345);
        signed
    };
    let signed = captured();
    let fields: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(house.post("connection", &fields, HERE).json, failed());
    assert_eq!(house.last_audited().1.as_deref(), Some("stale_timestamp"));
    house.rules.borrow_mut().freshness = false;
    assert_eq!(house.post("connection", &fields, HERE).json, status("ok"));
}

#[test]
fn five_wrong_hashes_lock_the_key_for_a_quarter_of_an_hour() {
    let house = house();
    let wrong = || {
        let signed = house.fields("not the key", "example.com");
        let fields: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(house.post("list", &fields, HERE).json, failed());
    };
    for _ in 0..4 {
        wrong();
    }
    assert_eq!(house.ask("connection", "example.com", &[]), status("ok"));
    wrong();
    assert_eq!(house.last_audited().0, "key.locked");
    assert_eq!(house.ask("connection", "example.com", &[]), failed());
    assert_eq!(house.last_audited().1.as_deref(), Some("locked_key"));
    // A lock does not grow by what it keeps out.
    house.pass(600);
    for _ in 0..5 {
        wrong();
    }
    house.pass(299);
    assert_eq!(house.ask("connection", "example.com", &[]), failed());
    house.pass(1);
    assert_eq!(house.ask("connection", "example.com", &[]), status("ok"));
}

/// Every MAC below holds: what keeps the padding oracle shut is one answer, and one IV per ciphertext.
#[test]
fn a_rewritten_envelope_is_no_oracle() {
    let house = house();
    house.rules.borrow_mut().lock.failures = 0;
    house.register("example.com", "10k");
    let captured = password::seal(KEY, "Tr0ub4dor&3xyz!", [9; 16]).unwrap();
    let reset = |envelope: &str| {
        house.pass(10);
        let signed = house.fields(KEY, "example.com");
        let mut fields: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
        fields.push(("password", envelope));
        house.post("passwordreset", &fields, HERE)
    };
    assert_eq!(reset(&captured).json, status("ok"));
    let stored = house.license("example.com").unwrap().password_hash;
    assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    for last in 0..=255_u8 {
        let rewritten = with_iv(&captured, |iv| iv[15] = last);
        let said = reset(&rewritten);
        if rewritten == captured {
            assert_eq!(said.json, status("ok"));
        } else {
            assert_eq!((said.json, said.floor), (status("Invalid Password"), Duration::from_millis(150)));
        }
    }
    // A ciphertext first seen under a rewritten IV is noted although it does not open.
    let undelivered = password::seal(KEY, "Tr0ub4dor&3xyz!", [8; 16]).unwrap();
    assert_eq!(reset(&with_iv(&undelivered, |iv| iv[15] ^= 0x40)).json, status("Invalid Password"));
    assert_eq!(reset(&undelivered).json, status("Invalid Password"));
    // And although the request fails for another reason.
    let sealed = password::seal(KEY, "Tr0ub4dor&3xyz!", [7; 16]).unwrap();
    let more = [("package", "1M"), ("password", sealed.as_str()), ("uemail", "a@example.com")];
    assert_eq!(house.ask("autoregister", "rich.example", &more), status("Insufficient credit"));
    assert_eq!(reset(&with_iv(&sealed, |iv| iv[0] ^= 0x01)).json, status("Invalid Password"));
}

/// The envelope under a changed IV. Base64 is undone by hand of the fixed layout: the IV is the first 16 bytes.
fn with_iv(envelope: &str, change: impl FnOnce(&mut [u8])) -> String {
    use base64::Engine;
    let mut bytes = base64::engine::general_purpose::STANDARD.decode(envelope).unwrap();
    change(&mut bytes[..16]);
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn every_bad_envelope_gets_one_answer_and_counts() {
    let house = house();
    house.register("example.com", "10k");
    let weak = house.sealed("alllowercase");
    let foreign = password::seal(OTHER_KEY, PASSWORD, [3; 16]).unwrap();
    let short = "AAAA".to_owned();
    let garbage = "not base64".to_owned();
    // An absent parameter is no failure.
    for _ in 0..5 {
        assert_eq!(house.ask("passwordreset", "example.com", &[]), status("Request Missing data! password"));
    }
    for envelope in [&weak, &foreign, &short, &garbage] {
        assert_eq!(house.ask("passwordreset", "example.com", &[("password", envelope)]), status("Invalid Password"));
    }
    assert_eq!(house.ask("passwordreset", "example.com", &[("password", &garbage)]), status("Invalid Password"));
    assert_eq!(house.last_audited().0, "key.locked");
    assert_eq!(house.ask("list", "example.com", &[]), failed());
}

#[test]
fn the_time_floor_covers_every_answer_that_follows_a_password() {
    let house = house();
    let sealed = house.sealed(PASSWORD);
    for (endpoint, floored) in [("autoregister", true), ("passwordreset", true), ("list", false), ("renew", false)] {
        let signed = house.fields(KEY, "example.com");
        let mut fields: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
        fields.extend([("package", "10k"), ("password", sealed.as_str()), ("uemail", "a@example.com")]);
        let good = house.post(endpoint, &fields, HERE);
        let unsigned = house.post(endpoint, &fields[3..], HERE);
        let unknown = house.post(endpoint, &fields, "203.0.113.1");
        let empty = house.post(endpoint, &fields[..3], HERE);
        for said in [good, unsigned, unknown, empty] {
            assert_eq!(said.floor > Duration::ZERO, floored, "{endpoint} {}", said.json);
        }
    }
}

#[test]
fn twenty_at_once_and_the_rest_has_to_wait() {
    let house = house();
    let send = |endpoint: &str, signed: &[(&str, String); 3]| {
        let fields: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
        house.post(endpoint, &fields, THERE)
    };
    for _ in 0..20 {
        assert_eq!(send("connection", &house.fields(OTHER_KEY, "example.com")).status, 200);
    }
    let signed = house.fields(OTHER_KEY, "example.com");
    let said = send("connection", &signed);
    assert_eq!((said.status, said.json), (429, status("Too many requests")));
    assert_eq!(said.headers.once("retry-after"), Some("1"));
    // The hash is spent: it would have been good for any endpoint.
    house.pass(5);
    assert_eq!(send("delete", &signed).json, failed());
    assert_eq!(send("connection", &signed).status, 429);
    assert_eq!(send("connection", &house.fields(OTHER_KEY, "example.com")).status, 200);
}

#[test]
fn two_resellers_may_share_an_address() {
    let house = house();
    let shared = "yF3E2mEex6yPup8tn6Cvn6dvJipU1LBPSSHkebbo";
    house.reseller(shared, &[HERE], "JPY", PLENTY);
    for (key, credit) in [(KEY, status("OK - 100.00")), (shared, status("OK - 100.00")), (OTHER_KEY, failed())] {
        let signed = house.fields(key, "example.com");
        let fields: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(house.post("getcredit", &fields, HERE).json, credit);
    }
    // No price in their currency: not on sale to them, but for the free one.
    for (package, starts) in [("10k", "{\"status\":\"Invalid package name\"}"), ("free", "{\"status\":\"ok\",\"token\":")] {
        let signed = house.fields(shared, "b.example");
        let sealed = password::seal(shared, PASSWORD, [5; 16]).unwrap();
        let mut fields: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
        fields.extend([("package", package), ("password", sealed.as_str()), ("uemail", "a@example.com")]);
        assert!(house.post("autoregister", &fields, HERE).json.starts_with(starts), "{package}");
    }
}

fn create(wire: &Wire<'_>, attempt: u32) -> Result<Outcome, Problem> {
    let order = Order {
        plan: "10k".to_owned(),
        term: None,
        domain: Some("example.com".to_owned()),
        email: Some("a@example.com".to_owned()),
        password: Some(PASSWORD.to_owned()),
        note: None,
        options: Vec::new(),
    };
    run(Client.create(wire, &at(), call(attempt), order))
}

fn state(outcome: Result<Outcome, Problem>) -> State {
    match outcome.unwrap() {
        Outcome::Done(service) => service.state,
        Outcome::Pending(_) => panic!("GP never leaves anything pending"),
    }
}

/// What a network loses once, of each endpoint named.
#[derive(Debug, Clone)]
struct Weather {
    answers: Vec<&'static str>,
    requests: Vec<&'static str>,
}

/// Good weather; every change at once; each endpoint in turn.
fn weathers() -> Vec<Weather> {
    const CHANGES: [&str; 7] = ["autoregister", "suspended", "active", "renew", "passwordreset", "packageupdate", "delete"];
    let answers = |lost: &[&'static str]| Weather { answers: lost.to_vec(), requests: Vec::new() };
    let requests = |lost: &[&'static str]| Weather { answers: Vec::new(), requests: lost.to_vec() };
    let mut all = vec![answers(&[]), answers(&CHANGES), requests(&CHANGES)];
    for endpoint in wire::Endpoint::ALL.map(wire::Endpoint::name) {
        all.extend([answers(&[endpoint]), requests(&[endpoint])]);
    }
    all
}

/// The whole life through both ends; whatever is lost, it happens once.
fn live_through(weather: &Weather) -> (i64, i64) {
    let house = house();
    let wire = Wire::new(&house);
    wire.lose_answers.borrow_mut().extend(&weather.answers);
    wire.lose_requests.borrow_mut().extend(&weather.requests);
    let at = at();
    assert!(run(Client.check(&wire, &at)).unwrap().properties.is_empty());
    assert_eq!(state(create(&wire, 1)), State::Active);
    assert_eq!(create(&wire, 1).unwrap_err().kind, contract::ProblemKind::AlreadyExists);
    assert_eq!(state(create(&wire, 2)), State::Active);
    let after_create = house.balance();
    assert_eq!(state(run(Client.suspend(&wire, &at, call(1), named(), None))), State::Suspended);
    assert_eq!(state(run(Client.unsuspend(&wire, &at, call(1), named()))), State::Active);
    house.rules.borrow_mut().renew_dedupe = false;
    assert_eq!(state(run(Client.renew(&wire, &at, call(1), named(), String::new()))), State::Active);
    let paid = after_create - house.balance();
    assert!(paid > 0);
    // The host tries again, as if it had not heard.
    let notes = vec![Property { name: "balance-before".to_owned(), value: after_create.to_string() }];
    assert!(run(Client.renew(&wire, &at, Call { notes, ..call(2) }, named(), String::new())).is_ok());
    assert_eq!(after_create - house.balance(), paid);
    let new_password = Some(SecretString::from("An0ther!pass"));
    assert!(run(Client.reset_password(&wire, &at, call(1), named(), new_password)).is_ok());
    assert!(run(Client.change_package(&wire, &at, call(1), named(), "20k".to_owned(), Vec::new())).is_ok());
    assert_eq!(house.license("example.com").unwrap().package, "20k");
    assert_eq!(state(run(Client.terminate(&wire, &at, call(1), named()))), State::Terminated);
    assert_eq!(run(Client.status(&wire, &at, named())).unwrap().state, State::Missing);
    assert_eq!(run(Client.terminate(&wire, &at, call(1), named())).unwrap_err().kind, contract::ProblemKind::NotFound);
    assert!(wire.lose_answers.borrow().is_empty() && wire.lose_requests.borrow().is_empty(), "{weather:?}");
    (after_create, paid)
}

#[test]
fn whatever_is_lost_happens_once() {
    let weathers = weathers();
    let good = live_through(&weathers[0]);
    for weather in &weathers[1..] {
        assert_eq!(live_through(weather), good, "{weather:?}");
    }
}

/// 2027-01-15 08:00 UTC: eight zeros leave 90 shuffles, so honest requests of one second collide, and the client tries again.
#[test]
fn the_worst_second_of_the_calendar() {
    let house = house();
    house.register("example.com", "10k");
    house.now.set(Timestamp::from_second(1_800_000_000).unwrap());
    let wire = Wire::at_once(&house);
    for _ in 0..14 {
        assert_eq!(run(Client.status(&wire, &at(), named())).unwrap().state, State::Active);
        assert_eq!(run(Client.balance(&wire, &at())).unwrap().minor, 9510);
    }
    assert!(wire.asked.borrow().len() > 28, "none of these shuffles collided");
}
