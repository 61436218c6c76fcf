//! The postman: takes mail from the outbox and sends it, by SMTP or into files.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};
use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use rustls::pki_types::CertificateDer;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::redaction::Secrets;
use crate::store::{QueuedMail, Sent, Store};
use crate::ticks::Ticks;

const TICK: Duration = Duration::from_millis(500);
/// Mails taken at a time, and how long they are held: past the time that all of them together may take.
const MAILS: u32 = 4;
const LEASE: SignedDuration = SignedDuration::from_mins(5);
/// For one mail.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The wait after the first failure; each further one is four times as long, up to the longest (our choices).
const FIRST_WAIT: SignedDuration = SignedDuration::from_mins(1);
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(6);
/// How long a mail is tried (our choice).
const GIVEN_UP_AFTER: SignedDuration = SignedDuration::from_hours(72);

/// How mail is sent.
#[derive(Debug, Clone)]
pub struct MailOptions {
    /// Whom it comes from.
    pub from: Mailbox,
    /// Which way it goes.
    pub way: MailWay,
}

/// Which way mail goes.
#[derive(Debug, Clone)]
pub enum MailWay {
    /// Into files (`.eml`, for their owner alone) of this folder, which is made when the first is written.
    Files(PathBuf),
    /// To a mail server.
    Smtp(Smtp),
}

/// A mail server.
#[derive(Debug, Clone)]
pub struct Smtp {
    /// Its name, which its certificate has to prove.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is kept secret.
    pub tls: SmtpTls,
    /// As whom to send.
    pub credentials: Option<(String, SecretString)>,
}

/// How a connection to a mail server is kept secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpTls {
    /// TLS from the first byte.
    Tls,
    /// TLS after a greeting in clear; without it nothing is sent.
    StartTls,
    /// Not at all.
    None,
}

/// Sends mail.
pub(crate) struct PostOffice {
    store: Store,
    clock: Arc<dyn Clock>,
    from: Mailbox,
    way: Way,
    /// What a mail server may repeat of a login.
    secrets: Secrets,
}

enum Way {
    Files(PathBuf),
    Smtp(AsyncSmtpTransport<Tokio1Executor>),
}

/// Why a mail was not sent.
#[derive(Debug, thiserror::Error)]
enum MailError {
    /// It never will be.
    #[error("not a mail: {0}")]
    Unsendable(String),
    #[error("{0}")]
    Smtp(#[from] lettre::transport::smtp::Error),
    #[error("cannot write the file: {0}")]
    File(#[from] io::Error),
    #[error("not sent within {TIMEOUT:?}")]
    Timeout,
}

/// Sends what is in the outbox until it is stopped. Any number may, of one book.
pub(crate) async fn run(office: PostOffice, stopped: watch::Receiver<bool>) {
    let mut ticks = Ticks::every(TICK, stopped);
    while ticks.next().await {
        let now = office.clock.now();
        match office.store.transact(move |books| books.claim_mails(now, now + LEASE, MAILS)).await {
            Ok(mails) => {
                for mail in mails {
                    send(&office, mail).await;
                }
            }
            Err(error) => tracing::error!(%error, "mail has to wait"),
        }
    }
}

async fn send(office: &PostOffice, mail: QueuedMail) {
    let (id, fence) = (mail.id, mail.fence);
    let sent = tokio::time::timeout(TIMEOUT, office.send(&mail)).await.unwrap_or(Err(MailError::Timeout));
    let now = office.clock.now();
    let sent = match sent {
        Ok(()) => Sent::Sent,
        Err(error) => {
            let again_at = if matches!(error, MailError::Unsendable(_)) { None } else { again_at(&mail, now) };
            let error = office.secrets.redact(&error.to_string());
            tracing::warn!(error, id, "a mail could not be sent");
            Sent::Failed { error, again_at }
        }
    };
    if let Err(error) = office.store.transact(move |books| books.settle_mail(id, fence, &sent, now)).await {
        tracing::error!(%error, id, "what became of a mail could not be written: it is sent again");
    }
}

fn again_at(mail: &QueuedMail, now: Timestamp) -> Option<Timestamp> {
    let wait = FIRST_WAIT.saturating_mul(4_i32.saturating_pow(mail.attempts)).min(LONGEST_WAIT);
    Some(now + wait).filter(|at| at.duration_since(mail.created_at) < GIVEN_UP_AFTER)
}

impl PostOffice {
    /// With certificate authorities besides the public ones. Fails only where TLS cannot be set up.
    pub(crate) fn new(
        options: &MailOptions,
        extra_roots: &[CertificateDer<'static>],
        store: Store,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, lettre::transport::smtp::Error> {
        let way = match &options.way {
            MailWay::Files(folder) => Way::Files(folder.clone()),
            MailWay::Smtp(smtp) => Way::Smtp(transport(smtp, options.from.email.domain(), extra_roots)?),
        };
        let credentials = match &options.way {
            MailWay::Smtp(smtp) => smtp.credentials.as_ref(),
            MailWay::Files(_) => None,
        };
        // AUTH PLAIN sends user and password in one text (RFC 4616).
        let plain =
            |(user, password): &(String, SecretString)| SecretString::from(format!("\0{user}\0{}", password.expose_secret()));
        let secrets = Secrets::new(credentials.map(|(_, password)| password).into_iter().chain(&credentials.map(plain)));
        Ok(Self { store, clock, from: options.from.clone(), way, secrets })
    }

    async fn send(&self, mail: &QueuedMail) -> Result<(), MailError> {
        let message = message(&self.from, mail)?;
        match &self.way {
            Way::Smtp(transport) => {
                transport.send(message).await?;
            }
            Way::Files(folder) => {
                let (folder, name) = (folder.clone(), file_name(mail));
                let written = tokio::task::spawn_blocking(move || write(&folder, &name, &message.formatted()));
                written.await.map_err(io::Error::other)??;
            }
        }
        Ok(())
    }
}

fn transport(
    smtp: &Smtp,
    domain: &str,
    extra_roots: &[CertificateDer<'static>],
) -> Result<AsyncSmtpTransport<Tokio1Executor>, lettre::transport::smtp::Error> {
    let parameters = || {
        let mut builder = TlsParameters::builder(smtp.host.clone()).certificate_store(CertificateStore::WebpkiRoots);
        for root in extra_roots {
            builder = builder.add_root_certificate(Certificate::from_der(root.to_vec())?);
        }
        builder.build_rustls()
    };
    let tls = match smtp.tls {
        SmtpTls::Tls => Tls::Wrapper(parameters()?),
        SmtpTls::StartTls => Tls::Required(parameters()?),
        SmtpTls::None => Tls::None,
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(smtp.host.as_str())
        .port(smtp.port)
        .tls(tls)
        .timeout(Some(TIMEOUT))
        .hello_name(ClientId::Domain(domain.to_owned()));
    if let Some((user, password)) = &smtp.credentials {
        builder = builder.credentials(Credentials::new(user.clone(), password.expose_secret().to_owned()));
    }
    Ok(builder.build())
}

/// The same mail each time it is tried, so that a second copy can be told from a second mail.
fn message(from: &Mailbox, mail: &QueuedMail) -> Result<Message, MailError> {
    let unsendable = |error: &dyn std::error::Error| MailError::Unsendable(error.to_string());
    let address: Address = mail.address.parse().map_err(|error: lettre::address::AddressError| unsendable(&error))?;
    let name = Some(one_line(&mail.name)).filter(|name| !name.is_empty());
    Message::builder()
        .from(from.clone())
        .to(Mailbox::new(name, address))
        .subject(one_line(&mail.subject))
        .date(SystemTime::from(mail.created_at))
        .message_id(Some(format!("<{}.{}@{}>", mail.id, mail.created_at.as_millisecond(), from.email.domain())))
        .header(ContentType::TEXT_PLAIN)
        .body(mail.body.clone())
        .map_err(|error| unsendable(&error))
}

/// A line break in a header would begin another one.
fn one_line(text: &str) -> String {
    let plain = |letter: char| if letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}') { ' ' } else { letter };
    text.chars().map(plain).collect::<String>().trim().to_owned()
}

fn file_name(mail: &QueuedMail) -> String {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() || letter == '.' { letter } else { '-' };
    let kind: String = mail.kind.chars().map(plain).collect();
    format!("{:08}-{}.eml", mail.id, kind.trim_start_matches('.'))
}

/// Whole or not at all; written twice, it is there once.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let unfinished = folder.join(format!(".{name}.{}", std::process::id()));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(unfinished, folder.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail() -> QueuedMail {
        QueuedMail {
            id: 7,
            fence: 1,
            attempts: 0,
            kind: "key.locked".to_owned(),
            name: "Example Ltd".to_owned(),
            address: "owner@example.com".to_owned(),
            subject: "A key was locked".to_owned(),
            body: "Hello.\n".to_owned(),
            created_at: "2027-01-15T08:00:00Z".parse().unwrap(),
        }
    }

    fn formatted(mail: &QueuedMail) -> Result<String, MailError> {
        let from = "Provisor <provisor@example.org>".parse().unwrap();
        Ok(String::from_utf8(message(&from, mail)?.formatted()).unwrap())
    }

    fn headers(text: &str) -> Vec<&str> {
        text.split("\r\n\r\n").next().unwrap().split("\r\n").filter_map(|line| line.split(": ").next()).collect()
    }

    #[test]
    fn a_mail_is_the_same_each_time() {
        let text = formatted(&mail()).unwrap();
        assert_eq!(text, formatted(&mail()).unwrap());
        for part in [
            "From: Provisor <provisor@example.org>\r\n",
            "To: \"Example Ltd\" <owner@example.com>\r\n",
            "Subject: A key was locked\r\n",
            "Message-ID: <7.1800000000000@example.org>\r\n",
            "Date: Fri, 15 Jan 2027 08:00:00",
            "\r\n\r\nHello.\r\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn no_line_break_begins_a_header() {
        let plain = headers(&formatted(&mail()).unwrap()).len();
        for evil in [
            "x\r\nBcc: evil@example.net",
            "x\nBcc: evil@example.net",
            "x\rBcc: evil@example.net",
            "x\u{85}Bcc: evil@example.net",
            "x\u{2028}Bcc: evil@example.net",
            "x\r\n\r\nBody",
            "\"x\" <evil@example.net>,\r\n y",
        ] {
            let text = formatted(&QueuedMail { subject: evil.to_owned(), name: evil.to_owned(), ..mail() }).unwrap();
            assert_eq!(headers(&text).len(), plain, "{evil:?}: {text}");
            assert!(!text.contains("\nBcc:") && !text.contains("\rBcc:"), "{evil:?}: {text}");
            assert!(text.contains("<owner@example.com>\r\n"), "{text}");
        }
        for address in
            ["owner@example.com\r\nBcc: evil@example.net", "a@b\nc", "owner", "", "a b@example.com", "a@example.com, b@c.d"]
        {
            let sent = formatted(&QueuedMail { address: address.to_owned(), ..mail() });
            assert!(matches!(sent, Err(MailError::Unsendable(_))), "{address:?}");
        }
    }

    #[test]
    fn a_files_name_stays_in_its_folder() {
        assert_eq!(file_name(&mail()), "00000007-key.locked.eml");
        assert_eq!(file_name(&QueuedMail { kind: "../../x y".to_owned(), ..mail() }), "00000007--..-x-y.eml");
    }

    #[test]
    fn waits_grow_and_end_after_three_days() {
        let (mut now, mut attempts) = (mail().created_at, 0);
        let mut waits = Vec::new();
        while let Some(next) = again_at(&QueuedMail { attempts, ..mail() }, now) {
            waits.push(next.duration_since(now).as_mins());
            (now, attempts) = (next, attempts + 1);
        }
        assert_eq!(waits[..6], [1, 4, 16, 64, 256, 360]);
        assert!(now.duration_since(mail().created_at) > SignedDuration::from_hours(60), "{waits:?}");
        assert!(waits.len() < 20);
    }
}
