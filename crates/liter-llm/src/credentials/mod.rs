//! What proves to a provider who is calling: keys, tokens and how they get into a request's headers.
//!
//! Nothing in here reaches the network by itself: token calls go through [`TokenHttp`], which the endpoint provides.

pub mod entra;
pub mod key;
pub mod token_cache;

use async_trait::async_trait;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};

use crate::core::error::LlmError;

pub use entra::{AZURE_SCOPE, EntraOptions, azure_credential};
pub use key::{KeyOrigin, SecretKey};
pub use token_cache::{Clock, SystemClock, Token, TokenCache, TokenSource};

/// Puts the caller's credential into the headers of a request.
///
/// ```
/// use liter_llm::credentials::{Credential, KeyOrigin, SecretKey, StaticCredential};
///
/// let key = SecretKey::new("sk-example", "api_key", KeyOrigin::Argument)?;
/// let credential = StaticCredential::bearer(&key)?;
/// assert!(credential.static_headers().is_some_and(|headers| headers.contains_key("authorization")));
/// # Ok::<(), liter_llm::LlmError>(())
/// ```
#[async_trait]
pub trait Credential: Send + Sync {
    /// The headers of a credential that never changes, so that a caller prepares them once and skips
    /// [`authorize`](Self::authorize). `None` when they change over time, which is the default.
    fn static_headers(&self) -> Option<&HeaderMap> {
        None
    }

    /// Sets the credential's headers, replacing what stands there under the same names.
    ///
    /// # Errors
    /// Whatever getting a token can end in: `authentication`, `config`, `connection`, `timeout`, `decode`.
    async fn authorize(&self, headers: &mut HeaderMap) -> Result<(), LlmError>;

    /// Told that the provider answered 401. Gives up a cached token; true when another try, with headers from a
    /// fresh [`authorize`](Self::authorize), makes sense. Ask at most once a call. The default is false.
    async fn refresh_after_rejection(&self) -> bool {
        false
    }

    /// What kind of credential this is and where it came from, for diagnostics. Never a secret.
    fn describe(&self) -> String;
}

/// The way out to a token service. The endpoint implements it over its own transport.
///
/// An implementation must verify TLS, follow no redirects (the body holds a secret), bound each exchange in time,
/// and keep `headers` and `body` out of errors and logs. Link-local and loopback hosts must not go through a proxy.
#[async_trait]
pub trait TokenHttp: Send + Sync {
    /// Sends one request; gives status and body, whatever the status is.
    ///
    /// # Errors
    /// `connection` or `timeout` when there was no answer.
    async fn send(
        &self,
        method: &'static str,
        url: &str,
        headers: &[(&'static str, String)],
        body: Option<String>,
    ) -> Result<(u16, Vec<u8>), LlmError>;
}

/// A credential that never changes: a bearer key, a key in a header of its own, or none.
#[derive(Debug, Clone)]
pub struct StaticCredential {
    headers: HeaderMap,
    description: String,
}

impl StaticCredential {
    /// `Authorization: Bearer <key>`, as OpenAI and most compatible hosts want it.
    ///
    /// # Errors
    /// `config` when the key cannot stand in a header.
    pub fn bearer(key: &SecretKey) -> Result<Self, LlmError> {
        Self::with(AUTHORIZATION, bearer_value(key)?, key)
    }

    /// The key alone in a header of its own: `x-api-key` (Anthropic), `api-key` (Azure OpenAI).
    ///
    /// # Errors
    /// `config` when the key cannot stand in a header.
    pub fn header(name: HeaderName, key: &SecretKey) -> Result<Self, LlmError> {
        Self::with(name, header_value(key.expose(), key)?, key)
    }

    /// No credential, for hosts that need none.
    #[must_use]
    pub fn none() -> Self {
        Self { headers: HeaderMap::new(), description: "no key".to_owned() }
    }

    fn with(name: HeaderName, value: HeaderValue, key: &SecretKey) -> Result<Self, LlmError> {
        let description = format!("`{name}` header, {}", key.describe());
        Ok(Self { headers: HeaderMap::from_iter([(name, value)]), description })
    }
}

#[async_trait]
impl Credential for StaticCredential {
    fn static_headers(&self) -> Option<&HeaderMap> {
        Some(&self.headers)
    }

    async fn authorize(&self, headers: &mut HeaderMap) -> Result<(), LlmError> {
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        Ok(())
    }

    fn describe(&self) -> String {
        self.description.clone()
    }
}

/// `Bearer <key>` as a header value that its own `Debug`, HTTP/2 tables and logs keep hidden.
pub(crate) fn bearer_value(key: &SecretKey) -> Result<HeaderValue, LlmError> {
    header_value(&format!("Bearer {}", key.expose()), key)
}

fn header_value(text: &str, key: &SecretKey) -> Result<HeaderValue, LlmError> {
    // A `SecretKey` is checked when it is made, so this fails only if the two rules ever part.
    let mut value = HeaderValue::from_str(text).map_err(|_| key.refused("cannot stand in an HTTP header"))?;
    value.set_sensitive(true);
    Ok(value)
}
