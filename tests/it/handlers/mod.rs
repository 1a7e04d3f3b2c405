//! Transform, load and query, without the rest of the program.

mod events;
mod flights;
mod load;
mod malformed;
mod publish;
mod query;
mod world;
