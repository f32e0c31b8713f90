//! Hooks that hear of every call: in a thread of their own, so that no call waits for them, and without harm when they panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{CallRecords, Telemetry, spans};
use crate::core::record::CallRecord;

/// The event that tells of a sink's first panic.
pub(super) const SINK: &str = "sink_panicked";
/// The event that tells of a hook's first panic.
const HOOK: &str = "hook_panicked";
/// Between two looks of an idle thread; a record or the end wakens it at once.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Has somebody hear of a call. A panic ends there, and the first of each is told; what it said is not, for it may quote
/// anything.
pub(super) fn hear(panicked: &AtomicBool, event: &'static str, listen: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(listen)).is_err() && !panicked.swap(true, Ordering::Relaxed) {
        spans::panicked(event);
    }
}

impl Telemetry {
    /// Has `hook` hear of every call that begins from now on, when it is over: one after another, in a thread of its own.
    /// Calls do not wait for it; when `most` records are waiting already, the next ones are dropped and
    /// [counted](CallHook::dropped). A panic in it is caught and it goes on; the first is told as the event
    /// `hook_panicked`.
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
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = Client::over(Arc::new(Silent));
    /// let hook = client.telemetry().on_call(1_000, |record| {
    ///     println!("{} {} took {:.3} s", record.operation, record.deployment, record.duration);
    /// })?;
    /// client.generate("Hello".into()).await?;
    /// assert!(hook.finish(Duration::from_secs(10)), "it has heard of that call");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn on_call(
        self: &Arc<Self>,
        most: usize,
        mut hook: impl FnMut(&CallRecord) + Send + 'static,
    ) -> std::io::Result<CallHook> {
        let records = Arc::new(self.records(most));
        let heard = Arc::clone(&records);
        let (sender, over) = channel::<()>();
        let listening = move || {
            // Goes when this thread ends, and whoever waits for that is told.
            let _over = sender;
            let panicked = AtomicBool::new(false);
            loop {
                match heard.next_within(LOOK_EVERY) {
                    Some(record) => hear(&panicked, HOOK, || hook(&record)),
                    None if heard.is_closed() => return,
                    None => {}
                }
            }
        };
        // Not waited for: a hook may take as long as it likes.
        drop(std::thread::Builder::new().name("liter-llm-calls".to_owned()).spawn(listening)?);
        Ok(CallHook { records, over: Mutex::new(over) })
    }
}

/// A hook that hears of calls, as [`Telemetry::on_call`] gives it. Dropping it closes it.
///
/// ```
/// use std::time::Duration;
/// use liter_llm::{Client, ProviderConfig};
///
/// let client = Client::new(ProviderConfig::new("ollama").with_model("llama3"))?;
/// let hook = client.telemetry().on_call(100, |record| println!("{}", record.deployment))?;
/// hook.close();
/// assert_eq!(hook.dropped(), 0);
/// assert!(hook.finish(Duration::from_secs(10)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping it ends it"]
pub struct CallHook {
    records: Arc<CallRecords>,
    /// Is told nothing, and is cut off when the thread ends.
    over: Mutex<Receiver<()>>,
}

impl CallHook {
    /// How many calls it has not heard of, because so many were waiting for it already.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.records.dropped()
    }

    /// It hears of no further calls; of those that wait for it it still does. Waits for nothing.
    pub fn close(&self) {
        self.records.close();
    }

    /// Closes it, and waits up to `limit` until it has heard of the calls before: for the end of a program, which takes its
    /// threads along. Whether it has.
    #[must_use]
    pub fn finish(&self, limit: Duration) -> bool {
        self.close();
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        over.recv_timeout(limit) == Err(RecvTimeoutError::Disconnected)
    }
}

impl Drop for CallHook {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::sync::mpsc::channel;
    use std::time::Instant;

    use async_trait::async_trait;
    use futures_util::FutureExt as _;

    use super::*;
    use crate::client::Client;
    use crate::core::error::LlmError;
    use crate::core::provider::LlmProvider;
    use crate::core::request::LlmRequest;
    use crate::core::response::LlmResponse;
    use crate::telemetry::CallSink;

    const LONG: Duration = Duration::from_secs(30);

    struct Silent;

    #[async_trait]
    impl LlmProvider for Silent {
        fn name(&self) -> &str {
            "silent"
        }

        async fn generate(&self, _: LlmRequest) -> Result<LlmResponse, LlmError> {
            Ok(LlmResponse::default())
        }
    }

    fn client() -> Client {
        Client::over(Arc::new(Silent))
    }

    async fn calls(client: &Client, number: usize) {
        for _ in 0..number {
            client.generate("Hello".into()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn no_call_waits_for_a_slow_hook_and_what_it_misses_is_counted() {
        let client = client();
        let (begun, has_begun) = channel();
        let (go_on, may_go_on) = channel::<()>();
        let (heard, was_heard) = channel();
        let hook = client.telemetry().on_call(2, move |record| {
            begun.send(()).unwrap();
            may_go_on.recv().unwrap();
            heard.send(record.operation.clone()).unwrap();
        });
        let hook = hook.unwrap();
        calls(&client, 1).await;
        has_begun.recv_timeout(LONG).unwrap();
        // It holds one record and its queue two; not one of these calls comes back before it has gone on.
        calls(&client, 5).await;
        assert_eq!(hook.dropped(), 3);
        hook.close();
        calls(&client, 1).await;
        assert_eq!((hook.dropped(), was_heard.try_iter().count()), (3, 0));
        for _ in 0..3 {
            go_on.send(()).unwrap();
        }
        // What waited when it was closed it still hears.
        assert!(hook.finish(LONG));
        assert_eq!(was_heard.iter().collect::<Vec<_>>(), ["chat"; 3]);
        assert!(!client.telemetry().is_listened_to());
    }

    #[tokio::test]
    async fn finish_waits_no_longer_than_it_is_told() {
        let client = client();
        let (begun, has_begun) = channel();
        let (go_on, may_go_on) = channel::<()>();
        let hook = client.telemetry().on_call(2, move |_| {
            begun.send(()).unwrap();
            let _ = may_go_on.recv();
        });
        calls(&client, 1).await;
        has_begun.recv_timeout(LONG).unwrap();
        let before = Instant::now();
        assert!(!hook.unwrap().finish(Duration::from_millis(50)));
        assert!(before.elapsed() < LONG);
        drop(go_on);
    }

    #[tokio::test]
    async fn dropping_a_hook_ends_its_thread() {
        let client = client();
        let (alive, is_gone) = channel::<()>();
        let hook = client.telemetry().on_call(2, move |_| alive.send(()).unwrap()).unwrap();
        drop(hook);
        // The sender goes with the thread.
        assert_eq!(is_gone.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected));
        assert!(!client.telemetry().is_listened_to());
    }

    #[tokio::test]
    async fn a_hook_that_panics_goes_on() {
        let client = client();
        let (heard, was_heard) = channel();
        let mut number = 0;
        let hook = client.telemetry().on_call(8, move |_| {
            number += 1;
            heard.send(number).unwrap();
            assert!(number % 2 == 0, "of {number}");
        });
        calls(&client, 4).await;
        assert!(hook.unwrap().finish(LONG));
        assert_eq!(was_heard.iter().collect::<Vec<_>>(), [1, 2, 3, 4]);
    }

    struct Panics;

    impl CallSink for Panics {
        fn call(&self, _: &Arc<CallRecord>) {
            panic!("secret");
        }
    }

    #[tokio::test]
    async fn a_sink_that_panics_harms_neither_the_call_nor_other_sinks() {
        let client = client();
        client.telemetry().add(Arc::new(Panics));
        let records = client.telemetry().records(8);
        calls(&client, 3).await;
        // One that is given up is recorded while its future goes; here also while its thread is panicking.
        let asked = tokio::spawn(async move {
            let call = client.generate("Hello".into());
            let stuck = Client::over(Arc::new(Stuck));
            stuck.telemetry().add(Arc::new(Panics));
            let _ = call.await;
            let mut waiting = Box::pin(stuck.generate("Hello".into()));
            assert!((&mut waiting).now_or_never().is_none());
            panic!("the caller's own");
        });
        assert!(asked.await.unwrap_err().is_panic());
        assert_eq!(records.take(Duration::ZERO).len(), 4);
    }

    /// Never answers.
    struct Stuck;

    #[async_trait]
    impl LlmProvider for Stuck {
        fn name(&self) -> &str {
            "stuck"
        }

        async fn generate(&self, _: LlmRequest) -> Result<LlmResponse, LlmError> {
            std::future::pending().await
        }
    }
}
