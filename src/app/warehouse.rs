//! From the configuration of a load to the loader of its warehouse.

use super::brokers;
use crate::config::{Config, Connection, Load, PostgresConnection, RedshiftConnection};
use crate::drivers::postgres::{PostgresLoader, PostgresOptions};
use crate::drivers::redshift::{Credentials, RedshiftLoader, Staging};
use crate::handlers::Failure;
use crate::handlers::load::{LoadEnv, LoadHandler, Loader, Warehouse};
use crate::handlers::objects::Places;
use std::sync::Arc;
use std::time::Duration;

/// The handler of a load.
pub(super) fn handler(
    config: &Config,
    load: &Load,
    places: &Places,
) -> Result<LoadHandler, Failure> {
    let env = env(config, places)?;
    let Some(name) = &load.to else {
        return LoadHandler::new(load.options.clone(), env);
    };
    let loader: Arc<dyn Loader> = match config.connections.get(name) {
        Some(Connection::Postgres(connection)) => Arc::new(postgres(connection, load)?),
        Some(Connection::Redshift(connection)) => {
            let server = server(&connection.server, load.statement_timeout);
            let staging = staging(config, connection, places)?;
            Arc::new(RedshiftLoader::new(load.options.clone(), server, staging)?)
        }
        _ => {
            let message = format!("`{name}` is not a connection to a database");
            return Err(Failure::permanent("BadOptions", message));
        }
    };
    LoadHandler::into(load.options.clone(), env.lake, loader)
}

/// The loader into a table of a Postgres server.
pub(super) fn postgres(
    connection: &PostgresConnection,
    load: &Load,
) -> Result<PostgresLoader, Failure> {
    let server = server(connection, load.statement_timeout);
    PostgresLoader::new(load.options.clone(), server)
}

/// The runtime's part in loads.
fn env(config: &Config, places: &Places) -> Result<LoadEnv, Failure> {
    let data = &config.node.data;
    Ok(LoadEnv {
        lake: data.join("lake"),
        warehouse: place(config, places)?,
        memory_bytes: config.node.query_memory_bytes,
        scratch: data.join("scratch"),
    })
}

/// Where the tables of the warehouse lie.
pub(super) fn place(config: &Config, places: &Places) -> Result<Warehouse, Failure> {
    let Some(folder) = &config.node.warehouse else {
        return Ok(config.node.data.join("warehouse").into());
    };
    let store = places.bucket(&folder.bucket).ok_or_else(|| {
        Failure::permanent("BadOptions", "the bucket of the warehouse is not declared")
    })?;
    let (bucket, prefix) = (folder.bucket.clone(), folder.prefix.clone());
    Ok(Warehouse::in_bucket(store, bucket, prefix))
}

fn staging(
    config: &Config,
    connection: &RedshiftConnection,
    places: &Places,
) -> Result<Staging, Failure> {
    let bad = |message: &str| Failure::permanent("BadOptions", message);
    let folder = &connection.staging;
    let keys = || {
        let aws = brokers::aws(config, connection.credentials.as_deref()?)?;
        let (key, secret) = aws.key?;
        Some(Credentials::Keys(key, secret, aws.session_token))
    };
    let credentials = match &connection.iam_role {
        Some(role) => Some(Credentials::Role(role.reveal().to_owned())),
        None => keys(),
    };
    Ok(Staging {
        store: places
            .bucket(&folder.bucket)
            .ok_or_else(|| bad("the staging bucket is not declared"))?,
        bucket: folder.bucket.clone(),
        prefix: folder.prefix.clone(),
        credentials: credentials.ok_or_else(|| bad("Redshift is given no credentials"))?,
        scratch: config.node.data.join("scratch"),
    })
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
