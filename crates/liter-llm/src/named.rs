//! Providers by name: a client of one deployment each, for programs that choose their vendor in code.

use async_trait::async_trait;

use crate::client::Client;
use crate::config::ProviderConfig;
use crate::core::error::LlmError;
use crate::core::json::RawJson;
use crate::core::provider::{ChunkStream, LlmProvider, Operation};
use crate::core::request::LlmRequest;
use crate::core::response::LlmResponse;

macro_rules! named {
    ($($(#[$doc:meta])* $name:ident = $provider:literal;)*) => {$(
        $(#[$doc])*
        pub struct $name(Client);

        impl $name {
            /// A deployment with this key and model.
            ///
            /// # Errors
            /// `config` or `authentication`, naming the option and the remedy.
            pub fn new(api_key: impl Into<String>, model: impl Into<String>) -> Result<Self, LlmError> {
                Self::from_config(ProviderConfig::new($provider).with_api_key(api_key).with_model(model))
            }

            /// A deployment with all its options; `config.provider` is set here.
            ///
            /// # Errors
            /// `config` or `authentication`, naming the option and the remedy.
            pub fn from_config(mut config: ProviderConfig) -> Result<Self, LlmError> {
                config.provider = $provider.to_owned();
                Client::new(config).map(Self)
            }
        }

        #[async_trait]
        impl LlmProvider for $name {
            fn name(&self) -> &str {
                self.0.name()
            }

            async fn generate(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
                self.0.generate(request).await
            }

            async fn stream(&self, request: LlmRequest) -> Result<ChunkStream, LlmError> {
                self.0.stream(request).await
            }

            async fn operate(&self, operation: Operation) -> Result<RawJson, LlmError> {
                self.0.operate(operation).await
            }
        }
    )*};
}

named! {
    /// OpenAI.
    ///
    /// ```no_run
    /// use liter_llm::{LlmProvider, LlmRequest, OpenAiProvider};
    /// # async fn example() -> Result<(), liter_llm::LlmError> {
    /// let provider = OpenAiProvider::new("sk-...", "gpt-4o-mini")?;
    /// let answer = provider.generate(LlmRequest::new().with_prompt("Say hello.").with_max_tokens(20)).await?;
    /// println!("{}", answer.text());
    /// # Ok(())
    /// # }
    /// ```
    OpenAiProvider = "openai";
    /// Anthropic.
    AnthropicProvider = "anthropic";
    /// Azure OpenAI; needs the resource's address as `base_url` or in `AZURE_OPENAI_ENDPOINT`.
    AzureOpenAiProvider = "azure";
}
