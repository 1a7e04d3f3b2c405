//! Connections with every default visible, in the YAML's own shape.

use super::connection::{Connection, PostgresConnection};
use super::plan::{Paths, s3_folder};
use super::units::format_duration;
use serde_json::{Value, json};

pub(super) fn connection(connection: &Connection, paths: &Paths<'_>) -> Value {
    let mut value = json!({});
    value[connection.kind()] = match connection {
        Connection::Amqp(amqp) => {
            let host = |(host, port): &(String, u16)| format!("{host}:{port}");
            json!({
                "url": amqp.url,
                "hosts": amqp.hosts.iter().map(host).collect::<Vec<_>>(),
                "user": amqp.user,
                "password": amqp.password,
                "vhost": amqp.vhost,
                "tls": amqp.tls.as_ref().map(|tls| json!({
                    "ca": tls.ca.as_deref().map(|path| paths.show(path)),
                    "cert": tls.cert.as_deref().map(|path| paths.show(path)),
                    "key": tls.key.as_deref().map(|path| paths.show(path)),
                })),
                "heartbeat": format_duration(amqp.heartbeat),
            })
        }
        Connection::Aws(aws) => json!({
            "region": aws.region,
            "endpoint": aws.endpoint,
            "access_key_id": aws.access_key_id,
            "secret_access_key": aws.secret_access_key,
            "session_token": aws.session_token,
            "profile": aws.profile,
            "path_style": aws.path_style,
        }),
        Connection::Postgres(server) => postgres(server, paths),
        Connection::Redshift(redshift) => {
            let mut value = postgres(&redshift.server, paths);
            value["staging"] = s3_folder(&redshift.staging);
            value["iam_role"] = json!(redshift.iam_role);
            value["credentials"] = json!(redshift.credentials);
            value
        }
    };
    value
}

fn postgres(postgres: &PostgresConnection, paths: &Paths<'_>) -> Value {
    json!({
        "url": postgres.url,
        "host": postgres.host,
        "port": postgres.port,
        "user": postgres.user,
        "password": postgres.password,
        "database": postgres.database,
        "tls": postgres.tls.name(),
        "ca": postgres.ca.as_deref().map(|path| paths.show(path)),
        "connect_timeout": format_duration(postgres.connect_timeout),
    })
}
