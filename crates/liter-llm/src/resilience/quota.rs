//! The retry quota that a client's calls share, so that retries cannot make an outage worse: a bucket of tokens that
//! retries take from and successes give back to. No clock and no I/O.

#[cfg(feature = "model")]
use super::sync::Seeded;
use super::sync::{AtomicU32, Ordering};

/// The tokens of a full quota.
pub const FULL: u32 = 500;
/// What a retry takes.
pub const TRANSIENT_COST: u32 = 14;
/// What a retry after `rate_limited` takes: the provider has said when to come back, so it costs less.
pub const THROTTLED_COST: u32 = 5;
/// What a success at the first try gives.
pub const FIRST_TRY_GAIN: u32 = 1;

/// A bucket of retry tokens, with the numbers of AWS's *standard* retry mode.
///
/// It starts full with 500 tokens. A retry takes 14 (5 after `rate_limited`) and is not made when there are fewer. A
/// call that succeeds gives back what its last retry took, one that succeeds at the first try gives 1; never more
/// than 500. A failed call gives nothing back. So a host that answers nothing but errors gets at most 35 retries,
/// however many calls are made, and one failing now and then gets its retries.
///
/// Source: the retry behaviour all AWS SDKs share from November 2026 (aws/aws-sdk-cpp issue 3832, aws/aws-sdk-js-v3
/// issue 8037): 500 tokens, 14 a transient retry, 5 a throttled one; the gain of 1 is that of the mode since 2020.
///
/// ```
/// use std::sync::Arc;
/// use liter_llm::{RetryPlan, RetryQuota};
///
/// let quota = Arc::new(RetryQuota::new());
/// let plan = RetryPlan::from(3).with_quota(Arc::clone(&quota));
/// assert!(quota.take(14));
/// assert_eq!(quota.tokens(), 486);
/// quota.succeeded(14);
/// assert_eq!(quota.tokens(), 500);
/// # drop(plan);
/// ```
#[derive(Debug)]
pub struct RetryQuota {
    tokens: AtomicU32,
    #[cfg(feature = "model")]
    seeded: Option<Seeded>,
}

impl Default for RetryQuota {
    fn default() -> Self {
        Self::new()
    }
}

impl RetryQuota {
    /// A full quota.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            tokens: AtomicU32::new(FULL),
            #[cfg(feature = "model")]
            seeded: None,
        }
    }

    /// A full quota with a mistake in it.
    #[cfg(feature = "model")]
    #[must_use]
    pub const fn with_seeded(seeded: Seeded) -> Self {
        Self { tokens: AtomicU32::new(FULL), seeded: Some(seeded) }
    }

    /// The tokens left, from 0 to 500.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        self.tokens.load(Ordering::Acquire)
    }

    /// Takes `cost` tokens for a retry; false, and nothing taken, when there are fewer.
    #[must_use]
    pub fn take(&self, cost: u32) -> bool {
        let taken = |tokens: u32| tokens.checked_sub(cost);
        #[cfg(feature = "model")]
        if self.seeded == Some(Seeded::SplitCheck) {
            let left = taken(self.tokens.load(Ordering::Acquire));
            if let Some(left) = left {
                self.tokens.store(left, Ordering::Release);
            }
            return left.is_some();
        }
        self.tokens.fetch_update(Ordering::AcqRel, Ordering::Acquire, taken).is_ok()
    }

    /// A call succeeded. `taken` is what its last retry took, 0 when the first try succeeded.
    pub fn succeeded(&self, taken: u32) {
        let gain = if taken == 0 { FIRST_TRY_GAIN } else { taken };
        let given = |tokens: u32| (tokens < FULL).then(|| tokens.saturating_add(gain).min(FULL));
        #[cfg(feature = "model")]
        if self.seeded == Some(Seeded::LostRefund) {
            if let Some(tokens) = given(self.tokens.load(Ordering::Acquire)) {
                self.tokens.store(tokens, Ordering::Release);
            }
            return;
        }
        // A full quota takes nothing, and is then not written to.
        let _ = self.tokens.fetch_update(Ordering::AcqRel, Ordering::Acquire, given);
    }
}

#[cfg(all(test, not(feature = "model")))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;

    #[test]
    fn an_outage_gets_thirty_five_retries_and_success_gives_back() {
        let quota = RetryQuota::new();
        assert_eq!((0..1000).filter(|_| quota.take(TRANSIENT_COST)).count(), 35);
        assert_eq!(quota.tokens(), 10);
        assert!(quota.take(THROTTLED_COST) && quota.take(THROTTLED_COST) && !quota.take(THROTTLED_COST));
        quota.succeeded(TRANSIENT_COST);
        assert_eq!(quota.tokens(), 14);
        quota.succeeded(0);
        assert_eq!(quota.tokens(), 15);
        for _ in 0..1000 {
            quota.succeeded(0);
        }
        assert_eq!(quota.tokens(), FULL);
    }

    #[test]
    fn threads_never_take_more_than_there_is() {
        let quota = Arc::new(RetryQuota::new());
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let quota = Arc::clone(&quota);
                std::thread::spawn(move || (0..100).filter(|_| quota.take(TRANSIENT_COST)).count())
            })
            .collect();
        let taken: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(taken, 35);
    }
}
