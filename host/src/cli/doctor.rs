//! `provisor doctor`: whether everything that is needed is in order.

use clap::Args;
use provisor_providers::books::Fault;
use serde::Serialize;

use super::book::{Home, block_on};
use super::{Context, Exit, Failure};
use crate::audit::{self, Verdict};

/// Check the data directory, the book, the component and every profile
#[derive(Args)]
pub(super) struct Doctor {}

#[derive(Serialize)]
struct Finding {
    check: String,
    ok: bool,
    detail: String,
}

pub(super) fn run(_: &Doctor, context: &Context) -> Result<Exit, Failure> {
    let home = context.home()?;
    let mut findings = vec![Finding::good("data directory", home.directory.display().to_string())];
    findings.extend(book(&home));
    findings.extend(outgoing(&home, context));
    findings.extend(block_on(component(context, &home))?);
    let exit = if findings.iter().all(|finding| finding.ok) { Exit::Done } else { Exit::Failed };
    context.output.records(["check", "", "detail"], &findings, |finding| {
        let word = if finding.ok { "ok" } else { "FAILED" };
        [finding.check.clone(), word.to_owned(), finding.detail.clone()]
    })?;
    Ok(exit)
}

impl Finding {
    fn good(check: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { check: check.into(), ok: true, detail: detail.into() }
    }

    fn bad(check: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { check: check.into(), ok: false, detail: detail.into() }
    }
}

fn book(home: &Home) -> Vec<Finding> {
    let store = match home.book() {
        Ok(store) => store,
        Err(failure) => return vec![Finding::bad("book", format!("{:#}", failure.error))],
    };
    let key = if store.is_sealed() {
        Finding::bad("master key", "missing, or not the one this book was sealed with")
    } else {
        Finding::good("master key", "its file is readable by its owner alone")
    };
    let whole = match store.read(|books| books.quick_check()) {
        Ok(()) => Finding::good("book", "opens, and its pages are in order"),
        Err(Fault(why)) => Finding::bad("book", why),
    };
    let chain = match store.read(audit::verify) {
        Ok(Verdict::Whole { streams, rows }) => Finding::good("audit log", format!("{rows} rows in {streams} chains")),
        Ok(Verdict::Broken { stream, seq }) => Finding::bad("audit log", format!("broken at row {seq} of stream {stream}")),
        Err(Fault(why)) => Finding::bad("audit log", why),
    };
    vec![whole, key, chain]
}

/// What leaves this machine in resellers' name.
fn outgoing(home: &Home, context: &Context) -> Vec<Finding> {
    let targets: Vec<String> = home.config.webhooks.allow_targets.clone().into();
    let webhooks = if targets.is_empty() {
        "to public https addresses only".to_owned()
    } else {
        format!("allow_targets is set, for development only: {}", targets.join(", "))
    };
    let mail = match &home.config.mail.smtp {
        None => Finding::good("mail", format!("into files in {}", home.directory.join("mail").display())),
        Some(smtp) => match smtp.password.as_ref().map(|password| password.read(&context.environment)) {
            Some(Err(error)) => Finding::bad("mail", error.to_string()),
            Some(Ok(_)) | None => Finding::good("mail", format!("to {}, port {}", smtp.host, smtp.port)),
        },
    };
    vec![Finding::good("webhooks", webhooks), mail]
}

async fn component(context: &Context, home: &Home) -> Result<Vec<Finding>, Failure> {
    let plugin = match Context::engine(home)?.builtin().await {
        Ok(plugin) => plugin,
        Err(error) => return Ok(vec![Finding::bad("component", error.to_string())]),
    };
    let providers: Vec<&str> = plugin.providers().iter().map(|provider| provider.id.as_str()).collect();
    let mut findings = vec![Finding::good("component", format!("loads; providers: {}", providers.join(", ")))];
    for (name, profile) in &home.config.profiles {
        let check = format!("profile {name}");
        findings.push(match context.caller(home, &plugin, name) {
            Ok(_) if profile.allow_private => Finding::good(check, "usable; allow_private is set, for development only"),
            Ok(_) => Finding::good(check, "usable; `provisor call check` asks the provider"),
            Err(failure) => Finding::bad(check, format!("{:#}", failure.error)),
        });
    }
    Ok(findings)
}
