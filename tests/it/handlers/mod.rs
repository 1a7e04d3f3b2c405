//! Transform, load and query, without the rest of the program.

mod delta;
mod drift;
mod events;
mod flights;
mod load;
mod malformed;
mod postgres;
mod publish;
mod query;
mod reading;
mod redshift;
mod several;
mod steps;
mod text;
mod torture;
mod upkeep;
mod world;
