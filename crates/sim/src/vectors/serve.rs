//! The vectors over HTTP: what a runner asks for, and what the client under test is answered.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::{CallKind, End, Held, Reply, Seen, Vectors, judge, websocket};
use crate::http::{Conn, Gone, ReadError, Request, reason};

/// The largest request taken, in bytes.
pub(super) const MAX_BODY: usize = 16 << 20;

/// What a request too many is answered with.
const TOO_MANY: u16 = 599;

/// Between the pieces of a body, so that they arrive apart.
const PAUSE: Duration = Duration::from_millis(1);

/// More pieces than this are not set apart by pauses: a body byte by byte would take long.
const PAUSED_PIECES: usize = 32;

pub(super) async fn accept(listener: TcpListener, vectors: Arc<Vectors>) {
    let mut count = 0;
    loop {
        // An accept that fails (too many files, a client gone again) is tried anew.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        count += 1;
        tokio::spawn(connection(stream, count, Arc::clone(&vectors)));
    }
}

async fn connection(stream: TcpStream, id: u64, vectors: Arc<Vectors>) {
    // Without this small pieces wait for acknowledgements; a socket that refuses it still works.
    let _ = stream.set_nodelay(true);
    let mut conn = Conn::new(stream, id);
    loop {
        let request = match conn.request(MAX_BODY).await {
            Ok(request) => request,
            Err(ReadError::Gone) => return,
            Err(ReadError::Malformed(_) | ReadError::TooLarge) => {
                let _ = plain(&mut conn, 400, "text/plain", b"not a request").await;
                return;
            }
        };
        let keep_alive = request.keep_alive;
        match serve(&mut conn, &vectors, &request).await {
            Ok(true) if keep_alive => {}
            _ => return,
        }
    }
}

/// Answers one request; true when the connection may go on.
async fn serve(conn: &mut Conn, vectors: &Vectors, request: &Request) -> Result<bool, Gone> {
    let path = request.path();
    if path == "/v" {
        let names: String = vectors.0.keys().map(|name| format!("{name}\n")).collect();
        return plain(conn, 200, "text/plain", names.as_bytes()).await;
    }
    let parts = path.strip_prefix("/v/").map(|rest| rest.split_once('/').unwrap_or((rest, "")));
    let Some((held, rest)) = parts.and_then(|(name, rest)| Some((vectors.0.get(name)?, rest))) else {
        return plain(conn, 404, "text/plain", b"no such vector").await;
    };
    let (first, below) =
        rest.split_once('/').map_or((rest, String::new()), |(first, below)| (first, format!("/{below}")));
    if let Ok(deployment) = first.parse() {
        return exchange(conn, held, request, deployment, below).await;
    }
    control(conn, held, request, rest).await
}

/// What a runner asks for.
async fn control(conn: &mut Conn, held: &Held, request: &Request, rest: &str) -> Result<bool, Gone> {
    const JSON: &str = "application/json";
    let vector = &held.vector;
    match (request.method(), rest) {
        ("GET", "") => plain(conn, 200, JSON, held.shown.as_bytes()).await,
        ("GET", "config") => plain(conn, 200, JSON, vector.config.to_string().as_bytes()).await,
        ("GET", "calls") => {
            let calls: String = vector
                .calls
                .iter()
                .map(|call| match call.call {
                    CallKind::Generate => "generate\n",
                    CallKind::Stream => "stream\n",
                })
                .collect();
            plain(conn, 200, "text/plain", calls.as_bytes()).await
        }
        ("GET", "seen") => {
            let seen = serde_json::to_vec(&*held.seen()).unwrap_or_default();
            plain(conn, 200, JSON, &seen).await
        }
        ("POST", "reset") => {
            held.seen().clear();
            plain(conn, 200, "text/plain", b"ok").await
        }
        ("POST", "judge") => {
            let seen = held.seen().clone();
            let outcomes = String::from_utf8_lossy(&request.body);
            let differences = judge::judge(vector, &seen, &outcomes);
            if differences.is_empty() {
                return plain(conn, 200, "text/plain", b"ok").await;
            }
            plain(conn, 422, "text/plain", differences.join("\n").as_bytes()).await
        }
        ("GET", _) => {
            let number = rest.strip_prefix("calls/").and_then(|number| number.parse::<usize>().ok());
            match number.and_then(|number| vector.calls.get(number)) {
                Some(call) => plain(conn, 200, JSON, call.request.get().as_bytes()).await,
                None => plain(conn, 404, "text/plain", b"no such call").await,
            }
        }
        _ => plain(conn, 404, "text/plain", b"there are config, calls, seen, reset and judge").await,
    }
}

async fn plain(conn: &mut Conn, status: u16, kind: &str, body: &[u8]) -> Result<bool, Gone> {
    let head = format!(
        "HTTP/1.1 {status} {}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
        reason(status),
        body.len()
    );
    conn.send(&[head.as_bytes(), body].concat()).await?;
    Ok(true)
}

/// Files a request of the client under test and answers it as the vector says.
async fn exchange(
    conn: &mut Conn,
    held: &Held,
    request: &Request,
    deployment: usize,
    path: String,
) -> Result<bool, Gone> {
    if websocket::is_awaited(held, request, deployment) {
        return websocket::converse(conn, held, request, deployment, path).await;
    }
    let seen = Seen {
        deployment,
        method: request.method().to_owned(),
        path,
        query: request.query().to_owned(),
        headers: headers(request),
        body: serde_json::from_slice(&request.body).ok(),
        text: String::from_utf8_lossy(&request.body).into_owned(),
    };
    match held.answer(seen) {
        Some(reply) => deliver(conn, reply).await,
        None => plain(conn, TOO_MANY, "text/plain", b"a request too many").await,
    }
}

pub(super) fn headers(request: &Request) -> Vec<(String, String)> {
    request.headers().map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect()
}

async fn deliver(conn: &mut Conn, reply: &Reply) -> Result<bool, Gone> {
    conn.pause(Duration::from_millis(reply.delay_ms)).await?;
    match reply.end {
        End::Close => return Ok(false),
        End::HangBefore => return Err(conn.until_gone().await),
        End::Proper | End::Cut | End::Hang => {}
    }
    // The pieces were looked at when the vector was read.
    let pieces = reply.pieces().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {}\r\n", reply.status, reason(reply.status));
    if let Some(kind) = reply.content_type() {
        head.push_str(&format!("content-type: {kind}\r\n"));
    }
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let ([whole], End::Proper) = (pieces.as_slice(), reply.end) {
        head.push_str(&format!("content-length: {}\r\n\r\n", whole.len()));
        conn.send(&[head.as_bytes(), whole].concat()).await?;
        return Ok(true);
    }
    head.push_str("transfer-encoding: chunked\r\n\r\n");
    conn.send(head.as_bytes()).await?;
    let paused = pieces.len() <= PAUSED_PIECES;
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        let size = format!("{:x}\r\n", piece.len());
        conn.send(&[size.as_bytes(), piece, b"\r\n"].concat()).await?;
        if paused {
            conn.pause(PAUSE).await?;
        } else {
            tokio::task::yield_now().await;
        }
    }
    match reply.end {
        End::Hang => Err(conn.until_gone().await),
        End::Cut => Ok(false),
        _ => {
            conn.send(b"0\r\n\r\n").await?;
            Ok(true)
        }
    }
}
