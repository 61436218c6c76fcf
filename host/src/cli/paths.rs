//! Where things are: the data directory and the configuration.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;

use super::Failure;
use crate::config::{Config, Environment, data_directory};

const CONFIG: &str = "provisor.toml";

/// Where things are, as the arguments say.
#[derive(Args, Debug, Clone)]
pub(super) struct Paths {
    /// The data directory: the books, keys, and the configuration unless --config names another
    #[arg(long, global = true, value_name = "DIR", env = "PROVISOR_DATA", hide_env_values = true)]
    data: Option<PathBuf>,
    /// The configuration file [default: provisor.toml in the data directory]
    #[arg(long, global = true, value_name = "FILE", env = "PROVISOR_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
}

impl Paths {
    /// The data directory; it need not be there yet.
    pub(super) fn data(&self) -> Result<PathBuf, Failure> {
        let unknown = || Failure::usage(anyhow!("this account has no home directory; name a data directory with --data"));
        self.data.clone().or_else(data_directory).ok_or_else(unknown)
    }

    /// The configuration's file; it need not be there.
    pub(super) fn config_file(&self) -> Result<PathBuf, Failure> {
        self.config.clone().map_or_else(|| Ok(self.data()?.join(CONFIG)), Ok)
    }

    /// The configuration: of the file, or the default where nobody named a file and there is none.
    pub(super) fn configuration(&self, environment: &Environment) -> Result<Config, Failure> {
        let file = self.config_file()?;
        let read =
            if self.config.is_some() || file.exists() { Config::load(&file, environment) } else { Config::standard(environment) };
        read.map_err(Failure::usage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Exit;

    #[test]
    fn the_default_serves_where_no_file_is_but_not_for_a_named_one() {
        let folder = tempfile::tempdir().unwrap();
        let environment = Environment::default();
        let mut paths = Paths { data: Some(folder.path().to_owned()), config: None };
        assert_eq!(paths.configuration(&environment).ok(), Some(Config::default()));
        paths.config = Some(folder.path().join("absent.toml"));
        assert_eq!(paths.configuration(&environment).err().map(|failure| failure.exit), Some(Exit::Usage));
        std::fs::write(folder.path().join(CONFIG), "[server]").unwrap();
        paths.config = None;
        assert!(paths.configuration(&environment).is_ok_and(|config| config.server.is_some()));
    }
}
