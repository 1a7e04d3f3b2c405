//! Queues on brokers: which driver serves which, and how they are joined with
//! the log.

use super::depths::Depths;
use super::wiring::Wiring;
use crate::bus::{Bus, RouteOptions};
use crate::config::{AmqpConnection, Backing, Backlog, Config, Connection, Queue, Route, To};
use crate::delivery::{BatchOptions, Consumer, DeliveryOptions};
use crate::drivers::amqp::{AmqpQueue, Link, LinkOptions, TlsFiles};
use crate::drivers::sqs::{AwsOptions, SqsQueue};
use crate::emit::Notify;
use crate::handlers::Handler;
use crate::queues::Queue as Holds;
use crate::queues::{
    Broker, Claims, Feed, Gate, Inbox, InboxOptions, LogQueue, MakeInput, MixedQueue, Outbox,
    Packer,
};
use crate::state::{State, StateError};
use crate::tasks::Tasks;
use crate::text::Text;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a message that is being published is hidden from others; it is
/// prolonged for as long as that takes.
const PUBLISHING: Duration = Duration::from_secs(60);

/// A broker that is away or blocked is waited for, so no batch may be too slow.
const NO_TIMEOUT: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Messages that are published at a time.
const BATCH: usize = 500;

/// Batches that an outbox publishes at a time.
const BATCHES: usize = 4;

/// What queues on brokers need beside the configuration.
#[derive(Clone)]
pub(super) struct Brokers {
    /// Names this node's log among others.
    pub node: String,
    /// For each queue that has moved: what came before this sequence number is its
    /// backlog in the log.
    pub moved: BTreeMap<String, u64>,
    /// Where connections are watched over and closed.
    pub tasks: Tasks,
    /// Cancelled when the node begins to stop.
    pub stopping: CancellationToken,
    /// Tells how full queues are.
    pub depths: Depths,
}

impl Brokers {
    /// Nothing has moved.
    pub fn new(node: String) -> Self {
        Self {
            node,
            moved: BTreeMap::new(),
            tasks: Tasks::default(),
            stopping: CancellationToken::new(),
            depths: Depths::default(),
        }
    }
}

/// A name for this node's log, the same at every start.
pub(super) async fn node_name(state: &State) -> Result<String, StateError> {
    const KEY: &str = "node/name";
    if let Some(name) = state.get(KEY).await? {
        return Ok(String::from_utf8_lossy(&name).into_owned());
    }
    let name = crate::event::random_id();
    state.put(KEY, name.as_bytes()).await?;
    Ok(name)
}

/// Where each queue was before, and from which sequence number on it is where it
/// is now; what has changed is noted.
pub(super) async fn note_moves(
    state: &State,
    bus: &Bus,
    config: &Config,
) -> Result<BTreeMap<String, u64>, StateError> {
    let mut moved = BTreeMap::new();
    for (name, queue) in &config.queues {
        let (was, since) = place_of(state, name).await?;
        let label = queue.on.label();
        // A queue that was never noted was in the log.
        if was == label {
            moved.insert(name.clone(), since);
            continue;
        }
        let now = bus.next_seq();
        state
            .put(&key(name), format!("{now} {label}").as_bytes())
            .await?;
        if was != Backing::Log.label() || backlog(bus, config, name) > 0 {
            tracing::info!(queue = name, from = was, to = label, "the queue has moved");
        }
        moved.insert(name.clone(), now);
    }
    Ok(moved)
}

/// Where a queue was when it was last used, and since when.
pub(super) async fn place_of(state: &State, queue: &str) -> Result<(String, u64), StateError> {
    let noted = state.get(&key(queue)).await?;
    let text = noted.map(|noted| String::from_utf8_lossy(&noted).into_owned());
    let split = text.as_deref().and_then(|text| text.split_once(' '));
    Ok(match split {
        Some((since, label)) => (label.to_owned(), since.parse().unwrap_or(0)),
        None => (Backing::Log.label(), 0),
    })
}

fn key(queue: &str) -> String {
    format!("queue/{queue}/place")
}

/// How many messages wait in the log on the routes that lead to a queue.
pub(super) fn backlog(bus: &Bus, config: &Config, queue: &str) -> u64 {
    let routes = bus.routes();
    let pending = |name: &str| {
        routes
            .iter()
            .find(|r| r.name == name)
            .map_or(0, |r| r.pending)
    };
    let leads = |to: &To| matches!(to, To::Queue(name) if name == queue);
    let routes = config.routes().into_iter();
    routes
        .filter(|route| leads(&route.target.to))
        .map(|route| pending(&route.target.route))
        .sum::<u64>()
        + pending(&home(queue))
}

/// The route in the log that messages of a queue on a broker come home to.
pub(super) fn home(queue: &str) -> String {
    format!("queue/{queue}")
}

/// The routes that queues on brokers need beside those of the rules.
pub(super) fn homes(config: &Config) -> Vec<(String, RouteOptions)> {
    let on_broker = |queue: &Queue| queue.on.is_broker() || queue.drain_from.is_some();
    let queues = config.queues.iter().filter(|(_, queue)| on_broker(queue));
    queues
        .map(|(name, queue)| {
            let ordered = queue.order_by.is_some();
            (home(name), RouteOptions { ordered })
        })
        .collect()
}

/// Bodies that a broker does not take.
pub(super) fn claims(data: &Path) -> Claims {
    Claims::new(data.join("claims"))
}

/// The driver of a queue that is not in the log. `purpose`: what the broker shows
/// of the connection.
pub(super) fn open(
    config: &Config,
    backing: &Backing,
    purpose: &'static str,
) -> Option<Arc<dyn Broker>> {
    match backing {
        Backing::Log => None,
        Backing::Amqp {
            connection,
            options,
        } => {
            let Some(Connection::Amqp(amqp)) = config.connections.get(connection) else {
                return None;
            };
            let link = Link::new(link(connection, amqp), purpose);
            Some(Arc::new(AmqpQueue::new(options.clone(), link)))
        }
        Backing::Sqs {
            connection,
            options,
        } => {
            let aws = aws(config, connection)?;
            Some(Arc::new(SqsQueue::new(options.clone(), aws)))
        }
    }
}

/// How the `aws` connection of this name reaches AWS.
pub(super) fn aws(config: &Config, name: &str) -> Option<AwsOptions> {
    let Some(Connection::Aws(aws)) = config.connections.get(name) else {
        return None;
    };
    let reveal = |text: &Option<Text>| text.as_ref().map(|text| text.reveal().to_owned());
    Some(AwsOptions {
        name: name.to_owned(),
        region: aws.region.clone(),
        endpoint: reveal(&aws.endpoint),
        key: reveal(&aws.access_key_id).zip(reveal(&aws.secret_access_key)),
        session_token: reveal(&aws.session_token),
        profile: aws.profile.clone(),
    })
}

/// How a broker is reached.
pub(super) fn link(name: &str, amqp: &AmqpConnection) -> LinkOptions {
    LinkOptions {
        name: name.to_owned(),
        hosts: amqp.hosts.clone(),
        user: amqp.user.reveal().to_owned(),
        password: amqp.password.reveal().to_owned(),
        vhost: amqp.vhost.clone(),
        tls: amqp.tls.as_ref().map(|tls| TlsFiles {
            ca: tls.ca.clone(),
            identity: tls.cert.clone().zip(tls.key.clone()),
        }),
        heartbeat: amqp.heartbeat,
    }
}

impl Wiring<'_> {
    /// What publishes to queues on brokers: one consumer per route that leads there.
    pub(super) fn outboxes(&self) -> Vec<Consumer> {
        let mut consumers = Vec::new();
        for route in self.config.routes() {
            let To::Queue(name) = &route.target.to else {
                continue;
            };
            let Some(queue) = self.config.queues.get(name) else {
                continue;
            };
            let Some(broker) = open(self.config, &queue.on, "publishes") else {
                continue;
            };
            let Some(mut feed) = self.plain(&route.target.route) else {
                continue;
            };
            if let (Backlog::Drain, Some(mark)) = (queue.backlog, self.brokers.moved.get(name))
                && !route.handlers.is_empty()
            {
                feed.gate = Gate::From(*mark);
            }
            let read_here = !route.handlers.is_empty();
            if !read_here {
                feed.input = self.feed(&route).ok().flatten().and_then(|feed| feed.input);
            }
            let outbox = Outbox {
                broker,
                packer: self.packer(&feed),
                claims: claims(&self.config.node.data),
                inputs: !read_here,
                stopping: self.brokers.stopping.clone(),
                away: AtomicBool::new(false),
            };
            let name = feed.name.clone();
            let queue = self.queue(&name, &route.target.route, vec![feed]);
            consumers.push(self.publishing(Arc::new(outbox), queue, &route, BATCHES));
        }
        consumers
    }

    /// What brings a route's messages to a broker, in so many batches at a time.
    pub(super) fn publishing(
        &self,
        handler: Arc<dyn Handler>,
        queue: LogQueue,
        route: &Route<'_>,
        batches: usize,
    ) -> Consumer {
        Consumer {
            name: queue.name().to_owned(),
            handler,
            queue: Arc::new(queue),
            options: DeliveryOptions {
                batch: BatchOptions {
                    size: BATCH,
                    ..BatchOptions::default()
                },
                concurrency: batches,
                retry: route.target.retry.clone(),
                timeout: NO_TIMEOUT,
                rate: None,
            },
            visibility: PUBLISHING,
            retries: HashMap::new(),
            notify: Notify::default(),
            rules_version: Arc::clone(self.rules_version),
        }
    }

    /// Makes messages of what a route holds.
    pub(super) fn packer(&self, feed: &Feed) -> Packer {
        Packer {
            bus: self.bus.clone(),
            route: feed.id,
            route_name: feed.name.to_string(),
            node: self.brokers.node.clone(),
        }
    }

    /// A handler's queue: the log's routes, and what it reads from brokers.
    pub(super) fn holds(
        &self,
        name: &str,
        handler: &str,
        from: &[String],
        feeds: Vec<Feed>,
    ) -> Arc<dyn Holds> {
        let inputs: HashMap<String, MakeInput> = feeds
            .iter()
            .filter_map(|feed| Some((feed.name.to_string(), feed.input.clone()?)))
            .collect();
        let shared = Arc::new(inputs.clone());
        let mut kept: Vec<Feed> = feeds
            .into_iter()
            .filter_map(|feed| self.still_read(feed))
            .collect();
        let mut inboxes = Vec::new();
        for queue_name in from {
            let Some(queue) = self.config.queues.get(queue_name) else {
                continue;
            };
            let Some(mut home) = self.plain(&home(queue_name)) else {
                continue;
            };
            home.home = Some(Arc::clone(&shared));
            for backing in std::iter::once(&queue.on).chain(&queue.drain_from) {
                if let Some(broker) = open(self.config, backing, "consumes") {
                    let options = InboxOptions {
                        queue: queue_name.clone(),
                        home: home.id,
                        order_by: queue.order_by.clone(),
                        visibility: queue.visibility,
                        defaults: self.config.node.event_defaults(),
                    };
                    let inbox = Arc::new(Inbox::new(broker, options));
                    self.brokers.depths.note(queue_name, &inbox);
                    inboxes.push(inbox);
                }
            }
            kept.push(home);
        }
        let log: LogQueue = self.queue(name, handler, kept);
        if inboxes.is_empty() {
            return Arc::new(log);
        }
        Arc::new(MixedQueue::new(
            log,
            self.bus.clone(),
            inboxes,
            inputs,
            claims(&self.config.node.data),
            self.clock.clone(),
            self.brokers.tasks.clone(),
            self.brokers.stopping.child_token(),
        ))
    }

    /// A rule's route as its handler reads it: not at all, where its queue is on a
    /// broker, or only the backlog.
    fn still_read(&self, mut feed: Feed) -> Option<Feed> {
        let routes = self.config.routes();
        let route = routes.iter().find(|r| *r.target.route == *feed.name)?;
        let To::Queue(name) = &route.target.to else {
            return Some(feed);
        };
        let queue = self.config.queues.get(name)?;
        match (queue.on.is_broker(), queue.backlog) {
            (false, _) => Some(feed),
            (true, Backlog::Move) => None,
            (true, Backlog::Drain) => {
                feed.gate = Gate::Until(*self.brokers.moved.get(name)?);
                Some(feed)
            }
        }
    }

    /// Retry policies by route, for handlers of these queues.
    pub(super) fn home_retries(
        &self,
        from: &[String],
    ) -> Vec<(String, crate::delivery::RetryPolicy)> {
        let queues = from.iter().filter_map(|name| {
            let queue = self.config.queues.get(name)?;
            Some((home(name), queue.retry.clone()))
        });
        queues.collect()
    }
}

/// The home route of every queue that is in the log and was on a broker: what came
/// home then is still handled.
pub(super) fn kept_homes(bus: &Bus, config: &Config) -> Vec<(String, RouteOptions)> {
    let known = bus.routes();
    let homes = config.queues.iter().map(|(name, queue)| {
        let ordered = queue.order_by.is_some();
        (home(name), RouteOptions { ordered })
    });
    homes
        .filter(|(home, _)| known.iter().any(|r| r.name == *home && !r.retired))
        .collect()
}
