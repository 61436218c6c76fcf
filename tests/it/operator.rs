//! The operator's commands about money, beside a server that runs on the same book.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use provisor_tests::binary;
use provisor_tests::book::{Book, Engine};
use provisor_tests::daemon::{self, Daemon};
use provisor_tests::http::Answer;
use provisor_tests::resellers::KernelHostKey;
use serde_json::{Value, json};

fn provisor(data: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(daemon::binary());
    command.env_clear().args(["--json", "--data"]).arg(data).args(arguments);
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    process.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    process.wait_with_output().unwrap()
}

/// What a command prints, one object a line.
fn told(data: &Path, arguments: &[&str], input: &str) -> Vec<Value> {
    let output = provisor(data, arguments, input);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| line.parse().unwrap()).collect()
}

/// A reseller without credit, and a server whose operator fulfils by hand.
struct Shop {
    book: Book,
    daemon: Daemon,
    key: KernelHostKey,
}

impl Shop {
    fn open() -> Self {
        let book = Book::new(Engine::of_module(module_path!()));
        let data = book.directory();
        told(data, &["reseller", "create", "--name", "Example Ltd", "--email", "a@example.com"], "");
        let made = told(data, &["key", "create", "--reseller", "1", "--provider", "kernelhost", "--scopes", "all"], "").remove(0);
        book.configure("[server]\nfulfilment.mode = 'manual'\n");
        let mut command = binary::provisor(data);
        command.args(binary::SERVE);
        let daemon = Daemon::start(command);
        let key = binary::made(&made).at(&daemon);
        Self { book, daemon, key }
    }

    async fn order(&self, name: &str) -> Answer {
        self.key.post("/v1/orders", name, &json!({"product_id": 42, "billing_cycle": "monthly"})).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_and_steers_the_money_of_a_running_server() {
    let shop = Shop::open();
    let (data, key) = (shop.book.directory(), &shop.key);
    let (first, second) = (shop.order("one").await.json(), shop.order("two").await.json());
    assert_eq!((first["status"].as_u64(), second["status"].as_u64()), (Some(402), Some(402)));
    let (first, second) = (first["order_id"].to_string(), second["order_id"].to_string());

    let listed = told(data, &["order", "list", "--reseller", "1"], "");
    let found: Vec<_> = listed.iter().map(|order| (order["id"].to_string(), order["status"].as_str().unwrap())).collect();
    assert_eq!(found, [(second.clone(), "pending_payment"), (first.clone(), "pending_payment")]);
    assert_eq!(told(data, &["order", "cancel", &first], "")[0]["status"], "cancelled");
    assert_eq!(provisor(data, &["order", "cancel", &first], "").status.code(), Some(1));
    assert_eq!(provisor(data, &["order", "cancel", "99"], "").status.code(), Some(2));

    // Credit given by another process pays what waits for it.
    assert_eq!(told(data, &["reseller", "credit", "1", "10.00"], "")[0]["balance"], "0.10");
    assert_eq!(told(data, &["order", "show", &second], "")[0]["status"], "paid");
    assert_eq!(provisor(data, &["order", "cancel", &second], "").status.code(), Some(1), "it is paid");

    let token = "sim_success";
    let carded = told(data, &["reseller", "card", "1", "--token", "-"], &format!("{token}\n"));
    assert_eq!(carded[0]["card_on_file"], true);
    assert_eq!(shop.order("three").await.status, 201);
    for file in shop.book.files() {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(token.len()).any(|part| part == token.as_bytes()), "the token stands in {}", file.display());
    }
    told(data, &["reseller", "card", "1", "--remove"], "");
    assert_eq!(key.get("/v1/billing/balance").await.json()["card_on_file"], false);

    told(data, &["reseller", "suspend", "1"], "");
    assert_eq!(shop.order("four").await.json()["reason"], "client_not_found");
    assert_eq!(told(data, &["reseller", "list"], "")[0]["suspended"], true);
    told(data, &["reseller", "unsuspend", "1"], "");
    assert_eq!(shop.order("four").await.json()["reason"], "insufficient_credit_and_no_card");
    assert_eq!(provisor(data, &["reseller", "suspend", "9"], "").status.code(), Some(2));
    // Credit that comes meanwhile pays once nothing stands against it.
    let fourth = || told(data, &["order", "list"], "")[0]["status"].clone();
    told(data, &["reseller", "suspend", "1"], "");
    told(data, &["reseller", "credit", "1", "10.00"], "");
    assert_eq!(fourth(), "pending_payment");
    told(data, &["reseller", "unsuspend", "1"], "");
    assert_eq!(fourth(), "paid");

    let invoices = told(data, &["invoice", "list"], "");
    let states: Vec<_> = invoices.iter().map(|invoice| invoice["status"].as_str().unwrap()).collect();
    assert_eq!(states, ["paid", "paid", "paid", "cancelled"]);
    let id = invoices[1]["id"].to_string();
    assert_eq!(told(data, &["invoice", "show", &id], "")[0]["lines"][0]["each"], "9.90");
    let file = data.join("invoice.pdf");
    told(data, &["invoice", "pdf", &id, file.to_str().unwrap()], "");
    let pdf = key.get(&format!("/v1/billing/invoices/{id}/pdf")).await;
    assert_eq!(pdf.body, std::fs::read(file).unwrap(), "the reseller gets the same bytes");
    assert!(told(data, &["service", "list"], "").is_empty(), "fulfilment is manual");
    assert_eq!(provisor(data, &["order", "fulfil", &first], "").status.code(), Some(1), "it is cancelled");
    assert_eq!(told(data, &["order", "fulfil", &second], "")[0]["status"], "completed");
    assert_eq!(provisor(data, &["order", "fulfil", &second], "").status.code(), Some(1), "it is fulfilled");
    assert_eq!(told(data, &["service", "list"], "")[0]["status"], "active");
    shop.daemon.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_made_is_given_up_and_every_step_is_noted() {
    let shop = Shop::open();
    let (data, key) = (shop.book.directory(), &shop.key);
    let id = async |name: &str, member: &str| shop.order(name).await.json()[member].to_string();
    let first = id("one", "order_id").await;
    told(data, &["order", "cancel", &first], "");
    told(data, &["reseller", "credit", "1", "10.00"], "");
    let second = id("two", "id").await;
    told(data, &["reseller", "card", "1", "--token", "sim_success"], "");
    let third = id("three", "id").await;
    told(data, &["reseller", "card", "1", "--remove"], "");
    assert_eq!(shop.order("four").await.status, 402);
    told(data, &["order", "fulfil", &second], "");

    assert_eq!(provisor(data, &["order", "fail", &second], "").status.code(), Some(1), "it is fulfilled");
    let failed = told(data, &["order", "fail", &third], "").remove(0);
    assert_eq!(failed["status"], "cancelled");
    assert_eq!(provisor(data, &["order", "fail", &third], "").status.code(), Some(1), "it is given up");
    let path = format!("/v1/services/{}", failed["service_id"]);
    let service = key.get(&path).await.json();
    assert_eq!((&service["status"], &service["power"]), (&json!("failed"), &json!(null)));
    assert_eq!(key.get(&format!("{path}/credentials")).await.status, 404);
    // What it cost was credit again, and paid the fourth.
    let fourth = told(data, &["order", "list"], "").remove(0);
    assert_eq!(fourth["status"], "paid");
    let fourth = fourth["id"].to_string();
    assert_eq!(key.get("/v1/billing/balance").await.json()["balance"]["amount"], "0.00");
    let refunds = format!("SELECT amount FROM ledger WHERE kind = 'refund' AND reference = '{}'", failed["invoice_id"]);
    assert_eq!(shop.book.number(&refunds), 990);
    // Nor can that be made. Its request, once answered with a 402, is not to be paid any more.
    told(data, &["order", "fail", &fourth], "");
    let again = shop.order("four").await;
    assert_eq!(again.status, 201, "{}", again.json());
    assert_eq!((&again.json()["status"], &again.json()["expires_at"]), (&json!("cancelled"), &json!(null)));
    assert_eq!(key.get("/v1/billing/balance").await.json()["balance"]["amount"], "9.90");
    told(data, &["reseller", "suspend", "1"], "");
    told(data, &["reseller", "unsuspend", "1"], "");
    shop.daemon.kill();

    let noted = [
        ("reseller.created", "by the operator"),
        ("key.created", "by the operator"),
        ("order.cancelled", &format!("by the operator: order {first}")),
        ("reseller.credited", "by the operator: 10.00"),
        ("reseller.card", "by the operator: put on file"),
        ("reseller.card", "by the operator: taken off"),
        ("reseller.suspended", "by the operator"),
        ("reseller.unsuspended", "by the operator"),
        ("order.fulfilled", &format!("by the operator: order {second}")),
        ("order.failed", &format!("by the operator: order {third}")),
        ("order.failed", &format!("by the operator: order {fourth}")),
    ];
    for (event, detail) in noted {
        let query = format!("SELECT COUNT(*) FROM audit WHERE stream = 1 AND event = '{event}' AND detail = '{detail}'");
        assert_eq!(shop.book.number(&query), 1, "{event}, {detail}");
    }
    let others = "SELECT COUNT(*) FROM audit WHERE event NOT IN ('request', 'requests.refused', 'payment.begun')";
    assert_eq!(shop.book.number(others), i64::try_from(noted.len()).unwrap(), "what was refused left none");
    assert_eq!(told(data, &["audit", "verify"], "")[0]["ok"], true);
}
