//! The audit log: `chain_hash[n] = SHA-256(chain_hash[n-1] || row)`, one chain per account (spec/kernelhost 2.15).
//!
//! A chain alone shows neither a cut tail nor a full rewrite: whoever can write the book can compute it anew. Signed checkpoints in
//! files outside the book show both.

mod chain;
mod checkpoint;
mod segment;
mod verify;

pub use self::chain::GENESIS;
pub(crate) use self::chain::Link;
pub use self::checkpoint::{Checkpoint, FOLDER, Notes, Signer, Verifier, VerifierError, files};
pub use self::segment::{Line, Part, Segment};
pub use self::verify::{BadRow, Verdict, What, verify, verify_against, verify_store};
