//! Cards: what charges them, asked outside of every transaction and always under the payment's own key.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use provisor_providers::server::{CardRefusal, Charge, Charged, Met};
use secrecy::{ExposeSecret, SecretString};

use crate::clock::Clock;
use crate::store::{Store, StoreError};

/// How often the gateway is asked for one charge; the time that it may take is shared out among them.
const ASKS_PER_CHARGE: u32 = 2;

/// What charges cards. However often it is asked under one key, it charges once and answers the same.
pub(super) trait CardGateway: Send + Sync {
    /// Charges the card behind a token. Who gets no answer asks again under the same key.
    fn charge<'a>(&'a self, charge: &'a Charge, token: &'a SecretString) -> Answer<'a>;
}

/// What a gateway will have said.
pub(super) type Answer<'a> = Pin<Box<dyn Future<Output = Charged> + Send + 'a>>;

/// Charges the card that the charge was begun with; whatever becomes of it, there is an answer in time.
pub(super) async fn charge(store: &Store, gateway: &dyn CardGateway, timeout: Duration, charge: Charge) -> Met {
    let came_to = match store.read(|books| books.card_of_charge(charge.account, charge.payment)) {
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

/// A bank in the book, for tests and for trying out. A card's token says how it behaves: `sim_success` is charged, `sim_slow` after a
/// second, `sim_lost` with its first answer lost; `sim_declined`, `sim_expired` and `sim_3ds` (which wants its owner's consent) are
/// refused, as is every other one. It remembers each key, so that a repeated charge is not a second one.
pub(super) struct Simulated {
    pub(super) store: Store,
    pub(super) clock: Arc<dyn Clock>,
}

/// How long a slow card takes.
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
        // A bank goes on also where the one who asks it has hung up.
        let asked = tokio::spawn(decide(self.store.clone(), Arc::clone(&self.clock), charge.clone(), outcome, is_slow));
        Box::pin(async move {
            match asked.await {
                Ok(Ok((_, true))) if loses => Charged::Unknown,
                Ok(Ok((answer, _))) => match answer.as_str() {
                    "captured" => Charged::Captured,
                    "expired" => Charged::Refused(CardRefusal::Expired),
                    _ => Charged::Refused(CardRefusal::Declined),
                },
                Ok(Err(error)) => {
                    tracing::error!(%error, "the simulated gateway could not be asked");
                    Charged::Unknown
                }
                // A defect of ours; the panic hook has logged it.
                Err(_) => Charged::Unknown,
            }
        })
    }
}

/// What the simulated bank answers, and whether it was asked for the first time. One that it knows it answers at once.
async fn decide(
    store: Store,
    clock: Arc<dyn Clock>,
    charge: Charge,
    outcome: &'static str,
    is_slow: bool,
) -> Result<(String, bool), StoreError> {
    if is_slow && store.read(|books| books.simulated_charge(&charge.gateway_key))?.is_none() {
        tokio::time::sleep(SLOW).await;
    }
    let now = clock.now();
    let asked = store.transact(move |books| {
        let Charge { gateway_key, amount, currency, .. } = &charge;
        books.simulate_charge(gateway_key, *amount, currency, outcome, now)
    });
    asked.await
}

/// No gateway: no card can be charged.
pub(super) struct NoGateway;

impl CardGateway for NoGateway {
    fn charge<'a>(&'a self, _: &'a Charge, _: &'a SecretString) -> Answer<'a> {
        Box::pin(async { Charged::Refused(CardRefusal::Declined) })
    }
}
