//! Records of calls for traces, metrics and logs: made only while somebody wants them.

mod describe;
mod exposition;
pub(crate) mod gauges;
mod labels;
pub(crate) mod layer;
mod metrics;
#[doc(hidden)]
pub mod names;
mod queue;
mod scrape;
mod series;
#[cfg(feature = "tracing")]
mod spans;
#[cfg(not(feature = "tracing"))]
#[path = "no_spans.rs"]
mod spans;
mod taking;

pub use exposition::{OPENMETRICS, PLAIN};
pub use metrics::Metrics;
pub use queue::CallRecords;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};

use async_trait::async_trait;

use crate::core::call::Call;
use crate::core::error::LlmError;
use crate::core::json::RawJson;
use crate::core::notes::Notes;
use crate::core::notices::Notices;
use crate::core::provider::{ChunkStream, LlmProvider, Operation};
use crate::core::record::{CallRecord, Place};
use crate::core::request::LlmRequest;
use crate::core::response::LlmResponse;
use crate::telemetry::gauges::{Gauges, Observed};
use crate::telemetry::labels::Labels;

/// Gets the record of every call when it is over. It is called on the call's own task: it must be quick, and must not
/// block.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use liter_llm::{CallRecord, telemetry::CallSink};
///
/// #[derive(Default)]
/// struct Failures(AtomicU64);
///
/// impl CallSink for Failures {
///     fn call(&self, record: &Arc<CallRecord>) {
///         self.0.fetch_add(u64::from(record.error.is_some()), Ordering::Relaxed);
///     }
/// }
///
/// let failures = Failures::default();
/// failures.call(&Arc::default());
/// assert_eq!(failures.0.into_inner(), 0);
/// ```
pub trait CallSink: Send + Sync {
    /// A call is over.
    fn call(&self, record: &Arc<CallRecord>);
}

/// Who wants the records of a client's calls. A reloaded client goes on with it.
///
/// ```
/// use std::sync::Arc;
/// use liter_llm::telemetry::{CallSink, Telemetry};
/// use liter_llm::{CallRecord, Client, ProviderConfig};
///
/// struct Printed;
///
/// impl CallSink for Printed {
///     fn call(&self, record: &Arc<CallRecord>) {
///         println!("{} took {:.3} s", record.deployment, record.duration);
///     }
/// }
///
/// let client = Client::new(ProviderConfig::new("ollama").with_model("llama3"))?;
/// let telemetry: &Telemetry = client.telemetry();
/// let sink: Arc<dyn CallSink> = Arc::new(Printed);
/// telemetry.add(Arc::clone(&sink));
/// telemetry.remove(&sink);
/// let records = client.telemetry().records(1_000);
/// # drop(records);
/// # Ok::<(), liter_llm::LlmError>(())
/// ```
pub struct Telemetry {
    listened: AtomicBool,
    sinks: RwLock<Vec<Arc<dyn CallSink>>>,
    labels: Labels,
    /// The clients whose telemetry this is, the newest last: one that was reloaded, and what it has become.
    clients: RwLock<Vec<Weak<dyn Observed>>>,
    /// Records that found their queue full.
    dropped: Arc<AtomicU64>,
    notices: Arc<Notices>,
    #[cfg(feature = "opentelemetry")]
    propagates: AtomicBool,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            listened: AtomicBool::new(false),
            sinks: RwLock::default(),
            labels: Labels::default(),
            clients: RwLock::default(),
            dropped: Arc::default(),
            notices: Arc::new(Notices::new(Some(spans::event))),
            #[cfg(feature = "opentelemetry")]
            propagates: AtomicBool::new(false),
        }
    }
}

impl Telemetry {
    /// Has `sink` get the record of every call that begins from now on.
    pub fn add(&self, sink: Arc<dyn CallSink>) {
        let mut sinks = self.sinks.write().unwrap_or_else(PoisonError::into_inner);
        sinks.push(sink);
        self.listened.store(true, Ordering::Release);
    }

    /// Has `sink` get no more records.
    pub fn remove(&self, sink: &Arc<dyn CallSink>) {
        let mut sinks = self.sinks.write().unwrap_or_else(PoisonError::into_inner);
        sinks.retain(|other| !Arc::ptr_eq(other, sink));
        self.listened.store(!sinks.is_empty(), Ordering::Release);
    }

    /// The records of every call that begins from now on, as a queue of at most `most`. A call never waits for it: a
    /// record that finds it full is dropped and counted.
    #[must_use]
    pub fn records(self: &Arc<Self>, most: usize) -> CallRecords {
        CallRecords::new(Arc::clone(self), most)
    }

    /// From now on this is the client that is read.
    pub(crate) fn belongs_to(&self, client: Weak<dyn Observed>) {
        let mut clients = self.clients.write().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|client| client.strong_count() > 0);
        clients.push(client);
    }

    /// How the client stands; `None` when it is gone. After a reload the new one is read, unless that one is gone.
    fn gauges(&self) -> Option<Gauges> {
        let clients = self.clients.read().unwrap_or_else(PoisonError::into_inner);
        let present = clients.iter().rev().find_map(Weak::upgrade);
        drop(clients);
        present.map(|client| client.gauges())
    }

    /// The few events that an operator should hear of: circuits, budgets, canaries, reloads. A reloaded client's too.
    ///
    /// ```
    /// use liter_llm::telemetry::Telemetry;
    /// assert!(Telemetry::default().notices().take().is_empty());
    /// ```
    #[must_use]
    pub const fn notices(&self) -> &Arc<Notices> {
        &self.notices
    }

    /// Whether `traceparent` goes to providers with each call that has a span; off until asked for. It tells them the
    /// ids of the trace.
    #[cfg(feature = "opentelemetry")]
    pub fn propagate(&self, on: bool) {
        self.propagates.store(on, Ordering::Release);
    }

    #[cfg(feature = "opentelemetry")]
    fn propagates(&self) -> bool {
        self.propagates.load(Ordering::Acquire)
    }

    fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }

    fn is_listened_to(&self) -> bool {
        self.listened.load(Ordering::Acquire)
    }

    fn deliver(&self, record: &Arc<CallRecord>) {
        let sinks = self.sinks.read().unwrap_or_else(PoisonError::into_inner).clone();
        for sink in sinks {
            sink.call(record);
        }
    }
}

/// Where a client's deployments are, by name.
pub(crate) type Places = HashMap<String, Place>;

/// The record of one call for whoever makes it: also of one that is given up.
///
/// ```
/// use liter_llm::{async_trait, Client, LlmError, LlmProvider, LlmRequest, LlmResponse};
/// use liter_llm::telemetry::Recorder;
/// # use std::sync::Arc;
/// # struct Echo;
/// # #[async_trait]
/// # impl LlmProvider for Echo {
/// #     fn name(&self) -> &str { "echo" }
/// #     async fn generate(&self, _: LlmRequest) -> Result<LlmResponse, LlmError> { Ok(LlmResponse::default()) }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), LlmError> {
/// # let client = Client::over(Arc::new(Echo));
/// let recorder = Recorder::new();
/// recorder.scope(|| client.generate(LlmRequest::new().with_prompt("Hello"))).await?;
/// let record = recorder.record().ok_or(LlmError::Timeout)?;
/// assert_eq!((record.operation.as_str(), record.attempts.len()), ("chat", 1));
/// # Ok(())
/// # }
/// ```
///
/// ```
/// use std::sync::Arc;
/// use liter_llm::{Client, LlmError, LlmProvider, LlmRequest, LlmResponse, async_trait, telemetry::Recorder};
///
/// struct Silent;
///
/// #[async_trait]
/// impl LlmProvider for Silent {
///     fn name(&self) -> &str {
///         "silent"
///     }
///
///     async fn generate(&self, _request: LlmRequest) -> Result<LlmResponse, LlmError> {
///         Ok(LlmResponse::default())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), LlmError> {
/// let recorder = Recorder::new();
/// let provider = recorder.over(Arc::new(Client::over(Arc::new(Silent))));
/// assert!(recorder.record().is_none());
/// provider.generate("Hello".into()).await?;
/// assert_eq!(recorder.record().unwrap().parameters.messages, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Recorder(Arc<Notes>);

impl Recorder {
    /// For a call that begins now.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a call so that it is recorded here. A stream that it gives goes on being recorded when it is read elsewhere.
    pub async fn scope<F: Future>(&self, call: impl FnOnce() -> F) -> F::Output {
        // Made inside, too: a client decides when it is called.
        Call::noted(Arc::clone(&self.0)).scope(async { call().await }).await
    }

    /// A provider whose calls are recorded here; for one call.
    #[must_use]
    pub fn over(&self, provider: Arc<dyn LlmProvider>) -> Arc<dyn LlmProvider> {
        Arc::new(OneCall { provider, recorder: self.clone() })
    }

    /// The record: whole when the call is over; before that, as it would be if the call were given up now. `None` when
    /// it has not begun.
    #[must_use]
    pub fn record(&self) -> Option<Arc<CallRecord>> {
        self.0.record()
    }

    /// Whether the call is over, and its record whole.
    ///
    /// ```
    /// assert!(!liter_llm::telemetry::Recorder::new().is_over());
    /// ```
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.is_finished()
    }
}

struct OneCall {
    provider: Arc<dyn LlmProvider>,
    recorder: Recorder,
}

#[async_trait]
impl LlmProvider for OneCall {
    fn name(&self) -> &str {
        self.provider.name()
    }

    async fn generate(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
        self.recorder.scope(|| self.provider.generate(request)).await
    }

    async fn stream(&self, request: LlmRequest) -> Result<ChunkStream, LlmError> {
        self.recorder.scope(|| self.provider.stream(request)).await
    }

    async fn operate(&self, operation: Operation) -> Result<RawJson, LlmError> {
        self.recorder.scope(|| self.provider.operate(operation)).await
    }
}

#[cfg(test)]
mod tests;
