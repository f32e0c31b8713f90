//! One error type for everything that can go wrong in a call, and the closed table of its kinds.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::response::{Attempt, LlmResponse};
use super::route::Route;

/// What went wrong, in one closed table. Python and Node have one class per kind.
///
/// ```
/// use liter_llm::ErrorKind;
///
/// assert_eq!(ErrorKind::from_status(429), ErrorKind::RateLimited);
/// assert_eq!(ErrorKind::RateLimited.as_str(), "rate_limited");
/// assert!(ErrorKind::Overloaded.is_transient() && !ErrorKind::Authentication.is_transient());
/// assert_eq!(ErrorKind::ALL.len(), 21);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is malformed or out of range (HTTP 400, 422), or was refused before sending.
    InvalidRequest,
    /// The key is missing, wrong or expired (HTTP 401).
    Authentication,
    /// The key may not do this (HTTP 403).
    PermissionDenied,
    /// No such model, deployment or path (HTTP 404).
    NotFound,
    /// The body is larger than the provider takes (HTTP 413).
    RequestTooLarge,
    /// The prompt does not fit the model's context window.
    ContextLength,
    /// The provider's content filter refused the prompt or the answer.
    ContentFilter,
    /// Too many requests or tokens for now (HTTP 429).
    RateLimited,
    /// The account is out of credit; waiting does not help (HTTP 402, 429 `insufficient_quota`).
    QuotaExhausted,
    /// The provider has no capacity for now (HTTP 503, 529).
    Overloaded,
    /// Any other failure at the provider (HTTP 5xx).
    ProviderError,
    /// No connection, or it broke: refused, DNS, TLS, reset.
    Connection,
    /// A time limit ran out.
    Timeout,
    /// A stream ended without its terminator.
    StreamInterrupted,
    /// The provider's answer could not be understood.
    Decode,
    /// The deployment's circuit is open; nothing was sent.
    CircuitOpen,
    /// No deployment can serve this request.
    NoCandidate,
    /// A budget is used up; nothing was sent.
    BudgetExceeded,
    /// The provider cannot do what was asked; nothing was sent.
    Unsupported,
    /// The configuration is wrong; nothing was sent.
    Config,
    /// The caller gave up.
    Cancelled,
}

impl ErrorKind {
    /// Every kind, in the order of the table.
    pub const ALL: [Self; 21] = [
        Self::InvalidRequest,
        Self::Authentication,
        Self::PermissionDenied,
        Self::NotFound,
        Self::RequestTooLarge,
        Self::ContextLength,
        Self::ContentFilter,
        Self::RateLimited,
        Self::QuotaExhausted,
        Self::Overloaded,
        Self::ProviderError,
        Self::Connection,
        Self::Timeout,
        Self::StreamInterrupted,
        Self::Decode,
        Self::CircuitOpen,
        Self::NoCandidate,
        Self::BudgetExceeded,
        Self::Unsupported,
        Self::Config,
        Self::Cancelled,
    ];

    /// The kind's name as it stands in JSON, telemetry and the Python attribute `kind`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::Authentication => "authentication",
            Self::PermissionDenied => "permission_denied",
            Self::NotFound => "not_found",
            Self::RequestTooLarge => "request_too_large",
            Self::ContextLength => "context_length",
            Self::ContentFilter => "content_filter",
            Self::RateLimited => "rate_limited",
            Self::QuotaExhausted => "quota_exhausted",
            Self::Overloaded => "overloaded",
            Self::ProviderError => "provider_error",
            Self::Connection => "connection",
            Self::Timeout => "timeout",
            Self::StreamInterrupted => "stream_interrupted",
            Self::Decode => "decode",
            Self::CircuitOpen => "circuit_open",
            Self::NoCandidate => "no_candidate",
            Self::BudgetExceeded => "budget_exceeded",
            Self::Unsupported => "unsupported",
            Self::Config => "config",
            Self::Cancelled => "cancelled",
        }
    }

    /// The kind an HTTP status stands for when the body says nothing more precise.
    #[must_use]
    pub const fn from_status(status: u16) -> Self {
        match status {
            401 => Self::Authentication,
            402 => Self::QuotaExhausted,
            403 => Self::PermissionDenied,
            404 => Self::NotFound,
            408 | 504 => Self::Timeout,
            413 => Self::RequestTooLarge,
            429 => Self::RateLimited,
            503 | 529 => Self::Overloaded,
            400..=499 => Self::InvalidRequest,
            _ => Self::ProviderError,
        }
    }

    /// Whether a failure of this kind may pass when the same call is made again.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(
            self,
            Self::RateLimited | Self::Overloaded | Self::ProviderError | Self::Connection | Self::Timeout
        )
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Where a connection or a time limit failed.
///
/// ```
/// use liter_llm::{ErrorKind, FailurePhase, LlmError};
///
/// let error = LlmError::new(ErrorKind::Connection, "no such host");
/// let error = error.with(|detail| detail.phase = Some(FailurePhase::Dns));
/// assert!(error.was_never_sent());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailurePhase {
    /// The host's name could not be resolved.
    Dns,
    /// The host refused the connection, broke it while it was being made, or could not be reached.
    Refused,
    /// The TLS handshake failed: certificate, host name or protocol.
    Tls,
    /// The proxy refused or broke the connection.
    Proxy,
    /// The connection broke after it was made: the request may have reached the host.
    Reset,
    /// The limit for making the connection ran out.
    Connect,
    /// The limit for the first byte of the answer ran out.
    FirstByte,
    /// The limit for silence between chunks ran out.
    Idle,
    /// The limit for the whole call ran out.
    Total,
}

/// Everything known about a failure besides its kind.
///
/// ```
/// use liter_llm::{ErrorDetail, ErrorKind, LlmError};
///
/// let error = LlmError::new(ErrorKind::ProviderError, "it broke").with(|detail| {
///     detail.provider = Some("mine".to_owned());
///     detail.status_code = Some(500);
/// });
/// let detail: &ErrorDetail = error.detail();
/// assert_eq!((detail.message.as_str(), detail.status_code), ("it broke", Some(500)));
/// ```
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ErrorDetail {
    /// What happened, as a sentence part; the provider's own message where there is one.
    pub message: String,
    /// The provider's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The requested model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The HTTP status of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
    /// The provider's id for the request, to quote to its support.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Seconds after which the provider allows another try.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<f64>,
    /// Whether the same call may succeed later; `None` leaves it to the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retryable: Option<bool>,
    /// The provider's own error code or type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The request field at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub param: Option<String>,
    /// The answer's body, at most 4 KiB of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Where a connection or time limit failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<FailurePhase>,
    /// True when nothing was sent because the request or configuration was refused here.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub before_send: bool,
    /// What was sent and what came of it, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub attempts: Vec<Attempt>,
    /// The answer as far as it had come when a stream broke.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partial: Option<Box<LlmResponse>>,
    /// Where the call could go and why it went where it went; `None` where there was no choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<Box<Route>>,
    /// The texts of the underlying errors, outermost first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub causes: Vec<String>,
    /// How long calls are kept away from the deployment after this failure, where the provider did not say until when:
    /// a repeat waits at least as long.
    #[serde(skip)]
    pub cooldown: Option<Duration>,
    /// The connection that broke had been used before: the host may have closed it while it was idle.
    #[serde(skip)]
    pub reused_connection: bool,
    /// The underlying error.
    #[serde(skip)]
    pub source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// The error of every call: a [kind](ErrorKind) and its [detail](ErrorDetail).
///
/// `Display` is one sentence with provider, model, status, request id and attempts; it never holds a key.
///
/// ```
/// use liter_llm::{ErrorKind, LlmError};
/// let error = LlmError::Timeout;
/// assert_eq!(error.kind(), ErrorKind::Timeout);
/// assert!(error.is_retryable());
/// ```
///
/// ```
/// use std::time::Duration;
/// use liter_llm::{ErrorDetail, ErrorKind, FailurePhase, LlmError};
///
/// let error = LlmError::new(ErrorKind::RateLimited, "slow down").with(|detail| detail.retry_after = Some(2.0));
/// assert_eq!((error.retry_after(), error.is_unanswered()), (Some(Duration::from_secs(2)), false));
/// let io = std::io::Error::other("the disk is full");
/// assert_eq!(LlmError::new(ErrorKind::Config, "no file").with_source(io).detail().causes[0], "the disk is full");
/// let refused = [
///     LlmError::invalid("temperature", "`temperature`: 9 is outside 0 to 2"),
///     LlmError::unsupported("seed", "the provider has no seed"),
///     LlmError::config("api_key", "`api_key` is missing"),
/// ];
/// assert!(refused.iter().all(LlmError::was_never_sent));
/// let detail = ErrorDetail::default();
/// assert!(!LlmError::from_parts(ErrorKind::Decode, detail).is_retryable());
/// # let _ = FailurePhase::Total;
/// ```
#[derive(Clone)]
pub struct LlmError {
    kind: ErrorKind,
    detail: Option<Box<ErrorDetail>>,
}

impl LlmError {
    /// A time limit ran out; ready to be returned where the caller sets its own limit.
    #[allow(non_upper_case_globals, reason = "reads like a variant: `map_err(|_| LlmError::Timeout)`")]
    pub const Timeout: Self = Self { kind: ErrorKind::Timeout, detail: None };

    /// An error of this kind with a message.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let detail = ErrorDetail { message: message.into(), ..ErrorDetail::default() };
        Self { kind, detail: Some(Box::new(detail)) }
    }

    /// A request refused before sending: names the field and, in the message, the remedy.
    #[must_use]
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidRequest, message).with(|detail| {
            detail.param = Some(param.into());
            detail.before_send = true;
        })
    }

    /// Something the provider cannot do, refused before sending.
    #[must_use]
    pub fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message).with(|detail| {
            detail.param = Some(param.into());
            detail.before_send = true;
        })
    }

    /// A configuration that cannot work: names the option and, in the message, the remedy.
    #[must_use]
    pub fn config(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message).with(|detail| {
            detail.param = Some(param.into());
            detail.before_send = true;
        })
    }

    /// Changes the detail.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut ErrorDetail)) -> Self {
        change(self.detail.get_or_insert_default());
        self
    }

    /// Keeps `source` as the underlying error, with the texts of its whole chain.
    #[must_use]
    pub fn with_source(self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.with(|detail| {
            let mut cause: Option<&dyn std::error::Error> = Some(&source);
            while let Some(error) = cause {
                detail.causes.push(error.to_string());
                cause = error.source();
            }
            detail.source = Some(Arc::new(source));
        })
    }

    /// Reads an error from its border form (`docs/wire.md`).
    #[must_use]
    pub fn from_parts(kind: ErrorKind, detail: ErrorDetail) -> Self {
        Self { kind, detail: Some(Box::new(detail)) }
    }

    /// What went wrong.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Everything else that is known.
    #[must_use]
    pub fn detail(&self) -> &ErrorDetail {
        static EMPTY: ErrorDetail = ErrorDetail {
            message: String::new(),
            provider: None,
            model: None,
            status_code: None,
            request_id: None,
            retry_after: None,
            retryable: None,
            code: None,
            param: None,
            body: None,
            phase: None,
            before_send: false,
            attempts: Vec::new(),
            partial: None,
            route: None,
            causes: Vec::new(),
            cooldown: None,
            reused_connection: false,
            source: None,
        };
        self.detail.as_deref().unwrap_or(&EMPTY)
    }

    /// Whether the same call may succeed when it is made again.
    ///
    /// The provider's word (`x-should-retry`, the adapter's table) wins; without one, the kind decides.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.detail().retryable.unwrap_or(self.kind.is_transient())
    }

    /// Whether the request certainly never reached the provider: refused here, or no connection was made.
    #[must_use]
    pub fn was_never_sent(&self) -> bool {
        let detail = self.detail();
        let unconnected = matches!(
            detail.phase,
            Some(
                FailurePhase::Dns
                    | FailurePhase::Refused
                    | FailurePhase::Tls
                    | FailurePhase::Proxy
                    | FailurePhase::Connect
            )
        );
        detail.before_send || (unconnected && detail.status_code.is_none())
    }

    /// Whether the request may have reached the provider and no byte of an answer has come: the connection broke, or
    /// the limit for the first byte ran out.
    #[must_use]
    pub fn is_unanswered(&self) -> bool {
        let detail = self.detail();
        let phase = (self.kind, detail.phase);
        detail.status_code.is_none()
            && matches!(
                phase,
                (ErrorKind::Connection, Some(FailurePhase::Reset))
                    | (ErrorKind::Timeout, Some(FailurePhase::FirstByte))
            )
    }

    /// How long the provider asks to wait before another try.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.detail().retry_after.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    }
}

impl fmt::Display for LlmError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detail = self.detail();
        if detail.message.is_empty() {
            formatter.write_str(match self.kind {
                ErrorKind::Timeout => "the call ran out of time",
                kind => kind.as_str(),
            })?;
        } else {
            formatter.write_str(&detail.message)?;
        }
        let mut facts = Vec::new();
        if let Some(provider) = &detail.provider {
            facts.push(format!("provider {provider}"));
        }
        if let Some(model) = &detail.model {
            facts.push(format!("model {model}"));
        }
        if let Some(status) = detail.status_code {
            facts.push(format!("status {status}"));
        }
        if let Some(id) = &detail.request_id {
            facts.push(format!("request id {id}"));
        }
        if let Some(seconds) = detail.retry_after {
            facts.push(format!("retry after {} s", (seconds * 1000.0).round() / 1000.0));
        }
        match detail.attempts.len() {
            0 => {}
            1 => facts.push("1 attempt".to_owned()),
            count => facts.push(format!("{count} attempts")),
        }
        if facts.is_empty() { Ok(()) } else { write!(formatter, " ({})", facts.join(", ")) }
    }
}

impl fmt::Debug for LlmError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LlmError").field("kind", &self.kind).field("detail", &self.detail).finish()
    }
}

impl std::error::Error for LlmError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.detail().source.as_ref().map(|source| source.as_ref() as &(dyn std::error::Error + 'static))
    }
}

impl Serialize for LlmError {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Border<'a> {
            kind: ErrorKind,
            text: String,
            retryable: bool,
            detail: &'a ErrorDetail,
        }
        Border {
            kind: self.kind,
            text: self.to_string(),
            retryable: self.is_retryable(),
            detail: self.detail(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for LlmError {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Border {
            kind: ErrorKind,
            #[serde(default)]
            detail: ErrorDetail,
        }
        let border = Border::deserialize(deserializer)?;
        Ok(Self::from_parts(border.kind, border.detail))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_kind_has_its_own_name() {
        for kind in ErrorKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }

    #[test]
    fn the_text_names_what_is_known() {
        let error = LlmError::new(ErrorKind::RateLimited, "slow down").with(|detail| {
            detail.provider = Some("openai".into());
            detail.status_code = Some(429);
            detail.retry_after = Some(1.500_04);
        });
        assert_eq!(error.to_string(), "slow down (provider openai, status 429, retry after 1.5 s)");
        assert_eq!(error.retry_after(), Some(Duration::from_micros(1_500_040)));
    }

    #[test]
    fn the_border_form_round_trips() {
        let error = LlmError::invalid("top_p", "`top_p` must be between 0 and 1");
        let json = serde_json::to_string(&error).unwrap();
        let read: LlmError = serde_json::from_str(&json).unwrap();
        assert_eq!(read.kind(), ErrorKind::InvalidRequest);
        assert_eq!(read.detail().param.as_deref(), Some("top_p"));
        assert!(!read.is_retryable());
    }
}
