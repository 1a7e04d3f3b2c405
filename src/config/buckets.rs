//! Checks of what refers to buckets: connections, and names that mean one thing.

use super::connection::Connection;
use super::model::Config;
use super::sources::{Notifications, Source};
use crate::error::{Diagnostic, codes, quoted};
use crate::sources::queue::Format;
use std::collections::BTreeMap;

/// A bucket, and who speaks of it.
pub(crate) struct Use<'a> {
    /// Dotted path of the table that names it.
    pub path: String,
    /// The connection, where one is named.
    pub connection: Option<&'a str>,
    /// The bucket.
    pub bucket: &'a str,
}

impl Config {
    /// Every bucket that is named anywhere.
    pub(crate) fn buckets(&self) -> Vec<Use<'_>> {
        let mut uses = Vec::new();
        for (name, source) in &self.sources {
            if let Source::S3(s3) = source {
                uses.push(Use {
                    path: format!("sources.{name}.s3"),
                    connection: s3.connection.as_deref(),
                    bucket: &s3.options.bucket,
                });
            }
        }
        if let Some(warehouse) = &self.node.warehouse {
            uses.push(Use {
                path: "node.warehouse.s3".to_owned(),
                connection: warehouse.connection.as_deref(),
                bucket: &warehouse.bucket,
            });
        }
        for (name, connection) in &self.connections {
            if let Connection::Redshift(redshift) = connection {
                uses.push(Use {
                    path: format!("connections.{name}.redshift.staging"),
                    connection: redshift.staging.connection.as_deref(),
                    bucket: &redshift.staging.bucket,
                });
            }
        }
        for (name, handler) in &self.handlers {
            let Some(transform) = handler.kind.transform() else {
                continue;
            };
            if let Some(to) = &transform.write.s3 {
                uses.push(Use {
                    path: format!("handlers.{name}.{}.write.s3", handler.kind.name()),
                    connection: to.connection.as_deref(),
                    bucket: &to.bucket,
                });
            }
        }
        uses
    }
}

/// What cannot work.
pub(super) fn check(config: &Config) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut firsts: BTreeMap<&str, Use<'_>> = BTreeMap::new();
    for one in config.buckets() {
        found.extend(connection(config, &one));
        if let Some(first) = firsts.get(one.bucket) {
            if first.connection != one.connection {
                found.push(ambiguous(config, first, &one));
            }
        } else {
            firsts.insert(one.bucket, one);
        }
    }
    for (name, connection) in &config.connections {
        found.extend(credentials(config, name, connection));
    }
    for (name, source) in &config.sources {
        if let Source::S3(s3) = source
            && let Some(Notifications::From(from)) = &s3.notifications
        {
            let place = config.place(&format!("sources.{name}.s3.notifications.from"));
            found.extend(bringer(config, from).map(|mut wrong| {
                wrong.place = place;
                wrong
            }));
        }
    }
    found
}

/// What is wrong with a source that is to bring notifications.
fn bringer(config: &Config, name: &str) -> Option<Diagnostic> {
    let message = match config.sources.get(name) {
        Some(Source::Queue(queue)) if queue.format == Format::Notification => return None,
        Some(Source::Queue(_)) => {
            let message = format!("the source `{name}` brings events, not notifications");
            let mut diagnostic = Diagnostic::error(&codes::BAD_VALUE, message);
            let place = config.place(&format!("sources.{name}"));
            diagnostic = diagnostic.related(place, "declared here");
            return Some(diagnostic.hint("say `format: notification` there"));
        }
        Some(_) => format!("the source `{name}` brings no notifications"),
        None => {
            let message = format!("the source `{name}` is not declared");
            let queues = config.sources.iter();
            let queues = queues.filter(|(_, source)| matches!(source, Source::Queue(_)));
            let diagnostic = Diagnostic::error(&codes::UNKNOWN_NAME, message);
            return Some(diagnostic.suggest(name, queues.map(|(name, _)| name.as_str())));
        }
    };
    let diagnostic = Diagnostic::error(&codes::BAD_VALUE, message);
    Some(diagnostic.hint("name an `amqp` or `sqs` source with `format: notification`, or write `notifications: webhook`"))
}

fn connection(config: &Config, one: &Use<'_>) -> Option<Diagnostic> {
    let name = one.connection?;
    let place = config.place(&format!("{}.connection", one.path));
    let of_aws = config.connections.iter().filter(|(_, c)| c.kind() == "aws");
    let fitting: Vec<&str> = of_aws.map(|(name, _)| name.as_str()).collect();
    let mut diagnostic = match config.connections.get(name) {
        Some(known) if known.kind() == "aws" => return None,
        Some(known) => {
            let kind = known.kind();
            let message =
                format!("the connection `{name}` is of kind `{kind}`; `aws` is needed here");
            Diagnostic::error(&codes::WRONG_CONNECTION, message)
        }
        None => {
            let message = format!("the connection `{name}` is not declared");
            Diagnostic::error(&codes::UNKNOWN_NAME, message).suggest(name, fitting.iter().copied())
        }
    };
    diagnostic.place = place;
    Some(match fitting.is_empty() {
        true => diagnostic.hint("declare one under `connections:`, like `minio: { aws: { endpoint: http://127.0.0.1:9000 } }`"),
        false => diagnostic.hint(format!("these are of kind `aws`: {}", quoted(&fitting))),
    })
}

/// Events name a bucket, and nothing else tells by which connection it is reached.
fn ambiguous(config: &Config, first: &Use<'_>, second: &Use<'_>) -> Diagnostic {
    let bucket = second.bucket;
    let message = format!("the bucket `{bucket}` is reached by two connections");
    let mut diagnostic = Diagnostic::error(&codes::TWO_BUCKETS, message);
    diagnostic.place = config.place(&format!("{}.bucket", second.path));
    diagnostic.related(config.place(&format!("{}.bucket", first.path)), "the other")
}

/// Redshift is told a key, so the connection must have one of its own.
fn credentials(config: &Config, name: &str, connection: &Connection) -> Option<Diagnostic> {
    let Connection::Redshift(redshift) = connection else {
        return None;
    };
    let named = redshift.credentials.as_deref()?;
    let (code, message) = match config.connections.get(named) {
        Some(Connection::Aws(aws)) if aws.access_key_id.is_some() => return None,
        Some(Connection::Aws(_)) => (
            &codes::MISSING_FIELD,
            format!("the connection `{named}` has no `access_key_id` to give to Redshift"),
        ),
        Some(other) => (
            &codes::WRONG_CONNECTION,
            format!(
                "the connection `{named}` is of kind `{}`; `aws` is needed here",
                other.kind()
            ),
        ),
        None => (
            &codes::UNKNOWN_NAME,
            format!("the connection `{named}` is not declared"),
        ),
    };
    let mut diagnostic = Diagnostic::error(code, message);
    diagnostic.place = config.place(&format!("connections.{name}.redshift.credentials"));
    Some(diagnostic.hint("a role needs no key: `iam_role: arn:aws:iam::123456789012:role/NAME`"))
}
