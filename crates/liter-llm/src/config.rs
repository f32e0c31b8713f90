//! What a deployment is made of: the one strict configuration document.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use secrecy::SecretString;
use serde::Deserialize;

use crate::adapters::Quirks;
use crate::catalog::Catalog;
use crate::config_errors::{self, field_names};
use crate::core::error::LlmError;
use crate::core::json::Extra;
use crate::core::request::{check_header, unknown_name};
use crate::providers::ProviderRow;
use crate::resilience::options::{CacheOptions, CircuitOptions, HedgeOptions, Toggle};
use crate::resilience::retry::RetryOptions;
use crate::routing::budget::BudgetOptions;
use crate::routing::canary::CanaryOptions;
use crate::routing::guard::GuardOptions;
use crate::routing::mirror::MirrorOptions;
use crate::routing::needs;
use crate::routing::options::RouterOptions;
use crate::routing::policy::POLICIES;
use crate::routing::price::PriceOptions;

/// Which of a provider's APIs is used.
///
/// ```
/// use liter_llm::{Api, ProviderConfig};
///
/// let config = ProviderConfig { api: Api::Responses, ..ProviderConfig::parse("openai/gpt-5")? };
/// assert_eq!(config.api, Api::Responses);
/// # Ok::<(), liter_llm::LlmError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// The provider's usual one.
    #[default]
    Chat,
    /// OpenAI Responses.
    Responses,
}

/// How bytes travel.
///
/// ```
/// use liter_llm::{Api, ProviderConfig, TransportKind};
///
/// let config = ProviderConfig {
///     api: Api::Responses,
///     transport: TransportKind::Websocket,
///     ..ProviderConfig::parse("openai/gpt-5")?
/// };
/// assert_ne!(config.transport, TransportKind::Http);
/// # Ok::<(), liter_llm::LlmError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransportKind {
    /// HTTP, with Server-Sent Events for streams.
    #[default]
    Http,
    /// A WebSocket (OpenAI Responses).
    Websocket,
}

/// One deployment: provider, model, credential and options. Absent fields take the row's or the default value.
///
/// `Debug` shows which options are given, and of those that may hold a secret no value.
///
/// ```
/// use liter_llm::ProviderConfig;
///
/// let config = ProviderConfig::parse("openai/gpt-4o-mini")?
///     .with_api_key("sk-...")
///     .with_base_url("http://127.0.0.1:8080/v1");
/// let config = ProviderConfig { max_retries: Some(1), timeout: Some(30.0), ..config };
/// config.validate()?;
/// let same = ProviderConfig::new("openai").with_model("gpt-4o-mini");
/// assert_eq!(same.model, config.model);
/// assert!(!format!("{config:?}").contains("sk-..."));
/// # Ok::<(), liter_llm::LlmError>(())
/// ```
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProviderConfig {
    /// The provider's name: a row of `data/providers.toml` or one of your own.
    pub provider: String,
    /// The model, sent verbatim.
    pub model: Option<String>,
    /// The key; absent: from the environment variable the row names.
    pub api_key: Option<SecretString>,
    /// OpenAI and compatible hosts: including `/v1`. Anthropic: without. Azure: the resource root.
    pub base_url: Option<String>,
    /// Which API; default chat.
    pub api: Api,
    /// How bytes travel; default HTTP.
    pub transport: TransportKind,
    /// Azure's deployment name; default the model.
    pub deployment: Option<String>,
    /// Azure's API version.
    pub api_version: Option<String>,
    /// A Microsoft Entra token of your own.
    pub azure_ad_token: Option<SecretString>,
    /// Microsoft Entra tenant.
    pub tenant_id: Option<String>,
    /// Microsoft Entra application or managed identity.
    pub client_id: Option<String>,
    /// Microsoft Entra application secret.
    pub client_secret: Option<SecretString>,
    /// File with a federated token (workload identity).
    pub federated_token_file: Option<String>,
    /// Use the machine's managed identity.
    pub managed_identity: bool,
    /// OpenAI organisation header.
    pub organization: Option<String>,
    /// OpenAI project header.
    pub project: Option<String>,
    /// The region, for routing and telemetry.
    pub region: Option<String>,
    /// The share of traffic under the policy `weighted`, beside the other deployments' weights; 1.
    pub weight: Option<f64>,
    /// The rank under the policy `priority`, lower first; 0.
    pub priority: Option<u32>,
    /// Words of your own for routing: `fast`, `zero-retention`.
    pub tags: Vec<String>,
    /// What the deployment can do, where that is not in the catalogue or differs: the names of needs, for instance
    /// `tools` or `image_input`, and whether.
    pub supports: IndexMap<String, bool>,
    /// The most tokens of input and output together, where that is not in the catalogue or differs.
    pub context: Option<u64>,
    /// What it charges, where that is not in the catalogue or differs.
    pub price: Option<PriceOptions>,
    /// Seconds for the whole call; 600.
    pub timeout: Option<f64>,
    /// Seconds for making the connection; 10.
    pub connect_timeout: Option<f64>,
    /// Seconds until the answer's first byte; 120.
    pub first_byte_timeout: Option<f64>,
    /// Seconds of silence between two pieces of an answer; 60.
    pub idle_timeout: Option<f64>,
    /// Repeats after a failure that may pass; 3.
    pub max_retries: Option<u32>,
    /// Whether a generation may be sent again after the connection broke before any byte of an answer; true. Such a
    /// call may be billed twice.
    pub resend_after_send: Option<bool>,
    /// The circuit breaker; on by default.
    pub circuit: Option<Toggle<CircuitOptions>>,
    /// The most calls in flight; unlimited. Further ones wait in line, within their deadline.
    pub concurrency: Option<u32>,
    /// The most requests a minute; unlimited.
    pub rpm: Option<u64>,
    /// The most tokens a minute, input and output; unlimited.
    pub tpm: Option<u64>,
    /// Hedged requests; off by default.
    pub hedge: Option<Toggle<HedgeOptions>>,
    /// The response cache; off by default.
    pub cache: Option<Toggle<CacheOptions>>,
    /// More HTTP headers.
    pub headers: IndexMap<String, String>,
    /// Vendor fields for every request of this deployment.
    pub extra: Extra,
    /// `http://`, `https://` or `socks5://` proxy, `direct` for none; default the environment's.
    pub proxy: Option<String>,
    /// The deployment's name in attempts and telemetry; default `provider/model`.
    pub name: Option<String>,
}

impl fmt::Debug for ProviderConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("ProviderConfig");
        shown.field("provider", &self.provider).field("api", &self.api).field("transport", &self.transport);
        let plain = [
            ("name", &self.name),
            ("model", &self.model),
            ("deployment", &self.deployment),
            ("api_version", &self.api_version),
            ("tenant_id", &self.tenant_id),
            ("client_id", &self.client_id),
            ("federated_token_file", &self.federated_token_file),
            ("organization", &self.organization),
            ("project", &self.project),
            ("region", &self.region),
        ];
        for (name, value) in plain.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
            shown.field(name, value);
        }
        let hidden = [
            ("api_key", self.api_key.is_some()),
            ("azure_ad_token", self.azure_ad_token.is_some()),
            ("client_secret", self.client_secret.is_some()),
            ("base_url", self.base_url.is_some()),
            ("proxy", self.proxy.is_some()),
        ];
        for (name, _) in hidden.into_iter().filter(|(_, given)| *given) {
            shown.field(name, &"***");
        }
        let names = |named: &mut dyn Iterator<Item = &String>| named.cloned().collect::<Vec<_>>();
        shown
            .field("headers", &names(&mut self.headers.keys()))
            .field("extra", &names(&mut self.extra.keys()))
            .finish_non_exhaustive()
    }
}

impl ProviderConfig {
    /// A deployment of this provider; everything else from the row and the environment.
    #[must_use]
    pub fn new(provider: impl Into<String>) -> Self {
        Self { provider: provider.into(), ..Self::default() }
    }

    /// Reads `provider/model`, split at the first slash.
    ///
    /// # Errors
    /// `config` when there is no slash.
    pub fn parse(text: &str) -> Result<Self, LlmError> {
        match text.split_once('/') {
            Some((provider, model)) if !provider.is_empty() && !model.is_empty() => {
                Ok(Self::new(provider).with_model(model))
            }
            _ => Err(LlmError::config("model", format!("`{text}` must be written as `provider/model`"))),
        }
    }

    /// Sets the model.
    #[must_use]
    pub fn with_model(mut self, model: impl Into<String>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// Sets the key.
    #[must_use]
    pub fn with_api_key(mut self, key: impl Into<String>) -> Self {
        self.api_key = Some(SecretString::from(key.into()));
        self
    }

    /// Sets the base URL.
    #[must_use]
    pub fn with_base_url(mut self, url: impl Into<String>) -> Self {
        self.base_url = Some(url.into());
        self
    }

    /// Checks what can be checked without the provider's row.
    ///
    /// # Errors
    /// `config` naming the option and the remedy.
    pub fn validate(&self) -> Result<(), LlmError> {
        let limits = [
            ("timeout", self.timeout),
            ("connect_timeout", self.connect_timeout),
            ("first_byte_timeout", self.first_byte_timeout),
            ("idle_timeout", self.idle_timeout),
        ];
        for (name, value) in limits {
            if let Some(value) = value
                && !(value > 0.0 && value <= 1e9)
            {
                return Err(LlmError::config(
                    name,
                    format!("`{name}`: {value} is not a positive number of seconds"),
                ));
            }
        }
        if let Some(Toggle::On(circuit)) = &self.circuit {
            circuit.validate()?;
        }
        if let Some(Toggle::On(hedge)) = &self.hedge {
            hedge.validate()?;
        }
        if let Some(Toggle::On(cache)) = &self.cache {
            cache.validate()?;
        }
        if let Some(price) = &self.price {
            price.validate()?;
        }
        if let Some(name) = self.supports.keys().find(|name| needs::by_name(name).is_none()) {
            let known = needs::NAMES.map(|(_, name)| name);
            let reason = unknown_name(name, &known, &known.join(", "));
            return Err(LlmError::config("supports", format!("`supports`: `{name}` {reason}")));
        }
        let counts = [
            ("concurrency", self.concurrency.map(u64::from)),
            ("rpm", self.rpm),
            ("tpm", self.tpm),
            ("context", self.context),
        ];
        if let Some((name, _)) = counts.iter().find(|(_, value)| *value == Some(0)) {
            return Err(LlmError::config(
                *name,
                format!("`{name}`: must be at least 1; leave it out for no limit"),
            ));
        }
        for (name, value) in &self.headers {
            check_header(name, value)
                .map_err(|error| LlmError::config("headers", &error.detail().message))?;
        }
        Ok(())
    }

    pub(crate) fn limits(&self) -> TimeLimits {
        let seconds = |value: Option<f64>, default: u64| {
            value
                .and_then(|value| Duration::try_from_secs_f64(value).ok())
                .unwrap_or(Duration::from_secs(default))
        };
        TimeLimits {
            total: seconds(self.timeout, 600),
            connect: seconds(self.connect_timeout, 10),
            first_byte: seconds(self.first_byte_timeout, 120),
            idle: seconds(self.idle_timeout, 60),
        }
    }

    /// The circuit breaker's options; `None` when it is switched off.
    pub(crate) fn circuit(&self) -> Option<CircuitOptions> {
        self.circuit.as_ref().map_or(Some(CircuitOptions::default()), Toggle::options)
    }

    pub(crate) fn retries(&self) -> RetryOptions {
        let default = RetryOptions::default();
        RetryOptions { max_retries: self.max_retries.unwrap_or(default.max_retries), ..default }
    }
}

/// The time limits of a deployment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeLimits {
    pub total: Duration,
    pub connect: Duration,
    pub first_byte: Duration,
    pub idle: Duration,
}

/// The whole configuration document: one deployment, or several and a router over them.
///
/// ```
/// use liter_llm::{Config, Usage};
///
/// let config = Config::from_json(
///     br#"{"deployments": [
///         {"provider": "openai", "model": "gpt-4o", "region": "us", "api_key": "sk-..."},
///         {"provider": "ollama", "model": "llama3", "region": "eu"}
///     ], "router": {"policy": "latency"}}"#,
/// )?;
/// config.validate()?;
/// let prices = config.catalogue()?.pricing("openai", "gpt-4o");
/// let usage = Usage { input_tokens: 1_000, ..Usage::default() };
/// assert!(prices.cost(None, "gpt-4o", &usage, None).is_some());
///
/// let error = Config::from_json(br#"{"deployment": {"provider": "openai", "tiemout": 3}}"#).unwrap_err();
/// assert!(error.to_string().contains("did you mean `timeout`?"));
/// # Ok::<(), liter_llm::LlmError>(())
/// ```
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The one deployment that answers.
    pub deployment: Option<ProviderConfig>,
    /// The deployments a router picks from.
    pub deployments: Vec<ProviderConfig>,
    /// The router's rules.
    pub router: Option<RouterOptions>,
    /// The router's response cache; off by default.
    pub cache: Option<Toggle<CacheOptions>>,
    /// Provider rows of your own; one with a known name replaces it.
    pub providers: IndexMap<String, ProviderRow>,
    /// A file with rows of your own for the catalogue of models and prices; absent: what `LITER_LLM_CATALOG` names.
    pub catalog: Option<PathBuf>,
    /// The file with the catalogue itself; absent: the one that is built in.
    pub catalog_base: Option<PathBuf>,
    /// What the language's own telemetry records. The engine itself follows `propagate_trace`, with the feature
    /// `opentelemetry`; a reloaded client takes it anew.
    pub telemetry: Option<TelemetryOptions>,
}

/// What the telemetry of the language that made the client records of its calls.
///
/// ```
/// use liter_llm::TelemetryOptions;
/// let options = TelemetryOptions { propagate_trace: true, ..TelemetryOptions::default() };
/// assert!(options.enabled && options.content.is_none());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryOptions {
    /// Whether anything is; true.
    pub enabled: bool,
    /// Whether prompts and answers are; false.
    pub content: Option<bool>,
    /// The most bytes of each recorded text; 8192.
    pub max_content_bytes: u32,
    /// Whether `traceparent` and `tracestate` go to the provider; false.
    pub propagate_trace: bool,
}

impl Default for TelemetryOptions {
    fn default() -> Self {
        Self { enabled: true, content: None, max_content_bytes: 8192, propagate_trace: false }
    }
}

/// Says which of several deployments an error of configuration belongs to.
pub(crate) fn at(error: LlmError, position: usize) -> LlmError {
    error.with(|detail| {
        detail.message = format!("deployments[{position}]: {}", detail.message);
        let param = detail.param.take().unwrap_or_default();
        detail.param = Some(format!("deployments[{position}].{param}"));
    })
}

/// The tables of the document and the names of their options, for whoever describes it: schema, tests.
#[must_use]
pub fn option_names() -> IndexMap<&'static str, &'static [&'static str]> {
    IndexMap::from([
        ("", field_names::<Config>()),
        ("deployment", field_names::<ProviderConfig>()),
        ("circuit", field_names::<CircuitOptions>()),
        ("hedge", field_names::<HedgeOptions>()),
        ("cache", field_names::<CacheOptions>()),
        ("price", field_names::<PriceOptions>()),
        ("router", field_names::<RouterOptions>()),
        ("budget", field_names::<BudgetOptions>()),
        ("canary", field_names::<CanaryOptions>()),
        ("guard", field_names::<GuardOptions>()),
        ("mirror", field_names::<MirrorOptions>()),
        ("providers", field_names::<ProviderRow>()),
        ("telemetry", field_names::<TelemetryOptions>()),
        ("quirks", field_names::<Quirks>()),
        ("needs", &NEEDS),
        ("policies", POLICIES),
    ])
}

/// The names that `supports` takes.
static NEEDS: [&str; needs::NAMES.len()] = {
    let mut names = [""; needs::NAMES.len()];
    let mut position = 0;
    while position < names.len() {
        names[position] = needs::NAMES[position].1;
        position += 1;
    }
    names
};

impl Config {
    /// The catalogue that prices what this configuration's deployments answer. The base is not read yet; rows of your
    /// own are.
    ///
    /// # Errors
    /// `config` naming file, line or key when your own rows cannot be read.
    pub fn catalogue(&self) -> Result<Arc<Catalog>, LlmError> {
        let base = match &self.catalog_base {
            Some(path) => Catalog::from_path(path),
            None => Catalog::shipped(),
        };
        let named = std::env::var_os("LITER_LLM_CATALOG").filter(|path| !path.is_empty()).map(PathBuf::from);
        let catalog = match self.catalog.clone().or(named) {
            Some(path) => base.with_own_file(&path)?,
            None => base,
        };
        Ok(Arc::new(catalog))
    }

    /// Reads the document; unknown keys are refused with the nearest name.
    ///
    /// # Errors
    /// `config` naming the option and the remedy.
    pub fn from_json(json: &[u8]) -> Result<Self, LlmError> {
        let text = std::str::from_utf8(json).map_err(|error| {
            LlmError::config("config", "the configuration is not UTF-8").with_source(error)
        })?;
        let config: Self = config_errors::read(text)?;
        config.validate()?;
        Ok(config)
    }

    /// Checks what can be checked without the providers' rows.
    ///
    /// # Errors
    /// `config` naming the option and the remedy.
    pub fn validate(&self) -> Result<(), LlmError> {
        match (&self.deployment, self.deployments.is_empty()) {
            (Some(_), false) => {
                let what = "`deployment`: give either one `deployment` or `deployments`, not both";
                return Err(LlmError::config("deployment", what));
            }
            (None, true) => {
                let what = "`deployments`: is empty: a router needs at least one deployment";
                return Err(LlmError::config("deployments", what));
            }
            _ => {}
        }
        if let Some(Toggle::On(cache)) = &self.cache {
            cache.validate()?;
        }
        if let Some(router) = &self.router {
            router.validate().map_err(|error| {
                error.with(|detail| detail.param = detail.param.take().map(|param| format!("router.{param}")))
            })?;
        }
        if let Some((name, _)) = self.providers.iter().find(|(_, row)| row.adapter.is_empty()) {
            let mut place = "providers".to_owned();
            config_errors::push(&mut place, name);
            let message = format!("`{place}.adapter` is missing: name the wire format");
            return Err(LlmError::config(place, message));
        }
        self.deployment.iter().try_for_each(ProviderConfig::validate)?;
        let mut deployments = self.deployments.iter().enumerate();
        deployments.try_for_each(|(position, one)| one.validate().map_err(|error| at(error, position)))
    }
}
