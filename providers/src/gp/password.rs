//! The password envelope `gpfPassEncrypt` (spec 2): base64 of IV, HMAC-SHA256 of the ciphertext, AES-128-CBC ciphertext.
//!
//! The MAC does not cover the IV, so whoever holds an envelope can rewrite its first block and use a padding failure as an oracle.
//! Hence one error for everything, and the guard refuses a ciphertext that comes back under another IV.

use aes::Aes128;
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

const BLOCK: usize = 16;
const MAC: usize = 32;
/// One block at least.
const MIN_BYTES: usize = BLOCK + MAC + BLOCK;
/// Our choice, 2.7.
const MAX_BYTES: usize = 512;
/// The longest password that an envelope of [`MAX_BYTES`] holds: the padding takes one byte at least.
const MAX_PASSWORD_BYTES: usize = MAX_BYTES - BLOCK - MAC - 1;

/// Why a password cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// PHP calls both empty, and drops the parameter.
    #[error("an empty password and \"0\" cannot be sent")]
    Empty,
    /// No envelope is large enough.
    #[error("the password is longer than 463 bytes")]
    TooLong,
}

/// An envelope that does not open. It does not say why, since each distinction is an oracle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a password sealed with this key")]
pub struct OpenError;

/// Whether a password can be sealed at all.
pub fn check(password: &str) -> Result<(), SealError> {
    match password {
        "" | "0" => Err(SealError::Empty),
        long if long.len() > MAX_PASSWORD_BYTES => Err(SealError::TooLong),
        _ => Ok(()),
    }
}

/// Seals a password under an IV that must be fresh and random for every envelope.
pub fn seal(api_key: &str, password: &str, iv: [u8; BLOCK]) -> Result<String, SealError> {
    check(password)?;
    let mut buffer = Zeroizing::new(vec![0; (password.len() / BLOCK + 1) * BLOCK]);
    buffer[..password.len()].copy_from_slice(password.as_bytes());
    let cipher = cbc::Encryptor::<Aes128>::new((&*aes_key(api_key)).into(), &iv.into());
    #[expect(clippy::expect_used, reason = "the buffer is rounded up to whole blocks")]
    let ciphertext = cipher.encrypt_padded::<Pkcs7>(&mut buffer, password.len()).expect("there is room for the padding");
    let mac = mac(api_key, ciphertext).finalize().into_bytes();
    Ok(STANDARD.encode([iv.as_slice(), &mac, ciphertext].concat()))
}

/// Opens an envelope: the cryptography alone, without rules for passwords.
pub fn open(api_key: &str, envelope: &str) -> Result<SecretString, OpenError> {
    Envelope::read(envelope)?.open(api_key)
}

/// Opens an envelope that the server is to take: no control characters, 8 to 128 characters, three of the four classes lower
/// case, upper case, digit, other (our choice, 2.7).
pub fn accept(api_key: &str, envelope: &str) -> Result<SecretString, OpenError> {
    Envelope::read(envelope)?.accept(api_key)
}

/// An envelope taken apart.
pub struct Envelope {
    iv: [u8; BLOCK],
    mac: [u8; MAC],
    ciphertext: Vec<u8>,
}

impl Envelope {
    /// Strict base64; one line break at the end is tolerated.
    pub fn read(text: &str) -> Result<Self, OpenError> {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.len() > MAX_BYTES.div_ceil(3) * 4 {
            return Err(OpenError);
        }
        let bytes = STANDARD.decode(text).map_err(|_| OpenError)?;
        if !(MIN_BYTES..=MAX_BYTES).contains(&bytes.len()) || !bytes.len().is_multiple_of(BLOCK) {
            return Err(OpenError);
        }
        let (iv, rest) = bytes.split_first_chunk().ok_or(OpenError)?;
        let (mac, ciphertext) = rest.split_first_chunk().ok_or(OpenError)?;
        Ok(Self { iv: *iv, mac: *mac, ciphertext: ciphertext.to_vec() })
    }

    /// The initialisation vector.
    pub fn iv(&self) -> [u8; BLOCK] {
        self.iv
    }

    /// By what a ciphertext is known again under another IV.
    pub fn ciphertext_sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.ciphertext).into()
    }

    /// As [`open`].
    pub fn open(&self, api_key: &str) -> Result<SecretString, OpenError> {
        mac(api_key, &self.ciphertext).verify_slice(&self.mac).map_err(|_| OpenError)?;
        let mut buffer = Zeroizing::new(self.ciphertext.clone());
        let cipher = cbc::Decryptor::<Aes128>::new((&*aes_key(api_key)).into(), &self.iv.into());
        let plain = cipher.decrypt_padded::<Pkcs7>(&mut buffer).map_err(|_| OpenError)?;
        Ok(SecretString::from(std::str::from_utf8(plain).map_err(|_| OpenError)?))
    }

    /// As [`accept`].
    pub fn accept(&self, api_key: &str) -> Result<SecretString, OpenError> {
        self.open(api_key).and_then(|password| if is_good(password.expose_secret()) { Ok(password) } else { Err(OpenError) })
    }
}

fn is_good(password: &str) -> bool {
    let classes: [fn(char) -> bool; 4] =
        [char::is_lowercase, char::is_uppercase, char::is_numeric, |c| !(c.is_lowercase() || c.is_uppercase() || c.is_numeric())];
    (8..=128).contains(&password.chars().count())
        && !password.chars().any(char::is_control)
        && classes.iter().filter(|class| password.chars().any(class)).count() >= 3
}

/// A password as it is stored: Argon2id (19 MiB, two passes, one lane) in PHC form. Takes tens of milliseconds.
pub fn digest(password: &SecretString, salt: [u8; 16]) -> String {
    let mut output = Zeroizing::new([0; 32]);
    #[expect(clippy::expect_used, reason = "constants within Argon2's bounds")]
    {
        let params = Params::new(19_456, 2, 1, None).expect("constants within Argon2's bounds");
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(password.expose_secret().as_bytes(), &salt, &mut *output)
            .expect("password, salt and output are within Argon2's bounds");
    }
    format!("$argon2id$v=19$m=19456,t=2,p=1${}${}", STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(*output))
}

/// The API key cut or padded with NUL to 16 bytes, as PHP's openssl does.
fn aes_key(api_key: &str) -> Zeroizing<[u8; BLOCK]> {
    let mut key = Zeroizing::new([0; BLOCK]);
    let used = api_key.len().min(BLOCK);
    key[..used].copy_from_slice(&api_key.as_bytes()[..used]);
    key
}

fn mac(api_key: &str, ciphertext: &[u8]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
    let keyed = <Hmac<Sha256> as KeyInit>::new_from_slice(api_key.as_bytes()).expect("HMAC takes keys of every length");
    keyed.chain_update(ciphertext)
}
