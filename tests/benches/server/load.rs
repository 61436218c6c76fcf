//! The load: requests signed ahead, written to connections that stay open, and what their answers cost.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use provisor_tests::resellers::KernelHostKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::MOUNT;

/// Connection by connection, request by request.
pub(crate) type Requests = Vec<Vec<Vec<u8>>>;

/// What one turn took.
#[derive(Clone, Copy)]
pub(crate) struct Reading {
    /// CPU time of the server's process per request, in microseconds.
    pub(crate) cpu_us: f64,
    pub(crate) per_second: f64,
    pub(crate) p99_ms: f64,
}

impl Reading {
    /// Each figure's median.
    pub(crate) fn median(readings: &[Self]) -> Self {
        let middle = |figure: fn(&Self) -> f64| {
            let mut figures: Vec<f64> = readings.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        Self { cpu_us: middle(|one| one.cpu_us), per_second: middle(|one| one.per_second), p99_ms: middle(|one| one.p99_ms) }
    }
}

/// Leaves the first core to the servers.
pub(crate) fn pin_to_second_core() {
    let pinned = Command::new("taskset").args(["-cp", "1", &std::process::id().to_string()]).output().unwrap();
    assert!(pinned.status.success(), "{}", String::from_utf8_lossy(&pinned.stderr));
}

/// A whole signed request.
pub(crate) fn signed(key: &KernelHostKey, method: &str, path: &str, head: &str, body: &[u8]) -> Vec<u8> {
    let now = jiff::Timestamp::now().as_second();
    let [a, b, c, d] = key.headers(now, method, path, body).map(|(name, value)| format!("{name}: {value}\r\n"));
    let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    let mut request =
        format!("{method} {MOUNT}{path} HTTP/1.1\r\nhost: bench.example\r\n{a}{b}{c}{d}{head}{length}\r\n").into_bytes();
    request.extend(body);
    request
}

/// Connections to a server.
pub(crate) struct Clients(Vec<TcpStream>);

impl Clients {
    pub(crate) async fn connect(server: SocketAddr, count: usize) -> Self {
        let mut streams = Vec::new();
        for _ in 0..count {
            let stream = TcpStream::connect(server).await.unwrap();
            stream.set_nodelay(true).unwrap();
            streams.push(stream);
        }
        Self(streams)
    }
}

/// As fast as the server answers.
pub(crate) async fn turn(clients: Clients, requests: Requests, server: u32) -> Reading {
    paced(clients, requests, server, Duration::ZERO).await
}

/// Each connection sends a request every `pause`, or at once if its last answer came too late for that. A wait counts from the moment
/// at which the request should have been sent.
pub(crate) async fn paced(Clients(streams): Clients, requests: Requests, server: u32, pause: Duration) -> Reading {
    let count: usize = requests.iter().map(Vec::len).sum();
    let (cpu, started, connections) = (cpu_time(server), Instant::now(), u32::try_from(requests.len()).unwrap());
    let tasks: Vec<_> = streams
        .into_iter()
        .zip(requests)
        .zip(0..)
        .map(|((stream, requests), index)| {
            let first = started + pause * index / connections;
            tokio::spawn(converse(stream, requests, first, pause))
        })
        .collect();
    let mut waits = Vec::new();
    for task in tasks {
        waits.extend(task.await.unwrap());
    }
    let (elapsed, cpu) = (started.elapsed(), cpu_time(server).saturating_sub(cpu));
    waits.sort_unstable();
    Reading {
        cpu_us: cpu.as_secs_f64() * 1e6 / count as f64,
        per_second: count as f64 / elapsed.as_secs_f64(),
        p99_ms: waits[waits.len() * 99 / 100].as_secs_f64() * 1e3,
    }
}

async fn converse(mut stream: TcpStream, requests: Vec<Vec<u8>>, first: Instant, pause: Duration) -> Vec<Duration> {
    let mut buffer = Vec::new();
    let mut waits = Vec::new();
    let mut due = first;
    for request in requests {
        if !pause.is_zero() {
            wait_until(due).await;
        }
        let since = if pause.is_zero() { Instant::now() } else { due };
        stream.write_all(&request).await.unwrap();
        buffer.clear();
        while !is_whole(&buffer) {
            assert_ne!(stream.read_buf(&mut buffer).await.unwrap(), 0, "the server hung up");
        }
        waits.push(since.elapsed());
        assert!(buffer.starts_with(b"HTTP/1.1 20"), "{}", String::from_utf8_lossy(&buffer));
        due += pause;
    }
    waits
}

/// Tokio's timers go off a millisecond or two late, which would count as the server's. The rest of the time is watched: the load has a
/// core to itself.
async fn wait_until(due: Instant) {
    const COARSE: Duration = Duration::from_millis(2);
    if let Some(early) = due.checked_sub(COARSE) {
        tokio::time::sleep_until(early.into()).await;
    }
    while Instant::now() < due {
        tokio::task::yield_now().await;
    }
}

fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).map(|text| text.trim().parse::<usize>());
    answer.len() == end + 4 + length.unwrap().unwrap()
}

/// What all threads of a process have had of the processor.
fn cpu_time(process: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap().map(|thread| thread.unwrap().path());
    // A thread may end meanwhile.
    let nanoseconds = threads.filter_map(|thread| {
        let on_cpu = std::fs::read_to_string(thread.join("schedstat")).ok()?;
        on_cpu.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}
