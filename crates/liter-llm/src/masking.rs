//! Keeps secrets out of errors: a provider's message or body that repeats a key is shown without it.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt;
use http::HeaderMap;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use crate::config::ProviderConfig;
use crate::core::error::{ErrorDetail, LlmError};
use crate::core::json::{Extra, RawJson};
use crate::core::provider::{ChunkStream, LlmProvider, Operation};
use crate::core::request::LlmRequest;
use crate::core::response::LlmResponse;

/// What stands where a secret stood.
const MASK: &str = "***";
/// Shorter values are no secrets, and taking them out would spoil ordinary words.
const SHORTEST: usize = 8;
/// Environment variables that hold Microsoft Entra secrets.
const ENTRA_VARIABLES: [&str; 3] = ["AZURE_CLIENT_SECRET", "AZURE_OPENAI_AD_TOKEN", "IDENTITY_HEADER"];

/// Whether a header, query or JSON field of this name holds a secret by all appearances.
fn sounds_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["auth", "key", "token", "secret", "password", "cookie", "credential", "signature"]
        .iter()
        .any(|word| name.contains(word))
        || matches!(name.as_str(), "sig" | "code" | "sas" | "jwt")
}

/// The secrets of one deployment, in every spelling a host may repeat them in.
#[derive(Default)]
pub(crate) struct Secrets(Vec<SecretString>);

impl Secrets {
    /// All secrets of a configuration; `fixed` are the headers of its credential, `env` looks up variables.
    pub(crate) fn of(
        config: &ProviderConfig,
        base: &Url,
        fixed: Option<&HeaderMap>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Self {
        let mut secrets = Self::default();
        for secret in [&config.api_key, &config.azure_ad_token, &config.client_secret].into_iter().flatten() {
            secrets.add(secret.expose_secret());
        }
        for value in fixed.into_iter().flat_map(HeaderMap::values) {
            secrets.add_header(value.to_str().unwrap_or_default());
        }
        for name in ENTRA_VARIABLES {
            secrets.add(&env(name).unwrap_or_default());
        }
        secrets.add_headers(config.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        for (name, value) in base.query_pairs() {
            if sounds_secret(&name) {
                secrets.add(&value);
            }
        }
        if let Some(password) =
            config.proxy.as_deref().and_then(|proxy| Url::parse(proxy).ok()?.password().map(str::to_owned))
        {
            secrets.add(&password);
        }
        secrets.add_extra(&config.extra);
        secrets
    }

    fn add(&mut self, secret: &str) {
        if secret.len() < SHORTEST {
            return;
        }
        let json = RawJson::from(secret);
        let quoted = json.get().trim_matches('"');
        let query: String = reqwest::Url::parse_with_params("http://h", [("k", secret)])
            .ok()
            .and_then(|url| url.query().and_then(|query| query.strip_prefix("k=")).map(str::to_owned))
            .unwrap_or_default();
        for spelling in [secret, quoted, query.as_str()] {
            if spelling.len() >= SHORTEST && !self.0.iter().any(|known| known.expose_secret() == spelling) {
                self.0.push(SecretString::from(spelling.to_owned()));
            }
        }
    }

    /// The value of an authorisation header, without its scheme: hosts repeat the key alone.
    fn add_header(&mut self, value: &str) {
        self.add(value.split_once(' ').map_or(value, |(_, rest)| rest.trim()));
        self.add(value);
    }

    fn add_headers<'a>(&mut self, headers: impl Iterator<Item = (&'a str, &'a str)>) {
        for (_, value) in headers.filter(|(name, _)| sounds_secret(name)) {
            self.add_header(value);
        }
    }

    fn add_extra(&mut self, extra: &Extra) {
        for (_, value) in extra.iter().filter(|(name, _)| sounds_secret(name)) {
            if let Some(text) = value.as_string() {
                self.add(&text);
            }
        }
    }

    /// The text without the secrets.
    pub(crate) fn mask(&self, text: &mut String) {
        for secret in &self.0 {
            let secret = secret.expose_secret();
            if text.contains(secret) {
                *text = text.replace(secret, MASK);
            }
            // An excerpt may end in the middle of one.
            let end = text.strip_suffix('…').unwrap_or(text).len();
            let cut = (SHORTEST..secret.len())
                .rev()
                .filter(|length| secret.is_char_boundary(*length))
                .find(|length| text[..end].ends_with(&secret[..*length]));
            if let Some(length) = cut {
                text.replace_range(end - length..end, MASK);
            }
        }
        mask_tokens(text);
    }

    fn occurs_in(&self, text: &str) -> bool {
        self.0.iter().any(|secret| text.contains(secret.expose_secret())) || token_in(text).is_some()
    }

    fn mask_detail(&self, detail: &mut ErrorDetail) {
        self.mask(&mut detail.message);
        let rest = [&mut detail.body, &mut detail.code, &mut detail.param, &mut detail.request_id];
        rest.into_iter().flatten().for_each(|text| self.mask(text));
        detail.causes.iter_mut().for_each(|cause| self.mask(cause));
        if detail.source.as_ref().is_some_and(|source| self.occurs_in(&format!("{source} {source:?}"))) {
            detail.source = None;
        }
    }
}

/// Where the first JSON Web Token stands: access tokens change over time, but they all look alike.
fn token_in(text: &str) -> Option<std::ops::Range<usize>> {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '=');
    let mut from = 0;
    while let Some(at) = text[from..].find("eyJ").map(|at| at + from) {
        let length = text[at..].find(|c| !part(c)).unwrap_or(text.len() - at);
        let word = &text[at..at + length];
        if word.len() > 24 && word.contains('.') {
            return Some(at..at + length);
        }
        from = at + length;
    }
    None
}

fn mask_tokens(text: &mut String) {
    while let Some(place) = token_in(text) {
        text.replace_range(place, MASK);
    }
}

/// A provider whose errors show no secret of its deployment or of the call.
pub(crate) struct Masked {
    inner: Arc<dyn LlmProvider>,
    secrets: Arc<Secrets>,
}

impl Masked {
    pub(crate) fn new(inner: Arc<dyn LlmProvider>, secrets: Secrets) -> Self {
        Self { inner, secrets: Arc::new(secrets) }
    }
}

impl Secrets {
    /// The secrets in a call's own headers and vendor fields.
    fn of_call(request: &LlmRequest) -> Self {
        let mut secrets = Self::default();
        secrets.add_headers(request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        secrets.add_extra(&request.extra);
        secrets
    }

    /// Takes these and the call's own out of an error.
    fn hide(&self, request: &LlmRequest, error: LlmError) -> LlmError {
        let own = Self::of_call(request);
        error.with(|detail| {
            self.mask_detail(detail);
            if !own.0.is_empty() {
                own.mask_detail(detail);
            }
        })
    }
}

#[async_trait]
impl LlmProvider for Masked {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn generate(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
        let kept = request.clone();
        let outcome = self.inner.generate(request).await;
        outcome.map_err(|error| self.secrets.hide(&kept, error))
    }

    async fn stream(&self, request: LlmRequest) -> Result<ChunkStream, LlmError> {
        let kept = request.clone();
        let secrets = Arc::clone(&self.secrets);
        let hide = move |error: LlmError| secrets.hide(&kept, error);
        match self.inner.stream(request).await {
            Err(error) => Err(hide(error)),
            Ok(chunks) => Ok(Box::pin(chunks.map(move |item| item.map_err(&hide)))),
        }
    }

    async fn operate(&self, operation: Operation) -> Result<RawJson, LlmError> {
        let outcome = self.inner.operate(operation).await;
        outcome.map_err(|error| error.with(|detail| self.secrets.mask_detail(detail)))
    }
}

/// A URL whose query shows names but no values.
pub(crate) fn shown(url: &Url) -> String {
    let Some(query) = url.query() else { return url.to_string() };
    let pairs: Vec<String> = query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) if name == "api-version" => format!("{name}={value}"),
            Some((name, _)) => format!("{name}={MASK}"),
            None => MASK.to_owned(),
        })
        .collect();
    let mut url = url.clone();
    url.set_query(Some(&pairs.join("&")));
    url.to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn masked(secrets: &Secrets, text: &str) -> String {
        let mut text = text.to_owned();
        secrets.mask(&mut text);
        text
    }

    #[test]
    fn every_spelling_is_taken_out() {
        let mut secrets = Secrets::default();
        secrets.add("sk-one/two\"three");
        assert_eq!(masked(&secrets, "no sk-one/two\"three!"), "no ***!");
        assert_eq!(masked(&secrets, r#"{"m":"sk-one/two\"three"}"#), r#"{"m":"***"}"#);
        assert_eq!(masked(&secrets, "?k=sk-one%2Ftwo%22three&a=1"), "?k=***&a=1");
        assert_eq!(masked(&secrets, "cut off: sk-one/tw…"), "cut off: ***…");
        assert_eq!(masked(&secrets, "a risk-one word"), "a risk-one word");
    }

    #[test]
    fn short_values_and_ordinary_headers_stay() {
        let config = ProviderConfig {
            api_key: Some(SecretString::from("ollama")),
            headers: [("anthropic-beta", "files-api-2025"), ("x-api-key", "canary-12345")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            proxy: Some("http://user:pass-word-1@host".into()),
            ..ProviderConfig::default()
        };
        let base = Url::parse("https://h/v1?api-version=2024-10-21&sig=abcdefgh12").unwrap();
        let secrets = Secrets::of(&config, &base, None, &|_| None);
        let text = masked(&secrets, "ollama files-api-2025 2024-10-21 canary-12345 pass-word-1 abcdefgh12");
        assert_eq!(text, "ollama files-api-2025 2024-10-21 *** *** ***");
        assert_eq!(shown(&base), "https://h/v1?api-version=2024-10-21&sig=***");
    }

    #[test]
    fn a_calls_own_secrets_are_taken_out_besides_the_deployments() {
        let mut secrets = Secrets::default();
        secrets.add("sk-deployment");
        let request = LlmRequest::new().with(|body| {
            body.headers.push(("x-api-key".to_owned(), "sk-of-the-call".to_owned()));
        });
        let error =
            LlmError::new(crate::core::error::ErrorKind::Authentication, "sk-deployment, sk-of-the-call")
                .with_source(std::io::Error::other("sk-of-the-call"));
        let hidden = secrets.hide(&request, error);
        assert_eq!(hidden.detail().message, "***, ***");
        assert!(hidden.detail().source.is_none());
    }

    #[test]
    fn access_tokens_are_known_by_their_looks() {
        let secrets = Secrets::default();
        let token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl";
        assert_eq!(masked(&secrets, &format!("bad token {token}, eyJ")), "bad token ***, eyJ");
    }
}
