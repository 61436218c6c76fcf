//! The host: both wings, and the ground floor they stand on.

pub mod audit;
pub mod clock;
pub mod egress;
pub mod plugin;
pub mod server;
pub mod store;
pub mod vault;
