//! Which file system a file is on: SQLite's write-ahead log needs memory that all its users share, which no network gives.

use std::path::{Path, PathBuf};

/// As the kernel names them.
const NETWORK: &[&str] = &[
    "9p",
    "afs",
    "ceph",
    "cifs",
    "coda",
    "fuse.glusterfs",
    "fuse.s3fs",
    "fuse.sshfs",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "smb3",
    "smbfs",
];

/// The kind of the network file system that a file would be on; nothing on a local one, or where the kernel does not say.
pub(super) fn network(file: &Path) -> Option<String> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let kind = kind(&mounts, &folder.canonicalize().ok()?)?;
    NETWORK.contains(&kind).then(|| kind.to_owned())
}

/// The kind of the mount that is nearest above a folder. A later line hides an earlier one at the same place.
fn kind<'m>(mounts: &'m str, folder: &Path) -> Option<&'m str> {
    let mount = |line: &'m str| {
        let (place, kind) = line.split_once(" - ")?;
        let place = PathBuf::from(place.split(' ').nth(4)?.replace("\\040", " "));
        Some((place, kind.split(' ').next()?))
    };
    let above = mounts.lines().filter_map(mount).filter(|(place, _)| folder.starts_with(place));
    above.max_by_key(|(place, _)| place.components().count()).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_counts() {
        let mounts = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                      40 22 0:40 / /srv/share rw - nfs4 host:/share rw\n\
                      41 40 8:2 / /srv/share/local\\040disk rw shared:2 master:3 - xfs /dev/sdb rw\n\
                      42 22 0:41 / /srv/over rw - ext4 /dev/sdc rw\n\
                      43 42 0:42 / /srv/over rw - cifs //host/share rw\n";
        for (folder, expected) in [
            ("/srv/share/data", "nfs4"),
            ("/srv/share/local disk/data", "xfs"),
            ("/srv/shared", "ext4"),
            ("/srv/over", "cifs"),
            ("/", "ext4"),
        ] {
            assert_eq!(kind(mounts, Path::new(folder)), Some(expected), "{folder}");
        }
        assert_eq!(network(Path::new("/nowhere/at/all")), None);
    }
}
