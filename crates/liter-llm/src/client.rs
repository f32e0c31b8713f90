//! From a configuration to a stack of layers that answers.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::adapters::Adapter;
use crate::config::{Api, Config, ProviderConfig, TransportKind};
use crate::core::error::{ErrorKind, LlmError};
use crate::core::json::RawJson;
use crate::core::provider::{ChunkStream, LlmProvider, Operation};
use crate::core::request::{LlmRequest, check_header};
use crate::core::response::LlmResponse;
use crate::credentials::{
    Credential, EntraOptions, KeyOrigin, SecretKey, StaticCredential, azure_credential,
};
use crate::endpoint::{Endpoint, TokenRequests, Wire};
use crate::fingerprint::fingerprint;
use crate::locate::{Location, locate};
use crate::masking::{Masked, Secrets, shown};
use crate::providers::{Auth, ProviderRow, row};
use crate::resilience::attempts::Attempts;
use crate::resilience::breaker_layer::{BreakerLayer, is_key};
use crate::resilience::breakers::{Breakers, DeploymentState, Scope};
use crate::resilience::cache::{Cached, ResponseCache};
use crate::resilience::hedge::Hedge;
use crate::resilience::limit::{Limiter, Limits};
use crate::resilience::limit_layer::LimitLayer;
use crate::resilience::options::Toggle;
use crate::transports::http::{HttpOptions, HttpTransport};
use crate::transports::websocket_pool::WebSocketPool;

/// A client of one deployment: the engine's front.
///
/// ```no_run
/// use liter_llm::{Client, LlmProvider, LlmRequest, ProviderConfig};
/// # async fn example() -> Result<(), liter_llm::LlmError> {
/// let client = Client::new(ProviderConfig::parse("openai/gpt-4o-mini")?)?;
/// let answer = client.generate(LlmRequest::new().with_prompt("Say hello.")).await?;
/// println!("{}", answer.text());
/// # Ok(())
/// # }
/// ```
pub struct Client {
    stack: Arc<dyn LlmProvider>,
    cache: Option<Arc<ResponseCache>>,
    description: serde_json::Value,
    needs_background: bool,
    deployment: Deployment,
}

/// Builds the layers, outermost first: cache > attempts within the deadline > hedge > [limit > breaker > endpoint].
fn stack(
    base: Arc<dyn LlmProvider>,
    config: &ProviderConfig,
    scope: (&str, &str, &[&[u8]]),
    cache: Option<&Arc<ResponseCache>>,
) -> (Arc<dyn LlmProvider>, Deployment) {
    let total = config.limits().total;
    let (base, deployment) = Deployment::around(base, config, scope);
    let hedged: Arc<dyn LlmProvider> = match config.hedge.as_ref().and_then(Toggle::options) {
        Some(options) => Arc::new(Hedge::new(base, options, &config.extra)),
        None => base,
    };
    let attempts = Arc::new(Attempts::new(hedged, config.retries(), total));
    match cache {
        Some(cache) => (Arc::new(Cached::new(attempts, Arc::clone(cache), total)), deployment),
        None => (attempts, deployment),
    }
}

/// What a client keeps of its deployment's layers, to tell how it is doing.
struct Deployment {
    breakers: Arc<Breakers>,
    limiter: Option<Arc<Limiter>>,
}

impl Deployment {
    /// The deployment's own layers. The circuit is looked at before a call queues and again when its turn has come.
    /// `scope`: the deployment's name, its model and the header values its key stands in.
    fn around(
        base: Arc<dyn LlmProvider>,
        config: &ProviderConfig,
        (name, model, key): (&str, &str, &[&[u8]]),
    ) -> (Arc<dyn LlmProvider>, Self) {
        let breakers = Arc::new(Breakers::new(config.circuit()));
        let scope = Scope {
            deployment: name.to_owned(),
            model: None,
            key: breakers.mark(key.iter().copied()),
            region: config.region.clone(),
        };
        let guarded = Arc::new(BreakerLayer::new(base, Arc::clone(&breakers), scope, model.to_owned()));
        let limits = Limits { concurrency: config.concurrency, rpm: config.rpm, tpm: config.tpm };
        if !limits.any() {
            return (guarded, Self { breakers, limiter: None });
        }
        let clock = Arc::clone(breakers.clock());
        let limiter = Arc::new(Limiter::new(limits, clock.now()));
        let limited = LimitLayer::new(guarded, Arc::clone(&limiter), clock);
        (Arc::new(limited), Self { breakers, limiter: Some(limiter) })
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Client {
    /// A client of one deployment. Opens no connection.
    ///
    /// # Errors
    /// `config` and `authentication` (no key) naming the option and the remedy.
    pub fn new(config: ProviderConfig) -> Result<Self, LlmError> {
        Self::from_config(Config { deployment: config, ..Config::default() })
    }

    /// A client over any provider, a user-made one for instance, with the engine's layers around it.
    #[must_use]
    pub fn over(provider: Arc<dyn LlmProvider>) -> Self {
        let description = serde_json::json!({ "provider": provider.name() });
        let name = provider.name().to_owned();
        let (stack, deployment) = stack(provider, &ProviderConfig::default(), (&name, "", &[]), None);
        Self { stack, cache: None, description, needs_background: true, deployment }
    }

    /// A client from the JSON configuration document.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_json(json: &[u8]) -> Result<Self, LlmError> {
        Self::from_config(Config::from_json(json)?)
    }

    /// A client from a configuration document.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_config(config: Config) -> Result<Self, LlmError> {
        let Config { deployment: config, providers } = config;
        config.validate()?;
        let row = match providers.get(&config.provider) {
            Some(row) => row,
            None => row(&config.provider).map_err(|error| match providers.is_empty() {
                true => error,
                false => error.with(|detail| {
                    let own: Vec<&str> = providers.keys().map(String::as_str).collect();
                    detail.message.push_str(&format!("; your own: {}", own.join(", ")));
                }),
            })?,
        };
        let endpoint = build(&config, row)?;
        let description = serde_json::json!({
            "provider": endpoint.provider,
            "model": endpoint.model,
            "name": endpoint.name,
            "base_url": shown(&endpoint.base),
            "api": endpoint.adapter.wire(),
            "key_source": endpoint.credential.describe(),
        });
        let (name, model) = (endpoint.name.clone(), endpoint.model.clone());
        let fixed = endpoint.credential.static_headers().cloned().unwrap_or_default();
        let key: Vec<&[u8]> = fixed
            .values()
            .map(HeaderValue::as_bytes)
            .chain(config.headers.iter().filter(|(name, _)| is_key(name)).map(|(_, value)| value.as_bytes()))
            .collect();
        let cache = config.cache.as_ref().and_then(Toggle::options).and_then(|options| {
            let deployment = fingerprint(&endpoint, &config)?;
            Some(Arc::new(ResponseCache::new(options, deployment, &config.extra)))
        });
        let needs_background = cache.is_some()
            || !matches!(endpoint.wire, Wire::Http)
            || endpoint.credential.static_headers().is_none();
        let secrets =
            Secrets::of(&config, &endpoint.base, endpoint.credential.static_headers(), &environment);
        let masked = Arc::new(Masked::new(Arc::new(endpoint), secrets));
        let (stack, deployment) = stack(masked, &config, (&name, &model, &key), cache.as_ref());
        Ok(Self { stack, cache, description, needs_background, deployment })
    }

    /// Whether something of this client must go on between calls: a token that is renewed early, a WebSocket that
    /// answers pings, a cache whose calls are shared. If not, its calls may run on a runtime that is driven only
    /// while a call waits; connections that broke meanwhile are noticed when it is driven again.
    #[must_use]
    pub const fn needs_background(&self) -> bool {
        self.needs_background
    }

    /// How the deployment is doing: circuit, cooldown, calls in flight and in line. One entry, and one more for each
    /// other model or key that calls have named.
    #[must_use]
    pub fn state(&self) -> Vec<DeploymentState> {
        let waiting = self.deployment.limiter.as_ref().map_or(0, |limiter| limiter.waiting());
        let mut states = self.deployment.breakers.state();
        for state in &mut states {
            state.waiting = waiting;
        }
        states
    }

    /// Forgets all cached answers; those on their way are kept when they arrive.
    pub fn clear_cache(&self) {
        if let Some(cache) = &self.cache {
            cache.clear();
        }
    }

    /// What the client was made of, as JSON: provider, model, base URL, API, where the key came from. No secrets.
    #[must_use]
    pub fn describe(&self) -> Vec<u8> {
        self.description.to_string().into_bytes()
    }
}

#[async_trait]
impl LlmProvider for Client {
    fn name(&self) -> &str {
        self.stack.name()
    }

    // Handed on as it is: a future around the stack's own would cost an allocation and move the answer once more.
    fn generate<'life0, 'async_trait>(
        &'life0 self,
        request: LlmRequest,
    ) -> BoxFuture<'async_trait, Result<LlmResponse, LlmError>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        self.stack.generate(request)
    }

    async fn stream(&self, request: LlmRequest) -> Result<ChunkStream, LlmError> {
        self.stack.stream(request).await
    }

    async fn operate(&self, operation: Operation) -> Result<RawJson, LlmError> {
        self.stack.operate(operation).await
    }
}

pub(crate) fn build(config: &ProviderConfig, row: &ProviderRow) -> Result<Endpoint, LlmError> {
    let wire_name = row.wire(match config.api {
        Api::Chat => None,
        Api::Responses => Some("responses"),
    })?;
    let adapter: Arc<dyn Adapter> = crate::adapters::by_name(wire_name)?;
    let Location { base, model, model_in_path } = locate(config, row, &environment)?;
    let http = Arc::new(HttpTransport::new(&HttpOptions {
        connect_timeout: config.limits().connect,
        proxy: config.proxy.clone(),
        ..HttpOptions::default()
    })?);
    let credential = credential(config, row, &http)?;
    let wire = match config.transport {
        TransportKind::Http => Wire::Http,
        TransportKind::Websocket if adapter.websocket_message(b"{}").is_err() => {
            return Err(LlmError::config(
                "transport",
                "`transport`: a WebSocket needs the Responses API: set `api` to `responses`",
            ));
        }
        TransportKind::Websocket => Wire::WebSocket(WebSocketPool::default()),
    };
    let name = config.name.clone().unwrap_or_else(|| match model.is_empty() {
        true => config.provider.clone(),
        false => format!("{}/{model}", config.provider),
    });
    Ok(Endpoint {
        provider: config.provider.clone(),
        name,
        model,
        joined: OnceLock::new(),
        base,
        model_in_path,
        quirks: row.quirks.clone(),
        adapter,
        headers: headers(config, row, &*credential)?,
        own_headers: config.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        credential,
        http,
        wire,
        limits: config.limits(),
        resend_after_send: config.resend_after_send.unwrap_or(true),
        extra: config.extra.clone(),
    })
}

fn headers(
    config: &ProviderConfig,
    row: &ProviderRow,
    credential: &dyn Credential,
) -> Result<HeaderMap, LlmError> {
    // Room for those that each request adds, so that its copy need not grow.
    let mut headers = HeaderMap::with_capacity(12);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let named = [("openai-organization", &config.organization), ("openai-project", &config.project)];
    let named = named.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
    let own = row.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in named.chain(own) {
        check_header(name, value)?;
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
        {
            headers.insert(name, value);
        }
    }
    if let Some(fixed) = credential.static_headers() {
        for (name, value) in fixed {
            headers.insert(name, value.clone());
        }
    }
    Ok(headers)
}

fn credential(
    config: &ProviderConfig,
    row: &ProviderRow,
    http: &Arc<HttpTransport>,
) -> Result<Arc<dyn Credential>, LlmError> {
    use secrecy::ExposeSecret;
    let given = config
        .api_key
        .as_ref()
        .map(|key| SecretKey::new(key.expose_secret().to_owned(), "api_key", KeyOrigin::Argument))
        .transpose()?;
    let secret = |value: &Option<secrecy::SecretString>, option: &'static str| {
        value
            .as_ref()
            .map(|value| SecretKey::new(value.expose_secret().to_owned(), option, KeyOrigin::Argument))
            .transpose()
    };
    let entra = EntraOptions {
        tenant_id: config.tenant_id.clone(),
        client_id: config.client_id.clone(),
        client_secret: secret(&config.client_secret, "client_secret")?,
        federated_token_file: config.federated_token_file.clone().map(Into::into),
        managed_identity: config.managed_identity,
        azure_ad_token: secret(&config.azure_ad_token, "azure_ad_token")?,
        ..EntraOptions::default()
    };
    if row.entra {
        return azure_credential(given, &entra, &environment, Arc::new(TokenRequests(Arc::clone(http))));
    }
    if entra.is_explicit() {
        return Err(LlmError::config(
            "azure_ad_token",
            format!(
                "provider `{}` takes no Microsoft Entra options; they belong to `azure`",
                config.provider
            ),
        ));
    }
    let key = match given {
        Some(key) => Some(key),
        None => row
            .api_key_env
            .iter()
            .find_map(|name| Some((name, environment(name)?)))
            .map(|(name, value)| SecretKey::new(value, "api_key", KeyOrigin::Environment(name.clone())))
            .transpose()?,
    };
    let Some(key) = key else {
        return match row.auth {
            Auth::None | Auth::Optional => Ok(Arc::new(StaticCredential::none())),
            _ => Err(missing_key(config, row)),
        };
    };
    Ok(match &row.auth {
        Auth::None => Arc::new(StaticCredential::none()),
        Auth::Bearer | Auth::Optional => Arc::new(StaticCredential::bearer(&key)?),
        Auth::Header(name) => {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| {
                LlmError::config("auth", "the row's key header is no header name").with_source(error)
            })?;
            Arc::new(StaticCredential::header(name, &key)?)
        }
    })
}

fn missing_key(config: &ProviderConfig, row: &ProviderRow) -> LlmError {
    let remedy = match row.api_key_env.first() {
        Some(variable) => format!("pass `api_key` or set {variable}"),
        None => "pass `api_key`".to_owned(),
    };
    LlmError::new(ErrorKind::Authentication, format!("no key for `{}`: {remedy}", config.provider)).with(
        |detail| {
            detail.provider = Some(config.provider.clone());
            detail.param = Some("api_key".to_owned());
            detail.before_send = true;
        },
    )
}
