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
    /// use liter_llm::{LlmProvider, LlmRequest, OpenAiProvider, ProviderConfig};
    /// # async fn example() -> Result<(), liter_llm::LlmError> {
    /// let provider = OpenAiProvider::new("sk-...", "gpt-4o-mini")?;
    /// let answer = provider.generate(LlmRequest::new().with_prompt("Say hello.").with_max_tokens(20)).await?;
    /// println!("{}", answer.text());
    ///
    /// let config = ProviderConfig { timeout: Some(20.0), ..ProviderConfig::default() };
    /// let patient = OpenAiProvider::from_config(config.with_model("gpt-4o"))?;
    /// # drop(patient);
    /// # Ok(())
    /// # }
    /// ```
    OpenAiProvider = "openai";
    /// Anthropic.
    ///
    /// ```
    /// use liter_llm::{AnthropicProvider, LlmProvider, ProviderConfig};
    ///
    /// let provider = AnthropicProvider::new("sk-ant-...", "claude-sonnet-4-5")?;
    /// assert_eq!(provider.name(), "anthropic");
    /// let config = ProviderConfig { timeout: Some(20.0), ..ProviderConfig::default() };
    /// let patient = AnthropicProvider::from_config(config.with_model("m").with_api_key("sk-ant-..."))?;
    /// # drop(patient);
    /// # Ok::<(), liter_llm::LlmError>(())
    /// ```
    AnthropicProvider = "anthropic";
    /// Azure OpenAI; needs the resource's address as `base_url` or in `AZURE_OPENAI_ENDPOINT`.
    ///
    /// ```
    /// use liter_llm::{AzureOpenAiProvider, LlmProvider, ProviderConfig};
    ///
    /// let config = ProviderConfig::default()
    ///     .with_model("gpt-4o")
    ///     .with_api_key("...")
    ///     .with_base_url("https://my-resource.openai.azure.com");
    /// assert_eq!(AzureOpenAiProvider::from_config(config)?.name(), "azure");
    /// // Without an address it says what is missing.
    /// # if std::env::var_os("AZURE_OPENAI_ENDPOINT").is_none() {
    /// assert!(AzureOpenAiProvider::new("...", "gpt-4o").is_err());
    /// # }
    /// # Ok::<(), liter_llm::LlmError>(())
    /// ```
    AzureOpenAiProvider = "azure";
}
