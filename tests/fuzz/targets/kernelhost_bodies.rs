//! JSON of either end: what is read is written and read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use provisor_providers::kernelhost::wire;
use serde::Serialize;
use serde::de::DeserializeOwned;

fn again<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(bytes) else { return };
    let Ok(written) = serde_json::to_value(&read) else { panic!("what was read cannot be written") };
    let Ok(read) = serde_json::from_value::<T>(written.clone()) else { panic!("{written} cannot be read again") };
    assert_eq!(serde_json::to_value(&read).ok(), Some(written));
}

fuzz_target!(|bytes: &[u8]| {
    again::<wire::OrderRequest>(bytes);
    again::<wire::ActionRequest>(bytes);
    again::<wire::Problem>(bytes);
    again::<wire::Me>(bytes);
    again::<wire::All<wire::Product>>(bytes);
    again::<wire::Order>(bytes);
    again::<wire::Page<wire::Service>>(bytes);
    again::<wire::Action>(bytes);
    again::<wire::Credentials>(bytes);
    again::<wire::Balance>(bytes);
    again::<wire::Page<wire::Invoice>>(bytes);
});
