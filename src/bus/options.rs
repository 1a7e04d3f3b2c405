//! How a bus is opened.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Options of [`super::Bus::open`]. Every default is the production default.
#[derive(Debug, Clone)]
pub struct BusOptions {
    /// The folder of the log; created when missing.
    pub dir: PathBuf,
    /// Segments are closed at about this size, in bytes (at most 1 GiB).
    pub segment_bytes: u64,
    /// One commit takes at most this many events ...
    pub commit_events: usize,
    /// ... and about this many bytes; a single larger call still is one commit.
    pub commit_bytes: usize,
    /// The largest payload of one event, in bytes.
    pub max_event_bytes: usize,
    /// The largest sum of payloads in one call, in bytes.
    pub max_call_bytes: usize,
    /// Payloads at the end of the log that are kept in memory, in bytes.
    pub cache_bytes: usize,
    /// Intake is refused while this many bytes wait for the writer.
    pub intake_bytes: usize,
    /// Intake is refused while what waits (pending deliveries, dead letters, replays)
    /// takes about this much memory, in bytes; looked at once per round of maintenance.
    /// A ready delivery takes a bit to two bytes, a delayed or retried one about 66, one
    /// with an ordering key of its own 35 to 70 more, a dead letter about 90.
    pub queue_bytes: usize,
    /// The ids of the dedupe window may take this much memory, in bytes; the oldest are
    /// forgotten before their time rather than more, and [`super::Bus::pressure`] tells.
    /// An id takes at most 40 bytes.
    pub ids_bytes: usize,
    /// An id is a duplicate for this long after it was first seen, unless ...
    pub dedupe_window: Duration,
    /// ... its label has a window of its own.
    pub dedupe_by_bus: HashMap<String, Duration>,
    /// Events are kept for at least this long, unless ...
    pub retention: Duration,
    /// ... their label says otherwise.
    pub retention_by_bus: HashMap<String, Duration>,
    /// The oldest segments go when the log is larger than this, in bytes; settled
    /// events only. `None`: age alone decides.
    pub retention_bytes: Option<u64>,
    /// Dead letters expire after this long.
    pub dead_letter_retention: Duration,
    /// Size of the log that gives a warning, in bytes.
    pub disk_warn: Option<u64>,
    /// Size of the log at which intake is refused, in bytes.
    pub disk_refuse: Option<u64>,
    /// Free space on the disk that gives a warning, in bytes.
    pub free_warn: u64,
    /// Free space below which intake is refused, in bytes. What is left lets
    /// deliveries be settled and segments be dropped.
    pub free_refuse: u64,
    /// Relaxed settlements wait at most this long for a commit to ride with.
    pub relaxed_delay: Duration,
    /// Relaxed settlements get their own commit when this many wait.
    pub relaxed_count: usize,
    /// How often retention, expiry and free space are looked at. Zero turns the
    /// background thread off; then [`super::Bus::maintain`] does it.
    pub maintain_every: Duration,
}

impl BusOptions {
    /// The defaults, with the log in `dir`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: 64 << 20,
            commit_events: 8_000,
            commit_bytes: 4 << 20,
            max_event_bytes: 1 << 20,
            max_call_bytes: 32 << 20,
            cache_bytes: 64 << 20,
            intake_bytes: 64 << 20,
            queue_bytes: 1 << 30,
            ids_bytes: 512 << 20,
            dedupe_window: DAY,
            dedupe_by_bus: HashMap::new(),
            retention: DAY * 7,
            retention_by_bus: HashMap::new(),
            retention_bytes: None,
            dead_letter_retention: DAY * 30,
            disk_warn: None,
            disk_refuse: None,
            free_warn: 1 << 30,
            free_refuse: 256 << 20,
            relaxed_delay: Duration::from_millis(10),
            relaxed_count: 1_000,
            maintain_every: Duration::from_secs(1),
        }
    }
}
