//! The process's environment as a value, and its overrides: `PROVISOR_SECTION__KEY`.

use std::collections::BTreeMap;
use std::fmt;

use secrecy::SecretString;
use toml::{Table, Value};

use super::{Error, SecretError};

const PREFIX: &str = "PROVISOR_";
const SEPARATOR: &str = "__";

/// Environment variables. Does not print them: some hold secrets.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The process's. Variables that are no text are left out.
    pub fn of_process() -> Self {
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
    }

    /// A variable that holds a secret. An empty one is refused.
    pub fn secret(&self, name: &str) -> Result<SecretString, SecretError> {
        match self.0.get(name) {
            None => Err(SecretError::Unset(name.to_owned())),
            Some(value) if value.is_empty() => Err(SecretError::Empty(name.to_owned())),
            Some(value) => Ok(SecretString::from(value.as_str())),
        }
    }

    /// Variables whose name has the form of an override.
    fn overrides(&self) -> impl Iterator<Item = (&str, &str)> {
        let named = |(name, _): &(&String, &String)| name.strip_prefix(PREFIX).is_some_and(|rest| rest.contains(SEPARATOR));
        self.0.iter().filter(named).map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Environment({} variables)", self.0.len())
    }
}

/// An override: the variable's name and the key it sets.
pub(super) struct Override {
    pub(super) variable: String,
    pub(super) key: Vec<String>,
}

/// Sets in `table` what the environment overrides.
pub(super) fn apply(table: &mut Table, environment: &Environment) -> Result<Vec<Override>, Error> {
    let set_one = |(variable, value): (&str, &str)| {
        let segments = variable.trim_start_matches(PREFIX).split(SEPARATOR);
        let key =
            set(table, segments, read(value)).map_err(|message| Error::Variable { variable: variable.to_owned(), message })?;
        Ok(Override { variable: variable.to_owned(), key })
    };
    environment.overrides().map(set_one).collect()
}

/// Sets one value and returns its key.
fn set<'a>(table: &mut Table, segments: impl Iterator<Item = &'a str>, value: Value) -> Result<Vec<String>, String> {
    let mut segments = segments.peekable();
    let (mut table, mut key) = (table, Vec::new());
    while let Some(segment) = segments.next() {
        let name = key_named(table, segment)?;
        key.push(name.clone());
        if segments.peek().is_none() {
            table.insert(name, value);
            return Ok(key);
        }
        table = table
            .entry(name)
            .or_insert_with(|| Value::Table(Table::new()))
            .as_table_mut()
            .ok_or_else(|| format!("`{}` is a value, not a section", key.join(".")))?;
    }
    Err("names no key".to_owned())
}

/// A variable's name can hold neither lower case nor dashes in most shells, so `KH_MAIN` means the `kh-main` that stands there.
fn key_named(table: &Table, segment: &str) -> Result<String, String> {
    let plain = segment.to_ascii_lowercase();
    if plain.is_empty() {
        return Err("names no key: a part of the name is empty".to_owned());
    }
    let same = |key: &&String| key.to_ascii_lowercase().replace('-', "_") == plain.replace('-', "_");
    let mut named = table.keys().filter(same);
    match (named.next(), named.next()) {
        (None, _) => Ok(plain),
        (Some(key), None) => Ok(key.clone()),
        (Some(one), Some(other)) => Err(format!("means `{one}` as well as `{other}`")),
    }
}

/// Truth values, whole numbers, tables and lists as TOML writes them; everything else is a text. A number with a fraction stays a
/// text, or a price would lose its last zero.
fn read(text: &str) -> Value {
    let whole = || text.parse::<i64>().ok().filter(|number| number.to_string() == text).map(Value::Integer);
    let truth = || text.parse::<bool>().ok().map(Value::Boolean);
    let nested = || {
        let document: Table = toml::from_str(&format!("value = {text}")).ok()?;
        document.into_iter().next().map(|(_, value)| value).filter(|value| value.is_table() || value.is_array())
    };
    whole().or_else(truth).or_else(nested).unwrap_or_else(|| Value::String(text.to_owned()))
}
