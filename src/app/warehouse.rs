//! From the configuration of a load to the loader of its warehouse.

use crate::config::{Config, Connection, Load, PostgresConnection};
use crate::drivers::postgres::{PostgresLoader, PostgresOptions};
use crate::handlers::Failure;
use crate::handlers::load::{LoadEnv, LoadHandler};
use std::sync::Arc;
use std::time::Duration;

/// The handler of a load.
pub(super) fn handler(config: &Config, load: &Load) -> Result<LoadHandler, Failure> {
    let env = env(config);
    let Some(name) = &load.to else {
        return LoadHandler::new(load.options.clone(), env);
    };
    let loader = loader(config, load, name)?;
    LoadHandler::into(load.options.clone(), env.lake, Arc::new(loader))
}

/// The loader into a table behind the connection `name`.
pub(super) fn loader(config: &Config, load: &Load, name: &str) -> Result<PostgresLoader, Failure> {
    let Some(Connection::Postgres(connection)) = config.connections.get(name) else {
        let message = format!("`{name}` is not a Postgres connection");
        return Err(Failure::permanent("BadOptions", message));
    };
    let server = server(connection, load.statement_timeout);
    PostgresLoader::new(load.options.clone(), server)
}

/// The runtime's part in loads.
fn env(config: &Config) -> LoadEnv {
    let data = &config.node.data;
    LoadEnv {
        lake: data.join("lake"),
        warehouse: data.join("warehouse"),
        memory_bytes: config.node.query_memory_bytes,
        scratch: data.join("scratch"),
    }
}

pub(super) fn server(
    connection: &PostgresConnection,
    statement_timeout: Duration,
) -> PostgresOptions {
    PostgresOptions {
        host: connection.host.clone(),
        port: connection.port,
        user: connection.user.reveal().to_owned(),
        password: connection.password.as_ref().map(|p| p.reveal().to_owned()),
        database: connection.database.clone(),
        tls: connection.tls,
        ca: connection.ca.clone(),
        connect_timeout: connection.connect_timeout,
        statement_timeout,
    }
}
