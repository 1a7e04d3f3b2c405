//! What the batch calls of SQS and of SNS have in common.

use crate::queues::BrokerError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::join_all;
use sha2::{Digest, Sha256};
use std::ops::Range;

/// Most entries in one call of a batch operation.
pub(in crate::drivers) const ENTRIES: usize = 10;

/// Says how a body is written that would not be taken as it is.
pub(in crate::drivers) const ENCODING: &str = "pointsman-encoding";

/// What became of a message.
pub(in crate::drivers) type Answer = Result<(), BrokerError>;

/// The answer for the entry `id`, which is its place.
pub(in crate::drivers) fn place<'a>(answers: &'a mut [Answer], id: &str) -> Option<&'a mut Answer> {
    answers.get_mut(id.parse::<usize>().ok()?)
}

pub(in crate::drivers) fn malformed(error: &dyn std::error::Error) -> BrokerError {
    BrokerError::Refused {
        code: "NotTaken",
        reason: error.to_string(),
        permanent: true,
    }
}

/// Ids may have 128 characters, and not all of those that keys have.
pub(in crate::drivers) fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Cuts messages into calls: at most ten each, and no more bytes than a call takes.
pub(in crate::drivers) fn calls(
    count: usize,
    call_bytes: usize,
    size: impl Fn(usize) -> usize,
) -> Vec<Range<usize>> {
    let mut calls: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0;
    for n in 0..count {
        let own = size(n);
        match calls.last_mut() {
            Some(call) if call.len() < ENTRIES && bytes + own <= call_bytes => {
                call.end = n + 1;
                bytes += own;
            }
            _ => {
                calls.push(n..n + 1);
                bytes = own;
            }
        }
    }
    calls
}

/// Makes the calls, with an answer for each message: all at the same time, or one
/// after the other where a later one must not overtake.
pub(in crate::drivers) async fn in_calls<F>(
    calls: Vec<Range<usize>>,
    ordered: bool,
    send: impl Fn(Range<usize>) -> F,
) -> Vec<Answer>
where
    F: Future<Output = Vec<Answer>>,
{
    if !ordered {
        return join_all(calls.into_iter().map(send)).await.concat();
    }
    let mut answers = Vec::new();
    for call in calls {
        answers.extend(send(call).await);
    }
    answers
}

/// A body as SQS and SNS take it: text of the characters that XML 1.0 has. Anything else
/// is sent as base64, which is told.
pub(in crate::drivers) fn text(body: &[u8]) -> (String, bool) {
    let fit = |c: char| matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    match std::str::from_utf8(body) {
        Ok(text) if !text.is_empty() && text.chars().all(fit) => (text.to_owned(), false),
        _ => (STANDARD.encode(body), true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_hold_ten_messages_and_a_mebibyte_at_most() {
        let lengths = |sizes: &[usize]| -> Vec<usize> {
            let calls = calls(sizes.len(), 1024 * 1024, |n| sizes[n]);
            calls.into_iter().map(|call| call.len()).collect()
        };
        assert_eq!(lengths(&[1; 23]), [10, 10, 3]);
        assert_eq!(
            lengths(&[600_000, 400_000, 100_000, 1024 * 1024]),
            [2, 1, 1]
        );
        assert!(lengths(&[]).is_empty());
    }

    #[test]
    fn bodies_that_sqs_refuses_are_sent_as_base64() {
        assert_eq!(
            text("Zürich 🚆".as_bytes()),
            ("Zürich 🚆".to_owned(), false)
        );
        assert_eq!(text(&[0xff, 0]), ("/wA=".to_owned(), true));
        assert!(text("\u{ffff}".as_bytes()).1);
        assert!(text("\u{1}".as_bytes()).1);
    }
}
