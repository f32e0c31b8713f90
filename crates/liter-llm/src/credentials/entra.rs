//! Microsoft Entra ID tokens for Azure OpenAI, and the choice between them and an Azure key.
//!
//! Client secret and workload identity follow the OAuth 2.0 client credentials flow of the Microsoft identity
//! platform (v2.0); managed identity follows the instance metadata service (`2018-02-01`) and App Service
//! (`2019-08-01`).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::key::{KeyOrigin, SecretKey};
use super::token_cache::{Clock, SystemClock, Token, TokenCache, TokenSource};
use super::{Credential, StaticCredential, TokenHttp};
use crate::core::error::{ErrorKind, LlmError};

/// What a token is asked for unless [`EntraOptions::scope`] says otherwise.
pub const AZURE_SCOPE: &str = "https://cognitiveservices.azure.com/.default";
const AUTHORITY: &str = "https://login.microsoftonline.com";
const INSTANCE_METADATA: &str = "http://169.254.169.254";
/// The kind of assertion (RFC 7523) and the name of the field for the federated token, ready for a form.
const FEDERATED_FIELDS: &str =
    "client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion";
/// Waits before another try at a managed identity service: at least 1 s and growing, as Microsoft asks.
const IDENTITY_WAITS: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];
/// For an answer that does not state how long its token is good for (RFC 6749 only recommends it).
const UNSTATED_LIFETIME: Duration = Duration::from_secs(300);
/// The longest description kept from a token service's error, in characters.
const DESCRIPTION_LIMIT: usize = 600;

/// How to get Entra ID tokens. All fields are optional; what is missing comes from the environment.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EntraOptions {
    /// The directory: its id or domain. Environment: `AZURE_TENANT_ID`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    /// The application's, or the user-assigned managed identity's, client id. Environment: `AZURE_CLIENT_ID`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// The application's secret. Environment: `AZURE_CLIENT_SECRET`.
    #[serde(deserialize_with = "client_secret", skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<SecretKey>,
    /// A file with a federated token, read anew for each token call. Environment: `AZURE_FEDERATED_TOKEN_FILE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub federated_token_file: Option<PathBuf>,
    /// Use the managed identity of the machine, container or App Service this runs in. Default: false.
    pub managed_identity: bool,
    /// A ready token, sent as it is and never renewed. Environment: `AZURE_OPENAI_AD_TOKEN`.
    #[serde(deserialize_with = "azure_ad_token", skip_serializing_if = "Option::is_none")]
    pub azure_ad_token: Option<SecretKey>,
    /// Where tokens are issued. Environment: `AZURE_AUTHORITY_HOST`. Default: `https://login.microsoftonline.com`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority_host: Option<String>,
    /// What the token is for. Default: [`AZURE_SCOPE`]; sovereign clouds have their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
}

impl EntraOptions {
    /// Whether anything here asks for Entra ID; authority and scope only say how.
    #[must_use]
    pub const fn is_explicit(&self) -> bool {
        self.tenant_id.is_some()
            || self.client_id.is_some()
            || self.client_secret.is_some()
            || self.federated_token_file.is_some()
            || self.managed_identity
            || self.azure_ad_token.is_some()
    }
}

fn client_secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretKey>, D::Error> {
    secret(deserializer, "client_secret")
}

fn azure_ad_token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretKey>, D::Error> {
    secret(deserializer, "azure_ad_token")
}

fn secret<'de, D: Deserializer<'de>>(
    deserializer: D,
    option: &'static str,
) -> Result<Option<SecretKey>, D::Error> {
    // A value of a wrong type is not quoted, as serde's own message would: it may be the secret in a wrapper.
    let value = Value::deserialize(deserializer)
        .map_err(|_| serde::de::Error::custom(format!("`{option}` cannot be read")))?;
    match value {
        Value::Null => Ok(None),
        Value::String(text) => {
            SecretKey::new(text, option, KeyOrigin::Argument).map(Some).map_err(serde::de::Error::custom)
        }
        _ => Err(serde::de::Error::custom(format!("`{option}` must be a string"))),
    }
}

/// Looks up an environment variable.
pub type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Chooses the credential for Azure OpenAI.
///
/// In this order: `options` when they ask for Entra ID; `key`; `AZURE_OPENAI_API_KEY`; then from the environment
/// `AZURE_OPENAI_AD_TOKEN`, a client secret, a federated token file, an App Service identity. A machine's metadata
/// service is only asked when `managed_identity` is set: whether one is there cannot be seen without trying.
/// An empty variable counts as absent.
///
/// # Errors
/// `config` for a set that is incomplete or contradicts itself, for a value that cannot be sent, and for no
/// credential at all; each names what to set.
pub fn azure_credential(
    key: Option<SecretKey>,
    options: &EntraOptions,
    env: &Environment<'_>,
    http: Arc<dyn TokenHttp>,
) -> Result<Arc<dyn Credential>, LlmError> {
    azure_credential_at(key, options, env, http, Arc::new(SystemClock))
}

/// [`azure_credential`] with a clock of your own, for tests.
///
/// # Errors
/// As [`azure_credential`].
pub fn azure_credential_at(
    key: Option<SecretKey>,
    options: &EntraOptions,
    env: &Environment<'_>,
    http: Arc<dyn TokenHttp>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn Credential>, LlmError> {
    let lookup = |name: &str| env(name).filter(|value| !value.is_empty());
    let way = if options.is_explicit() {
        if key.as_ref().is_some_and(|key| *key.origin() == KeyOrigin::Argument) {
            return Err(LlmError::config(
                "api_key",
                "both `api_key` and Entra ID options are given; give one of them",
            ));
        }
        explicit_way(options, &lookup)?
    } else {
        let name = "AZURE_OPENAI_API_KEY";
        let key = match key {
            Some(key) => Some(key),
            None => lookup(name)
                .map(|value| SecretKey::new(value, "api_key", KeyOrigin::Environment(name.to_owned())))
                .transpose()?,
        };
        if let Some(key) = key {
            return Ok(Arc::new(StaticCredential::header(HeaderName::from_static("api-key"), &key)?));
        }
        way_from_environment(options, &lookup)?
    };
    let scope = options.scope.clone().unwrap_or_else(|| AZURE_SCOPE.to_owned());
    let source = match way {
        Way::Fixed(token) => return Ok(Arc::new(StaticCredential::bearer(&token)?)),
        Way::Application { tenant_id, client_id, proof } => {
            let authority = authority(options, &lookup)?;
            let url = format!("{authority}/{tenant_id}/oauth2/v2.0/token");
            EntraSource {
                http,
                clock: Arc::clone(&clock),
                call: Call::Application { url, client_id, scope, proof },
            }
        }
        Way::Managed { client_id } => {
            let call = managed_call(client_id.as_deref(), &scope, &lookup)?;
            EntraSource { http, clock: Arc::clone(&clock), call }
        }
    };
    let description = source.describe();
    let cache = TokenCache::new(Arc::new(source), clock);
    Ok(Arc::new(EntraCredential { cache, description }))
}

/// A way to a token, complete.
enum Way {
    Fixed(SecretKey),
    Application { tenant_id: String, client_id: String, proof: Proof },
    Managed { client_id: Option<String> },
}

/// How an application proves that it is itself.
enum Proof {
    Secret(SecretKey),
    FederatedFile(PathBuf),
}

type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

fn explicit_way(options: &EntraOptions, env: &Lookup<'_>) -> Result<Way, LlmError> {
    let given: Vec<&str> = [
        ("`azure_ad_token`", options.azure_ad_token.is_some()),
        ("`client_secret`", options.client_secret.is_some()),
        ("`federated_token_file`", options.federated_token_file.is_some()),
        ("`managed_identity`", options.managed_identity),
    ]
    .into_iter()
    .filter_map(|(name, given)| given.then_some(name))
    .collect();
    if given.len() > 1 {
        let message = format!("{} are given together; give one of them", given.join(" and "));
        return Err(LlmError::config("entra", message));
    }
    if let Some(token) = &options.azure_ad_token {
        return Ok(Way::Fixed(token.clone()));
    }
    if options.managed_identity {
        let client_id = options.client_id.clone().or_else(|| env("AZURE_CLIENT_ID"));
        return Ok(Way::Managed { client_id });
    }
    let proof = match (&options.client_secret, &options.federated_token_file) {
        (Some(secret), _) => Some(Proof::Secret(secret.clone())),
        (None, Some(file)) => Some(Proof::FederatedFile(file.clone())),
        (None, None) => proof_from_environment(env)?,
    };
    application(options, env, proof)
}

fn way_from_environment(options: &EntraOptions, env: &Lookup<'_>) -> Result<Way, LlmError> {
    if let Some(token) = secret_from_environment(env, "AZURE_OPENAI_AD_TOKEN", "azure_ad_token")? {
        return Ok(Way::Fixed(token));
    }
    let proof = proof_from_environment(env)?;
    if proof.is_some() {
        return application(options, env, proof);
    }
    if env("IDENTITY_ENDPOINT").is_some() && env("IDENTITY_HEADER").is_some() {
        return Ok(Way::Managed { client_id: env("AZURE_CLIENT_ID") });
    }
    if env("AZURE_TENANT_ID").is_some() && env("AZURE_CLIENT_ID").is_some() {
        return application(options, env, None);
    }
    Err(LlmError::new(
        ErrorKind::Authentication,
        "no credential for Azure OpenAI: give `api_key` or set AZURE_OPENAI_API_KEY, or use Entra ID: set \
         AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or give `managed_identity = true`",
    )
    .with(|detail| {
        detail.param = Some("api_key".to_owned());
        detail.before_send = true;
    }))
}

fn secret_from_environment(
    env: &Lookup<'_>,
    name: &str,
    option: &'static str,
) -> Result<Option<SecretKey>, LlmError> {
    env(name).map(|value| SecretKey::new(value, option, KeyOrigin::Environment(name.to_owned()))).transpose()
}

fn proof_from_environment(env: &Lookup<'_>) -> Result<Option<Proof>, LlmError> {
    if let Some(secret) = secret_from_environment(env, "AZURE_CLIENT_SECRET", "client_secret")? {
        return Ok(Some(Proof::Secret(secret)));
    }
    Ok(env("AZURE_FEDERATED_TOKEN_FILE").map(|file| Proof::FederatedFile(PathBuf::from(file))))
}

fn application(options: &EntraOptions, env: &Lookup<'_>, proof: Option<Proof>) -> Result<Way, LlmError> {
    let tenant_id = options.tenant_id.clone().or_else(|| env("AZURE_TENANT_ID"));
    let client_id = options.client_id.clone().or_else(|| env("AZURE_CLIENT_ID"));
    match (tenant_id, client_id, proof) {
        (Some(tenant_id), Some(client_id), Some(proof)) => {
            // The tenant becomes part of a path; only what a directory id or domain is made of may stand there.
            let valid = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '.');
            if tenant_id.is_empty() || !tenant_id.chars().all(valid) || tenant_id.starts_with('.') {
                let message = "`tenant_id` must be a directory's id or domain: letters, digits, `-` and `.`";
                return Err(LlmError::config("tenant_id", message));
            }
            Ok(Way::Application { tenant_id, client_id, proof })
        }
        (tenant_id, client_id, proof) => {
            let missing: Vec<(&'static str, &str)> = [
                (tenant_id.is_none(), "tenant_id", "`tenant_id` (AZURE_TENANT_ID)"),
                (client_id.is_none(), "client_id", "`client_id` (AZURE_CLIENT_ID)"),
                (
                    proof.is_none(),
                    "client_secret",
                    "`client_secret` (AZURE_CLIENT_SECRET) or `federated_token_file` (AZURE_FEDERATED_TOKEN_FILE)",
                ),
            ]
            .into_iter()
            .filter_map(|(missing, option, name)| missing.then_some((option, name)))
            .collect();
            let option = missing.first().map_or("entra", |(option, _)| option);
            let names: Vec<&str> = missing.iter().map(|(_, name)| *name).collect();
            let message = format!("Entra ID is set up in part; missing: {}", names.join(", "));
            Err(LlmError::config(option, message))
        }
    }
}

/// The authority's root without a slash at its end. A secret goes there, so it must be `https` unless it is loopback.
fn authority(options: &EntraOptions, env: &Lookup<'_>) -> Result<String, LlmError> {
    let given = options.authority_host.clone().or_else(|| env("AZURE_AUTHORITY_HOST"));
    let given = given.as_deref().unwrap_or(AUTHORITY).trim_end_matches('/');
    // Microsoft's own tools accept a bare host here.
    let url = if given.contains("://") { given.to_owned() } else { format!("https://{given}") };
    let parsed: Option<http::Uri> = url.parse().ok();
    let safe = parsed.as_ref().is_some_and(|uri| {
        let host = uri.host().unwrap_or_default();
        let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        let loopback = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
        let secure = uri.scheme_str() == Some("https") || (uri.scheme_str() == Some("http") && loopback);
        secure
            && uri.query().is_none()
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    });
    if safe {
        Ok(url)
    } else {
        Err(LlmError::config(
            "authority_host",
            "`authority_host` (AZURE_AUTHORITY_HOST) must be an https URL without user name or query; http only for \
             localhost",
        ))
    }
}

fn managed_call(client_id: Option<&str>, scope: &str, env: &Lookup<'_>) -> Result<Call, LlmError> {
    // Managed identities are asked for a resource, which is the scope without its suffix.
    let resource = scope.strip_suffix(".default").unwrap_or(scope);
    let (endpoint, version, secret) = match (env("IDENTITY_ENDPOINT"), env("IDENTITY_HEADER")) {
        (Some(endpoint), Some(secret)) => {
            let origin = KeyOrigin::Environment("IDENTITY_HEADER".to_owned());
            (endpoint, "2019-08-01", Some(SecretKey::new(secret, "managed_identity", origin)?))
        }
        (Some(_), None) => {
            return Err(LlmError::config(
                "managed_identity",
                "IDENTITY_ENDPOINT is set without IDENTITY_HEADER; the identity service of Azure Arc is not supported",
            ));
        }
        (None, _) => {
            let host = env("AZURE_POD_IDENTITY_AUTHORITY_HOST");
            let host = host.as_deref().unwrap_or(INSTANCE_METADATA).trim_end_matches('/');
            (format!("{host}/metadata/identity/oauth2/token"), "2018-02-01", None)
        }
    };
    let mut url = format!("{endpoint}?api-version={version}&resource={}", percent_encoded(resource));
    if let Some(client_id) = client_id {
        url.push_str("&client_id=");
        url.push_str(&percent_encoded(client_id));
    }
    Ok(Call::Managed { url, secret })
}

/// An Entra ID credential: a cached token in an `Authorization` header.
struct EntraCredential {
    cache: TokenCache,
    description: String,
}

#[async_trait]
impl Credential for EntraCredential {
    async fn authorize(&self, headers: &mut HeaderMap) -> Result<(), LlmError> {
        headers.insert(AUTHORIZATION, self.cache.bearer().await?);
        Ok(())
    }

    async fn refresh_after_rejection(&self) -> bool {
        self.cache.give_up()
    }

    fn describe(&self) -> String {
        self.description.clone()
    }
}

/// The token call to make.
enum Call {
    Application { url: String, client_id: String, scope: String, proof: Proof },
    Managed { url: String, secret: Option<SecretKey> },
}

struct EntraSource {
    http: Arc<dyn TokenHttp>,
    clock: Arc<dyn Clock>,
    call: Call,
}

#[async_trait]
impl TokenSource for EntraSource {
    async fn fetch(&self) -> Result<Token, LlmError> {
        match &self.call {
            Call::Application { url, client_id, scope, proof } => {
                self.application_token(url, client_id, scope, proof).await
            }
            Call::Managed { url, secret } => self.managed_token(url, secret.as_ref()).await,
        }
    }
}

impl EntraSource {
    fn describe(&self) -> String {
        match &self.call {
            Call::Application { url, proof: Proof::Secret(secret), .. } => {
                format!("Entra ID application, {}, token from {}", secret.describe(), host_of(url))
            }
            Call::Application { url, proof: Proof::FederatedFile(file), .. } => {
                format!("Entra ID workload identity, file {}, token from {}", file.display(), host_of(url))
            }
            Call::Managed { url, .. } => format!("Entra ID managed identity, token from {}", host_of(url)),
        }
    }

    async fn application_token(
        &self,
        url: &str,
        client_id: &str,
        scope: &str,
        proof: &Proof,
    ) -> Result<Token, LlmError> {
        let (field, proof) = match proof {
            Proof::Secret(secret) => ("client_secret", secret.clone()),
            Proof::FederatedFile(file) => (FEDERATED_FIELDS, read_federated_token(file.clone()).await?),
        };
        let mut form = format!("client_id={}&scope={}", percent_encoded(client_id), percent_encoded(scope));
        form.push('&');
        form.push_str(field);
        form.push('=');
        form.push_str(&percent_encoded(proof.expose()));
        form.push_str("&grant_type=client_credentials");
        let headers = [
            ("content-type", "application/x-www-form-urlencoded".to_owned()),
            ("accept", "application/json".to_owned()),
        ];
        let (status, body) = self
            .http
            .send("POST", url, &headers, Some(form))
            .await
            .map_err(|error| in_context(error, url))?;
        self.read_answer(status, &body, url, Some(&proof))
    }

    async fn managed_token(&self, url: &str, secret: Option<&SecretKey>) -> Result<Token, LlmError> {
        let header = match secret {
            Some(secret) => ("x-identity-header", secret.expose().to_owned()),
            None => ("metadata", "true".to_owned()),
        };
        let headers = [header, ("accept", "application/json".to_owned())];
        let mut waits = IDENTITY_WAITS.iter();
        loop {
            let (status, body) =
                self.http.send("GET", url, &headers, None).await.map_err(|error| in_context(error, url))?;
            // 404 and 410 are how the metadata service says that it is being updated.
            let passing = matches!(status, 404 | 408 | 410 | 429 | 500..=599);
            match waits.next() {
                Some(wait) if passing => self.clock.sleep(*wait).await,
                _ => return self.read_answer(status, &body, url, secret),
            }
        }
    }

    /// Reads a token service's answer. `sent` is the secret of the request, kept out of a message that repeats it.
    fn read_answer(
        &self,
        status: u16,
        body: &[u8],
        url: &str,
        sent: Option<&SecretKey>,
    ) -> Result<Token, LlmError> {
        if status != 200 {
            return Err(refusal(status, body, url, sent));
        }
        // The body holds the token, so nothing of it goes into an error, not even a parser's quotation.
        let unreadable = |what: &str| {
            LlmError::new(ErrorKind::Decode, format!("the token service at {} sent {what}", host_of(url)))
        };
        let answer: Value = serde_json::from_slice(body).map_err(|_| unreadable("no readable JSON"))?;
        let token = answer.get("access_token").and_then(Value::as_str).unwrap_or_default();
        let origin = KeyOrigin::Received(format!("the token service at {}", host_of(url)));
        let value =
            SecretKey::new(token, "access_token", origin).map_err(|_| unreadable("no usable token"))?;
        let lifetime = number(answer.get("expires_in")).map(Duration::from_secs).or_else(|| {
            let expiry = UNIX_EPOCH.checked_add(Duration::from_secs(number(answer.get("expires_on"))?))?;
            Some(expiry.duration_since(self.clock.wall()).unwrap_or_default())
        });
        // No token lives for a year; the bound keeps sums of times from overflowing on a nonsensical answer.
        let lifetime = lifetime.unwrap_or(UNSTATED_LIFETIME).min(Duration::from_secs(365 * 86_400));
        Ok(Token { value, lifetime })
    }
}

/// The federated token, as it is at this moment: whoever writes the file replaces it before it expires.
async fn read_federated_token(file: PathBuf) -> Result<SecretKey, LlmError> {
    let unreadable = |reason: String| {
        let message = format!("the federated token file {} cannot be read: {reason}", file.display());
        LlmError::config("federated_token_file", message)
    };
    let path = file.clone();
    let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
    let text = read
        .map_err(|_| unreadable("reading was interrupted".to_owned()))?
        .map_err(|error| unreadable(error.to_string()))?;
    let origin = KeyOrigin::Received(format!("the file {}", file.display()));
    // Unlike a key, a file's text ends with a line break as often as not.
    SecretKey::new(text.trim(), "federated_token_file", origin)
}

/// What a token service's refusal means: Microsoft's error code and description, and whether to try again.
fn refusal(status: u16, body: &[u8], url: &str, sent: Option<&SecretKey>) -> LlmError {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| answer.get(name).and_then(Value::as_str).map(|text| hidden(text, sent));
    let error = text("error");
    // The description goes on with ids and a time, which have fields of their own.
    let description = text("error_description").or_else(|| text("message")).map(|text| {
        let end = [" Trace ID:", "\r", "\n"].iter().filter_map(|mark| text.find(mark)).min();
        let text = end.and_then(|end| text.get(..end)).unwrap_or(&text);
        text.chars().filter(|character| !character.is_control()).take(DESCRIPTION_LIMIT).collect::<String>()
    });
    let code = description.as_deref().and_then(aadsts_code).or_else(|| error.clone());
    let reason = match (&error, &description) {
        (Some(error), Some(description)) => format!("{error}: {description}"),
        (Some(reason), None) | (None, Some(reason)) => reason.clone(),
        (None, None) => "no reason given".to_owned(),
    };
    let message = format!("the token service at {} refused: {reason}", host_of(url));
    LlmError::new(ErrorKind::Authentication, message).with(|detail| {
        detail.status_code = Some(status);
        detail.code = code;
        detail.request_id = text("trace_id").or_else(|| text("correlation_id"));
        detail.retryable = Some(matches!(status, 408 | 410 | 429 | 500..=599));
    })
}

/// `AADSTS7000215` from the beginning of a description.
fn aadsts_code(description: &str) -> Option<String> {
    let digits = description.strip_prefix("AADSTS")?;
    let end = digits.find(|character: char| !character.is_ascii_digit()).unwrap_or(digits.len());
    (end > 0).then(|| format!("AADSTS{}", digits.get(..end).unwrap_or_default()))
}

/// A service's words without the secret it was sent, plain or encoded.
fn hidden(text: &str, sent: Option<&SecretKey>) -> String {
    match sent {
        Some(secret) => {
            text.replace(secret.expose(), "***").replace(&percent_encoded(secret.expose()), "***")
        }
        None => text.to_owned(),
    }
}

/// Says what an error of the transport was about.
fn in_context(error: LlmError, url: &str) -> LlmError {
    let place = if url.starts_with(INSTANCE_METADATA) {
        "the instance metadata service (is this a machine in Azure?)".to_owned()
    } else {
        format!("the token service at {}", host_of(url))
    };
    let reason = error.to_string();
    error.with(|detail| detail.message = format!("{place}: {reason}"))
}

fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?']).next().unwrap_or(rest)
}

/// A count of seconds, which some of these services write as a number and some as a string.
fn number(value: Option<&Value>) -> Option<u64> {
    match value? {
        Value::String(text) => text.parse().ok(),
        value => value.as_u64(),
    }
}

/// Everything but RFC 3986's unreserved characters as `%XX`; valid in a query and in a form.
fn percent_encoded(text: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(text.len() + text.len() / 4);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            for digit in [byte >> 4, byte & 15] {
                encoded.push(char::from(DIGITS.get(usize::from(digit)).copied().unwrap_or(b'0')));
            }
        }
    }
    encoded
}
