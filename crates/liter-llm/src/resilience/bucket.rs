//! A token bucket for an amount a minute: a pure state machine that is told the time.
//!
//! It holds two seconds' worth, and is refilled so that in any 60 seconds no more than the limit goes out. An amount
//! larger than it holds goes when it is full, and leaves a debt that the next ones wait for; so over any 60 seconds the
//! limit can be passed by less than one such amount.

use std::time::Duration;

/// The share of a minute's amount that may go out at once.
const BURST: f64 = 1.0 / 30.0;

/// Amounts closer than this are the same: sums of fractions are not exact.
const GRAIN: f64 = 1e-6;

/// The bucket of one limit.
#[derive(Debug, Clone)]
pub struct Bucket {
    limit: f64,
    capacity: f64,
    per_second: f64,
    level: f64,
    at: Duration,
}

impl Bucket {
    /// A full bucket for `limit` a minute.
    #[must_use]
    pub fn per_minute(limit: u64, now: Duration) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "a limit above 2^53 a minute is none")]
        let limit = limit as f64;
        let capacity = (limit * BURST).floor().max(1.0);
        // A window that begins with a full bucket takes `capacity` at once and must find its last unit just outside.
        let per_second = (limit + 1.0 - capacity) / 60.0;
        Self { limit, capacity, per_second, level: capacity, at: now }
    }

    /// What an amount is counted as: one above the whole limit could never go, so it goes alone.
    #[must_use]
    pub fn counted(&self, amount: f64) -> f64 {
        amount.clamp(0.0, self.limit)
    }

    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.level = (self.level + passed * self.per_second).min(self.capacity);
        self.at = self.at.max(now);
    }

    /// How long until `amount` may go when `ahead` goes before it, and `coming` may yet be given back; zero: now.
    #[must_use]
    pub fn wait(&mut self, now: Duration, amount: f64, ahead: f64, coming: f64) -> Duration {
        self.refill(now);
        let missing = self.counted(amount).min(self.capacity) + ahead - self.level - coming;
        if missing <= GRAIN {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(missing / self.per_second).unwrap_or(Duration::MAX)
    }

    /// Takes an amount whose wait is zero.
    pub fn take(&mut self, amount: f64) {
        self.level -= self.counted(amount);
    }

    /// Gives back (or, when negative, charges) the difference between what was taken and what was used.
    pub fn give_back(&mut self, amount: f64) {
        self.level = (self.level + amount).min(self.capacity);
    }

    /// What it holds now; negative after a large amount or a charge.
    #[must_use]
    pub fn level(&mut self, now: Duration) -> f64 {
        self.refill(now);
        self.level
    }

    /// What it holds when full.
    #[must_use]
    pub const fn capacity(&self) -> f64 {
        self.capacity
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Times at which requests go out that are always waiting, each of `amount`, for `minutes`.
    fn greedy(limit: u64, amount: impl Fn(usize) -> f64, minutes: u64) -> Vec<(f64, f64)> {
        let mut bucket = Bucket::per_minute(limit, Duration::ZERO);
        let mut now = Duration::ZERO;
        let mut out = Vec::new();
        while now < Duration::from_secs(60 * minutes) {
            let next = amount(out.len());
            let wait = bucket.wait(now, next, 0.0, 0.0);
            if wait.is_zero() {
                bucket.take(next);
                out.push((now.as_secs_f64(), next));
            } else {
                now += wait;
            }
        }
        out
    }

    /// The most that goes out in any half-open window of 60 seconds.
    fn most(sent: &[(f64, f64)]) -> f64 {
        let window = 60.0 - 1e-3;
        let sums = sent.iter().map(|(begin, _)| {
            sent.iter()
                .filter(|(at, _)| at >= begin && *at < begin + window)
                .map(|(_, amount)| amount)
                .sum::<f64>()
        });
        sums.fold(0.0, f64::max)
    }

    #[test]
    fn no_minute_has_more_than_the_limit() {
        for limit in [1, 2, 7, 29, 30, 60, 61, 500, 1_000] {
            let sent = greedy(limit, |_| 1.0, 5);
            #[allow(clippy::cast_precision_loss)]
            let (limit, count) = (limit as f64, sent.len() as f64);
            assert!(most(&sent) <= limit, "{} of {limit}", most(&sent));
            assert!(count >= 4.8 * limit * 0.96, "{count} in five minutes of {limit} a minute");
        }
    }

    #[test]
    fn a_burst_is_two_seconds_worth() {
        let burst = |limit| greedy(limit, |_| 1.0, 1).iter().filter(|(at, _)| *at == 0.0).count();
        assert_eq!((burst(600), burst(60), burst(10), burst(1)), (20, 2, 1, 1));
    }

    #[test]
    fn large_amounts_go_and_are_paid_for() {
        let sizes = [50.0, 900.0, 3_000.0, 10.0, 400.0];
        let sent = greedy(6_000, |index| sizes[index % sizes.len()], 10);
        assert!(most(&sent) <= 6_000.0 + 3_000.0, "{}", most(&sent));
        let total: f64 = sent.iter().map(|(_, amount)| amount).sum();
        assert!((52_000.0..=63_000.0).contains(&total), "{total}");
    }

    #[test]
    fn an_amount_above_the_limit_goes_alone() {
        let sent = greedy(600, |_| 5_000.0, 10);
        assert_eq!(sent.len(), 10);
        assert!(sent.windows(2).all(|pair| pair[1].0 - pair[0].0 > 59.0), "{sent:?}");
    }

    #[test]
    fn what_is_given_back_can_go_again() {
        let mut bucket = Bucket::per_minute(3_000, Duration::ZERO);
        bucket.take(100.0);
        let now = Duration::ZERO;
        assert!(bucket.wait(now, 60.0, 0.0, 0.0) > Duration::from_secs(1));
        assert!(bucket.wait(now, 60.0, 0.0, 60.0).is_zero());
        bucket.give_back(60.0);
        assert!(bucket.wait(now, 60.0, 0.0, 0.0).is_zero());
        bucket.give_back(1_000.0);
        assert!((bucket.level(now) - bucket.capacity()).abs() < 1e-9);
        bucket.give_back(-150.0);
        assert!(bucket.wait(now, 1.0, 0.0, 0.0) > Duration::from_secs(1));
    }
}
