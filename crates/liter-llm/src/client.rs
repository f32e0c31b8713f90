//! From a configuration to a stack of layers that answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use indexmap::IndexMap;

use crate::config::{Config, ProviderConfig, at};
use crate::core::clock::{Clock, MonotonicClock};
use crate::core::error::LlmError;
use crate::core::json::RawJson;
use crate::core::provider::{ChunkStream, LlmProvider, Operation};
use crate::core::record::Place;
use crate::core::request::LlmRequest;
use crate::core::response::LlmResponse;
use crate::core::route::Route;
use crate::deployment::{Deployment, Health};
use crate::providers::{ProviderRow, row};
use crate::reload::Heirloom;
use crate::resilience::attempts::Attempts;
use crate::resilience::breakers::DeploymentState;
use crate::resilience::cache::{Cached, ResponseCache};
use crate::resilience::cache_key::Digest;
use crate::resilience::options::{CacheOptions, Toggle};
use crate::resilience::retry::RetryOptions;
use crate::routing::custom::CustomPolicy;
use crate::routing::only::Only;
use crate::routing::router::{Deployments, Router};
use crate::standings::Standings;
use crate::telemetry::layer::Recorded;
use crate::telemetry::{Places, Telemetry};

/// A client of one deployment or of several: the engine's front.
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
///
/// ```
/// use std::sync::Arc;
/// use liter_llm::{
///     Client, Config, CustomPolicy, LlmError, LlmProvider, LlmRequest, Own, PolicyCall, PolicyCandidate,
///     ProviderConfig, async_trait,
/// };
///
/// struct LastFirst;
///
/// #[async_trait]
/// impl CustomPolicy for LastFirst {
///     fn name(&self) -> &str {
///         "last_first"
///     }
///
///     async fn order(&self, _: &PolicyCall, candidates: &[PolicyCandidate]) -> Result<Vec<String>, LlmError> {
///         Ok(candidates.iter().rev().map(|candidate| candidate.name.clone()).collect())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), LlmError> {
/// let one = Client::from_json(br#"{"deployment": {"provider": "ollama", "model": "llama3"}}"#)?;
/// let again = Client::over(Arc::new(one));
/// assert_eq!(again.name(), "ollama");
///
/// let document = br#"{"deployments": [{"provider": "ollama", "model": "a"}, {"provider": "ollama", "model": "b"}]}"#;
/// let config = || Config::from_json(document);
/// let client = Client::from_config(config()?)?;
/// let request = LlmRequest::from("Hello");
/// assert_eq!(client.explain(&request, false).await.candidates[0].deployment, "ollama/a");
/// assert_eq!(client.select(&request).await?.name(), "ollama/a");
/// assert_eq!(client.only("ollama/b")?.name(), "ollama/b");
/// assert_eq!(client.state().len(), 2);
/// assert!(client.needs_background() && String::from_utf8_lossy(&client.describe()).contains("priority"));
/// client.clear_cache();
/// let records = client.telemetry().records(100);
///
/// let client = client.reloaded(config()?)?.reloaded_with(config()?, Own::default())?;
/// let other = Client::with_policy(config()?, Arc::new(LastFirst))?;
/// assert_eq!(other.explain(&request, false).await.candidates[0].deployment, "ollama/b");
/// let same = Client::from_config_with(config()?, Own { policy: Some(Arc::new(LastFirst)), ..Own::default() })?;
/// # drop((client, same, records));
/// # Ok(())
/// # }
/// ```
pub struct Client {
    stack: Arc<dyn LlmProvider>,
    pub(crate) cache: Option<KeptAnswers>,
    cache_is_off: bool,
    description: serde_json::Value,
    needs_background: bool,
    pub(crate) health: Vec<Arc<Health>>,
    pub(crate) router: Arc<Router>,
    retries: RetryOptions,
    total: Duration,
    pub(crate) telemetry: Arc<Telemetry>,
    places: Arc<Places>,
    /// Held for the telemetry, which holds it weakly.
    _observed: Arc<Standings>,
}

/// What a cache is made for: its options, and the digest of all that can change an answer.
pub(crate) type CachePlan = (CacheOptions, [u8; 32]);

/// A cache and what it was made for.
pub(crate) type KeptAnswers = (CachePlan, Arc<ResponseCache>);

/// What a client is made of beside its configuration document.
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::Arc;
/// use liter_llm::{Client, Config, LlmProvider, Own, ProviderConfig};
///
/// let inner: Arc<dyn LlmProvider> = Arc::new(Client::new(ProviderConfig::new("ollama").with_model("llama3"))?);
/// let config = Config::from_json(br#"{"deployments": [{"provider": "mine", "name": "mine"}, {"provider": "ollama", "model": "a"}]}"#)?;
/// let own = Own { providers: HashMap::from([(0, inner)]), ..Own::default() };
/// assert!(Client::from_config_with(config, own).is_ok());
/// # Ok::<(), liter_llm::LlmError>(())
/// ```
#[derive(Clone, Default)]
pub struct Own {
    /// Providers of one's own in the place of configured ones, by position in `deployments`. Of the configuration at
    /// that place, what says how to call a host is ignored.
    pub providers: HashMap<usize, Arc<dyn LlmProvider>>,
    /// What puts the candidates in order; the document's `policy` holds when it fails.
    pub policy: Option<Arc<dyn CustomPolicy>>,
}

/// A deployment and the configuration it was made of.
type Made = (Deployment, ProviderConfig);

impl Client {
    /// A client of one deployment. Opens no connection.
    ///
    /// # Errors
    /// `config` and `authentication` (no key) naming the option and the remedy.
    pub fn new(config: ProviderConfig) -> Result<Self, LlmError> {
        Self::from_config(Config { deployment: Some(config), ..Config::default() })
    }

    /// A client over any provider, a user-made one for instance, with the engine's layers around it but the response
    /// cache: a request's `cache` is the provider's to obey.
    #[must_use]
    pub fn over(provider: Arc<dyn LlmProvider>) -> Self {
        let config = ProviderConfig::default();
        let deployment = Deployment::over(Arc::clone(&provider), &config, Heirloom(None));
        let member = deployment.member(&config, None);
        let router = Arc::new(Router::of_one(member, Arc::new(MonotonicClock::default())));
        Self::around(router, vec![(deployment, config)], None, None, Heirloom(None))
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
        Self::from_config_with(config, Own::default())
    }

    /// A client of several deployments that a policy of the caller's own puts in order. The document's own `policy`
    /// holds when that one fails.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_policy(config: Config, policy: Arc<dyn CustomPolicy>) -> Result<Self, LlmError> {
        Self::from_config_with(config, Own { policy: Some(policy), ..Own::default() })
    }

    /// A client from a configuration document and what no document can hold.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_config_with(config: Config, own: Own) -> Result<Self, LlmError> {
        Self::make(config, own, Heirloom(None))
    }

    /// A client with what another one leaves to it.
    pub(crate) fn make(config: Config, own: Own, before: Heirloom<'_>) -> Result<Self, LlmError> {
        let Own { providers: mut own, policy } = own;
        config.validate()?;
        let catalog = config.catalogue()?;
        let Config { deployment, deployments, router: options, cache, providers, telemetry, .. } = config;
        let one = deployment.is_some();
        let configs: Vec<ProviderConfig> = deployment.into_iter().chain(deployments).collect();
        let mut made: Vec<Made> = Vec::with_capacity(configs.len());
        for (position, config) in configs.into_iter().enumerate() {
            let deployment = match own.remove(&position) {
                Some(provider) => Ok(Deployment::over(provider, &config, before)),
                None => row_of(&config, &providers)
                    .and_then(|row| Deployment::new(&config, row, &catalog, before)),
            };
            made.push((deployment.map_err(|error| if one { error } else { at(error, position) })?, config));
        }
        let clock: Arc<dyn Clock> = match before.0 {
            // The times in its statistics are by its clock.
            Some(client) => Arc::clone(client.router.clock()),
            None => Arc::new(MonotonicClock::default()),
        };
        let member = |(deployment, config): &Made| {
            let mut member = deployment.member(config, Some(&catalog).filter(|_| !one));
            before.statistics(&deployment.health.identity, &mut member);
            member
        };
        let members = made.iter().map(member).collect();
        let name = match made.first() {
            Some((deployment, _)) if one => deployment.door.name().to_owned(),
            _ => "router".to_owned(),
        };
        let mut router = Router::new(name, members, options.unwrap_or_default(), clock)?;
        if let Some(policy) = policy {
            router = router.with_policy(policy);
        }
        before.spend(&router);
        let client =
            Self::around(Arc::new(router), made, cache.as_ref().and_then(Toggle::options), Some(one), before);
        #[cfg(feature = "opentelemetry")]
        client.telemetry.propagate(telemetry.unwrap_or_default().propagate_trace);
        #[cfg(not(feature = "opentelemetry"))]
        let _ = telemetry;
        Ok(client)
    }

    /// Builds the layers, outermost first: telemetry > cache > attempts within the deadline over the router's deployments, each
    /// behind its own layers. `one`: whether the document describes one deployment.
    fn around(
        router: Arc<Router>,
        made: Vec<Made>,
        cache: Option<CacheOptions>,
        one: Option<bool>,
        before: Heirloom<'_>,
    ) -> Self {
        let options = router.options();
        let default = ProviderConfig::default();
        let first = made.first().filter(|_| one != Some(false)).map_or(&default, |(_, config)| config);
        let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).ok();
        let total = options.timeout.and_then(seconds).unwrap_or(first.limits().total);
        let retries = first.retries();
        let retries = retries.with_max_retries(options.max_retries.unwrap_or(retries.max_retries));
        let candidates = Arc::new(Deployments(Arc::clone(&router)));
        let attempts: Arc<dyn LlmProvider> = Arc::new(Attempts::new(candidates, retries, total));
        let cache = cache.or_else(|| first.cache.as_ref().and_then(Toggle::options));
        // A provider of one's own alone may keep answers as it likes.
        let cache_is_off =
            cache.is_none() && made.iter().any(|(deployment, _)| deployment.fingerprint.is_some());
        let cache = cache.and_then(|options| {
            let mut digest = Digest::new("liter-llm deployments 1");
            for (deployment, _) in &made {
                digest.bytes("deployment", &deployment.fingerprint?);
            }
            if one == Some(false) {
                // An answer from where calls may no longer go is not handed out when the rules have changed.
                let rules = router.options();
                digest.json("rules", &(&rules.regions, &rules.require_tags, &rules.forbid_tags));
                for (_, config) in &made {
                    digest.json("place", &(&config.region, &config.tags));
                }
            }
            let plan = (options, digest.finish()?);
            let new = || Arc::new(ResponseCache::new(options, plan.1, &first.extra));
            Some((plan, before.answers(plan).unwrap_or_else(new)))
        });
        let stack: Arc<dyn LlmProvider> = match &cache {
            Some((_, cache)) => Arc::new(Cached::new(attempts, Arc::clone(cache), total)),
            None => attempts,
        };
        let telemetry = before.0.map_or_else(Arc::default, |client| Arc::clone(&client.telemetry));
        let places = made.iter().map(|(deployment, config)| deployment.place(config));
        let places = Arc::new(Places::new(places, &telemetry));
        let stack = Recorded::new(stack, Arc::clone(&telemetry), Arc::clone(&places));
        let stack = Arc::new(stack.with_cache(cache.is_some()));
        let mut descriptions: Vec<_> =
            made.iter().map(|(deployment, _)| deployment.description.clone()).collect();
        let description = match one {
            Some(false) => serde_json::json!({
                "policy": router.policy_name(),
                "deployments": descriptions,
            }),
            _ => descriptions.pop().unwrap_or_default(),
        };
        let needs_background = cache.is_some()
            || made.len() > 1
            || made.iter().any(|(deployment, _)| deployment.needs_background);
        let health: Vec<_> = made.into_iter().map(|(deployment, _)| deployment.health).collect();
        for health in &health {
            health.notify(telemetry.notices());
        }
        router.notify(telemetry.notices());
        let observed = Standings::of(&health, &router, &telemetry);
        Self {
            stack,
            cache,
            cache_is_off,
            description,
            needs_background,
            health,
            router,
            retries,
            total,
            telemetry,
            places,
            _observed: observed,
        }
    }

    /// Whether something of this client must go on between calls: a token that is renewed early, a WebSocket that
    /// answers pings, a cache whose calls are shared, a router that tries out deployments. If not, its calls may run
    /// on a runtime that is driven only while a call waits; connections that broke meanwhile are noticed when it is
    /// driven again.
    #[must_use]
    pub const fn needs_background(&self) -> bool {
        self.needs_background
    }

    /// How the deployments are doing: circuit, cooldown, calls in flight and in line. One entry each, and one more for
    /// each other model or key that calls have named.
    #[must_use]
    pub fn state(&self) -> Vec<DeploymentState> {
        self.health.iter().flat_map(|health| health.state()).collect()
    }

    /// The deployments and how they are picked.
    #[doc(hidden)]
    #[must_use]
    pub const fn router(&self) -> &Arc<Router> {
        &self.router
    }

    /// The deployment a request would go to now, by itself: with the engine's retries, without the others. Nothing is
    /// sent.
    ///
    /// # Errors
    /// `no_candidate`, naming what ruled out which deployment.
    pub async fn select(&self, request: &LlmRequest) -> Result<Arc<dyn LlmProvider>, LlmError> {
        Ok(self.at(self.router.select(request).await?))
    }

    /// The deployment of this name by itself: with the engine's retries, without the others.
    ///
    /// # Errors
    /// `config` when there is none of this name.
    pub fn only(&self, name: &str) -> Result<Arc<dyn LlmProvider>, LlmError> {
        match self.router.members().iter().position(|member| *member.name == *name) {
            Some(position) => Ok(self.at(position)),
            None => Err(LlmError::config("deployments", format!("`deployments`: none is named `{name}`"))),
        }
    }

    fn at(&self, position: usize) -> Arc<dyn LlmProvider> {
        let only = Arc::new(Only(Arc::clone(&self.router), position));
        let attempts = Arc::new(Attempts::new(only, self.retries, self.total));
        Arc::new(Recorded::new(attempts, Arc::clone(&self.telemetry), Arc::clone(&self.places)))
    }

    /// Where a request would go and why, with every deployment listed. Nothing is sent.
    pub async fn explain(&self, request: &LlmRequest, streamed: bool) -> Route {
        self.router.explain(request, streamed).await
    }

    /// Who wants the records of this client's calls.
    #[must_use]
    pub const fn telemetry(&self) -> &Arc<Telemetry> {
        &self.telemetry
    }

    /// Where the deployments are, by name.
    ///
    /// ```
    /// use liter_llm::{Client, Place, ProviderConfig};
    /// # fn main() -> Result<(), liter_llm::LlmError> {
    /// let client = Client::new(ProviderConfig::new("ollama").with_model("llama3"))?;
    /// let place: &Place = &client.places()["ollama/llama3"];
    /// assert_eq!((place.server_address.as_deref(), place.server_port), (Some("localhost"), Some(11434)));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn places(&self) -> &HashMap<String, Place> {
        self.places.all()
    }

    /// Forgets all cached answers; those on their way are kept when they arrive.
    pub fn clear_cache(&self) {
        if let Some((_, cache)) = &self.cache {
            cache.clear();
        }
    }

    /// Refuses a call that asks for a cache where there is none, rather than let its caller pay for every answer.
    fn check_cache(&self, request: &LlmRequest) -> Result<(), LlmError> {
        if !self.cache_is_off || request.cache != Some(true) {
            return Ok(());
        }
        Err(LlmError::invalid(
            "cache",
            "`cache`: this client has no response cache: set `cache` in its configuration, for one deployment \
             ProviderConfig(..., cache=True), or leave it out of the call",
        ))
    }

    /// What the client was made of, as JSON: provider, model, base URL, API, where the key came from. No secrets.
    #[must_use]
    pub fn describe(&self) -> Vec<u8> {
        self.description.to_string().into_bytes()
    }
}

fn row_of<'a>(
    config: &ProviderConfig,
    providers: &'a IndexMap<String, ProviderRow>,
) -> Result<&'a ProviderRow, LlmError> {
    match providers.get(&config.provider) {
        Some(row) => Ok(row),
        None => row(&config.provider).map_err(|error| match providers.is_empty() {
            true => error,
            false => error.with(|detail| {
                let own: Vec<&str> = providers.keys().map(String::as_str).collect();
                detail.message.push_str(&format!("; your own: {}", own.join(", ")));
            }),
        }),
    }
}

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
        if let Err(error) = self.check_cache(&request) {
            return Box::pin(std::future::ready(Err(error)));
        }
        self.stack.generate(request)
    }

    fn stream<'life0, 'async_trait>(
        &'life0 self,
        request: LlmRequest,
    ) -> BoxFuture<'async_trait, Result<ChunkStream, LlmError>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        if let Err(error) = self.check_cache(&request) {
            return Box::pin(std::future::ready(Err(error)));
        }
        self.stack.stream(request)
    }

    fn operate<'life0, 'async_trait>(
        &'life0 self,
        operation: Operation,
    ) -> BoxFuture<'async_trait, Result<RawJson, LlmError>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        self.stack.operate(operation)
    }
}
