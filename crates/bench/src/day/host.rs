//! A host of the scenario as a provider: it sleeps, fails and hangs by the clock, and writes down what it did.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use liter_llm::{
    ErrorKind, FailurePhase, FinishReason, LlmError, LlmProvider, LlmRequest, LlmResponse, Message, Usage,
    async_trait,
};
use tokio::time::Instant;

use super::scenario::{Failure, Fate, HOSTS, Scenario};

/// A router's copy of a call asks for so many tokens at most; the scenario's calls ask for more.
const TRIAL: u64 = 16;

/// What the hosts have seen.
#[derive(Debug, Default)]
pub struct Book {
    /// For each call what it cost, copies included.
    pub cost: Vec<f64>,
    /// For each call the host that answered it last.
    pub answered: Vec<Option<usize>>,
    /// Calls that came to nothing through an event: call, event.
    pub lost: Vec<(usize, usize)>,
    /// Copies that were sent to try a host out.
    pub trials: u64,
}

/// One host.
pub struct Double {
    scenario: Arc<Scenario>,
    host: usize,
    begun: Instant,
    book: Arc<Mutex<Book>>,
}

/// The words of a call: its number, and as many bytes as its tokens have.
#[must_use]
pub fn prompt(scenario: &Scenario, call: usize) -> String {
    let bytes = usize::try_from(scenario.calls[call].input * 4).unwrap_or_default();
    format!("{call:<bytes$}")
}

fn number(request: &LlmRequest) -> Result<usize, LlmError> {
    let text = request.messages.first().map(Message::text).unwrap_or_default();
    text.trim_end().parse().map_err(|_| LlmError::invalid("messages", "not a call of the scenario"))
}

/// Locks the book.
pub fn open(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

fn error(failure: Failure) -> LlmError {
    let (kind, status) = match failure {
        Failure::Refused | Failure::Broken => (ErrorKind::Connection, None),
        Failure::Status => (ErrorKind::ProviderError, Some(500)),
        Failure::Limit => (ErrorKind::RateLimited, Some(429)),
    };
    LlmError::new(kind, "as the scenario says").with(|detail| {
        detail.status_code = status;
        detail.phase = match failure {
            Failure::Refused => Some(FailurePhase::Refused),
            Failure::Broken => Some(FailurePhase::Reset),
            _ => None,
        };
        detail.retry_after = (failure == Failure::Limit).then_some(5.0);
    })
}

impl Double {
    /// The host at this position; `begun` is when the day began.
    #[must_use]
    pub const fn new(scenario: Arc<Scenario>, host: usize, begun: Instant, book: Arc<Mutex<Book>>) -> Self {
        Self { scenario, host, begun, book }
    }
}

#[async_trait]
impl LlmProvider for Double {
    fn name(&self) -> &str {
        HOSTS[self.host].name
    }

    async fn generate(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
        let call = number(&request)?;
        let bound = request.max_tokens.unwrap_or(u64::MAX);
        let trial = bound <= TRIAL;
        let fate = self.scenario.fate(call, self.host, self.begun.elapsed().as_secs_f64(), bound);
        {
            let mut book = open(&self.book);
            book.trials += u64::from(trial);
            match fate {
                // Whether anybody still waits for the answer does not change the bill.
                Fate::Answer(_) => book.cost[call] += self.scenario.price(call, self.host, bound),
                Fate::Failure(_, _, Some(event)) | Fate::Silence(event) if !trial => {
                    book.lost.push((call, event));
                }
                _ => {}
            }
        }
        match fate {
            Fate::Answer(time) => tokio::time::sleep(Duration::from_secs_f64(time)).await,
            Fate::Failure(time, failure, _) => {
                tokio::time::sleep(Duration::from_secs_f64(time)).await;
                return Err(error(failure));
            }
            Fate::Silence(_) => std::future::pending().await,
        }
        if !trial {
            open(&self.book).answered[call] = Some(self.host);
        }
        let written = self.scenario.calls[call].output.min(bound);
        Ok(LlmResponse {
            message: Message::assistant("Done."),
            finish_reason: FinishReason::Stop,
            usage: Some(Usage {
                input_tokens: self.scenario.calls[call].input,
                output_tokens: written,
                ..Usage::default()
            }),
            ..LlmResponse::default()
        })
    }
}
