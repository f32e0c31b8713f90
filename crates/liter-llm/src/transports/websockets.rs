//! WebSocket: text messages over one connection, made and secured by the HTTP transport.

use std::fmt;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::{HeaderMap, Method};
use reqwest::{Request, Upgraded, Url};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

use super::failure::{self, Peer};
use super::http::{HttpAnswer, HttpTransport, Limits};
use crate::core::error::{ErrorKind, FailurePhase, LlmError};

/// The largest message taken, in bytes: 16 MiB.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// How long [`WebSocketConnection::close`] waits for the host's goodbye.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// What came of an attempt to open a WebSocket.
#[derive(Debug)]
pub enum Handshake {
    /// It is open.
    Open(Box<WebSocketConnection>),
    /// The host answered as to any other request (401, 429, ...): for the adapter to decode.
    Refused(Box<HttpAnswer>),
}

/// Opens a WebSocket at `url` (`ws`, `wss`, `http` or `https`) with the transport's TLS, proxies and limits.
///
/// # Errors
/// `config` for another scheme; `connection` or `timeout` as [`HttpTransport::post`]; `decode` when the host accepts
/// the upgrade without the proof that the WebSocket protocol asks for.
pub async fn connect(
    transport: &HttpTransport,
    url: &Url,
    headers: HeaderMap,
    limits: &Limits,
) -> Result<Handshake, LlmError> {
    let key = generate_key();
    let mut request = Request::new(Method::GET, http_url(url)?);
    *request.headers_mut() = headers;
    let fields: [(HeaderName, HeaderValue); 4] = [
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
        (SEC_WEBSOCKET_KEY, HeaderValue::from_str(&key).map_err(|_| broken_handshake(&Peer::of(url)))?),
    ];
    for (name, value) in fields {
        request.headers_mut().insert(name, value);
    }
    let answer = transport.send(request, limits, false).await?;
    if answer.status != 101 {
        return Ok(Handshake::Refused(Box::new(answer)));
    }
    let upgrades =
        answer.headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let proof = derive_accept_key(key.as_bytes());
    if !upgrades || answer.headers.get(SEC_WEBSOCKET_ACCEPT).is_none_or(|value| value != proof.as_str()) {
        return Err(broken_handshake(&Peer::of(url)));
    }
    let (socket, peer) = answer.body.into_upgraded().await?;
    let config = WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    let stream = WebSocketStream::from_raw_socket(socket, Role::Client, Some(config)).await;
    Ok(Handshake::Open(Box::new(WebSocketConnection {
        stream,
        peer,
        headers: answer.headers,
        heard: false,
        ended: false,
    })))
}

fn broken_handshake(peer: &Peer) -> LlmError {
    LlmError::new(ErrorKind::Decode, format!("{peer} did not complete the WebSocket handshake"))
}

fn http_url(url: &Url) -> Result<Url, LlmError> {
    let scheme = match url.scheme() {
        "ws" | "http" => "http",
        "wss" | "https" => "https",
        other => {
            let message = format!("a WebSocket URL must begin with `wss://` or `ws://`, not with `{other}:`");
            return Err(LlmError::config("base_url", message));
        }
    };
    let mut url = url.clone();
    url.set_scheme(scheme).map_err(|()| LlmError::config("base_url", "the WebSocket URL cannot be used"))?;
    Ok(url)
}

/// An open WebSocket. Pings are answered while a message is waited for. Dropping it closes the connection.
pub struct WebSocketConnection {
    stream: WebSocketStream<Upgraded>,
    peer: Peer,
    headers: HeaderMap,
    /// A message has come since the last one was sent: the connection was not stale then.
    heard: bool,
    ended: bool,
}

impl fmt::Debug for WebSocketConnection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("WebSocketConnection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl WebSocketConnection {
    /// The headers of the host's answer to the handshake (request id, rate limits).
    #[must_use]
    pub const fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Sends one text message.
    ///
    /// # Errors
    /// `connection` with phase `reset` when the connection is gone.
    pub async fn send_text(&mut self, text: impl Into<String>) -> Result<(), LlmError> {
        self.heard = false;
        match self.stream.send(Message::text(text.into())).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.failure(error)),
        }
    }

    /// The next text message, or `None` once the host has closed the connection cleanly (code 1000 or none).
    /// `idle` limits the silence before it; a ping counts as life.
    ///
    /// [`is_unanswered`](LlmError::is_unanswered) holds for an error when nothing had come since the last message was
    /// sent.
    ///
    /// # Errors
    /// `timeout` with phase `first_byte` when nothing had come since the last message was sent, else with phase
    /// `idle`; `connection` with phase `reset` when the connection breaks or the host goes away
    /// (1001, 1012); for other close codes the kind they stand for, the code in `detail.code`; `decode` for a binary,
    /// oversized or malformed message.
    pub async fn next_text(&mut self, idle: Option<Duration>) -> Result<Option<String>, LlmError> {
        while !self.ended {
            let next = match idle {
                None => self.stream.next().await,
                Some(limit) => match tokio::time::timeout(limit, self.stream.next()).await {
                    Ok(next) => next,
                    Err(_) => {
                        let phase = if self.heard { FailurePhase::Idle } else { FailurePhase::FirstByte };
                        return Err(failure::timed_out(phase, &self.peer, limit));
                    }
                },
            };
            match next {
                Some(Ok(Message::Text(text))) => {
                    self.heard = true;
                    return Ok(Some(text.as_str().to_owned()));
                }
                Some(Ok(Message::Close(frame))) => {
                    // The goodbye in return is sent, and nothing is waited for: the host may keep its side open.
                    let _ = tokio::time::timeout(CLOSE_WAIT, self.stream.flush()).await;
                    self.ended = true;
                    return frame.map_or(Ok(None), |frame| self.closed(&frame));
                }
                Some(Ok(Message::Binary(_))) => {
                    self.ended = true;
                    let message = format!("{} sent a binary message where text was expected", self.peer);
                    return Err(LlmError::new(ErrorKind::Decode, message));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    self.ended = true;
                    return Err(self.failure(error));
                }
                None => {
                    self.ended = true;
                    return Err(self.failure(Error::ConnectionClosed));
                }
            }
        }
        Ok(None)
    }

    /// Says goodbye (code 1000), waits at most a second for the host's, and closes the connection.
    pub async fn close(mut self) {
        if self.ended {
            return;
        }
        let goodbye = async {
            if self.stream.close(None).await.is_ok() {
                while let Some(Ok(_)) = self.stream.next().await {}
            }
        };
        // Whatever fails here, the connection is gone afterwards, as asked.
        let _ = tokio::time::timeout(CLOSE_WAIT, goodbye).await;
    }

    fn closed(&self, frame: &CloseFrame) -> Result<Option<String>, LlmError> {
        let code = u16::from(frame.code);
        // RFC 6455, section 7.4.1, and the IANA registry for 1012 and 1013.
        let (kind, retryable) = match code {
            1000 => return Ok(None),
            1001 | 1012 => {
                let error = self.reset(format!("{} closed the connection with code {code}", self.peer));
                return Err(error.with(|detail| detail.code = Some(code.to_string())));
            }
            1009 => (ErrorKind::RequestTooLarge, false),
            1011 => (ErrorKind::ProviderError, true),
            1013 => (ErrorKind::Overloaded, true),
            _ => (ErrorKind::ProviderError, false),
        };
        let mut message = format!("{} closed the connection with code {code}", self.peer);
        if !frame.reason.is_empty() {
            message = format!("{message}: {}", frame.reason.as_str());
        }
        Err(LlmError::new(kind, message).with(|detail| {
            detail.code = Some(code.to_string());
            detail.retryable = Some(retryable);
        }))
    }

    fn reset(&self, message: String) -> LlmError {
        // A status says that an answer had begun.
        failure::failed(FailurePhase::Reset, message)
            .with(|detail| detail.status_code = self.heard.then_some(101))
    }

    fn failure(&self, error: Error) -> LlmError {
        let peer = &self.peer;
        let failure = match &error {
            Error::Io(_)
            | Error::ConnectionClosed
            | Error::AlreadyClosed
            | Error::Protocol(
                ProtocolError::ResetWithoutClosingHandshake | ProtocolError::SendAfterClosing,
            ) => self.reset(format!("the WebSocket connection to {peer} broke")),
            Error::Capacity(_) => LlmError::new(
                ErrorKind::Decode,
                format!("{peer} sent a message of more than {MAX_MESSAGE_BYTES} bytes"),
            ),
            _ => LlmError::new(ErrorKind::Decode, format!("{peer} broke the WebSocket protocol")),
        };
        failure.with_source(error)
    }
}
