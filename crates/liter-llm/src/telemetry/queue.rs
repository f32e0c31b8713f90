//! A bounded queue of records: who reads it slowly loses records, and no call waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{CallSink, Telemetry};
use crate::core::record::CallRecord;

#[derive(Default)]
struct Queue {
    most: usize,
    waiting: Mutex<Waiting>,
    came: Condvar,
    arrived: tokio::sync::Notify,
    dropped: AtomicU64,
    /// Dropped by all queues of the client.
    of_all: Arc<AtomicU64>,
}

#[derive(Default)]
struct Waiting {
    records: VecDeque<Arc<CallRecord>>,
    closed: bool,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CallSink for Queue {
    fn call(&self, record: &Arc<CallRecord>) {
        let mut waiting = self.waiting();
        if waiting.closed {
            return;
        }
        if waiting.records.len() >= self.most {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            self.of_all.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.records.push_back(Arc::clone(record));
        drop(waiting);
        self.came.notify_one();
        self.arrived.notify_one();
    }
}

/// Records of a client's calls, oldest first. Dropping it ends the recording.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use liter_llm::{Client, LlmError, LlmProvider, LlmRequest, LlmResponse, async_trait};
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
/// let client = Client::over(Arc::new(Silent));
/// let records = client.telemetry().records(2);
/// for _ in 0..4 {
///     client.generate("Hello".into()).await?;
/// }
/// assert_eq!(records.next().await.unwrap().operation, "chat");
/// assert_eq!((records.take(Duration::ZERO).len(), records.dropped()), (1, 2));
/// records.close();
/// assert!(records.is_closed() && records.next().await.is_none());
/// # Ok(())
/// # }
/// ```
pub struct CallRecords {
    queue: Arc<Queue>,
    sink: Arc<dyn CallSink>,
    telemetry: Arc<Telemetry>,
}

impl CallRecords {
    pub(super) fn new(telemetry: Arc<Telemetry>, most: usize) -> Self {
        let queue = Arc::new(Queue { most: most.max(1), of_all: telemetry.drops(), ..Queue::default() });
        let sink: Arc<dyn CallSink> = Arc::clone(&queue) as Arc<dyn CallSink>;
        telemetry.add(Arc::clone(&sink));
        Self { queue, sink, telemetry }
    }

    /// The next record; waits for one. `None` once it is closed and empty.
    pub async fn next(&self) -> Option<Arc<CallRecord>> {
        loop {
            let arrived = self.queue.arrived.notified();
            {
                let mut waiting = self.queue.waiting();
                if let Some(record) = waiting.records.pop_front() {
                    return Some(record);
                }
                if waiting.closed {
                    return None;
                }
            }
            arrived.await;
        }
    }

    /// The next record, waiting up to `limit` for it on this thread; `None` when none came.
    ///
    /// ```
    /// use std::time::Duration;
    /// use liter_llm::{Client, ProviderConfig};
    ///
    /// let client = Client::new(ProviderConfig::new("ollama").with_model("llama3"))?;
    /// assert!(client.telemetry().records(10).next_within(Duration::ZERO).is_none());
    /// # Ok::<(), liter_llm::LlmError>(())
    /// ```
    #[must_use]
    pub fn next_within(&self, limit: Duration) -> Option<Arc<CallRecord>> {
        self.wait(limit).records.pop_front()
    }

    /// Waits up to `limit` for a record, or until it is closed.
    fn wait(&self, limit: Duration) -> MutexGuard<'_, Waiting> {
        let waiting = self.queue.waiting();
        let (waiting, _) = self
            .queue
            .came
            .wait_timeout_while(waiting, limit, |waiting| waiting.records.is_empty() && !waiting.closed)
            .unwrap_or_else(PoisonError::into_inner);
        waiting
    }

    /// Everything there is, waiting up to `limit` for the first record; empty when none came.
    #[must_use]
    pub fn take(&self, limit: Duration) -> Vec<Arc<CallRecord>> {
        self.wait(limit).records.drain(..).collect()
    }

    /// Ends the recording; what is there can still be read, and whoever waits is wakened.
    pub fn close(&self) {
        self.telemetry.remove(&self.sink);
        self.queue.waiting().closed = true;
        self.queue.came.notify_all();
        self.queue.arrived.notify_one();
    }

    /// Whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.queue.waiting().closed
    }

    /// How many records found it full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.queue.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for CallRecords {
    fn drop(&mut self) {
        self.close();
    }
}
