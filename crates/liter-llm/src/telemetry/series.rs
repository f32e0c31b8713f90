//! The time series of the engine's metrics: label sets, families, and what one call adds to which.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::gaps::Gaps;
use super::names::{label, metric};
use crate::core::record::RecordedGaps;

/// For durations of calls and times of chunks.
pub(super) const SECONDS: [f64; 14] = RecordedGaps::BOUNDS;
/// Tokens, as the GenAI conventions advise.
pub(super) const TOKENS: [f64; 14] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// Names and values; a value that is empty is not written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Set(Vec<(&'static str, Arc<str>)>);

impl Set {
    pub fn new(labels: &[(&'static str, &str)]) -> Self {
        Self(labels.iter().map(|(name, value)| (*name, Arc::from(*value))).collect())
    }

    pub fn and(&self, name: &'static str, value: &str) -> Self {
        let mut labels = self.0.clone();
        labels.push((name, Arc::from(value)));
        Self(labels)
    }
}

impl EncodeLabelSet for Set {
    fn encode(&self, encoder: &mut LabelSetEncoder) -> Result<(), fmt::Error> {
        for (name, value) in self.0.iter().filter(|(_, value)| !value.is_empty()) {
            (*name, &**value).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

type Histograms = Family<Set, Histogram, fn() -> Histogram>;
pub(super) type Dollars = Counter<f64, AtomicU64>;

/// Every family that calls add to.
#[derive(Debug)]
pub(super) struct Families {
    pub duration: Histograms,
    pub tokens_used: Histograms,
    pub first_chunk: Histograms,
    pub per_chunk: Family<Set, Gaps>,
    pub latency: Histograms,
    pub attempts: Histograms,
    pub canary_duration: Histograms,
    pub retries: Family<Set, Counter>,
    pub fallbacks: Family<Set, Counter>,
    pub spend: Family<Set, Dollars>,
    pub tokens: Family<Set, Counter>,
    pub canary_calls: Family<Set, Counter>,
    pub cache_hits: Counter,
    pub cache_misses: Counter,
    pub folded: Counter,
}

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

fn milliseconds() -> Histogram {
    Histogram::new(SECONDS.map(|seconds| seconds * 1_000.0))
}

fn tokens() -> Histogram {
    Histogram::new(TOKENS)
}

impl Families {
    /// Families in this registry.
    pub fn registered(registry: &mut Registry) -> Self {
        let histograms = |new: fn() -> Histogram| Histograms::new_with_constructor(new);
        let families = Self {
            duration: histograms(seconds),
            tokens_used: histograms(tokens),
            first_chunk: histograms(seconds),
            per_chunk: Family::default(),
            latency: histograms(milliseconds),
            attempts: histograms(seconds),
            canary_duration: histograms(seconds),
            retries: Family::default(),
            fallbacks: Family::default(),
            spend: Family::default(),
            tokens: Family::default(),
            canary_calls: Family::default(),
            cache_hits: Counter::default(),
            cache_misses: Counter::default(),
            folded: Counter::default(),
        };
        let all = &families;
        registry.register(metric::OPERATION_DURATION, "How long calls take", all.duration.clone());
        registry.register(metric::TOKEN_USAGE, "Tokens a call used", all.tokens_used.clone());
        registry.register(
            metric::TIME_TO_FIRST_CHUNK,
            "How long streamed calls take to the first piece of the answer",
            all.first_chunk.clone(),
        );
        registry.register(
            metric::TIME_PER_OUTPUT_CHUNK,
            "How long a piece of a streamed answer comes after the one before",
            all.per_chunk.clone(),
        );
        registry.register(
            metric::REQUEST_LATENCY_MS,
            "How long calls take, in milliseconds",
            all.latency.clone(),
        );
        registry.register(
            metric::ATTEMPT_DURATION,
            "How long one request of a call takes",
            all.attempts.clone(),
        );
        registry.register(metric::RETRIES, "Requests sent again to the same deployment", all.retries.clone());
        registry.register(metric::FALLBACKS, "Requests sent to another deployment", all.fallbacks.clone());
        registry.register(metric::SPEND, "What calls cost, in US dollars", all.spend.clone());
        registry.register(metric::TOKENS, "Tokens by kind", all.tokens.clone());
        registry.register(metric::CACHE_HITS, "Answers from the response cache", all.cache_hits.clone());
        registry.register(
            metric::CACHE_MISSES,
            "Calls of clients with a response cache that were not answered from it",
            all.cache_misses.clone(),
        );
        registry.register(
            metric::CANARY_CALLS,
            "Calls that compare a canary with the other deployments",
            all.canary_calls.clone(),
        );
        registry.register(
            metric::CANARY_DURATION,
            "How long the first requests of such calls took",
            all.canary_duration.clone(),
        );
        registry.register(
            metric::LABELS_FOLDED,
            "Calls with a label that was folded into `other`",
            all.folded.clone(),
        );
        families
    }
}

/// Everything that tells the series of one call from another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key<'a> {
    pub operation: &'a str,
    pub provider: &'a str,
    pub model: &'a str,
    pub answered: &'a str,
    pub deployment: &'a str,
    pub error: &'a str,
}

/// The kinds of tokens, in the order of [`Series::tokens`].
pub(super) const KINDS: [&str; 5] = ["input", "output", "cache_read", "cache_creation", "reasoning"];

/// The labels of a call, with `other` for what are too many names.
#[derive(Debug)]
pub(super) struct Folded(pub [Arc<str>; 6]);

impl Folded {
    fn key(&self) -> Key<'_> {
        let [operation, provider, model, answered, deployment, error] = &self.0;
        Key { operation, provider, model, answered, deployment, error }
    }

    /// The labels that the conventions have for a call, and its deployment.
    fn call(&self) -> Set {
        let key = self.key();
        Set::new(&[
            (label::OPERATION, key.operation),
            (label::PROVIDER, key.provider),
            (label::REQUEST_MODEL, key.model),
            (label::RESPONSE_MODEL, key.answered),
            (label::DEPLOYMENT, key.deployment),
            (label::ERROR, key.error),
        ])
    }
}

/// The series that calls with one key add to, each made when it is first needed.
#[derive(Debug)]
pub(super) struct Series {
    /// The values of the key, in its order.
    of: [Box<str>; 6],
    labels: Folded,
    pub duration: Histogram,
    pub latency: Histogram,
    used: [OnceLock<Histogram>; 2],
    first_chunk: OnceLock<Histogram>,
    per_chunk: OnceLock<Gaps>,
    tokens: [OnceLock<Counter>; 5],
    spend: OnceLock<Dollars>,
}

impl Series {
    pub fn new(of: &Key<'_>, labels: Folded, families: &Families) -> Self {
        let key = labels.key();
        let latency = Set::new(&[
            (label::PROVIDER, key.provider),
            (label::REQUEST_MODEL, key.model),
            (label::DEPLOYMENT, key.deployment),
            (label::ERROR, key.error),
        ]);
        Self {
            of: [of.operation, of.provider, of.model, of.answered, of.deployment, of.error].map(Box::from),
            duration: families.duration.get_or_create_owned(&labels.call()),
            latency: families.latency.get_or_create_owned(&latency),
            labels,
            used: Default::default(),
            first_chunk: OnceLock::new(),
            per_chunk: OnceLock::new(),
            tokens: Default::default(),
            spend: OnceLock::new(),
        }
    }

    pub fn is_of(&self, key: &Key<'_>) -> bool {
        let [operation, provider, model, answered, deployment, error] = &self.of;
        *key == Key { operation, provider, model, answered, deployment, error }
    }

    /// Tokens of a call: `0` input, `1` output.
    pub fn used(&self, kind: usize, families: &Families) -> &Histogram {
        self.used[kind].get_or_init(|| {
            let set = self.labels.call().and(label::TOKEN_TYPE, KINDS[kind]);
            families.tokens_used.get_or_create_owned(&set)
        })
    }

    pub fn first_chunk(&self, families: &Families) -> &Histogram {
        self.first_chunk.get_or_init(|| families.first_chunk.get_or_create_owned(&self.labels.call()))
    }

    pub fn per_chunk(&self, families: &Families) -> &Gaps {
        self.per_chunk.get_or_init(|| families.per_chunk.get_or_create_owned(&self.labels.call()))
    }

    /// Tokens of one of the [`KINDS`].
    pub fn tokens(&self, kind: usize, families: &Families) -> &Counter {
        self.tokens[kind].get_or_init(|| {
            let key = self.labels.key();
            families.tokens.get_or_create_owned(&Set::new(&[
                (label::DEPLOYMENT, key.deployment),
                (label::REQUEST_MODEL, key.model),
                (label::TOKEN_KIND, KINDS[kind]),
            ]))
        })
    }

    pub fn spend(&self, families: &Families) -> &Dollars {
        self.spend.get_or_init(|| {
            let key = self.labels.key();
            families.spend.get_or_create_owned(&Set::new(&[
                (label::DEPLOYMENT, key.deployment),
                (label::PROVIDER, key.provider),
                (label::REQUEST_MODEL, key.model),
            ]))
        })
    }
}
