//! The pattern language against its conformance corpus and its reference.

mod corpus;
mod generate;
mod properties;
mod reference;
