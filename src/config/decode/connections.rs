//! Connections to other systems.

use crate::config::connection::{
    AmqpConnection, AwsConnection, Connection, PostgresConnection, PostgresTls, RedshiftConnection,
    Tls,
};
use crate::config::fields::{self, CONNECTION_KINDS};
use crate::config::read::{Field, Table};
use crate::config::yaml::{Node, Scalar};
use crate::error::{Diagnostic, codes};
use crate::text::Text;
use std::time::Duration;

pub(in crate::config) fn connection(field: &Field<'_>) -> Option<Connection> {
    let mut known = true;
    for kind in field.entries()? {
        if CONNECTION_KINDS.contains(&kind.name.as_str()) {
            continue;
        }
        let message = format!("there is no kind of connection called `{}`", kind.name);
        let diagnostic = Diagnostic::error(&codes::NO_CONNECTIONS, message)
            .at(kind.key_place())
            .suggest(&kind.name, CONNECTION_KINDS);
        field
            .report(diagnostic.hint("`pointsman drivers` lists the drivers and their connections"));
        known = false;
    }
    if !known {
        return None;
    }
    let kind = field
        .table(&fields::CONNECTION)?
        .one_of(&CONNECTION_KINDS)?;
    match kind.name.as_str() {
        "amqp" => amqp(&kind).map(Connection::Amqp),
        "aws" => aws(&kind).map(Connection::Aws),
        "redshift" => redshift(&kind).map(Connection::Redshift),
        _ => postgres(&kind.table(&fields::POSTGRES)?, 5432, "postgres").map(Connection::Postgres),
    }
}

/// `url` and what it stands for exclude each other.
fn url_alone(table: &Table<'_>, others: &[&str]) -> bool {
    let Some(url) = table.get("url") else {
        return true;
    };
    let given: Vec<Field<'_>> = others.iter().filter_map(|name| table.get(name)).collect();
    if given.is_empty() {
        return true;
    }
    let message = format!(
        "`url` says all of it: {} cannot stand beside it",
        crate::error::quoted(&given.iter().map(|f| f.name.as_str()).collect::<Vec<_>>())
    );
    let mut diagnostic = Diagnostic::error(&codes::ONE_OF, message).at(url.key_place());
    for other in &given {
        diagnostic = diagnostic.related(other.key_place(), "this");
    }
    url.report(diagnostic);
    false
}

/// The URL with `***` for its password.
fn without_password(url: &str) -> String {
    let masked = || {
        let (scheme, rest) = url.split_once("://")?;
        let (user, host) = rest.rsplit_once('@')?;
        let (user, _) = user.split_once(':')?;
        Some(format!("{scheme}://{user}:***@{host}"))
    };
    masked().unwrap_or_else(|| url.to_owned())
}

fn bad_url(field: &Field<'_>, url: &Text, reason: &str, example: &str) {
    let message = format!("`{}` cannot be used: {reason}", url.shown());
    let diagnostic = field.error(&codes::BAD_URL, message);
    field.report(diagnostic.hint(format!("write it like `{example}`")));
}

fn amqp(field: &Field<'_>) -> Option<AmqpConnection> {
    let table = field.table(&fields::AMQP)?;
    let heartbeat = table.duration_or("heartbeat", Duration::from_secs(10));
    if let Some(field) = table.get("heartbeat")
        && !(1..=65_535).contains(&heartbeat.as_secs())
    {
        let message = "`heartbeat` must be between `1s` and `18h`";
        field.report(field.error(&codes::BAD_VALUE, message));
    }
    let tls = table.get("tls").and_then(|f| tls(&f));
    let guest = |name: &str| {
        let text = table.get(name).and_then(|f| f.secret());
        text.unwrap_or_else(|| Text::plain("guest"))
    };
    let user = table.get("user").and_then(|f| f.filled());
    let hosts = table.get("hosts").map(|f| hosts(&f, tls.is_some()));
    let connection = AmqpConnection {
        url: None,
        hosts: hosts.unwrap_or_else(|| vec![("localhost".to_owned(), port(tls.is_some()))]),
        user: user.unwrap_or_else(|| Text::plain("guest")),
        password: guest("password"),
        vhost: table.string_or("vhost", "/"),
        tls,
        heartbeat,
    };
    if !url_alone(&table, &["hosts", "user", "password", "vhost"]) {
        return None;
    }
    match table.get("url") {
        None => Some(connection),
        Some(_) => amqp_url(&table, connection),
    }
}

fn amqp_url(table: &Table<'_>, rest: AmqpConnection) -> Option<AmqpConnection> {
    let field = table.get("url")?;
    let url = field.hidden(without_password)?;
    match url.reveal().parse::<lapin::uri::AMQPUri>() {
        Ok(uri) => {
            let encrypted = uri.scheme == lapin::uri::AMQPScheme::AMQPS;
            let secret = |value: &str| Text::plain(value).shown_as("***");
            Some(AmqpConnection {
                hosts: vec![(uri.authority.host.clone(), uri.authority.port)],
                user: secret(&uri.authority.userinfo.username),
                password: secret(&uri.authority.userinfo.password),
                vhost: uri.vhost.clone(),
                tls: rest.tls.or_else(|| encrypted.then(Tls::default)),
                url: Some(url),
                ..rest
            })
        }
        // The library's words may repeat the URL with its password.
        Err(_) => {
            let example = "amqp://USER:PASSWORD@HOST:5672/VHOST";
            bad_url(&field, &url, "it is not an AMQP URL", example);
            None
        }
    }
}

fn port(tls: bool) -> u16 {
    if tls { 5671 } else { 5672 }
}

/// `HOST` or `HOST:PORT`; an IPv6 address stands in brackets.
fn hosts(field: &Field<'_>, tls: bool) -> Vec<(String, u16)> {
    let mut hosts = Vec::new();
    for one in field.one_or_more().unwrap_or_default() {
        let Some(text) = one.string() else { continue };
        let (host, given) = match text.rsplit_once(':') {
            Some((host, given)) if !host.contains(':') || host.ends_with(']') => {
                (host, Some(given))
            }
            _ => (text.as_str(), None),
        };
        match given.map_or(Ok(port(tls)), str::parse) {
            Ok(port) if !host.is_empty() && !host.contains('/') => {
                let host = host.trim_start_matches('[').trim_end_matches(']');
                hosts.push((host.to_owned(), port));
            }
            _ => {
                let message = format!("`{text}` is not a host with a port");
                let diagnostic = one.error(&codes::BAD_VALUE, message);
                one.report(diagnostic.hint("write `rabbit.example.com` or `10.0.0.5:5672`"));
            }
        }
    }
    if hosts.is_empty() {
        field.report(field.error(&codes::BAD_VALUE, "`hosts` needs at least one host"));
    }
    hosts
}

fn tls(field: &Field<'_>) -> Option<Tls> {
    if matches!(field.item.node, Node::Scalar { .. })
        && !matches!(field.item.scalar(), Some(Scalar::Null))
    {
        return field.bool()?.then(Tls::default);
    }
    let table = field.table(&fields::TLS)?;
    let path = |name: &str| table.get(name).and_then(|f| f.path());
    let tls = Tls {
        ca: path("ca"),
        cert: path("cert"),
        key: path("key"),
    };
    if tls.cert.is_some() != tls.key.is_some() {
        let message = "`cert` and `key` belong together";
        field.report(Diagnostic::error(&codes::MISSING_FIELD, message).at(field.key_place()));
    }
    Some(tls)
}

fn aws(field: &Field<'_>) -> Option<AwsConnection> {
    let table = field.table(&fields::AWS)?;
    let endpoint = table.get("endpoint").and_then(|f| {
        let url = f.filled()?;
        let plain = url.reveal();
        let host = plain
            .strip_prefix("http://")
            .or_else(|| plain.strip_prefix("https://"));
        if host.is_none_or(str::is_empty) || plain.parse::<http::Uri>().is_err() {
            bad_url(&f, &url, "it is not an HTTP URL", "http://127.0.0.1:9000");
            return None;
        }
        Some(url)
    });
    let secret = |name: &str| table.get(name).and_then(|f| f.secret());
    let connection = AwsConnection {
        region: table.string("region"),
        path_style: table.bool_or("path_style", endpoint.is_some()),
        endpoint,
        access_key_id: secret("access_key_id"),
        secret_access_key: secret("secret_access_key"),
        session_token: secret("session_token"),
        profile: table.string("profile"),
    };
    let pair = ["access_key_id", "secret_access_key"];
    if let [Some(one), None] | [None, Some(one)] = pair.map(|name| table.get(name)) {
        let message = "`access_key_id` and `secret_access_key` belong together";
        field.report(Diagnostic::error(&codes::MISSING_FIELD, message).at(one.key_place()));
    }
    Some(connection)
}

fn redshift(field: &Field<'_>) -> Option<RedshiftConnection> {
    let table = field.table(&fields::REDSHIFT)?;
    let server = postgres(&table, 5439, "awsuser");
    let staging = table.need("staging").and_then(|f| super::s3::folder(&f));
    table.one_of(&["iam_role", "credentials"])?;
    let role = table.get("iam_role").and_then(|f| {
        let role = f.filled()?;
        if role.reveal() != "default" && !role.reveal().starts_with("arn:") {
            let message = format!("`{}` is not the ARN of a role", role.shown());
            let diagnostic = f.error(&codes::BAD_VALUE, message);
            f.report(diagnostic.hint("write `arn:aws:iam::123456789012:role/NAME`, or `default`"));
        }
        Some(role)
    });
    Some(RedshiftConnection {
        server: server?,
        staging: staging?,
        iam_role: role,
        credentials: table.string("credentials"),
    })
}

/// A server that speaks PostgreSQL's protocol.
fn postgres(table: &Table<'_>, port: u16, user: &str) -> Option<PostgresConnection> {
    let (default_port, default_user) = (port, user);
    let port = table.get("port").and_then(|f| f.integer(1..=65_535));
    let user = table.get("user").and_then(|f| f.filled());
    let connection = PostgresConnection {
        url: None,
        host: table.string_or("host", "localhost"),
        port: port
            .and_then(|p| u16::try_from(p).ok())
            .unwrap_or(default_port),
        user: user.unwrap_or_else(|| Text::plain(default_user)),
        password: table.get("password").and_then(|f| f.secret()),
        database: table.string("database"),
        tls: table
            .get("tls")
            .and_then(|f| f.choice(&PostgresTls::WORDS))
            .unwrap_or(PostgresTls::Prefer),
        ca: table.get("ca").and_then(|f| f.path()),
        connect_timeout: table.duration_or("connect_timeout", Duration::from_secs(10)),
    };
    if !url_alone(table, &["host", "port", "user", "password", "database"]) {
        return None;
    }
    match table.get("url") {
        None => Some(connection),
        Some(_) => postgres_url(table, connection),
    }
}

fn postgres_url(table: &Table<'_>, rest: PostgresConnection) -> Option<PostgresConnection> {
    use tokio_postgres::config::{Host, SslMode};
    let field = table.get("url")?;
    let url = field.hidden(without_password)?;
    let example = "postgres://USER:PASSWORD@HOST:5432/DATABASE";
    let Ok(read) = url.reveal().parse::<tokio_postgres::Config>() else {
        bad_url(&field, &url, "it is not a Postgres URL", example);
        return None;
    };
    let secret = |value: &str| Text::plain(value).shown_as("***");
    let host = match read.get_hosts() {
        [] => rest.host.clone(),
        [Host::Tcp(host)] => host.clone(),
        [Host::Unix(path)] => path.display().to_string(),
        _ => {
            bad_url(&field, &url, "it names several hosts", example);
            return None;
        }
    };
    let password = read.get_password().map(String::from_utf8_lossy);
    Some(PostgresConnection {
        host,
        port: read.get_ports().first().copied().unwrap_or(rest.port),
        user: read.get_user().map_or(rest.user, secret),
        password: password.map(|p| secret(&p)),
        database: read.get_dbname().map(str::to_owned),
        tls: match (table.get("tls").is_some(), read.get_ssl_mode()) {
            (false, SslMode::Disable) => PostgresTls::Disable,
            (false, SslMode::Require) => PostgresTls::Require,
            _ => rest.tls,
        },
        connect_timeout: match table.get("connect_timeout") {
            None => read
                .get_connect_timeout()
                .copied()
                .unwrap_or(rest.connect_timeout),
            Some(_) => rest.connect_timeout,
        },
        url: Some(url),
        ca: rest.ca,
    })
}
