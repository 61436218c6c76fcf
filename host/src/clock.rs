//! The wall clock and the operating system's randomness, as a value that is handed in: nothing else in the host asks for either.

use jiff::Timestamp;
use provisor_providers::server::{Moment, Rules};
use rand::Rng;

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

/// The machine's clock, and a generator of each thread that the operating system seeds, and seeds anew every 64 KiB: to ask the system
/// itself for each request took longer than to check a signature.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Clock for System {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn seed(&self) -> [u8; 32] {
        let mut seed = [0; 32];
        rand::rng().fill_bytes(&mut seed);
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
