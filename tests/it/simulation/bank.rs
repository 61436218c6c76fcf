//! What charges cards: it remembers what it was asked under which key, and its answers may be lost.

use std::collections::BTreeMap;

use provisor_providers::money::Minor;
use provisor_providers::server::{CardRefusal, Charge, Charged};
use rand::RngExt;
use rand::rngs::StdRng;

#[derive(Default)]
pub(super) struct Bank(BTreeMap<String, (Minor, Charged)>);

impl Bank {
    /// What a charge comes to, decided the first time. Unless the way back is sure, its answer may be lost.
    pub(super) fn charge(&mut self, charge: &Charge, is_sure: bool, rng: &mut StdRng) -> Charged {
        let decided = match rng.random_range(0..10) {
            0..6 => Charged::Captured,
            6..8 => Charged::Refused(CardRefusal::Declined),
            8 => Charged::Refused(CardRefusal::Expired),
            _ => Charged::Refused(CardRefusal::NoCard),
        };
        let (amount, came_to) = *self.0.entry(charge.gateway_key.clone()).or_insert((charge.amount, decided));
        assert_eq!(amount, charge.amount, "two amounts under one key");
        if !is_sure && rng.random_ratio(1, 4) { Charged::Unknown } else { came_to }
    }

    /// All it took.
    pub(super) fn captured(&self) -> i64 {
        let captured = self.0.values().filter(|(_, came_to)| *came_to == Charged::Captured);
        captured.map(|(amount, _)| amount.0).sum()
    }
}
