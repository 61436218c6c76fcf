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
use subtle::{Choice, ConditionallySelectable};
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
        let is_ours = Choice::from(u8::from(mac(api_key, &self.ciphertext).verify_slice(&self.mac).is_ok()));
        let mut buffer = Zeroizing::new(self.ciphertext.clone());
        // What nobody vouches for is never decrypted; zeros take its place, so that a bad MAC takes as long as bad padding.
        for byte in buffer.iter_mut() {
            byte.conditional_assign(&0, !is_ours);
        }
        let cipher = cbc::Decryptor::<Aes128>::new((&*aes_key(api_key)).into(), &self.iv.into());
        let plain = cipher.decrypt_padded::<Pkcs7>(&mut buffer).map_err(|_| OpenError)?;
        if !bool::from(is_ours) {
            return Err(OpenError);
        }
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

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const KEY: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCD";
    const IV: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

    fn opened(key: &str, envelope: &str) -> Option<String> {
        open(key, envelope).ok().map(|password| password.expose_secret().to_owned())
    }

    /// An envelope whose MAC holds over a ciphertext of any plaintext.
    fn forged(key: &str, plain_blocks: &[u8]) -> String {
        let mut buffer = plain_blocks.to_vec();
        let length = buffer.len();
        let cipher = cbc::Encryptor::<Aes128>::new((&*aes_key(key)).into(), &IV.into());
        let ciphertext = cipher.encrypt_padded::<cbc::cipher::block_padding::NoPadding>(&mut buffer, length).unwrap();
        enveloped(key, &IV, ciphertext)
    }

    fn enveloped(key: &str, iv: &[u8], ciphertext: &[u8]) -> String {
        STANDARD.encode([iv, &mac(key, ciphertext).finalize().into_bytes(), ciphertext].concat())
    }

    #[test]
    fn envelopes_made_by_php_agree() {
        let vectors: Vec<Value> = serde_json::from_str(include_str!("../../../tests/vectors/gp-password.json")).unwrap();
        assert_eq!(vectors.len(), 7);
        for vector in &vectors {
            let text = |name: &str| vector[name].as_str().unwrap();
            let mut iv = [0; 16];
            base16ct::mixed::decode(text("iv_hex"), &mut iv).unwrap();
            assert_eq!(seal(text("key"), text("password"), iv).unwrap(), text("envelope"));
            assert_eq!(opened(text("key"), text("envelope")).as_deref(), Some(text("password")));
        }
    }

    #[test]
    fn the_documented_recipe_agrees() {
        for (key, password, envelope) in [
            (
                "GPTESTKEY",
                "S3cure!pass",
                "AAECAwQFBgcICQoLDA0ODyPncZstdT5ipQZ08+EnU+H7qsYHuRslR5SNG7KmBKrT3tW/xUni2diDl7hP4V8RXw==",
            ),
            (
                "0123456789abcdef",
                "exactly16bytes!!",
                "AAECAwQFBgcICQoLDA0OD279IgEiyKRxl7wbv/Qiuv2kmEycobJQBypPULjunLP4AJIU3+ZWvmKP/GUTt2FyauMDhIa5iW6D6LWTmQQgJu4=",
            ),
            (
                "0123456789abcdefghijklmnopqrstuv",
                "S3cure!pass",
                "AAECAwQFBgcICQoLDA0ODysSDJdsD2F0pU+cVK5P/OYIEdylWJJXC1ZbDVjkiuTWlalOcRnI5oCPOTzb3wT4gA==",
            ),
        ] {
            assert_eq!(seal(key, password, IV).unwrap(), envelope);
            assert_eq!(opened(key, envelope).as_deref(), Some(password));
        }
    }

    #[test]
    fn what_php_calls_empty_is_not_sent() {
        for (password, expected) in [("", Some(SealError::Empty)), ("0", Some(SealError::Empty)), ("00", None), (" ", None)] {
            assert_eq!(seal(KEY, password, IV).err(), expected, "{password:?}");
        }
        let longest = "x".repeat(463);
        assert_eq!(opened(KEY, &seal(KEY, &longest, IV).unwrap()), Some(longest));
        assert_eq!(seal(KEY, &"x".repeat(464), IV), Err(SealError::TooLong));
    }

    #[test]
    fn every_flipped_bit_of_mac_and_ciphertext_is_refused() {
        let good = STANDARD.decode(seal(KEY, "a password of two blocks", IV).unwrap()).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let result = open(KEY, &STANDARD.encode(&bad));
            // The MAC does not cover the IV: the first block comes out changed, if it comes out as text at all.
            assert!(bit < 128 || result.is_err(), "bit {bit}");
            assert_ne!(
                result.map(|password| password.expose_secret().to_owned()).ok().as_deref(),
                Some("a password of two blocks")
            );
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        let good = seal(KEY, "S3cure!pass", IV).unwrap();
        for length in 0..good.len() {
            assert!(open(KEY, &good[..length]).is_err(), "{length}");
        }
        let bytes = STANDARD.decode(&good).unwrap();
        for length in 0..bytes.len() {
            assert!(open(KEY, &STANDARD.encode(&bytes[..length])).is_err(), "{length}");
        }
        assert!(open("another key", &good).is_err());
    }

    #[test]
    fn base64_is_strict_but_for_one_line_break() {
        let good = seal(KEY, "S3cure!pass", IV).unwrap();
        for suffix in ["", "\n", "\r\n", "\r"] {
            assert!(open(KEY, &format!("{good}{suffix}")).is_ok(), "{suffix:?}");
        }
        let unpadded = good.trim_end_matches('=');
        let inside = format!("{}\n{}", &good[..40], &good[40..]);
        let ignored = format!("{}!!{}", &good[..40], &good[40..]);
        // The last digit before the padding carries bits that no byte takes up.
        let spare_bits = good.replace("A==", "B==");
        let bad = [
            format!("{good}\n\n"),
            format!("\n{good}"),
            format!("{good} "),
            unpadded.to_owned(),
            inside,
            ignored,
            good.replace('+', "-").replace('/', "_"),
            "A".repeat(1 << 20),
        ];
        for text in bad.iter().chain((spare_bits != good).then_some(&spare_bits)).filter(|text| **text != good) {
            assert!(open(KEY, text).is_err(), "{}", &text[..text.len().min(100)]);
        }
    }

    #[test]
    fn bad_padding_and_bad_text_look_like_a_bad_mac() {
        let padded_block = |last: u8| {
            let mut block = *b"S3cure!pass-----";
            block[15] = last;
            block
        };
        for last in (17..=255).chain([0]) {
            assert!(open(KEY, &forged(KEY, &padded_block(last))).is_err(), "{last}");
        }
        // Two bytes of padding claimed, one there.
        assert!(open(KEY, &forged(KEY, b"S3cure!pass---\x01\x02")).is_err());
        assert!(open(KEY, &forged(KEY, b"S3cure!pass\xff\xff\xff\x02\x02")).is_err());
        assert_eq!(opened(KEY, &forged(KEY, b"S3cure!pass---\x02\x02")).as_deref(), Some("S3cure!pass---"));
    }

    #[test]
    fn sizes_outside_the_protocol_are_refused_before_the_cryptography() {
        for blocks in [0_usize, 1, 29, 30, 40] {
            let plain = [vec![b'x'; (16 * blocks).saturating_sub(1)], vec![1; usize::from(blocks > 0)]].concat();
            assert_eq!(open(KEY, &forged(KEY, &plain)).is_ok(), (1..=29).contains(&blocks), "{blocks}");
        }
        assert!(open(KEY, &enveloped(KEY, &IV, &[0; 17])).is_err());
    }

    /// With one good envelope anybody can rewrite its first block, under a MAC that holds.
    #[test]
    fn a_ciphertext_is_known_again_under_another_iv() {
        let good = STANDARD.decode(seal(KEY, "Tr0ub4dor&3xyz!", IV).unwrap()).unwrap();
        let mut rewritten = good.clone();
        for (at, (old, new)) in b"Tr0ub4dor&3xyz!".iter().zip(b"hacked-by-mall!").enumerate() {
            rewritten[at] ^= old ^ new;
        }
        let rewritten = STANDARD.encode(rewritten);
        assert_eq!(opened(KEY, &rewritten).as_deref(), Some("hacked-by-mall!"));
        let (first, second) = (Envelope::read(&STANDARD.encode(good)).unwrap(), Envelope::read(&rewritten).unwrap());
        assert_eq!(first.ciphertext_sha256(), second.ciphertext_sha256());
        assert_ne!(first.iv(), second.iv());
    }

    #[test]
    fn the_servers_rules_fail_like_the_cryptography() {
        let long = "aB3".repeat(43);
        for (password, good) in [
            ("S3cure!p", true),
            ("S3cure!", false),
            ("alllowercase1", false),
            ("lower and blank", false),
            ("Pässwörd-✓", true),
            ("ÄÖÜäöü12", true),
            ("aB3\u{7}aB3aB3", false),
            ("aB3\u{85}aB3aB3", false),
            (&long[..128], true),
            (&long, false),
        ] {
            let envelope = seal(KEY, password, IV).unwrap();
            assert!(open(KEY, &envelope).is_ok());
            assert_eq!(accept(KEY, &envelope).is_ok(), good, "{password:?}");
        }
        assert_eq!(OpenError.to_string(), "not a password sealed with this key");
    }

    /// OpenSSL derives the same bytes, and PHP's `password_verify` accepts the text.
    #[test]
    fn stored_passwords_are_argon2id() {
        let stored = digest(&SecretString::from("S3cure!pass"), *b"0123456789abcdef");
        assert_eq!(stored, "$argon2id$v=19$m=19456,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$UjjV6TUhaWzEA7W8140ub5wWYcbLon5l/0sfscNv0r0");
    }
}
