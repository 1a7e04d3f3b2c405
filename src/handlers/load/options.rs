//! What can be said of a load, as it is used.

use super::Warehouse;
use crate::handlers::Failure;
use std::path::PathBuf;

/// A load: the outputs that an `Analytics Ready` event names, into a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Name of the table.
    pub table: String,
    /// How rows meet the rows that are there.
    pub mode: Mode,
    /// Make the table if it is missing. The built-in warehouse always does.
    pub create: bool,
    /// Add columns that the table lacks and widen types that are too narrow.
    /// The built-in warehouse always adds columns.
    pub widen: bool,
}

impl LoadOptions {
    /// A load into `table` with defaults.
    #[must_use]
    pub fn new(table: impl Into<String>, mode: Mode) -> Self {
        Self {
            table: table.into(),
            mode,
            create: false,
            widen: false,
        }
    }

    /// Refuses what no table can do.
    ///
    /// # Errors
    /// `BadOptions` when an upsert has no key, or a replacement no columns.
    pub fn check(&self) -> Result<(), Failure> {
        let missing = match &self.mode {
            Mode::Upsert { key, .. } if key.is_empty() => "an upsert needs a `key`",
            Mode::ReplacePartition { by } if by.is_empty() => {
                "`replace-partition` needs `partition_by`"
            }
            _ => return Ok(()),
        };
        Err(Failure::permanent("BadOptions", missing))
    }
}

/// How rows meet the rows that are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Added.
    Append,
    /// Replacing the row with the same key, or added.
    Upsert {
        /// The columns of the key, at least one.
        key: Vec<String>,
        /// A column that grows with time: a row does not replace one that has
        /// more there. Null is older than everything.
        newer_by: Option<String>,
    },
    /// Taking the place of all rows that have the same values in these columns.
    ReplacePartition {
        /// The columns, at least one.
        by: Vec<String>,
    },
}

impl Mode {
    /// An upsert where the last row wins.
    #[must_use]
    pub fn upsert(key: Vec<String>) -> Self {
        Self::Upsert {
            key,
            newer_by: None,
        }
    }

    /// The columns that it cannot do without.
    pub fn columns(&self) -> impl Iterator<Item = &String> {
        let (first, second) = match self {
            Self::Append => (&[][..], None),
            Self::Upsert { key, newer_by } => (key.as_slice(), newer_by.as_ref()),
            Self::ReplacePartition { by } => (by.as_slice(), None),
        };
        first.iter().chain(second)
    }

    /// The columns that tell rows apart; none unless this is an upsert.
    #[must_use]
    pub fn key(&self) -> &[String] {
        match self {
            Self::Upsert { key, .. } => key,
            Self::Append | Self::ReplacePartition { .. } => &[],
        }
    }
}

/// The runtime's part in a load.
#[derive(Clone, Debug)]
pub struct LoadEnv {
    /// Root of the lake, where the outputs lie.
    pub lake: PathBuf,
    /// The warehouse; tables are Delta tables in it.
    pub warehouse: Warehouse,
    /// Memory for one merge, in bytes.
    pub memory_bytes: usize,
    /// Scratch space for spills.
    pub scratch: PathBuf,
}
