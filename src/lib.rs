//! Pointsman: an event-bus router with declarative rules.
//!
//! The way of an event is the order of the modules. [`sources`] bring it in;
//! the [`router`] matches it against the [`rules`] and commits it to the
//! [`bus`] together with its deliveries; they wait in [`queues`] until
//! [`delivery`] hands them to [`handlers`]; what a handler says goes out
//! through [`emit`], back onto the bus or to [`topics`]; what fails for good
//! ends in the [`dlq`]. `ARCHITECTURE.md` is the map.

// Ground: knows nothing but ground.
pub mod clock;
pub mod error;
pub mod event;
pub mod observe;
pub mod state;
pub mod storage;
pub mod tasks;
pub mod text;

// The flow, left to right.
pub mod sources;

pub mod rules;

pub mod bus;

pub mod router;

pub mod queues;

pub mod delivery;

pub mod handlers;

pub mod emit;

pub mod topics;

pub mod dlq;

pub mod replay;

pub mod infer;

// Plugged in: implements the parts' traits; no part knows a driver.
pub mod drivers;

// Assembly.
pub mod app;
pub mod config;

// Edges.
pub mod api;
pub mod cli;
