//! Blesta's Universal Module: a notice of a service as a form, which counts as heard by its status, or by what the answer contains.
//!
//! It sends the product's fields by their names, each package's fields where no service's has the name, `_package`, `_service` (but
//! not with `add`), what staff or customer had entered as `_other`, and the notice's name as `_action`.

use hyper::body::Incoming;
use hyper::http::request::Parts;

use super::State;
use super::answer::{Answer, Refusal};
use super::body;
use super::envelope::{Asked, Options, taken, unsupported};
use super::questions::Query;
use crate::operations::Change;
use crate::store::Panel;

/// The notices of services, as Blesta names them.
const EVENTS: [&str; 7] = ["add", "edit", "suspend", "unsuspend", "cancel", "renew", "package_change"];

/// Does what a notice tells of.
pub(super) async fn notice(
    state: &State,
    panel: &Panel,
    event: &str,
    query: &Query,
    (head, body): (&Parts, Incoming),
    request_id: &str,
) -> Result<Answer, Refusal> {
    if !EVENTS.contains(&event) {
        return Err(Refusal::nothing_here());
    }
    let form = Form(body::form(&head.headers, body).await?);
    // An address in the wrong line of Blesta's form would have a suspension end the service.
    if form.text("_action").is_some_and(|action| action.strip_prefix("service_notice_") != Some(event)) {
        return Err(Refusal::malformed("this is the address of another notice").field("_action"));
    }
    let asked = Asked { state, panel, head, query, request_id };
    let key = form.key(query.text("key"))?;
    match event {
        "add" => {
            let mut options = form.options()?;
            let profile = asked.profile(taken(&mut options, "profile"))?;
            let plan = plan(&mut options)?;
            let change = Change::Create { plan, term: None, domain: None, email: None, note: None, options };
            asked.change(key, Some(profile), change, None).await
        }
        "suspend" => asked.change(key, None, body::suspend(None), None).await,
        "unsuspend" => asked.change(key, None, Change::Unsuspend, None).await,
        "cancel" => asked.change(key, None, Change::Terminate, None).await,
        "renew" => {
            let due_at = form.due_date(query.text("due").unwrap_or("date_renews"))?;
            asked.change(key, None, Change::Renew { due_at }, None).await
        }
        "package_change" => {
            let mut options = form.options()?;
            let plan = plan(&mut options)?;
            options.remove("profile");
            asked.change_package(key, plan, options).await
        }
        _ => match form.text("new_password") {
            Some(password) => asked.change(key, None, Change::ResetPassword, Some(password.to_owned().into())).await,
            None => Err(unsupported("an edited field cannot be changed at the provider; only `new_password` can be set")),
        },
    }
}

fn plan(options: &mut Options) -> Result<String, Refusal> {
    taken(options, "plan").ok_or_else(|| Refusal::malformed("the package has no field `plan`").field("plan"))
}

/// The fields of a notice; PHP writes what is within a list or an object as `name[key]`.
struct Form(Options);

impl Form {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|text| text.trim()).filter(|text| !text.is_empty())
    }

    /// A member of the service, or of what was entered to make it.
    fn of_service(&self, member: &str, entered: &str) -> Option<&str> {
        self.text(&format!("_service[{member}]")).or_else(|| self.text(&format!("_other[{entered}]")))
    }

    /// The service's key. Blesta makes a service's number after its module was asked to add it: where a field is named, it is that
    /// field of that client, from the first notice to the last.
    fn key(&self, field: Option<&str>) -> Result<String, Refusal> {
        let Some(field) = field else {
            let message = "the notice has no number of the service: name a field of it, `?key=hostname`";
            let id = self.of_service("id", "service_id").ok_or_else(|| Refusal::malformed(message).field("key"))?;
            return body::service_key(&format!("blesta-{id}")).map_err(|refusal| refusal.field("_service[id]"));
        };
        let missing = |name: &str| Refusal::malformed("the notice does not have this text").field(name);
        let client = self.of_service("client_id", "client_id").ok_or_else(|| missing("client_id"))?;
        let value = self.text(field).ok_or_else(|| missing(field))?.to_lowercase();
        body::service_key(&format!("blesta-{client}-{value}")).map_err(|refusal| refusal.field(field))
    }

    /// The product's own fields. Beside each, Blesta sends its label, as `NAME_name`.
    fn options(&self) -> Result<Options, Refusal> {
        let mut options = Options::new();
        for (name, value) in &self.0 {
            let is_label = name.strip_suffix("_name").is_some_and(|field| self.0.contains_key(field));
            if name.starts_with('_') || is_label {
                continue;
            }
            if let Some((field, _)) = name.split_once('[') {
                return Err(Refusal::malformed("a field of several values cannot be an option").field(field));
            }
            options.insert(name.clone(), value.clone());
        }
        Ok(options)
    }

    /// The due date that is being renewed. Blesta keeps times in UTC, as `2027-01-15 00:00:00`.
    fn due_date(&self, member: &str) -> Result<String, Refusal> {
        let field = format!("_service[{member}]");
        match self.text(&field).map(|text| text.split_once(' ')) {
            Some(Some((day, time))) => Ok(format!("{day}T{time}Z")),
            _ => Err(Refusal::malformed("the notice has no due date of the service").field(&field)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(fields: &[(&str, &str)]) -> Form {
        Form(fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    fn refused<T>(told: Result<T, Refusal>) -> Option<String> {
        told.err().and_then(|refusal| refusal.problem.field)
    }

    #[test]
    fn the_first_notice_and_the_later_ones_have_one_key() {
        let added = form(&[("_other[client_id]", "7"), ("hostname", " Web1.example.com ")]);
        let later = form(&[("_service[client_id]", "7"), ("_service[id]", "12"), ("hostname", "web1.example.com")]);
        assert_eq!(added.key(Some("hostname")).unwrap(), "blesta-7-web1.example.com");
        assert_eq!(later.key(Some("hostname")).unwrap(), "blesta-7-web1.example.com");
        assert_eq!(later.key(None).unwrap(), "blesta-12");
        assert_eq!(refused(added.key(None)).as_deref(), Some("key"));
        assert_eq!(refused(later.key(Some("domain"))).as_deref(), Some("domain"));
        assert_eq!(refused(form(&[("hostname", "web1")]).key(Some("hostname"))).as_deref(), Some("client_id"));
        for bad in ["<b>web1</b>", "a b", "ü.example.com"] {
            assert_eq!(refused(form(&[("_other[client_id]", "7"), ("a", bad)]).key(Some("a"))).as_deref(), Some("a"), "{bad}");
        }
    }

    #[test]
    fn options_are_the_fields_without_their_labels() {
        let sent = form(&[("ram", "4"), ("ram_name", "4 GiB"), ("os_name", "Debian"), ("_service[id]", "1"), ("_action", "x")]);
        let options: Vec<String> = sent.options().unwrap().into_keys().collect();
        assert_eq!(options, ["os_name", "ram"]);
        assert_eq!(refused(form(&[("ram[0]", "4")]).options()).as_deref(), Some("ram"));
    }

    #[test]
    fn a_due_date_is_blesta_s_spelling_of_a_time() {
        let sent = form(&[("_service[date_renews]", "2027-01-15 00:00:00"), ("_service[date_added]", "2027-01-15")]);
        assert_eq!(sent.due_date("date_renews").unwrap(), "2027-01-15T00:00:00Z");
        for bad in ["date_added", "date_last_renewed"] {
            assert!(sent.due_date(bad).is_err(), "{bad}");
        }
    }
}
