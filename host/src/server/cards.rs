//! Cards: what charges them, asked outside of every transaction and always under the payment's own key.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use provisor_providers::server::{CardRefusal, Charge, Charged, Met};
use secrecy::{ExposeSecret, SecretString};

use crate::clock::Clock;
use crate::store::Store;

/// How often the gateway is asked for one charge; the time that it may take is shared out among them.
const ASKS_PER_CHARGE: u32 = 2;

/// What charges cards. However often it is asked under one key, it charges once and answers the same.
pub(super) trait CardGateway: Send + Sync {
    /// Charges the card behind a token. Who gets no answer asks again under the same key.
    fn charge<'a>(&'a self, charge: &'a Charge, token: &'a SecretString) -> Answer<'a>;
}

/// What a gateway will have said.
pub(super) type Answer<'a> = Pin<Box<dyn Future<Output = Charged> + Send + 'a>>;

/// Charges what is on file; whatever becomes of it, there is an answer in time.
pub(super) async fn charge(store: &Store, gateway: &dyn CardGateway, timeout: Duration, charge: Charge) -> Met {
    let account = charge.account;
    let came_to = match store.read(|books| books.card(account)) {
        Ok(Some(token)) => ask(gateway, timeout, &charge, &token).await,
        Ok(None) => Charged::Refused(CardRefusal::NoCard),
        Err(error) => {
            tracing::error!(%error, "a card could not be read");
            Charged::Unknown
        }
    };
    Met::Charged(charge, came_to)
}

async fn ask(gateway: &dyn CardGateway, timeout: Duration, charge: &Charge, token: &SecretString) -> Charged {
    for _ in 0..ASKS_PER_CHARGE {
        match tokio::time::timeout(timeout / ASKS_PER_CHARGE, gateway.charge(charge, token)).await {
            Ok(Charged::Unknown) | Err(_) => {}
            Ok(known) => return known,
        }
    }
    tracing::warn!(payment = charge.payment, "the card gateway gave no answer: it will be asked again");
    Charged::Unknown
}

/// A bank in the book, for tests and for trying out. A card's token says how it behaves; a token that it does not know is declined.
/// It remembers each key, so that a repeated charge is not a second one.
pub(super) struct Simulated {
    pub(super) store: Store,
    pub(super) clock: Arc<dyn Clock>,
}

/// The tokens of the simulated gateway, and what people are told of them.
pub const SIMULATED_TOKENS: [(&str, &str); 6] = [
    ("sim_success", "is charged"),
    ("sim_declined", "is declined"),
    ("sim_expired", "has expired"),
    ("sim_3ds", "wants its owner's consent (3-D Secure), so it is declined"),
    ("sim_slow", "is charged, and the answer takes a second"),
    ("sim_lost", "is charged, and the first answer is lost"),
];
const SLOW: Duration = Duration::from_secs(1);

impl CardGateway for Simulated {
    fn charge<'a>(&'a self, charge: &'a Charge, token: &'a SecretString) -> Answer<'a> {
        let token = token.expose_secret();
        let outcome = match token {
            "sim_success" | "sim_slow" | "sim_lost" => "captured",
            "sim_expired" => "expired",
            _ => "declined",
        };
        let (is_slow, loses) = (token == "sim_slow", token == "sim_lost");
        Box::pin(async move {
            if is_slow {
                tokio::time::sleep(SLOW).await;
            }
            let (charge, now) = (charge.clone(), self.clock.now());
            let asked = self.store.transact(move |books| {
                let Charge { gateway_key, amount, currency, .. } = &charge;
                books.simulate_charge(gateway_key, *amount, currency, outcome, now)
            });
            match asked.await {
                Ok((_, true)) if loses => Charged::Unknown,
                Ok((answer, _)) => match answer.as_str() {
                    "captured" => Charged::Captured,
                    "expired" => Charged::Refused(CardRefusal::Expired),
                    _ => Charged::Refused(CardRefusal::Declined),
                },
                Err(error) => {
                    tracing::error!(%error, "the simulated gateway could not be asked");
                    Charged::Unknown
                }
            }
        })
    }
}

/// No gateway: no card can be charged.
pub(super) struct NoGateway;

impl CardGateway for NoGateway {
    fn charge<'a>(&'a self, _: &'a Charge, _: &'a SecretString) -> Answer<'a> {
        Box::pin(async { Charged::Refused(CardRefusal::Declined) })
    }
}
