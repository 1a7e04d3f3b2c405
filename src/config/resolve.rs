//! From what was written to what is used: names are looked up, and what depends
//! on several declarations is computed.

use super::connection::Connection;
use super::model::{
    Backing, Handler, HandlerKind, Load, Queue, Rule, Schedule, Subscription, Target, To, Topic,
};
use super::publish::{Publish, PublishTo, RawPublish};
use super::raw::{
    Named, Raw, RawAmqpQueue, RawBacking, RawHandler, RawKind, RawLoad, RawQueue, RawRetry,
    RawRule, RawSource, RawSqsQueue, RawSubscription, RawTarget, RawTo,
};
use super::read::{At, Cx};
use super::sources::{QueueSource, Source};
use crate::delivery::DeliveryOptions;
use crate::drivers::amqp::QueueOptions;
use crate::drivers::sqs::QueueOptions as SqsQueueOptions;
use crate::emit::Notify;
use crate::error::{Diagnostic, Place, codes};
use crate::topics;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Added to the longest timeout, so that a message is not received again while
/// its handler is being stopped.
const VISIBILITY_MARGIN: Duration = Duration::from_secs(30);

/// Messages that are on their way to a source at most, unless it is said: on AMQP,
/// and on SQS.
const SOURCE_PREFETCH: (u16, usize) = (1_000, 500);

/// The sections of a configuration, resolved.
#[derive(Default)]
pub(super) struct Sections {
    pub connections: BTreeMap<String, Connection>,
    pub sources: BTreeMap<String, Source>,
    pub queues: BTreeMap<String, Queue>,
    pub rules: BTreeMap<String, Rule>,
    pub handlers: BTreeMap<String, Handler>,
    pub topics: BTreeMap<String, Topic>,
    pub schedules: BTreeMap<String, Schedule>,
}

/// Resolves `raw`. `whole` is false when a file could not be read: then names
/// that are missing may be in it, and are not reported.
pub(super) fn resolve(raw: Raw, cx: &Cx<'_>, whole: bool) -> Sections {
    let kind = |n: &Named<Connection>| Some((n.name.clone(), n.value.as_ref()?.kind()));
    let names = Names {
        connections: names(&raw.connections),
        kinds: raw.connections.iter().filter_map(kind).collect(),
        queues: names(&raw.queues),
        handlers: names(&raw.handlers),
        topics: names(&raw.topics),
        cx,
        whole,
    };
    let retries = Retries::of(&raw);
    let mut routes = BTreeMap::new();
    let mut sections = Sections {
        queues: queues(&raw, &names, &retries),
        connections: values(raw.connections),
        sources: sources(raw.sources, &names),
        schedules: values(raw.schedules),
        ..Sections::default()
    };
    for rule in raw.rules {
        let Some(value) = rule.value else { continue };
        if let Some(resolved) = resolve_rule(&rule.name, value, &names, &retries, &mut routes) {
            sections.rules.insert(rule.name, resolved);
        }
    }
    for topic in raw.topics {
        let subscriptions = topic.value.into_iter().flatten();
        let subscriptions = subscriptions.filter_map(|s| {
            let route = topics::route_of(&topic.name, &s.name);
            let resolved = resolve_subscription(route, s.value?, &names, &retries);
            Some((s.name, resolved))
        });
        let resolved = Topic {
            bus: topics::bus_of(&topic.name),
            subscriptions: subscriptions.collect(),
        };
        sections.topics.insert(topic.name, resolved);
    }
    for handler in raw.handlers {
        if let Some(resolved) = handler
            .value
            .and_then(|value| resolve_handler(value, &names))
        {
            sections.handlers.insert(handler.name, resolved);
        }
    }
    sections
}

fn values<T>(named: Vec<Named<T>>) -> BTreeMap<String, T> {
    named
        .into_iter()
        .filter_map(|n| Some((n.name, n.value?)))
        .collect()
}

fn names<T>(named: &[Named<T>]) -> BTreeSet<String> {
    named.iter().map(|n| n.name.clone()).collect()
}

/// What is declared.
struct Names<'a> {
    connections: BTreeSet<String>,
    kinds: BTreeMap<String, &'static str>,
    queues: BTreeSet<String>,
    handlers: BTreeSet<String>,
    topics: BTreeSet<String>,
    cx: &'a Cx<'a>,
    whole: bool,
}

impl Names<'_> {
    /// Reports a name that nothing declares.
    fn check(&self, what: &str, known: &BTreeSet<String>, name: &At<String>) {
        if !self.whole || known.contains(&name.value) {
            return;
        }
        let message = format!("the {what} `{}` is not declared", name.value);
        let mut diagnostic =
            Diagnostic::error(&codes::UNKNOWN_NAME, message).at(name.place.clone());
        let elsewhere = [
            ("connection", &self.connections),
            ("queue", &self.queues),
            ("handler", &self.handlers),
            ("topic", &self.topics),
        ]
        .into_iter()
        .find(|(_, names)| names.contains(&name.value));
        diagnostic = match elsewhere {
            Some((other, _)) => {
                diagnostic.hint(format!("`{}` is the name of a {other}", name.value))
            }
            None => diagnostic.suggest(&name.value, known.iter().map(String::as_str)),
        };
        if known.is_empty() && elsewhere.is_none() {
            diagnostic =
                diagnostic.hint(format!("declare it: `{what}s: {{ {}: {{}} }}`", name.value));
        }
        self.cx.report(diagnostic);
    }
}

impl Names<'_> {
    /// Reports a connection that nothing declares, or that is not of this kind.
    fn connection(&self, kind: &str, name: &At<String>) {
        self.connection_of(&[kind], name);
    }

    /// Reports a connection that nothing declares, or that is of none of these kinds.
    fn connection_of(&self, kinds: &[&str], name: &At<String>) {
        self.check("connection", &self.connections, name);
        let declared = self.kinds.get(&name.value);
        let Some(declared) = declared.filter(|k| !kinds.contains(k)) else {
            return;
        };
        let kind = kinds.join("` or `");
        let message = format!(
            "the connection `{}` is of kind `{declared}`; `{kind}` is needed here",
            name.value
        );
        let diagnostic = Diagnostic::error(&codes::WRONG_CONNECTION, message);
        let diagnostic = diagnostic.at(name.place.clone());
        let fitting = self.kinds.iter().filter(|(_, k)| kinds.contains(k));
        let fitting: Vec<&str> = fitting.map(|(name, _)| name.as_str()).collect();
        self.cx.report(match fitting.is_empty() {
            true => diagnostic,
            false => diagnostic.hint(format!(
                "these are of kind `{kind}`: {}",
                crate::error::quoted(&fitting)
            )),
        });
    }
}

/// Retry policies as written, by the name of the queue and the handler.
struct Retries {
    queues: BTreeMap<String, RawRetry>,
    handlers: BTreeMap<String, RawRetry>,
    /// Queue -> the first handler that reads it.
    readers: BTreeMap<String, String>,
}

impl Retries {
    fn of(raw: &Raw) -> Self {
        let queue = |n: &Named<RawQueue>| Some((n.name.clone(), n.value.as_ref()?.retry.clone()));
        let handler =
            |n: &Named<RawHandler>| Some((n.name.clone(), n.value.as_ref()?.retry.clone()));
        let mut readers = BTreeMap::new();
        for handler in &raw.handlers {
            for queue in handler.value.iter().flat_map(|h| &h.from) {
                readers
                    .entry(queue.value.clone())
                    .or_insert_with(|| handler.name.clone());
            }
        }
        Self {
            queues: raw.queues.iter().filter_map(queue).collect(),
            handlers: raw.handlers.iter().filter_map(handler).collect(),
            readers,
        }
    }

    /// The queue's own words, completed from those of the first handler that reads it.
    fn of_queue(&self, name: &str) -> RawRetry {
        let queue = self.queues.get(name).cloned().unwrap_or_default();
        let reader = self.readers.get(name);
        let reader = reader.and_then(|reader| self.handlers.get(reader));
        queue.or(&reader.cloned().unwrap_or_default())
    }

    /// The target's own words, completed from the queue's and the handler's.
    fn complete(&self, own: &RawRetry, to: &RawTo) -> RawRetry {
        let handler = |name: &String| self.handlers.get(name).cloned().unwrap_or_default();
        match to {
            RawTo::Handler(name) => own.or(&handler(&name.value)),
            RawTo::Queue(name) => own.or(&self.of_queue(&name.value)),
            _ => own.clone(),
        }
    }
}

fn queues(raw: &Raw, names: &Names<'_>, retries: &Retries) -> BTreeMap<String, Queue> {
    let mut queues = BTreeMap::new();
    let mut timeouts: BTreeMap<&str, Duration> = BTreeMap::new();
    // Messages that a queue's handlers work on at a time.
    let mut at_work: BTreeMap<&str, usize> = BTreeMap::new();
    for handler in raw.handlers.iter().filter_map(|h| h.value.as_ref()) {
        for queue in &handler.from {
            let longest = timeouts.entry(&queue.value).or_default();
            *longest = handler.timeout.max(*longest);
            *at_work.entry(&queue.value).or_default() += handler.batch.size * handler.concurrency;
        }
    }
    for named in &raw.queues {
        let Some(queue) = &named.value else { continue };
        let name = named.name.as_str();
        let longest = timeouts.get(name).copied();
        let default = longest.unwrap_or(DeliveryOptions::default().timeout) + VISIBILITY_MARGIN;
        if let (Some(visibility), Some(longest)) = (&queue.visibility, longest)
            && visibility.value < longest
        {
            let timeout = super::format_duration(longest);
            let message =
                format!("`visibility` is shorter than the handler's timeout of `{timeout}`");
            let diagnostic =
                Diagnostic::warning(&codes::SHORT_VISIBILITY, message).at(visibility.place.clone());
            names.cx.report(
                diagnostic
                    .hint("a message that is still being handled would be handled a second time"),
            );
        }
        let resolved = Queue {
            visibility: queue.visibility.as_ref().map_or(default, |v| v.value),
            delay: queue.delay,
            order_by: queue.order_by.clone(),
            retry: retries.of_queue(&named.name).policy(),
            on: backing(&queue.on, named, at_work.get(name).copied(), names),
            backlog: queue.backlog,
            drain_from: queue
                .drain_from
                .as_ref()
                .map(|from| backing(from, named, at_work.get(name).copied(), names)),
        };
        queues.insert(named.name.clone(), resolved);
    }
    queues
}

fn sources(raw: Vec<Named<RawSource>>, names: &Names<'_>) -> BTreeMap<String, Source> {
    let resolve = |named: Named<RawSource>| {
        let source = match named.value? {
            RawSource::Whole(source) => source,
            RawSource::Queue { bus, on, reading } => Source::Queue(QueueSource {
                bus,
                on: match on {
                    RawBacking::Log => return None,
                    RawBacking::Amqp(amqp) => {
                        let prefetch = amqp.prefetch.unwrap_or(SOURCE_PREFETCH.0);
                        amqp_queue(&amqp, &named.name, prefetch, false, names)
                    }
                    RawBacking::Sqs(sqs) => {
                        let prefetch = sqs.prefetch.unwrap_or(SOURCE_PREFETCH.1);
                        sqs_queue(&sqs, &named.name, prefetch, false, names)
                    }
                },
                format: reading.format,
                visibility: reading.visibility,
            }),
        };
        Some((named.name, source))
    };
    raw.into_iter().filter_map(resolve).collect()
}

/// Where a queue's messages wait. `at_work`: how many messages its handlers work
/// on at a time.
fn backing(
    raw: &RawBacking,
    queue: &Named<RawQueue>,
    at_work: Option<usize>,
    names: &Names<'_>,
) -> Backing {
    // So many that the next batch is there when one is done.
    let prefetch = at_work.unwrap_or(0).saturating_mul(2).max(20);
    let ordered = queue.value.as_ref().is_some_and(|q| q.order_by.is_some());
    let amqp = match raw {
        RawBacking::Log => return Backing::Log,
        RawBacking::Sqs(sqs) => {
            let prefetch = sqs.prefetch.unwrap_or(prefetch);
            return sqs_queue(sqs, &queue.name, prefetch, ordered, names);
        }
        RawBacking::Amqp(amqp) => amqp,
    };
    let prefetch = u16::try_from(prefetch).unwrap_or(u16::MAX);
    let prefetch = amqp.prefetch.unwrap_or(prefetch);
    amqp_queue(amqp, &queue.name, prefetch, ordered, names)
}

/// A queue on an AMQP broker; `name` is the one that it has here.
fn amqp_queue(
    amqp: &RawAmqpQueue,
    name: &str,
    prefetch: u16,
    ordered: bool,
    names: &Names<'_>,
) -> Backing {
    names.connection("amqp", &amqp.connection);
    Backing::Amqp {
        connection: amqp.connection.value.clone(),
        options: QueueOptions {
            queue: amqp.queue.clone().unwrap_or_else(|| name.to_owned()),
            declare: amqp.declare,
            kind: amqp.kind,
            single_active: ordered,
            prefetch,
            delivery_limit: amqp.delivery_limit,
            dead_letter_exchange: amqp.dead_letter_exchange.clone(),
            dead_letter_routing_key: amqp.dead_letter_routing_key.clone(),
            max_message_bytes: amqp.max_message_bytes,
        },
    }
}

/// A queue on SQS; `name` is the one that it has here.
fn sqs_queue(
    sqs: &RawSqsQueue,
    name: &str,
    prefetch: usize,
    ordered: bool,
    names: &Names<'_>,
) -> Backing {
    names.connection("aws", &sqs.connection);
    if let Some(given) = &sqs.queue
        && ordered
        && !given.value.ends_with(".fifo")
    {
        let message = "`order_by` needs a FIFO queue, whose name ends with `.fifo`";
        let diagnostic = Diagnostic::error(&codes::BAD_VALUE, message).at(given.place.clone());
        names
            .cx
            .report(diagnostic.hint("a standard queue of SQS keeps no order"));
    }
    let suffix = if ordered { ".fifo" } else { "" };
    Backing::Sqs {
        connection: sqs.connection.value.clone(),
        options: SqsQueueOptions {
            queue: match &sqs.queue {
                Some(given) => given.value.clone(),
                None => format!("{name}{suffix}"),
            },
            declare: sqs.declare,
            prefetch,
            max_message_bytes: sqs.max_message_bytes,
        },
    }
}

fn resolve_rule(
    name: &str,
    rule: RawRule,
    names: &Names<'_>,
    retries: &Retries,
    routes: &mut BTreeMap<String, Place>,
) -> Option<Rule> {
    let targets: Vec<Target> = rule
        .targets
        .into_iter()
        .map(|target| resolve_target(name, target, names, retries, routes))
        .collect();
    let (pattern, pattern_text) = rule.pattern?;
    Some(Rule {
        description: rule.description,
        bus: rule.bus,
        enabled: rule.enabled,
        start: rule.start,
        pattern: Arc::new(pattern),
        pattern_text,
        targets,
    })
}

fn resolve_target(
    rule: &str,
    target: RawTarget,
    names: &Names<'_>,
    retries: &Retries,
    routes: &mut BTreeMap<String, Place>,
) -> Target {
    let retry = retries.complete(&target.retry, &target.to).policy();
    let to = resolve_to(target.to, names);
    let default_id = || match &to {
        To::Queue(name) | To::Handler(name) | To::Topic(name) | To::Bus(name) => name.clone(),
        To::Webhook(_) => "webhook".to_owned(),
        To::Exec(_) => "exec".to_owned(),
        To::Publish(publish) => publish.kind().to_owned(),
        To::Pull => "pull".to_owned(),
    };
    let route = format!("{rule}/{}", target.id.unwrap_or_else(default_id));
    if let Some(first) = routes.get(&route) {
        let message = format!("two targets have the route name `{route}`");
        let diagnostic =
            Diagnostic::error(&codes::DUPLICATE_ROUTE, message).at(target.place.clone());
        let diagnostic = diagnostic.related(first.clone(), "the first is here");
        names
            .cx
            .report(diagnostic.hint("give one of them an `id` of its own"));
    } else {
        routes.insert(route.clone(), target.place);
    }
    Target {
        route,
        to,
        input: target.input,
        retry,
    }
}

fn resolve_load(load: RawLoad, names: &Names<'_>) -> Load {
    if let Some(to) = &load.to {
        names.connection_of(&["postgres", "redshift"], to);
    }
    Load {
        options: load.options,
        to: load.to.map(|to| to.value),
        statement_timeout: load.statement_timeout,
    }
}

fn resolve_to(to: RawTo, names: &Names<'_>) -> To {
    match to {
        RawTo::Queue(name) => {
            names.check("queue", &names.queues, &name);
            To::Queue(name.value)
        }
        RawTo::Handler(name) => {
            names.check("handler", &names.handlers, &name);
            To::Handler(name.value)
        }
        RawTo::Topic(name) => {
            names.check("topic", &names.topics, &name);
            To::Topic(name.value)
        }
        RawTo::Bus(name) => To::Bus(name),
        RawTo::Webhook(webhook) => To::Webhook(webhook),
        RawTo::Exec(exec) => To::Exec(exec),
        RawTo::Publish(publish) => To::Publish(resolve_publish(publish, names)),
        RawTo::Pull => To::Pull,
    }
}

fn resolve_publish(publish: RawPublish, names: &Names<'_>) -> Publish {
    let kind = match publish.to {
        PublishTo::Exchange { .. } => "amqp",
        PublishTo::Topic(_) => "aws",
    };
    names.connection(kind, &publish.connection);
    Publish {
        connection: publish.connection.value,
        to: publish.to,
        order_by: publish.order_by,
        circuit: publish.circuit,
    }
}

fn resolve_subscription(
    route: String,
    subscription: RawSubscription,
    names: &Names<'_>,
    retries: &Retries,
) -> Subscription {
    let (filter, filter_text) = subscription.filter.unzip();
    let target = subscription.target;
    Subscription {
        filter,
        filter_text,
        filter_on: subscription.filter_on,
        target: Target {
            route,
            retry: retries.complete(&target.retry, &target.to).policy(),
            to: resolve_to(target.to, names),
            input: target.input,
        },
    }
}

fn resolve_handler(handler: RawHandler, names: &Names<'_>) -> Option<Handler> {
    let mut from: Vec<String> = Vec::new();
    for queue in handler.from {
        names.check("queue", &names.queues, &queue);
        if !from.contains(&queue.value) {
            from.push(queue.value);
        }
    }
    for topic in [&handler.success, &handler.failure].into_iter().flatten() {
        names.check("topic", &names.topics, topic);
    }
    Some(Handler {
        from,
        delivery: DeliveryOptions {
            batch: handler.batch,
            concurrency: handler.concurrency,
            timeout: handler.timeout,
            rate: handler.rate,
            retry: handler.retry.policy(),
        },
        kind: match handler.kind? {
            RawKind::Transform(transform) => HandlerKind::Transform(transform),
            RawKind::Extract(extract) => HandlerKind::Extract(extract),
            RawKind::Load(load) => HandlerKind::Load(resolve_load(load, names)),
            RawKind::Maintain(maintain) => HandlerKind::Maintain(maintain),
            RawKind::Exec(exec) => HandlerKind::Exec(exec),
            RawKind::Http(webhook) => HandlerKind::Http(webhook),
        },
        notify: Notify {
            success: handler.success.map(|t| t.value),
            failure: handler.failure.map(|t| t.value),
        },
    })
}
