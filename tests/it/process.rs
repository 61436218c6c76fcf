//! The host as a process: its socket, what it reads anew, what tells whether it can answer, and its end.

use std::io::Write;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use provisor_tests::binary::{serve, serve_on};
use provisor_tests::book::{Book, Engine};
use provisor_tests::daemon::binary;
use provisor_tests::desk::{Desk, text};
use provisor_tests::hooks::until;
use serde_json::{Value, json};

/// A process that does not outlive its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ended = self.0.kill();
        let _waited = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_s_file_and_profiles_that_are_read_anew() {
    let mut desk = Desk::open().await;
    desk.stop();
    let socket = desk.book.directory().join("gateway.sock");
    let mut command = Command::new(binary());
    command.env_clear().args(["--json", "--log", "error", "--data"]).arg(desk.book.directory());
    command.args(["serve", "--gateway"]).arg(format!("unix:{}", socket.display())).stdout(Stdio::piped());
    let mut process = Ended(command.spawn().unwrap());
    let curl = |path: &str| {
        let output = Command::new("curl")
            .args(["--silent", "--retry", "20", "--retry-all-errors", "--retry-delay", "1", "--unix-socket"])
            .arg(&socket)
            .args(["--header", &format!("Authorization: Bearer {}", desk.token)])
            .arg(format!("http://localhost{path}"))
            .output()
            .unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    };
    assert_eq!(curl("/v1/profiles/gp/check")["ok"], json!(true));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&socket).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o660);
    // A second one does not take the socket away from the first.
    let refused = Command::new(binary())
        .env_clear()
        .args(["--data"])
        .arg(desk.book.directory())
        .args(["serve", "--gateway"])
        .arg(format!("unix:{}", socket.display()))
        .output()
        .unwrap();
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("somebody answers"));
    let file = desk.book.directory().join("provisor.toml");
    let settings = std::fs::read_to_string(&file).unwrap();
    let hang_up = || assert!(Command::new("kill").args(["-HUP", &process.0.id().to_string()]).status().unwrap().success());
    let names = || {
        let told = curl("/v1/profiles");
        told["profiles"].as_array().unwrap().iter().map(|profile| text(profile, "name").to_owned()).collect::<Vec<_>>()
    };
    let until = |wanted: &[&str]| {
        let began = Instant::now();
        while names() != wanted {
            assert!(began.elapsed() < Duration::from_secs(20), "{:?}", names());
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    std::fs::write(&file, settings.replace("[profiles.gp]", "[profiles.renamed]")).unwrap();
    hang_up();
    until(&["kernelhost", "renamed"]);
    // What cannot be used changes nothing.
    std::fs::write(&file, settings.replace("[profiles.gp]", "[profiles.broken]\nnonsense = 1")).unwrap();
    hang_up();
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(names(), ["kernelhost", "renamed"]);
    std::fs::write(&file, settings).unwrap();
    hang_up();
    until(&["gp", "kernelhost"]);
    assert!(Command::new("kill").arg(process.0.id().to_string()).status().unwrap().success());
    assert!(process.0.wait().unwrap().success());
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_is_told_whether_a_host_is_ready() {
    let mut desk = Desk::open().await;
    let probe = |desk: &Desk, arguments: &[&str]| {
        let mut command = Command::new(binary());
        command.env_clear().args(["--json", "--data"]).arg(desk.book.directory()).arg("ready").args(arguments);
        let output = command.output().unwrap();
        let told = serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default();
        (output.status.code().unwrap(), told["ready"].clone(), told["detail"].to_string())
    };
    let address = desk.gateway().address().to_string();
    assert_eq!(probe(&desk, &[&address]), (0, json!(true), "\"ready\"".to_owned()));
    desk.book.execute("ALTER TABLE operations RENAME TO operations_away");
    let (exit, ready, detail) = probe(&desk, &[&address]);
    assert_eq!((exit, ready), (1, json!(false)));
    assert!(detail.contains("the store does not answer"), "{detail}");
    desk.book.execute("ALTER TABLE operations_away RENAME TO operations");
    assert_eq!(probe(&desk, &["127.0.0.1:0"]).0, 2);
    // Without an address it asks wherever the configuration has the gateway listen.
    let socket = desk.book.directory().join("gateway.sock");
    desk.reconfigure(|settings| settings.replace("[gateway]\n", &format!("[gateway]\nlisten = 'unix:{}'\n", socket.display())));
    assert_eq!(probe(&desk, &[]).0, 3, "the gateway of this test listens elsewhere");
    let mut command = Command::new(binary());
    command.env_clear().args(["--log", "error", "--data"]).arg(desk.book.directory()).arg("serve");
    let _process = Ended(command.stdout(Stdio::null()).spawn().unwrap());
    until(|| probe(&desk, &[]).0 == 0, || "a ready gateway".to_owned()).await;
}

/// Of every request a nonce is left behind: as many as come at the highest rates must go again.
#[tokio::test(flavor = "multi_thread")]
async fn what_requests_left_behind_goes_as_fast_as_it_came() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let book = Book::new(engine);
        drop(book.open());
        book.execute(
            "INSERT INTO nonces (key_id, nonce, expires_at)
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) SELECT 1, 'nonce-' || i, 1 FROM n",
        );
        let _server = serve_on(book.directory(), &book.url());
        let left = || book.number("SELECT COUNT(*) FROM nonces");
        until(|| left() == 1, || format!("{} nonces to go", left() - 1)).await;
    }
}

/// Else a few strangers that ask and never read could hold all connections.
#[cfg(target_os = "linux")]
#[test]
fn who_does_not_read_is_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("provisor.toml"), "[server]\nlimits.per_ip_per_minute = 0\n").unwrap();
    let daemon = serve(directory.path());
    let mut reader = TcpStream::connect(daemon.address()).unwrap();
    let path = format!("{}/openapi.json", provisor_providers::find("kernelhost").unwrap().server.mount());
    // Far more than the buffers of both ends take.
    reader.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").repeat(400).as_bytes()).unwrap();
    let begin = Instant::now();
    // Nobody is told before he sends something.
    while reader.write_all(b"G").is_ok() {
        assert!(begin.elapsed() < Duration::from_secs(90), "it is connected still");
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(begin.elapsed() > Duration::from_secs(20), "a slow reader has time: {:?}", begin.elapsed());
}

/// Whoever waits for the line that says where it listens may stop it at once.
#[test]
fn a_host_that_is_stopped_as_soon_as_it_listens_ends_in_order() {
    let directory = tempfile::tempdir().unwrap();
    for _ in 0..20 {
        serve(directory.path()).stop();
    }
}
