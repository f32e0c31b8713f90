//! One deployment: its endpoint, made from configuration, with the layers of its own around it.

use std::sync::{Arc, OnceLock};

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::adapters::Adapter;
use crate::catalog::Catalog;
use crate::config::{Api, ProviderConfig, TransportKind};
use crate::core::error::{ErrorKind, LlmError};
use crate::core::notices::Notices;
use crate::core::provider::LlmProvider;
use crate::core::record::Place;
use crate::core::request::check_header;
use crate::core::route::{Capabilities, Pricing, Standing, Stands};
use crate::core::shared_text::SharedText;
use crate::core::state::fields_keep_state;
use crate::credentials::{
    Credential, EntraOptions, KeyOrigin, SecretKey, StaticCredential, azure_credential,
};
use crate::endpoint::{Endpoint, TokenRequests, Wire};
use crate::fingerprint::fingerprint;
use crate::listed::Listed;
use crate::locate::{Location, locate};
use crate::masking::{Masked, Secrets, shown};
use crate::providers::{Auth, ProviderRow};
use crate::reload::Heirloom;
use crate::resilience::breaker::Breaker;
use crate::resilience::breaker_layer::{BreakerLayer, is_key};
use crate::resilience::breakers::{Breakers, DeploymentState, Scope};
use crate::resilience::hedge::Hedge;
use crate::resilience::limit::{Limiter, Limits};
use crate::resilience::limit_layer::LimitLayer;
use crate::resilience::options::Toggle;
use crate::routing::member::Member;
use crate::routing::needs;
use crate::routing::price::{ListPrice, OwnPrice};
use crate::routing::stats::Stats;
use crate::transports::http::{HttpOptions, HttpTransport};
#[cfg(feature = "websocket")]
use crate::transports::websocket_pool::WebSocketPool;

/// A deployment ready to be called, and what its client keeps of it.
pub(crate) struct Deployment {
    /// The endpoint behind hedge > limit > breaker.
    pub door: Arc<dyn LlmProvider>,
    pub health: Arc<Health>,
    /// What it was made of, without secrets.
    pub description: serde_json::Value,
    /// Whether something of it must go on between calls.
    pub needs_background: bool,
    /// Tells cached answers of this deployment from another's; `None` when they cannot be told apart.
    pub fingerprint: Option<[u8; 32]>,
    /// `gen_ai.provider.name` of its provider.
    telemetry_name: String,
}

/// What makes a deployment the same one under another configuration: what is known of it still holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub name: String,
    pub provider: String,
    pub model: String,
    pub base_url: String,
}

/// How a deployment is doing.
pub(crate) struct Health {
    pub identity: Identity,
    breakers: Arc<Breakers>,
    scope: Scope,
    own: Arc<Breaker>,
    limits: Limits,
    limiter: Option<Arc<Limiter>>,
}

impl Health {
    /// Has it told here when a circuit opens or closes.
    pub fn notify(&self, notices: &Arc<Notices>) {
        self.breakers.notify(notices);
    }

    /// One entry, and one more for each other model or key that calls have named.
    pub fn state(&self) -> Vec<DeploymentState> {
        let waiting = self.limiter.as_ref().map_or(0, |limiter| limiter.waiting());
        let mut states = self.breakers.state();
        for state in &mut states {
            state.waiting = waiting;
        }
        states
    }
}

impl Stands for Health {
    fn standing(&self) -> Standing {
        let snapshot = self.own.snapshot(self.breakers.clock().now());
        Standing {
            circuit: snapshot.circuit,
            closed_for: snapshot.open_for.max(snapshot.cooling_for),
            in_flight: snapshot.in_flight,
            waiting: self.limiter.as_ref().map_or(0, |limiter| limiter.waiting()),
        }
    }
}

/// The layers of a deployment, outermost first: hedge > limit > breaker. The circuit is looked at before a call queues
/// and again when its turn has come. `key`: the header values its key stands in. `before`: the same deployment under the
/// configuration before this one, whose circuits stand, and whose limits do when they have not changed.
fn layers(
    base: Arc<dyn LlmProvider>,
    config: &ProviderConfig,
    (identity, key): (Identity, &[&[u8]]),
    before: Option<&Health>,
) -> (Arc<dyn LlmProvider>, Health) {
    let breakers = Arc::new(match before {
        Some(before) => {
            let retired = before.scope.key;
            let kept = retired == before.breakers.mark(key.iter().copied());
            before.breakers.renewed(config.circuit(), (!kept).then_some(retired))
        }
        None => Breakers::new(config.circuit()),
    });
    let scope = Scope {
        deployment: identity.name.clone(),
        model: None,
        key: breakers.mark(key.iter().copied()),
        region: config.region.clone(),
    };
    let own = breakers.of(&scope);
    let model = identity.model.clone();
    let guarded = BreakerLayer::new(base, Arc::clone(&breakers), scope.clone(), model);
    let guarded = Arc::new(guarded.with_first_byte_limit(config.limits().first_byte));
    let limits = Limits { concurrency: config.concurrency, rpm: config.rpm, tpm: config.tpm };
    let (base, limiter): (Arc<dyn LlmProvider>, _) = if limits.any() {
        let clock = Arc::clone(breakers.clock());
        let limiter = before
            .filter(|before| before.limits == limits)
            .and_then(|before| before.limiter.clone())
            .unwrap_or_else(|| Arc::new(Limiter::new(limits, clock.now())));
        (Arc::new(LimitLayer::new(guarded, Arc::clone(&limiter), clock)), Some(limiter))
    } else {
        (guarded, None)
    };
    let door: Arc<dyn LlmProvider> = match config.hedge.as_ref().and_then(Toggle::options) {
        Some(options) => Arc::new(Hedge::new(base, options, &config.extra)),
        None => base,
    };
    (door, Health { identity, breakers, scope, own, limits, limiter })
}

impl Deployment {
    /// A deployment over any provider, a user-made one for instance.
    pub fn over(provider: Arc<dyn LlmProvider>, config: &ProviderConfig, before: Heirloom<'_>) -> Self {
        let name = config.name.clone().unwrap_or_else(|| provider.name().to_owned());
        let model = config.model.clone().unwrap_or_default();
        let description = serde_json::json!({ "provider": provider.name(), "name": name });
        let telemetry_name = provider.name().to_owned();
        let identity =
            Identity { name, provider: provider.name().to_owned(), model, base_url: String::new() };
        let before = before.health_of(&identity);
        let (door, health) = layers(provider, config, (identity, &[]), before);
        let health = Arc::new(health);
        Self { door, health, description, needs_background: true, fingerprint: None, telemetry_name }
    }

    /// The deployment that a configuration describes, with what `before` knows of it. Opens no connection.
    ///
    /// # Errors
    /// `config` and `authentication` (no key) naming the option and the remedy.
    pub fn new(
        config: &ProviderConfig,
        row: &ProviderRow,
        catalog: &Arc<Catalog>,
        before: Heirloom<'_>,
    ) -> Result<Self, LlmError> {
        let endpoint = build(config, row, catalog)?;
        let description = serde_json::json!({
            "provider": endpoint.provider,
            "model": endpoint.model,
            "name": endpoint.name,
            "base_url": shown(&endpoint.base),
            "api": endpoint.adapter.wire(),
            "key_source": endpoint.credential.describe(),
        });
        let identity = Identity {
            name: endpoint.name.clone(),
            provider: endpoint.provider.clone(),
            model: endpoint.model.clone(),
            base_url: endpoint.base.to_string(),
        };
        let fixed = endpoint.credential.static_headers().cloned().unwrap_or_default();
        let key: Vec<&[u8]> = fixed
            .values()
            .map(HeaderValue::as_bytes)
            .chain(config.headers.iter().filter(|(name, _)| is_key(name)).map(|(_, value)| value.as_bytes()))
            .collect();
        let fingerprint = fingerprint(&endpoint, config);
        let needs_background =
            !matches!(endpoint.wire, Wire::Http) || endpoint.credential.static_headers().is_none();
        let secrets = Secrets::of(config, &endpoint.base, endpoint.credential.static_headers(), &environment);
        let masked = Arc::new(Masked::new(Arc::new(endpoint), secrets));
        let before = before.health_of(&identity);
        let (door, health) = layers(masked, config, (identity, &key), before);
        let health = Arc::new(health);
        let telemetry_name = match row.telemetry_name.is_empty() {
            true => config.provider.clone(),
            false => row.telemetry_name.clone(),
        };
        Ok(Self { door, health, description, needs_background, fingerprint, telemetry_name })
    }

    /// Where its requests go, for records of calls.
    pub fn place(&self, config: &ProviderConfig) -> Place {
        let Identity { name, model, base_url, .. } = &self.health.identity;
        let base = reqwest::Url::parse(base_url).ok();
        Place {
            deployment: name.as_str().into(),
            provider: self.telemetry_name.as_str().into(),
            model: config.model.as_deref().unwrap_or(model).into(),
            region: config.region.as_deref().map(SharedText::from),
            server_address: base.as_ref().and_then(|base| base.host_str()).map(SharedText::from),
            server_port: base.as_ref().and_then(reqwest::Url::port_or_known_default),
        }
    }

    /// The deployment as a router sees it, with what the catalogue knows of its model.
    pub fn member(&self, config: &ProviderConfig, catalog: Option<&Arc<Catalog>>) -> Member {
        let model = config.model.as_deref().unwrap_or(&self.health.identity.model);
        let listed = catalog.and_then(|catalog| catalog.get(&config.provider, model)).map(Listed::new);
        Member {
            name: Arc::from(self.health.identity.name.as_str()),
            provider: config.provider.clone(),
            model: self.health.identity.model.clone(),
            region: config.region.clone(),
            tags: config.tags.clone(),
            weight: config.weight.unwrap_or(1.0),
            priority: config.priority.unwrap_or(0),
            capabilities: capabilities(config, listed.as_ref()),
            keeps_state: fields_keep_state(&config.extra),
            resends: config.resend_after_send.unwrap_or(true),
            notes_sending: !self.health.identity.base_url.is_empty(),
            // A price of one's own, or else the catalogue's.
            pricing: match config.price {
                Some(price) => Some(Arc::new(ListPrice::from(price)) as Arc<dyn Pricing>),
                None => listed.map(|listed| Arc::new(listed) as Arc<dyn Pricing>),
            },
            stands: Arc::clone(&self.health) as Arc<dyn Stands>,
            stats: Arc::new(Stats::default()),
            door: Arc::clone(&self.door),
        }
    }
}

/// What a deployment can do, as the configuration says or else the catalogue.
fn capabilities(config: &ProviderConfig, listed: Option<&Listed>) -> Capabilities {
    let mut capabilities = listed.map(Listed::capabilities).unwrap_or_default();
    capabilities.context = config.context.or(capabilities.context);
    for (name, able) in &config.supports {
        let need = needs::by_name(name).unwrap_or_default();
        capabilities.known |= need;
        if *able {
            capabilities.can |= need;
        } else {
            capabilities.can &= !need;
        }
    }
    capabilities
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

pub(crate) fn build(
    config: &ProviderConfig,
    row: &ProviderRow,
    catalog: &Arc<Catalog>,
) -> Result<Endpoint, LlmError> {
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
        #[cfg(not(feature = "websocket"))]
        TransportKind::Websocket => return Err(crate::transports::websockets::absent()),
        #[cfg(feature = "websocket")]
        TransportKind::Websocket => Wire::WebSocket(WebSocketPool::default()),
    };
    let name = config.name.clone().unwrap_or_else(|| match model.is_empty() {
        true => config.provider.clone(),
        false => format!("{}/{model}", config.provider),
    });
    // Azure's model in the address is a deployment's name, which says nothing about the price.
    let pricing = match config.price {
        Some(price) => {
            let own = vec![model.clone(), name.clone(), format!("{}/{model}", config.provider)];
            Arc::new(OwnPrice::new(price, own)) as Arc<dyn crate::core::cost::Pricing>
        }
        None => catalog.pricing(&config.provider, config.model.as_deref().unwrap_or(&model)),
    };
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
        pricing,
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
