//! HTTP endpoints: what they share, and what a subscription adds to them.

use crate::clock::SharedClock;
use crate::config::{Config, Route, To, Webhook, WebhookFormat};
use crate::handlers::circuit::{Circuit, CircuitOptions};
use crate::handlers::http::{self, Plain, Shape, WebhookHandler};
use crate::handlers::{Failure, Handler as Work};
use crate::state::{State, StateError};
use crate::topics::{
    self, Links, Signer, SignerError, Sns, Style, Subscriber, Subscription, Subscriptions, Terms,
    TopicName, topic_arn,
};
use arc_swap::ArcSwap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;

/// What endpoints share, and what of them outlives a reload.
pub(super) struct Endpoints {
    client: reqwest::Client,
    clock: SharedClock,
    state: State,
    region: String,
    account: String,
    links: Links,
    /// Made when something is to be sent in SNS's shape.
    signer: OnceCell<Arc<Signer>>,
    subscriptions: ArcSwap<Subscriptions>,
    /// By the name of the route or handler, with the address that it is for.
    circuits: Mutex<BTreeMap<String, (String, Arc<Circuit>)>>,
}

/// Why endpoints cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum EndpointsError {
    /// The side state cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// Nothing can be signed.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// There is no HTTP client.
    #[error(transparent)]
    Client(#[from] Failure),
}

impl Endpoints {
    /// No endpoints yet.
    pub fn new(
        config: &Config,
        state: &State,
        clock: &SharedClock,
    ) -> Result<Self, EndpointsError> {
        Ok(Self {
            client: http::client()?,
            clock: clock.clone(),
            state: state.clone(),
            region: config.node.region.clone(),
            account: config.node.account.clone(),
            links: Links::new(config.node.public_url.clone()),
            signer: OnceCell::new(),
            subscriptions: ArcSwap::default(),
            circuits: Mutex::default(),
        })
    }

    /// How the subscriptions of `config` stand; changes nothing yet.
    pub async fn prepare(&self, config: &Config) -> Result<Subscriptions, EndpointsError> {
        let hooks: Vec<(&str, &Webhook)> = config
            .topics
            .values()
            .flat_map(|topic| topic.subscriptions.values())
            .filter_map(|subscription| match &subscription.target.to {
                To::Webhook(webhook) => Some((subscription.target.route.as_str(), webhook)),
                _ => None,
            })
            .collect();
        let sns = |hook: &Webhook| hook.format != WebhookFormat::Standard;
        if hooks.iter().any(|(_, hook)| sns(hook)) {
            let open = || async { Signer::open(&self.state).await.map(Arc::new) };
            self.signer.get_or_try_init(open).await?;
        }
        let terms = hooks.iter().map(|(route, webhook)| Terms {
            route: (*route).to_owned(),
            endpoint: webhook.url.reveal().to_owned(),
            confirm: webhook.confirm,
        });
        let before = self.subscriptions.load();
        let next = before.next(terms.collect(), &self.state, &self.clock);
        Ok(next.await?)
    }

    /// Puts `subscriptions` in force.
    pub async fn publish(
        &self,
        subscriptions: Subscriptions,
        config: &Config,
    ) -> Result<(), EndpointsError> {
        let kept = subscriptions.keep(&self.state).await;
        self.subscriptions.store(Arc::new(subscriptions));
        let routes: BTreeSet<&str> = config
            .targets()
            .map(|target| target.route.as_str())
            .chain(config.handlers.keys().map(String::as_str))
            .collect();
        let mut circuits = self.circuits.lock().unwrap_or_else(PoisonError::into_inner);
        circuits.retain(|name, _| routes.contains(name.as_str()));
        Ok(kept?)
    }

    pub fn subscriptions(&self) -> Arc<Subscriptions> {
        self.subscriptions.load_full()
    }

    pub fn circuits(&self) -> BTreeMap<String, Arc<Circuit>> {
        let circuits = self.circuits.lock().unwrap_or_else(PoisonError::into_inner);
        let all = circuits.iter();
        all.map(|(name, (_, circuit))| (name.clone(), Arc::clone(circuit)))
            .collect()
    }

    pub fn links(&self) -> &Links {
        &self.links
    }

    pub fn signer(&self) -> Option<&Arc<Signer>> {
        self.signer.get()
    }

    /// An endpoint that gets messages as they are.
    pub fn plain(&self, name: &str, webhook: &Webhook) -> Result<Arc<dyn Work>, Failure> {
        Ok(self.handler(name, webhook, Arc::new(Plain))?)
    }

    /// The endpoint of a rule's target or of a subscription.
    pub fn webhook(
        &self,
        route: &Route<'_>,
        webhook: &Webhook,
        subscriptions: &Subscriptions,
    ) -> Result<Arc<dyn Work>, Failure> {
        let name = &route.target.route;
        let Some(subscription) = subscriptions.get(name) else {
            return self.plain(name, webhook);
        };
        let sns = self.sns(route, webhook, subscription);
        let shape: Arc<dyn Shape> = match &sns {
            Some(sns) => Arc::<Sns>::clone(sns),
            None => Arc::new(Plain),
        };
        Ok(Arc::new(Subscriber::new(
            self.handler(name, webhook, shape)?,
            Arc::clone(subscription),
            self.links.clone(),
            sns.filter(|_| webhook.confirm),
            self.clock.clone(),
        )))
    }

    fn handler(
        &self,
        name: &str,
        webhook: &Webhook,
        shape: Arc<dyn Shape>,
    ) -> Result<Arc<WebhookHandler>, Failure> {
        let handler = WebhookHandler::new(
            webhook.options(),
            shape,
            self.circuit(name, webhook.url.reveal(), &webhook.circuit),
            self.client.clone(),
            self.clock.clone(),
        )?;
        Ok(Arc::new(handler))
    }

    /// The circuit breaker of an endpoint. It stays the same over reloads for as
    /// long as nothing about it changes.
    pub fn circuit(&self, name: &str, address: &str, options: &CircuitOptions) -> Arc<Circuit> {
        let mut circuits = self.circuits.lock().unwrap_or_else(PoisonError::into_inner);
        match circuits.get(name) {
            Some((known, circuit)) if known == address && circuit.options() == options => {
                Arc::clone(circuit)
            }
            _ => {
                let circuit = Circuit::new(options.clone(), self.clock.clone());
                circuits.insert(name.to_owned(), (address.to_owned(), Arc::clone(&circuit)));
                circuit
            }
        }
    }

    /// SNS's shape for a subscription, where it is wanted.
    fn sns(
        &self,
        route: &Route<'_>,
        webhook: &Webhook,
        subscription: &Arc<Subscription>,
    ) -> Option<Arc<Sns>> {
        let style = match webhook.format {
            WebhookFormat::Standard => return None,
            WebhookFormat::Raw => Style::Raw,
            WebhookFormat::Sns => Style::Wrapped,
        };
        let (topic, name) = route
            .target
            .route
            .strip_prefix(topics::BUS_PREFIX)?
            .split_once('/')?;
        let name = TopicName {
            topic: topic.to_owned(),
            subscription: name.to_owned(),
            arn: topic_arn(&self.region, &self.account, topic),
        };
        Some(Arc::new(Sns::new(
            name,
            style,
            Arc::clone(subscription),
            self.links.clone(),
            Arc::clone(self.signer.get()?),
        )))
    }
}
