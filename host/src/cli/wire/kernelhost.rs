//! KernelHost's signatures.

use std::path::PathBuf;

use anyhow::anyhow;
use base16ct::lower as hex;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use provisor_providers::kernelhost::wire::{header, is_key_id, is_nonce, is_timestamp};
use provisor_providers::kernelhost::{sign, webhook};
use secrecy::ExposeSecret;
use serde::{Serialize, Serializer};

use super::secret;
use crate::cli::unshown::Unshown;
use crate::cli::{Context, Exit, Failure, read_file};
use crate::clock::{Clock, System};
use crate::config::BaseUrl;

const BASE_URL: &str = "https://www.kernelhost.com/cp/kh_reseller_api";

#[derive(Subcommand)]
pub(in crate::cli) enum Command {
    /// Sign a request with `KH_KEY` and `KH_SECRET`
    Sign(Sign),
    /// Check a webhook's signature with `KH_WEBHOOK_SECRET`; exit code 1 if it does not hold
    VerifyWebhook(VerifyWebhook),
}

pub(super) fn run(command: Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::Sign(command) => sign(&command, context),
        Command::VerifyWebhook(command) => verify_webhook(&command, context),
    }
}

#[derive(Args)]
pub(in crate::cli) struct Sign {
    /// Such as GET or POST
    #[arg(long)]
    method: String,
    /// What is signed and sent: from /v1 on, with the query, such as /v1/services?page=2
    #[arg(long)]
    path: String,
    /// The body, as it is sent
    #[arg(long, value_name = "TEXT")]
    body: Option<String>,
    /// A file that holds the body; - for stdin
    #[arg(long, value_name = "FILE", conflicts_with = "body")]
    body_file: Option<PathBuf>,
    /// Unix seconds, 10 digits [default: now]
    #[arg(long)]
    timestamp: Option<String>,
    /// 22 to 44 of A-Z a-z 0-9 _ - [default: random]
    #[arg(long)]
    nonce: Option<String>,
    /// Where the API is; for the curl line only, since it is not signed
    #[arg(long, value_name = "URL", default_value = BASE_URL, value_parser = Unshown::<BaseUrl>::new())]
    base_url: BaseUrl,
}

#[derive(Serialize)]
struct Signed {
    signing_string: String,
    signature: String,
    #[serde(serialize_with = "as_object")]
    headers: Vec<(&'static str, String)>,
    curl: String,
}

/// In the order in which they are sent.
fn as_object<S: Serializer>(headers: &[(&str, String)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(headers.iter().map(|(name, value)| (name, value)))
}

fn sign(command: &Sign, context: &Context) -> Result<Exit, Failure> {
    let key = secret(context, "KH_KEY")?;
    let secret = secret(context, "KH_SECRET")?;
    let body = match (&command.body, &command.body_file) {
        (Some(body), _) => body.clone().into_bytes(),
        (None, Some(file)) => read_file(file)?,
        (None, None) => Vec::new(),
    };
    let method = command.method.to_ascii_uppercase();
    let timestamp = command.timestamp.clone().unwrap_or_else(|| System.now().as_second().to_string());
    let nonce = command.nonce.clone().unwrap_or_else(|| hex::encode_string(&System.seed()[..16]));
    check(&method, &command.path, key.expose_secret(), &timestamp, &nonce).map_err(Failure::usage)?;
    let signing_string = sign::signing_string(&method, &command.path, &timestamp, &nonce, &body);
    let signature = sign::sign(secret.expose_secret().as_bytes(), &signing_string);
    let mut headers = vec![
        (header::KEY, key.expose_secret().to_owned()),
        (header::TIMESTAMP, timestamp),
        (header::NONCE, nonce.clone()),
        (header::SIGNATURE, signature.clone()),
    ];
    if method == "POST" {
        // An order or action needs one. It is not signed; the nonce fits its alphabet and comes once.
        headers.push((header::IDEMPOTENCY_KEY, nonce));
    }
    if command.body.is_some() || command.body_file.is_some() {
        headers.push(("Content-Type", "application/json".to_owned()));
    }
    let curl = curl(&method, &headers, command);
    context.output.record(&Signed { signing_string, signature, headers, curl }, people)?;
    Ok(Exit::Done)
}

/// Refuses what cannot be sent as it is signed. What the API would refuse later is only remarked on: to see it refused may be
/// what somebody is after.
fn check(method: &str, path: &str, key: &str, timestamp: &str, nonce: &str) -> Result<(), anyhow::Error> {
    let from_v1 = path.strip_prefix("/v1").is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
    let is_word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Err(anyhow!("--method: a method is letters, such as GET"));
    }
    if !from_v1 {
        return Err(anyhow!("--path: what is signed begins with /v1, such as /v1/me; where the API is goes into --base-url"));
    }
    if path.contains('#') || !is_word(path) {
        return Err(anyhow!("--path: blanks, `#` and everything outside ASCII are written as %XX"));
    }
    let parts = [
        ("KH_KEY", key, is_key_id(key), "kh_live_ or kh_test_ and 32 of A-Z 0-9"),
        ("--timestamp", timestamp, is_timestamp(timestamp), "10 digits, Unix seconds"),
        ("--nonce", nonce, is_nonce(nonce), "22 to 44 of A-Z a-z 0-9 _ -"),
    ];
    for (name, text, is_right, right) in parts {
        if !is_word(text) {
            return Err(anyhow!("{name}: no header can hold it; right is {right}"));
        }
        if !is_right {
            tracing::warn!("{name}: the API will refuse it; right is {right}");
        }
    }
    Ok(())
}

/// A line for a shell that sends the request byte for byte as it was signed: no globbing, no dot segments removed.
fn curl(method: &str, headers: &[(&str, String)], command: &Sign) -> String {
    let verb = if method == "HEAD" { "--head".to_owned() } else { format!("--request {method}") };
    let mut words = vec!["curl --globoff --path-as-is".to_owned(), verb];
    words.extend(headers.iter().map(|(name, value)| format!("--header {}", quoted(&format!("{name}: {value}")))));
    if let Some(body) = &command.body {
        words.push(format!("--data-raw {}", quoted(body)));
    } else if let Some(file) = &command.body_file {
        words.push(format!("--data-binary {}", quoted(&format!("@{}", file.display()))));
    }
    let base = command.base_url.as_str();
    words.push(quoted(&format!("{}{}", base.strip_suffix("/v1").unwrap_or(base), command.path)));
    words.join(" ")
}

/// Text as one word of a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn people(signed: &Signed) -> String {
    let headers: Vec<String> = signed.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    format!(
        "Signing string:\n{}\n\nSignature:\n{}\n\nHeaders:\n{}\n\nTo send it:\n{}",
        signed.signing_string,
        signed.signature,
        headers.join("\n"),
        signed.curl
    )
}

#[derive(Args)]
pub(in crate::cli) struct VerifyWebhook {
    /// The value of KH-Webhook-Signature, such as t=1767225600,v1=..
    #[arg(long, value_name = "VALUE")]
    header: String,
    /// A file that holds the body, byte for byte as received; - for stdin
    #[arg(long, value_name = "FILE")]
    body_file: PathBuf,
    /// Unix seconds to judge the signature's age by [default: now]
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    now: Option<i64>,
}

#[derive(Serialize)]
struct Verdict {
    valid: bool,
    reason: Option<String>,
}

fn verify_webhook(command: &VerifyWebhook, context: &Context) -> Result<Exit, Failure> {
    let secret = secret(context, "KH_WEBHOOK_SECRET")?;
    let body = read_file(&command.body_file)?;
    let now = command.now.map_or_else(|| Ok(System.now()), Timestamp::from_second).map_err(Failure::usage)?;
    let rejected = webhook::verify(&command.header, &body, &[secret.expose_secret().as_bytes()], now).err();
    let verdict = Verdict { valid: rejected.is_none(), reason: rejected.map(|why| why.to_string()) };
    context.output.record(&verdict, |verdict| match &verdict.reason {
        None => "valid".to_owned(),
        Some(reason) => format!("not valid: {reason}"),
    })?;
    Ok(if verdict.valid { Exit::Done } else { Exit::Failed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_text_is_one_word() {
        for (text, word) in [("", "''"), ("a b", "'a b'"), ("it's $HOME `x` \"\\", r#"'it'\''s $HOME `x` "\'"#)] {
            assert_eq!(quoted(text), word);
        }
    }
}
