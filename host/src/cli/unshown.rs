//! Arguments that may hold a password by mistake.

use std::ffi::OsStr;
use std::marker::PhantomData;
use std::str::FromStr;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command, Error};

/// Parses an argument like its type, whose errors do not show the text; clap's own way puts it before them.
pub(super) struct Unshown<T>(PhantomData<fn() -> T>);

impl<T> Unshown<T> {
    pub(super) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Clone for Unshown<T> {
    fn clone(&self) -> Self {
        Self::new()
    }
}

impl<T: FromStr<Err = String> + Clone + Send + Sync + 'static> TypedValueParser for Unshown<T> {
    type Value = T;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<T, Error> {
        let parsed = value.to_str().ok_or_else(|| "no text".to_owned()).and_then(str::parse);
        parsed.map_err(|why| {
            let option = arg.map(ToString::to_string).unwrap_or_default();
            Error::raw(ErrorKind::ValueValidation, format!("{option}: {why}\n")).with_cmd(command)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StoreUrl;

    #[test]
    fn what_is_refused_is_not_shown() {
        let to = Arg::new("to").long("to").value_name("URL").value_parser(Unshown::<StoreUrl>::new());
        let command = Command::new("copy").arg(to);
        let parse = |url: &str| command.clone().try_get_matches_from(["copy", "--to", url]);
        let refused = parse("postgres://me:hunter2@h/d").unwrap_err().to_string();
        assert!(refused.starts_with("error: --to <URL>: no password belongs into the address"), "{refused}");
        assert!(!refused.contains("hunter2"), "{refused}");
        assert_eq!(parse("sqlite:a.db").unwrap().get_one::<StoreUrl>("to"), Some(&StoreUrl::Sqlite("a.db".into())));
    }
}
