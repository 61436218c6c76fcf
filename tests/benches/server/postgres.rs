//! What becomes of the same requests with PostgreSQL: one host on a database, and two that share it. No core is set apart for anybody:
//! the database's own work is part of what is measured, and where there are few cores a second host has little to add.
//!
//! `cargo bench -p provisor-tests --bench server -- postgres`

use provisor_tests::binary::{SERVE, provisor_on, serve_on};
use provisor_tests::book::{Book, Engine};
use provisor_tests::daemon::Daemon;

use super::load::{self, Clients, Reading, Requests};
use super::{CONNECTIONS, ROUNDS, make_callers, orders, provide_services, reads};

/// Requests of a connection in a turn.
const READS: usize = 60;
const ORDERS: usize = 30;

pub(crate) async fn measure() {
    let book = Book::new(Engine::Postgres);
    let mut callers = make_callers(&book.open()).await;
    provide_services(serve_on(book.directory(), &book.url()), &mut callers).await;
    let hosts = [start(&book), start(&book)];
    compare("signed, audited GET /v1/services/{id}", &hosts, &|count| reads(&callers, CONNECTIONS / count, READS)).await;
    compare("durable order, POST /v1/orders", &hosts, &|count| orders(&callers, CONNECTIONS / count, ORDERS)).await;
}

fn start(book: &Book) -> Daemon {
    let mut command = provisor_on(book.directory(), &book.url());
    command.args(SERVE).env("PROVISOR_SERVER__FULFILMENT__DELAY_MS", "3600000");
    Daemon::start(command)
}

async fn compare(title: &str, hosts: &[Daemon; 2], requests: &dyn Fn(usize) -> Requests) {
    println!("\n{title} on PostgreSQL, {CONNECTIONS} connections, medians of {} turns", ROUNDS - 1);
    let mut readings = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        for (count, readings) in (1..=hosts.len()).zip(&mut readings) {
            let reading = turn(&hosts[..count], requests).await;
            if round > 0 {
                readings.push(reading);
            }
        }
    }
    for (count, readings) in (1..).zip(&readings) {
        let Reading { cpu_us, per_second, p99_ms } = Reading::median(readings);
        println!("  {count} host(s)  {per_second:6.0}/s, p99 {p99_ms:.1} ms, {cpu_us:.0} us CPU of the hosts");
    }
}

/// The connections are spread over the hosts, which work at the same time.
async fn turn(hosts: &[Daemon], requests: &dyn Fn(usize) -> Requests) -> Reading {
    let mut turns = Vec::new();
    for host in hosts {
        let clients = Clients::connect(host.address(), CONNECTIONS / hosts.len()).await;
        turns.push(tokio::spawn(load::turn(clients, requests(hosts.len()), host.id())));
    }
    let mut readings = Vec::new();
    for turn in turns {
        readings.push(turn.await.unwrap());
    }
    let mean = |figure: fn(&Reading) -> f64| readings.iter().map(figure).sum::<f64>() / readings.len() as f64;
    Reading {
        cpu_us: mean(|one| one.cpu_us),
        per_second: readings.iter().map(|one| one.per_second).sum(),
        p99_ms: readings.iter().map(|one| one.p99_ms).fold(0.0, f64::max),
    }
}
