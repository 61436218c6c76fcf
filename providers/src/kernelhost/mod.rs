//! The KernelHost Reseller API: HMAC-signed REST, both ends.

pub mod client;
pub mod sign;
pub mod webhook;
pub mod wire;
