//! Where a world's book is: a copy of one that every seed starts from.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use provisor::store::{NewKey, Store};
use provisor_providers::books::{AccountId, Books, NewWebhook};
use provisor_tests::book::{self, Engine};
use provisor_tests::one_key::OneKey;
use provisor_tests::postgres::Cluster;
use provisor_tests::resellers::{ALL_SCOPES, GENEROUS};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// 2027-01-15 08:00 UTC.
pub(super) const EPOCH: i64 = 1_800_000_000;
/// The reseller.
pub(super) const ACCOUNT: AccountId = AccountId(1);
/// Its key's first secret.
pub(super) const SECRET: &str = "ssssssssssssssssssssssssssssssssssssssss";
const DATABASE: &str = "template_of_worlds";

/// A book with a reseller, its key and a webhook.
pub(super) struct Template {
    folder: TempDir,
    cluster: Option<Arc<Cluster>>,
}

/// A copy of it.
pub(super) struct Place {
    folder: TempDir,
    database: Option<(Arc<Cluster>, String)>,
}

impl Template {
    pub(super) fn new(engine: Engine, runtime: &Runtime) -> Self {
        let folder = folder();
        provisor::vault::Vault::create_key(folder.path(), &[7; 32]).unwrap();
        let cluster = (engine == Engine::Postgres).then(|| {
            let cluster = Cluster::start();
            cluster.sql("postgres", &format!("CREATE DATABASE {DATABASE}"));
            Arc::new(cluster)
        });
        let template = Self { folder, cluster };
        let url = match &template.cluster {
            Some(cluster) => cluster.url(DATABASE),
            None => sqlite(template.folder.path()),
        };
        furnish(&book::open(&url, template.folder.path()).unwrap(), runtime);
        template
    }

    /// A copy for a seed.
    pub(super) fn copy(&self, seed: u64, which: &str) -> Place {
        let folder = folder();
        for entry in std::fs::read_dir(self.folder.path()).unwrap().map(Result::unwrap) {
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        let database = self.cluster.as_ref().map(|cluster| {
            let name = format!("world_{seed}_{which}");
            cluster.sql("postgres", &format!("CREATE DATABASE {name} TEMPLATE {DATABASE}"));
            (Arc::clone(cluster), name)
        });
        Place { folder, database }
    }
}

impl Place {
    /// Opens the book as another process would.
    pub(super) fn open(&self) -> Store {
        let url = match &self.database {
            Some((cluster, name)) => cluster.url(name),
            None => sqlite(self.folder.path()),
        };
        book::open(&url, self.folder.path()).unwrap()
    }

    /// What a query gives that gives texts, past the program.
    pub(super) fn ask(&self, query: &str) -> Vec<String> {
        if let Some((cluster, name)) = &self.database {
            return cluster.sql(name, query).lines().map(str::to_owned).collect();
        }
        let book = rusqlite::Connection::open(self.folder.path().join("provisor.db")).unwrap();
        let mut statement = book.prepare(query).unwrap();
        let texts = statement.query_map([], |row| row.get(0)).unwrap();
        texts.collect::<Result<_, _>>().unwrap()
    }

    /// What a query gives that gives one number.
    pub(super) fn number(&self, query: &str) -> i64 {
        self.ask(&format!("SELECT CAST(({query}) AS TEXT)"))[0].parse().unwrap()
    }
}

fn furnish(store: &Store, runtime: &Runtime) {
    let now = Timestamp::from_second(EPOCH).unwrap();
    let made = store.transact(move |books| {
        let account = books.create_account("Test", "owner@example.com", "EUR", now)?;
        let key = NewKey {
            account,
            provider: "kernelhost".to_owned(),
            public_id: OneKey::ID.to_owned(),
            label: String::new(),
            secret: SECRET.into(),
            scopes: ALL_SCOPES.iter().map(|&scope| scope.to_owned()).collect(),
            allowed: Vec::new(),
            addresses: Vec::new(),
            limits: GENEROUS,
            expires_at: None,
        };
        books.create_key(&key, now)?;
        let row = books.find_key("kernelhost", OneKey::ID)?.map(|key| key.row).unwrap();
        let secret = "whsec_simulated".into();
        let url = "https://hooks.example.com/";
        let webhook = NewWebhook { url, events: &[], secret: Some(&secret), previous_until: now, at: now };
        books.account(account).set_webhook(row, &webhook)?;
        Ok(account)
    });
    assert_eq!(runtime.block_on(made).unwrap(), ACCOUNT);
}

fn sqlite(folder: &Path) -> String {
    format!("sqlite:{}", folder.join("provisor.db").display())
}

/// In memory where the system has a place for that: power is simulated, so that waiting for a disk shows nothing.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}
