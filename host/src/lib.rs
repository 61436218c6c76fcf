//! The host: both wings, and the ground floor they stand on.

pub mod audit;
pub mod store;
pub mod vault;
