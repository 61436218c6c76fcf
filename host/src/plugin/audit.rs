//! What a component asks for and offers, read from its bytes before anything is compiled, linked or run.

use base16ct::lower as hex;
use sha2::{Digest, Sha256};
use wasmparser::{Encoding, Parser, Payload};

/// The interfaces a component may import, of WASI 0.2. The built-in component imports exactly these.
const IMPORTS: &str = include_str!("imports.txt");
/// What others may import besides: standard libraries seed their hash maps with it.
const ALSO: &str = "wasi:random/insecure-seed";

/// The version of WASI whose interfaces are provided; later patch releases only add to them.
const WASI: &str = "0.2";

/// The contract this host speaks.
pub const CONTRACT_VERSION: &str = "0.1.0";
const CONTRACT: &str = "provisor:provisioning";
const INTERFACES: [&str; 3] = ["events", "provisioning", "types"];

/// The largest component that is looked at.
pub const SIZE_MAX: usize = 16 * 1024 * 1024;

/// Why bytes are no provider component.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Larger than [`SIZE_MAX`].
    #[error("it has {0} bytes, more than {SIZE_MAX}")]
    TooLarge(usize),
    /// Something else altogether.
    #[error("it is not WebAssembly")]
    NotWasm,
    /// A plain module rather than a component.
    #[error(
        "it is a core WebAssembly module; a component is needed (build for wasm32-wasip2, or use `wasm-tools component new`)"
    )]
    CoreModule,
    /// It ends too early.
    #[error("it is cut off after {0} bytes")]
    Truncated(usize),
    /// It breaks WebAssembly's rules.
    #[error("it is not a valid component: {0}")]
    Invalid(String),
    /// It wants something that components are not given.
    #[error("it imports `{0}`, which components are not given")]
    Import(String),
    /// It speaks another version of the contract.
    #[error("it speaks {CONTRACT} {found}; this host speaks {CONTRACT_VERSION}")]
    Version {
        /// The version it speaks.
        found: String,
    },
    /// It does not speak the contract.
    #[error("it does not export `{CONTRACT}/{0}@{CONTRACT_VERSION}`")]
    Export(&'static str),
}

/// What the bytes of a component say.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Contents {
    /// In bytes.
    pub size: usize,
    /// In lower-case hex.
    pub sha256: String,
    /// What it wants, by full name.
    pub imports: Vec<String>,
    /// What it offers, by full name.
    pub exports: Vec<String>,
    /// The version of the contract it speaks.
    pub contract_version: Option<String>,
}

/// Reads a component without running it. The refusals name everything that is wrong with it.
pub(super) fn audit(bytes: &[u8]) -> (Contents, Vec<Refusal>) {
    let mut contents = Contents { size: bytes.len(), sha256: hex::encode_string(&Sha256::digest(bytes)), ..Contents::default() };
    if bytes.len() > SIZE_MAX {
        return (contents, vec![Refusal::TooLarge(bytes.len())]);
    }
    if let Err(refusal) = read(bytes, &mut contents) {
        return (contents, vec![refusal]);
    }
    let mut refusals: Vec<Refusal> =
        contents.imports.iter().filter(|name| !is_provided(name)).cloned().map(Refusal::Import).collect();
    contents.contract_version = spoken(&contents.exports);
    match &contents.contract_version {
        Some(found) if found != CONTRACT_VERSION => refusals.push(Refusal::Version { found: found.clone() }),
        _ => refusals.extend(INTERFACES.into_iter().filter(|name| !offers(&contents.exports, name)).map(Refusal::Export)),
    }
    (contents, refusals)
}

fn read(bytes: &[u8], contents: &mut Contents) -> Result<(), Refusal> {
    if !bytes.starts_with(b"\0asm") {
        let beginning = bytes.len() < 4 && b"\0asm".starts_with(bytes) && !bytes.is_empty();
        return Err(if beginning { Refusal::Truncated(bytes.len()) } else { Refusal::NotWasm });
    }
    let invalid = |error: wasmparser::BinaryReaderError| {
        if error.message().contains("unexpected end") {
            Refusal::Truncated(bytes.len())
        } else {
            Refusal::Invalid(error.to_string())
        }
    };
    // Sections of nested components come in the same stream, between their version and their end.
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(invalid)? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => return Err(Refusal::CoreModule),
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(imports) if depth == 1 => {
                for import in imports {
                    contents.imports.push(import.map_err(invalid)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(exports) if depth == 1 => {
                for export in exports {
                    contents.exports.push(export.map_err(invalid)?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    contents.imports.sort();
    contents.exports.sort();
    Ok(())
}

fn is_provided(import: &str) -> bool {
    let Some((interface, version)) = import.split_once('@') else { return false };
    let patch = version.strip_prefix(WASI).and_then(|rest| rest.strip_prefix('.'));
    patch.is_some_and(|patch| patch.parse::<u16>().is_ok()) && provided().any(|name| name == interface)
}

fn provided() -> impl Iterator<Item = &'static str> {
    IMPORTS.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).chain([ALSO])
}

fn spoken(exports: &[String]) -> Option<String> {
    let prefix = format!("{CONTRACT}/provisioning@");
    exports.iter().find_map(|name| name.strip_prefix(&prefix)).map(str::to_owned)
}

fn offers(exports: &[String], interface: &str) -> bool {
    exports.iter().any(|name| *name == format!("{CONTRACT}/{interface}@{CONTRACT_VERSION}"))
}
