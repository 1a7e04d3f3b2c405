//! A set of tasks that can be waited for.

use std::future::Future;
use std::sync::Arc;
use tokio::sync::watch;

/// Counts the tasks that were spawned through it; clones share the count.
#[derive(Clone, Default)]
pub struct Tasks {
    running: Arc<watch::Sender<usize>>,
    /// The set that these tasks are counted in, too.
    whole: Option<Arc<Tasks>>,
}

/// One task's place in the counts; given up also when the task panics.
struct Place(Tasks);

impl Place {
    fn take(tasks: &Tasks) -> Self {
        tasks.count(|running| *running += 1);
        Self(tasks.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.count(|running| *running -= 1);
    }
}

impl Tasks {
    /// A set of its own whose tasks are also counted in this one.
    #[must_use]
    pub fn part(&self) -> Self {
        Self {
            running: Arc::default(),
            whole: Some(Arc::new(self.clone())),
        }
    }

    fn count(&self, change: fn(&mut usize)) {
        self.running.send_modify(change);
        if let Some(whole) = &self.whole {
            whole.count(change);
        }
    }

    /// Runs a task to its end.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let place = Place::take(self);
        tokio::spawn(async move {
            let _place = place;
            task.await;
        });
    }

    /// How many run now.
    #[must_use]
    pub fn len(&self) -> usize {
        *self.running.borrow()
    }

    /// Whether none runs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Resolves when none runs.
    pub async fn wait(&self) {
        let mut running = self.running.subscribe();
        // The sender lives as long as `self`, so this cannot fail.
        running.wait_for(|running| *running == 0).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiting_ends_when_the_last_task_has_ended_even_by_a_panic() {
        let tasks = Tasks::default();
        let (release, held) = tokio::sync::oneshot::channel::<()>();
        tasks.spawn(async move { held.await.unwrap() });
        tasks.spawn(async { panic!("on purpose") });
        assert_eq!(tasks.len(), 2);
        release.send(()).unwrap();
        tasks.wait().await;
        assert!(tasks.is_empty());
    }

    #[tokio::test]
    async fn a_part_is_waited_for_alone_and_with_the_whole() {
        let whole = Tasks::default();
        let part = whole.part();
        let (release, held) = tokio::sync::oneshot::channel::<()>();
        whole.spawn(async move { held.await.unwrap() });
        part.spawn(async {});
        part.wait().await;
        release.send(()).unwrap();
        whole.wait().await;
        assert_eq!((part.len(), whole.len()), (0, 0));
    }
}
