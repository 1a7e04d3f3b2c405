//! Input transformers against AWS's documentation, and against anything at all;
//! and the schemas that are inferred from samples.

mod documented;
mod inference;
mod properties;
