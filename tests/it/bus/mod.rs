//! The durable core, from outside: a model that it must agree with whatever breaks, and
//! a real process that is killed.

mod administration;
mod crash;
mod format;
mod load;
mod model;
mod operations;
mod world;

/// A number from the environment, or the default.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(default)
}
