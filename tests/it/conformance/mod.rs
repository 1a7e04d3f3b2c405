//! One suite per role: what a queue, a source and a publisher must do is tested by
//! the same functions for every driver, so that they cannot drift apart.

mod backing;
mod feed;
mod queue;
mod source;

pub use backing::{Backing, unique};
pub use feed::{By, Feed, Message};
