//! Providers written in another language, seen from the engine: each call becomes an order that language carries out.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::stream;
use liter_llm::{ChunkStream, ErrorKind, LlmChunk, LlmError, LlmProvider, LlmRequest, LlmResponse, unfold};
use serde::Deserialize;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::lock;

enum Report {
    Whole(Box<LlmResponse>),
    Chunk(Box<LlmChunk>),
    End,
    Failed(LlmError),
}

/// Whether the engine still waits for an order, and what is to be done when it does no longer.
#[derive(Default)]
struct Interest {
    lost: bool,
    watcher: Option<Box<dyn FnOnce() + Send>>,
}

/// The engine's end of an order: dropped when the call was answered, cancelled or timed out.
struct Reports {
    receiver: UnboundedReceiver<Report>,
    interest: Arc<Mutex<Interest>>,
}

impl Drop for Reports {
    fn drop(&mut self) {
        let watcher = {
            let mut interest = lock(&self.interest);
            interest.lost = true;
            interest.watcher.take()
        };
        if let Some(tell) = watcher {
            tell();
        }
    }
}

/// One call to a provider written in another language.
pub struct Order {
    request: Vec<u8>,
    streaming: bool,
    reports: Mutex<Option<UnboundedSender<Report>>>,
    interest: Arc<Mutex<Interest>>,
}

fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, LlmError> {
    serde_json::from_slice(json).map_err(|error| LlmError::new(ErrorKind::Decode, error.to_string()))
}

impl Order {
    fn new(request: &LlmRequest, streaming: bool) -> Result<(Self, Reports), LlmError> {
        let request = serde_json::to_vec(request)
            .map_err(|error| LlmError::new(ErrorKind::Decode, error.to_string()))?;
        let (sender, receiver) = unbounded_channel();
        let interest = Arc::new(Mutex::new(Interest::default()));
        let reports = Reports { receiver, interest: Arc::clone(&interest) };
        Ok((Self { request, streaming, reports: Mutex::new(Some(sender)), interest }, reports))
    }

    /// The request in its neutral form, as JSON.
    #[must_use]
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// Whether chunks are wanted.
    #[must_use]
    pub const fn streaming(&self) -> bool {
        self.streaming
    }

    /// Whether somebody still waits for it.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        lock(&self.reports).as_ref().is_some_and(|sender| !sender.is_closed())
    }

    /// Has `tell` called, on any thread, as soon as the caller gives up; not once the order has ended by itself.
    /// `make` is not asked, and the outcome is `None`, when the caller has given up already.
    pub fn when_lost<T>(&self, make: impl FnOnce() -> (T, Box<dyn FnOnce() + Send>)) -> Option<T> {
        let mut interest = lock(&self.interest);
        if interest.lost {
            return None;
        }
        let (made, tell) = make();
        interest.watcher = Some(tell);
        Some(made)
    }

    /// The whole answer, as JSON.
    ///
    /// # Errors
    /// It is no answer; the order still waits for one.
    pub fn complete(&self, response: &[u8]) -> Result<(), LlmError> {
        let response = Box::new(read(response)?);
        self.report(Report::Whole(response), true);
        Ok(())
    }

    /// One chunk of a streamed answer, as JSON.
    ///
    /// # Errors
    /// It is no chunk; the order still waits for one.
    pub fn chunk(&self, chunk: &[u8]) -> Result<(), LlmError> {
        let chunk = Box::new(read(chunk)?);
        self.report(Report::Chunk(chunk), false);
        Ok(())
    }

    /// The clean end of a streamed answer.
    pub fn end(&self) {
        self.report(Report::End, true);
    }

    /// A failure, in its border form.
    ///
    /// # Errors
    /// It is no error in its border form; the order still waits for one.
    pub fn fail(&self, error: &[u8]) -> Result<(), LlmError> {
        let error = read(error)?;
        self.report(Report::Failed(error), true);
        Ok(())
    }

    fn report(&self, report: Report, last: bool) {
        if last {
            // The order ends by itself: nobody needs to hear that the engine lets go of it.
            lock(&self.interest).watcher = None;
        }
        let mut reports = lock(&self.reports);
        if let Some(sender) = reports.as_ref() {
            // The receiver is gone when the caller gave up; then there is nobody to tell.
            drop(sender.send(report));
        }
        if last {
            *reports = None;
        }
    }
}

/// A provider written in another language. `dispatch` takes its orders there, and says false when nobody will carry
/// one out.
pub struct ForeignProvider<D> {
    name: String,
    language: &'static str,
    dispatch: D,
}

impl<D: Fn(Order) -> bool + Send + Sync> ForeignProvider<D> {
    /// A provider of this name, written in `language`.
    pub const fn new(name: String, language: &'static str, dispatch: D) -> Self {
        Self { name, language, dispatch }
    }

    fn order(&self, request: &LlmRequest, streaming: bool) -> Result<Reports, LlmError> {
        let (order, reports) = Order::new(request, streaming)?;
        if (self.dispatch)(order) {
            return Ok(reports);
        }
        let language = self.language;
        let what = format!("a provider written in {language} can only answer calls from {language}");
        Err(LlmError::config("provider", what))
    }

    fn gone(&self) -> LlmError {
        LlmError::new(ErrorKind::ProviderError, "the provider ended without an answer")
            .with(|detail| detail.provider = Some(self.name.clone()))
    }
}

#[async_trait]
impl<D: Fn(Order) -> bool + Send + Sync> LlmProvider for ForeignProvider<D> {
    fn name(&self) -> &str {
        &self.name
    }

    async fn generate(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
        let mut reports = self.order(&request, false)?;
        match reports.receiver.recv().await {
            Some(Report::Whole(mut response)) => {
                if response.provider.is_empty() {
                    response.provider.clone_from(&self.name);
                }
                Ok(*response)
            }
            Some(Report::Failed(error)) => Err(error),
            _ => Err(self.gone()),
        }
    }

    async fn stream(&self, request: LlmRequest) -> Result<ChunkStream, LlmError> {
        let reports = self.order(&request, true)?;
        let interrupted =
            LlmError::new(ErrorKind::StreamInterrupted, "the provider ended its stream without a word")
                .with(|detail| detail.provider = Some(self.name.clone()));
        let batches = stream::unfold(Some((reports, interrupted)), |state| async {
            let (mut reports, interrupted) = state?;
            match reports.receiver.recv().await {
                Some(Report::Chunk(chunk)) => Some((vec![Ok(*chunk)], Some((reports, interrupted)))),
                Some(Report::Whole(response)) => {
                    Some((unfold(&response).into_iter().map(Ok).collect::<Vec<_>>(), None))
                }
                Some(Report::End) => None,
                Some(Report::Failed(error)) => Some((vec![Err(error)], None)),
                None => Some((vec![Err(interrupted)], None)),
            }
        });
        Ok(Box::pin(futures_util::StreamExt::flat_map(batches, stream::iter)))
    }
}
