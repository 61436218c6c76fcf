//! The contract's words in Rust, generated from `wit/`.
//!
//! Generated records print every field: those that hold secrets ([`Connection`], [`Order`], [`Login`], [`FormPost`]) are never
//! formatted. [`crate::provisioning::Connection`] takes the first one's place at once.

pub use generated::exports::provisor::provisioning::{events, provisioning, types::*};

/// What `wit-bindgen` makes of the contract; public for [`generated::export!`] alone.
#[doc(hidden)]
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic, reason = "generated")]
pub mod generated {
    wit_bindgen::generate!({
        path: "../wit",
        world: "contract",
        additional_derives: [PartialEq, serde::Serialize, serde::Deserialize],
        pub_export_macro: true,
        default_bindings_module: "provisor_providers::contract::generated",
        generate_unused_types: true,
    });
}
