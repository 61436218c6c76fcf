//! What the targets share: a key, a moment, and requests out of raw bytes.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use provisor_providers::books::{AccountId, Fault, KeyRow};
use provisor_providers::message::{Headers, Request};
use provisor_providers::server::{From, Key, KeyLimits, Keys, Moment, Rules, Visit};

/// The public id of the one key.
pub const KEY_ID: &str = "kh_live_ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// Its secret.
pub const SECRET: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN";
/// When everything happens, in Unix seconds.
pub const NOW: i64 = 1_800_000_000;
/// More header fields are refused by hyper too.
const FIELDS_MAX: usize = 100;

/// A store of one key, which is found at every address.
pub struct OneKey(Arc<Key>);

impl Default for OneKey {
    fn default() -> Self {
        Self(Arc::new(Key {
            row: KeyRow(1),
            version: 1,
            account: AccountId(1),
            public_id: KEY_ID.to_owned(),
            label: String::new(),
            secret: SECRET.into(),
            scopes: Vec::new(),
            allowed: Vec::new(),
            limits: KeyLimits::default(),
            created_at: Timestamp::UNIX_EPOCH,
            expires_at: None,
            revoked: false,
        }))
    }
}

impl Keys for OneKey {
    fn find(&self, _: &str, public_id: &str, _: From) -> Result<Option<Arc<Key>>, Fault> {
        Ok((public_id == KEY_ID).then(|| Arc::clone(&self.0)))
    }

    fn at_address(&self, _: &str, _: IpAddr, _: From) -> Result<Vec<Arc<Key>>, Fault> {
        Ok(vec![Arc::clone(&self.0)])
    }
}

/// The moment of every request.
pub fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap_or_default()
}

/// A visit with a request.
pub fn visit(request: Request) -> Visit {
    let moment = Moment { now: now(), seed: [0; 32], rules: Rules::default() };
    Visit {
        request,
        prefix: "".into(),
        peer: [203, 0, 113, 7].into(),
        request_id: "01KFA2M7W3T8Q6Z5C4B3A2X1Y0".to_owned(),
        moment,
    }
}

/// The request that hyper's parser makes of bytes, if any; what follows the head is the body.
pub fn request(bytes: &[u8]) -> Option<Request> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(length) = parsed.parse(bytes).ok()? else { return None };
    let mut headers = Headers::new();
    for field in parsed.headers.iter() {
        headers.add(field.name, field.value);
    }
    let (method, target) = (parsed.method?.to_owned(), parsed.path?.to_owned());
    Some(Request { method, target, headers, body: bytes[length..].to_vec() })
}
