//! The one integration binary: it drives the real program end to end. One
//! binary, because linking is most of a test build's time.

mod support;

mod ask;
mod aws;
mod batches;
mod broken;
mod brokers;
mod buckets;
mod bus;
mod cli;
mod conformance;
mod contracts;
mod core;
mod crash;
mod diagnostics;
mod examples;
mod extract;
mod firehose;
mod globs;
mod handlers;
mod inputs;
mod notices;
mod rules;
mod sources;
mod tidy;
mod topics;
mod warehouse;
mod year;
