//! Reading what callers send: JSON bodies, queries, the idempotency key. Strict, since a misspelt member would be another order.

use serde::de::DeserializeOwned;

use super::problem::{self, Refusal, field};
use crate::kernelhost::wire::{self, FieldError, PageMeta, header};
use crate::message::{Headers, Request};

/// Items on a page unless asked otherwise, and at most (our choice, 2.9).
const PER_PAGE_DEFAULT: u32 = 25;
const PER_PAGE_MAX: u32 = 100;
/// Further pages are empty in any book; the limit keeps offsets small.
const PAGE_MAX: u64 = 1_000_000_000;

/// The body as a JSON object of one type.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    // serde would read an array's values as the members in their order.
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(problem::malformed(field("body", "wrong_type", "An object is expected.")));
    }
    serde_json::from_slice(body).map_err(|error| problem::malformed(explain(&error)))
}

/// serde's messages repeat values that have the wrong type, and a value may be a secret: only names are passed on.
fn explain(error: &serde_json::Error) -> FieldError {
    let message = error.to_string();
    for (start, code) in [("unknown field `", "unknown"), ("missing field `", "required"), ("duplicate field `", "duplicate")] {
        if let Some((name, _)) = message.strip_prefix(start).and_then(|rest| rest.split_once('`')) {
            let name: String = name.chars().take(64).collect();
            return field(name, code, format!("The member is {code}."));
        }
    }
    let position = format!("line {}, column {}", error.line(), error.column());
    if error.is_data() {
        return field("body", "wrong_type", format!("A member has the wrong type at {position}."));
    }
    field("body", "malformed", format!("Not valid JSON at {position}."))
}

/// A body, if there is one and the method has a use for it, must be declared as JSON.
pub(super) fn check_content_type(request: &Request) -> Result<(), Refusal> {
    let is_json = |value: &str| {
        let essence = value.split(';').next().unwrap_or_default();
        essence.trim().eq_ignore_ascii_case("application/json")
    };
    if request.body.is_empty()
        || matches!(request.method.as_str(), "GET" | "HEAD")
        || request.headers.once("content-type").is_some_and(is_json)
    {
        return Ok(());
    }
    Err(problem::unsupported_media_type())
}

/// The value of `Idempotency-Key`, exactly once.
pub(super) fn idempotency_key(headers: &Headers) -> Result<&str, Refusal> {
    let key = headers.once(header::IDEMPOTENCY_KEY).filter(|key| wire::is_idempotency_key(key));
    key.ok_or_else(|| {
        let is_missing = headers.all(header::IDEMPOTENCY_KEY).next().is_none();
        let code = if is_missing { "required" } else { "malformed" };
        let message = "Exactly one, of 1 to 80 characters of A-Z a-z 0-9 _ . -, is expected.";
        problem::malformed(field(header::IDEMPOTENCY_KEY, code, message))
    })
}

/// Which part of a list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Paging {
    /// From 1.
    pub(super) page: u64,
    /// 1 to 100.
    pub(super) per_page: u32,
}

impl Paging {
    /// Reads `page` and `per_page`; anything else in a query is an error.
    pub(super) fn read(query: Option<&str>) -> Result<Self, Refusal> {
        let (mut page, mut per_page) = (None, None);
        for pair in query.filter(|query| !query.is_empty()).into_iter().flat_map(|query| query.split('&')) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (slot, max) = match name {
                "page" => (&mut page, PAGE_MAX),
                "per_page" => (&mut per_page, u64::from(PER_PAGE_MAX)),
                _ => {
                    let name: String = name.chars().take(64).collect();
                    return Err(problem::invalid_field(&name, "unknown", "The parameters are page and per_page."));
                }
            };
            let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            let number = value.parse().ok().filter(|number| is_number && (1..=max).contains(number));
            let number: u64 = number
                .ok_or_else(|| problem::invalid_field(name, "out_of_range", format!("A number from 1 to {max} is expected.")))?;
            if slot.replace(number).is_some() {
                return Err(problem::invalid_field(name, "duplicate", "The parameter is given twice."));
            }
        }
        let per_page = per_page.and_then(|number| u32::try_from(number).ok()).unwrap_or(PER_PAGE_DEFAULT);
        Ok(Self { page: page.unwrap_or(1), per_page })
    }

    /// How many items come before the page.
    pub(super) fn offset(self) -> u64 {
        (self.page - 1) * u64::from(self.per_page)
    }

    /// Where the page stands in a list of so many items.
    pub(super) fn meta(self, total: u64) -> PageMeta {
        let total_pages = total.div_ceil(u64::from(self.per_page)).max(1);
        PageMeta { page: self.page, per_page: self.per_page, total, total_pages }
    }
}

/// The value of `Link`. The references are queries alone, which are right under whatever path the API is mounted.
pub(super) fn links(meta: &PageMeta) -> String {
    let link = |page: u64, relation: &str| format!("<?page={page}&per_page={}>; rel=\"{relation}\"", meta.per_page);
    let mut links = vec![link(1, "first")];
    if meta.page > 1 {
        links.push(link((meta.page - 1).min(meta.total_pages), "prev"));
    }
    if meta.page < meta.total_pages {
        links.push(link(meta.page + 1, "next"));
    }
    links.push(link(meta.total_pages, "last"));
    links.join(", ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::kernelhost::wire::{ActionRequest, OrderRequest};

    fn errors(refusal: Refusal) -> Value {
        serde_json::from_slice::<Value>(&refusal.response("id").body).unwrap()["errors"].clone()
    }

    #[test]
    fn a_query_is_read_exactly_or_not_at_all() {
        for (query, page, per_page) in [
            (None, 1, 25),
            (Some(""), 1, 25),
            (Some("page=2"), 2, 25),
            (Some("per_page=100"), 1, 100),
            (Some("per_page=1&page=1000000000"), 1_000_000_000, 1),
        ] {
            assert_eq!(Paging::read(query).ok(), Some(Paging { page, per_page }), "{query:?}");
        }
        for query in [
            "page",
            "page=",
            "page=0",
            "page=-1",
            "page=+1",
            "page=1.0",
            "page=%31",
            "page=1000000001",
            "per_page=0",
            "per_page=101",
            "per_page=18446744073709551616",
            "page=1&page=1",
            "page=1&",
            "&page=1",
            "Page=1",
            "sort=id",
            "?page=1",
        ] {
            assert!(Paging::read(Some(query)).is_err(), "{query}");
        }
    }

    #[test]
    fn pages_know_their_neighbours() {
        for (page, total, pages, links) in [
            (1, 0, 1, r#"<?page=1&per_page=25>; rel="first", <?page=1&per_page=25>; rel="last""#),
            (1, 25, 1, r#"<?page=1&per_page=25>; rel="first", <?page=1&per_page=25>; rel="last""#),
            (
                2,
                51,
                3,
                "<?page=1&per_page=25>; rel=\"first\", <?page=1&per_page=25>; rel=\"prev\", <?page=3&per_page=25>; rel=\"next\", \
                 <?page=3&per_page=25>; rel=\"last\"",
            ),
            (
                9,
                26,
                2,
                "<?page=1&per_page=25>; rel=\"first\", <?page=2&per_page=25>; rel=\"prev\", <?page=2&per_page=25>; rel=\"last\"",
            ),
        ] {
            let meta = Paging { page, per_page: 25 }.meta(total);
            assert_eq!((meta.total_pages, super::links(&meta).as_str()), (pages, links));
        }
    }

    #[test]
    fn wrong_bodies_are_named_without_their_values() {
        for (body, field, code) in [
            (r#"{"product_id":1,"billing_cycle":"monthly","hostnam":"x"}"#, "hostnam", "unknown"),
            (r#"{"product_id":1}"#, "billing_cycle", "required"),
            (r#"{"product_id":1,"product_id":2,"billing_cycle":"monthly"}"#, "product_id", "duplicate"),
            (r#"{"product_id":"1","billing_cycle":"monthly"}"#, "body", "wrong_type"),
            (r#" [1,"monthly"]"#, "body", "wrong_type"),
            (
                r#"{"product_id":1,"billing_cycle":"monthly","config_options":{"os":"a","os":"b"}}"#,
                "config_options.os",
                "duplicate",
            ),
            (r#"{"product_id":1.5,"billing_cycle":"monthly"}"#, "body", "wrong_type"),
            (r#"{"product_id":1,"billing_cycle":"monthly"} x"#, "body", "malformed"),
            ("", "body", "malformed"),
            ("\u{feff}{}", "body", "malformed"),
        ] {
            let refusal = read::<OrderRequest>(body.as_bytes()).err().unwrap();
            assert!(!refusal.is_final);
            let errors = errors(refusal);
            assert_eq!((&errors[0]["field"], &errors[0]["code"]), (&field.into(), &code.into()), "{body}");
        }
        let secret = r#"{"action":"reset_password","due_at":{"hunter2":1},"password":["hunter2"]}"#;
        assert!(!errors(read::<ActionRequest>(secret.as_bytes()).err().unwrap()).to_string().contains("hunter2"));
        let deep = format!(r#"{{"product_id":1,"billing_cycle":"m","config_options":{{"a":{}}}}}"#, "[".repeat(30_000));
        assert!(read::<OrderRequest>(deep.as_bytes()).is_err());
    }

    #[test]
    fn a_body_must_be_declared_as_json() {
        let check = |types: &[&str], body: &str| {
            let mut headers = Headers::new();
            for value in types {
                headers.add("Content-Type", *value);
            }
            let (method, target) = ("POST".to_owned(), "/v1/orders".to_owned());
            check_content_type(&Request { method, target, headers, body: body.into() }).is_ok()
        };
        assert!(check(&["application/json"], "{}"));
        assert!(check(&["Application/JSON; charset=utf-8"], "{}"));
        assert!(check(&[], ""));
        assert!(!check(&[], "{}"));
        assert!(!check(&["text/plain"], "{}"));
        assert!(!check(&["application/jsonp"], "{}"));
        assert!(!check(&["application/json", "application/json"], "{}"));
    }

    #[test]
    fn an_idempotency_key_comes_exactly_once() {
        let read = |keys: &[&str]| {
            let mut headers = Headers::new();
            for key in keys {
                headers.add("idempotency-key", *key);
            }
            idempotency_key(&headers).map(str::to_owned).map_err(|refusal| errors(refusal)[0]["code"].clone())
        };
        assert_eq!(read(&["a_B.9-"]), Ok("a_B.9-".to_owned()));
        assert_eq!(read(&[]), Err("required".into()));
        for keys in [&["a", "a"][..], &[""], &["a,b"], &["a b"], &["é"], &[&"x".repeat(81)]] {
            assert_eq!(read(keys), Err("malformed".into()), "{keys:?}");
        }
    }

    proptest! {
        #[test]
        fn pages_hold_each_item_once(total in 0..2000_u64, per_page in 1..=PER_PAGE_MAX) {
            let pages = Paging { page: 1, per_page }.meta(total).total_pages;
            let mut before = 0;
            for page in 1..=pages {
                let paging = Paging { page, per_page };
                prop_assert_eq!(paging.offset(), before);
                before += (total - before).min(per_page.into());
                let told = links(&paging.meta(total));
                prop_assert_eq!(told.contains("\"next\""), page < pages);
                prop_assert_eq!(told.contains("\"prev\""), page > 1);
                let numbers = told.split("?page=").skip(1).map(|rest| rest.split('&').next().unwrap().parse::<u64>().unwrap());
                for number in numbers {
                    prop_assert!((1..=pages).contains(&number));
                }
            }
            prop_assert_eq!(before, total);
        }

        #[test]
        fn a_query_says_what_it_says_or_is_refused(query in "(page|per_page|[a-z_%]{0,5}|&)?=?[0-9+%-]{0,21}(&(page|per_page)=[0-9]{1,10})?") {
            if let Ok(Paging { page, per_page }) = Paging::read(Some(&query)) {
                prop_assert!((1..=PAGE_MAX).contains(&page) && (1..=PER_PAGE_MAX).contains(&per_page));
                let told = |name: &str, value: u64| query.split('&').any(|pair| {
                    pair.split_once('=').is_some_and(|(key, text)| key == name && text.parse() == Ok(value))
                });
                prop_assert!(page == 1 || told("page", page));
                prop_assert!(per_page == PER_PAGE_DEFAULT || told("per_page", per_page.into()));
                let again = format!("page={page}&per_page={per_page}");
                prop_assert_eq!(Paging::read(Some(&again)).ok(), Some(Paging { page, per_page }));
            }
        }
    }
}
