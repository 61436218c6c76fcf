//! The component that ships inside the binary; `host/build.rs` builds it.

/// Its bytes.
pub static COMPONENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/component.wasm"));
