//! The engine's layers for a provider of one's own.

use std::collections::HashMap;
use std::sync::Arc;

use crate::client::{Client, Own};
use crate::config::{Config, ProviderConfig};
use crate::core::error::LlmError;
use crate::core::provider::LlmProvider;
use crate::resilience::options::{CircuitOptions, HedgeOptions, Toggle};

/// The engine's layers, to be put around any [`LlmProvider`]: deadline, retries, hedging, limits and circuit breaker, in
/// the order in which they stand around every deployment. A layer of your own is a provider around another one.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use liter_llm::{
///     CircuitOptions, ErrorKind, HedgeOptions, Layers, LlmError, LlmProvider, LlmRequest, LlmResponse, Message,
///     async_trait,
/// };
///
/// /// Fails at first.
/// struct Shaky(AtomicU32);
///
/// #[async_trait]
/// impl LlmProvider for Shaky {
///     fn name(&self) -> &str {
///         "shaky"
///     }
///
///     async fn generate(&self, _request: LlmRequest) -> Result<LlmResponse, LlmError> {
///         if self.0.fetch_add(1, Ordering::Relaxed) == 0 {
///             let error = LlmError::new(ErrorKind::Overloaded, "too busy");
///             return Err(error.with(|detail| detail.retry_after = Some(0.01)));
///         }
///         Ok(LlmResponse { message: Message::assistant("well"), ..LlmResponse::default() })
///     }
/// }
///
/// /// A layer of your own: a provider around another one.
/// struct Polite(Arc<dyn LlmProvider>);
///
/// #[async_trait]
/// impl LlmProvider for Polite {
///     fn name(&self) -> &str {
///         self.0.name()
///     }
///
///     async fn generate(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
///         self.0.generate(request.with_system("Be polite.")).await
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), LlmError> {
/// let client = Layers::new()
///     .with_timeout(30.0)
///     .with_max_retries(2)
///     .with_circuit(CircuitOptions { failures: 10, ..CircuitOptions::default() })
///     .with_hedge(HedgeOptions { after: Some(2.0), ..HedgeOptions::default() })
///     .with_concurrency(8)
///     .with_rpm(600)
///     .with_tpm(100_000)
///     .around(Arc::new(Polite(Arc::new(Shaky(AtomicU32::new(0))))))?;
/// let answer = client.generate(LlmRequest::from("How are you?")).await?;
/// assert_eq!((answer.text().as_str(), answer.attempts.len()), ("well", 2));
/// assert!(Layers::new().without_circuit().around(Arc::new(Shaky(AtomicU32::new(0)))).is_ok());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Layers(ProviderConfig);

impl Layers {
    /// The layers with their defaults: 600 s for a call, 3 retries, a circuit breaker; no hedging and no limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the seconds for a whole call.
    #[must_use]
    pub const fn with_timeout(mut self, seconds: f64) -> Self {
        self.0.timeout = Some(seconds);
        self
    }

    /// Sets how often a failure that may pass is tried again.
    #[must_use]
    pub const fn with_max_retries(mut self, max_retries: u32) -> Self {
        self.0.max_retries = Some(max_retries);
        self
    }

    /// Sets when the circuit opens and how it closes.
    #[must_use]
    pub const fn with_circuit(mut self, options: CircuitOptions) -> Self {
        self.0.circuit = Some(Toggle::On(options));
        self
    }

    /// Leaves the circuit breaker out.
    #[must_use]
    pub const fn without_circuit(mut self) -> Self {
        self.0.circuit = Some(Toggle::Off);
        self
    }

    /// Sends a second request for a call that is slow to begin its answer.
    #[must_use]
    pub const fn with_hedge(mut self, options: HedgeOptions) -> Self {
        self.0.hedge = Some(Toggle::On(options));
        self
    }

    /// Sets the most calls in flight; further ones wait in line.
    #[must_use]
    pub const fn with_concurrency(mut self, most: u32) -> Self {
        self.0.concurrency = Some(most);
        self
    }

    /// Sets the most requests a minute.
    #[must_use]
    pub const fn with_rpm(mut self, most: u64) -> Self {
        self.0.rpm = Some(most);
        self
    }

    /// Sets the most tokens a minute, input and output.
    #[must_use]
    pub const fn with_tpm(mut self, most: u64) -> Self {
        self.0.tpm = Some(most);
        self
    }

    /// The provider behind the layers.
    ///
    /// # Errors
    /// `config` naming the option that is out of range and the remedy.
    pub fn around(self, provider: Arc<dyn LlmProvider>) -> Result<Client, LlmError> {
        let name = provider.name().to_owned();
        let deployment = ProviderConfig { provider: name, ..self.0 };
        let config = Config { deployment: Some(deployment), ..Config::default() };
        Client::from_config_with(config, Own { providers: HashMap::from([(0, provider)]), policy: None })
    }
}
