//! OpenAI Responses over WebSocket: handshake, frames, `response.create` and its events.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Buf;
use serde_json::{Value, json};
use sha1::{Digest, Sha1};

use crate::faults;
use crate::http::{Conn, Gone, Request};
use crate::log::Outcome;
use crate::reply::FrameKind;
use crate::response_output::Turn;
use crate::responses::turn;
use crate::route::Route;
use crate::rules::{Fault, Subject};
use crate::server::{Call, Shared, authorize};
use crate::vendor::{VendorError, standing_headers};

/// Joined to the client's key and hashed in the handshake (RFC 6455, section 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
pub(crate) const TEXT: u8 = 1;
const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// Closing codes of RFC 6455, section 7.4.1.
const NORMAL: u16 = 1000;
const PROTOCOL: u16 = 1002;
const UNSUPPORTED: u16 = 1003;
const TOO_BIG: u16 = 1009;

/// Why a conversation over a WebSocket ends.
pub(crate) enum End {
    Gone,
    /// To be closed with this code.
    Close(u16),
    /// The connection is dropped without a closing frame.
    Drop,
}

impl From<Gone> for End {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

/// The head of the answer that agrees to a handshake with this key, but for the empty line at its end.
pub(crate) fn agreed(key: &str) -> String {
    let accept = STANDARD.encode(Sha1::digest(format!("{key}{GUID}")));
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {accept}\r\n"
    )
}

/// The key of a handshake of the version there is; nothing when it is none.
pub(crate) fn key_of(request: &Request) -> Option<&str> {
    request.header("sec-websocket-key").filter(|_| request.header("sec-websocket-version") == Some("13"))
}

/// Serves one WebSocket connection to its end. The connection never returns to HTTP, unless the handshake failed.
pub(crate) async fn serve(
    conn: &mut Conn,
    shared: &Arc<Shared>,
    request: &Request,
    route: &Route,
    serial: u64,
) -> Result<bool, Gone> {
    let call = Call::new(request, route, serial);
    let id = call.request_id();
    let header = |name: &str| request.header(name);
    // Rules that name a model or a stream wait for the message; the others may refuse the handshake.
    let mut found = None;
    if shared.has_rules() {
        found = shared.rule_where(
            &Subject {
                provider: &route.provider,
                method: request.method(),
                path: request.path(),
                model: "",
                streaming: true,
                body: b"",
                header: &header,
            },
            |rule| {
                rule.fault.at_handshake() && rule.when.model.is_none() && rule.when.body_contains.is_none()
            },
        );
    }
    let number =
        shared.log.push(conn.id, request, None, &route.provider, found.as_ref().map(|r| r.id.as_str()));
    let fault = found.as_ref().map(|r| &r.rule.fault);
    if !faults::before(conn, fault, shared.config.response_delay).await? {
        return Ok(false);
    }
    let key = key_of(request);
    let refusal = match (fault.and_then(|f| faults::replacement(f, route.dialect, "", &id, false)), key) {
        (Some(reply), _) => Some(reply),
        (None, None) => Some(
            VendorError::invalid("This is no WebSocket handshake of version 13.").reply(route.dialect, &id),
        ),
        (None, Some(_)) => authorize(shared, &call, route).err().map(|e| e.reply(route.dialect, &id)),
    };
    if let Some(mut reply) = refusal {
        standing_headers(&mut reply, route.dialect, &id, "");
        let answered = faults::deliver(conn, reply, None, std::time::Duration::ZERO, false).await;
        shared.log.finish(number, Outcome::Answered);
        return answered;
    }
    let head = format!("{}x-request-id: {id}\r\n\r\n", agreed(key.unwrap_or_default()));
    conn.send(head.as_bytes()).await?;
    let end = converse(conn, shared, request, route).await;
    shared.log.finish(number, Outcome::Answered);
    match end {
        End::Close(code) => {
            send(conn, CLOSE, &code.to_be_bytes()).await?;
            // The client answers with its own closing frame, or goes.
            let _ = tokio::time::timeout(std::time::Duration::from_secs(1), conn.until_gone()).await;
            Ok(false)
        }
        End::Gone | End::Drop => Ok(false),
    }
}

async fn converse(conn: &mut Conn, shared: &Arc<Shared>, request: &Request, route: &Route) -> End {
    loop {
        let message = match receive(conn, shared.config.max_body_bytes).await {
            Ok(message) => message,
            Err(end) => return end,
        };
        if let Err(end) = answer(conn, shared, request, route, &message).await {
            return end;
        }
    }
}

/// Answers one message of the client.
async fn answer(
    conn: &mut Conn,
    shared: &Arc<Shared>,
    request: &Request,
    route: &Route,
    message: &[u8],
) -> Result<(), End> {
    let serial = shared.served.fetch_add(1, Ordering::Relaxed);
    let parsed: Option<Value> = serde_json::from_slice(message).ok().filter(Value::is_object);
    let model = parsed.as_ref().and_then(|b| b.get("model")).and_then(Value::as_str).unwrap_or("");
    let header = |name: &str| request.header(name);
    let mut found = None;
    if shared.has_rules() {
        found = shared.rule_where(
            &Subject {
                provider: &route.provider,
                method: "WEBSOCKET",
                path: request.path(),
                model,
                streaming: true,
                body: message,
                header: &header,
            },
            |rule| {
                !rule.fault.at_handshake()
                    || rule.when.model.is_some()
                    || rule.when.body_contains.is_some()
                    || rule.when.method.is_some()
            },
        );
    }
    let number = shared.log.push(
        conn.id,
        request,
        Some(message),
        &route.provider,
        found.as_ref().map(|r| r.id.as_str()),
    );
    let fault = found.as_ref().map(|r| &r.rule.fault);
    let lane = parsed.as_ref().and_then(|b| b.get("stream_id")).cloned();
    let result = match faults::before(conn, fault, std::time::Duration::ZERO).await {
        Ok(true) => {
            let events = events(shared, route, parsed.as_ref(), fault, model, serial);
            play(conn, shared, events, fault, lane.as_ref()).await
        }
        Ok(false) => Err(End::Drop),
        Err(Gone) => Err(End::Gone),
    };
    shared.log.finish(
        number,
        if matches!(result, Err(End::Gone)) { Outcome::ClientClosed } else { Outcome::Answered },
    );
    result
}

/// An error as a message.
fn error(error: &VendorError) -> (FrameKind, Value) {
    (FrameKind::Terminator, json!({"type": "error", "status": error.status, "error": error.object()}))
}

/// The status that goes with an error object.
fn status_of(error: &Value) -> u16 {
    let word = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
    match (word("type"), word("code")) {
        ("invalid_request_error", _) => 400,
        ("authentication_error", _) => 401,
        ("rate_limit_error", _) | (_, "rate_limit_exceeded") => 429,
        ("overloaded_error", _) => 529,
        _ => 500,
    }
}

fn events(
    shared: &Shared,
    route: &Route,
    message: Option<&Value>,
    fault: Option<&Fault>,
    model: &str,
    serial: u64,
) -> Vec<(FrameKind, Value)> {
    if let Some(status) = fault.and_then(|f| f.status).filter(|s| *s >= 300) {
        let mut event = error(&VendorError::for_status(status, route.dialect, model));
        if let Some(body) = fault.and_then(|f| f.body.as_ref()) {
            event.1["error"] = body.get("error").unwrap_or(body).clone();
        }
        if let Some(headers) = fault.map(|f| &f.headers).filter(|h| !h.is_empty())
            && let Some(error) = event.1["error"].as_object_mut()
        {
            error.insert("headers".to_owned(), json!(headers));
        }
        return vec![event];
    }
    let Some(message) = message else {
        return vec![error(&VendorError::invalid("The message is no JSON object.").code("invalid_json"))];
    };
    match message.get("type").and_then(Value::as_str) {
        Some("response.create") => {
            let strict = matches!(route.provider.as_str(), "openai" | "azure");
            match turn(shared, message, None, serial, strict, true) {
                Ok(turn) => Turn::events(&turn),
                Err(wrong) => vec![error(&wrong)],
            }
        }
        Some("response.steer") => {
            let id = message.get("previous_response_id").and_then(Value::as_str).unwrap_or("");
            let (code, text) = if shared.responses.knows(id) {
                (
                    "response_already_completed",
                    "The response completed and is no longer accepting steering input.",
                )
            } else {
                ("response_not_found", "The target response is not available on this connection.")
            };
            vec![(
                FrameKind::Terminator,
                json!({
                    "type": "response.steer.failed", "sequence_number": 0,
                    "error": {"type": "invalid_request_error", "code": code, "message": text},
                    "steer": {"input": message.get("input"), "previous_response_id": id},
                }),
            )]
        }
        Some(other) => {
            let text = format!(
                "Invalid value: '{other}'. Supported values are: 'response.create' and 'response.steer'."
            );
            vec![error(&VendorError::invalid(text).param("type").code("invalid_value"))]
        }
        None => vec![error(&crate::check::missing("type"))],
    }
}

/// Sends the events with the faults asked for.
async fn play(
    conn: &mut Conn,
    shared: &Shared,
    events: Vec<(FrameKind, Value)>,
    fault: Option<&Fault>,
    lane: Option<&Value>,
) -> Result<(), End> {
    let none = Fault::default();
    let fault = fault.unwrap_or(&none);
    conn.pause(fault.first_event_delay).await?;
    let mut batch = Vec::new();
    let total = events.len();
    for index in 0..=total {
        let at = |count: Option<usize>| count.is_some_and(|n| n == index || (index == total && n > total));
        let broken = at(fault.cut_after)
            || at(fault.reset_after)
            || at(fault.close_after)
            || at(fault.end_after)
            || at(fault.hang_after);
        if broken {
            conn.send(&batch).await?;
            if at(fault.hang_after) {
                return Err(conn.until_gone().await.into());
            }
            if at(fault.reset_after) {
                conn.pause(std::time::Duration::from_millis(20)).await?;
                conn.reset();
            }
            return Err(if at(fault.close_after) || at(fault.end_after) {
                End::Close(NORMAL)
            } else {
                End::Drop
            });
        }
        let Some((kind, event)) = events.get(index) else {
            break;
        };
        if fault.error_after == Some(index) {
            let given = fault.error.clone();
            let body = given
                .unwrap_or_else(|| VendorError::for_status(500, crate::vendor::Dialect::OpenAi, "").object());
            frame(
                &mut batch,
                TEXT,
                json!({"type": "error", "status": status_of(&body), "error": body, "sequence_number": index})
                    .to_string()
                    .as_bytes(),
            );
            conn.send(&batch).await?;
            return Ok(());
        }
        if fault.malformed_after == Some(index) {
            frame(
                &mut batch,
                TEXT,
                fault
                    .malformed_text
                    .as_deref()
                    .unwrap_or("{\"type\": \"response.output_text.delta\", ")
                    .as_bytes(),
            );
        }
        if let Some(size) = fault.oversized_bytes.filter(|_| fault.oversized_after.unwrap_or(1) == index) {
            frame(
                &mut batch,
                TEXT,
                json!({"type": "response.padding", "padding": "x".repeat(size)}).to_string().as_bytes(),
            );
        }
        if (fault.drop_terminator || fault.drop_finish) && *kind == FrameKind::Terminator {
            continue;
        }
        let wait = fault.event_delay
            + if *kind == FrameKind::Token {
                shared.config.token_interval
            } else {
                std::time::Duration::ZERO
            };
        if !wait.is_zero() {
            conn.send(&batch).await?;
            batch.clear();
            conn.pause(wait).await?;
        }
        match lane {
            Some(lane) => {
                let mut event = event.clone();
                event["stream_id"] = lane.clone();
                frame(&mut batch, TEXT, event.to_string().as_bytes());
            }
            None => frame(&mut batch, TEXT, event.to_string().as_bytes()),
        }
    }
    conn.send(&batch).await?;
    if fault.close_connection { Err(End::Close(NORMAL)) } else { Ok(()) }
}

/// Appends an unmasked frame, as servers send them.
fn frame(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    out.push(0x80 | kind);
    match payload.len() {
        length @ 0..=125 => out.push(length as u8),
        length @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

pub(crate) async fn send(conn: &mut Conn, kind: u8, payload: &[u8]) -> Result<(), Gone> {
    let mut out = Vec::with_capacity(payload.len() + 10);
    frame(&mut out, kind, payload);
    conn.send(&out).await
}

/// The next text message; pings are answered on the way.
pub(crate) async fn receive(conn: &mut Conn, limit: usize) -> Result<Vec<u8>, End> {
    let mut message = Vec::new();
    let mut begun = false;
    loop {
        let (last, kind, payload) = read_frame(conn, limit).await?;
        match kind {
            PING => send(conn, PONG, &payload).await?,
            PONG => {}
            CLOSE => {
                let code = payload.first_chunk::<2>().map_or(NORMAL, |c| u16::from_be_bytes(*c));
                // 1005 and 1006 never stand in a frame.
                let code =
                    if matches!(code, 1000..=1003 | 1007..=1011 | 3000..=4999) { code } else { NORMAL };
                return Err(End::Close(code));
            }
            BINARY => return Err(End::Close(UNSUPPORTED)),
            0 | TEXT if (kind == 0) == begun => {
                if message.len() + payload.len() > limit {
                    return Err(End::Close(TOO_BIG));
                }
                message.extend_from_slice(&payload);
                begun = true;
                if last {
                    return Ok(message);
                }
            }
            _ => return Err(End::Close(PROTOCOL)),
        }
    }
}

async fn need(conn: &mut Conn, length: usize) -> Result<(), Gone> {
    while conn.buffer.len() < length {
        conn.fill().await?;
    }
    Ok(())
}

async fn read_frame(conn: &mut Conn, limit: usize) -> Result<(bool, u8, Vec<u8>), End> {
    need(conn, 2).await?;
    let (first, second) = (conn.buffer.get_u8(), conn.buffer.get_u8());
    // Reserved bits mean extensions, of which none was agreed; clients must mask (RFC 6455, section 5.1).
    if first & 0x70 != 0 || second & 0x80 == 0 {
        return Err(End::Close(PROTOCOL));
    }
    let length = match second & 0x7f {
        126 => {
            need(conn, 2).await?;
            u64::from(conn.buffer.get_u16())
        }
        127 => {
            need(conn, 8).await?;
            conn.buffer.get_u64()
        }
        short => u64::from(short),
    };
    let length = usize::try_from(length).ok().filter(|l| *l <= limit).ok_or(End::Close(TOO_BIG))?;
    need(conn, length + 4).await?;
    let mask = conn.buffer.split_to(4);
    let mut payload = conn.buffer.split_to(length).to_vec();
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
    Ok((first & 0x80 != 0, first & 0x0f, payload))
}
