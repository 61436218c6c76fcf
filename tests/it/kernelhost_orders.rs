//! Orders at KernelHost's answering end.

use std::time::Duration;

use provisor_tests::house::House;
use provisor_tests::resellers::KeyTraits;
use serde_json::json;

#[tokio::test]
async fn an_order_is_paid_from_credit_and_becomes_a_service() {
    let mut house = House::start().await;
    let account = house.reseller("100.00").await;
    let key = house.kernelhost_key(account, KeyTraits::default()).await;
    let body = json!({"product_id": 42, "billing_cycle": "monthly"});

    let first = key.post("/v1/orders", "order-1", &body).await;
    assert_eq!(first.status, 201, "{}", first.json());
    let again = key.post("/v1/orders", "order-1", &body).await;
    assert_eq!((again.status, &again.body), (201, &first.body));
    assert_eq!(again.header("Idempotent-Replayed"), Some("true"));
    assert_eq!(key.get("/v1/billing/balance").await.json()["balance"], json!({"amount": "90.10", "currency": "EUR"}));

    let order = format!("/v1/orders/{}", first.json()["id"]);
    let service = loop {
        let order = key.get(&order).await.json();
        if order["status"] == "completed" {
            break order["service_id"].clone();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let service = key.get(&format!("/v1/services/{service}")).await.json();
    assert_eq!((&service["status"], &service["product_id"]), (&json!("active"), &json!(42)));
    assert_eq!(key.get("/v1/services").await.json()["meta"]["total"], 1);
    house.stop().await;
}
