//! Waiting on a thread that is not the async runtime's, with a limit that does
//! not depend on the runtime's timers: the source may outlive them by a moment.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};
use std::time::Duration;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for `future`, at most until `rest` has passed or, which is as good to
/// all who call this, the thread was woken a little early.
pub fn wait_at_most<F: Future>(future: F, rest: Duration) -> Option<F::Output> {
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
        return Some(output);
    }
    thread::park_timeout(rest);
    match future.as_mut().poll(&mut context) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
