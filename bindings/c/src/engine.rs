//! The engine behind a handle: configuration in, questions about its state out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use liter_llm::telemetry::Recorder;
use liter_llm::{Client, Config, ErrorKind, LlmError, LlmProvider, LlmRequest};
use liter_llm_border::{ProcessMetrics, lock};

use crate::call;
use crate::result::LiterLlmResult;
use crate::runtime::runtime;

struct Built {
    pid: u32,
    client: Arc<Client>,
    /// What the client was made of: a forked child makes its own.
    config: Vec<u8>,
}

/// An engine. Free it with `liter_llm_engine_free`.
pub struct LiterLlmEngine {
    built: Mutex<Built>,
    /// What counts calls, once somebody asked for it.
    metrics: OnceLock<ProcessMetrics>,
    /// Whether each call keeps a record.
    records: AtomicBool,
}

/// The questions that `ask` answers, in the order in which an error lists them.
const QUESTIONS: [&str; 11] = [
    "describe",
    "state",
    "figures",
    "spend",
    "canary",
    "mirror",
    "explain",
    "explain_stream",
    "validate",
    "metrics",
    "notices",
];

/// An error of kind `invalid_request` that was found before anything was sent.
pub fn misuse(words: impl Into<String>) -> LlmError {
    LlmError::new(ErrorKind::InvalidRequest, words).with(|detail| detail.before_send = true)
}

/// A value as JSON.
pub fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, LlmError> {
    serde_json::to_vec(value).map_err(|error| LlmError::new(ErrorKind::Decode, error.to_string()))
}

impl Built {
    fn new(document: &[u8]) -> Result<Self, LlmError> {
        let _runtime = runtime()?.enter();
        let client = Arc::new(Client::from_json(document)?);
        Ok(Self { pid: std::process::id(), client, config: document.to_vec() })
    }

    /// Closes idle connections, once the last call in flight is done; those of a parent process are left alone.
    fn end(self) {
        if self.pid != std::process::id() {
            std::mem::forget(self);
            return;
        }
        let runtime = runtime();
        let _runtime = runtime.as_ref().map(|runtime| runtime.enter());
        drop(self);
    }
}

impl LiterLlmEngine {
    /// An engine of this document. Opens no connection.
    pub fn new(document: &[u8]) -> Result<Self, LlmError> {
        let built = Mutex::new(Built::new(document)?);
        Ok(Self { built, metrics: OnceLock::new(), records: AtomicBool::new(false) })
    }

    /// The client of this process. In a forked child the parent's connections must not be touched: they are left as
    /// they are, and a new client is made.
    pub fn client(&self) -> Result<Arc<Client>, LlmError> {
        let mut built = lock(&self.built);
        if built.pid != std::process::id() {
            let own = Built::new(&built.config)?;
            if let Some(metrics) = self.metrics.get() {
                metrics.observe(&own.client);
            }
            std::mem::replace(&mut *built, own).end();
        }
        Ok(Arc::clone(&built.client))
    }

    /// What answers a call that begins now, and what notes it.
    pub fn provider(&self) -> Result<(Arc<dyn LlmProvider>, Option<Recorder>), LlmError> {
        let client: Arc<dyn LlmProvider> = self.client()?;
        if !self.records.load(Ordering::Acquire) {
            return Ok((client, None));
        }
        let recorder = Recorder::new();
        Ok((recorder.over(client), Some(recorder)))
    }

    /// Whether the calls that begin from now on keep a record.
    pub fn keep_records(&self, on: bool) {
        self.records.store(on, Ordering::Release);
    }

    /// Metrics as text, in the form that an `Accept` header asks for. The first time begins the counting.
    fn metrics(&self, client: &Client, accept: &[u8]) -> Result<LiterLlmResult, LlmError> {
        let accept = std::str::from_utf8(accept)
            .map_err(|_| misuse("what is given with `metrics` is no `Accept` header: it is not UTF-8"))?;
        let metrics = self.metrics.get_or_init(ProcessMetrics::new);
        metrics.observe(client);
        let (content_type, text) = metrics.answer(Some(accept));
        let answer = json(&serde_json::json!({"content_type": content_type, "text": &text}))?;
        Ok(LiterLlmResult::value_with_text(answer, text))
    }

    /// Takes another document for the calls to come; those in flight end under the old one. What cannot work changes
    /// nothing.
    pub fn reload(&self, document: &[u8]) -> Result<(), LlmError> {
        loop {
            let before = self.client()?;
            let client = {
                let _runtime = runtime()?.enter();
                Arc::new(before.reloaded(Config::from_json(document)?)?)
            };
            let next = Built { pid: std::process::id(), client, config: document.to_vec() };
            let mut built = lock(&self.built);
            // Another reload may have been first: then this one goes on from there.
            if Arc::ptr_eq(&built.client, &before) {
                let old = std::mem::replace(&mut *built, next);
                drop(built);
                drop(before);
                old.end();
                return Ok(());
            }
            drop(built);
            next.end();
        }
    }

    /// Answers a question about the engine, or about what it would do with a request.
    pub fn ask(&self, question: &[u8], request: &[u8]) -> Result<LiterLlmResult, LlmError> {
        let client = self.client()?;
        let answer = match question {
            b"describe" => client.describe(),
            b"state" => json(&client.state())?,
            b"figures" => json(&client.router().figures())?,
            b"spend" => json(&client.router().spend()?)?,
            b"canary" => json(&client.router().canary())?,
            b"mirror" => json(&client.router().mirror())?,
            b"explain" | b"explain_stream" => {
                let request = LlmRequest::from_json(request)?;
                let streamed = question == b"explain_stream";
                return call::wait(async move { json(&client.explain(&request, streamed).await).into() });
            }
            b"validate" => {
                LlmRequest::from_json(request)?.validate()?;
                b"null".to_vec()
            }
            b"metrics" => return self.metrics(&client, request),
            b"notices" => json(&client.telemetry().notices().take())?,
            other => {
                let asked = String::from_utf8_lossy(other);
                return Err(misuse(format!("no question `{asked}`; there are {}", QUESTIONS.join(", "))));
            }
        };
        Ok(LiterLlmResult::value(answer))
    }

    /// Ends it.
    pub fn end(self) {
        if let Some(metrics) = self.metrics.get() {
            // Those of a parent process are left alone.
            metrics.close();
        }
        self.built.into_inner().unwrap_or_else(PoisonError::into_inner).end();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    const DOCUMENT: &[u8] =
        br#"{"deployment": {"provider": "openai", "model": "m", "api_key": "k", "base_url": "http://127.0.0.1:9/v1"}}"#;

    #[test]
    fn every_question_in_the_list_has_an_answer() {
        let engine = LiterLlmEngine::new(DOCUMENT).unwrap();
        for question in QUESTIONS {
            let answer = engine.ask(question.as_bytes(), br#"{"prompt": "hello"}"#);
            let answer = answer.unwrap_or_else(|error| panic!("{question}: {error}"));
            assert!(serde_json::from_slice::<serde_json::Value>(answer.json()).is_ok(), "{question}");
        }
        let error = engine.ask(b"weather", b"").err().unwrap();
        assert!(error.to_string().contains("describe, state"), "{error}");
        engine.end();
    }
}
