//! What is known of a payload, beside it: the log itself knows bytes.

use std::any::Any;
use std::sync::{Arc, OnceLock};

/// What a reader made of an event's payload, kept beside it while the event is in
/// memory, so that the next reader need not make it again. It is no part of the event:
/// not stored, and equal to every other.
#[derive(Clone, Default)]
pub struct Reading(OnceLock<Arc<dyn Any + Send + Sync>>);

impl Reading {
    /// What its sender knows of an event already.
    #[must_use]
    pub fn of<T: Any + Send + Sync>(made: Arc<T>) -> Self {
        Self(OnceLock::from(made as Arc<dyn Any + Send + Sync>))
    }

    /// What was made before, or else what `make` makes now.
    ///
    /// # Errors
    /// When `make` fails.
    pub fn get_or_make<T: Any + Send + Sync, E>(
        &self,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let kept = self.0.get().cloned().map(Arc::downcast);
        if let Some(Ok(kept)) = kept {
            return Ok(kept);
        }
        let made = Arc::new(make()?);
        // Another reader may have been faster; theirs says the same.
        let _ = self.0.set(made.clone());
        Ok(made)
    }
}

impl PartialEq for Reading {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Reading {}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reading").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_read_once_for_each_who_makes_the_same_of_it() {
        let reading = Reading::default();
        assert_eq!(reading.get_or_make(|| Err::<u32, _>("no")), Err("no"));
        let made = reading.get_or_make(|| Ok::<_, ()>(7_u32)).unwrap();
        let again = reading.get_or_make(|| Err::<u32, _>(())).unwrap();
        assert!(Arc::ptr_eq(&made, &again));
        // Another kind of reader makes its own.
        let text = reading.get_or_make(|| Ok::<_, ()>("seven".to_owned()));
        assert_eq!(text.as_deref().map(String::as_str), Ok("seven"));
        let sent = Reading::of(Arc::clone(&made));
        assert!(Arc::ptr_eq(
            &made,
            &sent.get_or_make(|| Err::<u32, _>(())).unwrap()
        ));
    }
}
