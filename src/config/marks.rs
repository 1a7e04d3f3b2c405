//! Marks that a node keeps to: on the disk, and on the memory of its log.

/// Marks on the space used below the data folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskQuota {
    /// Above this many bytes a warning is logged (default: never).
    pub warn_bytes: Option<u64>,
    /// Above this many bytes no more events are taken (default: never).
    pub refuse_bytes: Option<u64>,
}

/// Marks on the memory of the log, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryMarks {
    /// While so much waits to be written, no more events are taken (default 64 MiB).
    pub intake_bytes: usize,
    /// While what waits on routes takes so much, no more events are taken (default 1 GiB).
    pub waiting_bytes: usize,
    /// Event ids known within the dedupe window, 40 bytes each (default 512 MiB).
    pub ids_bytes: usize,
}

impl Default for MemoryMarks {
    fn default() -> Self {
        Self {
            intake_bytes: 64 << 20,
            waiting_bytes: 1 << 30,
            ids_bytes: 512 << 20,
        }
    }
}
