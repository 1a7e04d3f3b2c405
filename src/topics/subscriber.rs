//! An endpoint as a subscriber: it gets messages while its subscription is
//! active, is asked to confirm where that is wanted, and may end it with a 410.

use super::{Links, Sns, State, Subscription};
use crate::clock::SharedClock;
use crate::handlers::http::WebhookHandler;
use crate::handlers::{Context, Failure, Handler, Message, Outcome};
use futures::future::BoxFuture;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long it takes until an endpoint is asked a second time to confirm; doubles.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Longest time between two such requests.
const ASK_AT_LEAST: Duration = Duration::from_secs(60 * 60);

/// Delivers to an endpoint while its subscription is active.
pub struct Subscriber {
    webhook: Arc<WebhookHandler>,
    subscription: Arc<Subscription>,
    links: Links,
    /// Where the endpoint has to confirm: what asks it to.
    asker: Option<Asker>,
    /// Ends the asking when this is dropped.
    asking: OnceLock<DropGuard>,
}

/// Asks an endpoint to confirm.
#[derive(Clone)]
struct Asker {
    webhook: Arc<WebhookHandler>,
    subscription: Arc<Subscription>,
    links: Links,
    sns: Arc<Sns>,
    clock: SharedClock,
}

impl Subscriber {
    /// Delivers through `webhook`. `sns`: the endpoint has to confirm first.
    #[must_use]
    pub fn new(
        webhook: Arc<WebhookHandler>,
        subscription: Arc<Subscription>,
        links: Links,
        sns: Option<Arc<Sns>>,
        clock: SharedClock,
    ) -> Self {
        let asker = sns.map(|sns| Asker {
            webhook: Arc::clone(&webhook),
            subscription: Arc::clone(&subscription),
            links: links.clone(),
            sns,
            clock,
        });
        Self {
            webhook,
            subscription,
            links,
            asker,
            asking: OnceLock::new(),
        }
    }

    /// From the first time that work is asked for, the endpoint is asked to confirm
    /// whenever the subscription waits for that.
    fn begin_asking(&self) {
        let Some(asker) = &self.asker else { return };
        self.asking.get_or_init(|| {
            let stop = CancellationToken::new();
            let (asker, stopped) = (asker.clone(), stop.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = asker.run() => {}
                }
            });
            stop.drop_guard()
        });
    }

    fn held() -> Failure {
        Failure::held(
            "SubscriptionHeld",
            "the subscription is not active: its messages wait",
        )
    }
}

impl Asker {
    async fn run(&self) {
        self.links.ready().await;
        loop {
            self.subscription.until(State::Pending).await;
            tokio::select! {
                () = self.subscription.until_not(State::Pending) => {}
                () = self.ask_again_and_again() => {}
            }
        }
    }

    async fn ask_again_and_again(&self) {
        let mut pause = ASK_AGAIN;
        loop {
            let asked = match self.sns.confirmation(self.clock.now_ms()) {
                Ok(request) => self.webhook.send(request).await,
                Err(failure) => Err(failure),
            };
            let note = match &asked {
                Ok(()) => "asked to confirm, no answer by its link yet".to_owned(),
                Err(failure) => format!("asked to confirm, but {failure}"),
            };
            tracing::info!(route = self.subscription.terms().route, note);
            self.subscription.note_asked(note);
            if let Err(failure) = asked
                && failure.code == "Http410"
                && gone(&self.subscription).await.is_ok()
            {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(ASK_AT_LEAST);
        }
    }
}

async fn gone(subscription: &Subscription) -> Result<(), super::Refused> {
    subscription.disable("its endpoint answered 410 Gone").await
}

impl Handler for Subscriber {
    fn open(&self) -> BoxFuture<'_, ()> {
        self.begin_asking();
        Box::pin(async {
            self.subscription.until(State::Active).await;
            self.links.ready().await;
            self.webhook.open().await;
        })
    }

    fn handle<'a>(&'a self, batch: &'a [Message], cx: &'a Context) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            if self.subscription.standing().state != State::Active {
                return Outcome::all_failed(batch.len(), &Self::held());
            }
            let mut outcome = self.webhook.handle(batch, cx).await;
            for result in &mut outcome.results {
                let Err(failure) = result else { continue };
                if failure.code != "Http410" {
                    continue;
                }
                // The message is not what was refused: it waits until somebody has looked.
                *failure = match gone(&self.subscription).await {
                    Ok(()) => Self::held(),
                    Err(e) => Failure::transient("NotDisabled", "410 Gone could not be recorded")
                        .caused_by(&e),
                };
            }
            outcome
        })
    }
}
