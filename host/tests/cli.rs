//! The binary as people and scripts use it: the wire commands against vectors made by openssl and PHP, JSON, exit codes, help.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use serde_json::Value;

const KEY: &str = "kh_live_ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// The binary in an environment of its own: nothing of the developer's leaks in.
fn provisor(variables: &[(&str, &str)], arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("provisor").unwrap();
    command.env_clear().env("HOME", "/nonexistent").envs(variables.iter().copied()).args(arguments);
    command
}

fn json_line(output: &Output) -> Value {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "one object on one line: {text}");
    serde_json::from_str(text).unwrap()
}

fn members(object: &Value) -> Vec<&str> {
    let mut members: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    members.sort_unstable();
    members
}

fn vectors(name: &str) -> Vec<Value> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors").join(name);
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

fn text<'a>(vector: &'a Value, member: &str) -> &'a str {
    vector[member].as_str().unwrap()
}

fn body_of(vector: &Value) -> String {
    match &vector["body_repeat"] {
        Value::Array(repeat) => repeat[0].as_str().unwrap().repeat(usize::try_from(repeat[1].as_u64().unwrap()).unwrap()),
        _ => text(vector, "body").to_owned(),
    }
}

#[test]
fn kernelhost_sign_agrees_with_openssl() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("body");
    for vector in vectors("kernelhost-signing.json") {
        let (method, path) = (text(&vector, "method"), text(&vector, "path"));
        fs::write(&file, body_of(&vector)).unwrap();
        let output = provisor(
            &[("KH_KEY", KEY), ("KH_SECRET", text(&vector, "secret"))],
            &["wire", "kernelhost", "sign", "--json", "--method", method, "--path", path, "--body-file", file.to_str().unwrap()],
        )
        .args(["--timestamp", text(&vector, "timestamp"), "--nonce", text(&vector, "nonce")])
        .output()
        .unwrap();
        let signed = json_line(&output);
        assert_eq!(members(&signed), ["curl", "headers", "signature", "signing_string"]);
        assert_eq!(signed["signature"], vector["signature"]);
        let signing_string = ["method", "path", "timestamp", "nonce", "body_sha256"].map(|part| text(&vector, part)).join("\n");
        assert_eq!(signed["signing_string"], signing_string.as_str());
        assert_eq!(signed["headers"]["KH-Key"], KEY);
        assert_eq!(signed["headers"]["KH-Signature"], vector["signature"]);
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
        assert!(!signed.to_string().contains(text(&vector, "secret")));
    }
}

const SPEC: [(&str, &str); 2] = [("KH_KEY", KEY), ("KH_SECRET", "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")];
const SPEC_MOMENT: [&str; 4] = ["--timestamp", "1767225600", "--nonce", "00112233445566778899aabbccddeeff"];

#[test]
fn kernelhost_sign_prints_for_people() {
    let output = provisor(&SPEC, &["wire", "kernelhost", "sign", "--method", "get", "--path", "/v1/me"])
        .args(SPEC_MOMENT)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let signature = "b10259b39140e7d5537eee4ce52669f29bc5486bcc57842b04497218a733ab03";
    assert_eq!(
        text,
        format!(
            "Signing string:\nGET\n/v1/me\n1767225600\n00112233445566778899aabbccddeeff\n\
             e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n\n\
             Signature:\n{signature}\n\n\
             Headers:\nKH-Key: {KEY}\nKH-Timestamp: 1767225600\nKH-Nonce: 00112233445566778899aabbccddeeff\nKH-Signature: {signature}\n\n\
             To send it:\ncurl --globoff --path-as-is --request GET --header 'KH-Key: {KEY}' --header 'KH-Timestamp: 1767225600' \
             --header 'KH-Nonce: 00112233445566778899aabbccddeeff' --header 'KH-Signature: {signature}' \
             'https://www.kernelhost.com/cp/kh_reseller_api/v1/me'\n"
        )
    );
}

/// A shell reads the curl line; a `curl` that prints its arguments shows what it read.
#[cfg(unix)]
#[test]
fn the_curl_line_survives_a_shell() {
    let folder = tempfile::tempdir().unwrap();
    let body = "{\"note\":\"it's $HOME `x` \\\\ \n @é\"}";
    let path = "/v1/orders?a='b'&c=$(d)";
    let output = provisor(&SPEC, &["wire", "kernelhost", "sign", "--json", "--method", "POST", "--path", path, "--body", body])
        .args(SPEC_MOMENT)
        .args(["--base-url", "http://127.0.0.1:8080/cp/kh_reseller_api/v1/"])
        .output()
        .unwrap();
    let signed = json_line(&output);
    let print = format!("curl() {{ printf '%s\\0' \"$@\"; }}; {}", signed["curl"].as_str().unwrap());
    let shell = std::process::Command::new("sh").args(["-c", &print]).current_dir(&folder).output().unwrap();
    let words = String::from_utf8(shell.stdout).unwrap();
    let words: Vec<&str> = words.split_terminator('\0').collect();
    let url = format!("http://127.0.0.1:8080/cp/kh_reseller_api{path}");
    assert_eq!(words.last(), Some(&url.as_str()));
    let after = |name: &str| words[words.iter().position(|word| *word == name).unwrap() + 1];
    assert_eq!((after("--request"), after("--data-raw")), ("POST", body));
    for (name, value) in signed["headers"].as_object().unwrap() {
        assert!(words.contains(&format!("{name}: {}", value.as_str().unwrap()).as_str()), "{name}");
    }
    // An order without one is refused; the nonce is as unique as it has to be.
    assert_eq!(signed["headers"]["Idempotency-Key"], signed["headers"]["KH-Nonce"]);
}

#[test]
fn kernelhost_sign_makes_its_own_moment() {
    let sign = || {
        json_line(
            &provisor(&SPEC, &["wire", "kernelhost", "sign", "--json", "--method", "GET", "--path", "/v1/me"]).output().unwrap(),
        )
    };
    let (one, other) = (sign(), sign());
    assert_ne!(one["headers"]["KH-Nonce"], other["headers"]["KH-Nonce"]);
    assert_eq!(one["headers"]["KH-Nonce"].as_str().unwrap().len(), 32);
    assert_eq!(one["headers"]["KH-Timestamp"].as_str().unwrap().len(), 10);
}

#[test]
fn kernelhost_sign_refuses_what_cannot_be_sent_as_signed() {
    for (method, path, nonce, message) in [
        ("GET", "/cp/kh_reseller_api/v1/me", "n", "--path: what is signed begins with /v1"),
        ("GET", "/v1me", "n", "--path: what is signed begins with /v1"),
        ("GET", "/v1/a b", "n", "--path: blanks"),
        ("GET", "/v1/a#b", "n", "--path: blanks"),
        ("GET", "/v1/ü", "n", "--path: blanks"),
        ("GET\nX", "/v1/me", "n", "--method: "),
        ("GET", "/v1/me", "a\nb", "--nonce: no header can hold it"),
    ] {
        let output = provisor(&SPEC, &["wire", "kernelhost", "sign", "--method", method, "--path", path, "--nonce", nonce])
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(&format!("error: {message}")), "{stderr}");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    }
}

fn verify(secret: &str, header: &str, body: &Path, now: &str) -> Output {
    let arguments = ["--json", "wire", "kernelhost", "verify-webhook", "--header", header, "--now", now, "--body-file"];
    provisor(&[("KH_WEBHOOK_SECRET", secret)], &arguments).arg(body).output().unwrap()
}

#[test]
fn kernelhost_webhooks_agree_with_openssl() {
    let folder = tempfile::tempdir().unwrap();
    let (file, changed) = (folder.path().join("body"), folder.path().join("changed"));
    for vector in vectors("webhook-signature.json") {
        let (secret, header) = (text(&vector, "secret"), text(&vector, "header"));
        let signed_at: i64 = text(&vector, "timestamp").parse().unwrap();
        fs::write(&file, text(&vector, "body")).unwrap();
        fs::write(&changed, format!("{} ", text(&vector, "body"))).unwrap();
        for (secret, body, late_s, reason) in [
            (secret, &file, 0, None),
            (secret, &file, 300, None),
            (secret, &file, -300, None),
            (secret, &file, 301, Some("the timestamp is 301 s old")),
            (secret, &file, -301, Some("the timestamp is 301 s ahead")),
            (secret, &changed, 0, Some("the signature does not match")),
            ("whsec_other", &file, 0, Some("the signature does not match")),
        ] {
            let output = verify(secret, header, body, &(signed_at + late_s).to_string());
            let verdict = json_line(&output);
            assert_eq!(members(&verdict), ["reason", "valid"]);
            assert_eq!(verdict["valid"], reason.is_none());
            assert_eq!(verdict["reason"].as_str().map(|text| text.starts_with(reason.unwrap_or("-"))), reason.map(|_| true));
            assert_eq!(output.status.code(), Some(i32::from(reason.is_some())));
        }
        let verdict = json_line(&verify(secret, "v1=abc", &file, "0"));
        assert!(text(&verdict, "reason").starts_with("the signature header is malformed"));
    }
}

#[test]
fn gp_hash_agrees_with_php() {
    for vector in vectors("gp-hash.json") {
        let output =
            provisor(&[("GP_API_KEY", text(&vector, "api_key"))], &["wire", "gp", "hash", "--domain", text(&vector, "domain")])
                .args(["--json", "--timestamp", text(&vector, "timestamp")])
                .output()
                .unwrap();
        let made = json_line(&output);
        assert_eq!(members(&made), ["hash", "timestamp"]);
        assert_eq!((&made["hash"], &made["timestamp"]), (&vector["hash"], &vector["timestamp"]));
    }
    let output = provisor(&[("GP_API_KEY", "k")], &["wire", "gp", "hash", "--domain", "example.com", "--json"]).output().unwrap();
    assert_eq!(text(&json_line(&output), "timestamp").len(), 10);
}

#[test]
fn gp_passwords_agree_with_php() {
    for vector in vectors("gp-password.json") {
        let (password, envelope) = (text(&vector, "password"), text(&vector, "envelope"));
        let key = [("GP_API_KEY", text(&vector, "key"))];
        for stdin in [password.to_owned(), format!("{password}\n"), format!("{password}\r\n")] {
            let output = provisor(&key, &["wire", "gp", "seal", "--json", "--iv", text(&vector, "iv_hex")])
                .write_stdin(stdin)
                .output()
                .unwrap();
            let sealed = json_line(&output);
            assert_eq!(members(&sealed), ["envelope"]);
            assert_eq!(sealed["envelope"], envelope);
        }
        let opened = json_line(&provisor(&key, &["wire", "gp", "open", "--json", "--envelope", envelope]).output().unwrap());
        assert_eq!(members(&opened), ["password"]);
        assert_eq!(opened["password"], password);
        let shown = provisor(&key, &["wire", "gp", "open", "--envelope", envelope]).output().unwrap();
        assert_eq!(shown.stdout, format!("{password}\n").into_bytes());
        provisor(&[("GP_API_KEY", "another")], &["wire", "gp", "open", "--envelope", envelope])
            .assert()
            .code(1)
            .stdout("")
            .stderr("error: not a password sealed with this key\n");
    }
}

#[test]
fn gp_seal_drops_one_line_break_and_takes_a_fresh_iv() {
    let key = [("GP_API_KEY", "0123456789abcdef")];
    let seal =
        |password: &str| json_line(&provisor(&key, &["wire", "gp", "seal", "--json"]).write_stdin(password).output().unwrap());
    let (one, other) = (seal("p\n\n"), seal("p\n\n"));
    assert_ne!(one, other);
    let envelope = text(&one, "envelope");
    let opened = json_line(&provisor(&key, &["wire", "gp", "open", "--json", "--envelope", envelope]).output().unwrap());
    assert_eq!(opened["password"], "p\n");
    for (password, iv) in
        [("p", "00"), ("p", "xx"), ("", "000102030405060708090a0b0c0d0e0f"), ("0\n", "000102030405060708090a0b0c0d0e0f")]
    {
        provisor(&key, &["wire", "gp", "seal", "--iv", iv]).write_stdin(password).assert().code(2).stdout("");
    }
}

#[test]
fn a_missing_secret_is_named() {
    for (arguments, variable) in [
        (&["wire", "kernelhost", "sign", "--method", "GET", "--path", "/v1/me"][..], "KH_KEY"),
        (&["wire", "kernelhost", "verify-webhook", "--header", "x", "--body-file", "/dev/null"], "KH_WEBHOOK_SECRET"),
        (&["wire", "gp", "hash", "--domain", "example.com"], "GP_API_KEY"),
    ] {
        let message = format!("the environment variable {variable} is not set");
        provisor(&[], arguments).assert().code(2).stdout("").stderr(format!("error: {message}\n"));
        let output = provisor(&[], arguments).arg("--json").output().unwrap();
        let error: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!((error["error"]["message"].as_str(), error["error"]["exit"].as_u64()), (Some(message.as_str()), Some(2)));
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    }
}

#[test]
fn common_options_stand_before_or_after_the_command() {
    let data = tempfile::tempdir().unwrap();
    fs::write(data.path().join("provisor.toml"), "[server]\nlisten = '127.0.0.1:81'").unwrap();
    let other = data.path().join("other.toml");
    fs::write(&other, "[server]\nlisten = '127.0.0.1:82'").unwrap();
    let (folder, other) = (data.path().to_str().unwrap(), other.to_str().unwrap());
    for (arguments, listen) in [
        (&["--json", "--data", folder, "config", "show"][..], "127.0.0.1:81"),
        (&["config", "--json", "show", "--data", folder], "127.0.0.1:81"),
        (&["config", "show", "--json", "--data", folder, "--config", other], "127.0.0.1:82"),
        (&["--config", other, "config", "show", "--json"], "127.0.0.1:82"),
    ] {
        let shown = json_line(&provisor(&[], arguments).output().unwrap());
        assert_eq!(shown["server"]["listen"], listen);
    }
    let shown = json_line(
        &provisor(&[("PROVISOR_SERVER__LISTEN", "[::1]:83"), ("PROVISOR_DATA", folder)], &["config", "show", "--json"])
            .output()
            .unwrap(),
    );
    assert_eq!(shown["server"]["listen"], "[::1]:83");
    let places = json_line(&provisor(&[], &["config", "path", "--json", "--data", folder]).output().unwrap());
    assert_eq!(members(&places), ["config", "config_exists", "data", "data_exists"]);
    assert_eq!((&places["data"], &places["config_exists"]), (&Value::from(folder), &Value::from(true)));
}

#[test]
fn a_wrong_configuration_names_its_place() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("provisor.toml");
    fs::write(&file, "[server]\nlistn = 'x'").unwrap();
    let message = format!("error: {}:2:1: server.listn: unknown key; did you mean `listen`?\n", file.display());
    provisor(&[], &["config", "show", "--data"]).arg(data.path()).assert().code(2).stdout("").stderr(message);
    provisor(&[], &["config", "show", "--config", "/nonexistent/x.toml"])
        .assert()
        .code(2)
        .stderr("error: cannot read the configuration /nonexistent/x.toml\n  because: No such file or directory (os error 2)\n");
}

#[test]
fn the_default_file_is_printed_with_its_comments() {
    let output = provisor(&[], &["config", "show", "--default"]).output().unwrap();
    let default = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/src/config.default.toml")).unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), String::from_utf8(default).unwrap());
}

#[test]
fn wrong_use_is_told_from_help() {
    provisor(&[], &["wire", "gp", "hsh"]).assert().code(2).stdout("");
    provisor(&[], &[]).assert().code(2).stdout("");
    let output = provisor(&[], &["--json", "wire", "gp", "hsh"]).output().unwrap();
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert!(text(&error["error"], "message").starts_with("unrecognized subcommand 'hsh'"));
    provisor(&[], &["--version"]).assert().code(0).stdout(concat!("provisor ", env!("CARGO_PKG_VERSION"), "\n"));
    provisor(&[], &["--log", "provisor=loud", "config", "path"]).assert().code(2);
}

#[test]
fn every_command_explains_itself() {
    for command in
        [&[][..], &["config"], &["config", "show"], &["config", "path"], &["completions"], &["wire"], &["wire", "kernelhost"]]
    {
        let output = provisor(&[], command).arg("--help").output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(help.contains("Usage: provisor") && help.contains("--json"), "{help}");
    }
    let help = String::from_utf8(provisor(&[], &["--help"]).output().unwrap().stdout).unwrap();
    assert!(help.contains("Examples:") && help.contains("Exit codes:"), "{help}");
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = json_line(&provisor(&[], &["completions", shell, "--json"]).output().unwrap());
        assert!(text(&script, "script").contains("verify-webhook"), "{shell}");
    }
}
