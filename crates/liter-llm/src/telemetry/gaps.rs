//! The histogram of times between pieces of streams: it takes gaps one by one, and those that a record only counts.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

use crate::core::record::RecordedGaps;

/// A histogram over [`RecordedGaps::BOUNDS`].
#[derive(Debug, Clone, Default)]
pub(super) struct Gaps(Arc<Mutex<RecordedGaps>>);

impl Gaps {
    fn counted(&self) -> MutexGuard<'_, RecordedGaps> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the gaps of one stream, each of them, and those that it has counted itself.
    pub fn observe(&self, each: &[f32], rest: Option<&RecordedGaps>) {
        let mut counted = self.counted();
        for seconds in each {
            counted.add(f64::from(*seconds));
        }
        if let Some(rest) = rest {
            counted.seconds += rest.seconds;
            for (all, more) in counted.buckets.iter_mut().zip(rest.buckets) {
                *all += more;
            }
        }
    }
}

impl TypedMetric for Gaps {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Gaps {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let counted = self.counted().clone();
        let bounds = RecordedGaps::BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counted.buckets).collect();
        encoder.encode_histogram::<NoLabelSet>(counted.seconds, counted.count(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    use prometheus_client::encoding::text::encode;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::core::record::CallRecord;

    /// A stream with more gaps than a record holds is counted to the last one, as an ordinary histogram would.
    #[test]
    fn a_long_stream_is_counted_exactly() {
        let (gaps, each) = (Gaps::default(), Histogram::new(RecordedGaps::BOUNDS));
        for pieces in [3, 5_000, 1_024, 1_025] {
            let mut record = CallRecord::default();
            for piece in 0..pieces {
                // From a hundredth of a millisecond to over the last bound; sums of these are exact.
                let gap = (f64::from(piece * piece % 9_973) / 65_536.0 * 1_024.0) as f32;
                record.gap(gap);
                each.observe(f64::from(gap));
            }
            assert_eq!(record.chunk_rest.is_some(), pieces > 1_024);
            gaps.observe(&record.chunk_seconds, record.chunk_rest.as_deref());
        }
        let text = |metric: Box<dyn Fn(&mut Registry)>| {
            let mut registry = Registry::default();
            metric(&mut registry);
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            text
        };
        let exact = text(Box::new(move |registry| registry.register("gap", "Gaps", each.clone())));
        assert_eq!(text(Box::new(move |registry| registry.register("gap", "Gaps", gaps.clone()))), exact);
        assert!(exact.contains("gap_bucket{le=\"+Inf\"} 7052"), "{exact}");
    }
}
