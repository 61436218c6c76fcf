//! Mail to resellers: into files, and to a mail server.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::io::{BufRead, BufReader as StdBufReader};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use jiff::SignedDuration;
use provisor::clock::Clock;
use provisor::mail::{MailOptions, MailWay, Smtp, SmtpTls};
use provisor::server::Options;
use provisor::store::MailSummary;
use provisor_providers::books::{Books, Mail};
use provisor_tests::authority::Authority;
use provisor_tests::binary::python;
use provisor_tests::book::Engine;
use provisor_tests::faults::connection;
use provisor_tests::hooks::until;
use provisor_tests::house::House;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A mail server that takes everything, or refuses the first of it.
struct Sink {
    port: u16,
    mails: Arc<Mutex<Vec<String>>>,
}

impl Sink {
    async fn start(refused: usize) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mails = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&mails);
        tokio::spawn(async move {
            let mut connections = 0;
            loop {
                let stream = connection(&listener).await;
                connections += 1;
                // Whoever hangs up early has nothing more to say.
                let _ended = Self::talk(stream, connections <= refused, &taken).await;
            }
        });
        Self { port, mails }
    }

    async fn talk(stream: TcpStream, is_refused: bool, mails: &Mutex<Vec<String>>) -> std::io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        write.write_all(b"220 sink\r\n").await?;
        let mut envelope = Vec::new();
        while let Some(line) = lines.next_line().await? {
            let word = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            let answer = match word.as_str() {
                "QUIT" => return write.write_all(b"221 bye\r\n").await,
                "RCPT" if is_refused => "451 later",
                "DATA" => {
                    write.write_all(b"354 go on\r\n").await?;
                    let mut text = envelope.join("\n") + "\n";
                    while let Some(line) = lines.next_line().await?.filter(|line| line != ".") {
                        text += &line;
                        text.push('\n');
                    }
                    mails.lock().unwrap().push(text);
                    "250 taken"
                }
                _ => {
                    envelope.push(line);
                    "250 ok"
                }
            };
            write.write_all(format!("{answer}\r\n").as_bytes()).await?;
        }
        Ok(())
    }

    fn mails(&self) -> Vec<String> {
        self.mails.lock().unwrap().clone()
    }
}

fn engine() -> Engine {
    Engine::of_module(module_path!())
}

fn options(way: MailWay) -> Options {
    let from = "Provisor <provisor@example.org>".parse().unwrap();
    Options { per_ip_per_minute: 0, mail: Some(MailOptions { from, way }), ..Options::default() }
}

fn smtp(port: u16) -> MailWay {
    MailWay::Smtp(Smtp { host: "127.0.0.1".to_owned(), port, tls: SmtpTls::None, credentials: None })
}

async fn write(house: &House, subject: &'static str, email: &'static str) {
    let now = house.clock.now();
    let work = house.store.transact(move |books| {
        let account = books.create_account("Bücher\r\nBcc: evil@example.net", email, "EUR", now)?;
        let body = "Grüße.\r\n.\r\nA line with a point alone stands above.\n".to_owned();
        books.account(account).queue_mail(&Mail { kind: "key.locked".to_owned(), subject: subject.to_owned(), body, at: now })
    });
    work.await.unwrap();
}

fn listed(house: &House) -> Vec<MailSummary> {
    house.store.read(|books| books.mails(100)).unwrap()
}

#[tokio::test]
async fn without_a_server_mail_is_a_file_for_its_owner_alone() {
    let mut house = House::start_in(engine()).await;
    write(&house, "Sperre: é\nX-Evil: 1", "owner@example.com").await;
    until(|| listed(&house)[0].sent_at.is_some(), || "the mail".to_owned()).await;
    let folder = house.directory().join("mail");
    assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let files: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    assert_eq!(files[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(files[0].to_str().unwrap().ends_with("-key.locked.eml"));
    let text = std::fs::read_to_string(&files[0]).unwrap();
    let head = text.split("\r\n\r\n").next().unwrap();
    assert!(head.contains("owner@example.com") && head.contains("From: Provisor <provisor@example.org>"), "{head}");
    assert!(head.lines().all(|line| !line.starts_with("X-Evil") && !line.starts_with("Bcc")), "{head}");
    house.stop().await;
}

#[tokio::test]
async fn a_server_that_refuses_is_asked_again() {
    let sink = Sink::start(2).await;
    let mut house = House::start_on(engine(), options(smtp(sink.port))).await;
    house.clock.set("2027-01-15T08:00:00Z".parse().unwrap());
    write(&house, "First", "owner@example.com").await;
    for (attempts, minutes) in [(1, 1), (2, 4)] {
        until(|| listed(&house)[0].attempts == attempts, || format!("attempt {attempts}")).await;
        assert!(listed(&house)[0].last_error.as_ref().unwrap().contains("451"), "{:?}", listed(&house));
        house.clock.advance(SignedDuration::from_mins(minutes));
    }
    until(|| listed(&house)[0].sent_at.is_some(), || "the mail".to_owned()).await;
    let mails = sink.mails();
    assert_eq!(mails.len(), 1);
    let (mail, envelope) = (&mails[0], mails[0].lines().take(3).collect::<Vec<_>>());
    assert_eq!(envelope[0], "EHLO example.org");
    assert!(envelope[1].starts_with("MAIL FROM:<provisor@example.org>"), "{mail}");
    assert!(envelope[2].starts_with("RCPT TO:<owner@example.com>"), "{mail}");
    assert!(mail.contains("\nSubject: First\n") && mail.contains("\nDate: Fri, 15 Jan 2027 08:00:00"), "{mail}");
    assert!(!mail.contains("\nBcc"), "{mail}");
    house.stop().await;
}

#[tokio::test]
async fn mail_that_never_goes_is_given_up() {
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port();
    let mut house = House::start_on(engine(), options(smtp(closed))).await;
    house.clock.set("2027-01-15T08:00:00Z".parse().unwrap());
    write(&house, "Never", "owner@example.com").await;
    write(&house, "To nobody", "owner@example.com\r\nBcc: evil@example.net").await;
    until(
        || {
            house.clock.advance(SignedDuration::from_mins(5));
            listed(&house).iter().all(|mail| mail.dead_at.is_some())
        },
        || format!("{:?}", listed(&house)),
    )
    .await;
    let attempts: Vec<u32> = listed(&house).iter().map(|mail| mail.attempts).collect();
    assert_eq!(attempts[0], 1, "an address that is none is not tried again");
    assert!(attempts[1] > 2, "{attempts:?}");
    house.stop().await;
}

const USER: &str = "provisor@example.org";
const PASSWORD: &str = "MARKED mail password";

/// aiosmtpd from PyPI, ended when it is dropped: a mail server that none of our code is in.
struct Postmaster {
    process: Child,
    port: u16,
    said: Arc<Mutex<Vec<Value>>>,
}

impl Postmaster {
    /// With a certificate of `localhost`.
    fn start(mode: &str, authority: &Authority) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("foreign/smtp_receiver.py");
        let identity = authority.issue("localhost");
        let mut command = Command::new(python("python"));
        command.arg(script).arg(mode).arg(identity.certificate).arg(identity.key).args([USER, PASSWORD]);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let read = |line: String| serde_json::from_str::<Value>(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let mut lines = StdBufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok).map(read);
        let port = lines.next().unwrap()["port"].as_u64().unwrap().try_into().unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        std::thread::spawn(move || lines.for_each(|line| heard.lock().unwrap().push(line)));
        Self { process, port, said }
    }

    fn said(&self) -> Vec<Value> {
        self.said.lock().unwrap().clone()
    }
}

impl Drop for Postmaster {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// A house that sends its mail there, and trusts an authority.
async fn sending(to: &Postmaster, tls: SmtpTls, password: &str, trusted: &Authority) -> House {
    let credentials = Some((USER.to_owned(), password.into()));
    let way = MailWay::Smtp(Smtp { host: "localhost".to_owned(), port: to.port, tls, credentials });
    House::start_on(engine(), Options { extra_roots: vec![trusted.der().into()], ..options(way) }).await
}

#[tokio::test]
async fn over_tls_a_server_that_asks_for_a_login_takes_mail() {
    let authority = Authority::new();
    for (mode, tls) in [("tls", SmtpTls::Tls), ("starttls", SmtpTls::StartTls)] {
        let postmaster = Postmaster::start(mode, &authority);
        let mut house = sending(&postmaster, tls, PASSWORD, &authority).await;
        write(&house, "Sperre: é", "owner@example.com").await;
        until(|| listed(&house)[0].sent_at.is_some(), || format!("{mode}: {:?}", listed(&house))).await;
        let said = postmaster.said();
        let [login, taken] = said.as_slice() else { panic!("{said:?}") };
        assert_eq!(login["login"], USER, "{mode}");
        assert_eq!((&taken["encrypted"], &taken["authenticated"]), (&json!(true), &json!(true)), "{mode}");
        assert_eq!(taken["mail"]["to"], json!(["owner@example.com"]), "{mode}");
        assert!(taken["mail"]["text"].as_str().unwrap().contains("From: Provisor <provisor@example.org>"), "{taken}");
        house.stop().await;
    }
}

#[tokio::test]
async fn a_mail_server_is_told_nothing_before_it_is_known_and_the_line_is_secret() {
    let (authority, other) = (Authority::new(), Authority::new());
    for (mode, tls, password, trusted, why, heard) in [
        ("tls", SmtpTls::Tls, PASSWORD, &other, "UnknownIssuer", 0),
        ("starttls", SmtpTls::StartTls, PASSWORD, &other, "UnknownIssuer", 0),
        ("clear", SmtpTls::StartTls, PASSWORD, &authority, "STARTTLS", 0),
        ("starttls", SmtpTls::StartTls, "MARKED wrong", &authority, "535", 1),
    ] {
        let postmaster = Postmaster::start(mode, &authority);
        let mut house = sending(&postmaster, tls, password, trusted).await;
        write(&house, "Secret", "owner@example.com").await;
        until(|| listed(&house)[0].attempts == 1, || format!("{mode}: an attempt")).await;
        let mail = listed(&house).remove(0);
        let told = mail.last_error.unwrap();
        assert!(mail.sent_at.is_none() && mail.dead_at.is_none(), "{mode}: it is tried again");
        assert!(told.contains(why) && !told.contains("MARKED"), "{mode}: {told}");
        assert_eq!(told.matches("[redacted]").count(), 2 * heard, "{mode}: {told}");
        let said = postmaster.said();
        assert_eq!(said.iter().filter(|line| line["login"] == USER).count(), heard, "{mode}: {said:?}");
        assert!(said.iter().all(|line| line["mail"].is_null()), "{mode}: {said:?}");
        house.stop().await;
    }
}
