//! What can be found broken, and how it is told.

use std::fmt;
use std::time::Duration;

/// What kind of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum DamageKind {
    /// A segment's first bytes do not hold; its records may.
    Header,
    /// Records that were durable once cannot be read. Events or settlements are lost.
    Hole,
    /// Unsynced writes of a crash reached the disk out of order. Nothing that was
    /// acknowledged is affected.
    Gap,
    /// A closed segment ends before its end.
    Truncated,
    /// A segment that must have been there is not.
    Missing,
    /// A checkpoint could not be read; an older one was used.
    Checkpoint,
    /// An event's own bytes do not hold.
    Unreadable,
}

/// One piece of damage.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Damage {
    /// What kind.
    pub kind: DamageKind,
    /// The segment's number; 0 when it is about one event.
    pub segment: u32,
    /// First byte, or the event's sequence number when `segment` is 0.
    pub from: u64,
    /// The byte after the last.
    pub to: u64,
    /// In words.
    pub note: String,
}

impl Damage {
    pub(crate) fn new(kind: DamageKind, segment: u32, from: u64, to: u64, note: &str) -> Self {
        Self {
            kind,
            segment,
            from,
            to,
            note: note.to_owned(),
        }
    }

    pub(crate) fn unreadable(seq: u64, kind: DamageKind, note: &str) -> Self {
        Self {
            kind,
            segment: 0,
            from: seq,
            to: seq + 1,
            note: note.to_owned(),
        }
    }

    /// Whether something that was acknowledged may be lost.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        !matches!(
            self.kind,
            DamageKind::Gap | DamageKind::Header | DamageKind::Checkpoint
        )
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.segment == 0 {
            return write!(f, "event {}: {}", self.from, self.note);
        }
        write!(
            f,
            "segment {} bytes {}..{}: {}",
            self.segment, self.from, self.to, self.note
        )
    }
}

/// What opening found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Whether the log is new.
    pub created: bool,
    /// Segments there are.
    pub segments: usize,
    /// Records read again.
    pub records: u64,
    /// The segment whose checkpoint was the start.
    pub from_segment: u32,
    /// Bytes of an unfinished write that were cut off.
    pub torn_bytes: u64,
    /// Side indexes that were built again.
    pub rebuilt_indexes: usize,
    /// Damage beyond a torn tail. Where [`Damage::is_loss`] is true, acknowledged data
    /// may be gone.
    pub damage: Vec<Damage>,
    /// How long it took.
    pub took: Duration,
}
