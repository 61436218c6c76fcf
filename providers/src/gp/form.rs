//! Form bodies: `application/x-www-form-urlencoded`, which the client sends and the server reads, and `multipart/form-data`, which
//! PHP's curl makes of an array.

use sha2::{Digest, Sha256};

/// More parameters than any endpoint has.
const MAX_PARAMETERS: usize = 32;
/// More than the head of any parameter's part needs.
const MAX_PART_HEAD: usize = 1024;

/// Parameters by name. Holds no plain secret: a password is an envelope.
#[derive(Clone, Default)]
pub(super) struct Form(Vec<(String, String)>);

/// A body that is none of the two encodings, breaks its own, or has too many parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotAForm;

impl Form {
    /// Reads a body by its content type.
    pub(super) fn read(content_type: &str, body: &[u8]) -> Result<Self, NotAForm> {
        let (essence, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
        match essence.trim().to_ascii_lowercase().as_str() {
            "application/x-www-form-urlencoded" => Self::urlencoded(body),
            "multipart/form-data" => Self::multipart(parameters, body),
            _ => Err(NotAForm),
        }
    }

    /// A parameter's value. Empty is as good as absent, as in PHP; twice is as bad: whoever stands between might read the other.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.0.iter().filter(|(candidate, _)| candidate == name).map(|(_, value)| value.as_str());
        let value = values.next()?;
        (values.next().is_none() && !value.is_empty()).then_some(value)
    }

    /// Equal for equal parameters, whatever their order and encoding.
    pub(super) fn sha256(&self) -> [u8; 32] {
        let mut sorted: Vec<&(String, String)> = self.0.iter().collect();
        sorted.sort();
        let mut digest = Sha256::new();
        for text in sorted.into_iter().flat_map(|(name, value)| [name, value]) {
            digest.update((text.len() as u64).to_be_bytes());
            digest.update(text);
        }
        digest.finalize().into()
    }

    fn urlencoded(body: &[u8]) -> Result<Self, NotAForm> {
        let body = std::str::from_utf8(body).map_err(|_| NotAForm)?;
        let mut form = Self::default();
        for pair in body.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            form.add(decode(name)?, decode(value)?)?;
        }
        Ok(form)
    }

    fn multipart(parameters: &str, body: &[u8]) -> Result<Self, NotAForm> {
        let delimiter = format!("\r\n--{}", boundary(parameters)?);
        let delimiter = delimiter.as_bytes();
        // The first delimiter has no line break of its own.
        let mut rest = body.strip_prefix(&delimiter[2..]).ok_or(NotAForm)?;
        let mut form = Self::default();
        while let Some(after) = rest.strip_prefix(b"\r\n") {
            let end = find(after, delimiter).ok_or(NotAForm)?;
            let (name, value) = part(&after[..end])?;
            form.add(name, value)?;
            rest = &after[end + delimiter.len()..];
        }
        matches!(rest, b"--" | b"--\r\n").then_some(form).ok_or(NotAForm)
    }

    fn add(&mut self, name: String, value: String) -> Result<(), NotAForm> {
        if self.0.len() == MAX_PARAMETERS {
            return Err(NotAForm);
        }
        self.0.push((name, value));
        Ok(())
    }
}

/// Encodes parameters; everything but unreserved characters is percent-encoded, base64's `+`, `/` and `=` above all.
pub(super) fn encode(parameters: &[(&str, &str)]) -> String {
    let mut body = String::new();
    for (name, value) in parameters {
        if !body.is_empty() {
            body.push('&');
        }
        percent_encode(&mut body, name);
        body.push('=');
        percent_encode(&mut body, value);
    }
    body
}

fn percent_encode(to: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            to.push(char::from(byte));
        } else {
            to.push('%');
            to.push_str(&base16ct::upper::encode_string(&[byte]));
        }
    }
}

fn decode(text: &str) -> Result<String, NotAForm> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [bytes.next().ok_or(NotAForm)?, bytes.next().ok_or(NotAForm)?];
                let mut value = [0];
                base16ct::mixed::decode(digits, &mut value).map_err(|_| NotAForm)?;
                value[0]
            }
            other => other,
        });
    }
    String::from_utf8(decoded).map_err(|_| NotAForm)
}

/// The boundary of RFC 2046: 1 to 70 characters, quoted or not.
fn boundary(parameters: &str) -> Result<&str, NotAForm> {
    let mut found = None;
    for parameter in parameters.split(';') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if name.trim().eq_ignore_ascii_case("boundary") && found.replace(value.trim()).is_some() {
            return Err(NotAForm);
        }
    }
    let value = found.ok_or(NotAForm)?;
    let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=?".contains(&byte);
    ((1..=70).contains(&value.len()) && value.bytes().all(is_allowed)).then_some(value).ok_or(NotAForm)
}

/// A part's name and value. A file is no parameter.
fn part(bytes: &[u8]) -> Result<(String, String), NotAForm> {
    let head_end = find(bytes, b"\r\n\r\n").filter(|end| *end <= MAX_PART_HEAD).ok_or(NotAForm)?;
    let head = std::str::from_utf8(&bytes[..head_end]).map_err(|_| NotAForm)?;
    let mut found = None;
    for line in head.split("\r\n") {
        let (field, value) = line.split_once(':').ok_or(NotAForm)?;
        match field.to_ascii_lowercase().as_str() {
            "content-disposition" if found.is_none() => found = Some(disposition_name(value)?),
            "content-disposition" | "content-transfer-encoding" => return Err(NotAForm),
            _ => {}
        }
    }
    let value = String::from_utf8(bytes[head_end + 4..].to_vec()).map_err(|_| NotAForm)?;
    Ok((found.ok_or(NotAForm)?.to_owned(), value))
}

/// The name in ` form-data; name="x"`, exactly so: no file name, no escapes.
fn disposition_name(value: &str) -> Result<&str, NotAForm> {
    let (kind, name) = value.split_once(';').ok_or(NotAForm)?;
    let name = name.trim().strip_prefix("name=\"").and_then(|rest| rest.strip_suffix('"')).ok_or(NotAForm)?;
    let is_plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    (kind.trim().eq_ignore_ascii_case("form-data") && is_plain).then_some(name).ok_or(NotAForm)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const URLENCODED: &str = "application/x-www-form-urlencoded";

    fn multipart(parts: &str) -> Result<Form, NotAForm> {
        Form::read("multipart/form-data; boundary=----b0", parts.replace('\n', "\r\n").as_bytes())
    }

    #[test]
    fn a_parameter_counts_once() {
        let form = Form::read(URLENCODED, b"a=1&b=2&b=2&c=&d&e=x%2By+z&&").unwrap();
        assert_eq!(form.get("a"), Some("1"));
        assert_eq!(form.get("e"), Some("x+y z"));
        for absent in ["b", "c", "d", "f", "A"] {
            assert_eq!(form.get(absent), None, "{absent}");
        }
    }

    #[test]
    fn what_is_no_form_is_refused() {
        let many = vec!["a=1"; 33].join("&");
        for body in [&b"a=%"[..], b"a=%1", b"a=%zz", b"a=%ff", b"a=\xff", b"%80=1", many.as_bytes()] {
            assert!(Form::read(URLENCODED, body).is_err(), "{}", String::from_utf8_lossy(body));
        }
        assert!(Form::read("application/x-www-form-urlencoded; charset=UTF-8", b"a=1").is_ok());
        for content_type in ["", "text/plain", "application/json", "multipart/form-data", "multipart/form-data; boundary="] {
            assert!(Form::read(content_type, b"a=1").is_err(), "{content_type}");
        }
        for parameters in ["boundary=a; boundary=b", "boundary=\"a b\"", "boundary=a\nb"] {
            assert!(Form::read(&format!("multipart/form-data; {parameters}"), b"--a--").is_err(), "{parameters}");
        }
    }

    #[test]
    fn phps_multipart_reads_like_the_other_encoding() {
        let body = "------b0\nContent-Disposition: form-data; name=\"domain\"\n\nexample.com\n------b0\n\
                    content-disposition: form-data; name=\"password\"\nContent-Type: text/plain\n\na+b/c=\n\n------b0--\n";
        let form = multipart(body).unwrap();
        assert_eq!(form.get("domain"), Some("example.com"));
        assert_eq!(form.get("password"), Some("a+b/c=\r\n"));
        let other = Form::read(URLENCODED, b"password=a%2Bb%2Fc%3D%0D%0A&domain=example.com").unwrap();
        assert_eq!(form.sha256(), other.sha256());
        assert_eq!(multipart("------b0--").unwrap().get("domain"), None);
    }

    #[test]
    fn multipart_is_strict() {
        let part = |head: &str| format!("------b0\n{head}\n\nv\n------b0--\n");
        assert!(multipart(&part("Content-Disposition: form-data; name=\"a\"")).is_ok());
        for head in [
            "",
            "Content-Type: text/plain",
            "Content-Disposition: form-data; name=a",
            "Content-Disposition: form-data; name=\"\"",
            "Content-Disposition: form-data; name=\"a\"; filename=\"b\"",
            "Content-Disposition: form-data; name=\"a\\\"b\"",
            "Content-Disposition: attachment; name=\"a\"",
            "Content-Disposition: form-data; name=\"a\"\nContent-Disposition: form-data; name=\"b\"",
            "Content-Disposition: form-data; name=\"a\"\nContent-Transfer-Encoding: base64",
            "no colon",
        ] {
            assert!(multipart(&part(head)).is_err(), "{head}");
        }
        let long = format!("Content-Disposition: form-data; name=\"a\"\nX: {}", "x".repeat(1024));
        assert!(multipart(&part(&long)).is_err());
        let whole = part("Content-Disposition: form-data; name=\"a\"").replace('\n', "\r\n");
        for length in 0..whole.len() - 2 {
            assert!(Form::read("multipart/form-data; boundary=----b0", &whole.as_bytes()[..length]).is_err(), "{length}");
        }
        for wrapped in [format!("preamble\r\n{whole}"), format!("{whole}epilogue")] {
            assert!(Form::read("multipart/form-data; boundary=----b0", wrapped.as_bytes()).is_err());
        }
    }

    #[test]
    fn different_parameters_never_have_one_digest() {
        let digest = |body: &str| Form::read(URLENCODED, body.as_bytes()).unwrap().sha256();
        assert_eq!(digest("a=1&b=2"), digest("b=2&a=1"));
        for (one, other) in [("a=1&b=2", "a=1b=2"), ("ab=c", "a=bc"), ("a=1", "a=1&a=1"), ("a=", ""), ("a=b&c=d", "a=d&c=b")] {
            assert_ne!(digest(one), digest(other), "{one} {other}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(name in "[a-z]{1,8}", value in "\\PC{1,64}") {
            let form = Form::read(URLENCODED, encode(&[(&name, &value), ("other", "+/=&")]).as_bytes()).unwrap();
            prop_assert_eq!(form.get(&name), Some(value.as_str()));
            prop_assert_eq!(form.get("other"), Some("+/=&"));
        }

        #[test]
        fn no_body_panics(body: Vec<u8>, content_type in "(multipart/form-data; boundary=[-a]{0,3}|application/x-www-form-urlencoded)") {
            let _ = Form::read(&content_type, &body);
        }
    }
}
