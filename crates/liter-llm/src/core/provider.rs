//! The one door: everything that can answer implements `LlmProvider`.

use std::pin::Pin;

use async_trait::async_trait;
use futures_util::Stream;

use super::chunk::LlmChunk;
use super::error::LlmError;
use super::fold::unfold;
use super::json::RawJson;
use super::request::LlmRequest;
use super::response::LlmResponse;

/// A streamed answer. It ends after its last chunk; an `Err` is the last item. Dropping it closes the connection.
///
/// ```
/// use futures_util::StreamExt;
/// use liter_llm::{ChunkStream, LlmChunk, LlmError, fold};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), LlmError> {
/// let pieces = [LlmChunk::text("Hel"), LlmChunk::text("lo")].map(Ok);
/// let mut stream: ChunkStream = Box::pin(futures_util::stream::iter(pieces));
/// let mut chunks = Vec::new();
/// while let Some(chunk) = stream.next().await {
///     chunks.push(chunk?);
/// }
/// assert_eq!(fold(&chunks).text(), "Hello");
/// # Ok(())
/// # }
/// ```
pub type ChunkStream = Pin<Box<dyn Stream<Item = Result<LlmChunk, LlmError>> + Send>>;

/// An operation besides generation (embeddings, transcription, ...): its name and JSON in, JSON out.
///
/// ```
/// use liter_llm::{Operation, RawJson};
///
/// let body = RawJson::parse(r#"{"input": "some text"}"#).unwrap();
/// let embed = Operation::new("embeddings", body).repeatable();
/// assert!(!embed.creates);
/// ```
#[derive(Debug, Clone)]
pub struct Operation {
    /// The operation's name in the GenAI conventions, for instance `embeddings`.
    pub name: String,
    /// Its arguments.
    pub body: RawJson,
    /// Whether it makes or changes something at the provider; such a call is never sent twice.
    pub creates: bool,
}

impl Operation {
    /// An operation that counts as making something at the provider, unless it is said to be
    /// [`repeatable`](Self::repeatable).
    #[must_use]
    pub fn new(name: impl Into<String>, body: RawJson) -> Self {
        Self { name: name.into(), body, creates: true }
    }

    /// States that carrying it out twice does no harm, so that it may be sent again after a failure.
    #[must_use]
    pub fn repeatable(mut self) -> Self {
        self.creates = false;
        self
    }
}

/// Everything that can answer: an endpoint, a layer around one, a router, a test double, a provider of your own.
///
/// ```
/// use liter_llm::{async_trait, LlmError, LlmProvider, LlmRequest, LlmResponse, Message};
///
/// struct Echo;
///
/// #[async_trait]
/// impl LlmProvider for Echo {
///     fn name(&self) -> &str {
///         "echo"
///     }
///
///     async fn generate(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
///         let text = request.messages.last().map(Message::text).unwrap_or_default();
///         Ok(LlmResponse { message: Message::assistant(text), ..LlmResponse::default() })
///     }
/// }
/// # fn main() {}
/// ```
///
/// ```
/// use futures_util::StreamExt;
/// use liter_llm::{
///     ChunkStream, ErrorKind, LlmChunk, LlmError, LlmProvider, LlmRequest, LlmResponse, Operation, RawJson,
///     async_trait, fold,
/// };
///
/// struct Words;
///
/// #[async_trait]
/// impl LlmProvider for Words {
///     fn name(&self) -> &str {
///         "words"
///     }
///
///     async fn generate(&self, _request: LlmRequest) -> Result<LlmResponse, LlmError> {
///         Ok(fold(&["one ", "two"].map(LlmChunk::text)))
///     }
///
///     async fn stream(&self, _request: LlmRequest) -> Result<ChunkStream, LlmError> {
///         Ok(Box::pin(futures_util::stream::iter(["one ", "two"].map(|word| Ok(LlmChunk::text(word))))))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), LlmError> {
/// let provider: Box<dyn LlmProvider> = Box::new(Words);
/// assert_eq!(provider.generate("Count!".into()).await?.text(), "one two");
/// assert_eq!(provider.stream("Count!".into()).await?.count().await, 2);
/// let operation = Operation::new("embeddings", RawJson::from("text"));
/// assert_eq!(provider.operate(operation).await.unwrap_err().kind(), ErrorKind::Unsupported);
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait LlmProvider: Send + Sync {
    /// The provider's name, for errors and telemetry.
    fn name(&self) -> &str;

    /// Answers a request.
    ///
    /// # Errors
    /// Every [kind](super::error::ErrorKind) there is.
    async fn generate(&self, request: LlmRequest) -> Result<LlmResponse, LlmError>;

    /// Answers a request piece by piece. The default makes the whole answer first and yields it at once.
    ///
    /// # Errors
    /// What goes wrong before the first chunk; later failures are the stream's last item.
    async fn stream(&self, request: LlmRequest) -> Result<ChunkStream, LlmError> {
        let answer = self.generate(request).await?;
        let chunks = unfold(&answer).into_iter().map(Ok);
        Ok(Box::pin(futures_util::stream::iter(chunks)))
    }

    /// Carries out another operation.
    ///
    /// # Errors
    /// `unsupported` unless the provider implements it.
    async fn operate(&self, operation: Operation) -> Result<RawJson, LlmError> {
        Err(LlmError::unsupported(
            "operation",
            format!("provider `{}` does not offer `{}`", self.name(), operation.name),
        ))
    }
}
