//! SQL over the lake and the warehouse.

pub mod engine;
