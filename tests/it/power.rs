//! A power cut takes what was not on the disk: every answer comes after its commit's sync. Counted from outside, with strace.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use provisor_tests::binary::{key, reseller, serve};
use serde_json::json;

const ORDERS: usize = 25;
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn every_acknowledged_order_was_on_the_disk_first() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let key = key(data, &reseller(data, "1000.00"));
    let server = serve(data);
    let here = key.at(&server);
    let traced = directory.path().join("trace");
    let id = server.id().to_string();
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-y", "-ttt", "-e", "trace=fdatasync,fsync,write,writev,sendto,sendmsg", "-o"])
        .arg(&traced)
        .args(["-p", &id]);
    let mut strace = strace.stderr(Stdio::null()).spawn().expect("this test needs strace; ./tests/run installs it");
    let begin = Instant::now();
    // Attached once it shows the first of our own requests.
    while std::fs::read_to_string(&traced).map_or(0, |text| syncs(&text)) == 0 {
        assert!(begin.elapsed() < PATIENCE, "strace shows nothing: may this user trace processes?");
        assert_eq!(here.get("/v1/me").await.status, 200);
    }
    // One after the other, so that no two share a commit.
    for number in 0..ORDERS {
        let order =
            here.post("/v1/orders", &format!("order-{number}"), &json!({"product_id": 42, "billing_cycle": "monthly"})).await;
        assert_eq!(order.status, 201);
    }
    server.stop();
    strace.wait().unwrap();
    let text = std::fs::read_to_string(&traced).unwrap();
    // From one answer to the next there is a sync of the write-ahead log.
    let mut unsynced = 0;
    let (mut answers, mut synced) = (0, false);
    for line in text.lines() {
        if is_sync(line) {
            synced = true;
        } else if line.contains("HTTP/1.1 201") {
            answers += 1;
            unsynced += usize::from(!synced);
            synced = false;
        }
    }
    assert_eq!((answers, unsynced), (ORDERS, 0), "answers, and those of them without a sync since the one before");
    assert!(syncs(&text) >= ORDERS);
}

/// A sync of the write-ahead log that has ended: of one that another thread interrupts in the trace, the line that resumes it has no
/// file's name.
fn is_sync(line: &str) -> bool {
    let is_whole = line.contains("fdatasync(") && line.contains("provisor.db-wal>)") && line.trim_end().ends_with("= 0");
    let is_resumed = line.contains("fdatasync resumed>") && line.trim_end().ends_with("= 0");
    is_whole || is_resumed
}

fn syncs(text: &str) -> usize {
    text.lines().filter(|line| is_sync(line)).count()
}
