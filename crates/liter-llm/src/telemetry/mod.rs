//! Records of calls for traces, metrics and logs: made only while somebody wants them.

mod describe;
mod exposition;
mod gaps;
pub(crate) mod gauges;
mod hook;
mod labels;
pub(crate) mod layer;
mod metrics;
#[doc(hidden)]
pub mod names;
mod places;
mod queue;
#[cfg(feature = "tracing")]
mod said;
mod scrape;
mod series;
#[cfg(feature = "tracing")]
mod spans;
#[cfg(not(feature = "tracing"))]
#[path = "no_spans.rs"]
mod spans;
mod taking;
mod told;

pub use exposition::{OPENMETRICS, PLAIN};
pub use hook::CallHook;
pub use metrics::Metrics;
pub(crate) use places::Places;
pub use queue::CallRecords;
#[doc(hidden)]
pub use told::told;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};

use futures_util::future::BoxFuture;

use crate::core::call::Call;
use crate::core::error::LlmError;
use crate::core::json::RawJson;
use crate::core::notes::Notes;
use crate::core::notices::Notices;
use crate::core::provider::{ChunkStream, LlmProvider, Operation};
use crate::core::record::CallRecord;
use crate::core::request::LlmRequest;
use crate::core::response::LlmResponse;
use crate::telemetry::gauges::{Gauges, Observed};
use crate::telemetry::labels::Labels;

/// Gets the record of every call when it is over. It is called on the call's own task: it must be quick, and must not
/// block. [`Telemetry::on_call`] is for what may be slow. Its panics are caught, so that no call comes to harm; the first
/// is told as the event `sink_panicked`.
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
    sinks: RwLock<Arc<[Arc<dyn CallSink>]>>,
    labels: Labels,
    /// The clients whose telemetry this is, the newest last: one that was reloaded, and what it has become.
    clients: RwLock<Vec<Weak<dyn Observed>>>,
    /// Records that found their queue full.
    dropped: Arc<AtomicU64>,
    notices: Arc<Notices>,
    /// Whether a sink has panicked, which is told once.
    panicked: AtomicBool,
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
            panicked: AtomicBool::new(false),
            #[cfg(feature = "opentelemetry")]
            propagates: AtomicBool::new(false),
        }
    }
}

impl Telemetry {
    /// Has `sink` get the record of every call that begins from now on.
    pub fn add(&self, sink: Arc<dyn CallSink>) {
        let mut sinks = self.sinks.write().unwrap_or_else(PoisonError::into_inner);
        *sinks = sinks.iter().cloned().chain([sink]).collect();
        self.listened.store(true, Ordering::Release);
    }

    /// Has `sink` get no more records.
    pub fn remove(&self, sink: &Arc<dyn CallSink>) {
        let mut sinks = self.sinks.write().unwrap_or_else(PoisonError::into_inner);
        *sinks = sinks.iter().filter(|other| !Arc::ptr_eq(other, sink)).cloned().collect();
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
    /// ids of the trace. With the feature `opentelemetry`.
    ///
    /// ```
    /// use liter_llm::{Client, ProviderConfig};
    ///
    /// let client = Client::new(ProviderConfig::new("ollama").with_model("llama3"))?;
    /// client.telemetry().propagate(true);
    /// # Ok::<(), liter_llm::LlmError>(())
    /// ```
    #[cfg(feature = "opentelemetry")]
    pub fn propagate(&self, on: bool) {
        self.propagates.store(on, Ordering::Release);
    }

    #[cfg(feature = "opentelemetry")]
    fn propagates(&self) -> bool {
        self.propagates.load(Ordering::Acquire)
    }

    /// How many records found their queue full, of all queues of the client's together: also of a reloaded one's.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use liter_llm::telemetry::Telemetry;
    ///
    /// let telemetry = Arc::new(Telemetry::default());
    /// let records = telemetry.records(10);
    /// assert_eq!(telemetry.dropped(), records.dropped());
    /// ```
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// The count of [`dropped`](Self::dropped), which outlives the client.
    fn drops(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }

    fn is_listened_to(&self) -> bool {
        self.listened.load(Ordering::Acquire)
    }

    fn deliver(&self, record: &Arc<CallRecord>) {
        if !self.is_listened_to() {
            return;
        }
        let sinks = Arc::clone(&self.sinks.read().unwrap_or_else(PoisonError::into_inner));
        for sink in &*sinks {
            hook::hear(&self.panicked, hook::SINK, || sink.call(record));
        }
    }
}

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

impl OneCall {
    /// A client takes the notes when it is called, and nothing is needed around its future. Other providers get them
    /// while they work: one may call a client then.
    fn noted<'a, T>(&self, call: impl FnOnce() -> BoxFuture<'a, T>) -> BoxFuture<'a, T>
    where
        T: 'a,
    {
        let Recorder(notes) = &self.recorder;
        let noted = Call::noted(Arc::clone(notes));
        let future = Arc::clone(&noted).during(call);
        match notes.is_claimed() {
            true => future,
            false => Box::pin(noted.scope(future)),
        }
    }
}

impl LlmProvider for OneCall {
    fn name(&self) -> &str {
        self.provider.name()
    }

    fn generate<'life0, 'async_trait>(
        &'life0 self,
        request: LlmRequest,
    ) -> BoxFuture<'async_trait, Result<LlmResponse, LlmError>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        self.noted(|| self.provider.generate(request))
    }

    fn stream<'life0, 'async_trait>(
        &'life0 self,
        request: LlmRequest,
    ) -> BoxFuture<'async_trait, Result<ChunkStream, LlmError>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        self.noted(|| self.provider.stream(request))
    }

    fn operate<'life0, 'async_trait>(
        &'life0 self,
        operation: Operation,
    ) -> BoxFuture<'async_trait, Result<RawJson, LlmError>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        self.noted(|| self.provider.operate(operation))
    }
}

#[cfg(test)]
mod tests;
