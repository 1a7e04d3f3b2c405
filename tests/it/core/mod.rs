//! What people do to a node that runs, and what happens to it: reload, replay,
//! late rules, dead letters, back-pressure, damage, shutdown.

mod reload;
