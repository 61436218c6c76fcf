//! The conformance list of panels: what a panel asks of the gateway happens once, whatever it repeats, at both providers.

use std::time::Duration;

use provisor_tests::book::Engine;
use provisor_tests::desk::{Desk, GP, KERNELHOST, PASSWORD, SHOPS, Shop, domain, problem, text};
use provisor_tests::faults::{Answer as Wrong, Fault};
use provisor_tests::http::Answer;
use provisor_tests::resellers::unique;
use serde_json::{Value, json};

async fn desk() -> Desk {
    Desk::on(Engine::of_module(module_path!())).await
}

const LOST: Fault = Fault { reaches: true, answer: Wrong::Cut };
const NOT_SENT: Fault = Fault { reaches: false, answer: Wrong::Cut };
const EVERYTHING: &str = " /";

fn id(answer: &Answer) -> String {
    let told = answer.json();
    told["operation"]["id"].as_str().or(told["operation"].as_str()).unwrap_or_else(|| panic!("no operation in {told}")).to_owned()
}

/// The path at the provider that a shop's `create` posts to.
fn ordering(shop: Shop) -> &'static str {
    if shop == GP { "/autoregister/" } else { "POST /cp/kh_reseller_api/v1/orders" }
}

#[tokio::test(flavor = "multi_thread")]
async fn create_twice_makes_one_service() {
    let desk = desk().await;
    for shop in SHOPS {
        let (order, charges, live) = (shop.order(&domain()), desk.charges(), desk.live(shop));
        let key = format!("twice-{}", shop.provider);
        let (one, other) = tokio::join!(desk.change(&key, "create", &order), desk.change(&key, "create", &order));
        assert_eq!((one.status, other.status), (200, 200), "{} {}", one.json(), other.json());
        assert_eq!(id(&one), id(&other));
        assert_eq!(id(&desk.change(&key, "create", &order).await), id(&one));
        assert_eq!((desk.charges(), desk.live(shop)), (charges + 1, live + 1), "{shop:?}");
        assert_eq!(text(&desk.service(&key).await, "state"), "active");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn create_after_a_lost_answer_is_the_first_one() {
    let desk = desk().await;
    for shop in SHOPS {
        let (order, charges) = (shop.order(&domain()), desk.charges());
        desk.upstream.inject(ordering(shop), LOST, 1);
        // Then nothing gets through for as long as the component tries by itself.
        desk.upstream.inject(EVERYTHING, NOT_SENT, 6);
        let answer = desk.change("lost", "create", &order).await;
        assert!(matches!(answer.status, 200 | 202), "{}", answer.json());
        let operation = desk.until(&id(&answer), &["done"]).await;
        assert!(operation["attempts"].as_u64().unwrap() > 1, "{operation}");
        assert_eq!(id(&desk.change("lost", "create", &order).await), text(&operation, "id"));
        assert_eq!((desk.charges(), desk.live(shop)), (charges + 1, 1), "{shop:?}");
        desk.upstream.heal();
        desk.done("lost", "terminate", &json!({})).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn create_refused_leaves_nothing_and_a_retry_makes_it() {
    let desk = desk().await;
    for shop in SHOPS {
        let mut order = shop.order(&domain());
        let plan = std::mem::replace(&mut order["plan"], json!("no such plan!"));
        let (key, charges) = (format!("refused-{}", shop.provider), desk.charges());
        let refused = problem(&desk.change(&key, "create", &order).await, 422, "invalid");
        assert_eq!((text(&refused, "effect"), text(&refused, "field")), ("none", "plan"));
        assert_eq!((desk.charges(), desk.live(shop)), (charges, 0));
        order["plan"] = plan;
        let made = desk.done(&key, "create", &order).await;
        assert_eq!((made["service"]["generation"].as_i64(), desk.live(shop)), (Some(1), 1));
        desk.done(&key, "terminate", &json!({})).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn suspend_unsuspend_and_terminate_twice_are_a_success() {
    let desk = desk().await;
    for shop in SHOPS {
        let key = desk.made(shop).await;
        for (operation, state) in
            [("suspend", "suspended"), ("unsuspend", "active"), ("suspend", "suspended"), ("terminate", "terminated")]
        {
            let first = desk.done(&key, operation, &json!({})).await;
            assert_eq!(text(&first["service"], "state"), state);
            let again = desk.done(&key, operation, &json!({})).await;
            assert_eq!(again["operation"]["id"], first["operation"]["id"]);
            assert_eq!(text(&desk.service(&key).await, "state"), state);
        }
        assert_eq!(desk.live(shop), 0);
        problem(&desk.change(&key, "suspend", &json!({})).await, 409, "wrong-state");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn terminate_of_a_service_that_is_gone_is_a_success() {
    let desk = desk().await;
    let key = desk.made(GP).await;
    desk.provider.execute("UPDATE licenses SET state = 'cancelled'");
    let ended = desk.done(&key, "terminate", &json!({})).await;
    assert_eq!(text(&ended["service"], "state"), "terminated");
    let key = desk.made(KERNELHOST).await;
    let remote = text(&desk.service(&key).await, "remote_id").to_owned();
    let number = remote.strip_prefix("service/").unwrap();
    desk.provider.execute(&format!("UPDATE services SET status = 'terminated' WHERE id = {number}"));
    desk.done(&key, "terminate", &json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_journal_does_not_know_is_404_and_nothing_is_sent() {
    let desk = desk().await;
    desk.made(GP).await;
    let before = desk.upstream.seen(EVERYTHING);
    for (operation, body) in [
        ("suspend", json!({"reason": "unpaid"})),
        ("unsuspend", json!({})),
        ("terminate", json!({})),
        ("renew", json!({"due_at": "2027-01-15"})),
        ("reset-password", json!({"password": "another"})),
        ("change-package", json!({"plan": "20k"})),
        ("power", json!({"action": "reinstall"})),
    ] {
        for profile in [None, Some("gp"), Some("kernelhost")] {
            let mut body = body.clone();
            if let Some(profile) = profile {
                body["profile"] = json!(profile);
            }
            let told = problem(&desk.change("nobody-s", operation, &body).await, 404, "not-found");
            assert_eq!((&told["effect"], &told["operation"]), (&json!("none"), &Value::Null));
        }
    }
    assert_eq!(desk.upstream.seen(EVERYTHING), before);
    // What is another panel's is unknown as well.
    let key = desk.made(KERNELHOST).await;
    let other = desk.run(&["panel", "create", "--name", "other"]);
    let token = format!("Bearer {}", text(&other, "token"));
    let url = format!("http://{}/v1/services/{key}/terminate", desk.gateway().address());
    let http = provisor_tests::http::Http::default();
    assert_eq!(http.send("POST", &url, &[("Authorization", &token)], "").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_another_key_already_exists() {
    let desk = desk().await;
    let taken = domain();
    desk.done("first", "create", &GP.order(&taken)).await;
    let told = problem(&desk.change("second", "create", &GP.order(&taken.to_uppercase())).await, 409, "already-exists");
    assert_eq!(text(&told, "field"), "domain");
    let remote = desk.done("machine", "create", &KERNELHOST.order(&domain())).await["service"]["remote_id"].clone();
    let adopt = json!({"profile": "kernelhost", "remote_id": remote});
    problem(&desk.change("third", "adopt", &adopt).await, 409, "already-exists");
    // One that stands at the provider and is nobody's may be adopted; it is not made again.
    let found = desk.nobodys(GP).await;
    let order = GP.order(text(&found, "domain"));
    problem(&desk.change("fourth", "create", &order).await, 409, "already-exists");
    assert_eq!(text(&desk.done("fourth", "adopt", &found).await["service"], "state"), "active");
    assert_eq!(text(&desk.done("fourth", "create", &order).await["operation"], "operation"), "adopt");
    problem(&desk.change("fifth", "adopt", &json!({"profile": "gp", "domain": domain()})).await, 409, "not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn create_after_terminate_is_a_new_generation() {
    let desk = desk().await;
    for shop in SHOPS {
        let order = shop.order(&domain());
        let key = format!("again-{}", shop.provider);
        let first = desk.done(&key, "create", &order).await;
        desk.done(&key, "terminate", &json!({})).await;
        let charges = desk.charges();
        let second = desk.done(&key, "create", &order).await;
        assert_eq!((&first["service"]["generation"], &second["service"]["generation"]), (&json!(1), &json!(2)));
        assert_ne!(first["operation"]["id"], second["operation"]["id"]);
        assert_eq!((desk.live(shop), desk.charges()), (1, charges + 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_due_date_is_renewed_once() {
    let desk = desk().await;
    for shop in SHOPS {
        let key = desk.made(shop).await;
        let due = desk.service(&key).await["due_at"].as_str().map_or_else(|| "2027-01-15T00:00:00Z".to_owned(), str::to_owned);
        let charges = desk.charges();
        let renew = json!({"due_at": due});
        let first = desk.done(&key, "renew", &renew).await;
        let again = desk.done(&key, "renew", &renew).await;
        assert_eq!(first["operation"]["id"], again["operation"]["id"]);
        assert_eq!(desk.charges(), charges + 1, "{shop:?}");
        if shop == KERNELHOST {
            // A panel knows the day alone.
            let next = text(&desk.service(&key).await, "due_at").to_owned();
            assert!(next > due);
            desk.done(&key, "renew", &json!({"due_at": next[..10]})).await;
            assert_eq!(desk.charges(), charges + 2);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_whose_answer_is_lost_is_paid_once() {
    let desk = desk().await;
    for shop in SHOPS {
        let key = desk.made(shop).await;
        let due = desk.service(&key).await["due_at"].as_str().map_or_else(|| "2027-01-15T00:00:00Z".to_owned(), str::to_owned);
        let charges = desk.charges();
        desk.upstream.inject(if shop == GP { "/renew/" } else { "/actions" }, LOST, 1);
        desk.upstream.inject(EVERYTHING, NOT_SENT, 6);
        let answer = desk.change(&key, "renew", &json!({"due_at": due})).await;
        desk.until(&id(&answer), &["done"]).await;
        assert_eq!(desk.charges(), charges + 1, "{shop:?}");
        desk.upstream.heal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_wait_is_told_where_to_look() {
    let desk = desk().await;
    desk.upstream.inject(ordering(KERNELHOST), Fault { reaches: true, answer: Wrong::Late(Duration::from_secs(2)) }, 1);
    let order = KERNELHOST.order(&domain());
    let answer = desk.send("POST", "/v1/services/late/create", Some(&order), &[("Prefer", "wait=1")]).await;
    assert_eq!(answer.status, 202, "{}", answer.json());
    assert_eq!(answer.header("location").unwrap(), format!("/v1/operations/{}", id(&answer)));
    assert!(answer.header("retry-after").is_some());
    problem(&desk.change("late", "suspend", &json!({"profile": "gp"})).await, 422, "invalid");
    // Worked off in the order in which it was asked for.
    let suspend = desk.send("POST", "/v1/services/late/suspend", Some(&json!({})), &[("Prefer", "wait=0")]).await;
    assert_eq!(suspend.status, 202);
    desk.until(&id(&suspend), &["done"]).await;
    assert_eq!(text(&desk.operation(&id(&answer)).await, "state"), "done");
    assert_eq!(text(&desk.service("late").await, "state"), "suspended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_payment_is_waited_for_and_the_order_is_not_made_twice() {
    let desk = desk().await;
    desk.credit("-1000000.00");
    let order = KERNELHOST.order(&domain());
    let answer = desk.send("POST", "/v1/services/poor/create", Some(&order), &[("Prefer", "wait=1")]).await;
    assert_eq!(answer.status, 202, "{}", answer.json());
    let told = answer.json();
    assert_eq!((text(&told["operation"], "state"), text(&told["operation"]["problem"], "kind")), ("waiting", "payment-required"));
    let again = desk.send("POST", "/v1/services/poor/create", Some(&order), &[("Prefer", "wait=0")]).await;
    assert_eq!((again.status, id(&again)), (202, id(&answer)));
    desk.credit("100.00");
    desk.until(&id(&answer), &["done"]).await;
    assert_eq!((desk.live(KERNELHOST), desk.provider.number("SELECT COUNT(*) FROM orders")), (1, 1));
    // Where the provider keeps no order, the panel has to come again.
    desk.credit("-90.10");
    let domain = domain();
    problem(&desk.change("poor-gp", "create", &GP.order(&domain)).await, 422, "payment-required");
    desk.credit("100.00");
    desk.done("poor-gp", "create", &GP.order(&domain)).await;
    assert_eq!(desk.live(GP), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_lacks_is_unsupported_and_nothing_is_written() {
    let desk = desk().await;
    let (machine, site) = (desk.made(KERNELHOST).await, desk.made(GP).await);
    let operations = desk.book.number("SELECT COUNT(*) FROM operations");
    problem(&desk.change(&machine, "change-package", &json!({"plan": "43"})).await, 422, "unsupported");
    problem(&desk.change(&site, "power", &json!({"action": "reboot"})).await, 422, "unsupported");
    assert_eq!(desk.book.number("SELECT COUNT(*) FROM operations"), operations);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_makes_one_change_and_stands_for_one_request() {
    let desk = desk().await;
    let key = desk.made(GP).await;
    let path = format!("/v1/services/{key}/reset-password");
    let reset = |password: &'static str, idempotency_key: &'static str| {
        let (desk, path) = (&desk, &path);
        async move { desk.send("POST", path, Some(&json!({"password": password})), &[("Idempotency-Key", idempotency_key)]).await }
    };
    let first = reset("New-Passw0rd-1", "a").await;
    assert_eq!(first.status, 200, "{}", first.json());
    let sent = desk.upstream.seen("/passwordreset/");
    assert_eq!(id(&reset("New-Passw0rd-1", "a").await), id(&first));
    assert_eq!(desk.upstream.seen("/passwordreset/"), sent);
    problem(&reset("New-Passw0rd-2", "a").await, 422, "invalid");
    assert_ne!(id(&reset("New-Passw0rd-2", "b").await), id(&first));
    let plain = |password: &str| json!({"password": password});
    let (one, other) = (
        desk.done(&key, "reset-password", &plain("New-Passw0rd-3")).await,
        desk.done(&key, "reset-password", &plain("New-Passw0rd-3")).await,
    );
    assert_ne!(one["operation"]["id"], other["operation"]["id"], "without a key, what has ended is not repeated");
}

/// What was asked for one generation is not done to the next by a queue that repeats it late.
#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_outlives_the_generation() {
    let desk = desk().await;
    let order = GP.order(&domain());
    let reset = async || {
        let (path, body) = ("/v1/services/again/reset-password", json!({"password": "New-Passw0rd-1"}));
        let answer = desk.send("POST", path, Some(&body), &[("Idempotency-Key", "a")]).await;
        assert_eq!(answer.status, 200, "{}", answer.json());
        id(&answer)
    };
    desk.done("again", "create", &order).await;
    let first = reset().await;
    desk.done("again", "terminate", &json!({})).await;
    desk.done("again", "create", &order).await;
    let sent = desk.upstream.seen("/passwordreset/");
    assert_eq!(reset().await, first);
    assert_eq!(desk.upstream.seen("/passwordreset/"), sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_does_not_answer_is_waited_for_and_then_left_alone() {
    let desk = Desk::with(Engine::of_module(module_path!()), "first_pause_ms = 20\nquiet_ms = 200\nretry_for_s = 4\n").await;
    let key = desk.made(GP).await;
    desk.upstream.close().await;
    let answer = desk.send("POST", &format!("/v1/services/{key}/suspend"), Some(&json!({})), &[("Prefer", "wait=30")]).await;
    let told = problem(&answer, 503, "unreachable");
    assert_eq!(text(&told, "effect"), "none");
    // The circuit is open: told at once, nothing written.
    let operations = || desk.book.number("SELECT COUNT(*) FROM operations");
    let ask = async |operation: &str| {
        let path = format!("/v1/services/{key}/{operation}");
        desk.send("POST", &path, Some(&json!({})), &[("Prefer", "wait=0")]).await
    };
    for _ in 0..100 {
        if ask("suspend").await.status == 503 {
            let before = operations();
            let refused = ask("terminate").await;
            assert_eq!((refused.status, operations()), (503, before), "{}", refused.json());
            assert!(refused.header("retry-after").is_some());
            assert_eq!(text(&desk.service(&key).await, "wanted"), "suspended", "what was refused is not wanted");
            desk.upstream.open();
            return;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    panic!("the circuit never opened");
}

/// A creation that left something behind is tried again by one that knows of it: what is there is taken, and not paid twice.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_creation_left_behind_is_taken() {
    let desk = desk().await;
    let order = GP.order(&domain());
    desk.done("left", "create", &order).await;
    desk.book.execute("UPDATE operations SET state = 'failed'; UPDATE managed_services SET state = 'failed'");
    let charges = desk.charges();
    assert_eq!(text(&desk.done("left", "create", &order).await["service"], "state"), "active");
    assert_eq!((desk.charges(), desk.live(GP)), (charges, 1));
}

/// Has what ended so many days ago removed, were it time; what is dead, and what is not told, stays so.
async fn age(desk: &mut Desk, days: i64) {
    let then = jiff::Timestamp::now().as_millisecond() - days * 86_400_000;
    desk.stop();
    for statement in [
        format!("UPDATE operations SET ended_at = {then}"),
        "UPDATE operations SET state = 'dead', ended_at = NULL WHERE kind = 'suspend' AND profile = 'gp'".to_owned(),
        "UPDATE operations SET tell_at = 9000000000000 WHERE kind = 'reset-password'".to_owned(),
        format!("INSERT INTO provider_events VALUES ('gp', 'evt_{days}', {then})"),
    ] {
        desk.book.execute(&statement);
    }
    desk.start();
    let began = std::time::Instant::now();
    while desk.book.number("SELECT COUNT(*) FROM provider_events") > 0 {
        assert!(began.elapsed() < Duration::from_secs(30), "nothing is removed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_long_ago_goes_but_not_what_a_service_rests_on() {
    let mut desk = desk().await;
    let (kept, order) = (format!("service-{}", unique()), KERNELHOST.order(&domain()));
    let [first, second] = ["2000-01-14", "2000-01-15"].map(|day| json!({"due_at": day}));
    let (nothing, reboot) = (json!({}), json!({"action": "reboot"}));
    let mut rests_on = Vec::new();
    for (operation, body, stays) in [
        ("create", &order, true),
        ("suspend", &nothing, false),
        ("unsuspend", &nothing, true),
        ("power", &reboot, false),
        ("renew", &first, false),
        ("renew", &second, true),
    ] {
        let id = text(&desk.done(&kept, operation, body).await["operation"], "id").to_owned();
        if stays {
            rests_on.push((operation, body, id));
        }
    }
    let (gone, dead, untold) = (desk.made(GP).await, desk.made(GP).await, desk.made(GP).await);
    desk.done(&gone, "terminate", &nothing).await;
    desk.done(&dead, "suspend", &nothing).await;
    desk.done(&untold, "reset-password", &json!({"password": PASSWORD})).await;
    let count = |desk: &Desk, table: &str| desk.book.number(&format!("SELECT COUNT(*) FROM {table}"));
    let all = count(&desk, "operations");
    age(&mut desk, 399).await;
    assert_eq!(count(&desk, "operations"), all);
    age(&mut desk, 401).await;
    // Three of the first, of the last two their creations, what is dead, and what is not told.
    assert_eq!(count(&desk, "operations"), 3 + 2 + 1 + 1);
    assert_eq!(count(&desk, "operation_attempts WHERE operation_id NOT IN (SELECT id FROM operations)"), 0);
    let (charges, sent) = (desk.charges(), desk.upstream.seen("POST"));
    for (operation, body, id) in rests_on {
        assert_eq!(text(&desk.done(&kept, operation, body).await["operation"], "id"), id, "{operation}");
    }
    assert_eq!((desk.charges(), desk.upstream.seen("POST")), (charges, sent));
    desk.done(&gone, "create", &GP.order(&domain())).await;
}

/// What became of an attempt cannot always be written down: then it is asked about again, without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_whose_end_was_not_written_is_taken_up_again() {
    let desk = desk().await;
    let key = desk.made(KERNELHOST).await;
    desk.book.forbid("UPDATE", "operations", Some("NEW.state = 'done'"));
    let answer = desk.send("POST", &format!("/v1/services/{key}/suspend"), Some(&json!({})), &[("Prefer", "wait=2")]).await;
    assert_eq!(answer.status, 202, "{}", answer.json());
    desk.book.permit("operations");
    let operation = desk.until(&id(&answer), &["done"]).await;
    assert_eq!(operation["attempts"], json!(2), "{operation}");
}
