//! Builds the component and leaves it as `component.wasm` in `OUT_DIR`, from where the binary takes it in.
//!
//! The component is a WebAssembly program of this workspace, which Cargo cannot state as a dependency of a native one; so this script
//! runs a second Cargo, in a target directory of its own, since the outer one holds the lock of its own directory.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

const TARGET: &str = "wasm32-wasip2";

/// All that the component is made of, from the workspace's root.
const SOURCES: [&str; 7] =
    ["wit", "providers/src", "providers/Cargo.toml", "component/src", "component/Cargo.toml", "Cargo.toml", "Cargo.lock"];

/// What an outer Cargo, clippy or a user's shell set for the native build; it must not reach the component's.
const FOREIGN: [&str; 5] =
    ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_ENCODED_RUSTFLAGS", "CARGO_ENCODED_RUSTDOCFLAGS"];
/// The same, by the beginning of the name. `CARGO_HOME`, `CARGO_NET_*` and `CARGO_REGISTRIES_*` stay.
const FOREIGN_PREFIXES: [&str; 5] = ["CARGO_BUILD_", "CARGO_CFG_", "CARGO_FEATURE_", "CARGO_PROFILE_", "CARGO_TARGET_"];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("cargo::error={why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let out = PathBuf::from(variable("OUT_DIR")?);
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let root = manifest.parent().ok_or("the host's folder has no parent, where the workspace should be")?;
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    println!("cargo::rerun-if-changed=build.rs");

    provide_target()?;
    let built = build(root, &target_directory(&out)?)?;
    let kept = out.join("component.wasm");
    std::fs::copy(&built, &kept).map_err(|why| format!("copying {} to {}: {why}", built.display(), kept.display()))?;
    Ok(())
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("{name} is not set: this script is run by Cargo"))
}

/// A directory beside the outer build's profiles: `OUT_DIR` is `<there>/<profile>/build/<package>/out`.
fn target_directory(out: &Path) -> Result<PathBuf, String> {
    let outer = out.ancestors().nth(4).ok_or_else(|| format!("OUT_DIR is not below a target directory: {}", out.display()))?;
    Ok(outer.join("wasm"))
}

/// Makes sure that the compiler has a standard library for the component.
fn provide_target() -> Result<(), String> {
    if has_target()? {
        return Ok(());
    }
    let added = Command::new("rustup").args(["target", "add", TARGET]).stdout(Stdio::null()).status();
    if added.is_ok_and(|status| status.success()) && has_target()? {
        return Ok(());
    }
    Err(format!(
        "the component needs Rust's standard library for {TARGET}, and `rustup target add {TARGET}` did not bring it. Run that \
         command where there is a network, or install the package that your system has for it (such as rust-std-{TARGET})"
    ))
}

fn has_target() -> Result<bool, String> {
    let asked = Command::new(variable("RUSTC")?)
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .map_err(|why| format!("running rustc: {why}"))?;
    Ok(asked.status.success() && Path::new(String::from_utf8_lossy(&asked.stdout).trim()).is_dir())
}

/// Runs the inner Cargo; returns the component's path.
fn build(root: &Path, target_directory: &Path) -> Result<PathBuf, String> {
    let mut cargo = Command::new(variable("CARGO")?);
    cargo
        .current_dir(root)
        .args(["build", "--package", "provisor-component", "--lib", "--profile", "component", "--target", TARGET, "--locked"])
        .arg("--target-dir")
        .arg(target_directory);
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if FOREIGN.contains(&&*name) || FOREIGN_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            cargo.env_remove(&*name);
        }
    }
    // Set rather than removed: the variable stands over `rustflags` in any configuration file.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", remapped(root, target_directory));
    let status = cargo.status().map_err(|why| format!("running cargo: {why}"))?;
    if !status.success() {
        return Err("the component does not build; cargo's own messages stand in the output below".to_owned());
    }
    Ok(target_directory.join(TARGET).join("component").join("provisor_component.wasm"))
}

/// Flags that keep this machine's paths out of the component, so that equal sources make equal bytes.
fn remapped(root: &Path, target_directory: &Path) -> String {
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    [(Some(root.to_owned()), "/provisor"), (Some(target_directory.to_owned()), "/target"), (cargo_home, "/cargo")]
        .into_iter()
        .filter_map(|(from, to)| Some(format!("--remap-path-prefix={}={to}", from?.display())))
        .collect::<Vec<_>>()
        .join("\u{1f}")
}
