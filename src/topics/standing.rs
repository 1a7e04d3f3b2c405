//! Whether a subscription's messages flow: it waits for its endpoint to confirm,
//! is active, or is disabled. Kept in the side state, so it survives restarts;
//! messages wait on the subscription's route meanwhile.

use crate::clock::SharedClock;
use crate::state::StateError;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// What the keys in the side state begin with.
const PREFIX: &str = "subscription/";

/// Whether messages flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not until the endpoint has confirmed.
    Pending,
    /// They do.
    Active,
    /// Not until somebody enables the subscription again.
    Disabled,
}

/// How a subscription stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Whether messages flow.
    pub state: State,
    /// Since when, Unix milliseconds.
    pub since_ms: i64,
    /// Why it is disabled.
    pub reason: Option<String>,
    /// Whether the endpoint has confirmed, ever.
    pub confirmed: bool,
    /// Confirms; only the endpoint gets it.
    pub token: String,
    /// Ends the subscription; only the endpoint gets it.
    pub leave: String,
    /// A hash of the endpoint's address: another one has not confirmed yet.
    endpoint: String,
}

/// What a subscription asks of its endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Its route.
    pub route: String,
    /// Its endpoint's address.
    pub endpoint: String,
    /// Whether the endpoint has to confirm before messages flow.
    pub confirm: bool,
}

/// Why a subscription does not change.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The token is not the one that was sent.
    #[error("the token is not valid for this subscription")]
    Token,
    /// It was disabled meanwhile.
    #[error("the subscription is disabled; it has to be enabled first")]
    Disabled,
    /// The change could not be kept.
    #[error(transparent)]
    State(#[from] StateError),
}

/// A subscription with an endpoint.
pub struct Subscription {
    terms: Terms,
    standing: watch::Sender<Standing>,
    /// What came of asking the endpoint to confirm, for people.
    asked: Mutex<Option<String>>,
    changing: tokio::sync::Mutex<()>,
    state: crate::state::State,
    clock: SharedClock,
}

/// Every subscription with an endpoint, by route.
#[derive(Default)]
pub struct Subscriptions {
    all: BTreeMap<String, Arc<Subscription>>,
    /// What is new and not yet on disk.
    changed: Vec<(String, Vec<u8>)>,
}

impl Subscriptions {
    /// The subscriptions with these terms: those that are known and unchanged stay
    /// the same, others are as the side state has them, or begin. Nothing is
    /// written before [`Subscriptions::keep`].
    ///
    /// # Errors
    /// When the side state cannot be read.
    pub async fn next(
        &self,
        terms: Vec<Terms>,
        state: &crate::state::State,
        clock: &SharedClock,
    ) -> Result<Self, StateError> {
        let kept: BTreeMap<String, Vec<u8>> = state.list(PREFIX).await?.into_iter().collect();
        let mut next = Self::default();
        for terms in terms {
            let route = terms.route.clone();
            if let Some(known) = self.get(&route).filter(|known| known.terms == terms) {
                next.all.insert(route, Arc::clone(known));
                continue;
            }
            let key = format!("{PREFIX}{route}");
            let was: Option<Standing> = kept
                .get(&key)
                .and_then(|bytes| serde_json::from_slice(bytes).ok());
            let is = begin(was.clone(), &terms, clock.now_ms());
            if was.as_ref() != Some(&is) {
                next.changed.push((key, bytes(&is)?));
            }
            let subscription = Subscription {
                standing: watch::Sender::new(is),
                asked: Mutex::default(),
                changing: tokio::sync::Mutex::default(),
                state: state.clone(),
                clock: clock.clone(),
                terms,
            };
            next.all.insert(route, Arc::new(subscription));
        }
        Ok(next)
    }

    /// Writes down what is new.
    ///
    /// # Errors
    /// When the side state cannot be written.
    pub async fn keep(&self, state: &crate::state::State) -> Result<(), StateError> {
        match self.changed.is_empty() {
            true => Ok(()),
            false => state.put_all(self.changed.clone()).await,
        }
    }

    /// The subscription that a route leads to, if it has an endpoint.
    #[must_use]
    pub fn get(&self, route: &str) -> Option<&Arc<Subscription>> {
        self.all.get(route)
    }

    /// Whether a route's messages wait for a word from outside.
    #[must_use]
    pub fn held(&self, route: &str) -> bool {
        self.get(route)
            .is_some_and(|s| s.standing().state != State::Active)
    }

    /// All of them, by route.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<Subscription>)> {
        self.all.iter().map(|(route, one)| (route.as_str(), one))
    }
}

impl Subscription {
    /// What it asks of its endpoint.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// How it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Resolves once the state is `wanted`.
    pub async fn until(&self, wanted: State) {
        let mut changes = self.standing.subscribe();
        // The sender is held here, so waiting cannot fail.
        changes.wait_for(|s| s.state == wanted).await.ok();
    }

    /// Resolves once the state is no longer `left`.
    pub async fn until_not(&self, left: State) {
        let mut changes = self.standing.subscribe();
        changes.wait_for(|s| s.state != left).await.ok();
    }

    /// What came of asking the endpoint to confirm, for people.
    #[must_use]
    pub fn asked(&self) -> Option<String> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.clone()
    }

    /// Notes what came of asking the endpoint to confirm.
    pub fn note_asked(&self, what: String) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        *asked = Some(what);
    }

    /// The endpoint confirms. Confirming twice is no mistake.
    ///
    /// # Errors
    /// When the token is wrong, the subscription is disabled, or the change cannot be kept.
    pub async fn confirm(&self, token: &str) -> Result<(), Refused> {
        self.change(|standing| {
            if !same(&standing.token, token) {
                return Err(Refused::Token);
            }
            if standing.state == State::Disabled {
                return Err(Refused::Disabled);
            }
            standing.state = State::Active;
            standing.confirmed = true;
            Ok(())
        })
        .await
    }

    /// The endpoint leaves by its link. It has to confirm anew to come back.
    ///
    /// # Errors
    /// When the token is wrong or the change cannot be kept.
    pub async fn leave(&self, token: &str) -> Result<(), Refused> {
        self.change(|standing| {
            if !same(&standing.leave, token) {
                return Err(Refused::Token);
            }
            standing.state = State::Disabled;
            standing.reason = Some("unsubscribed by its endpoint".to_owned());
            standing.confirmed = false;
            standing.token = secret();
            Ok(())
        })
        .await
    }

    /// Disables it, for this reason.
    ///
    /// # Errors
    /// When the change cannot be kept.
    pub async fn disable(&self, reason: &str) -> Result<(), Refused> {
        self.change(|standing| {
            standing.state = State::Disabled;
            standing.reason = Some(reason.to_owned());
            Ok(())
        })
        .await
    }

    /// Ends what [`Subscription::disable`] and [`Subscription::leave`] did; an
    /// endpoint that has to confirm and has not is asked again.
    ///
    /// # Errors
    /// When the change cannot be kept.
    pub async fn enable(&self) -> Result<(), Refused> {
        let confirm = self.terms.confirm;
        self.change(|standing| {
            standing.reason = None;
            standing.state = match confirm && !standing.confirmed {
                true => State::Pending,
                false => State::Active,
            };
            Ok(())
        })
        .await
    }

    /// Changes how it stands: first on disk, then for everybody to see.
    async fn change(
        &self,
        change: impl FnOnce(&mut Standing) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        let _one_at_a_time = self.changing.lock().await;
        let was = self.standing();
        let mut is = was.clone();
        change(&mut is)?;
        if is == was {
            return Ok(());
        }
        if is.state != was.state {
            is.since_ms = self.clock.now_ms();
        }
        let key = format!("{PREFIX}{}", self.terms.route);
        self.state.put(&key, &bytes(&is)?).await?;
        tracing::info!(
            route = self.terms.route, state = ?is.state,
            reason = is.reason.as_deref().unwrap_or_default(), "subscription"
        );
        self.standing.send_replace(is);
        Ok(())
    }
}

/// How a subscription stands at the start, given how it stood.
fn begin(was: Option<Standing>, terms: &Terms, now_ms: i64) -> Standing {
    let endpoint: String = Sha256::digest(terms.endpoint.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let fresh = |state| Standing {
        state,
        since_ms: now_ms,
        reason: None,
        confirmed: false,
        token: secret(),
        leave: secret(),
        endpoint: endpoint.clone(),
    };
    let first = if terms.confirm {
        State::Pending
    } else {
        State::Active
    };
    match was {
        Some(was) if was.endpoint == endpoint => match was.state {
            State::Active if terms.confirm && !was.confirmed => fresh(State::Pending),
            State::Pending if !terms.confirm => Standing {
                state: State::Active,
                since_ms: now_ms,
                ..was
            },
            _ => was,
        },
        _ => fresh(first),
    }
}

fn bytes(standing: &Standing) -> Result<Vec<u8>, StateError> {
    serde_json::to_vec(standing).map_err(|e| StateError::Commit(e.to_string()))
}

/// A text that nobody can guess: 244 random bits.
fn secret() -> String {
    let part = || uuid::Uuid::new_v4().simple().to_string();
    format!("{}{}", part(), part())
}

/// Compares without telling by its time how much was right.
fn same(known: &str, given: &str) -> bool {
    Sha256::digest(known.as_bytes()) == Sha256::digest(given.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(confirm: bool, endpoint: &str) -> Terms {
        Terms {
            route: "topic/orders/ops".to_owned(),
            endpoint: endpoint.to_owned(),
            confirm,
        }
    }

    /// Opens the state in `folder` anew, as after a restart.
    async fn open(folder: &std::path::Path, terms: Terms) -> Arc<Subscription> {
        let state = crate::state::State::open(&folder.join("state.sqlite")).unwrap();
        let clock = crate::clock::system();
        let none = Subscriptions::default();
        let all = none.next(vec![terms], &state, &clock).await.unwrap();
        all.keep(&state).await.unwrap();
        Arc::clone(all.get("topic/orders/ops").unwrap())
    }

    #[tokio::test]
    async fn a_subscription_waits_for_its_endpoint_and_stays_confirmed_over_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let subscription = open(folder.path(), terms(true, "http://a")).await;
        let token = subscription.standing().token;
        assert_eq!(subscription.standing().state, State::Pending);
        assert!(matches!(
            subscription.confirm("guess").await,
            Err(Refused::Token)
        ));
        assert_eq!(subscription.standing().state, State::Pending);
        drop(subscription);

        let again = open(folder.path(), terms(true, "http://a")).await;
        again.confirm(&token).await.unwrap();
        again.confirm(&token).await.unwrap();
        drop(again);
        let after = open(folder.path(), terms(true, "http://a")).await;
        assert_eq!(after.standing().state, State::Active);
        drop(after);
        let moved = open(folder.path(), terms(true, "http://b")).await;
        assert_eq!(
            moved.standing().state,
            State::Pending,
            "another address has not confirmed"
        );
    }

    #[tokio::test]
    async fn a_disabled_one_stays_so_until_it_is_enabled() {
        let folder = tempfile::tempdir().unwrap();
        let subscription = open(folder.path(), terms(false, "http://a")).await;
        subscription.disable("it answered 410 Gone").await.unwrap();
        drop(subscription);
        let again = open(folder.path(), terms(false, "http://a")).await;
        let standing = again.standing();
        assert_eq!(standing.state, State::Disabled);
        assert_eq!(standing.reason.as_deref(), Some("it answered 410 Gone"));
        again.enable().await.unwrap();
        assert_eq!(again.standing().state, State::Active);
        assert_eq!(again.standing().reason, None);
    }

    #[tokio::test]
    async fn who_has_left_must_confirm_anew_with_a_new_token() {
        let folder = tempfile::tempdir().unwrap();
        let subscription = open(folder.path(), terms(true, "http://a")).await;
        let first = subscription.standing();
        subscription.confirm(&first.token).await.unwrap();
        subscription.leave(&first.leave).await.unwrap();
        assert!(matches!(
            subscription
                .confirm(&subscription.standing().token)
                .await
                .unwrap_err(),
            Refused::Disabled
        ));
        subscription.enable().await.unwrap();
        assert_eq!(subscription.standing().state, State::Pending);
        assert!(matches!(
            subscription.confirm(&first.token).await,
            Err(Refused::Token)
        ));
    }
}
