//! Notifications on their way from the source that brings them to the bucket
//! sources that they are for.

use super::Live;
use crate::config::{Config, Notifications, Source};
use crate::sources::{Incoming, Intake, IntakeError, Taken};
use arc_swap::ArcSwap;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// When to come again while a bucket source is being started.
const COME_AGAIN: Duration = Duration::from_millis(200);

/// Stands between one source and the buckets that it brings notifications of.
pub(super) struct Notices {
    /// The source that brings them.
    pub source: String,
    /// What runs now.
    pub live: Arc<ArcSwap<Live>>,
    /// Where goes what is of no bucket that listens.
    pub bus: Arc<dyn Intake>,
}

/// The bucket sources that `source` brings notifications for.
fn listeners<'a>(config: &'a Config, source: &'a str) -> impl Iterator<Item = &'a String> {
    let sources = config.sources.iter();
    sources.filter_map(move |(name, one)| match one {
        Source::S3(s3) => match &s3.notifications {
            Some(Notifications::From(from)) if from == source => Some(name),
            _ => None,
        },
        _ => None,
    })
}

impl Notices {
    async fn told(&self, batch: Vec<Incoming>) -> Result<Vec<Taken>, IntakeError> {
        let live = self.live.load_full();
        let mut answers: Vec<Option<Taken>> = vec![None; batch.len()];
        for name in listeners(&live.config, &self.source) {
            let bucket = live.buckets.get(name).ok_or_else(|| IntakeError::Busy {
                reason: format!("the source `{name}` has not started"),
                retry_after: COME_AGAIN,
                overloaded: false,
            })?;
            let its = batch.iter().enumerate();
            let (places, hints): (Vec<usize>, Vec<Incoming>) = its
                .filter(|(_, incoming)| bucket.is_about(&incoming.event))
                .map(|(place, incoming)| (place, incoming.clone()))
                .unzip();
            if hints.is_empty() {
                continue;
            }
            for (place, taken) in places.into_iter().zip(bucket.take(hints).await?) {
                answers[place] = Some(worse(answers[place].take(), taken));
            }
        }
        let others = batch.into_iter().zip(&answers);
        let others: Vec<Incoming> = others
            .filter(|(_, answer)| answer.is_none())
            .map(|(incoming, _)| incoming)
            .collect();
        let mut handed = match others.is_empty() {
            true => Vec::new(),
            false => self.bus.take(others).await?,
        }
        .into_iter();
        let missing = || Taken::Refused("there was no answer for it".to_owned());
        Ok(answers
            .into_iter()
            .map(|answer| answer.or_else(|| handed.next()).unwrap_or_else(missing))
            .collect())
    }
}

/// The answer that says more, where two buckets were told of the same.
fn worse(one: Option<Taken>, other: Taken) -> Taken {
    let weight = |taken: &Taken| match taken {
        Taken::Refused(_) => 2,
        Taken::Accepted(_) => 1,
        Taken::Duplicate(_) => 0,
    };
    match one {
        Some(one) if weight(&one) >= weight(&other) => one,
        _ => other,
    }
}

impl Intake for Notices {
    fn take(&self, batch: Vec<Incoming>) -> BoxFuture<'_, Result<Vec<Taken>, IntakeError>> {
        self.told(batch).boxed()
    }
}
