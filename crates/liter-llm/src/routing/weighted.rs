//! The policy `weighted`: shares by weight, the same deployment for the same word.

use std::sync::atomic::{AtomicU64, Ordering};

use super::policy::{CallView, Policy};

/// By a race: each deployment draws a time from an exponential distribution with its weight as the rate, and the
/// earliest wins with exactly its share of the weights. A call with a sticky word draws from the word and the
/// deployment's name alone (weighted rendezvous hashing), so a word keeps its deployment when others come or go, in
/// every process; a call without one draws at random.
///
/// Deployments with the weight zero come last, in the order of the configuration.
pub struct Weighted(AtomicU64);

impl Default for Weighted {
    fn default() -> Self {
        let mut seed = [0_u8; 8];
        // Without entropy the shares are as exact, only the sequence is always the same.
        let _ = getrandom::fill(&mut seed);
        Self::seeded(u64::from_le_bytes(seed))
    }
}

impl Weighted {
    /// Draws that follow from this number, for simulations.
    #[must_use]
    pub const fn seeded(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

/// The output function of `SplitMix64` (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
pub(super) const fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// FNV-1a, 64 bits: the same in every process and version.
pub(super) fn hash(word: &str) -> u64 {
    word.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// A number in 0..1, neither end included, of 53 bits.
#[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
pub(super) fn fraction(bits: u64) -> f64 {
    ((bits >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

impl Policy for Weighted {
    fn name(&self) -> &str {
        "weighted"
    }

    fn order(&self, call: &CallView<'_>, open: &mut [usize]) {
        let sticky = call.request.route.as_ref().and_then(|route| route.sticky.as_deref());
        let draw = match sticky {
            Some(word) => mix(hash(word)),
            None => mix(self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)),
        };
        open.sort_by_cached_key(|position| {
            let member = &call.members[*position];
            if member.weight <= 0.0 {
                return u64::MAX;
            }
            let drawn = fraction(mix(draw ^ hash(&member.name)));
            (-drawn.ln() / member.weight).to_bits()
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::routing::bench_members::{first, members};

    fn weighed(weights: &[f64]) -> Vec<crate::routing::member::Member> {
        let mut members = members(weights.len());
        for (member, weight) in members.iter_mut().zip(weights) {
            member.weight = *weight;
        }
        members
    }

    #[test]
    fn shares_are_exact_to_within_sampling_error() {
        let members = weighed(&[70.0, 25.0, 5.0, 0.0]);
        let calls = 20_000;
        for sticky in [false, true] {
            let policy = Weighted::seeded(7);
            let mut got = [0_u32; 4];
            for call in 0..calls {
                let word = format!("user-{call}");
                got[first(&policy, &members, Duration::ZERO, sticky.then_some(word.as_str()))] += 1;
            }
            for (got, share) in got.iter().zip([0.70, 0.25, 0.05, 0.0]) {
                let expected = f64::from(calls) * share;
                let deviation = (expected * (1.0 - share)).sqrt();
                assert!((f64::from(*got) - expected).abs() <= 4.0 * deviation, "{got} of {expected}");
            }
        }
    }

    #[test]
    fn a_word_keeps_its_deployment_when_others_come_and_go() {
        let policy = Weighted::default();
        let many = weighed(&[1.0, 2.0, 3.0, 4.0]);
        let fewer = weighed(&[1.0, 2.0, 3.0]);
        let mut moved = 0;
        for user in 0..2000 {
            let word = format!("user-{user}");
            let before = first(&policy, &many, Duration::ZERO, Some(&word));
            assert_eq!(before, first(&policy, &many, Duration::ZERO, Some(&word)));
            let after = first(&policy, &fewer, Duration::ZERO, Some(&word));
            assert!(before == after || before == 3, "only those of the one that left move");
            moved += u32::from(before != after);
        }
        assert!((700..900).contains(&moved), "{moved} of 2000 were at the one with 40 %");
        // Assignments are the same in every version: this one is written down.
        assert_eq!(mix(hash("user-1")), 0xc499_b5f8_a721_df58);
    }
}
