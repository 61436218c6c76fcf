//! The data directory: the books, the keys, and the configuration unless another is named.

use std::fs::{self, DirBuilder};
use std::io;
use std::path::{Path, PathBuf};

use directories::ProjectDirs;

/// The data directory cannot be made or written to.
#[derive(Debug, thiserror::Error)]
#[error("the data directory {} cannot be written to; name another with --data", folder.display())]
pub struct DataError {
    folder: PathBuf,
    source: io::Error,
}

/// Where this account's data directory is unless another is named; `None` without a home directory.
pub fn data_directory() -> Option<PathBuf> {
    ProjectDirs::from("", "", "provisor").map(|directories| directories.data_dir().to_owned())
}

/// Makes the data directory, for its owner alone (mode 0700), unless it is there, and tries writing to it.
pub fn prepare_data(folder: &Path) -> Result<(), DataError> {
    make(folder).and_then(|()| try_writing(folder)).map_err(|source| DataError { folder: folder.to_owned(), source })
}

fn make(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn try_writing(folder: &Path) -> io::Result<()> {
    let probe = folder.join(format!(".writable-{}", std::process::id()));
    fs::write(&probe, [])?;
    fs::remove_file(probe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn it_is_made_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("a/b");
        prepare_data(&data).unwrap();
        assert_eq!(data.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(data.read_dir().unwrap().count(), 0);
        prepare_data(&data).unwrap();
    }

    #[test]
    fn one_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "in the way").unwrap();
        let error = prepare_data(&file.join("data")).unwrap_err().to_string();
        assert!(error.ends_with("file/data cannot be written to; name another with --data"), "{error}");
    }
}
