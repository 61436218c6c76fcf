//! The wall clock and the operating system's randomness, as a value that is handed in: nothing else in the host asks for either.

use jiff::Timestamp;
use provisor_providers::server::{Moment, Rules};

/// What time it is, and bytes nobody can guess.
pub trait Clock: Send + Sync {
    /// The wall clock. It may go back.
    fn now(&self) -> Timestamp;

    /// 32 fresh random bytes, fit to be a key or a generator's seed.
    fn seed(&self) -> [u8; 32];

    /// What one request or tick of the server may depend on.
    fn moment(&self, rules: Rules) -> Moment {
        Moment { now: self.now(), seed: self.seed(), rules }
    }
}

/// The machine's clock and the operating system's generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Clock for System {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn seed(&self) -> [u8; 32] {
        let mut seed = [0; 32];
        #[expect(clippy::expect_used, reason = "without randomness no key, nonce or signature is safe")]
        getrandom::fill(&mut seed).expect("the operating system gives random bytes");
        seed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_never_comes_twice() {
        assert_ne!(System.seed(), System.seed());
        assert_ne!(System.seed(), [0; 32]);
    }
}
