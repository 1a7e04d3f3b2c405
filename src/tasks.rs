//! A set of tasks that can be waited for.

use std::future::Future;
use std::sync::Arc;
use tokio::sync::watch;

/// Counts the tasks that were spawned through it; clones share the count.
#[derive(Clone, Default)]
pub struct Tasks {
    running: Arc<watch::Sender<usize>>,
}

/// One task's place in the count; given up also when the task panics.
struct Place(Arc<watch::Sender<usize>>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}

impl Tasks {
    /// Runs a task to its end.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.running.send_modify(|running| *running += 1);
        let place = Place(Arc::clone(&self.running));
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
}
