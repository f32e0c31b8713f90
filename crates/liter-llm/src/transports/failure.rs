//! Tells connection failures apart: what broke, in which phase, and whether the same call may be sent again.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use reqwest::Url;

use super::connection::Fault;
use crate::core::error::{ErrorDetail, ErrorKind, FailurePhase, LlmError};

/// Whether a kept connection broke before the head of an answer had come in: the host has most likely closed it while
/// it was idle.
///
/// The request may or may not have reached the host; the caller decides whether it may be sent again.
#[must_use]
pub fn is_stale_connection(error: &LlmError) -> bool {
    error.kind() == ErrorKind::Connection && error.is_unanswered() && error.detail().reused_connection
}

/// A host as errors name it: never with path, query or credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Peer(String);

impl Peer {
    pub(super) fn of(url: &Url) -> Self {
        let host = url.host_str().unwrap_or("an unnamed host");
        Self(match url.port_or_known_default() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A name that could not be resolved; typed so that it can be found in a chain of causes.
#[derive(Debug, thiserror::Error)]
#[error("name resolution failed: {0}")]
pub(super) struct DnsFailure(#[source] pub(super) io::Error);

/// Seconds as a reader writes them: `10 s`, `0.25 s`.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} s", self.0.as_secs_f64())
    }
}

pub(super) fn failed(phase: FailurePhase, message: String) -> LlmError {
    LlmError::new(ErrorKind::Connection, message).with(|detail| {
        detail.phase = Some(phase);
        detail.retryable = Some(true);
    })
}

/// A time limit of `limit` ran out in `phase`.
pub(super) fn timed_out(phase: FailurePhase, peer: &Peer, limit: Duration) -> LlmError {
    let limit = Seconds(limit);
    let message = match phase {
        FailurePhase::Connect => format!("no connection to {peer} within {limit}"),
        FailurePhase::Idle => format!("{peer} sent nothing more for {limit}"),
        _ => format!("{peer} sent no answer within {limit}"),
    };
    LlmError::new(ErrorKind::Timeout, message).with(|detail| {
        detail.phase = Some(phase);
        // Silence in the middle of an answer: sending the request again would replay what has come.
        detail.retryable = Some(phase != FailurePhase::Idle);
    })
}

/// Each error of a chain, also those that `io::Error` wraps without naming them as its source.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error: &&'a (dyn Error + 'static)| {
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    chain(error).find_map(|error| error.downcast_ref::<E>())
}

fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    chain(error).filter_map(|error| error.downcast_ref::<io::Error>()).map(io::Error::kind).last()
}

const fn is_reset(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
            | io::ErrorKind::UnexpectedEof
    )
}

/// A connection that could not be made. `proxied` says that a proxy was asked for outright.
pub(super) fn connecting(error: &(dyn Error + 'static), peer: &Peer, proxied: bool) -> LlmError {
    if let Some(tls) = find::<rustls::Error>(error) {
        // A certificate that is refused now is refused again; a broken handshake may go through.
        let certificate = matches!(tls, rustls::Error::InvalidCertificate(_) | rustls::Error::General(_));
        return failed(FailurePhase::Tls, format!("the TLS handshake with {peer} failed: {tls}"))
            .with(|detail| detail.retryable = Some(!certificate));
    }
    // The proxy errors of hyper-util are private types: their texts are all there is to tell them by.
    let at_proxy = chain(error)
        .map(ToString::to_string)
        .find(|text| ["tunnel error", "SOCKS error"].iter().any(|beginning| text.starts_with(beginning)));
    if let Some(text) = at_proxy {
        return failed(FailurePhase::Proxy, format!("the proxy made no connection to {peer}: {text}"));
    }
    if proxied {
        let reason = chain(error).last().map(ToString::to_string).unwrap_or_default();
        return failed(FailurePhase::Proxy, format!("the proxy could not be reached for {peer}: {reason}"));
    }
    if find::<DnsFailure>(error).is_some() {
        return failed(FailurePhase::Dns, format!("the host name of {peer} could not be resolved"));
    }
    match io_kind(error) {
        Some(io::ErrorKind::ConnectionRefused) => {
            failed(FailurePhase::Refused, format!("{peer} refused the connection"))
        }
        Some(io::ErrorKind::TimedOut) => {
            let message = format!("no connection to {peer}: the system's limit ran out");
            LlmError::new(ErrorKind::Timeout, message).with(|detail| {
                detail.phase = Some(FailurePhase::Connect);
                detail.retryable = Some(true);
            })
        }
        Some(io::ErrorKind::UnexpectedEof) => {
            failed(FailurePhase::Tls, format!("{peer} closed the connection during the TLS handshake"))
        }
        Some(kind) if is_reset(kind) => {
            failed(FailurePhase::Refused, format!("the connection to {peer} broke while it was made"))
        }
        Some(kind) => failed(FailurePhase::Refused, format!("{peer} could not be reached: {kind}")),
        None => failed(FailurePhase::Refused, format!("{peer} could not be reached")),
    }
}

/// A request through a proxy that got no answer, as reqwest tells it.
pub(super) fn sending(
    error: reqwest::Error,
    peer: &Peer,
    connect_limit: Duration,
    proxied: bool,
    reused: bool,
) -> LlmError {
    let error = error.without_url();
    let failure = if error.is_builder() {
        LlmError::config("request", "the request cannot be sent").with(|detail| {
            detail.retryable = Some(false);
        })
    } else if error.is_connect() && error.is_timeout() {
        timed_out(FailurePhase::Connect, peer, connect_limit)
    } else if error.is_connect() {
        connecting(&error, peer, proxied)
    } else if find::<hyper::Error>(&error).is_some_and(hyper::Error::is_parse) {
        LlmError::new(ErrorKind::Decode, format!("{peer} did not answer in HTTP"))
    } else {
        failed(FailurePhase::Reset, format!("the connection to {peer} broke before an answer came"))
            .with(|detail| detail.reused_connection = reused)
    };
    failure.with_source(error)
}

/// A request that got no answer on a connection of our own. `begun` says that some bytes of one had come.
pub(super) fn unanswered(fault: Fault, peer: &Peer, reused: bool, begun: bool) -> LlmError {
    let failure = match &fault {
        Fault::Malformed(_) => LlmError::new(ErrorKind::Decode, format!("{peer} did not answer in HTTP")),
        Fault::Broken(_) | Fault::Closed if begun => {
            failed(FailurePhase::Reset, format!("the connection to {peer} broke in the head of the answer"))
                .with(|detail| detail.retryable = Some(false))
        }
        Fault::Broken(_) | Fault::Closed => {
            failed(FailurePhase::Reset, format!("the connection to {peer} broke before an answer came"))
                .with(|detail| detail.reused_connection = reused)
        }
    };
    failure.with_source(fault)
}

/// An answer whose body broke off on a connection of our own.
pub(super) fn broken(fault: Fault, peer: &Peer, status: u16) -> LlmError {
    failed(FailurePhase::Reset, format!("the connection to {peer} broke in the middle of the answer"))
        .with(|detail| begun(detail, status))
        .with_source(fault)
}

/// An answer that could not be decompressed.
pub(super) fn decompressing(error: io::Error, peer: &Peer, status: u16) -> LlmError {
    LlmError::new(ErrorKind::Decode, format!("the answer of {peer} could not be decompressed"))
        .with(|detail| begun(detail, status))
        .with_source(error)
}

/// An answer had begun: sending the request again would replay it.
const fn begun(detail: &mut ErrorDetail, status: u16) {
    detail.status_code = Some(status);
    detail.retryable = Some(false);
}

/// An answer through a proxy whose body broke off or could not be decompressed.
pub(super) fn reading(error: reqwest::Error, peer: &Peer, status: u16) -> LlmError {
    let error = error.without_url();
    let broken = find::<hyper::Error>(&error).is_some()
        || io_kind(&error).is_some_and(|kind| is_reset(kind) && kind != io::ErrorKind::UnexpectedEof);
    let failure = if broken {
        failed(FailurePhase::Reset, format!("the connection to {peer} broke in the middle of the answer"))
    } else {
        LlmError::new(ErrorKind::Decode, format!("the answer of {peer} could not be decompressed"))
    };
    failure.with(|detail| begun(detail, status)).with_source(error)
}
