//! Which endpoint a method and a path name, and which scope it needs (spec 6 and 7).

use super::problem::{self, Refusal};

/// An endpoint with what its path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Me,
    Products,
    Product(i64),
    PlaceOrder,
    Order(i64),
    Services,
    Service(i64),
    Credentials(i64),
    Act(i64),
    Balance,
    Invoices,
    InvoicePdf(i64),
    Webhook,
    SetWebhook,
}

/// Every endpoint. HEAD is answered like GET.
pub(super) fn find(method: &str, path: &str) -> Result<Route, Refusal> {
    let segments: Vec<&str> = path.split('/').skip(1).take(6).collect();
    let get = if method == "HEAD" { "GET" } else { method };
    Ok(match (get, segments.as_slice()) {
        ("GET", ["v1", "me"]) => Route::Me,
        ("GET", ["v1", "products"]) => Route::Products,
        ("GET", ["v1", "products", product]) => Route::Product(id(product)?),
        ("POST", ["v1", "orders"]) => Route::PlaceOrder,
        ("GET", ["v1", "orders", order]) => Route::Order(id(order)?),
        ("GET", ["v1", "services"]) => Route::Services,
        ("GET", ["v1", "services", service]) => Route::Service(id(service)?),
        ("GET", ["v1", "services", service, "credentials"]) => Route::Credentials(id(service)?),
        ("POST", ["v1", "services", service, "actions"]) => Route::Act(id(service)?),
        ("GET", ["v1", "billing", "balance"]) => Route::Balance,
        ("GET", ["v1", "billing", "invoices"]) => Route::Invoices,
        ("GET", ["v1", "billing", "invoices", invoice, "pdf"]) => Route::InvoicePdf(id(invoice)?),
        ("GET", ["v1", "webhooks"]) => Route::Webhook,
        ("PUT", ["v1", "webhooks"]) => Route::SetWebhook,
        _ => return Err(allowed(path).map_or_else(problem::not_found, problem::method_not_allowed)),
    })
}

/// The methods of a path, as `Allow` lists them; none where there is no endpoint.
pub(super) fn allowed(path: &str) -> Option<&'static str> {
    let segments: Vec<&str> = path.split('/').skip(1).take(6).collect();
    match segments.as_slice() {
        ["v1", "orders"] | ["v1", "services", _, "actions"] => Some("POST, OPTIONS"),
        ["v1", "webhooks"] => Some("GET, HEAD, PUT, OPTIONS"),
        ["v1", "health" | "me" | "products" | "services"]
        | ["v1", "products" | "orders" | "services", _]
        | ["v1", "services", _, "credentials"]
        | ["v1", "billing", "balance" | "invoices"]
        | ["v1", "billing", "invoices", _, "pdf"]
        | ["openapi.json"] => Some("GET, HEAD, OPTIONS"),
        _ => None,
    }
}

impl Route {
    /// What a key must have; any valid key may ask who it is.
    pub(super) fn scope(self) -> Option<&'static str> {
        match self {
            Self::Me => None,
            Self::Products | Self::Product(_) => Some("read:products"),
            Self::PlaceOrder => Some("write:orders"),
            Self::Order(_) => Some("read:orders"),
            Self::Services | Self::Service(_) => Some("read:services"),
            Self::Credentials(_) => Some("read:credentials"),
            Self::Act(_) => Some("write:services"),
            Self::Balance | Self::Invoices | Self::InvoicePdf(_) => Some("read:billing"),
            Self::Webhook => Some("read:webhooks"),
            Self::SetWebhook => Some("write:webhooks"),
        }
    }
}

/// One spelling for each id: no sign, no leading zero.
fn id(text: &str) -> Result<i64, Refusal> {
    let is_id = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_id).ok_or_else(problem::not_found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_documented_endpoint_has_its_route_and_scope() {
        for (method, path, route, scope) in [
            ("GET", "/v1/me", Route::Me, None),
            ("HEAD", "/v1/me", Route::Me, None),
            ("GET", "/v1/products", Route::Products, Some("read:products")),
            ("GET", "/v1/products/42", Route::Product(42), Some("read:products")),
            ("POST", "/v1/orders", Route::PlaceOrder, Some("write:orders")),
            ("GET", "/v1/orders/1001", Route::Order(1001), Some("read:orders")),
            ("GET", "/v1/services", Route::Services, Some("read:services")),
            ("GET", "/v1/services/7", Route::Service(7), Some("read:services")),
            ("GET", "/v1/services/7/credentials", Route::Credentials(7), Some("read:credentials")),
            ("POST", "/v1/services/7/actions", Route::Act(7), Some("write:services")),
            ("GET", "/v1/billing/balance", Route::Balance, Some("read:billing")),
            ("GET", "/v1/billing/invoices", Route::Invoices, Some("read:billing")),
            ("GET", "/v1/billing/invoices/12/pdf", Route::InvoicePdf(12), Some("read:billing")),
            ("GET", "/v1/webhooks", Route::Webhook, Some("read:webhooks")),
            ("HEAD", "/v1/webhooks", Route::Webhook, Some("read:webhooks")),
            ("PUT", "/v1/webhooks", Route::SetWebhook, Some("write:webhooks")),
        ] {
            let found = find(method, path).ok().unwrap();
            assert_eq!((found, found.scope()), (route, scope), "{method} {path}");
        }
    }

    #[test]
    fn a_wrong_method_names_the_right_ones() {
        for (method, path, allow) in [
            ("POST", "/v1/health", "GET, HEAD, OPTIONS"),
            ("POST", "/openapi.json", "GET, HEAD, OPTIONS"),
            ("GET", "/v1/orders", "POST, OPTIONS"),
            ("HEAD", "/v1/orders", "POST, OPTIONS"),
            ("DELETE", "/v1/orders/1", "GET, HEAD, OPTIONS"),
            ("PUT", "/v1/services/7/actions", "POST, OPTIONS"),
            ("POST", "/v1/billing/invoices", "GET, HEAD, OPTIONS"),
            ("DELETE", "/v1/billing/invoices/12/pdf", "GET, HEAD, OPTIONS"),
            ("get", "/v1/me", "GET, HEAD, OPTIONS"),
            ("POST", "/v1/webhooks", "GET, HEAD, PUT, OPTIONS"),
            ("DELETE", "/v1/webhooks", "GET, HEAD, PUT, OPTIONS"),
        ] {
            let response = find(method, path).err().unwrap().response("id");
            assert_eq!((response.status, response.headers.once("allow")), (405, Some(allow)), "{method} {path}");
        }
    }

    #[test]
    fn everything_else_is_not_found() {
        for path in [
            "/",
            "//",
            "/v1",
            "/v1/",
            "/v2/me",
            "/V1/me",
            "/v1/me/",
            "//v1/me",
            "/v1/./me",
            "/v1/%6de",
            "/v1/products/0",
            "/v1/products/042",
            "/v1/products/-1",
            "/v1/products/+1",
            "/v1/products/",
            "/v1/products/9223372036854775808",
            "/v1/products/x",
            "/v1/services/7/credentials/x",
            "/v1/services/7/x",
            "/v1/billing/invoices/12",
            "/v1/billing/invoices/0/pdf",
            "/v1/billing/invoices/12/pdf/x",
            "/v1/webhooks/",
            "/v1/webhooks/1",
        ] {
            assert_eq!(find("GET", path).err().map(|refusal| refusal.response("id").status), Some(404), "{path}");
        }
    }
}
