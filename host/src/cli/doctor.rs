//! `provisor doctor`: whether everything that is needed is in order.

use std::collections::BTreeMap;

use clap::Args;
use provisor_providers::books::Fault;
use serde::Serialize;

use super::book::{Home, block_on};
use super::{Context, Exit, Failure};
use crate::audit::{Notes, Verdict, Verifier, files, verify_store};
use crate::store::{Store, Transaction};

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
    let kind = store.read(kind).unwrap_or_else(|Fault(why)| Some(Finding::bad("kind of book", why)));
    [whole].into_iter().chain(kind).chain([settings(&store), key, master_keys(&store), chain(home, &store)]).collect()
}

/// What is special about a book.
fn kind(books: &mut Transaction<'_>) -> Result<Option<Finding>, Fault> {
    let sandbox = books.is_sandbox()?.then(|| "a sandbox: its keys are for trying out".to_owned());
    let restored = books.known_fence()?.map(|fence| match fence {
        None => "a backup that was not served yet".to_owned(),
        Some(lost_until) => format!("restored: requests that may have been accepted until {lost_until} are refused"),
    });
    let kinds: Vec<String> = sandbox.into_iter().chain(restored).collect();
    Ok((!kinds.is_empty()).then(|| Finding::good("kind of book", kinds.join("; "))))
}

fn settings(store: &Store) -> Finding {
    let settings = block_on(async { store.transact(|books| books.settings()).await.map_err(Failure::failed) });
    match settings {
        Ok(settings) => {
            let shown: Vec<String> = settings.iter().map(|(name, value)| format!("{name} {value}")).collect();
            Finding::good("store settings", shown.join(", "))
        }
        Err(failure) => Finding::bad("store settings", format!("{:#}", failure.error)),
    }
}

/// How many values are under which key: those under an older one wait for `vault rotate`.
fn master_keys(store: &Store) -> Finding {
    let values = match store.read(|books| books.sealed_values()) {
        Ok(values) => values,
        Err(Fault(why)) => return Finding::bad("vault", why),
    };
    let mut versions = BTreeMap::<u32, u64>::new();
    for found in values {
        *versions.entry(found.version).or_default() += found.values;
    }
    let shown: Vec<String> = versions.iter().map(|(version, values)| format!("{values} secrets under v{version}")).collect();
    let newest = store.vault().newest();
    let advice = if versions.keys().any(|version| *version < newest) { "; `provisor vault rotate` seals them anew" } else { "" };
    Finding::good(
        "vault",
        format!(
            "seals under v{newest}; {}{advice}",
            if shown.is_empty() { "no secret yet".to_owned() } else { shown.join(", ") }
        ),
    )
}

fn chain(home: &Home, store: &Store) -> Finding {
    let verifiers = Verifier::all(store.vault());
    let mut notes = Notes::default();
    let read = files(&home.directory).and_then(|files| files.iter().try_for_each(|file| notes.read_file(file, &verifiers)));
    if let Err(error) = read {
        return Finding::bad("audit log", format!("its checkpoints cannot be read: {error}"));
    }
    if !notes.refused.is_empty() {
        let refused = notes.refused.len();
        return Finding::bad(
            "audit log",
            format!("no key at hand confirms {refused} of its checkpoints; see `provisor audit verify`"),
        );
    }
    match verify_store(store, &notes.checkpoints) {
        Ok(Verdict::Whole { streams, rows }) => {
            Finding::good("audit log", format!("{rows} rows in {streams} chains, {} signed checkpoints", notes.notes))
        }
        Ok(Verdict::Broken(bad)) => Finding::bad("audit log", bad.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
        Err(Fault(why)) => Finding::bad("audit log", why),
    }
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
