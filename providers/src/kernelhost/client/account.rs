//! The account and what it can buy: the connection's check, balance, catalogue, invoices.

use super::exchange::Api;
use super::mapping::{self, properties, time};
use crate::contract::{Account, Invoice, InvoicePage, Money, Plan, Problem, ProblemKind};
use crate::kernelhost::wire;
use crate::provisioning::{invalid, problem};

/// The most a page may hold (our choice, 2.9).
const PER_PAGE: usize = 100;
/// The largest file the contract hands over, in bytes.
const MAX_PDF: usize = 1 << 20;

/// The health check first: it tells a wrong address from wrong credentials.
pub(super) async fn check(api: &Api<'_>) -> Result<Account, Problem> {
    let health = api.health().await?;
    let wire::Me { account, key, extensions } = api.get("/v1/me").await?;
    let id = wire::as_id(&account.id).map(|id| id.to_string()).or_else(|| account.id.as_str().map(str::to_owned));
    let list = |items: &[String]| (!items.is_empty()).then(|| items.join(","));
    let limit = key.rate_limit;
    let known = [
        ("email", account.email),
        ("currency", account.currency),
        ("key", key.id),
        ("key-label", key.label),
        ("ip-allowlist", list(&key.ip_allowlist)),
        ("requests-per-minute", limit.as_ref().map(|limit| limit.per_minute.to_string())),
        ("requests-per-day", limit.as_ref().map(|limit| limit.per_day.to_string())),
        ("extensions", Some(extensions.join(","))),
        ("server-version", health.and_then(|health| health.version)),
        ("clock-offset-s", api.measured_offset().map(|offset| offset.to_string())),
    ];
    Ok(Account { id, name: account.name, scopes: key.scopes, properties: properties(known) })
}

/// Whether the server offers an action beyond the documented ones (our choice, 2.19).
pub(super) async fn advertises(api: &Api<'_>, extension: &str) -> Result<bool, Problem> {
    let me: wire::Me = api.get("/v1/me").await?;
    Ok(me.extensions.iter().any(|offered| offered == extension))
}

/// The credit left.
pub(super) async fn balance(api: &Api<'_>) -> Result<Money, Problem> {
    let told: wire::Balance = api.get("/v1/billing/balance").await?;
    Ok(mapping::money(&told.balance))
}

/// Everything that can be ordered; products are not paginated (our choice, 2.9).
pub(super) async fn catalog(api: &Api<'_>) -> Result<Vec<Plan>, Problem> {
    let all: wire::All<wire::Product> = api.get("/v1/products").await?;
    Ok(all.data.into_iter().map(mapping::plan).collect())
}

/// One page of a list and the cursor of the next: a page's number, from 1.
pub(super) async fn page<T: serde::de::DeserializeOwned>(
    api: &Api<'_>,
    list: &str,
    cursor: Option<&str>,
) -> Result<(Vec<T>, Option<String>), Problem> {
    let number: u32 = match cursor {
        None => 1,
        Some(text) => text
            .parse()
            .ok()
            .filter(|number| *number > 0)
            .ok_or_else(|| invalid("cursor", "the cursor is not one that this provider gave"))?,
    };
    let page: wire::Page<T> = api.get(&format!("{list}?page={number}&per_page={PER_PAGE}")).await?;
    // A server that tells no number of pages has more as long as pages are full.
    let more = match page.meta.total_pages {
        0 => page.data.len() >= PER_PAGE,
        pages => u64::from(number) < pages && !page.data.is_empty(),
    };
    let next = number.checked_add(1).filter(|_| more).map(|next| next.to_string());
    Ok((page.data, next))
}

/// One page of invoices.
pub(super) async fn invoices(api: &Api<'_>, cursor: Option<&str>) -> Result<InvoicePage, Problem> {
    let (invoices, next) = page::<wire::Invoice>(api, "/v1/billing/invoices", cursor).await?;
    Ok(InvoicePage { invoices: invoices.into_iter().map(mapping::invoice).collect(), next })
}

/// One invoice's file.
pub(super) async fn invoice_pdf(api: &Api<'_>, id: &str) -> Result<Vec<u8>, Problem> {
    let id = wire::as_id(&id.into()).ok_or_else(|| invalid("id", "an invoice id is a number, as the list gives it"))?;
    let file = api.get_file(&format!("/v1/billing/invoices/{id}/pdf")).await?;
    if file.len() > MAX_PDF {
        return Err(problem(ProblemKind::Protocol, format!("the invoice has {} bytes, more than {MAX_PDF}", file.len())));
    }
    if !file.starts_with(b"%PDF-") {
        return Err(problem(ProblemKind::Protocol, "the invoice is no PDF file"));
    }
    Ok(file)
}

/// What keeps a service from being renewed by the provider itself, where that is a matter of money: an unpaid invoice for it, or
/// less credit than a term costs. A key without `read:billing` cannot tell.
pub(super) async fn owed(api: &Api<'_>, service: &wire::Service) -> Option<String> {
    if let Some(invoice) = unpaid_invoice(api, service).await {
        let due = invoice.due_at.map(|due| format!(", due {due}")).unwrap_or_default();
        return Some(format!("invoice {} over {} is unpaid{due}", invoice.number, decimal(&invoice.total)));
    }
    let credit: wire::Balance = api.get("/v1/billing/balance").await.ok()?;
    let product: wire::Product = api.get(&format!("/v1/products/{}", service.product_id?)).await.ok()?;
    let term = service.billing_cycle.as_deref()?;
    let price = &product.prices.iter().find(|price| price.billing_cycle == term)?.price;
    let short = !credit.card_on_file && price.currency == credit.balance.currency && credit.balance.amount < price.amount;
    short.then(|| format!("the credit of {} does not cover {}", credit.balance.amount, price.amount))
}

/// Only the newest page: a renewal's invoice is at most weeks old.
async fn unpaid_invoice(api: &Api<'_>, service: &wire::Service) -> Option<Invoice> {
    let order = service.order_id?;
    let (invoices, _) = page::<wire::Invoice>(api, "/v1/billing/invoices", None).await.ok()?;
    let unpaid = |invoice: &wire::Invoice| invoice.order_id == Some(order) && invoice.status.eq_ignore_ascii_case("unpaid");
    invoices.into_iter().find(unpaid).map(mapping::invoice)
}

fn decimal(amount: &Money) -> String {
    let currency = amount.currency.as_deref().unwrap_or_default();
    format!("{} {currency}", crate::money::Minor(amount.minor)).trim_end().to_owned()
}

/// Whether a due date lies after another one.
pub(super) fn is_later(due_at: Option<&str>, than: jiff::Timestamp) -> bool {
    due_at.and_then(time).is_some_and(|due| due > than)
}

#[cfg(test)]
mod tests {
    use super::super::script::{Net, at, json, not_sent, refusal, run, with};
    use super::*;
    use crate::contract::FieldKind;
    use crate::kernelhost::client::Client;
    use crate::message::{Headers, Response};
    use crate::provisioning::Provisioning;

    fn file(body: Vec<u8>) -> Net {
        Net::always(Ok(Response { status: 200, headers: Headers::new(), body }))
    }

    #[test]
    fn a_check_asks_for_the_address_first_and_then_for_the_credentials() {
        let me = r#"{"account":{"id":9,"name":"Ann","currency":"EUR"},"key":{"label":"shop","scopes":["read:orders"]},"extensions":["renew"]}"#;
        let net = Net::new([
            json(200, r#"{"status":"ok","version":"1.2"}"#),
            with(json(200, me), "Date", "Fri, 15 Jan 2027 08:01:00 GMT"),
        ]);
        let account = run(Client.check(&net, &at())).unwrap();
        assert_eq!(net.asked(), ["GET /v1/health", "GET /v1/me"]);
        assert!(net.sent.borrow()[0].0.headers.iter().all(|(name, _)| !name.starts_with("KH-")));
        assert_eq!((account.id.as_deref(), account.name.as_deref()), (Some("9"), Some("Ann")));
        assert_eq!(account.scopes, ["read:orders"]);
        let told =
            |name: &str| account.properties.iter().find(|property| property.name == name).map(|property| property.value.as_str());
        assert_eq!(
            (told("extensions"), told("clock-offset-s"), told("server-version")),
            (Some("renew"), Some("60"), Some("1.2"))
        );
        assert_eq!(told("email"), None);

        // Nothing of either body is documented.
        let net = Net::new([json(200, "up"), json(200, "{}")]);
        assert_eq!(run(Client.check(&net, &at())).unwrap().id, None);
        let problem = run(Client.check(&Net::always(not_sent()), &at())).unwrap_err();
        assert_eq!(problem.kind, ProblemKind::Unreachable);
        let net = Net::new([json(200, "{}"), refusal(401, "auth_failed", "ip_not_allowed", "")]);
        assert_eq!(run(Client.check(&net, &at())).unwrap_err().kind, ProblemKind::Unauthorized);
    }

    #[test]
    fn amounts_are_exact_whether_text_or_number() {
        for (amount, minor) in [
            ("\"12.90\"", Some(1290)),
            ("12.9", Some(1290)),
            ("12", Some(1200)),
            ("-0.05", Some(-5)),
            ("\"1e3\"", None),
            ("12.905", None),
            ("null", None),
        ] {
            let net = Net::always(json(200, format!(r#"{{"balance":{{"amount":{amount},"currency":"EUR"}}}}"#)));
            let balance = run(Client.balance(&net, &at()));
            assert_eq!(balance.as_ref().ok().map(|money| money.minor), minor, "{amount}");
            assert!(
                balance.map_or_else(
                    |problem| problem.kind == ProblemKind::Protocol,
                    |money| money.currency.as_deref() == Some("EUR")
                )
            );
        }
        let net = Net::always(json(200, r#"{"balance":{"amount":1}}"#));
        assert_eq!(run(Client.balance(&net, &at())).unwrap(), Money { minor: 100, currency: None });
    }

    #[test]
    fn products_are_plans() {
        let body = r#"{"data":[{"id":42,"name":"KVM S","family":"kvm","stock":3,
            "prices":[{"billing_cycle":"monthly","price":{"amount":"9.90","currency":"EUR"},"setup_fee":{"amount":1,"currency":"EUR"}}],
            "config_options":[{"name":"os","type":"select","required":true,"choices":[{"value":"debian","label":"Debian","price":{"amount":0,"currency":"EUR"}},{"value":"arch"}]},
                {"name":"ram","type":"quantity"},{"name":"note","type":"text"},{"name":"new","type":"slider"}]},
            {"id":43,"name":"Bare","prices":null,"stock":null}]}"#;
        let plans = run(Client.catalog(&Net::always(json(200, body)), &at())).unwrap();
        let plan = &plans[0];
        assert_eq!((plan.id.as_str(), plan.family.as_deref(), plan.available), ("42", Some("kvm"), Some(3)));
        assert_eq!((plan.prices[0].term.as_str(), plan.prices[0].amount.minor), ("monthly", 990));
        assert_eq!(plan.prices[0].setup_fee.as_ref().map(|fee| fee.minor), Some(100));
        let kinds: Vec<_> = plan.options.iter().map(|option| option.kind).collect();
        assert_eq!(kinds, [FieldKind::Choice, FieldKind::Number, FieldKind::Text, FieldKind::Text]);
        assert!(plan.options[0].required);
        let labels: Vec<_> = plan.options[0].choices.iter().map(|choice| choice.label.as_str()).collect();
        assert_eq!(labels, ["Debian", "arch"]);
        assert_eq!((plans[1].prices.len(), plans[1].available), (0, None));
    }

    #[test]
    fn lists_are_read_page_by_page() {
        let service = r#"{"id":5,"status":"active"}"#;
        let full = vec![service; PER_PAGE].join(",");
        for (cursor, data, meta, next) in [
            (None, service, r#","meta":{"page":1,"per_page":100,"total":101,"total_pages":2}"#, Some("2")),
            (Some("2"), service, r#","meta":{"page":2,"per_page":100,"total":101,"total_pages":2}"#, None),
            (Some("3"), "", r#","meta":{"total_pages":9}"#, None),
            (None, service, "", None),
            (None, &full, r#","meta":"gone""#, Some("2")),
            (Some("4294967295"), &full, "", None),
        ] {
            let net = Net::always(json(200, format!(r#"{{"data":[{data}]{meta}}}"#)));
            let page = run(Client.list_services(&net, &at(), cursor.map(str::to_owned))).unwrap();
            assert_eq!(page.next.as_deref(), next);
            assert_eq!(net.asked(), [format!("GET /v1/services?page={}&per_page=100", cursor.unwrap_or("1"))]);
        }
        for cursor in ["0", "-1", "two", "", "1&x=y", "4294967296"] {
            let problem = run(Client.invoices(&Net::new([]), &at(), Some(cursor.to_owned()))).unwrap_err();
            assert_eq!(problem.field.as_deref(), Some("cursor"));
        }
    }

    #[test]
    fn invoices_keep_the_providers_words() {
        let body =
            r#"{"data":[{"id":3,"status":"unpaid","total":{"amount":9.9,"currency":"EUR"},"due_at":"2027-01-01T00:00:00Z"}]}"#;
        let page = run(Client.invoices(&Net::always(json(200, body)), &at(), None)).unwrap();
        let invoice = &page.invoices[0];
        assert_eq!((invoice.id.as_str(), invoice.number.as_str(), invoice.status.as_str()), ("3", "3", "unpaid"));
        assert_eq!((invoice.total.minor, page.next), (990, None));
    }

    #[test]
    fn an_invoice_file_is_a_pdf_of_bounded_size() {
        let pdf = |size: usize| [b"%PDF-1.7".as_slice(), &vec![b' '; size - 8]].concat();
        let net = file(pdf(MAX_PDF));
        assert_eq!(run(Client.invoice_pdf(&net, &at(), "7".to_owned())).unwrap().len(), MAX_PDF);
        assert_eq!(net.asked(), ["GET /v1/billing/invoices/7/pdf"]);
        for bad in [pdf(MAX_PDF + 1), Vec::new(), b"<html>".to_vec(), b" %PDF-".to_vec()] {
            let problem = run(Client.invoice_pdf(&file(bad), &at(), "7".to_owned())).unwrap_err();
            assert_eq!(problem.kind, ProblemKind::Protocol);
        }
        for id in ["", "../me", "7/pdf", "-7", "7?x"] {
            let problem = run(Client.invoice_pdf(&Net::new([]), &at(), id.to_owned())).unwrap_err();
            assert_eq!(problem.field.as_deref(), Some("id"));
        }
    }
}
