//! One suite per role: what a queue, a source and a publisher must do is tested by
//! the same functions for every driver, so that they cannot drift apart.

mod backing;
mod feed;
mod outside;
mod publisher;
mod queue;
mod source;

pub use backing::{Backing, unique};
pub use feed::{By, Feed, Message};
pub use outside::{Outside, System};
