//! In the place of `websockets.rs` where the crate is built without the feature `websocket`: no connection can be made.
//! A deployment that wants one is refused when it is made.

use std::convert::Infallible;
use std::time::Duration;

use http::HeaderMap;
use reqwest::Url;

use super::http::{HttpAnswer, HttpTransport, Limits};
use crate::core::error::LlmError;

/// What a host answered to the wish for a WebSocket.
pub enum Handshake {
    /// It speaks WebSocket now.
    Open(Box<WebSocketConnection>),
    /// It gave an HTTP answer.
    Refused(Box<HttpAnswer>),
}

/// Refuses.
///
/// # Errors
/// `config`, always.
#[allow(clippy::unused_async, reason = "as the one with connections")]
pub async fn connect(
    _transport: &HttpTransport,
    _url: &Url,
    _headers: HeaderMap,
    _limits: &Limits,
) -> Result<Handshake, LlmError> {
    Err(absent())
}

/// Why there are no WebSockets.
pub(crate) fn absent() -> LlmError {
    LlmError::config(
        "transport",
        "`transport`: this program was built without liter-llm's feature `websocket`; switch it on, or leave \
         `transport` out to use HTTP",
    )
}

/// A connection that there is not.
pub struct WebSocketConnection(Infallible);

impl WebSocketConnection {
    /// The headers of the handshake.
    #[must_use]
    pub const fn headers(&self) -> &HeaderMap {
        match self.0 {}
    }

    /// Sends a message.
    ///
    /// # Errors
    /// None.
    #[allow(clippy::unused_async, reason = "as the one with connections")]
    pub async fn send_text(&mut self, _text: impl Into<String>) -> Result<(), LlmError> {
        match self.0 {}
    }

    /// The next message.
    ///
    /// # Errors
    /// None.
    #[allow(clippy::unused_async, reason = "as the one with connections")]
    pub async fn next_text(&mut self, _idle: Option<Duration>) -> Result<Option<String>, LlmError> {
        match self.0 {}
    }
}
