//! A real nginx in front, with the block that docs/nginx.md gives: signatures survive it, and the caller's address too.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use provisor::server::Options;
use provisor_tests::house::House;
use provisor_tests::raw;
use provisor_tests::resellers::{KernelHostKey, KeyTraits};
use tempfile::TempDir;

const PROXY: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Another address of loopback: the caller is not the proxy.
const CALLER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const PATIENCE: Duration = Duration::from_secs(20);

/// The block of the page, for this server.
fn block(server: SocketAddr) -> String {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/nginx.md")).unwrap();
    let (_, rest) = page.split_once("```nginx\n").unwrap();
    let (block, _) = rest.split_once("```").unwrap();
    assert!(block.contains("proxy_pass http://127.0.0.1:8080;"), "{block}");
    block.replace("127.0.0.1:8080", &server.to_string())
}

/// A proxy, ended when it is dropped.
struct Nginx {
    process: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Nginx {
    fn start(server: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Free now; nothing else on this machine asks for a port by its number.
        let address = std::net::TcpListener::bind((PROXY, 0)).unwrap().local_addr().unwrap();
        let mut configuration =
            "daemon off; master_process off; pid nginx.pid; error_log stderr warn;\nevents {}\nhttp {\naccess_log off;\n"
                .to_owned();
        for name in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            writeln!(configuration, "{name}_temp_path {name};").unwrap();
        }
        write!(configuration, "server {{ listen {address};\n{}}} }}\n", block(server)).unwrap();
        std::fs::write(folder.path().join("nginx.conf"), configuration).unwrap();
        // Debian keeps it where only root's path leads.
        let program =
            ["/usr/sbin/nginx", "nginx"].into_iter().find(|program| !program.starts_with('/') || Path::new(program).exists());
        let mut command = Command::new(program.unwrap());
        command.arg("-p").arg(folder.path()).args(["-c", "nginx.conf", "-e", "stderr"]).stdout(Stdio::null());
        let process = command.spawn().expect("this test needs nginx: run tests/run, or install Debian's nginx-light");
        let nginx = Self { process, address, _folder: folder };
        let begin = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            assert!(begin.elapsed() < PATIENCE, "nginx does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // It may be gone already.
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

fn signed(key: &KernelHostKey, method: &str, path: &str, extra: &str, body: &str) -> String {
    let mut request = format!("{method} /cp/kh_reseller_api{path} HTTP/1.1\r\nHost: reseller.example.com\r\n{extra}");
    for (name, value) in key.headers(Timestamp::now().as_second(), method, path, body.as_bytes()) {
        write!(request, "{name}: {value}\r\n").unwrap();
    }
    write!(request, "Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    request
}

#[tokio::test]
async fn signatures_and_addresses_survive_a_proxy() {
    let options = Options { trusted_proxies: vec![IpAddr::from(PROXY).into()], per_ip_per_minute: 0, ..Options::default() };
    let house = House::start_with(options).await;
    let account = house.reseller("100.00").await;
    let allowed = vec![IpAddr::from(CALLER).into()];
    let key = house.kernelhost_key(account, KeyTraits { allowed, ..KeyTraits::default() }).await;
    let nginx = Nginx::start(house.address());
    let send = async |request: String| raw::exchange_from(CALLER.into(), nginx.address, request.as_bytes()).await;

    for (path, status) in [
        ("/v1/me", 200),
        ("/v1/me?", 200),
        ("/v1/me??", 200),
        ("/v1/me?a=b+c&a=%2F..%2f&%61=", 200),
        ("/v1/me?q=a/../b//c", 200),
        ("/v1/services?per_page=50&page=1", 200),
        ("/v1/services?page=1&per_page=50", 200),
        ("/v1//me", 404),
        ("//v1/me", 404),
        ("/v1/me/", 404),
        ("/v1/./me", 404),
        ("/v1/me/..", 404),
        ("/v1/../v1/me", 404),
        ("/v1/%6de", 404),
        ("/v1/a%2fb", 404),
        ("/v1/a%2Fb", 404),
        ("/v1/%2e%2e/me", 404),
        ("/v1/a+b;c=d,e:f@g!$'()*~", 404),
        ("/v1/{a}|b^c\\d\"e", 404),
    ] {
        let answer = send(signed(&key, "GET", path, "", "")).await;
        assert_eq!(answer.status, status, "{path}: {}", String::from_utf8_lossy(&answer.body));
        assert!(answer.header("x-request-id").is_some(), "{path}: nginx answered by itself");
    }
    let order = r#"{"product_id":42, "billing_cycle":"monthly","note":"ü+%20"}"#;
    let json = "Content-Type: application/json\r\nIdempotency-Key: proxied\r\n";
    assert_eq!(send(signed(&key, "POST", "/v1/orders", json, order)).await.status, 201);
    let large = format!("{order}{}", " ".repeat(70_000));
    let refused = send(signed(&key, "POST", "/v1/orders", json, &large)).await;
    assert_eq!((refused.status, refused.content_type()), (413, Some("application/problem+json")));

    // Whatever a caller claims, its own address counts.
    let forged = "X-Forwarded-For: 203.0.113.9, 127.0.0.1\r\n";
    assert_eq!(send(signed(&key, "GET", "/v1/me", forged, "")).await.status, 200);
    let stranger = async |to: SocketAddr, extra: &str| {
        let request = signed(&key, "GET", "/v1/me", extra, "");
        raw::exchange_from(Ipv4Addr::new(127, 0, 0, 3).into(), to, request.as_bytes()).await.json()["reason"].clone()
    };
    assert_eq!(stranger(nginx.address, "").await, "ip_not_allowed");
    let forged = format!("X-Forwarded-For: {CALLER}\r\n");
    assert_eq!(stranger(nginx.address, &forged).await, "ip_not_allowed");
    assert_eq!(stranger(house.address(), &forged).await, "ip_not_allowed", "only the proxy is believed");
    let rows = house.store.read(|books| books.audit_rows(account.0, 0, 1000)).unwrap();
    let from_caller = rows.iter().filter(|row| row.row.peer == IpAddr::from(CALLER)).count();
    assert_eq!(from_caller, rows.len() - 3, "all but the stranger's");
}
