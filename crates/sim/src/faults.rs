//! Sending an answer, with the faults a rule asks for.

use std::io::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::http::{Conn, Gone, reason};
use crate::reply::{Body, FrameKind, Frames, Reply};
use crate::rules::Fault;
use crate::vendor::{Dialect, VendorError};

/// The faults that come before an answer exists. False: the connection is to be dropped.
pub(crate) async fn before(conn: &mut Conn, fault: Option<&Fault>, delay: Duration) -> Result<bool, Gone> {
    conn.pause(delay).await?;
    let Some(fault) = fault else {
        return Ok(true);
    };
    conn.pause(fault.delay).await?;
    if fault.hang {
        return Err(conn.until_gone().await);
    }
    if fault.reset {
        conn.reset();
    }
    Ok(!fault.reset && !fault.close)
}

/// The answer a rule puts in the place of the real one, if it does.
pub(crate) fn replacement(
    fault: &Fault,
    dialect: Dialect,
    model: &str,
    request_id: &str,
    streaming: bool,
) -> Option<Reply> {
    if let Some(text) = &fault.sse {
        let mut reply = Reply::stream(Frames::from_text(text));
        reply.status = fault.status.unwrap_or(200);
        return Some(reply);
    }
    let status = fault.status.unwrap_or(200);
    if let Some(encoded) = &fault.body_base64 {
        return Some(Reply::bytes(status, STANDARD.decode(encoded).unwrap_or_default()));
    }
    match &fault.body {
        Some(Value::String(text)) => {
            let mut reply = Reply::bytes(status, text.clone().into_bytes());
            let json = serde_json::from_str::<Value>(text).is_ok();
            let html = text.trim_start().starts_with('<');
            reply.content_type = if json {
                "application/json"
            } else if html {
                "text/html"
            } else {
                "text/plain"
            }
            .to_owned();
            if streaming && text.contains("data:") && status == 200 {
                reply.content_type = "text/event-stream; charset=utf-8".to_owned();
            }
            Some(reply)
        }
        Some(value) => Some(Reply::json(status, value)),
        None if status >= 300 => {
            Some(VendorError::for_status(status, dialect, model).reply(dialect, request_id))
        }
        None => None,
    }
}

/// The error event a vendor sends inside a stream.
pub(crate) fn error_event(
    fault: &Fault,
    dialect: Dialect,
    responses: bool,
    sequence: usize,
) -> (Option<&'static str>, Value) {
    if dialect == Dialect::Anthropic {
        let error = fault
            .error
            .clone()
            .unwrap_or_else(|| json!({"type": "overloaded_error", "message": "Overloaded"}));
        return (Some("error"), json!({"type": "error", "error": error}));
    }
    let message = "The server had an error while processing your request. Sorry about that!";
    let error = fault.error.clone().unwrap_or_else(|| {
        let code = if responses { json!("server_error") } else { Value::Null };
        json!({"message": message, "type": "server_error", "param": null, "code": code})
    });
    if responses {
        let event = json!({"type": "error", "sequence_number": sequence, "error": error});
        return (Some("error"), event);
    }
    (None, json!({"error": error}))
}

/// The event that ends a failed response: the response as it was opened, with the error in it.
fn failed(opened: &[u8], error: &Value, sequence: usize) -> Option<Value> {
    let text = std::str::from_utf8(opened).ok()?;
    let mut event: Value = serde_json::from_str(text.lines().find_map(|l| l.strip_prefix("data: "))?).ok()?;
    if !event["response"].is_object() {
        return None;
    }
    event["type"] = json!("response.failed");
    event["sequence_number"] = json!(sequence);
    event["response"]["status"] = json!("failed");
    event["response"]["error"] = json!({"code": error["code"], "message": error["message"]});
    Some(event)
}

/// How a plan goes on after a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    /// A proper end of the HTTP body.
    Proper,
    /// FIN inside the body.
    Cut,
    /// RST.
    Reset,
    /// Silence.
    Hang,
}

/// The frames left after the faults that change them, and how they end.
fn plan(frames: &Frames, fault: &Fault, dialect: Dialect, responses: bool) -> (Frames, Ending) {
    let mut out = Frames::default();
    let stops = [
        (fault.cut_after, Ending::Cut),
        (fault.reset_after, Ending::Reset),
        (fault.hang_after, Ending::Hang),
        (fault.end_after, Ending::Proper),
        (fault.close_after, Ending::Proper),
    ];
    let named = dialect == Dialect::Anthropic || responses;
    let oversized = fault.oversized_bytes.map(|bytes| (fault.oversized_after.unwrap_or(1), bytes));
    for (index, (kind, bytes)) in frames.iter().enumerate() {
        if let Some((_, ending)) = stops.iter().find(|(at, _)| at.is_some_and(|n| n == index)) {
            return (out, *ending);
        }
        if fault.error_after == Some(index) {
            let (name, event) = error_event(fault, dialect, responses, index);
            out.event(FrameKind::Structure, name, &event);
            let opened = frames.iter().next().filter(|_| responses && index > 0);
            if let Some(event) = opened.and_then(|(_, opened)| failed(opened, &event["error"], index + 1)) {
                out.event(FrameKind::Structure, Some("response.failed"), &event);
            }
            return (out, Ending::Proper);
        }
        if fault.malformed_after == Some(index) {
            let text =
                fault.malformed_text.as_deref().unwrap_or("{\"id\": \"broken\", \"choices\": [{\"delta\": {");
            out.push(FrameKind::Structure, |to| to.extend_from_slice(format!("data: {text}\n\n").as_bytes()));
        }
        if let Some((_, size)) = oversized.filter(|(at, _)| *at == index) {
            let filler = json!({"type": "ping", "object": "chat.completion.chunk", "choices": [], "padding": "x".repeat(size)});
            out.event(FrameKind::Structure, named.then_some("ping"), &filler);
        }
        let dropped = (fault.drop_terminator || fault.drop_finish) && kind == FrameKind::Terminator
            || fault.drop_finish && kind == FrameKind::Finish;
        if !dropped {
            out.push(kind, |to| to.extend_from_slice(bytes));
        }
    }
    let past = stops.iter().find(|(at, ending)| at.is_some() && *ending != Ending::Proper);
    (out, past.map_or(Ending::Proper, |(_, ending)| *ending))
}

/// Writes the head of an answer. `length` none: chunked, unless `framed` is false (then the close ends the body).
fn head(
    reply: &Reply,
    length: Option<usize>,
    framed: bool,
    keep_alive: bool,
    fault: Option<&Fault>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    let mut line = |name: &str, value: &str| {
        let removed = fault.is_some_and(|f| f.remove_headers.iter().any(|n| n.eq_ignore_ascii_case(name)));
        let replaced = fault.is_some_and(|f| f.headers.keys().any(|n| n.eq_ignore_ascii_case(name)));
        if !removed && !replaced {
            for part in [name, ": ", value, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        }
    };
    line("content-type", fault.and_then(|f| f.content_type.as_deref()).unwrap_or(&reply.content_type));
    for (name, value) in &reply.headers {
        line(name, value);
    }
    match length {
        Some(length) => line("content-length", &length.to_string()),
        None if framed => line("transfer-encoding", "chunked"),
        None => {}
    }
    if fault.is_some_and(|f| f.gzip) {
        line("content-encoding", "gzip");
    }
    if !keep_alive {
        line("connection", "close");
    }
    if let Some(fault) = fault {
        for (name, value) in fault.headers.iter().chain(fault.extra_headers.iter().map(|(n, v)| (n, v))) {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
    let mut first = format!("HTTP/1.1 {} {}\r\n", reply.status, reason(reply.status)).into_bytes();
    first.append(&mut out);
    first
}

fn chunk(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    out.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Sends an answer; true when the connection may go on.
pub(crate) async fn deliver(
    conn: &mut Conn,
    reply: Reply,
    fault: Option<(&Fault, Dialect, bool)>,
    pace: Duration,
    keep_alive: bool,
) -> Result<bool, Gone> {
    match (&reply.body, fault) {
        (Body::Whole(body), None) => {
            let mut out = head(&reply, Some(body.len()), true, keep_alive, None);
            out.extend_from_slice(body);
            conn.send(&out).await?;
            Ok(keep_alive)
        }
        (Body::Whole(body), Some((fault, ..))) => whole(conn, &reply, body, fault, keep_alive).await,
        (Body::Stream(frames), None) if pace.is_zero() => {
            let mut out = head(&reply, None, true, keep_alive, None);
            for (_, bytes) in frames.iter() {
                chunk(&mut out, bytes);
            }
            out.extend_from_slice(b"0\r\n\r\n");
            conn.send(&out).await?;
            Ok(keep_alive)
        }
        (Body::Stream(frames), None) => {
            conn.send(&head(&reply, None, true, keep_alive, None)).await?;
            let mut out = Vec::new();
            for (kind, bytes) in frames.iter() {
                if kind == FrameKind::Token {
                    conn.pause(pace).await?;
                }
                out.clear();
                chunk(&mut out, bytes);
                conn.send(&out).await?;
            }
            conn.send(b"0\r\n\r\n").await?;
            Ok(keep_alive)
        }
        (Body::Stream(frames), Some((fault, dialect, responses))) => {
            let (frames, ending) = plan(frames, fault, dialect, responses);
            stream(conn, &reply, &frames, ending, fault, pace, keep_alive).await
        }
    }
}

fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing to memory does not fail.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

async fn whole(
    conn: &mut Conn,
    reply: &Reply,
    body: &[u8],
    fault: &Fault,
    keep_alive: bool,
) -> Result<bool, Gone> {
    let keep_alive = keep_alive && !fault.close_connection && fault.close_after.is_none();
    let mut body = body.to_vec();
    if let Some(size) = fault.oversized_bytes {
        pad(&mut body, size);
    }
    if fault.gzip {
        body = compress(&body);
    }
    let framed = fault.close_after.is_none();
    let mut out = head(reply, framed.then_some(body.len()), framed, keep_alive, Some(fault));
    if !fault.first_event_delay.is_zero() || fault.hang_after.is_some() || !fault.event_delay.is_zero() {
        conn.send(&out).await?;
        out.clear();
        conn.pause(fault.first_event_delay + fault.event_delay).await?;
    }
    if fault.hang_after.is_some() {
        return Err(conn.until_gone().await);
    }
    // A whole body counts as one event: after none of it, or inside it, when the count is 0.
    let cut = fault
        .cut_after_bytes
        .or(fault.cut_after.or(fault.reset_after).map(|n| if n == 0 { 0 } else { body.len() / 2 }));
    if let Some(limit) = cut {
        body.truncate(limit);
    }
    match fault.drip_bytes {
        Some(size) => {
            conn.send(&out).await?;
            drip(conn, &body, size, fault.drip_interval, false).await?;
        }
        None => {
            out.extend_from_slice(&body);
            conn.send(&out).await?;
        }
    }
    if fault.reset_after.is_some() {
        settle(conn).await?;
        conn.reset();
    }
    Ok(keep_alive && cut.is_none())
}

/// A reset discards what the client has not read yet; so give it a moment.
async fn settle(conn: &mut Conn) -> Result<(), Gone> {
    conn.pause(Duration::from_millis(20)).await
}

/// Grows a JSON object (or any text, with blanks) to `size` bytes.
fn pad(body: &mut Vec<u8>, size: usize) {
    let missing = size.saturating_sub(body.len());
    if body.first() == Some(&b'{') && body.last() == Some(&b'}') && body.len() > 2 {
        body.pop();
        body.extend_from_slice(b",\"padding\":\"");
        body.resize(body.len() + missing, b'x');
        body.extend_from_slice(b"\"}");
    } else {
        body.resize(body.len() + missing, b' ');
    }
}

async fn drip(
    conn: &mut Conn,
    bytes: &[u8],
    size: usize,
    interval: Duration,
    chunked: bool,
) -> Result<(), Gone> {
    for piece in bytes.chunks(size.max(1)) {
        if chunked {
            let mut out = Vec::with_capacity(piece.len() + 12);
            chunk(&mut out, piece);
            conn.send(&out).await?;
        } else {
            conn.send(piece).await?;
        }
        if interval.is_zero() {
            tokio::task::yield_now().await;
        } else {
            conn.pause(interval).await?;
        }
    }
    Ok(())
}

async fn stream(
    conn: &mut Conn,
    reply: &Reply,
    frames: &Frames,
    ending: Ending,
    fault: &Fault,
    pace: Duration,
    keep_alive: bool,
) -> Result<bool, Gone> {
    let framed = fault.close_after.is_none();
    let keep_alive = keep_alive && framed && !fault.close_connection;
    let mut out = head(reply, None, framed, keep_alive, Some(fault));
    if !fault.first_event_delay.is_zero() {
        conn.send(&out).await?;
        out.clear();
        conn.pause(fault.first_event_delay).await?;
    }
    let mut encoder = fault.gzip.then(|| GzEncoder::new(Vec::new(), Compression::fast()));
    let mut left = fault.cut_after_bytes;
    for (kind, bytes) in frames.iter() {
        let wait = fault.event_delay + if kind == FrameKind::Token { pace } else { Duration::ZERO };
        if !wait.is_zero() {
            conn.send(&out).await?;
            out.clear();
            conn.pause(wait).await?;
        }
        let packed;
        let mut bytes = bytes;
        if let Some(encoder) = &mut encoder {
            // Each event is flushed, so that it can be read on its own.
            let _ = encoder.write_all(bytes).and_then(|()| encoder.flush());
            packed = std::mem::take(encoder.get_mut());
            bytes = &packed;
        }
        let whole = bytes.len();
        if let Some(left) = &mut left {
            bytes = bytes.get(..*left).unwrap_or(bytes);
            *left -= bytes.len();
        }
        match fault.drip_bytes {
            Some(size) => {
                conn.send(&out).await?;
                out.clear();
                drip(conn, bytes, size, fault.drip_interval, framed).await?;
            }
            None if framed => chunk(&mut out, bytes),
            None => out.extend_from_slice(bytes),
        }
        if bytes.len() < whole {
            conn.send(&out).await?;
            return Ok(false);
        }
    }
    if let Some(encoder) = encoder
        && ending == Ending::Proper
    {
        let rest = encoder.finish().unwrap_or_default();
        if framed { chunk(&mut out, &rest) } else { out.extend_from_slice(&rest) }
    }
    if ending == Ending::Proper && framed {
        out.extend_from_slice(b"0\r\n\r\n");
    }
    conn.send(&out).await?;
    match ending {
        Ending::Proper => Ok(keep_alive),
        Ending::Cut => Ok(false),
        Ending::Hang => Err(conn.until_gone().await),
        Ending::Reset => {
            settle(conn).await?;
            conn.reset();
            Ok(false)
        }
    }
}
