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
    let id: u32 = id.parse().map_err(|_| invalid("id", "an invoice id is a number, as the list gives it"))?;
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
