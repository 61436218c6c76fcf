//! The contract's words as the host sees them, generated from `wit/`.
//!
//! Generated records print every field: [`Connection`], [`Order`], [`Login`] and [`FormPost`] hold secrets and are never formatted.

pub use generated::exports::provisor::provisioning::types::*;

pub(super) use generated::{Contract, ContractPre};

#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic, reason = "generated")]
mod generated {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "contract",
        exports: { default: async },
        additional_derives: [PartialEq, serde::Serialize, serde::Deserialize],
        require_store_data_send: true,
    });
}
