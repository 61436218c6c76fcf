//! Who the caller is, and what credit is left.

use super::problem::Handled;
use super::{Call, ok, time};
use crate::books::Books;
use crate::kernelhost::wire::{Amount, Balance, Me, MeAccount, MeKey, RateLimit};

/// The actions beyond the documented ones (our choice, 2.19).
pub(super) const EXTENSIONS: [&str; 2] = ["renew", "reset_password"];

/// `GET /v1/me`.
pub(super) fn me(call: &Call<'_>, books: &mut dyn Books) -> Handled {
    let key = call.key;
    let account = books.account(key.account).profile()?;
    let last_used_at = books.last_used(key.row)?;
    Ok(ok(&Me {
        account: MeAccount {
            id: account.id.0.into(),
            email: Some(account.email),
            name: Some(account.name),
            currency: Some(account.currency),
        },
        key: MeKey {
            id: Some(key.public_id.clone()),
            label: Some(key.label.clone()),
            scopes: key.scopes.clone(),
            ip_allowlist: key.allowed.iter().map(ToString::to_string).collect(),
            created_at: Some(time(key.created_at)),
            last_used_at: last_used_at.map(time),
            rate_limit: Some(RateLimit {
                per_minute: key.limits.per_minute,
                burst: key.limits.burst,
                per_day: key.limits.per_day,
            }),
        },
        extensions: EXTENSIONS.map(str::to_owned).to_vec(),
    }))
}

/// `GET /v1/billing/balance`. Cards are put on file by the operator.
pub(super) fn balance(call: &Call<'_>, books: &mut dyn Books) -> Handled {
    let account = books.account(call.key.account).profile()?;
    let card_on_file = account.has_card;
    Ok(ok(&Balance { balance: Amount { amount: account.balance, currency: account.currency }, card_on_file }))
}
