//! From the configuration to routes, rules and consumers.

use super::brokers::{self, Brokers};
use super::endpoints::Endpoints;
use super::publishers::Links;
use super::warehouse;
use crate::bus::{Bus, BusError, RouteId, RouteInfo, RouteOptions};
use crate::clock::SharedClock;
use crate::config::{
    Config, EventSchema, Handler, HandlerKind, Route, RuleStart, SchemaPolicy, Target, To,
};
use crate::delivery::{Consumer, DeliveryOptions, RetryPolicy};
use crate::emit::Notify;
use crate::event::{Event, rfc3339};
use crate::handlers::exec::ExecHandler;
use crate::handlers::extract::ExtractHandler;
use crate::handlers::forward::ForwardHandler;
use crate::handlers::maintain::MaintainHandler;
use crate::handlers::objects::Places;
use crate::handlers::refuse::RefuseHandler;
use crate::handlers::transform::{TransformEnv, TransformHandler};
use crate::handlers::{Failure, Handler as Work};
use crate::queues::{Feed, Gate, LogQueue, Outgoing};
use crate::replay::LateRule;
use crate::router::{Entry, Policy, Router, Table, TableError, TypeSchema};
use crate::rules::Pattern;
use crate::rules::input::{Input, InputContext, rule_arn};
use crate::topics::{self, Subscriptions};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// How long a message is hidden beyond its handler's timeout.
const SLACK: Duration = Duration::from_secs(30);

/// Most messages that are handed on to a bus or a topic at once.
const FORWARDED: usize = 256;

/// Every route that the configuration has, interned in the log.
pub(super) type Routes = BTreeMap<String, RouteId>;

/// Every route of the configuration: rules' targets, subscriptions, and the way
/// to the dead-letter queue for events that do not meet their schema.
pub(super) fn route_names(config: &Config) -> Vec<(String, RouteOptions)> {
    let mut names = Vec::new();
    for route in config.routes() {
        let ordered = order_by(config, &route.target.to).is_some();
        names.push((route.target.route.clone(), RouteOptions { ordered }));
    }
    names.extend(brokers::homes(config));
    for schema in &config.event_schemas {
        names.push((schema_route(schema), RouteOptions::default()));
    }
    names
}

/// Routes that have a consumer: all but those of `pull` subscriptions and of
/// queues that no handler reads.
pub(super) fn worked(config: &Config) -> BTreeSet<String> {
    let mut unread = BTreeSet::new();
    for route in config.routes() {
        let alone = match &route.target.to {
            To::Pull => true,
            To::Queue(_) => route.handlers.is_empty(),
            _ => false,
        };
        if alone {
            let on_broker = match &route.target.to {
                To::Queue(name) => config.queues.get(name).filter(|q| q.on.is_broker()),
                _ => None,
            };
            unread.insert(match (&route.target.to, on_broker) {
                // Its messages are published all the same.
                (To::Queue(name), Some(_)) => brokers::home(name),
                _ => route.target.route.clone(),
            });
        }
    }
    route_names(config)
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| !unread.contains(name))
        .collect()
}

/// The routes of rules in force that begin in the past.
pub(super) fn late_rules(config: &Config) -> Vec<LateRule> {
    let rules = config.rules.values().filter(|rule| rule.enabled);
    rules
        .flat_map(|rule| {
            rule.targets.iter().filter_map(|target| {
                let since_ms = match rule.start {
                    RuleStart::Now => return None,
                    RuleStart::Earliest => None,
                    RuleStart::Since(ms) => Some(ms),
                };
                let route = target.route.clone();
                Some(LateRule { route, since_ms })
            })
        })
        .collect()
}

/// Interns every route of the configuration.
pub(super) async fn routes(bus: &Bus, config: &Config) -> Result<Routes, BusError> {
    let mut wanted = route_names(config);
    wanted.extend(brokers::kept_homes(bus, config));
    let names: Vec<String> = wanted.iter().map(|(name, _)| name.clone()).collect();
    let ids = bus.routes_of(wanted).await?;
    Ok(names.into_iter().zip(ids).collect())
}

/// Routes of the log in service that `names` does not have.
pub(super) fn gone(bus: &Bus, names: &BTreeSet<String>) -> Vec<RouteInfo> {
    let gone = |route: &RouteInfo| !route.retired && !names.contains(&route.name);
    bus.routes().into_iter().filter(gone).collect()
}

/// Retires routes that are gone, unless something still waits on them.
pub(super) async fn retire_gone(bus: &Bus, routes: &Routes) -> Result<(), BusError> {
    for gone in gone(bus, &routes.keys().cloned().collect()) {
        if gone.pending > 0 {
            // Nothing vanishes because a line was taken out of a file.
            tracing::warn!(
                route = gone.name,
                pending = gone.pending,
                "no rule has this route any more, but messages still wait on it; they are kept (`pointsman reload --backlog` says where they go)"
            );
        } else {
            bus.retire_route(&gone.name, crate::bus::Backlog::Refuse)
                .await?;
        }
    }
    Ok(())
}

/// The compiled rules of every bus, subscriptions included.
pub(super) fn table(
    config: &Config,
    routes: &Routes,
    clock: &SharedClock,
) -> Result<Table, TableError> {
    let mut table = Table::new(config.rules_version, clock.clone());
    for (name, rule) in config.rules.iter().filter(|(_, rule)| rule.enabled) {
        let entries = rule.targets.iter();
        let entries = entries.filter_map(|t| entry(config, routes, t)).collect();
        table.add(&rule.bus, name, Arc::clone(&rule.pattern), entries)?;
    }
    for schema in &config.event_schemas {
        table.add_schema(TypeSchema {
            source: schema.source.clone(),
            detail_type: schema.detail_type.clone(),
            policy: match schema.policy {
                SchemaPolicy::Reject => Policy::Reject,
                SchemaPolicy::DeadLetter => Policy::DeadLetter,
                SchemaPolicy::Warn => Policy::Warn,
            },
            validator: Arc::clone(&schema.validator),
            route: routes.get(&schema_route(schema)).copied(),
        });
    }
    for topic in config.topics.values() {
        for subscription in topic.subscriptions.values() {
            let filter = subscription.filter_text.as_deref();
            let text = topics::pattern_of(filter, subscription.filter_on);
            let route = &subscription.target.route;
            let pattern = Pattern::parse(&text).map_err(|e| TableError {
                rule: route.clone(),
                reason: e.to_string(),
            })?;
            if let Some(entry) = entry(config, routes, &subscription.target) {
                table.add(&topic.bus, route, Arc::new(pattern), vec![entry])?;
            }
        }
    }
    Ok(table)
}

/// Where in the event the ordering key of what goes to `to` is.
fn order_by<'a>(config: &'a Config, to: &'a To) -> Option<&'a str> {
    match to {
        To::Queue(queue) => config.queues.get(queue)?.order_by.as_deref(),
        To::Publish(publish) => publish.order_by.as_deref(),
        _ => None,
    }
}

/// A rule's end that leads to `target`.
fn entry(config: &Config, routes: &Routes, target: &Target) -> Option<Entry> {
    let queue = match &target.to {
        To::Queue(queue) => config.queues.get(queue),
        _ => None,
    };
    Some(Entry {
        route: *routes.get(&target.route)?,
        name: target.route.clone(),
        order_by: order_by(config, &target.to).map(str::to_owned),
        delay: queue.map_or(Duration::ZERO, |queue| queue.delay),
    })
}

/// The route that takes events of a type to the dead-letter queue.
fn schema_route(schema: &EventSchema) -> String {
    format!("schema/{}/{}", schema.source, schema.detail_type)
}

/// What consumers are built with.
pub(super) struct Wiring<'a> {
    pub config: &'a Config,
    pub routes: &'a Routes,
    pub bus: &'a Bus,
    pub router: &'a Router,
    pub clock: &'a SharedClock,
    pub places: &'a Places,
    pub rules_version: &'a Arc<AtomicU32>,
    pub brokers: &'a Brokers,
    pub endpoints: &'a Endpoints,
    pub subscriptions: &'a Subscriptions,
}

impl Wiring<'_> {
    /// Every consumer: handlers, forwards to topics and buses, webhooks, subscriptions.
    pub fn consumers(&self) -> Result<Vec<Consumer>, Failure> {
        let mut consumers = Vec::new();
        for (name, handler) in &self.config.handlers {
            consumers.push(self.handler(name, handler)?);
        }
        consumers.extend(self.outboxes());
        let mut links = Links::new();
        for route in self.config.routes() {
            let mut options = single_options(&route.target.retry);
            let work: Arc<dyn Work> = match &route.target.to {
                To::Queue(_) | To::Handler(_) | To::Pull => continue,
                To::Publish(publish) => {
                    consumers.extend(self.publishes(&route, publish, &mut links)?);
                    continue;
                }
                To::Topic(topic) => forward(topics::bus_of(topic), &mut options),
                To::Bus(bus) => forward(bus.clone(), &mut options),
                To::Exec(exec) => Arc::new(ExecHandler::new(exec.options())),
                To::Webhook(webhook) => {
                    // One message at a time, so that none waits for a slower one.
                    options.batch.size = 1;
                    options.concurrency = webhook.concurrency;
                    options.timeout = webhook.timeout + SLACK;
                    self.endpoints
                        .webhook(&route, webhook, self.subscriptions)?
                }
            };
            let feed = self.feed(&route)?;
            consumers.push(self.single(&route.target.route, feed, work, options));
        }
        for schema in &self.config.event_schemas {
            let router = self.router.clone();
            let reason = move |event: &Event| {
                let breach = router.table().breach(event)?;
                Some(format!("{}: {}", breach.path, breach.reason))
            };
            let work = Arc::new(RefuseHandler::new(Arc::new(reason)));
            let name = schema_route(schema);
            let feed = self.plain(&name);
            let options = single_options(&RetryPolicy::default());
            consumers.push(self.single(&name, feed, work, options));
        }
        Ok(consumers)
    }

    fn handler(&self, name: &str, handler: &Handler) -> Result<Consumer, Failure> {
        let work: Arc<dyn Work> = match &handler.kind {
            HandlerKind::Transform(options) => Arc::new(TransformHandler::new(
                name,
                (**options).clone(),
                transform_env(self.config, self.places)?,
                self.places.clone(),
            )?),
            HandlerKind::Extract(extract) => Arc::new(ExtractHandler::new(
                name,
                (**extract).clone(),
                self.config.node.data.join("extracts"),
                transform_env(self.config, self.places)?,
                self.places.clone(),
                self.clock.clone(),
            )?),
            HandlerKind::Load(load) => {
                let handler = warehouse::handler(self.config, load, self.places)?;
                Arc::new(handler.reading(self.places.clone()))
            }
            HandlerKind::Maintain(options) => {
                let data = &self.config.node.data;
                Arc::new(MaintainHandler::new(
                    options.clone(),
                    data.join("lake"),
                    warehouse::place(self.config, self.places)?,
                    self.clock.clone(),
                ))
            }
            HandlerKind::Exec(exec) => Arc::new(ExecHandler::new(exec.options())),
            HandlerKind::Http(webhook) => self.endpoints.plain(name, webhook)?,
        };
        let mine: Vec<_> = self
            .config
            .routes()
            .into_iter()
            .filter(|route| route.handlers.contains(&name))
            .collect();
        let feeds = mine
            .iter()
            .map(|route| self.feed(route))
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .flatten()
            .collect();
        let visibility = handler
            .from
            .iter()
            .filter_map(|queue| self.config.queues.get(queue))
            .map(|queue| queue.visibility)
            .max()
            .unwrap_or(handler.delivery.timeout + SLACK);
        let queue = if handler.from.is_empty() {
            name.to_owned()
        } else {
            handler.from.join("+")
        };
        Ok(Consumer {
            name: name.to_owned(),
            handler: work,
            queue: self.holds(&queue, name, &handler.from, feeds),
            options: handler.delivery.clone(),
            visibility,
            retries: mine
                .iter()
                .map(|r| (r.target.route.clone(), r.target.retry.clone()))
                .chain(self.home_retries(&handler.from))
                .collect(),
            notify: Notify {
                success: handler.notify.success.clone(),
                failure: handler.notify.failure.clone(),
            },
            rules_version: Arc::clone(self.rules_version),
        })
    }

    /// A consumer of one route.
    fn single(
        &self,
        route: &str,
        feed: Option<Feed>,
        work: Arc<dyn Work>,
        options: DeliveryOptions,
    ) -> Consumer {
        Consumer {
            name: route.to_owned(),
            handler: work,
            queue: Arc::new(self.queue(route, route, feed.into_iter().collect())),
            visibility: options.timeout + SLACK,
            options,
            retries: HashMap::new(),
            notify: Notify::default(),
            rules_version: Arc::clone(self.rules_version),
        }
    }

    /// A route whose target gets the event as it came.
    pub(super) fn plain(&self, route: &str) -> Option<Feed> {
        Some(Feed {
            id: *self.routes.get(route)?,
            name: route.into(),
            input: None,
            home: None,
            gate: Gate::None,
        })
    }

    /// A rule's route, with what its target gets.
    pub(super) fn feed(&self, route: &Route<'_>) -> Result<Option<Feed>, Failure> {
        let input = Input::compile(&route.target.input.spec()).map_err(|e| {
            Failure::permanent(
                "BadInput",
                format!("the input of route `{}`", route.target.route),
            )
            .caused_by(&e)
        })?;
        let mut feed = self.plain(&route.target.route);
        if let (false, Some(feed)) = (input.is_event(), &mut feed) {
            let node = &self.config.node;
            let arn = rule_arn(&node.region, &node.account, route.bus, route.rule);
            let rule = route.rule.to_owned();
            feed.input = Some(Arc::new(move |event: &Event, accepted_ms| {
                let context = InputContext {
                    rule_name: &rule,
                    rule_arn: &arn,
                    ingestion_time: &rfc3339(accepted_ms),
                };
                let made = input.apply(event.text(), &context);
                made.map(Bytes::from).map_err(|e| {
                    Failure::permanent("BadInput", format!("the target's input: {e}")).caused_by(&e)
                })
            }));
        }
        Ok(feed)
    }

    pub(super) fn queue(&self, name: &str, handler: &str, feeds: Vec<Feed>) -> LogQueue {
        let router = self.router.clone();
        LogQueue::new(
            name.to_owned(),
            handler.to_owned(),
            self.bus.clone(),
            feeds,
            Arc::new(move |out: Outgoing| router.plan(out)),
            self.clock.clone(),
        )
    }
}

/// Hands messages on to a bus one batch after the other: what is ordered by a key there
/// would otherwise be told in an order that depends on which batch was done first.
fn forward(bus: String, options: &mut DeliveryOptions) -> Arc<dyn Work> {
    options.concurrency = 1;
    options.batch.size = FORWARDED;
    Arc::new(ForwardHandler::new(bus))
}

/// How a consumer of one route is fed.
fn single_options(retry: &RetryPolicy) -> DeliveryOptions {
    DeliveryOptions {
        batch: crate::delivery::BatchOptions {
            size: 10,
            ..Default::default()
        },
        retry: retry.clone(),
        timeout: Duration::from_secs(60),
        ..DeliveryOptions::default()
    }
}

/// The runtime's part in transforms.
fn transform_env(config: &Config, places: &Places) -> Result<TransformEnv, Failure> {
    let data = &config.node.data;
    Ok(TransformEnv {
        lake: data.join("lake"),
        warehouse: warehouse::place(config, places)?,
        rejects: data.join("rejects"),
        quarantine: data.join("quarantine"),
        scratch: data.join("scratch"),
        memory_bytes: config.node.query_memory_bytes,
        progress_every: Duration::from_secs(2),
    })
}
