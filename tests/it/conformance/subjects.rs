//! What the suite must know of a provider besides the contract.

use async_trait::async_trait;
use provisor_providers::books::AccountId;
use provisor_providers::contract::{Effect, Order, ServiceRef, Setting};
use provisor_tests::house::House;
use provisor_tests::resellers::{KeyTraits, unique};
use secrecy::ExposeSecret;

use super::bench::Operation;

/// What every secret of a test has in it.
pub(super) const MARK: &str = "MARKED";
/// Good for every provider.
pub(super) const PASSWORD: &str = "MARKED-pass-1x";

/// A provider under test.
#[async_trait(?Send)]
pub(super) trait Subject: Sync {
    /// Makes a key: its public half and its secret one.
    async fn key(&self, house: &House, account: AccountId) -> (String, String);

    /// Values for every setting that an operation needs.
    fn settings(&self) -> Vec<Setting>;

    /// A good order, unlike every other one.
    fn order(&self) -> Order;

    /// A plan that the order's can be changed to.
    fn other_plan(&self) -> &'static str;

    /// How many services were bought and not ended, from the book: a count for account `?1`.
    fn bought(&self) -> &'static str;

    /// Everything that an operation may change, from the book: one text for account `?1`.
    fn everything(&self) -> &'static str;

    /// A service that never was.
    fn unknown(&self) -> ServiceRef;

    /// The request by which an operation makes its change, as part of `METHOD /path`.
    fn change(&self, operation: Operation) -> &'static str;

    /// The operations that need no network.
    fn offline(&self) -> &'static [&'static str];

    /// What an order leaves behind that was not paid.
    fn unpaid(&self) -> Effect;

    /// The provider still knows a service that was ended.
    fn remembers_the_ended(&self) -> bool;

    /// The beginning of a service's id: when it is ordered, and from then on.
    fn remote_ids(&self) -> (&'static str, &'static str);
}

/// The subject for a provider; there is one for each.
pub(super) fn subject(provider: &str) -> &'static dyn Subject {
    match provider {
        "kernelhost" => &KernelHost,
        "gp" => &Gp,
        other => panic!("there is no subject for {other}"),
    }
}

fn setting(name: &str, value: &str) -> Setting {
    Setting { name: name.to_owned(), value: value.to_owned() }
}

fn remote(id: &str) -> ServiceRef {
    ServiceRef { remote_id: Some(id.to_owned()), domain: None, username: None }
}

fn order(plan: &str) -> Order {
    Order {
        plan: plan.to_owned(),
        term: None,
        domain: Some(format!("site-{}.example.com", unique())),
        email: Some("customer@example.com".to_owned()),
        password: Some(PASSWORD.to_owned()),
        note: None,
        options: Vec::new(),
    }
}

struct KernelHost;

#[async_trait(?Send)]
impl Subject for KernelHost {
    async fn key(&self, house: &House, account: AccountId) -> (String, String) {
        let key = house.kernelhost_key(account, KeyTraits::default()).await;
        (key.id, key.secret.expose_secret().to_owned())
    }

    fn settings(&self) -> Vec<Setting> {
        vec![setting("webhook_secret", "MARKED-webhook-secret")]
    }

    fn order(&self) -> Order {
        order("42")
    }

    fn other_plan(&self) -> &'static str {
        "43"
    }

    fn bought(&self) -> &'static str {
        "SELECT (SELECT COUNT(*) FROM orders WHERE account_id = ?1 AND status <> 'cancelled')
              - (SELECT COUNT(*) FROM services WHERE account_id = ?1 AND status = 'terminated')"
    }

    fn everything(&self) -> &'static str {
        "SELECT (SELECT COUNT(*) FROM orders WHERE account_id = ?1) || '/' || (SELECT COUNT(*) FROM ledger WHERE account_id = ?1)
             || '/' || COALESCE((SELECT GROUP_CONCAT(id || status || COALESCE(power, '') || next_due_at || HEX(sealed_password))
                                 FROM services WHERE account_id = ?1), '')"
    }

    fn unknown(&self) -> ServiceRef {
        remote("service/999999999")
    }

    fn change(&self, operation: Operation) -> &'static str {
        if operation == Operation::Create { "POST /cp/kh_reseller_api/v1/orders" } else { "/actions" }
    }

    fn offline(&self) -> &'static [&'static str] {
        &["receive"]
    }

    fn unpaid(&self) -> Effect {
        Effect::Partial
    }

    fn remembers_the_ended(&self) -> bool {
        true
    }

    fn remote_ids(&self) -> (&'static str, &'static str) {
        ("order/", "service/")
    }
}

struct Gp;

#[async_trait(?Send)]
impl Subject for Gp {
    async fn key(&self, house: &House, account: AccountId) -> (String, String) {
        let secret = house.gp_key(account, [127, 0, 0, 1].into()).await;
        (String::new(), secret.expose_secret().to_owned())
    }

    fn settings(&self) -> Vec<Setting> {
        vec![
            setting("login_url", "https://login.example.com/"),
            setting("login_user", "MARKED-user"),
            setting("login_password", "MARKED-login-password"),
        ]
    }

    fn order(&self) -> Order {
        order("10k")
    }

    fn other_plan(&self) -> &'static str {
        "40k"
    }

    fn bought(&self) -> &'static str {
        "SELECT COUNT(*) FROM licenses WHERE account_id = ?1 AND state <> 'cancelled'"
    }

    fn everything(&self) -> &'static str {
        "SELECT (SELECT COUNT(*) FROM ledger WHERE account_id = ?1) || '/'
             || COALESCE((SELECT GROUP_CONCAT(id || domain || package || state || due_at || password_hash)
                          FROM licenses WHERE account_id = ?1), '')"
    }

    fn unknown(&self) -> ServiceRef {
        remote("nobody-has-this.example.com")
    }

    fn change(&self, operation: Operation) -> &'static str {
        match operation {
            Operation::Create => "/autoregister/",
            Operation::Suspend => "/suspended/",
            Operation::Unsuspend => "/active/",
            Operation::Terminate => "/delete/",
            Operation::Renew => "/renew/",
            Operation::ResetPassword => "/passwordreset/",
            Operation::ChangePackage => "/packageupdate/",
            Operation::Power => unreachable!("it has none"),
        }
    }

    fn offline(&self) -> &'static [&'static str] {
        &["catalog", "sign-on"]
    }

    fn unpaid(&self) -> Effect {
        Effect::None
    }

    fn remembers_the_ended(&self) -> bool {
        false
    }

    fn remote_ids(&self) -> (&'static str, &'static str) {
        ("site-", "site-")
    }
}
