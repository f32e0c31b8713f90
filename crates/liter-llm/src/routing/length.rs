//! How long answers are beside the bound that calls name: what the policy `cost` expects of the next one.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The weight of the last answer.
const LAST: f64 = 0.02;

/// The share of the bound that answers have, lately; as bits, 0 before the first.
#[derive(Debug, Default)]
pub(super) struct Length(AtomicU64);

impl Length {
    /// An answer of so many tokens came to a call that was expected to have `bound` at most.
    pub(super) fn wrote(&self, tokens: u64, bound: u64) {
        if bound == 0 || tokens == 0 {
            return;
        }
        #[allow(clippy::cast_precision_loss, reason = "a share")]
        let share = tokens as f64 / bound as f64;
        let mean = self.share().map_or(share, |mean| LAST.mul_add(share - mean, mean));
        // Of two at once one may be lost.
        self.0.store(mean.to_bits(), Relaxed);
    }

    /// The share; `None` before the first answer.
    pub(super) fn share(&self) -> Option<f64> {
        Some(f64::from_bits(self.0.load(Relaxed))).filter(|share| *share > 0.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_share_follows_the_answers() {
        let length = Length::default();
        length.wrote(0, 100);
        length.wrote(10, 0);
        assert_eq!(length.share(), None);
        for _ in 0..300 {
            length.wrote(50, 100);
        }
        assert_eq!(length.share(), Some(0.5));
        for _ in 0..300 {
            length.wrote(100, 100);
        }
        assert!(length.share().unwrap() > 0.99);
    }
}
