//! `check --connect`: whether what lies outside is there and lets us in.

use super::{brokers, buckets, warehouse};
use crate::config::{
    Backing, Config, Connection, HandlerKind, Publish, PublishTo, S3Source, Source, To,
};
use crate::drivers::Finding;
use crate::drivers::amqp::{AmqpExchange, AmqpQueue, Link, check_link};
use crate::drivers::postgres::check_server;
use crate::drivers::sns::SnsTopic;
use crate::drivers::sqs::{SqsQueue, check_account};
use crate::handlers::Failure;
use crate::queues::Publisher as _;
use crate::sources::s3::{Begin, Listing as _, What};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// What is asked of a server is answered at once, or it is not well.
const STATEMENT: Duration = Duration::from_secs(30);

/// One thing that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Probe {
    /// What: `connection rabbit`, `queue to-transform`.
    pub what: String,
    /// Whether all is well with it.
    pub ok: bool,
    /// What was found.
    pub found: String,
}

/// Tries every connection and what is used through it. Makes nothing.
pub async fn probe(config: &Config) -> Vec<Probe> {
    let mut probes = Vec::new();
    let mut tell = |what: &str, findings: Vec<Finding>| {
        probes.extend(findings.into_iter().map(|finding| told(what, finding)));
    };
    for (name, connection) in &config.connections {
        let found = check_connection(config, name, connection).await;
        tell(&format!("connection {name}"), vec![found]);
    }
    for (name, source) in &config.sources {
        if let Source::S3(s3) = source {
            let what = format!("source {name} (s3 {})", s3.options.bucket);
            tell(&what, vec![check_bucket(config, s3).await]);
        }
        if let Source::Queue(queue) = source {
            let what = format!("source {name} ({})", queue.on.label());
            tell(&what, check_queue(config, &queue.on).await);
        }
    }
    if let Some(folder) = &config.node.warehouse {
        let what = format!("warehouse (s3 {})", folder.bucket);
        tell(&what, vec![check_warehouse(config).await]);
    }
    for (name, queue) in &config.queues {
        for backing in std::iter::once(&queue.on).chain(&queue.drain_from) {
            let what = format!("queue {name} ({})", backing.label());
            tell(&what, check_queue(config, backing).await);
        }
    }
    for target in config.targets() {
        if let To::Publish(publish) = &target.to {
            let (route, kind, address) = (&target.route, publish.kind(), publish.address());
            let what = format!("target {route} ({kind} {address})");
            tell(&what, check_publisher(config, publish).await);
        }
    }
    for (name, handler) in &config.handlers {
        if let HandlerKind::Load(load) = &handler.kind
            && let Some(to) = &load.to
            && let Some(Connection::Postgres(postgres)) = config.connections.get(to)
        {
            let findings = match warehouse::postgres(postgres, load) {
                Ok(loader) => loader.check().await,
                Err(failure) => vec![Err(failure.to_string())],
            };
            tell(&format!("handler {name} (postgres {to})"), findings);
        }
    }
    probes
}

async fn check_connection(config: &Config, name: &str, connection: &Connection) -> Finding {
    match connection {
        Connection::Amqp(amqp) => {
            let link = Link::new(brokers::link(name, amqp), "checks");
            let found = check_link(&link).await;
            link.close().await;
            found
        }
        Connection::Aws(_) => match brokers::aws(config, name) {
            Some(aws) => check_account(&aws).await,
            None => Err("it is not an `aws` connection".to_owned()),
        },
        Connection::Postgres(postgres) => {
            check_server(&warehouse::server(postgres, STATEMENT)).await
        }
        Connection::Redshift(redshift) => {
            check_server(&warehouse::server(&redshift.server, STATEMENT)).await
        }
    }
}

async fn check_bucket(config: &Config, source: &S3Source) -> Finding {
    let options = &source.options;
    let bucket = buckets::open(config, source.connection.as_deref(), &options.bucket)
        .map_err(|e| e.to_string())?;
    let what = match options.versions {
        true => What::Versions,
        false => What::Objects,
    };
    let page = bucket.listing.page(&options.prefix, what, &Begin::Start);
    let page = page.await.map_err(|e| e.to_string())?;
    let more = if page.next.is_some() { " and more" } else { "" };
    let keys = page.entries.len();
    Ok(format!("the bucket can be listed; {keys} keys{more}"))
}

async fn check_warehouse(config: &Config) -> Finding {
    let told = |failure: Failure| failure.to_string();
    let places = buckets::places(config).map_err(told)?;
    let warehouse = warehouse::place(config, &places).map_err(told)?;
    let names = warehouse.names().await.map_err(told)?;
    Ok(format!("the bucket can be listed; {} tables", names.len()))
}

async fn check_queue(config: &Config, backing: &Backing) -> Vec<Finding> {
    match backing {
        Backing::Log => Vec::new(),
        Backing::Amqp {
            connection,
            options,
        } => {
            let Some(link) = amqp(config, connection) else {
                return Vec::new();
            };
            let queue = AmqpQueue::new(options.clone(), link);
            let findings = queue.check().await;
            queue.close().await;
            findings
        }
        Backing::Sqs {
            connection,
            options,
        } => match brokers::aws(config, connection) {
            Some(aws) => SqsQueue::new(options.clone(), aws).check().await,
            None => Vec::new(),
        },
    }
}

async fn check_publisher(config: &Config, publish: &Publish) -> Vec<Finding> {
    match &publish.to {
        PublishTo::Exchange { options, .. } => {
            let Some(link) = amqp(config, &publish.connection) else {
                return Vec::new();
            };
            let exchange = AmqpExchange::new(options.clone(), Arc::new(link));
            let findings = exchange.check().await;
            exchange.close().await;
            findings
        }
        PublishTo::Topic(options) => match brokers::aws(config, &publish.connection) {
            Some(aws) => SnsTopic::new(options.clone(), aws).check().await,
            None => Vec::new(),
        },
    }
}

/// The `amqp` connection of this name; one that is missing is an error of the files,
/// which are not taken then.
fn amqp(config: &Config, name: &str) -> Option<Link> {
    match config.connections.get(name) {
        Some(Connection::Amqp(amqp)) => Some(Link::new(brokers::link(name, amqp), "checks")),
        _ => None,
    }
}

fn told(what: &str, finding: Finding) -> Probe {
    Probe {
        what: what.to_owned(),
        ok: finding.is_ok(),
        found: finding.unwrap_or_else(|wrong| wrong),
    }
}
