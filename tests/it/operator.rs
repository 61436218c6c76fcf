//! The operator's commands about money, beside a server that runs on the same book.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use provisor_tests::binary;
use provisor_tests::daemon::{self, Daemon};
use provisor_tests::http::Http;
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

/// The same under the configuration of a server whose operator fulfils by hand.
fn told_by_hand(data: &Path, arguments: &[&str]) -> Vec<Value> {
    std::fs::write(data.join("provisor.toml"), "[server]\nfulfilment.mode = 'manual'\n").unwrap();
    told(data, arguments, "")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_and_steers_the_money_of_a_running_server() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    told(data, &["reseller", "create", "--name", "Example Ltd", "--email", "a@example.com"], "");
    let made = told(data, &["key", "create", "--reseller", "1", "--provider", "kernelhost", "--scopes", "all"], "").remove(0);
    let mut command = binary::provisor(data);
    command.args(binary::SERVE);
    command.env("PROVISOR_SERVER__FULFILMENT__MODE", "manual");
    let daemon = Daemon::start(command);
    let mount = provisor_providers::find("kernelhost").unwrap().server.mount();
    let key = KernelHostKey {
        id: made["key"].as_str().unwrap().to_owned(),
        secret: made["secret"].as_str().unwrap().into(),
        base_url: format!("http://{}{mount}", daemon.address()),
        http: Http::default(),
    };
    let order = async |name: &str| key.post("/v1/orders", name, &json!({"product_id": 42, "billing_cycle": "monthly"})).await;
    let (first, second) = (order("one").await.json(), order("two").await.json());
    assert_eq!((first["status"].as_u64(), second["status"].as_u64()), (Some(402), Some(402)));
    let (first, second) = (first["order_id"].to_string(), second["order_id"].to_string());

    let listed = told(data, &["order", "list", "--reseller", "1"], "");
    let found: Vec<_> = listed.iter().map(|order| (order["id"].to_string(), order["status"].as_str().unwrap())).collect();
    assert_eq!(found, [(second.clone(), "pending_payment"), (first.clone(), "pending_payment")]);
    assert_eq!(told(data, &["order", "cancel", &first], "")[0]["status"], "cancelled");
    assert_eq!(provisor(data, &["order", "cancel", &first], "").status.code(), Some(1));
    assert_eq!(provisor(data, &["order", "cancel", "99"], "").status.code(), Some(2));

    // Credit given by another process pays what waits for it.
    assert_eq!(told_by_hand(data, &["reseller", "credit", "1", "10.00"])[0]["balance"], "0.10");
    assert_eq!(told(data, &["order", "show", &second], "")[0]["status"], "paid");
    assert_eq!(provisor(data, &["order", "cancel", &second], "").status.code(), Some(1), "it is paid");

    let token = "sim_success";
    let carded = told(data, &["reseller", "card", "1", "--token", "-"], &format!("{token}\n"));
    assert_eq!(carded[0]["card_on_file"], true);
    assert_eq!(order("three").await.status, 201);
    let book = std::fs::read(data.join("provisor.db")).unwrap();
    assert!(!book.windows(token.len()).any(|part| part == token.as_bytes()), "the token is sealed");
    told(data, &["reseller", "card", "1", "--remove"], "");
    assert_eq!(key.get("/v1/billing/balance").await.json()["card_on_file"], false);

    told(data, &["reseller", "suspend", "1"], "");
    assert_eq!(order("four").await.json()["reason"], "client_not_found");
    assert_eq!(told(data, &["reseller", "list"], "")[0]["suspended"], true);
    told(data, &["reseller", "unsuspend", "1"], "");
    assert_eq!(order("four").await.json()["reason"], "insufficient_credit_and_no_card");
    assert_eq!(provisor(data, &["reseller", "suspend", "9"], "").status.code(), Some(2));

    let invoices = told(data, &["invoice", "list"], "");
    let states: Vec<_> = invoices.iter().map(|invoice| invoice["status"].as_str().unwrap()).collect();
    assert_eq!(states, ["unpaid", "paid", "paid", "cancelled"]);
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
    daemon.kill();
}
