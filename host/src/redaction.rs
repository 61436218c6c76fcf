//! Cuts secrets out of words that others have said: components, panels, mail servers. Such words reach logs and the book.

use base16ct::lower as hex;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// Values shorter than this are too common in honest text to be cut out of it.
const SECRET_MIN: usize = 6;
const REDACTED: &str = "[redacted]";

/// Values that no text may show: as they are, percent-encoded, in base64 and in hex. It guards against accidents; whoever means to
/// hide a secret in a text can.
pub(crate) struct Secrets {
    forms: Vec<Zeroizing<String>>,
}

impl Secrets {
    pub(crate) fn new<'a>(values: impl IntoIterator<Item = &'a SecretString>) -> Self {
        let mut forms = Vec::new();
        for value in values {
            let value = value.expose_secret();
            if value.len() < SECRET_MIN {
                continue;
            }
            let encoded = url::form_urlencoded::byte_serialize(value.as_bytes()).collect::<String>();
            for form in [value.to_owned(), encoded, BASE64.encode(value), hex::encode_string(value.as_bytes())] {
                forms.push(Zeroizing::new(form));
            }
        }
        // Longer ones first: one secret may be the beginning of another.
        forms.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        forms.dedup();
        Self { forms }
    }

    /// The text without them.
    pub(crate) fn redact(&self, text: &str) -> String {
        self.forms.iter().fold(text.to_owned(), |text, form| text.replace(form.as_str(), REDACTED))
    }

    /// How many bytes at the text's end are the beginning of a secret.
    pub(crate) fn tail(&self, text: &str) -> usize {
        let begins = |form: &str| (1..form.len()).rev().find(|end| form.get(..*end).is_some_and(|start| text.ends_with(start)));
        self.forms.iter().filter_map(|form| begins(form)).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_in_every_usual_form() {
        let secrets = ["s3cret/+value", "s3cret/+value-and-more", "short"].map(SecretString::from);
        let secrets = Secrets::new(&secrets);
        let text = format!(
            "a s3cret/+value b s3cret/+value-and-more c s3cret%2F%2Bvalue d {} e {} f short",
            BASE64.encode("s3cret/+value"),
            hex::encode_string(b"s3cret/+value")
        );
        let clean = secrets.redact(&text);
        assert_eq!(clean, "a [redacted] b [redacted] c [redacted] d [redacted] e [redacted] f short");
    }
}
