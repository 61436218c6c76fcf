//! Signed checkpoints: what the heads of the chains were at a moment, in files outside the book (spec/kernelhost 2.15).
//!
//! A file is a row of notes in the C2SP signed-note form, each followed by an empty line. A note's text is a fixed first line, the
//! time, and a line `<stream> <size> <head in base64>` for each stream that grew since the note before it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use base16ct::lower as hex;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::vault::Vault;

/// The folder of the checkpoint files, in the data directory.
pub const FOLDER: &str = "checkpoints";
/// The first line of a note.
const ORIGIN: &str = "provisor audit checkpoint";
/// What the signing key is derived for.
const PURPOSE: &str = "audit checkpoints";
/// The algorithm's number in a C2SP verification key and key id.
const ED25519: u8 = 1;
/// How a signature's line begins.
const SIGNED: &str = "\u{2014} ";
/// Streams in one note.
const STREAMS_MAX: usize = 1000;

/// What a stream was at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// The stream: an account's id, or 0.
    pub stream: i64,
    /// How many rows it had.
    pub size: i64,
    /// The hash of the last of them.
    pub head: [u8; 32],
    /// When.
    pub at: Timestamp,
}

/// Signs checkpoints with a key derived from the newest master key.
pub struct Signer {
    name: String,
    key: SigningKey,
}

impl Signer {
    /// Nothing while the vault is sealed.
    pub fn of(vault: &Vault) -> Option<Self> {
        Self::all(vault).pop()
    }

    /// One for each master key at hand, oldest first.
    fn all(vault: &Vault) -> Vec<Self> {
        let signer = |(version, fingerprint): (u32, String)| {
            let key = SigningKey::from_bytes(&*vault.derived_key_of(version, PURPOSE)?);
            Some(Self { name: format!("provisor-audit-v{version}-{fingerprint}"), key })
        };
        vault.fingerprints().into_iter().filter_map(signer).collect()
    }

    /// What verifies its notes.
    pub fn verifier(&self) -> Verifier {
        Verifier::new(self.name.clone(), self.key.verifying_key())
    }

    /// The notes of streams, each with its size and head; as bytes to append.
    fn notes(&self, at: Timestamp, heads: &[(i64, i64, [u8; 32])]) -> String {
        heads.chunks(STREAMS_MAX).map(|heads| self.note(at, heads)).collect()
    }

    fn note(&self, at: Timestamp, heads: &[(i64, i64, [u8; 32])]) -> String {
        let lines = heads.iter().map(|(stream, size, head)| format!("{stream} {size} {}\n", STANDARD.encode(head)));
        self.signed(&lines.fold(format!("{ORIGIN}\n{at}\n"), |text, line| text + &line)) + "\n"
    }

    /// A note of a text, which ends with a line break and has no empty line.
    pub(super) fn signed(&self, text: &str) -> String {
        let signature = self.key.sign(text.as_bytes()).to_bytes();
        let signature = STANDARD.encode([&self.verifier().id[..], &signature].concat());
        format!("{text}\n{SIGNED}{} {signature}\n", self.name)
    }

    /// Appends the notes of streams to a file, which is made if it is absent, and returns once they are on the disk.
    pub fn append(&self, file: &Path, at: Timestamp, heads: &[(i64, i64, [u8; 32])]) -> io::Result<()> {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        if heads.is_empty() {
            return Ok(());
        }
        let folder = file.parent().unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let is_new = !file.exists();
        let mut opened = OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(file)?;
        let mut notes = self.notes(at, heads);
        if is_torn(&mut opened)? {
            // Whoever was cut off while writing left half a note; it must not swallow this one.
            notes.insert_str(0, "\n\n");
        }
        opened.write_all(notes.as_bytes())?;
        opened.sync_data()?;
        if is_new { File::open(folder)?.sync_all() } else { Ok(()) }
    }
}

/// Whether a file does not end behind a note.
fn is_torn(file: &mut File) -> io::Result<bool> {
    let length = file.metadata()?.len();
    if length < 2 {
        return Ok(length > 0);
    }
    let mut end = [0; 2];
    file.seek(SeekFrom::End(-2))?;
    file.read_exact(&mut end)?;
    Ok(&end != b"\n\n")
}

/// Verifies notes of one signer: a C2SP verification key, `<name>+<key id>+<key>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    id: [u8; 4],
    key: VerifyingKey,
}

/// Not a verification key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a verification key; one looks like `provisor-audit-v1-0123456789abcdef+01234567+AQ..`")]
pub struct VerifierError;

impl Verifier {
    fn new(name: String, key: VerifyingKey) -> Self {
        let digest = Sha256::new().chain_update(&name).chain_update([b'\n', ED25519]).chain_update(key.as_bytes()).finalize();
        let id = [digest[0], digest[1], digest[2], digest[3]];
        Self { name, id, key }
    }

    /// Those of every master key at hand.
    pub fn all(vault: &Vault) -> Vec<Self> {
        Signer::all(vault).iter().map(Signer::verifier).collect()
    }

    fn verifies(&self, text: &str, name: &str, id: [u8; 4], signature: &Signature) -> bool {
        self.name == name && self.id == id && self.key.verify_strict(text.as_bytes(), signature).is_ok()
    }
}

impl std::fmt::Display for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = [&[ED25519][..], self.key.as_bytes()].concat();
        write!(f, "{}+{}+{}", self.name, hex::encode_string(&self.id), STANDARD.encode(key))
    }
}

impl std::str::FromStr for Verifier {
    type Err = VerifierError;

    fn from_str(text: &str) -> Result<Self, VerifierError> {
        // Base64 may have a plus sign, a name has none.
        let (name, rest) = text.split_once('+').ok_or(VerifierError)?;
        let (id, key) = rest.split_once('+').ok_or(VerifierError)?;
        let key = STANDARD.decode(key).map_err(|_| VerifierError)?;
        let Some((&ED25519, key)) = key.split_first() else { return Err(VerifierError) };
        let key = VerifyingKey::try_from(key).map_err(|_| VerifierError)?;
        let verifier = Self::new(name.to_owned(), key);
        if hex::encode_string(&verifier.id) == id { Ok(verifier) } else { Err(VerifierError) }
    }
}

/// What checkpoint files say.
#[derive(Debug, Default)]
pub struct Notes {
    /// Of the notes that hold, as they come.
    pub checkpoints: Vec<Checkpoint>,
    /// How many notes hold.
    pub notes: u64,
    /// How many were cut off while they were written. They say nothing.
    pub torn: u64,
    /// Lines at which notes begin that no verifier at hand confirms.
    pub refused: Vec<usize>,
}

impl Notes {
    /// Reads a file and adds what it says.
    pub fn read_file(&mut self, file: &Path, verifiers: &[Verifier]) -> io::Result<()> {
        // What is no text was torn, or is refused with its note.
        self.read(&String::from_utf8_lossy(&fs::read(file)?), verifiers);
        Ok(())
    }

    fn read(&mut self, text: &str, verifiers: &[Verifier]) {
        let lines: Vec<&str> = text.split('\n').collect();
        let mut at = 0;
        while at < lines.len() {
            let begin = at;
            at = past_block(&lines, begin);
            let body = &lines[begin..at];
            // Between two notes, and behind the last, stands an empty line.
            let after = at + 1;
            let signatures_end = past_block(&lines, after.min(lines.len()));
            let signatures = lines.get(after..signatures_end).filter(|lines| lines.iter().any(|line| line.starts_with(SIGNED)));
            match signatures {
                _ if body.is_empty() => at += 1,
                None => {
                    self.torn += 1;
                    at += 1;
                }
                Some(signatures) => {
                    self.take(begin, body, signatures, verifiers);
                    at = signatures_end + 1;
                }
            }
        }
    }

    fn take(&mut self, begin: usize, body: &[&str], signatures: &[&str], verifiers: &[Verifier]) {
        let text = format!("{}\n", body.join("\n"));
        let signatures: Vec<_> = signatures.iter().map(|line| signature(line)).collect();
        if signatures.iter().all(Option::is_none) {
            self.torn += 1;
            return;
        }
        let holds = signatures
            .into_iter()
            .flatten()
            .any(|(name, id, signature)| verifiers.iter().any(|verifier| verifier.verifies(&text, name, id, &signature)));
        match checkpoints(body).filter(|_| holds) {
            Some(found) => {
                self.notes += 1;
                self.checkpoints.extend(found);
            }
            None => self.refused.push(begin + 1),
        }
    }
}

/// The lines of a single note's text, if a verifier confirms it.
pub(super) fn opened<'a>(note: &'a str, verifiers: &[Verifier]) -> Option<Vec<&'a str>> {
    let (text, signatures) = note.split_once("\n\n")?;
    let holds = signatures.lines().filter_map(signature).any(|(name, id, signature)| {
        verifiers.iter().any(|verifier| verifier.verifies(&format!("{text}\n"), name, id, &signature))
    });
    holds.then(|| text.lines().collect())
}

/// The first empty line from one on, or the end.
fn past_block(lines: &[&str], from: usize) -> usize {
    lines[from..].iter().position(|line| line.is_empty()).map_or(lines.len(), |length| from + length)
}

/// Nothing if the line was cut off.
fn signature(line: &str) -> Option<(&str, [u8; 4], Signature)> {
    let (name, signature) = line.strip_prefix(SIGNED)?.split_once(' ')?;
    let signature = STANDARD.decode(signature).ok()?;
    let (id, signature) = signature.split_first_chunk()?;
    Some((name, *id, Signature::from_slice(signature).ok()?))
}

fn checkpoints(body: &[&str]) -> Option<Vec<Checkpoint>> {
    let [first, at, streams @ ..] = body else { return None };
    if *first != ORIGIN {
        return None;
    }
    let at: Timestamp = at.parse().ok()?;
    let checkpoint = |line: &&str| {
        let mut words = line.split(' ');
        let (stream, size, head) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?);
        let head = STANDARD.decode(head).ok()?.try_into().ok()?;
        Some(Checkpoint { stream, size, head, at }).filter(|_| words.next().is_none())
    };
    streams.iter().map(checkpoint).collect()
}

/// The checkpoint files of a data directory; none is none.
pub fn files(data: &Path) -> io::Result<Vec<PathBuf>> {
    let folder = data.join(FOLDER);
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut files = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "notes"));
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> Signer {
        Signer { name: "provisor-audit-v1-test".to_owned(), key: SigningKey::from_bytes(&[7; 32]) }
    }

    const AT: &str = "2027-01-15T08:00:00.123Z";

    fn append(file: &Path, size: i64) {
        signer().append(file, AT.parse().unwrap(), &[(0, size, [1; 32]), (7, 1, [2; 32])]).unwrap();
    }

    fn read(text: &str) -> Notes {
        let mut notes = Notes::default();
        notes.read(text, &[signer().verifier()]);
        notes
    }

    #[test]
    fn a_note_says_what_was_signed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("checkpoints/host.notes");
        append(&file, 5);
        append(&file, 6);
        let text = fs::read_to_string(&file).unwrap();
        let begin = format!(
            "{ORIGIN}\n{AT}\n0 5 {}\n7 1 {}\n\n\u{2014} provisor-audit-v1-test ",
            STANDARD.encode([1; 32]),
            STANDARD.encode([2; 32])
        );
        assert!(text.starts_with(&begin), "{text}");
        let notes = read(&text);
        assert_eq!((notes.notes, notes.torn, notes.refused.len()), (2, 0, 0));
        let sizes: Vec<_> = notes.checkpoints.iter().map(|point| (point.stream, point.size, point.head[0])).collect();
        assert_eq!(sizes, [(0, 5, 1), (7, 1, 2), (0, 6, 1), (7, 1, 2)]);
        assert_eq!(files(folder.path()).unwrap(), [file]);
    }

    #[test]
    fn every_changed_character_is_refused() {
        let note = signer().note(AT.parse().unwrap(), &[(3, 4, [5; 32])]);
        for (at, character) in note.trim_end().char_indices().filter(|(_, character)| *character != '\n') {
            let other = if character == 'A' { 'B' } else { 'A' };
            let changed = format!("{}{other}{}", &note[..at], &note[at + character.len_utf8()..]);
            let notes = read(&changed);
            assert!(notes.notes == 0 && (notes.refused == [1] || notes.torn > 0), "{at}: {changed}");
        }
        assert_eq!(read(&note).notes, 1);
        let mut notes = Notes::default();
        notes.read(&note, &[]);
        assert_eq!((notes.notes, notes.refused), (0, vec![1]));
    }

    #[test]
    fn half_a_note_swallows_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("host.notes");
        append(&file, 5);
        let whole = fs::read(&file).unwrap();
        for end in 1..whole.len() {
            fs::write(&file, &whole[..end]).unwrap();
            append(&file, 6);
            let notes = read(&String::from_utf8_lossy(&fs::read(&file).unwrap()));
            assert!(notes.checkpoints.iter().any(|point| point.size == 6), "cut at {end}");
            assert!(notes.refused.is_empty(), "cut at {end}: {notes:?}");
        }
    }

    #[test]
    fn a_verification_key_is_read_as_it_is_written() {
        let verifier = signer().verifier();
        let text = verifier.to_string();
        assert_eq!(text.parse(), Ok(verifier));
        for wrong in ["", "a+b", "name+00000000+AQ==", &text[..text.len() - 1], &text.replacen("test", "best", 1)] {
            assert_eq!(wrong.parse::<Verifier>(), Err(VerifierError), "{wrong}");
        }
    }
}
