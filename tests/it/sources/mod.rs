//! Sources on the real things that they watch.

pub mod folder;
mod s3;
