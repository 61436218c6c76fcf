//! The KernelHost Reseller API: HMAC-signed REST, both ends.

pub mod sign;
pub mod wire;
