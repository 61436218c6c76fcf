//! What the sandbox costs: one call in a fresh instance of the component, and the same call to the same code in process.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on says so and ends")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use jiff::Timestamp;
use provisor::plugin::{Caller, Host, Options, Plugin, Profile, contract};
use provisor_providers::contract::{Connection, Property, Setting};
use provisor_providers::kernelhost::webhook;
use provisor_tests::rounds::{Pair, in_turn};
use provisor_tests::world::World;

const CALLS: u32 = 200;
const BASE_URL: &str = "https://provider.example.com";
const WEBHOOK_SECRET: &str = "whsec_0123456789abcdef";

#[tokio::main]
async fn main() {
    let plugin = Host::start(Options::default()).unwrap().builtin().await.unwrap();
    receive(&plugin).await;
    catalog(&plugin).await;
}

/// A webhook verified and read.
async fn receive(plugin: &Plugin) {
    let body = br#"{"id":"evt_1","type":"service.provisioned","created":1800000000,"data":{"object":{"id":5,"order_id":17}}}"#;
    let signature = webhook::header(&[WEBHOOK_SECRET.as_bytes()], Timestamp::now().as_second(), body);
    let (name, value) = ("KH-Webhook-Signature".to_owned(), signature);
    let headers = [Property { name: name.clone(), value: value.clone() }];
    let sandboxed_headers = [contract::Property { name, value }];
    let (caller, at, world) = (bind(plugin, "kernelhost"), connection("kernelhost").into(), World::default());
    let client = provisor_providers::find("kernelhost").unwrap().client;
    let pair = in_turn(
        async || {
            for _ in 0..CALLS {
                black_box(caller.receive(sandboxed_headers.to_vec(), body.to_vec()).await.unwrap());
            }
        },
        async || {
            for _ in 0..CALLS {
                black_box(client.receive(&world, &at, &headers, body).unwrap());
            }
        },
    );
    tell("receive (a webhook verified and read)", &pair.await);
}

/// The fixed list of packages: about what `describe` does, with a connection handed in.
async fn catalog(plugin: &Plugin) {
    let (caller, at, world) = (bind(plugin, "gp"), connection("gp").into(), World::default());
    let client = provisor_providers::find("gp").unwrap().client;
    let pair = in_turn(
        async || {
            for _ in 0..CALLS {
                black_box(caller.catalog().await.unwrap());
            }
        },
        async || {
            for _ in 0..CALLS {
                black_box(client.catalog(&world, &at).await.unwrap());
            }
        },
    );
    tell("catalog (a fixed list, no network)", &pair.await);
}

fn settings(provider: &str) -> Vec<(String, String)> {
    let webhooks = provider == "kernelhost";
    webhooks.then(|| ("webhook_secret".to_owned(), WEBHOOK_SECRET.to_owned())).into_iter().collect()
}

fn bind(plugin: &Plugin, provider: &str) -> Caller {
    let settings: BTreeMap<_, _> = settings(provider).into_iter().map(|(name, value)| (name, value.into())).collect();
    let profile = Profile {
        name: "bench".to_owned(),
        provider: provider.to_owned(),
        base_url: Some(BASE_URL.to_owned()),
        key: "key".to_owned(),
        secret: "secret".into(),
        settings,
        hosts: Vec::new(),
        allow_private: false,
    };
    plugin.bind(profile).unwrap()
}

fn connection(provider: &str) -> Connection {
    Connection {
        provider: provider.to_owned(),
        base_url: BASE_URL.to_owned(),
        key: "key".to_owned(),
        secret: "secret".to_owned(),
        settings: settings(provider).into_iter().map(|(name, value)| Setting { name, value }).collect(),
    }
}

fn tell(what: &str, pair: &Pair) {
    let each = |time: Duration| (time / CALLS).as_nanos();
    println!("{what}: {} ns in a fresh instance, {} ns in process, ratio {:.0}", each(pair.first), each(pair.second), pair.ratio);
}
