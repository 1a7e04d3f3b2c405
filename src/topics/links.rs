//! Where the node can be reached from outside, for the links in what it sends.

use tokio::sync::watch;

/// The node's address as others see it; known once it listens. Clones share it.
#[derive(Clone)]
pub struct Links {
    base: watch::Sender<Option<String>>,
}

impl Links {
    /// Not known yet, or as given: `https://events.example.com`.
    #[must_use]
    pub fn new(base: Option<String>) -> Self {
        Self {
            base: watch::Sender::new(base),
        }
    }

    /// Says where the node listens, unless something better is known.
    pub fn listening(&self, base: &str) {
        self.base.send_if_modified(|known| {
            let new = known.is_none();
            known.get_or_insert_with(|| base.to_owned());
            new
        });
    }

    /// Resolves once the address is known.
    pub async fn ready(&self) {
        // The sender is held here, so waiting cannot fail.
        self.base.subscribe().wait_for(Option::is_some).await.ok();
    }

    /// The link to `path`, which begins with a slash.
    #[must_use]
    pub fn to(&self, path: &str) -> Option<String> {
        let base = self.base.borrow();
        base.as_ref()
            .map(|base| format!("{}{path}", base.trim_end_matches('/')))
    }
}
