//! The host: both wings, and the ground floor they stand on.

pub(crate) mod addresses;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod config;
pub mod egress;
pub(crate) mod exposition;
pub mod gateway;
pub mod listen;
pub mod mail;
pub mod operations;
pub mod paper;
pub mod plugin;
pub(crate) mod redaction;
pub mod resolve;
pub mod server;
pub mod store;
pub mod telemetry;
pub(crate) mod ticks;
pub mod tls;
pub mod vault;
