//! The policy `cost`: the cheapest first.

use super::policy::{CallView, Policy};
use super::stats::KNOWN;

/// By the estimated price of this very call; what has no known price comes last. Of equal prices the faster one, and
/// one that is not known yet before it, so that it becomes known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost;

/// The tokens this call's answer will probably have: its bound, by the share of theirs that answers have used lately,
/// the same for all deployments, so that prices alone decide.
fn expected(call: &CallView<'_>) -> u64 {
    let shares = call.members.iter().filter_map(|member| member.stats.length.share());
    let (sum, count) = shares.fold((0.0, 0.0), |(sum, count), share| (sum + share, count + 1.0));
    if count == 0.0 {
        return call.output_tokens;
    }
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "tokens"
    )]
    let tokens = (call.output_tokens as f64 * sum / count).round() as u64;
    tokens.max(1)
}

impl Policy for Cost {
    fn name(&self) -> &str {
        "cost"
    }

    fn order(&self, call: &CallView<'_>, open: &mut [usize]) {
        let output_tokens = expected(call);
        open.sort_by_cached_key(|position| {
            let member = &call.members[*position];
            let price = member
                .pricing
                .as_ref()
                .and_then(|pricing| pricing.estimate(call.input_tokens, output_tokens))
                .filter(|price| *price >= 0.0);
            let lately = member.stats.lately(call.streamed);
            let latency = lately.latency.filter(|_| lately.samples >= KNOWN);
            // Numbers from zero up are in the order of their bits; the sign of a negative zero is dropped.
            (price.map_or(u64::MAX, |price| price.abs().to_bits()), latency.unwrap_or(0.0).to_bits())
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::core::response::Usage;
    use crate::core::route::Pricing;
    use crate::routing::bench_members::{members, order};

    struct PerToken(f64, f64);

    impl Pricing for PerToken {
        fn estimate(&self, input: u64, output: u64) -> Option<f64> {
            #[allow(clippy::cast_precision_loss, reason = "small numbers")]
            let price = self.0 * input as f64 + self.1 * output as f64;
            price.is_finite().then_some(price)
        }

        fn cost(&self, _: &Usage) -> Option<f64> {
            None
        }
    }

    #[test]
    fn the_cheapest_for_this_call_is_first_and_the_unknown_last() {
        let mut members = members(5);
        let prices = [None, Some((1.0, 10.0)), Some((4.0, 1.0)), Some((f64::NAN, 0.0)), Some((4.0, 1.0))];
        for (member, price) in members.iter_mut().zip(prices) {
            member.pricing =
                price.map(|(input, output)| Arc::new(PerToken(input, output)) as Arc<dyn Pricing>);
        }
        for (position, took) in [(2, 2), (4, 1)] {
            for _ in 0..KNOWN {
                members[position].stats.answered(Duration::ZERO, Duration::from_secs(took), false);
            }
        }
        // 10 tokens in, 1 out; then 1 in, 10 out.
        assert_eq!(order(&Cost, &members, (10, 1)), [1, 4, 2, 0, 3]);
        assert_eq!(order(&Cost, &members, (1, 10)), [4, 2, 1, 0, 3]);
        // 10 in, at most 10 out: 110 and 50. Answers of a tenth of that turn it round: 20 and 41.
        assert_eq!(order(&Cost, &members, (10, 10)), [4, 2, 1, 0, 3]);
        members[2].stats.length.wrote(1, 10);
        assert_eq!(order(&Cost, &members, (10, 10)), [1, 4, 2, 0, 3]);
    }
}
