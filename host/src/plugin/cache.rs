//! Compiled components on disk. They are native code: only what this host wrote itself, proven by a MAC, is ever loaded.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use base16ct::lower as hex;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;
use zeroize::Zeroizing;

const MAC_LENGTH: usize = 32;

/// A directory of compiled components.
#[derive(Clone)]
pub struct Cache {
    /// Ours alone (mode 0700).
    dir: PathBuf,
    key: Zeroizing<[u8; 32]>,
}

impl Cache {
    /// Uses a directory, which is made if it is missing, and a key that nothing else is used for.
    pub fn open(dir: impl Into<PathBuf>, key: Zeroizing<[u8; 32]>) -> io::Result<Self> {
        let dir = dir.into();
        make_private(&dir)?;
        Ok(Self { dir, key })
    }

    /// The component of these bytes, if it was compiled before by an engine like this one.
    pub(super) fn load(&self, engine: &Engine, bytes: &[u8]) -> Option<Component> {
        let name = name(engine, bytes);
        let file = fs::read(self.dir.join(&name)).ok()?;
        let (mac, compiled) = file.split_at_checked(MAC_LENGTH)?;
        // Verified in constant time, and over the memory that is then used: the file may change meanwhile.
        if self.mac(&name, compiled).verify_slice(mac).is_err() {
            tracing::warn!(file = name, "a compiled component was not written by this host; it is compiled anew");
            return None;
        }
        // SAFETY: the MAC proves that `compiled` is what `store` below received from `Component::serialize` under the same name,
        // which covers the engine's version and settings; nobody without the key can have made or changed it.
        #[expect(unsafe_code, reason = "deserialising our own compiled components, which the MAC proves them to be")]
        let component = unsafe { Component::deserialize(engine, compiled) };
        component.inspect_err(|error| tracing::warn!(%error, "a compiled component is of no use; it is compiled anew")).ok()
    }

    /// Keeps a compiled component. Failing to is no reason to stop.
    pub(super) fn store(&self, engine: &Engine, bytes: &[u8], component: &Component) {
        let kept = component.serialize().map_err(io::Error::other).and_then(|compiled| {
            let name = name(engine, bytes);
            self.write(&name, &self.mac(&name, &compiled).finalize().into_bytes(), &compiled)
        });
        if let Err(error) = kept {
            tracing::warn!(%error, "a compiled component could not be kept");
        }
    }

    fn mac(&self, name: &str, compiled: &[u8]) -> Hmac<Sha256> {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(&*self.key).expect("HMAC takes keys of every length");
        mac.update(name.as_bytes());
        mac.update(b"\0");
        mac.update(compiled);
        mac
    }

    fn write(&self, name: &str, mac: &[u8], compiled: &[u8]) -> io::Result<()> {
        // Another process may write the same file: each writes its own and renames it into place.
        let draft = self.dir.join(format!(".{name}.{}", std::process::id()));
        let written = write_private(&draft, &[mac, compiled]).and_then(|()| fs::rename(&draft, self.dir.join(name)));
        if written.is_err() {
            let _ = fs::remove_file(&draft);
        }
        written
    }
}

/// The component's digest and that of the engine's version and settings.
fn name(engine: &Engine, bytes: &[u8]) -> String {
    let mut compatibility = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut compatibility);
    format!("{}-{:016x}", hex::encode_string(&Sha256::digest(bytes)), compatibility.finish())
}

fn make_private(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    #[cfg(unix)]
    fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    Ok(())
}

fn write_private(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let _ = fs::remove_file(path);
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const ONE: &[u8] = b"(component)";
    const TWO: &[u8] = b"(component (core module))";

    fn cache(dir: &Path, key: u8) -> Cache {
        Cache::open(dir.join("cache"), Zeroizing::new([key; 32])).unwrap()
    }

    fn files(dir: &Path) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(dir.join("cache")).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    fn keep(cache: &Cache, engine: &Engine, text: &[u8]) {
        let bytes = wat::parse_bytes(text).unwrap();
        cache.store(engine, &bytes, &Component::new(engine, &bytes).unwrap());
    }

    fn kept(cache: &Cache, engine: &Engine, text: &[u8]) -> bool {
        cache.load(engine, &wat::parse_bytes(text).unwrap()).is_some()
    }

    #[test]
    fn only_what_this_host_wrote_is_loaded() {
        let (dir, engine) = (tempfile::tempdir().unwrap(), Engine::default());
        let ours = cache(dir.path(), 1);
        assert!(!kept(&ours, &engine, ONE));
        keep(&ours, &engine, ONE);
        assert!(kept(&ours, &engine, ONE));
        assert!(!kept(&cache(dir.path(), 2), &engine, ONE), "another key");

        let file = files(dir.path()).remove(0);
        let good = fs::read(&file).unwrap();
        for position in [0, 31, 32, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[position] ^= 1;
            fs::write(&file, bad).unwrap();
            assert!(!kept(&ours, &engine, ONE), "byte {position}");
        }
        for length in [0, 16, 32, good.len() - 1] {
            fs::write(&file, &good[..length]).unwrap();
            assert!(!kept(&ours, &engine, ONE), "{length} bytes");
        }
        fs::write(&file, &good).unwrap();
        assert!(kept(&ours, &engine, ONE));

        keep(&ours, &engine, TWO);
        let other = files(dir.path()).into_iter().find(|path| *path != file).unwrap();
        fs::copy(&file, &other).unwrap();
        assert!(!kept(&ours, &engine, TWO), "one component's code under another's name");
    }

    #[test]
    fn nobody_else_reads_or_writes_there() {
        let (dir, engine) = (tempfile::tempdir().unwrap(), Engine::default());
        keep(&cache(dir.path(), 1), &engine, ONE);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir.path().join("cache")), 0o700);
        assert_eq!(files(dir.path()).iter().map(|file| mode(file)).collect::<Vec<_>>(), [0o600]);
    }
}
