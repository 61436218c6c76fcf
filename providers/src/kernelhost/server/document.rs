//! The API described for machines: an OpenAPI document, kept by hand beside the code that it describes.

use std::sync::LazyLock;

use base16ct::lower as hex;
use sha2::{Digest, Sha256};

use crate::kernelhost::guard::MOUNT;
use crate::message::{Headers, Response};
use crate::server::Visit;

/// Where it is, below the mount.
pub(super) const PATH: &str = "/openapi.json";
const DOCUMENT: &str = include_str!("openapi.json");
/// It changes with the program alone, but a proxy must not keep it past an update.
const CACHE_CONTROL: &str = "public, max-age=300";

static ETAG: LazyLock<String> = LazyLock::new(|| format!("\"{}\"", hex::encode_string(&Sha256::digest(DOCUMENT)[..16])));

/// `GET /openapi.json`: the document, or 304 to whoever has it already. It is another at another mount, and so is its address: the tag
/// need not tell them apart.
pub(super) fn answer(visit: &Visit) -> Response {
    let mut response = if is_known(&visit.request.headers) {
        Response { status: 304, headers: Headers::new(), body: Vec::new() }
    } else {
        Response::new(200, "application/json", at(&visit.prefix))
    };
    response.headers.add("etag", ETAG.as_str());
    response.headers.add("cache-control", CACHE_CONTROL);
    response
}

/// The document as it is below a prefix.
fn at(prefix: &str) -> String {
    let server = |url| format!(r#""url": "{url}""#);
    DOCUMENT.replace(&server(MOUNT), &server(if prefix.is_empty() { "/" } else { prefix }))
}

/// Whether `If-None-Match` names this document, by weak comparison (RFC 9110, 13.1.2).
fn is_known(headers: &Headers) -> bool {
    let lists = headers.all("if-none-match").filter_map(|list| std::str::from_utf8(list).ok());
    lists.flat_map(|list| list.split(',')).map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == *ETAG)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::Value;

    use super::*;
    use crate::message::Request;
    use crate::server::{Moment, Rules};

    fn asked_at(prefix: &str, tags: &[&str]) -> Response {
        let headers = tags.iter().fold(Headers::new(), |headers, tag| headers.with("If-None-Match", *tag));
        let request = Request { method: "GET".to_owned(), target: PATH.to_owned(), headers, body: Vec::new() };
        let moment = Moment { now: Timestamp::UNIX_EPOCH, seed: [0; 32], rules: Rules::default() };
        answer(&Visit { request, prefix: prefix.into(), peer: [192, 0, 2, 1].into(), request_id: String::new(), moment })
    }

    fn asked(tags: &[&str]) -> Response {
        asked_at(MOUNT, tags)
    }

    #[test]
    fn it_says_where_the_api_is() {
        for (prefix, url) in [(MOUNT, MOUNT), ("/api/v2", "/api/v2"), ("", "/")] {
            let document: Value = serde_json::from_slice(&asked_at(prefix, &[]).body).unwrap();
            assert_eq!(document["servers"][0]["url"], url);
        }
    }

    #[test]
    fn whoever_has_it_is_not_sent_it_again() {
        let first = asked(&[]);
        let tag = first.headers.once("etag").unwrap();
        assert_eq!(first.status, 200);
        assert_eq!(serde_json::from_slice::<Value>(&first.body).unwrap()["openapi"], "3.1.0");
        for (tags, status) in [
            (&[tag][..], 304),
            (&[&format!("W/{tag}")], 304),
            (&[&format!("\"other\" , {tag}")], 304),
            (&["\"other\"", tag], 304),
            (&["*"], 304),
            (&["\"other\""], 200),
            (&[tag.trim_matches('"')], 200),
            (&[""], 200),
        ] {
            let response = asked(tags);
            assert_eq!((response.status, response.headers.once("etag")), (status, Some(tag)), "{tags:?}");
            assert_eq!(response.body.is_empty(), status == 304);
        }
    }
}
