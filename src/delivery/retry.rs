//! When a failed message is tried again, and when it is given up.

use super::RetryPolicy;
use crate::handlers::{Class, Failure};
use std::time::Duration;

/// What is done about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Try again after this time.
    Again(Duration),
    /// Give up, for this reason.
    GiveUp(Reason),
    /// It was not tried: as if it had not been received.
    HandBack,
}

/// Why a message is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The failure is of a kind that no retry mends.
    Permanent,
    /// All attempts are used up.
    Attempts,
    /// The message is too old.
    Age,
}

impl Reason {
    /// The reason as a dead letter states it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Permanent => "permanent failure",
            Self::Attempts => "attempts used up",
            Self::Age => "too old",
        }
    }
}

/// Judges a failure after `attempt` attempts with an answer, at the age of `age`, with
/// exponential backoff and full jitter (a delay drawn from 0 to the bound):
/// <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>.
#[must_use]
pub fn judge(
    policy: &RetryPolicy,
    failure: &Failure,
    attempt: u32,
    age: Duration,
    random: u64,
) -> Verdict {
    if failure.class == Class::Held {
        return if age > policy.max_age {
            Verdict::GiveUp(Reason::Age)
        } else {
            Verdict::HandBack
        };
    }
    if failure.class == Class::Permanent {
        return Verdict::GiveUp(Reason::Permanent);
    }
    if attempt >= policy.attempts {
        return Verdict::GiveUp(Reason::Attempts);
    }
    let bound = policy
        .base
        .saturating_mul(
            1_u32
                .checked_shl(attempt.saturating_sub(1))
                .unwrap_or(u32::MAX),
        )
        .min(policy.cap);
    let drawn = Duration::from_nanos(
        random
            .checked_rem(u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX))
            .unwrap_or(0),
    );
    // What the other side asks for counts more than our own schedule.
    let delay = failure.retry_after.map_or(drawn, |asked| asked.max(drawn));
    if age.saturating_add(delay) > policy.max_age {
        return Verdict::GiveUp(Reason::Age);
    }
    Verdict::Again(delay)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> RetryPolicy {
        RetryPolicy {
            attempts: 4,
            lost: 16,
            base: Duration::from_secs(1),
            cap: Duration::from_secs(3),
            max_age: Duration::from_secs(60),
        }
    }

    fn again(attempt: u32, random: u64) -> Verdict {
        judge(
            &policy(),
            &Failure::transient("X", "x"),
            attempt,
            Duration::ZERO,
            random,
        )
    }

    #[test]
    fn delays_double_up_to_the_cap_and_are_drawn_below_it() {
        for (attempt, bound) in [(1, 1), (2, 2), (3, 3)] {
            for random in [0, 1 << 20, u64::MAX] {
                let Verdict::Again(delay) = again(attempt, random) else {
                    panic!("attempt {attempt} was given up");
                };
                assert!(delay < Duration::from_secs(bound), "{attempt}: {delay:?}");
            }
        }
    }

    #[test]
    fn attempts_age_and_class_end_it() {
        assert_eq!(again(4, 0), Verdict::GiveUp(Reason::Attempts));
        let bad = Failure::permanent("X", "x");
        assert_eq!(
            judge(&policy(), &bad, 1, Duration::ZERO, 0),
            Verdict::GiveUp(Reason::Permanent)
        );
        let slow = Failure::transient("X", "x");
        assert_eq!(
            judge(&policy(), &slow, 1, Duration::from_secs(61), 0),
            Verdict::GiveUp(Reason::Age)
        );
    }

    #[test]
    fn what_was_not_tried_is_handed_back_until_it_is_too_old() {
        let held = Failure::held("CircuitOpen", "x");
        let after = |age| judge(&policy(), &held, 9, Duration::from_secs(age), 0);
        assert_eq!(after(60), Verdict::HandBack);
        assert_eq!(after(61), Verdict::GiveUp(Reason::Age));
    }

    #[test]
    fn the_other_sides_wish_is_honoured() {
        let mut failure = Failure::transient("X", "x");
        failure.retry_after = Some(Duration::from_secs(30));
        assert_eq!(
            judge(&policy(), &failure, 1, Duration::ZERO, 0),
            Verdict::Again(Duration::from_secs(30))
        );
    }
}
