//! Properties of what stands between a caller's bytes and the books, with inputs that nobody thought of.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;

use jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use provisor::config::{Config, Environment, Network};
use provisor_providers::PROVIDERS;
use provisor_providers::address::is_public;
use provisor_providers::kernelhost::guard::{self, Verdict};
use provisor_providers::kernelhost::{sign, wire};
use provisor_providers::message::{Headers, Request};
use provisor_providers::money::Minor;
use provisor_providers::server::{Moment, Rules, Visit};
use provisor_tests::binary::python;
use provisor_tests::one_key::OneKey;
use serde_json::Value;

const SECRET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const NOW: i64 = 1_800_000_000;
const DEFAULT_CONFIGURATION: &str = include_str!("../../host/src/config.default.toml");

/// What is signed, each part of its own grammar.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parts {
    method: String,
    target: String,
    timestamp: String,
    nonce: String,
    body: Vec<u8>,
}

impl Parts {
    fn signing_string(&self) -> String {
        sign::signing_string(&self.method, &self.target, &self.timestamp, &self.nonce, &self.body)
    }

    fn request(&self, signature: &str) -> Request {
        let headers = Headers::new()
            .with(wire::header::KEY, OneKey::ID)
            .with(wire::header::TIMESTAMP, self.timestamp.as_str())
            .with(wire::header::NONCE, self.nonce.as_str())
            .with(wire::header::SIGNATURE, signature);
        Request { method: self.method.clone(), target: self.target.clone(), headers, body: self.body.clone() }
    }
}

/// Few letters, so that two of them are often equal in part.
fn parts() -> impl Strategy<Value = Parts> {
    let timestamp = (NOW - 300..=NOW + 300).prop_map(|second| second.to_string());
    ("[A-Z]{1,3}", "/[1-2?/%AGET]{0,4}", timestamp, "[1-2]{22,24}", vec(0..3_u8, 0..3))
        .prop_map(|(method, target, timestamp, nonce, body)| Parts { method, target, timestamp, nonce, body })
}

fn visit(request: Request) -> Visit {
    let moment = Moment { now: Timestamp::from_second(NOW).unwrap(), seed: [0; 32], rules: Rules::default() };
    Visit { request, prefix: "".into(), peer: [203, 0, 113, 7].into(), request_id: String::new(), moment }
}

fn is_admitted(request: Request) -> bool {
    matches!(guard::judge(&visit(request), &OneKey::new(SECRET)).unwrap(), Verdict::Admitted(_))
}

/// The text with one of its seven low bits changed somewhere.
fn flipped(text: &str, at: Index, bit: u32) -> String {
    let mut bytes = text.as_bytes().to_vec();
    bytes[at.index(text.len())] ^= 1 << (bit % 7);
    String::from_utf8(bytes).unwrap()
}

/// Anything a parser of HTTP could let through.
fn request() -> impl Strategy<Value = Shown> {
    let name = prop_oneof![
        "KH-(Key|Timestamp|Nonce|Signature)",
        "(Content-Type|Content-Length|Idempotency-Key|If-None-Match|Transfer-Encoding)",
        "[a-zA-Z-]{1,12}",
    ];
    let value = prop_oneof![
        vec(any::<u8>(), 0..80),
        "kh_live_[A-Z0-9]{32}".prop_map(String::into_bytes),
        "1[0-9]{9}|[0-9a-f]{32}|[0-9a-f]{64}|application/json|multipart/form-data; ?boundary=[a-z\"]{0,5}"
            .prop_map(String::into_bytes),
    ];
    let target = prop_oneof![
        "/(v1|openapi.json|api)?(/(me|orders|services|health|list|autoregister))?(/[0-9]{0,3})?[?=&%a-z0-9]{0,8}",
        "\\PC{0,20}",
    ];
    let body =
        prop_oneof![vec(any::<u8>(), 0..200), "[a-z_]{1,9}=[^&]{0,9}(&[a-z]{1,5}=\\PC{0,9}){0,4}".prop_map(String::into_bytes)];
    ("[A-Za-z]{1,8}", target, vec((name, value), 0..10), body).prop_map(|(method, target, fields, body)| {
        let headers = fields.into_iter().fold(Headers::new(), |headers, (name, value)| headers.with(name, value));
        Shown(Request { method, target, headers, body })
    })
}

/// A request as a failing case shows it.
#[derive(Clone)]
struct Shown(Request);

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let headers: Vec<_> = self.0.headers.iter().map(|(name, value)| (name, String::from_utf8_lossy(value))).collect();
        write!(f, "{} {} {headers:?} {:?}", self.0.method, self.0.target, self.0.body)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn two_requests_never_share_a_signed_text(one in parts(), other in parts()) {
        prop_assert_eq!(one == other, one.signing_string() == other.signing_string());
        let signature = sign::sign(SECRET.as_bytes(), &one.signing_string());
        prop_assert_eq!(is_admitted(other.request(&signature)), one == other);
    }

    #[test]
    fn one_bit_changed_anywhere_is_refused(parts in parts(), what in 0..6, at: Index, bit in 0..8_u32) {
        let signature = sign::sign(SECRET.as_bytes(), &parts.signing_string());
        prop_assert!(is_admitted(parts.request(&signature)));
        let (mut changed, mut claimed) = (parts.clone(), signature.clone());
        match what {
            0 => changed.method = flipped(&parts.method, at, bit),
            1 => changed.target = flipped(&parts.target, at, bit),
            2 => changed.timestamp = flipped(&parts.timestamp, at, bit),
            3 => changed.nonce = flipped(&parts.nonce, at, bit),
            4 if parts.body.is_empty() => changed.body.push(1 << bit),
            4 => changed.body[at.index(parts.body.len())] ^= 1 << bit,
            _ => claimed = flipped(&signature, at, bit),
        }
        // The letter case of a signature's hex digits alone does not count.
        prop_assert_eq!(is_admitted(changed.request(&claimed)), claimed != signature && claimed.to_lowercase() == signature);
    }

    #[test]
    fn no_head_and_no_body_breaks_admission(request in request()) {
        for provider in PROVIDERS {
            let mut head = request.0.clone();
            head.body.clear();
            let _wanted = provider.server.wants_body(&head);
            let admitted = provider.server.admit(Arc::new(visit(request.0.clone())), &OneKey::new(SECRET));
            prop_assert!(admitted.is_ok());
        }
    }

    #[test]
    fn amounts_are_written_and_read_exactly(cents in -99_999_999_999_999_999..=99_999_999_999_999_999_i64) {
        let text = Minor(cents).to_string();
        prop_assert_eq!(text.parse(), Ok(Minor(cents)));
        let digits: String = text.chars().filter(|character| *character != '.').collect();
        prop_assert_eq!(digits.parse(), Ok(cents));
        prop_assert_eq!(text.split_once('.').map(|(_, decimals)| decimals.len()), Some(2));
    }

    #[test]
    fn a_text_is_an_amount_or_nothing(text in "[-+]{0,2}[0-9]{0,17}[.,]{0,2}[0-9]{0,4}[e ]?") {
        let is_one = text.strip_prefix('-').unwrap_or(&text).split_once('.').map_or_else(
            || is_digits(text.strip_prefix('-').unwrap_or(&text)),
            |(whole, decimals)| is_digits(whole) && is_digits(decimals) && decimals[2.min(decimals.len())..].bytes().all(|d| d == b'0'),
        );
        prop_assert_eq!(text.parse::<Minor>().is_ok(), is_one);
    }

    #[test]
    fn no_configuration_breaks_its_reader_or_is_told_with_its_secrets(text in configuration()) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &text).unwrap();
        if let Err(error) = Config::load(file.path(), &Environment::default()) {
            prop_assert!(!format!("{error}{error:?}").contains("Canary"), "{}", error);
        }
    }

    #[test]
    fn sums_and_products_are_right_or_refused(a: i64, b: i64, count: u32) {
        let exact = |value: i128| i64::try_from(value).ok().map(Minor);
        prop_assert_eq!(Minor(a).plus(Minor(b)), exact(i128::from(a) + i128::from(b)));
        prop_assert_eq!(Minor(a).times(count), exact(i128::from(a) * i128::from(count)));
    }
}

/// The default configuration with some lines made settings, and some replaced.
fn configuration() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        Just(String::new()),
        "(key|secret) = \"Canary\"",
        "(key|secret) = \\{ (env|file) = \"[a-z.]{0,4}\" \\}",
        "\\[(server|server\\.(limits|mounts)|gateway|store|profiles|callbacks|profiles\\.[a-z-]{1,6}|[a-z.\"]{0,9})\\]",
        "(listen|url|mode|failures|provider|base_url|hosts|[a-z_]{1,9}) = (\"\\PC{0,12}\"|-?[0-9]{1,20}|true|\\[\\]|\\{\\}|nan)",
        "\\PC{0,20}",
    ];
    vec((any::<Index>(), any::<bool>(), line), 0..12).prop_map(|changes| {
        let mut lines: Vec<String> = DEFAULT_CONFIGURATION.lines().map(str::to_owned).collect();
        for (at, is_made, line) in changes {
            let at = at.index(lines.len());
            lines[at] = if is_made { lines[at].trim_start_matches('#').to_owned() } else { line };
        }
        lines.join("\n")
    })
}

fn is_digits(text: &str) -> bool {
    (1..=15).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Which addresses Python takes for global unicast ones, an IPv4 address inside an IPv6 one unwrapped.
const IS_GLOBAL: &str = r"
import ipaddress, json, sys
def is_global(text):
    address = ipaddress.ip_address(text)
    inner = getattr(address, 'ipv4_mapped', None) or getattr(address, 'sixtofour', None)
    return all(each.is_global and not each.is_multicast for each in (address, inner or address))
print(json.dumps([is_global(text) for text in json.load(sys.stdin)]))
";

/// What a Python program answers to JSON.
fn ask_python(program: &str, input: &Value) -> Vec<Value> {
    let mut command = Command::new(python("python"));
    let mut child = command.args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn no_address_is_public_that_python_does_not_take_for_global() {
    let mut runner = TestRunner::deterministic();
    let special = prop_oneof![
        Just(0),
        Just(0x2001),
        Just(0x2002),
        Just(0xfc00),
        Just(0xfe80),
        Just(0xff02),
        Just(0x0064),
        Just(0xff9b),
        Just(0xffff),
        Just(0x0db8),
        Just(0x3fff),
        Just(0x7f00),
        Just(0x0a00),
        Just(0xc0a8),
        Just(0xa9fe),
        any::<u16>(),
    ];
    let octet = prop_oneof![
        Just(0),
        Just(10),
        Just(100),
        Just(127),
        Just(169),
        Just(172),
        Just(192),
        Just(198),
        Just(203),
        Just(224),
        Just(254),
        any::<u8>()
    ];
    let addresses = prop_oneof![
        vec(octet, 4).prop_map(|octets| IpAddr::from(<[u8; 4]>::try_from(octets).unwrap())),
        vec(special, 8).prop_map(|groups| IpAddr::from(<[u16; 8]>::try_from(groups).unwrap())),
    ];
    let addresses = vec(addresses, 20_000).new_tree(&mut runner).unwrap().current();
    let global = ask_python(IS_GLOBAL, &serde_json::json!(addresses));
    let mut public = 0;
    for (address, global) in addresses.iter().zip(&global) {
        if is_public(*address) {
            assert_eq!(global, &true, "{address}");
            public += 1;
        }
    }
    assert!(public > 1000, "only {public} addresses were public");
}

/// What Python makes of networks, and which of the addresses lie in each.
const IPADDRESS: &str = r"
import ipaddress, json, sys
networks, addresses = json.load(sys.stdin)
addresses = [ipaddress.ip_address(address) for address in addresses]
def judge(text):
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
    return [str(network), [address in network for address in addresses]]
print(json.dumps([judge(text) for text in networks]))
";

/// Networks as operators write them, and as they mistype them.
fn networks() -> Vec<String> {
    let mut runner = TestRunner::deterministic();
    let texts = prop_oneof![
        (any::<[u8; 4]>(), 0..40_u8).prop_map(|(octets, prefix)| format!("{}/{prefix}", IpAddr::from(octets))),
        (any::<[u8; 16]>(), 0..140_u8).prop_map(|(octets, prefix)| format!("{}/{prefix}", IpAddr::from(octets))),
        any::<[u8; 4]>().prop_map(|octets| IpAddr::from(octets).to_string()),
        (vec(prop_oneof![Just(0), Just(0xffff), any::<u16>()], 8), 0..=128_u8).prop_map(|(groups, prefix)| {
            let groups: [u16; 8] = groups.try_into().unwrap();
            format!("{}/{prefix}", IpAddr::from(groups))
        }),
        "(10|192|0)\\.[0-9]{1,3}\\.0{1,2}\\.[0-9]{1,3}(/[0-9]{1,3})?",
        "[0-9a-f:]{2,12}(/[0-9]{1,3})?",
        "(::ffff:)?[0-9]{1,3}\\.[0-9]{1,3}\\.1\\.1(/[0-9 +-]{1,3})?",
        "[0-9./:a-f %]{0,14}",
    ];
    let texts = vec(texts, 4000);
    texts.new_tree(&mut runner).unwrap().current()
}

#[test]
fn networks_are_what_python_takes_them_for() {
    let addresses =
        ["10.0.0.1", "192.0.2.7", "0.0.0.0", "255.255.255.255", "203.0.113.200", "::1", "::", "2001:db8::1", "ff02::1"];
    let networks = networks();
    let judged = ask_python(IPADDRESS, &serde_json::json!([networks, addresses]));
    let mut agreed = 0;
    for (text, theirs) in networks.iter().zip(&judged) {
        let Ok(Network(ours)) = text.parse::<Network>() else {
            // Python takes netmasks and zeros before a prefix too.
            let prefix = text.split_once('/').map_or("", |(_, prefix)| prefix);
            let is_spelling = prefix.contains('.') || (prefix.len() > 1 && prefix.starts_with('0')) || text.contains('%');
            assert!(theirs.is_null() || is_spelling, "Python takes `{text}` for {theirs}");
            continue;
        };
        let inside: Vec<bool> = addresses.iter().map(|address| ours.contains(&address.parse::<IpAddr>().unwrap())).collect();
        let theirs_network: Option<ipnet::IpNet> = theirs[0].as_str().and_then(|text| text.parse().ok());
        assert_eq!((theirs_network, &theirs[1]), (Some(ours.trunc()), &serde_json::json!(inside)), "{text}");
        agreed += 1;
    }
    assert!(agreed > 1000, "only {agreed} networks were any");
}
