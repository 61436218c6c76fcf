//! HTTP messages as values. They carry no `Debug`: heads and bodies hold secrets.

/// Header fields in their order, names as they were sent. Values are bytes: a server must see what is not UTF-8.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, Vec<u8>)>);

impl Headers {
    /// No fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field; one of the same name stays.
    pub fn add(&mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) {
        self.0.push((name.into(), value.into()));
    }

    /// The same with one more field.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.add(name, value);
        self
    }

    /// The fields in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// Every value of a field; names compare without case.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |(candidate, _)| candidate.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The value of a field that occurs exactly once and is printable ASCII. Twice is as bad as never: whoever stands between
    /// might read the other one.
    pub fn once<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let mut values = self.all(name);
        let value = values.next()?;
        if values.next().is_some() || !value.iter().all(|byte| (0x20..0x7f).contains(byte)) {
            return None;
        }
        std::str::from_utf8(value).ok()
    }
}

impl<N: Into<String>, V: Into<Vec<u8>>> FromIterator<(N, V)> for Headers {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(fields: T) -> Self {
        Self(fields.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl IntoIterator for Headers {
    type Item = (String, Vec<u8>);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// A request: on the asking end `target` is a whole URL, on the answering end the raw request-target without the mount's prefix.
#[derive(Clone)]
pub struct Request {
    /// Upper case.
    pub method: String,
    /// Never decoded, re-encoded or sorted: the signature covers these bytes.
    pub target: String,
    /// The head.
    pub headers: Headers,
    /// At most 64 KiB on the answering end.
    pub body: Vec<u8>,
}

impl Request {
    /// The target's path, without the query.
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(self.target.as_str(), |(path, _)| path)
    }

    /// The target's query, without the question mark.
    pub fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }
}

/// A response.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The head, without what the transport adds (`Date`, `Content-Length`).
    pub headers: Headers,
    /// At most 1 MiB on the asking end.
    pub body: Vec<u8>,
}

impl Response {
    /// A response of one content type.
    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Headers::new().with("content-type", content_type), body: body.into() }
    }
}
