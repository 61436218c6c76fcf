//! What a change costs on its way from a panel to the provider and back: through gateway, journal, component and egress, against the
//! same client linked natively without a journal. Both ask the same server, whose book is on SQLite; between it and the gateway stands the
//! machine that tests make fail, which the native client is spared.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on says so and ends")]

use std::time::{Duration, Instant};

use provisor_providers::contract::{Call, Connection, ServiceRef, Setting};
use provisor_tests::book::Engine;
use provisor_tests::desk::{Desk, KERNELHOST, ask, text};
use provisor_tests::http::Http;
use provisor_tests::rounds::{in_turn, per_second};
use provisor_tests::world::World;
use secrecy::ExposeSecret;
use serde_json::json;

/// Changes in one turn.
const CHANGES: usize = 50;
/// Panels' requests at the same time.
const CLIENTS: usize = 16;
/// Questions whose spread is told.
const QUESTIONS: usize = 2_000;

#[tokio::main]
async fn main() {
    for (name, engine) in [("SQLite", Engine::Sqlite), ("PostgreSQL", Engine::Postgres)] {
        println!("the journal on {name}");
        let desk = Desk::on(engine).await;
        one_after_the_other(&desk).await;
        at_the_same_time(&desk).await;
        questions(&desk).await;
    }
}

/// Suspends and unsuspends in turn: each is one change and one durable row at the provider.
async fn one_after_the_other(desk: &Desk) {
    let (panel_s, native_s) = (desk.made(KERNELHOST).await, desk.made(KERNELHOST).await);
    let remote_id = text(&desk.service(&native_s).await, "remote_id").to_owned();
    let client = provisor_providers::find("kernelhost").unwrap().client;
    let (at, world) = (connection(desk).into(), World::default());
    let mut calls = 0_u32;
    let pair = in_turn(
        async || {
            for turn in 0..CHANGES {
                desk.done(&panel_s, ["suspend", "unsuspend"][turn % 2], &json!({})).await;
            }
        },
        async || {
            for turn in 0..CHANGES {
                calls += 1;
                let key = format!("bench-{calls}");
                let call = Call { idempotency_key: key, attempt: 1, deadline_ms: 10_000, notes: Vec::new() };
                let service = ServiceRef { remote_id: Some(remote_id.clone()), domain: None, username: None };
                let outcome = if turn % 2 == 0 {
                    client.suspend(&world, &at, call, service, None).await
                } else {
                    client.unsuspend(&world, &at, call, service).await
                };
                outcome.unwrap();
            }
        },
    );
    let pair = pair.await;
    let each = |time: Duration| time / u32::try_from(CHANGES).unwrap();
    println!(
        "  one change after the other: {:?} through the gateway, {:?} natively without a journal, ratio {:.1}",
        each(pair.first),
        each(pair.second),
        pair.ratio
    );
}

async fn at_the_same_time(desk: &Desk) {
    let mut keys = Vec::new();
    for _ in 0..CLIENTS {
        keys.push(desk.made(KERNELHOST).await);
    }
    let mut rates = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        let clients = keys.iter().map(|key| {
            let (url, token) = (format!("http://{}/v1/services/{key}", desk.gateway().address()), desk.token.clone());
            tokio::spawn(async move {
                let http = Http::default();
                for turn in 0..CHANGES {
                    let url = format!("{url}/{}", ["suspend", "unsuspend"][turn % 2]);
                    let answer = ask(&http, &url, "POST", &token, Some(&json!({})), &[]).await.unwrap();
                    assert_eq!(answer.status, 200);
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.unwrap();
        }
        rates.push(per_second(CLIENTS * CHANGES, began.elapsed()));
    }
    rates.sort_by(f64::total_cmp);
    println!("  {CLIENTS} services at the same time: {:.0} whole changes/s (median of 5)", rates[2]);
}

async fn questions(desk: &Desk) {
    let key = desk.made(KERNELHOST).await;
    for (what, path, times) in [
        ("of the journal", format!("/v1/services/{key}"), QUESTIONS),
        ("of the provider", format!("/v1/services/{key}?fresh=true"), QUESTIONS / 10),
    ] {
        let mut took = Vec::new();
        for _ in 0..times {
            let began = Instant::now();
            assert_eq!(desk.send("GET", &path, None, &[]).await.status, 200);
            took.push(began.elapsed());
        }
        took.sort();
        println!("  status {what}: p50 {:?}, p99 {:?}", took[times / 2], took[times * 99 / 100]);
    }
}

fn connection(desk: &Desk) -> Connection {
    Connection {
        provider: "kernelhost".to_owned(),
        base_url: desk.key.base_url.clone(),
        key: desk.key.id.clone(),
        secret: desk.key.secret.expose_secret().to_owned(),
        settings: vec![Setting { name: "allow_private".to_owned(), value: "true".to_owned() }],
    }
}
