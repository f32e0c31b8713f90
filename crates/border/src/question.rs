//! Policies written in another language: each call becomes a question that language answers.
//!
//! How long an answer may take, and what becomes of a wrong one, is the engine's business.

use std::sync::Mutex;

use async_trait::async_trait;
use liter_llm::routing::custom::{CustomPolicy, PolicyCall, PolicyCandidate};
use liter_llm::{ErrorKind, LlmError, LlmRequest};
use tokio::sync::oneshot::{Sender, channel};

use crate::lock;

type Order = Result<Vec<String>, LlmError>;

fn failure(what: impl Into<String>) -> LlmError {
    LlmError::new(ErrorKind::Config, what.into())
}

/// One call that a policy is to find an order for.
pub struct Question {
    view: Vec<u8>,
    request: LlmRequest,
    answer: Mutex<Option<Sender<Order>>>,
}

impl Question {
    /// The call in short and the candidates: a JSON list of these two.
    #[must_use]
    pub fn view(&self) -> &[u8] {
        &self.view
    }

    /// The request in its neutral form, as JSON.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn request(&self) -> Result<Vec<u8>, LlmError> {
        serde_json::to_vec(&self.request).map_err(|error| LlmError::new(ErrorKind::Decode, error.to_string()))
    }

    /// Whether somebody still waits for the answer.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        lock(&self.answer).as_ref().is_some_and(|sender| !sender.is_closed())
    }

    /// The names of the candidates, best first.
    pub fn answer(&self, order: Vec<String>) {
        self.reply(Ok(order));
    }

    /// The policy failed.
    pub fn fail(&self, what: String) {
        self.reply(Err(failure(what)));
    }

    fn reply(&self, answer: Order) {
        if let Some(sender) = lock(&self.answer).take() {
            // Nobody listens any more when the answer took too long.
            drop(sender.send(answer));
        }
    }
}

/// A policy written in another language. `ask` takes its questions there, and says false when nobody will answer one.
pub struct ForeignPolicy<A> {
    name: String,
    ask: A,
}

impl<A: Fn(Question) -> bool + Send + Sync> ForeignPolicy<A> {
    /// A policy of this name.
    pub const fn new(name: String, ask: A) -> Self {
        Self { name, ask }
    }
}

#[async_trait]
impl<A: Fn(Question) -> bool + Send + Sync> CustomPolicy for ForeignPolicy<A> {
    fn name(&self) -> &str {
        &self.name
    }

    async fn order(&self, call: &PolicyCall, candidates: &[PolicyCandidate]) -> Order {
        let view = serde_json::to_vec(&(call, candidates)).map_err(|error| failure(error.to_string()))?;
        let (sender, receiver) = channel();
        let question = Question { view, request: call.request.clone(), answer: Mutex::new(Some(sender)) };
        if !(self.ask)(question) {
            return Err(failure("it has no thread"));
        }
        receiver.await.unwrap_or_else(|_| Err(failure("its thread ended")))
    }
}
