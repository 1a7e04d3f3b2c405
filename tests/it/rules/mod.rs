//! The pattern language against its conformance corpus and its reference.

mod batch;
mod corpus;
mod events;
mod explain;
mod generate;
mod library;
mod lint;
mod parse;
mod properties;
mod reference;
