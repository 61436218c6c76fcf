//! More of the nevers, over every file that is tracked: who may stand for the outside world, who may name a provider, where the
//! compiler's rules are suspended, and what no file may say. `architecture` has those of single rooms.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "the helpers of a test fail it")]

use std::path::{Path, PathBuf};
use std::process::Command;

use provisor_providers::PROVIDERS;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What git knows or would take, with its text; files that are no text have none.
fn tracked() -> Vec<(String, String)> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root());
    let output = git.output().expect("this test needs git, to know which files belong to the project");
    assert!(output.status.success(), "this test needs a git work tree: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).unwrap();
    let names = names.split('\0').filter(|name| !name.is_empty());
    let files: Vec<_> =
        names.filter_map(|name| Some((name.to_owned(), std::fs::read_to_string(root().join(name)).ok()?))).collect();
    assert!(files.len() > 50, "only {} files found", files.len());
    files
}

fn is_a(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == extension)
}

/// The Rust files of the given folders, without comments and without what is compiled for tests alone.
fn production(folders: &[&str]) -> Vec<(String, String)> {
    let files: Vec<(String, String)> = tracked()
        .into_iter()
        .filter(|(name, _)| is_a(name, "rs") && folders.iter().any(|folder| name.starts_with(folder)))
        .collect();
    let for_tests: Vec<String> = files.iter().flat_map(|(name, text)| test_modules(name, text)).collect();
    let ships =
        |name: &str| !for_tests.iter().any(|module| name == format!("{module}.rs") || name.starts_with(&format!("{module}/")));
    files.into_iter().filter(|(name, _)| ships(name)).map(|(name, text)| (name, code(&text))).collect()
}

/// The modules in files of their own that a file includes for tests alone, as paths without an ending.
fn test_modules(name: &str, text: &str) -> Vec<String> {
    let folder = match name.rsplit_once('/') {
        Some((folder, "mod.rs" | "lib.rs" | "main.rs")) => folder.to_owned(),
        _ => name.trim_end_matches(".rs").to_owned(),
    };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let pairs = lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]" && pair[1].ends_with(';'));
    pairs
        .filter_map(|pair| pair[1].trim_end_matches(';').rsplit_once("mod "))
        .map(|(_, module)| format!("{folder}/{module}"))
        .collect()
}

/// A file's text without comments and without blocks for tests. The sources are formatted, so that a block ends where a brace
/// stands under its beginning.
fn code(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let trimmed = line.trim_start();
        if trimmed == "#[cfg(test)]" {
            let indent = &line[..line.len() - trimmed.len()];
            let end = format!("{indent}}}");
            if lines.next().is_some_and(|item| item.ends_with('{')) {
                let _block = lines.by_ref().take_while(|line| *line != end).count();
            }
            continue;
        }
        kept.push_str(line.split("//").next().unwrap_or_default());
        kept.push('\n');
    }
    kept
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_')).filter(|word| !word.is_empty())
}

/// Else the host could walk around the sandbox. The scripted worlds of the providers' own tests are compiled for tests alone.
#[test]
fn only_the_sandboxed_and_tests_stand_for_the_outside_world() {
    let files = production(&["providers/", "component/", "host/", "plugins/", "tests/"]);
    let implements =
        |(_, text): &&(String, String)| text.lines().any(|line| line.contains("impl") && line.contains("Outside for "));
    let found: Vec<&str> = files.iter().filter(implements).map(|(name, _)| name.as_str()).collect();
    assert!(found.iter().any(|name| name.starts_with("tests/")), "nothing was found at all: {found:?}");
    for name in found {
        let is_allowed = ["component/", "plugins/spin/", "tests/"].iter().any(|room| name.starts_with(room));
        assert!(is_allowed, "{name} stands for the outside world");
    }
}

/// A third provider is one folder and one line. The command line may name them where it speaks of one wire, and in the demo.
#[test]
fn only_the_list_names_the_providers() {
    let may_name = |name: &str| {
        let own = PROVIDERS.iter().any(|provider| name.starts_with(&format!("providers/src/{}/", provider.id)));
        let speaks_of_one = ["wire", "demo"]
            .iter()
            .any(|command| name.starts_with(&format!("host/src/cli/{command}/")) || name == format!("host/src/cli/{command}.rs"));
        own || speaks_of_one || name == "providers/src/lib.rs" || name.starts_with("host/tests/")
    };
    for (name, text) in production(&["providers/", "component/", "host/"]).into_iter().filter(|(name, _)| !may_name(name)) {
        for provider in PROVIDERS {
            for path in [format!("{}::", provider.id), format!("::{}", provider.id), format!("mod {};", provider.id)] {
                let named = text.lines().find(|line| line.contains(&path) && words(line).any(|word| word == provider.id));
                assert!(named.is_none(), "{name} names a provider: {}", named.unwrap_or_default().trim());
            }
        }
    }
}

/// Panels' plug-ins ask what there is; what a customer sees is what `describe` says.
#[test]
fn no_php_names_a_provider() {
    for (name, text) in tracked().into_iter().filter(|(name, _)| name.starts_with("plugins/") && is_a(name, "php")) {
        let text = text.to_lowercase();
        for provider in PROVIDERS {
            let title = provider.client.info().name.to_lowercase();
            assert!(!text.contains(&title) && words(&text).all(|word| word != provider.id), "{name} names {}", provider.id);
        }
    }
}

#[test]
fn where_the_compiler_is_overruled_a_proof_stands() {
    let keyword = ["un", "safe"].concat();
    for (name, text) in tracked().into_iter().filter(|(name, _)| is_a(name, "rs")) {
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            if !words(line.split("//").next().unwrap_or_default()).any(|word| word == keyword) {
                continue;
            }
            let before = lines[number.saturating_sub(8)..number].join("\n");
            let is_expected = before.contains(&format!("#[expect({keyword}_code, reason"));
            assert!(is_expected && before.contains("SAFETY:"), "{name}:{}: {}", number + 1, line.trim());
        }
    }
}

/// A path of one machine is a mistake on every other. What a test forbids or makes up may name them.
#[test]
fn no_file_names_a_machines_folders() {
    let folders = ["home", "root", "work", "tmp", "Users"].map(|folder| format!("/{folder}/"));
    let may_name = |name: &str| name.starts_with("tests/") || name.contains("/tests/") || name.ends_with("/tests.rs");
    for (name, text) in tracked().into_iter().filter(|(name, _)| !may_name(name)) {
        for (number, line) in text.lines().enumerate() {
            let found = folders.iter().find(|folder| line.match_indices(folder.as_str()).any(|(at, _)| begins_a_path(line, at)));
            assert!(found.is_none(), "{name}:{}: {}", number + 1, line.trim());
        }
    }
}

/// Neither part of an address on the network nor of a relative path.
fn begins_a_path(line: &str, at: usize) -> bool {
    !line[..at].ends_with(|letter: char| letter.is_ascii_alphanumeric() || "_-.}*~".contains(letter))
}

#[test]
fn the_readers_of_sources_read_what_they_should() {
    let source =
        "fn a() {} // gp::b\n#[cfg(test)]\nmod tests {\n    use gp::c;\n}\nfn d() {}\n#[cfg(test)]\nmod script;\nfn e() {}\n";
    assert_eq!(code(source), "fn a() {} \nfn d() {}\nfn e() {}\n");
    assert_eq!(test_modules("providers/src/gp/mod.rs", source), ["providers/src/gp/script"]);
    assert_eq!(test_modules("host/src/plugin/cache.rs", source), ["host/src/plugin/cache/script"]);
    assert!(begins_a_path("see /tmp/x", 4) && !begins_a_path("see a/tmp/x", 5));
}
