//! A panel's desk: the shipped binary as a gateway, and behind a machine that can be made to fail, another as both providers.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::binary::{key, provisor, reseller, run, run_on, serve};
use crate::book::{Book, Engine};
use crate::daemon::{Daemon, binary};
use crate::faults::Upstream;
use crate::http::{Answer, Http};
use crate::resellers::{KernelHostKey, unique};

/// The credit that both providers' reseller begins with, in minor units.
pub const CREDIT: i64 = 100_000_000;
/// How long whatever is under way may take to come to its end.
const PATIENCE: Duration = Duration::from_secs(60);
/// A password that must be seen nowhere.
pub const PASSWORD: &str = "MARKED-Passw0rd-of-a-customer";

/// A provider as a panel orders there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shop {
    /// The provider's id, and the profile's name.
    pub provider: &'static str,
    plan: &'static str,
}

/// Both providers.
pub const SHOPS: [Shop; 2] = [KERNELHOST, GP];
/// Orders that become services; idempotency keys.
pub const KERNELHOST: Shop = Shop { provider: "kernelhost", plan: "42" };
/// Domains; no idempotency.
pub const GP: Shop = Shop { provider: "gp", plan: "10k" };

impl Shop {
    /// The body of a `create`.
    pub fn order(self, domain: &str) -> Value {
        match self.provider {
            "gp" => json!({"profile": "gp", "plan": self.plan, "domain": domain, "email": "a@example.com", "password": PASSWORD}),
            provider => json!({"profile": provider, "plan": self.plan, "options": {"hostname": domain}}),
        }
    }

    /// The body of an `adopt` of what another key has; none if it has nothing.
    pub fn adoption(self, service: &Value) -> Option<Value> {
        let member = if self == GP { "domain" } else { "remote_id" };
        service[member].as_str().map(|name| json!({"profile": self.provider, member: name}))
    }
}

/// The desk. Everything ends when it is dropped.
pub struct Desk {
    /// The gateway's book.
    pub book: Book,
    /// The providers' book.
    pub provider: Book,
    /// The machine in front of the providers.
    pub upstream: Upstream,
    /// The machine in front of the gateway, by which what a provider tells comes to it.
    pub events: Upstream,
    /// The panel's token.
    pub token: String,
    /// What the gateway asks KernelHost as.
    pub key: KernelHostKey,
    server: Option<Daemon>,
    gateway: Option<Daemon>,
    settings: String,
    reseller: String,
    http: Http,
}

impl Desk {
    /// With a gateway on SQLite.
    pub async fn open() -> Self {
        Self::on(Engine::Sqlite).await
    }

    /// With the gateway's book in this engine.
    pub async fn on(engine: Engine) -> Self {
        Self::with(engine, "first_pause_ms = 20\nquiet_ms = 200\n").await
    }

    /// With these settings of the journal.
    pub async fn with(engine: Engine, journal: &str) -> Self {
        let (book, provider) = (Book::new(engine), Book::new(Engine::Sqlite));
        let reseller = reseller(provider.directory(), &format!("{}.00", CREDIT / 100));
        let events = Upstream::start((Ipv4Addr::LOCALHOST, 1).into()).await;
        let permitted = format!("[webhooks]\nallow_targets = [\"{}\"]\n", events.address());
        std::fs::write(provider.directory().join("provisor.toml"), permitted).unwrap();
        let server = serve(provider.directory());
        let upstream = Upstream::start(server.address()).await;
        let kernelhost = key(provider.directory(), &reseller);
        let gp = ["key", "create", "--reseller", &reseller, "--provider", "gp", "--ip", "127.0.0.1"];
        let gp = run(provider.directory(), &[&gp[..], &["--per-minute", "1000000", "--burst", "1000000"]].concat());
        let secrets =
            [("kh.secret", secrecy::ExposeSecret::expose_secret(&kernelhost.secret)), ("gp.secret", text(&gp, "api_key"))];
        for (file, secret) in secrets {
            std::fs::write(book.directory().join(file), secret).unwrap();
        }
        let at = upstream.address();
        let settings = format!(
            "[store]\nurl = \"{}\"\n[gateway]\n[gateway.journal]\n{journal}
             [profiles.kernelhost]\nprovider = \"kernelhost\"\nbase_url = \"http://{at}/cp/kh_reseller_api\"\nallow_private = true
             key = \"{}\"\nsecret = {{ file = \"kh.secret\" }}
             [profiles.gp]\nprovider = \"gp\"\nbase_url = \"http://{at}/api/v1\"\nallow_private = true
             secret = {{ file = \"gp.secret\" }}\nsettings = {{ renew_price = \"4.90\" }}\n",
            book.url(),
            kernelhost.id
        );
        std::fs::write(book.directory().join("provisor.toml"), &settings).unwrap();
        let panel = run(book.directory(), &["panel", "create", "--name", "desk"]);
        let token = text(&panel, "token").to_owned();
        let http = Http::default();
        let key = kernelhost.at(&server);
        let server = Some(server);
        let mut desk = Self { book, provider, upstream, events, token, key, server, gateway: None, settings, reseller, http };
        desk.start();
        desk
    }

    /// Starts the gateway.
    pub fn start(&mut self) {
        self.start_logging("error", Stdio::null());
    }

    /// The same with a log of this level.
    pub fn start_logging(&mut self, level: &str, log: Stdio) {
        let gateway = gateway(self.book.directory(), level, log);
        self.events.point_at(gateway.address());
        self.gateway = Some(gateway);
    }

    /// Has KernelHost tell the gateway by webhook what becomes of orders and services, by way of `events`.
    pub async fn listen(&mut self) {
        let url = format!("http://{}/v1/profiles/{}/events", self.events.address(), KERNELHOST.provider);
        let kinds = ["order.paid", "service.provisioned", "service.suspended", "service.unsuspended", "service.terminated"];
        let body = json!({"url": url, "events": kinds}).to_string();
        let set = self.key.send(jiff::Timestamp::now().as_second(), "PUT", "/v1/webhooks", &[], body.as_bytes()).await;
        assert_eq!(set.status, 200, "{}", set.json());
        std::fs::write(self.book.directory().join("hook.secret"), text(&set.json(), "secret")).unwrap();
        let secret = "secret = { file = \"kh.secret\" }";
        let hook = format!("{secret}\nsettings = {{ webhook_secret = {{ file = \"hook.secret\" }} }}");
        self.reconfigure(|settings| settings.replace(secret, &hook));
    }

    /// Ends the gateway, changes its configuration, and starts it again.
    pub fn reconfigure(&mut self, change: impl FnOnce(&str) -> String) {
        self.stop();
        self.settings = change(&self.settings);
        std::fs::write(self.book.directory().join("provisor.toml"), &self.settings).unwrap();
        self.start();
    }

    /// Ends the providers, gives them this configuration, and starts them again where they were.
    pub fn reconfigure_providers(&mut self, settings: &str) {
        let server = self.server.take().unwrap();
        let address = server.address().to_string();
        server.stop();
        std::fs::write(self.provider.directory().join("provisor.toml"), settings).unwrap();
        let mut command = provisor(self.provider.directory());
        command.args(["--log", "error", "serve", "--server", &address]).stderr(Stdio::null());
        self.server = Some(Daemon::start(command));
    }

    /// Changes the gateway's configuration, and has it read while it runs.
    pub fn reload(&mut self, change: impl FnOnce(&str) -> String) {
        self.settings = change(&self.settings);
        std::fs::write(self.book.directory().join("provisor.toml"), &self.settings).unwrap();
        let told = Command::new("kill").args(["-HUP", &self.gateway().id().to_string()]).status().unwrap();
        assert!(told.success());
    }

    /// Starts another gateway on the same book, in a directory of its own with the same master key.
    pub fn another(&self, directory: &Path) -> Daemon {
        provisor::vault::Vault::create_key(directory, &[7; 32]).unwrap();
        for file in ["kh.secret", "gp.secret"] {
            std::fs::copy(self.book.directory().join(file), directory.join(file)).unwrap();
        }
        std::fs::write(directory.join("provisor.toml"), &self.settings).unwrap();
        gateway(directory, "error", Stdio::null())
    }

    /// Kills the gateway: nothing of it runs any more.
    pub fn kill(&mut self) {
        if let Some(gateway) = self.gateway.take() {
            gateway.kill();
        }
    }

    /// Ends the gateway, orderly.
    pub fn stop(&mut self) {
        if let Some(gateway) = self.gateway.take() {
            gateway.stop();
        }
    }

    /// The gateway's process.
    pub fn gateway(&self) -> &Daemon {
        self.gateway.as_ref().unwrap()
    }

    /// The providers' process.
    pub fn server(&self) -> &Daemon {
        self.server.as_ref().unwrap()
    }

    /// Runs a command on the gateway's data directory; its last line.
    pub fn run(&self, arguments: &[&str]) -> Value {
        run_on(self.book.directory(), &self.book.url(), arguments)
    }

    /// Runs a command on the providers' data directory.
    pub fn run_at_provider(&self, arguments: &[&str]) -> Value {
        run(self.provider.directory(), arguments)
    }

    /// Gives the providers' reseller credit, or takes some; in decimal text.
    pub fn credit(&self, amount: &str) {
        self.run_at_provider(&["reseller", "credit", &self.reseller, amount]);
    }

    /// A request with the panel's token.
    pub async fn send(&self, method: &str, path: &str, body: Option<&Value>, headers: &[(&str, &str)]) -> Answer {
        self.try_send(method, path, body, headers).await.unwrap()
    }

    /// The same to a gateway that may be gone before its answer has come.
    pub async fn try_send(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
        let url = format!("http://{}{path}", self.gateway().address());
        ask(&self.http, &url, method, &self.token, body, headers).await
    }

    /// A change of a service.
    pub async fn change(&self, key: &str, operation: &str, body: &Value) -> Answer {
        self.send("POST", &format!("/v1/services/{key}/{operation}"), Some(body), &[]).await
    }

    /// A change that must be done.
    pub async fn done(&self, key: &str, operation: &str, body: &Value) -> Value {
        let answer = self.change(key, operation, body).await;
        assert_eq!(answer.status, 200, "{operation}: {}", answer.json());
        answer.json()
    }

    /// A new service of a shop; its key.
    pub async fn made(&self, shop: Shop) -> String {
        let key = format!("service-{}", unique());
        self.done(&key, "create", &shop.order(&domain())).await;
        key
    }

    /// A service that stands at a provider and that no key of the journal has; its body for `adopt`.
    pub async fn nobodys(&self, shop: Shop) -> Value {
        let key = self.made(shop).await;
        let body = shop.adoption(&self.service(&key).await).unwrap();
        self.book.execute(&format!(
            "UPDATE managed_services SET is_live = 0, state = 'failed', domain = NULL, remote_id = NULL WHERE service_key = '{key}'"
        ));
        body
    }

    /// A service as the journal knows it.
    pub async fn service(&self, key: &str) -> Value {
        self.send("GET", &format!("/v1/services/{key}"), None, &[]).await.json()
    }

    /// An operation with its history.
    pub async fn operation(&self, id: &str) -> Value {
        self.send("GET", &format!("/v1/operations/{id}"), None, &[]).await.json()
    }

    /// Waits until an operation is in one of these states.
    pub async fn until(&self, id: &str, states: &[&str]) -> Value {
        let began = Instant::now();
        loop {
            let operation = self.operation(id).await;
            if states.contains(&text(&operation, "state")) {
                return operation;
            }
            assert!(began.elapsed() < PATIENCE, "{id} is not {states:?}: {operation}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Live services at a shop's provider.
    pub fn live(&self, shop: Shop) -> i64 {
        self.provider.number(match shop.provider {
            "gp" => "SELECT COUNT(*) FROM licenses WHERE state <> 'cancelled'",
            _ => "SELECT COUNT(*) FROM services WHERE status <> 'terminated'",
        })
    }

    /// How often the providers' reseller was charged.
    pub fn charges(&self) -> i64 {
        self.provider.number("SELECT COUNT(*) FROM ledger WHERE amount < 0")
    }
}

fn gateway(directory: &Path, level: &str, log: Stdio) -> Daemon {
    // A variable of the server's would have it run as well.
    let mut command = Command::new(binary());
    command.env_clear().args(["--json", "--data"]).arg(directory);
    command.args(["--log", level, "serve", "--gateway", "127.0.0.1:0"]).stderr(log);
    Daemon::start(command)
}

/// An answer that is a problem of this status and kind.
pub fn problem(answer: &Answer, status: u16, kind: &str) -> Value {
    let problem = answer.json();
    assert_eq!((answer.status, text(&problem, "kind")), (status, kind), "{problem}");
    assert_eq!(answer.content_type(), Some("application/problem+json"));
    problem
}

/// A request with a token.
pub async fn ask(
    http: &Http,
    url: &str,
    method: &str,
    token: &str,
    body: Option<&Value>,
    headers: &[(&str, &str)],
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let token = format!("Bearer {token}");
    let mut all = vec![("Authorization", token.as_str())];
    if body.is_some() {
        all.push(("Content-Type", "application/json"));
    }
    all.extend(headers);
    http.try_send(method, url, &all, body.map(Value::to_string).unwrap_or_default()).await
}

/// A domain that no other test uses.
pub fn domain() -> String {
    format!("d{}.example.com", unique())
}

/// A member of an object that is a text.
pub fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_else(|| panic!("no {member} in {value}"))
}
