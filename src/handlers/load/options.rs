//! What can be said of a load, as it is used.

use std::path::PathBuf;

/// A load: the outputs that an `Analytics Ready` event names, into a table.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Name of the table in the warehouse.
    pub table: String,
    /// How rows meet the rows that are there.
    pub mode: Mode,
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
    },
}

/// The runtime's part in a load.
#[derive(Clone, Debug)]
pub struct LoadEnv {
    /// Root of the lake, where the outputs lie.
    pub lake: PathBuf,
    /// Root of the warehouse; tables are Delta tables in it.
    pub warehouse: PathBuf,
    /// Memory for one merge, in bytes.
    pub memory_bytes: usize,
    /// Scratch space for spills.
    pub scratch: PathBuf,
}
