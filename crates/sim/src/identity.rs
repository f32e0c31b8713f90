//! Microsoft's token endpoints: client credentials, federated assertions, instance metadata; short-lived tokens.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::answer::{letters, mix};
use crate::http::Request;
use crate::reply::Reply;
use crate::vendor::{Answered, VendorError};

/// How every issued token begins, so that a token is told from an API key.
const MARK: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.";
/// How many tokens are remembered at most before expired ones are cleared away.
const CAPACITY: usize = 10_000;

/// Issued tokens.
pub(crate) struct Identity {
    lifetime: Duration,
    issued: AtomicU64,
    tokens: Mutex<HashMap<String, Instant>>,
}

/// What a bearer value is.
#[derive(Debug, PartialEq)]
pub(crate) enum Bearer {
    Valid,
    Expired,
    /// Looks like a token and was not issued here.
    Foreign,
    /// No token at all: perhaps an API key.
    NoToken,
}

impl Identity {
    pub(crate) fn new(lifetime_seconds: f64) -> Self {
        let lifetime = Duration::try_from_secs_f64(lifetime_seconds).unwrap_or(Duration::from_secs(3599));
        Self { lifetime, issued: AtomicU64::new(0), tokens: Mutex::new(HashMap::new()) }
    }

    /// How many tokens have been issued.
    pub(crate) fn issued(&self) -> u64 {
        self.issued.load(Ordering::Relaxed)
    }

    pub(crate) fn check(&self, bearer: &str) -> Bearer {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        match tokens.get(bearer) {
            Some(until) if *until > Instant::now() => Bearer::Valid,
            Some(_) => Bearer::Expired,
            None if bearer.starts_with("eyJ") => Bearer::Foreign,
            None => Bearer::NoToken,
        }
    }

    fn issue(&self) -> (String, u64) {
        let number = self.issued.fetch_add(1, Ordering::Relaxed) + 1;
        let token = format!("{MARK}{}.{}", letters(mix(number), 48), letters(mix(number ^ 0x7369_676e), 43));
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= CAPACITY {
            let now = Instant::now();
            tokens.retain(|_, until| *until > now);
        }
        tokens.insert(token.clone(), Instant::now() + self.lifetime);
        (token, self.lifetime.as_secs_f64().round() as u64)
    }

    /// `POST /{tenant}/oauth2/v2.0/token`.
    pub(crate) fn token(&self, request: &Request, tenant: &str) -> Answered<Reply> {
        if request.method() != "POST" {
            return Err(VendorError::new(
                405,
                "invalid_request",
                "AADSTS900561: The endpoint only accepts POST requests.",
            )
            .code("900561"));
        }
        if tenant.starts_with("no-such") {
            let message = format!(
                "AADSTS90002: Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud."
            );
            return Err(VendorError::new(400, "invalid_request", message).code("90002"));
        }
        let body = String::from_utf8_lossy(&request.body);
        let field = |name: &str| {
            let value = body
                .split('&')
                .filter_map(|p| p.split_once('='))
                .find(|(n, _)| *n == name)
                .map(|(_, v)| decode(v));
            value.filter(|v| !v.is_empty())
        };
        let needed = |name: &str| {
            field(name).ok_or_else(|| {
                let message =
                    format!("AADSTS900144: The request body must contain the following parameter: '{name}'.");
                VendorError::new(400, "invalid_request", message).code("900144")
            })
        };
        let grant = needed("grant_type")?;
        if grant != "client_credentials" {
            let message = format!("AADSTS70003: The app requested an unsupported grant type '{grant}'.");
            return Err(VendorError::new(400, "unsupported_grant_type", message).code("70003"));
        }
        let client = needed("client_id")?;
        let scope = needed("scope")?;
        if !scope.ends_with("/.default") {
            let message = format!(
                "AADSTS1002012: The provided value for scope {scope} is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI)."
            );
            return Err(VendorError::new(400, "invalid_scope", message).code("1002012"));
        }
        let refused = |value: &str| value.contains("wrong") || value.contains("invalid");
        if let Some(assertion) = field("client_assertion") {
            let kind = needed("client_assertion_type")?;
            if kind != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" || refused(&assertion) {
                let message = "AADSTS700211: No matching federated identity record found for presented assertion issuer.";
                return Err(VendorError::new(401, "invalid_client", message).code("700211"));
            }
        } else {
            let secret = field("client_secret").ok_or_else(|| {
                let message = "AADSTS7000218: The request body must contain the following parameter: 'client_assertion' or 'client_secret'.";
                VendorError::new(401, "invalid_client", message).code("7000218")
            })?;
            if refused(&secret) {
                let message = format!(
                    "AADSTS7000215: Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{client}'."
                );
                return Err(VendorError::new(401, "invalid_client", message).code("7000215"));
            }
        }
        let (token, seconds) = self.issue();
        Ok(Reply::json(
            200,
            &json!({"token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": token}),
        ))
    }

    /// `GET /metadata/identity/oauth2/token`.
    pub(crate) fn metadata(&self, request: &Request) -> Answered<Reply> {
        if !request.header("metadata").is_some_and(|v| v.eq_ignore_ascii_case("true")) {
            return Err(VendorError::new(400, "invalid_request", "Required metadata header not specified"));
        }
        if request.header("x-forwarded-for").is_some() {
            return Err(VendorError::new(
                400,
                "invalid_request",
                "Requests with an X-Forwarded-For header are refused",
            ));
        }
        self.local(request)
    }

    /// `GET /msi/token`, as App Service offers it.
    pub(crate) fn managed(&self, request: &Request) -> Answered<Reply> {
        if request.header("x-identity-header").is_none() {
            return Err(VendorError::new(401, "unauthorized", "Missing X-IDENTITY-HEADER"));
        }
        self.local(request)
    }

    fn local(&self, request: &Request) -> Answered<Reply> {
        if request.parameter("api-version").is_none_or(str::is_empty) {
            return Err(VendorError::new(
                400,
                "invalid_request",
                "Required query variable 'api-version' is missing",
            ));
        }
        let resource = request.parameter("resource").map(decode).filter(|r| !r.is_empty());
        let resource = resource.ok_or_else(|| {
            VendorError::new(400, "invalid_request", "Required query variable 'resource' is missing")
        })?;
        let client = request
            .parameter("client_id")
            .map_or(Cow::Borrowed("00000000-0000-4000-8000-0000000000aa"), decode);
        if client.starts_with("no-such") {
            return Err(VendorError::new(400, "invalid_request", "Identity not found"));
        }
        let (token, seconds) = self.issue();
        let now = crate::log::now().as_secs();
        Ok(Reply::json(
            200,
            &json!({
                "access_token": token, "client_id": client, "expires_in": seconds.to_string(),
                "expires_on": (now + seconds).to_string(), "ext_expires_in": seconds.to_string(),
                "not_before": now.to_string(), "resource": resource, "token_type": "Bearer",
            }),
        ))
    }
}

/// Undoes form encoding.
fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escaped = (*byte == b'%')
            .then(|| text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok()))
            .flatten();
        match (byte, escaped) {
            (_, Some(value)) => {
                out.push(value);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (other, _) => out.push(*other),
        }
        at += 1;
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}
