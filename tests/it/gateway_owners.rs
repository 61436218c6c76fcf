//! Whose a service is: nothing is done to, told of or taken from another's, whatever fails or is under way meanwhile, and what a key
//! has paid for is not forgotten.

use std::time::Duration;

use provisor_tests::book::Engine;
use provisor_tests::desk::{Desk, GP, KERNELHOST, domain, problem, text};
use provisor_tests::faults::{Answer as Wrong, Fault};
use provisor_tests::resellers::unique;
use serde_json::{Value, json};

async fn desk() -> Desk {
    Desk::on(Engine::of_module(module_path!())).await
}

const AT_ONCE: [(&str, &str); 1] = [("Prefer", "wait=0")];
const ORDERS: &str = "/cp/kh_reseller_api/v1/orders";

/// Asks for a change and does not wait; the operation's id.
async fn begun(desk: &Desk, key: &str, change: &str, body: &Value) -> String {
    let answer = desk.send("POST", &format!("/v1/services/{key}/{change}"), Some(body), &AT_ONCE).await;
    assert_eq!(answer.status, 202, "{change}: {}", answer.json());
    text(&answer.json()["operation"], "id").to_owned()
}

/// Waits for the end of an operation, which must be this.
async fn ends(desk: &Desk, id: &str, state: &str) -> Value {
    let ended = desk.until(id, &["done", "failed", "dead"]).await;
    assert_eq!(text(&ended, "state"), state, "{ended}");
    ended
}

/// Adopts a paid order that the provider has not fulfilled: the order's number, and the operation's id.
async fn adopting_an_order(desk: &mut Desk) -> (String, String) {
    desk.reconfigure_providers("[server.fulfilment]\nmode = \"manual\"\n");
    let placed = desk.key.post("/v1/orders", &unique().to_string(), &json!({"product_id": 42, "billing_cycle": "monthly"})).await;
    let placed = placed.json()["id"].to_string();
    let adopted =
        begun(desk, "adopted", "adopt", &json!({"profile": "kernelhost", "remote_id": format!("order/{placed}")})).await;
    desk.until(&adopted, &["waiting"]).await;
    (placed, adopted)
}

fn slow(seconds: u64) -> Fault {
    Fault { reaches: true, answer: Wrong::Late(Duration::from_secs(seconds)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_behind_a_beginning_that_fails_is_not_done_to_somebody_else_s_service() {
    let desk = desk().await;
    for (shop, begins, asked_at) in [(GP, "create", "/list/"), (KERNELHOST, "adopt", "GET /cp/kh_reseller_api/v1/services/")] {
        let found = desk.nobodys(shop).await;
        let begin = if begins == "create" { shop.order(text(&found, "domain")) } else { found.clone() };
        for (change, state) in [("suspend", "failed"), ("terminate", "done")] {
            let key = format!("{}-{change}", shop.provider);
            // Time to ask for more before the refusal, which is GP's own: this domain is taken.
            if begins == "create" {
                desk.upstream.inject(asked_at, slow(1), 1);
            } else {
                desk.upstream.inject(asked_at, Fault { reaches: false, answer: Wrong::TooMany(1) }, 1);
                desk.upstream.inject(asked_at, Fault { reaches: false, answer: Wrong::Status(403) }, 1);
            }
            let beginning = begun(&desk, &key, begins, &begin).await;
            desk.until(&beginning, &["running"]).await;
            let waiting = begun(&desk, &key, change, &json!({})).await;
            ends(&desk, &beginning, "failed").await;
            ends(&desk, &waiting, state).await;
            let stands = if change == "terminate" { "terminated" } else { "failed" };
            assert_eq!(text(&desk.service(&key).await, "state"), stands);
            let sent = ["/suspended/", "/delete/", "/actions"].map(|path| desk.upstream.seen(path));
            assert_eq!((sent, desk.live(shop)), ([0; 3], 1), "{key}");
        }
        desk.done(&format!("{}-found", shop.provider), "adopt", &found).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_creation_left_behind_is_not_forgotten_for_another() {
    let desk = desk().await;
    let found = desk.nobodys(KERNELHOST).await;
    let left = desk.done("left", "create", &KERNELHOST.order(&domain())).await["service"]["remote_id"].clone();
    desk.book.execute("UPDATE managed_services SET state = 'failed' WHERE service_key = 'left'");
    desk.book.execute("UPDATE operations SET state = 'failed'");
    // Ordered under another key, it would be another service.
    let charges = desk.charges();
    problem(&desk.change("left", "create", &KERNELHOST.order(&domain())).await, 409, "wrong-state");
    assert_eq!(desk.charges(), charges);
    let told = problem(&desk.change("left", "adopt", &found).await, 409, "wrong-state");
    assert!(text(&told, "detail").contains(left.as_str().unwrap()), "{told}");
    // Nor does an adoption that is refused have it forgotten: its end is asked of the provider.
    let adopt = json!({"profile": "kernelhost", "remote_id": left});
    desk.provider.execute("UPDATE services SET status = 'failed' WHERE id = (SELECT MAX(id) FROM services)");
    problem(&desk.change("left", "adopt", &adopt).await, 409, "wrong-state");
    problem(&desk.change("left", "create", &KERNELHOST.order(&domain())).await, 409, "wrong-state");
    assert_eq!(desk.charges(), charges);
    desk.provider.execute("UPDATE services SET status = 'active' WHERE id = (SELECT MAX(id) FROM services)");
    let adopted = desk.done("left", "adopt", &adopt).await;
    assert_eq!((&adopted["service"]["remote_id"], desk.live(KERNELHOST)), (&left, 2));
    assert_eq!(text(&desk.done("left", "create", &KERNELHOST.order(&domain())).await["operation"], "operation"), "adopt");
    // The provider sets right what had failed: it is taken up.
    desk.book.execute("UPDATE operations SET state = 'failed'");
    problem(&desk.change("left", "create", &KERNELHOST.order(&domain())).await, 409, "wrong-state");
    desk.done("left", "adopt", &adopt).await;
    // Of what was left behind no id is known: what is found by hand may be named.
    desk.book.execute("UPDATE managed_services SET state = 'failed', remote_id = NULL WHERE service_key = 'left'");
    desk.book.execute("UPDATE operations SET state = 'failed'");
    assert_eq!(desk.done("left", "adopt", &found).await["service"]["remote_id"], found["remote_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_what_was_left_behind_is_sent_though_its_repeat_has_not_begun() {
    let desk = desk().await;
    let order = GP.order(&domain());
    desk.done("left", "create", &order).await;
    desk.book.execute("UPDATE operations SET state = 'failed'; UPDATE managed_services SET state = 'failed'");
    // Payments are made one after the other: while this one is, that one waits.
    desk.upstream.inject("/autoregister/", slow(2), 1);
    let first = begun(&desk, "first", "create", &GP.order(&domain())).await;
    desk.until(&first, &["running"]).await;
    let again = begun(&desk, "left", "create", &order).await;
    assert_eq!(desk.operation(&again).await["attempts"], 0);
    desk.done("left", "terminate", &json!({})).await;
    ends(&desk, &first, "done").await;
    assert_eq!((desk.upstream.seen("/delete/"), desk.live(GP)), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_what_was_there_before_is_still_not_ours() {
    let mut desk = desk().await;
    let found = desk.nobodys(GP).await;
    desk.upstream.inject("/list/", slow(2), 1);
    let asked = begun(&desk, "crashed", "create", &GP.order(text(&found, "domain"))).await;
    desk.until(&asked, &["running"]).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    desk.kill();
    desk.start();
    let ended = ends(&desk, &asked, "failed").await;
    assert_eq!(text(&ended["problem"], "kind"), "already-exists");
    desk.done("crashed", "terminate", &json!({})).await;
    assert_eq!((desk.upstream.seen("/delete/"), desk.live(GP)), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_key_has_ordered_is_not_adopted() {
    let desk = desk().await;
    let site = domain();
    desk.upstream.inject("/autoregister/", slow(2), 1);
    let ordered = begun(&desk, "owner", "create", &GP.order(&site)).await;
    desk.until(&ordered, &["running"]).await;
    while desk.live(GP) == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let told = problem(&desk.change("other", "adopt", &json!({"profile": "gp", "remote_id": site})).await, 409, "already-exists");
    assert_eq!(text(&told, "field"), "domain");
    ends(&desk, &ordered, "done").await;
    // An order whose service its key has not heard of yet.
    let made = desk.done("machine", "create", &KERNELHOST.order(&domain())).await["service"].clone();
    let order = made["properties"].as_array().unwrap().iter().find(|property| property["name"] == "order").unwrap();
    let order = text(order, "value");
    desk.book.execute(&format!("UPDATE managed_services SET remote_id = '{order}' WHERE service_key = 'machine'"));
    let adopt = json!({"profile": "kernelhost", "remote_id": made["remote_id"]});
    problem(&desk.change("other", "adopt", &adopt).await, 409, "already-exists");
    desk.done("machine", "suspend", &json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_adopted_once_it_has_become_a_service() {
    let mut desk = desk().await;
    let (placed, adopted) = adopting_an_order(&mut desk).await;
    desk.run_at_provider(&["order", "fulfil", &placed]);
    ends(&desk, &adopted, "done").await;
    let remote_id = desk.service("adopted").await["remote_id"].clone();
    assert!(remote_id.as_str().unwrap().starts_with("service/"), "{remote_id}");
    let adopt = json!({"profile": "kernelhost", "remote_id": remote_id});
    problem(&desk.change("other", "adopt", &adopt).await, 409, "already-exists");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_order_that_is_cancelled_ends_the_adoption() {
    let mut desk = desk().await;
    let (placed, adopted) = adopting_an_order(&mut desk).await;
    desk.provider.execute(&format!("UPDATE orders SET status = 'cancelled' WHERE id = {placed}"));
    ends(&desk, &adopted, "failed").await;
    assert_eq!(text(&desk.service("adopted").await, "state"), "failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_have_a_service_is_told_nothing_of_it() {
    let desk = desk().await;
    let found = desk.nobodys(KERNELHOST).await;
    desk.upstream.inject("/v1/services/", Fault { reaches: false, answer: Wrong::Status(403) }, 1);
    assert_ne!(desk.change("refused", "adopt", &found).await.status, 200);
    desk.done("owner", "adopt", &found).await;
    let credentials = |key: &str| format!("/v1/services/{key}/credentials");
    let of_another = desk.send("GET", &credentials("refused"), None, &[]).await;
    assert_eq!((of_another.status, of_another.json()["kind"].clone()), (409, json!("wrong-state")));
    assert_eq!(desk.send("GET", &credentials("owner"), None, &[]).await.status, 200);
}

/// Right after an order, a machine of the provider's may not know of it yet.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_was_taken_on_is_waited_for_though_it_is_not_shown() {
    const NOT_FOUND: &str = r#"{"type":"https://www.kernelhost.com/en/reseller-api/errors/not_found","title":"Not found","status":404,
        "detail":"No such order.","request_id":"01HX7Z3K8QABCDEFGHJKMNPQRS"}"#;
    let desk = desk().await;
    desk.upstream.inject(&format!("GET {ORDERS}/"), Fault { reaches: false, answer: Wrong::Json(404, NOT_FOUND) }, 2);
    let ordered = begun(&desk, "patient", "create", &KERNELHOST.order(&domain())).await;
    ends(&desk, &ordered, "done").await;
    assert_eq!((desk.upstream.injected(), desk.charges(), desk.live(KERNELHOST)), (2, 1, 1));
}

/// The documented answer names no order, though one waits for its payment: the same key pays for that one.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_waits_for_its_payment_is_not_placed_again() {
    const UNPAID: &str = r#"{"type":"https://www.kernelhost.com/en/reseller-api/errors/payment_required","title":"Payment required",
        "status":402,"detail":"Not paid.","request_id":"01HX7Z3K8QABCDEFGHJKMNPQRS","reason":"insufficient_credit_and_no_card"}"#;
    let desk = desk().await;
    desk.upstream.inject(&format!("POST {ORDERS}"), Fault { reaches: true, answer: Wrong::Json(402, UNPAID) }, 1);
    let ordered = begun(&desk, "unpaid", "create", &KERNELHOST.order(&domain())).await;
    desk.until(&ordered, &["waiting"]).await;
    // Somebody has topped up the credit, and does not wait for half an hour.
    assert_eq!(desk.send("POST", &format!("/v1/operations/{ordered}/retry"), None, &[]).await.status, 200);
    ends(&desk, &ordered, "done").await;
    assert_eq!((desk.upstream.injected(), desk.charges(), desk.live(KERNELHOST)), (1, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_renewal_cost_does_not_prove_this_one() {
    let mut desk = desk().await;
    let (late, other) = (desk.made(GP).await, desk.made(GP).await);
    let charges = desk.charges();
    let due = json!({"due_at": "2050-01-15"});
    desk.upstream.inject("/renew/", Fault { reaches: false, answer: Wrong::Cut }, 1000);
    let lost = begun(&desk, &late, "renew", &due).await;
    desk.until(&lost, &["waiting"]).await;
    // Its answers stayed lost for as long as they are settled.
    desk.stop();
    desk.book.execute(&format!("UPDATE operations SET state = 'dead', doubts = 1, next_at = NULL WHERE ulid = '{lost}'"));
    desk.start();
    desk.upstream.heal();
    desk.done(&other, "renew", &due).await;
    let repeated = desk.change(&late, "renew", &due).await;
    assert_eq!((repeated.status, desk.charges()), (504, charges + 1), "{}", repeated.json());
    assert_eq!(text(&desk.operation(&lost).await, "state"), "dead");
}
