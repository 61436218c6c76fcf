//! Invoices: what they say, as JSON and as PDF. The PDF is made by the host, outside of the transaction.

use jiff::Timestamp;

use super::body::{self, Paging};
use super::problem::{self, Halt, Handled};
use super::{Call, events, ok, time};
use crate::books::{Account, AccountBooks, Books, Fault, Invoice, InvoiceLine, InvoiceStatus, NewInvoice, Tax};
use crate::kernelhost::wire::{self, Amount, Page};
use crate::message::Response;
use crate::money::Minor;
use crate::server::{InvoiceRule, Met, Moment, Need, Paper};

/// `GET /v1/billing/invoices`.
pub(super) fn list(call: &Call<'_>, books: &mut dyn Books) -> Handled {
    let paging = Paging::read(call.visit.request.query())?;
    let mut account = books.account(call.key.account);
    let meta = paging.meta(account.count_invoices()?);
    let data = account.invoices(paging.offset(), paging.per_page)?.iter().map(show).collect();
    let links = body::links(&meta);
    let mut response = ok(&Page::<wire::Invoice> { data, meta });
    response.headers.add("link", links);
    Ok(response)
}

/// `GET /v1/billing/invoices/{id}/pdf`.
pub(super) fn pdf(call: &Call<'_>, id: i64, books: &mut dyn Books) -> Handled {
    let mut account = books.account(call.key.account);
    let invoice = account.invoice(id)?.ok_or_else(problem::not_found)?;
    let Some(Met::Printed(bytes)) = call.met else {
        let buyer = account.profile()?;
        return Err(Halt::Needs(Need::Print(Box::new(Paper { invoice, buyer }))));
    };
    let mut response = Response::new(200, "application/pdf", bytes.clone());
    response.headers.add("content-disposition", format!("inline; filename=\"{}.pdf\"", invoice.number()));
    Ok(response)
}

/// What an invoice is made of, the tax aside, which follows from the total.
pub(super) struct Draft {
    pub(super) lines: Vec<InvoiceLine>,
    pub(super) total: Minor,
    pub(super) currency: String,
    pub(super) order_id: Option<i64>,
    pub(super) renews: Option<(i64, Timestamp)>,
    pub(super) issued_at: Timestamp,
    pub(super) due_at: Timestamp,
}

/// An invoice under the operator's rule. Prices include the tax, so that a total is what the catalogue says.
pub(super) fn draw_up(rule: &InvoiceRule, draft: Draft) -> NewInvoice {
    let Draft { lines, total, currency, order_id, renews, issued_at, due_at } = draft;
    let tax = Tax { basis_points: rule.tax_basis_points, amount: total.tax_within(rule.tax_basis_points) };
    NewInvoice { total, tax, currency, lines, seller: rule.seller.clone(), order_id, renews, issued_at, due_at }
}

/// Tells that `kind` happened to an invoice.
pub(super) fn tell(
    moment: &Moment,
    profile: &Account,
    books: &mut dyn AccountBooks,
    kind: &str,
    invoice: &Invoice,
) -> Result<(), Fault> {
    if !profile.listens {
        return Ok(());
    }
    events::emit(moment, books, kind, invoice.id, &show(invoice))
}

/// Tells that an invoice was written and, if it is, that it was paid.
pub(super) fn tell_new(moment: &Moment, profile: &Account, books: &mut dyn AccountBooks, invoice: &Invoice) -> Result<(), Fault> {
    if !profile.listens {
        return Ok(());
    }
    let unpaid = Invoice { status: InvoiceStatus::Unpaid, paid_at: None, ..invoice.clone() };
    tell(moment, profile, books, "invoice.created", &unpaid)?;
    if invoice.status == InvoiceStatus::Paid { tell(moment, profile, books, "invoice.paid", invoice) } else { Ok(()) }
}

fn show(invoice: &Invoice) -> wire::Invoice {
    let new = &invoice.new;
    wire::Invoice {
        id: invoice.id,
        number: Some(invoice.number()),
        status: invoice.status.as_str().to_owned(),
        total: Amount { amount: new.total, currency: new.currency.clone() },
        order_id: new.order_id,
        issued_at: Some(time(new.issued_at)),
        due_at: Some(time(new.due_at)),
        paid_at: invoice.paid_at.map(time),
    }
}
