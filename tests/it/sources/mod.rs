//! Sources on the real things that they watch.

mod folder;
