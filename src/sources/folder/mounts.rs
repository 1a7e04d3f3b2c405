//! What kind of file system a folder is on, and whether its notifications
//! can be relied upon.

use rustix::fs::statfs;
use std::path::Path;

/// How far a file system's notifications and times can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mount {
    /// Everything that happens is told.
    Local,
    /// Changes made past the mount (in the layers below) are not told; times
    /// are this machine's.
    Layered(&'static str),
    /// What others change is not told, and times may be another machine's.
    Remote(&'static str),
}

impl Mount {
    /// The file system's name, where it has to be polled.
    #[must_use]
    pub fn polled(self) -> Option<&'static str> {
        match self {
            Self::Local => None,
            Self::Layered(name) | Self::Remote(name) => Some(name),
        }
    }

    /// Whether a file's `ctime` was set by this machine's clock.
    #[must_use]
    pub fn own_times(self) -> bool {
        !matches!(self, Self::Remote(_))
    }
}

/// The file system that `path` is on; one that cannot be asked counts as local.
#[must_use]
pub fn mount_of(path: &Path) -> Mount {
    statfs(path).map_or(Mount::Local, |found| {
        // The type's width and sign differ between processors; magics have 32 bits.
        classify((found.f_type as u64) & 0xffff_ffff)
    })
}

fn classify(magic: u64) -> Mount {
    // From linux/magic.h and the drivers' own headers.
    match magic {
        0x794c_7630 => Mount::Layered("overlay"),
        0x6175_6673 => Mount::Layered("aufs"),
        0xf15f => Mount::Layered("ecryptfs"),
        0x6969 => Mount::Remote("nfs"),
        0x517b => Mount::Remote("smb"),
        0xff53_4d42 => Mount::Remote("cifs"),
        0xfe53_4d42 => Mount::Remote("smb2"),
        0x6573_5546 => Mount::Remote("fuse"),
        0x0102_1997 => Mount::Remote("9p"),
        0x00c3_6400 => Mount::Remote("ceph"),
        0x5346_414f | 0x6b41_4653 => Mount::Remote("afs"),
        0x7375_7245 => Mount::Remote("coda"),
        0x564c => Mount::Remote("ncp"),
        0x0116_1970 => Mount::Remote("gfs2"),
        0x7461_636f => Mount::Remote("ocfs2"),
        0x0bd0_0bd0 => Mount::Remote("lustre"),
        0x1983_0326 => Mount::Remote("beegfs"),
        0x4750_4653 => Mount::Remote("gpfs"),
        0x786f_4256 => Mount::Remote("vboxsf"),
        0xbacb_acbc => Mount::Remote("vmhgfs"),
        0x7c7c_6013 => Mount::Remote("prl_fs"),
        _ => Mount::Local,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_recognised() {
        assert_eq!(classify(0x6969).polled(), Some("nfs"));
        assert!(!classify(0x6573_5546).own_times());
        assert_eq!(classify(0x794c_7630), Mount::Layered("overlay"));
        assert!(classify(0x794c_7630).own_times());
        assert_eq!(classify(0xef53), Mount::Local);
        assert_eq!(mount_of(Path::new("/dev/shm")), Mount::Local);
    }
}
