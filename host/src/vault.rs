//! Secrets at rest: AES-256-GCM under versioned master keys that never enter the book (spec/kernelhost 2.16).

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use base16ct::lower as hex;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

const KEY_LEN: usize = 32;
const NONCE_LEN: usize = 12;
const VERSION_LEN: usize = 4;
const FILE_PREFIX: &str = "master.key.v";

/// Seals and opens secrets with the master keys of one directory. Files that come later are noticed by [`Vault::refresh`].
pub struct Vault {
    directory: PathBuf,
    keys: RwLock<Arc<Keys>>,
}

type Keys = BTreeMap<u32, MasterKey>;

struct MasterKey {
    cipher: Aes256Gcm,
    fingerprint: String,
    mac_key: Zeroizing<[u8; KEY_LEN]>,
}

/// Where a sealed value stands. It is authenticated, so that a ciphertext moved to another place does not open.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The table.
    pub table: &'a str,
    /// What names the row in it.
    pub row: &'a str,
    /// The column.
    pub column: &'a str,
}

/// Why the vault cannot be used, or a value not be opened.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The directory or a key file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Others than the owner may read the key.
    #[error("{}: mode {mode:o} lets others read the master key; run `chmod 600` on it", path.display())]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is not 32 bytes.
    #[error("{}: a master key is exactly 32 bytes, this is {len}", path.display())]
    WrongLength {
        /// The file.
        path: PathBuf,
        /// Its length.
        len: usize,
    },
    /// No key of the version a value was sealed with.
    #[error("sealed: master key version {0} is missing")]
    MissingKey(u32),
    /// The operating system gives no randomness.
    #[error("the operating system gives no randomness")]
    NoRandomness,
    /// The value was changed, moved from its place, or sealed with another key of that version.
    #[error("a sealed value does not open: it was changed, moved, or sealed with another key")]
    Refused,
}

impl Vault {
    /// Reads the master keys `master.key.v{N}` of a directory. Without any the vault is sealed: it opens and seals nothing.
    pub fn open(directory: &Path) -> Result<Self, VaultError> {
        let keys = RwLock::new(Arc::new(read_keys(directory)?));
        Ok(Self { directory: directory.to_owned(), keys })
    }

    /// Reads the directory again; whether the keys at hand are others than before. A directory that cannot be read changes nothing.
    pub fn refresh(&self) -> Result<bool, VaultError> {
        let found = read_keys(&self.directory)?;
        let fingerprints =
            |keys: &Keys| -> Vec<_> { keys.iter().map(|(version, key)| (*version, key.fingerprint.clone())).collect() };
        let is_changed = fingerprints(&found) != fingerprints(&self.keys());
        if is_changed {
            *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(found);
        }
        Ok(is_changed)
    }

    /// Makes the first master key, `master.key.v1` with mode 0600. Fails rather than replace one.
    pub fn create_key(directory: &Path, random: &[u8; KEY_LEN]) -> Result<PathBuf, VaultError> {
        write_key(directory, 1, random)
    }

    /// Makes the master key after the newest: its version and file. It seals from the next [`Vault::refresh`] on.
    pub fn create_next_key(&self, random: &[u8; KEY_LEN]) -> Result<(u32, PathBuf), VaultError> {
        let version = self.newest() + 1;
        Ok((version, write_key(&self.directory, version, random)?))
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether there is no key at all.
    pub fn is_sealed(&self) -> bool {
        self.keys().is_empty()
    }

    /// The version that seals; 0 without any key.
    pub fn newest(&self) -> u32 {
        self.keys().last_key_value().map_or(0, |(version, _)| *version)
    }

    /// Versions and fingerprints of the keys at hand, oldest first.
    pub fn fingerprints(&self) -> Vec<(u32, String)> {
        self.keys().iter().map(|(version, key)| (*version, key.fingerprint.clone())).collect()
    }

    /// A key for authenticating our own files (the compiled cache), derived from the newest master key for one purpose.
    pub fn derived_key(&self, purpose: &str) -> Option<Zeroizing<[u8; KEY_LEN]>> {
        self.derived_key_of(self.newest(), purpose)
    }

    /// The same from the master key of one version.
    pub fn derived_key_of(&self, version: u32, purpose: &str) -> Option<Zeroizing<[u8; KEY_LEN]>> {
        let keys = self.keys();
        Some(Zeroizing::new(tagged_digest(keys.get(&version)?.mac_key.as_slice(), purpose)))
    }

    /// Seals under the newest key: version, nonce, ciphertext with tag. Good for 2^32 values per key.
    ///
    /// The nonce is the operating system's, never the request's seed: a transaction that is run again must not use one twice.
    pub fn seal(&self, place: Place<'_>, secret: &SecretString) -> Result<Vec<u8>, VaultError> {
        let keys = self.keys();
        let (version, key) = keys.last_key_value().ok_or(VaultError::MissingKey(1))?;
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|_| VaultError::NoRandomness)?;
        let payload = Payload { msg: secret.expose_secret().as_bytes(), aad: &place.authenticated(*version) };
        let sealed = key.cipher.encrypt(&Nonce::from(nonce), payload).map_err(|_| VaultError::Refused)?;
        Ok([version.to_be_bytes().as_slice(), &nonce, &sealed].concat())
    }

    /// Opens a value where it stands.
    pub fn open_value(&self, place: Place<'_>, sealed: &[u8]) -> Result<SecretString, VaultError> {
        let (version, rest) = sealed.split_first_chunk::<VERSION_LEN>().ok_or(VaultError::Refused)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_LEN>().ok_or(VaultError::Refused)?;
        let version = u32::from_be_bytes(*version);
        let mut keys = self.keys();
        if version > self.newest() {
            // Another process seals with a key that was made since this one looked.
            self.refresh()?;
            keys = self.keys();
        }
        let key = keys.get(&version).ok_or(VaultError::MissingKey(version))?;
        let payload = Payload { msg: ciphertext, aad: &place.authenticated(version) };
        let opened = Zeroizing::new(key.cipher.decrypt(&Nonce::from(*nonce), payload).map_err(|_| VaultError::Refused)?);
        std::str::from_utf8(&opened).map(SecretString::from).map_err(|_| VaultError::Refused)
    }
}

/// The version of the key that a value was sealed with.
pub fn sealed_version(sealed: &[u8]) -> Option<u32> {
    sealed.split_first_chunk::<VERSION_LEN>().map(|(version, _)| u32::from_be_bytes(*version))
}

fn read_keys(directory: &Path) -> Result<Keys, VaultError> {
    let io = |source| VaultError::Io { path: directory.to_owned(), source };
    let mut keys = Keys::new();
    for entry in fs::read_dir(directory).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let version = path.file_name().and_then(|name| name.to_str()?.strip_prefix(FILE_PREFIX)?.parse().ok());
        if let Some(version) = version {
            keys.insert(version, MasterKey::read(&path)?);
        }
    }
    Ok(keys)
}

/// Under another name first, so that nobody reads half a key; never over one that is there.
fn write_key(directory: &Path, version: u32, random: &[u8; KEY_LEN]) -> Result<PathBuf, VaultError> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = directory.join(format!("{FILE_PREFIX}{version}"));
    let draft = directory.join(format!(".{FILE_PREFIX}{version}.{}", std::process::id()));
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(random)?;
        file.sync_all()?;
        fs::hard_link(&draft, &path)
    };
    let written = write();
    let removed = fs::remove_file(&draft);
    let synced = || fs::File::open(directory)?.sync_all();
    written.and(removed).and_then(|()| synced()).map_err(|source| VaultError::Io { path: path.clone(), source })?;
    Ok(path)
}

impl MasterKey {
    fn read(path: &Path) -> Result<Self, VaultError> {
        use std::os::unix::fs::PermissionsExt;
        let io = |source| VaultError::Io { path: path.to_owned(), source };
        let mode = fs::metadata(path).map_err(io)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(VaultError::TooOpen { path: path.to_owned(), mode });
        }
        let bytes = Zeroizing::new(fs::read(path).map_err(io)?);
        let key = <&[u8; KEY_LEN]>::try_from(bytes.as_slice())
            .map_err(|_| VaultError::WrongLength { path: path.to_owned(), len: bytes.len() })?;
        Ok(Self {
            cipher: Aes256Gcm::new(key.into()),
            fingerprint: hex::encode_string(&tagged_digest(key, "fingerprint")[..8]),
            mac_key: Zeroizing::new(tagged_digest(key, "derive")),
        })
    }
}

fn tagged_digest(key: &[u8], purpose: &str) -> [u8; KEY_LEN] {
    Sha256::new().chain_update(b"provisor ").chain_update(purpose).chain_update([0]).chain_update(key).finalize().into()
}

impl Place<'_> {
    /// Each part behind its length, so that no two places read alike.
    fn authenticated(&self, version: u32) -> Vec<u8> {
        let mut bytes = version.to_be_bytes().to_vec();
        for part in [self.table, self.row, self.column] {
            bytes.extend((part.len() as u64).to_be_bytes());
            bytes.extend(part.as_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const PLACE: Place<'static> = Place { table: "api_keys", row: "1", column: "sealed_secret" };

    fn vault() -> (tempfile::TempDir, Vault) {
        let directory = tempfile::tempdir().unwrap();
        Vault::create_key(directory.path(), &[7; KEY_LEN]).unwrap();
        let vault = Vault::open(directory.path()).unwrap();
        (directory, vault)
    }

    #[test]
    fn what_is_sealed_opens_in_its_place_only() {
        let (_directory, vault) = vault();
        let sealed = vault.seal(PLACE, &"hunter2".into()).unwrap();
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        assert_eq!(vault.open_value(PLACE, &sealed).unwrap().expose_secret(), "hunter2");
        for place in [Place { row: "2", ..PLACE }, Place { table: "services", ..PLACE }, Place { column: "label", ..PLACE }] {
            assert!(matches!(vault.open_value(place, &sealed), Err(VaultError::Refused)));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let (_directory, vault) = vault();
        let sealed = vault.seal(PLACE, &"hunter2".into()).unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(vault.open_value(PLACE, &changed).is_err(), "bit {bit}");
        }
        for end in 0..sealed.len() {
            assert!(vault.open_value(PLACE, &sealed[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_missing_key_seals_the_vault_and_a_readable_one_is_refused() {
        let (directory, vault) = vault();
        let sealed = vault.seal(PLACE, &"hunter2".into()).unwrap();
        let file = directory.path().join("master.key.v1");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Vault::open(directory.path()), Err(VaultError::TooOpen { mode: 0o640, .. })));
        fs::remove_file(&file).unwrap();
        let empty = Vault::open(directory.path()).unwrap();
        assert!(empty.is_sealed());
        assert!(matches!(empty.open_value(PLACE, &sealed), Err(VaultError::MissingKey(1))));
    }

    #[test]
    fn a_key_is_never_replaced() {
        let (directory, _vault) = vault();
        assert!(Vault::create_key(directory.path(), &[8; KEY_LEN]).is_err());
        assert_eq!(fs::read(directory.path().join("master.key.v1")).unwrap(), [7; KEY_LEN]);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no draft stays");
    }

    #[test]
    fn a_newer_key_seals_once_it_is_noticed_and_the_older_still_opens() {
        let (directory, vault) = vault();
        let old = vault.seal(PLACE, &"hunter2".into()).unwrap();
        assert_eq!(vault.create_next_key(&[8; KEY_LEN]).unwrap().0, 2);
        assert_eq!(sealed_version(&vault.seal(PLACE, &"hunter2".into()).unwrap()), Some(1));
        assert!(vault.refresh().unwrap() && !vault.refresh().unwrap());
        let new = vault.seal(PLACE, &"hunter2".into()).unwrap();
        assert_eq!((sealed_version(&old), sealed_version(&new)), (Some(1), Some(2)));
        let late = Vault::open(directory.path()).unwrap();
        for sealed in [&old, &new] {
            assert_eq!(late.open_value(PLACE, sealed).unwrap().expose_secret(), "hunter2");
        }
    }

    #[test]
    fn a_value_of_a_newer_key_makes_the_vault_look_again() {
        let (directory, vault) = vault();
        let other = Vault::open(directory.path()).unwrap();
        other.create_next_key(&[8; KEY_LEN]).unwrap();
        other.refresh().unwrap();
        let sealed = other.seal(PLACE, &"hunter2".into()).unwrap();
        assert_eq!(vault.open_value(PLACE, &sealed).unwrap().expose_secret(), "hunter2");
        assert_eq!(vault.newest(), 2);
    }
}
