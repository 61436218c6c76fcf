//! The KernelHost Reseller API: HMAC-signed REST, both ends.

pub mod client;
pub mod guard;
pub mod server;
pub mod sign;
pub mod webhook;
pub mod wire;
