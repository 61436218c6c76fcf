//! PostgreSQL across a network: who the server is, who we are, and what anybody between the two can read.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::path::Path;
use std::sync::Arc;

use provisor::config::StoreUrl;
use provisor::store::Store;
use provisor::vault::Vault;
use provisor_providers::books::Fault;
use provisor_tests::authority::Authority;
use provisor_tests::binary::provisor;
use provisor_tests::hooks::until;
use provisor_tests::postgres::Cluster;
use secrecy::SecretString;
use serde_json::Value;
use tempfile::TempDir;

const PASSWORD: &str = "MARKED-database-password";

/// A database behind a certificate of `localhost`, and a data directory.
struct Site {
    authority: Authority,
    cluster: Cluster,
    data: TempDir,
}

impl Site {
    fn new() -> Self {
        let authority = Authority::new();
        let cluster = Cluster::start_on_loopback(&authority.issue("localhost"));
        cluster.sql("postgres", &format!("CREATE ROLE provisor LOGIN PASSWORD '{PASSWORD}'"));
        cluster.sql("postgres", "CREATE DATABASE provisor OWNER provisor");
        let data = tempfile::tempdir().unwrap();
        Vault::create_key(data.path(), &[7; 32]).unwrap();
        Self { authority, cluster, data }
    }

    fn url(&self, host: &str, settings: &str) -> String {
        format!("postgres://provisor@{host}:{}/provisor{settings}", self.cluster.port())
    }

    /// With an authority's certificate.
    fn trusting(&self, mode: &str, certificate: &Path) -> String {
        self.url("localhost", &format!("?sslmode={mode}&sslrootcert={}", certificate.display()))
    }

    fn open(&self, url: &str, password: &str) -> Result<Store, Fault> {
        let vault = Arc::new(Vault::open(self.data.path()).unwrap());
        let StoreUrl::Postgres(url) = url.parse().unwrap() else { panic!("{url}") };
        Store::open_postgres(&url, Some(&SecretString::from(password)), vault)
    }

    /// Why it does not open; told without the password.
    fn refusal(&self, url: &str, password: &str) -> String {
        let why = self.open(url, password).err().unwrap_or_else(|| panic!("{url} opened")).to_string();
        assert!(!why.contains("MARKED"), "{why}");
        why
    }

    /// Whether our connections are encrypted: of all, one answer.
    fn is_encrypted(&self) -> bool {
        let seen = "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'provisor'";
        match self.cluster.sql("postgres", seen).as_str() {
            "t" => true,
            "f" => false,
            other => panic!("encrypted: {other:?}"),
        }
    }
}

#[tokio::test]
async fn an_encrypted_connection_is_one_to_the_server_that_its_certificate_names() {
    let site = Site::new();
    let right = site.authority.certificate();
    for mode in ["require", "verify-full"] {
        let store = site.open(&site.trusting(mode, &right), PASSWORD).unwrap();
        store.transact(|books| books.has_account(provisor_providers::books::AccountId(1))).await.unwrap();
        assert!(site.is_encrypted(), "{mode}");
    }
    // Another authority's certificate, none but the browsers', and another name than the certificate's.
    let other = Authority::new();
    for (url, why) in [
        (site.trusting("require", &other.certificate()), "UnknownIssuer"),
        (site.url("localhost", "?sslmode=require"), "UnknownIssuer"),
        (site.url("127.0.0.1", &format!("?sslmode=require&sslrootcert={}", right.display())), "not valid for name"),
    ] {
        let told = site.refusal(&url, PASSWORD);
        assert!(told.contains(why), "{url}: {told}");
    }
    let absent = site.data.path().join("absent.pem");
    assert!(site.refusal(&site.trusting("require", &absent), PASSWORD).contains("absent.pem"));
    let told = site.refusal(&site.trusting("require", &right), "MARKED-another-password");
    assert!(told.contains("28P01"), "{told}");
}

#[tokio::test]
async fn what_was_to_be_encrypted_is_never_sent_in_clear() {
    let site = Site::new();
    let url = site.trusting("require", &site.authority.certificate());
    // Loopback alone may do without, and where it is said.
    for clear in [site.url("localhost", ""), site.url("127.0.0.1", "?sslmode=disable")] {
        let _store = site.open(&clear, PASSWORD).unwrap();
        assert!(!site.is_encrypted(), "{clear}");
    }
    site.cluster.sql("postgres", "ALTER SYSTEM SET ssl = off");
    site.cluster.sql("postgres", "SELECT pg_reload_conf()");
    until(|| site.cluster.sql("postgres", "SHOW ssl") == "off", || "a server without TLS".to_owned()).await;
    let told = site.refusal(&url, PASSWORD);
    assert!(told.contains("does not support TLS"), "{told}");
}

#[test]
fn the_binary_takes_the_password_from_a_file_and_tells_nobody() {
    let site = Site::new();
    let data = site.data.path();
    std::fs::write(data.join("database.password"), format!("{PASSWORD}\n")).unwrap();
    let other = Authority::new();
    for (authority, is_reached) in [(&site.authority, true), (&other, false)] {
        let url = site.trusting("verify-full", &authority.certificate());
        let settings = format!("[store]\nurl = \"{url}\"\npassword = {{ file = \"database.password\" }}\n");
        std::fs::write(data.join("provisor.toml"), settings).unwrap();
        let output = provisor(data).args(["--log", "trace", "doctor"]).output().unwrap();
        assert_eq!(output.status.success(), is_reached, "{}", String::from_utf8_lossy(&output.stderr));
        for text in [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)) {
            assert!(!text.contains("MARKED"), "{text}");
        }
        if is_reached {
            let findings = String::from_utf8(output.stdout).unwrap();
            let mut findings = findings.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            assert!(findings.all(|finding| finding["ok"] == true));
        }
    }
}
