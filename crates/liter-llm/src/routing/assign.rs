//! Which calls belong to a share of the traffic: by the sticky word, or by chance.

use std::sync::atomic::{AtomicU64, Ordering};

use super::weighted::{fraction, hash, mix};

/// Assigns calls to one share of the traffic.
///
/// A word is assigned by itself and the share's name alone: the same in every process and after a restart. With a larger
/// share, those who had it keep it. A call without a word is assigned by chance.
#[derive(Debug)]
pub struct Assign {
    share: f64,
    salt: u64,
    drawn: AtomicU64,
}

impl Assign {
    /// `percent` of the traffic for the share of this name.
    #[must_use]
    pub fn new(percent: f64, name: &str) -> Self {
        let mut seed = [0_u8; 8];
        // Without entropy the shares are as exact, only the sequence is always the same.
        let _ = getrandom::fill(&mut seed);
        Self::seeded(percent, name, u64::from_le_bytes(seed))
    }

    /// [`new`](Self::new), with a chance that follows from this number, for simulations.
    #[must_use]
    pub fn seeded(percent: f64, name: &str, seed: u64) -> Self {
        Self { share: percent / 100.0, salt: mix(hash(name)), drawn: AtomicU64::new(mix(seed)) }
    }

    /// The share, 0 to 1.
    #[must_use]
    pub const fn share(&self) -> f64 {
        self.share
    }

    /// A number that stands for this word.
    #[must_use]
    pub fn mark(&self, word: &str) -> u64 {
        mix(mix(hash(word)) ^ self.salt)
    }

    /// Whether the call with the word of this mark, or one without, belongs to the share.
    pub fn takes(&self, mark: Option<u64>) -> bool {
        let drawn =
            mark.unwrap_or_else(|| mix(self.drawn.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)));
        fraction(drawn) < self.share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_exact_to_within_sampling_error() {
        let calls = 40_000_u32;
        for percent in [0.0, 1.0, 5.0, 50.0, 100.0] {
            for sticky in [false, true] {
                let assign = Assign::seeded(percent, "a/b", 11);
                let taken = (0..calls)
                    .filter(|call| assign.takes(sticky.then(|| assign.mark(&format!("user-{call}")))))
                    .count();
                let taken = f64::from(u32::try_from(taken).unwrap_or(u32::MAX));
                let expected = f64::from(calls) * percent / 100.0;
                let deviation = (expected * (1.0 - percent / 100.0)).sqrt();
                assert!((taken - expected).abs() <= 4.0 * deviation, "{taken} of {expected}");
            }
        }
    }

    #[test]
    fn a_larger_share_keeps_whom_it_had() {
        let (less, more) = (Assign::new(5.0, "m"), Assign::new(20.0, "m"));
        let other = Assign::new(5.0, "another");
        let (mut kept, mut both) = (0, 0);
        for user in 0..4000 {
            let word = format!("user-{user}");
            if less.takes(Some(less.mark(&word))) {
                assert!(more.takes(Some(more.mark(&word))));
                kept += 1;
                both += u32::from(other.takes(Some(other.mark(&word))));
            }
        }
        assert!(kept > 150 && both < 30, "another canary has other users: {both} of {kept}");
        // The same in every process and version.
        assert_eq!(less.mark("user-1"), more.mark("user-1"));
    }
}
