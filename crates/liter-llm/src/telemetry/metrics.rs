//! Metrics for Prometheus, in a registry of their own: what calls did, and at the moment they are read how clients stand.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::exposition::{OPENMETRICS, PLAIN, plain, wants_openmetrics};
use super::labels::{Names, OTHER};
use super::names::label;
use super::scrape::{AtScrape, Attached};
use super::series::{Families, Folded, Key, Series, Set};
use super::{CallSink, Telemetry};
use crate::core::error::ErrorKind;
use crate::core::record::{CallRecord, RecordedAttempt};
use crate::core::response::{AttemptCause, Usage};

/// The most combinations of labels whose series are kept at hand. Those beyond are still counted, with the model as
/// `other`.
const MOST: usize = 4_096;

/// Metrics of one or more clients. Nothing of it is global; dropped, it no longer listens to them.
///
/// ```
/// use liter_llm::{Client, ProviderConfig};
/// use liter_llm::telemetry::Metrics;
/// # fn main() -> Result<(), liter_llm::LlmError> {
/// let client = Client::new(ProviderConfig { api_key: Some("sk-1".to_owned().into()), ..ProviderConfig::parse("openai/gpt-4o-mini")? })?;
/// let metrics = Metrics::new();
/// metrics.attach(client.telemetry());
/// assert!(metrics.text().contains("liter_llm_circuit_state{liter_llm_deployment=\"openai/gpt-4o-mini\"} 0"));
/// // What a scraper asks for, by its `Accept` header.
/// let (content_type, text) = metrics.answer(Some("text/plain"));
/// assert_eq!((content_type, &*text), (liter_llm::telemetry::PLAIN, &*metrics.plain_text()));
/// metrics.detach(client.telemetry());
/// metrics.detach_all();
/// # Ok(())
/// # }
/// ```
pub struct Metrics {
    registry: Registry,
    counts: Arc<Counts>,
    attached: Arc<Attached>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let counts = Arc::new(Counts::new(Families::registered(&mut registry)));
        let attached = Arc::new(Attached::default());
        registry.register_collector(Box::new(AtScrape::new(Arc::clone(&attached))));
        Self { registry, counts, attached }
    }
}

impl Metrics {
    /// Metrics of no client yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts every call that begins from now on, and reads how the client stands, also after it was reloaded. A
    /// client that is attached already stays so. It is held weakly; what was counted stays when it is gone.
    pub fn attach(&self, telemetry: &Arc<Telemetry>) {
        if self.attached.add(telemetry) {
            self.counts.know(telemetry);
            telemetry.add(self.sink());
        }
    }

    /// Counts no more calls of this client; what was counted stays.
    pub fn detach(&self, telemetry: &Arc<Telemetry>) {
        if self.attached.remove(telemetry) {
            telemetry.remove(&self.sink());
        }
    }

    /// Counts no more calls of any client; what was counted stays.
    pub fn detach_all(&self) {
        for telemetry in self.attached.clear() {
            telemetry.remove(&self.sink());
        }
    }

    fn sink(&self) -> Arc<dyn CallSink> {
        Arc::clone(&self.counts) as Arc<dyn CallSink>
    }

    /// The metrics in the OpenMetrics text form. With budgets in a file it reads that, which may take a few
    /// milliseconds.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(8 * 1024);
        // Writing to a text cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// The metrics in Prometheus' own text form, version 0.0.4.
    #[must_use]
    pub fn plain_text(&self) -> String {
        plain(&self.text())
    }

    /// The metrics and their content type, in the form that an `Accept` header asks for: OpenMetrics where it is named,
    /// else Prometheus' own form, which every reader understands.
    #[must_use]
    pub fn answer(&self, accept: Option<&str>) -> (&'static str, String) {
        match accept.is_some_and(wants_openmetrics) {
            true => (OPENMETRICS, self.text()),
            false => (PLAIN, self.plain_text()),
        }
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.detach_all();
    }
}

/// An error's kind as a label: what a provider of one's own says may be anything.
fn kind(error: &str) -> &str {
    match error.is_empty() || ErrorKind::ALL.iter().any(|kind| kind.as_str() == error) {
        true => error,
        false => OTHER,
    }
}

/// The requests of a kind, for one deployment and outcome.
struct AttemptSeries {
    of: [Box<str>; 4],
    duration: prometheus_client::metrics::histogram::Histogram,
}

/// Names that come from configurations, of which a process may see many.
#[derive(Default)]
struct Bounded {
    operations: Names,
    providers: Names,
    deployments: Names,
    regions: Names,
    models: Names,
    answered: Names,
}

/// What calls have done.
struct Counts {
    families: Families,
    hasher: RandomState,
    series: RwLock<HashMap<u64, Arc<Series>>>,
    attempts: RwLock<HashMap<u64, Arc<AttemptSeries>>>,
    bounded: Mutex<Bounded>,
}

fn found<T>(map: &RwLock<HashMap<u64, Arc<T>>>, hash: u64, is: impl Fn(&T) -> bool) -> Option<Arc<T>> {
    let known = map.read().unwrap_or_else(PoisonError::into_inner);
    known.get(&hash).filter(|series| is(series)).map(Arc::clone)
}

fn keep<T>(map: &RwLock<HashMap<u64, Arc<T>>>, hash: u64, series: T) -> Arc<T> {
    let series = Arc::new(series);
    let mut known = map.write().unwrap_or_else(PoisonError::into_inner);
    if known.len() < MOST {
        known.insert(hash, Arc::clone(&series));
    }
    series
}

impl Counts {
    fn new(families: Families) -> Self {
        Self {
            families,
            hasher: RandomState::new(),
            series: RwLock::default(),
            attempts: RwLock::default(),
            bounded: Mutex::default(),
        }
    }

    /// Models in a client's configuration have their label for certain, whatever other clients have named before.
    fn know(&self, telemetry: &Telemetry) {
        let bounded = self.bounded.lock().unwrap_or_else(PoisonError::into_inner);
        for model in telemetry.labels.configured() {
            bounded.models.know(&model);
        }
    }

    fn folded(&self, key: &Key<'_>, full: bool) -> Folded {
        let bounded = self.bounded.lock().unwrap_or_else(PoisonError::into_inner);
        let label = |names: &Names, name: &str| match name.is_empty() {
            true => Arc::from(""),
            false => names.label(name),
        };
        let model = |names: &Names, name: &str| match full {
            true if !name.is_empty() => Arc::from(OTHER),
            _ => label(names, name),
        };
        Folded([
            label(&bounded.operations, key.operation),
            label(&bounded.providers, key.provider),
            model(&bounded.models, key.model),
            model(&bounded.answered, key.answered),
            label(&bounded.deployments, key.deployment),
            Arc::from(key.error),
        ])
    }

    fn series(&self, key: &Key<'_>) -> Arc<Series> {
        let hash = self.hasher.hash_one(key);
        if let Some(series) = found(&self.series, hash, |series: &Series| series.is_of(key)) {
            return series;
        }
        let full = self.series.read().unwrap_or_else(PoisonError::into_inner).len() >= MOST;
        let folded = self.folded(key, full);
        keep(&self.series, hash, Series::new(key, folded, &self.families))
    }

    fn attempt(&self, attempt: &RecordedAttempt) {
        let error = kind(attempt.attempt.error.as_deref().unwrap_or_default());
        let region = attempt.region.as_deref().unwrap_or_default();
        let of = [attempt.attempt.deployment.as_str(), attempt.provider.as_str(), region, error];
        let hash = self.hasher.hash_one(of);
        let is = |series: &AttemptSeries| series.of.iter().zip(of).all(|(known, name)| **known == *name);
        let series = found(&self.attempts, hash, is).unwrap_or_else(|| {
            let [deployment, provider, region, error] = of;
            let bounded = self.bounded.lock().unwrap_or_else(PoisonError::into_inner);
            let set = Set::new(&[
                (label::DEPLOYMENT, &bounded.deployments.label(deployment)),
                (label::PROVIDER, &bounded.providers.label(provider)),
                (label::REGION, &bounded.regions.label(region)),
                (label::ERROR, error),
            ]);
            let duration = self.families.attempts.get_or_create_owned(&set);
            keep(&self.attempts, hash, AttemptSeries { of: of.map(Box::from), duration })
        });
        series.duration.observe((attempt.ended - attempt.attempt.started).max(0.0));
    }

    /// What was sent again or elsewhere: rare, so its labels are made anew each time.
    fn repeats(&self, attempts: &[RecordedAttempt]) {
        let mut before: Option<&RecordedAttempt> = None;
        for attempt in attempts {
            let cause = attempt.attempt.cause;
            let error = kind(before.and_then(|before| before.attempt.error.as_deref()).unwrap_or_default());
            let to = attempt.attempt.deployment.as_str();
            let deployment = |name: &str| match name.is_empty() {
                true => Arc::from(""),
                false => self.bounded.lock().unwrap_or_else(PoisonError::into_inner).deployments.label(name),
            };
            match cause {
                Some(AttemptCause::Retry | AttemptCause::Resend) => {
                    let set = Set::new(&[(label::DEPLOYMENT, &deployment(to)), (label::ERROR, error)]);
                    self.families.retries.get_or_create(&set).inc();
                }
                Some(AttemptCause::Fallback) => {
                    let from = before.map(|before| before.attempt.deployment.as_str()).unwrap_or_default();
                    let set = Set::new(&[
                        (label::FROM, &deployment(from)),
                        (label::TO, &deployment(to)),
                        (label::ERROR, error),
                    ]);
                    self.families.fallbacks.get_or_create(&set).inc();
                }
                _ => {}
            }
            before = Some(attempt);
        }
    }

    fn tokens(&self, series: &Series, usage: &Usage) {
        let all = [
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_input_tokens,
            usage.cache_creation_input_tokens,
            usage.reasoning_output_tokens,
        ];
        for (kind, count) in all.into_iter().enumerate() {
            if count > 0 {
                series.tokens(kind, &self.families).inc_by(count);
            }
        }
        for (kind, count) in all.into_iter().take(2).enumerate() {
            #[allow(clippy::cast_precision_loss, reason = "token counts are far below 2^52")]
            series.used(kind, &self.families).observe(count as f64);
        }
    }

    /// Where a canary is compared: how the first request ended, as the canary's guard sees it.
    fn compared(&self, record: &CallRecord) {
        let Some(arm) = record.route.as_ref().and_then(|route| route.arm) else { return };
        let Some(first) = record.attempts.first() else { return };
        let error = kind(first.attempt.error.as_deref().unwrap_or_default());
        let set = Set::new(&[(label::ARM, arm.as_str()), (label::ERROR, error)]);
        self.families.canary_calls.get_or_create(&set).inc();
        self.families.canary_duration.get_or_create(&set).observe(first.attempt.duration);
    }
}

impl CallSink for Counts {
    fn call(&self, record: &Arc<CallRecord>) {
        let answered = record.response_model_label.as_deref().unwrap_or_default();
        let key = Key {
            operation: &record.operation,
            provider: &record.provider,
            model: &record.model_label,
            answered,
            deployment: &record.deployment,
            error: kind(record.error.as_ref().map(|error| error.kind.as_str()).unwrap_or_default()),
        };
        let series = self.series(&key);
        if record.model_label != record.model
            || answered != record.response_model.as_deref().unwrap_or_default()
        {
            self.families.folded.inc();
        }
        series.duration.observe(record.duration);
        series.latency.observe(record.duration * 1_000.0);
        if let Some(first) = record.first_chunk {
            series.first_chunk(&self.families).observe(first);
        }
        if !record.chunk_seconds.is_empty() {
            let gaps = series.per_chunk(&self.families);
            gaps.observe(&record.chunk_seconds, record.chunk_rest.as_deref());
        }
        // What was answered from the cache has been used, and paid for, before.
        if record.cached {
            self.families.cache_hits.inc();
        } else {
            if let Some(usage) = &record.usage {
                self.tokens(&series, usage);
            }
            if let Some(cost) = record.cost.filter(|cost| *cost > 0.0) {
                series.spend(&self.families).inc_by(cost);
            }
        }
        if record.cache_missed {
            self.families.cache_misses.inc();
        }
        for attempt in &record.attempts {
            self.attempt(attempt);
        }
        if record.attempts.iter().any(|attempt| attempt.attempt.cause.is_some()) {
            self.repeats(&record.attempts);
        }
        self.compared(record);
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
