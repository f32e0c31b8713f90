//! Vectors over a WebSocket: each message of the client under test is a request, answered by messages.

use std::time::Duration;

use super::serve::{MAX_BODY, headers};
use super::{End, Held, Reply, Seen};
use crate::http::{Conn, Gone, Request};
use crate::websocket::{self, CLOSE, TEXT, agreed, key_of, receive, send};

/// The method of a request that is a message over a WebSocket.
pub(super) const METHOD: &str = "WEBSOCKET";

/// Closes the connection after a message too many: against the rules (RFC 6455, section 7.4.1).
const TOO_MANY: u16 = 1008;

/// Whether this is a handshake, and the vector goes on with a message over a WebSocket. Otherwise the handshake is a
/// request like any other, and so is the answer to it.
pub(super) fn is_awaited(held: &Held, request: &Request, deployment: usize) -> bool {
    let next = held.next(&held.seen(), deployment);
    key_of(request).is_some() && next.is_some_and(|exchange| exchange.request.method == METHOD)
}

/// Agrees to the handshake and answers messages for as long as the connection lives.
pub(super) async fn converse(
    conn: &mut Conn,
    held: &Held,
    request: &Request,
    deployment: usize,
    path: String,
) -> Result<bool, Gone> {
    let mut head = agreed(key_of(request).unwrap_or_default());
    if let Some(exchange) = held.next(&held.seen(), deployment) {
        for (name, value) in &exchange.reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    head.push_str("\r\n");
    conn.send(head.as_bytes()).await?;
    // Those of the handshake belong to the first message; a further one on the connection has none.
    let mut headers = headers(request);
    loop {
        let message = match receive(conn, MAX_BODY).await {
            Ok(message) => message,
            Err(websocket::End::Close(code)) => return close(conn, code).await,
            Err(websocket::End::Gone | websocket::End::Drop) => return Ok(false),
        };
        let reply = held.answer(Seen {
            deployment,
            method: METHOD.to_owned(),
            path: path.clone(),
            query: request.query().to_owned(),
            headers: std::mem::take(&mut headers),
            body: serde_json::from_slice(&message).ok(),
            text: String::from_utf8_lossy(&message).into_owned(),
        });
        let Some(reply) = reply else { return close(conn, TOO_MANY).await };
        if !deliver(conn, reply).await? {
            return Ok(false);
        }
    }
}

/// Says goodbye; the connection does not go on.
async fn close(conn: &mut Conn, code: u16) -> Result<bool, Gone> {
    send(conn, CLOSE, &code.to_be_bytes()).await?;
    Ok(false)
}

/// Answers a message; true when the connection may go on.
async fn deliver(conn: &mut Conn, reply: &Reply) -> Result<bool, Gone> {
    conn.pause(Duration::from_millis(reply.delay_ms)).await?;
    match reply.end {
        End::Close => return Ok(false),
        End::HangBefore => return Err(conn.until_gone().await),
        End::Proper | End::Cut | End::Hang => {}
    }
    for message in reply.messages() {
        send(conn, TEXT, message.as_bytes()).await?;
    }
    match reply.end {
        End::Hang => Err(conn.until_gone().await),
        end => Ok(end == End::Proper),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::path::PathBuf;

    use serde_json::{Value, json};

    use crate::VectorServer;

    /// A masked text frame of at most 125 bytes, and what comes back: so many bytes.
    fn message(stream: &mut TcpStream, text: &str, back: usize) -> Vec<u8> {
        let mut frame = vec![0x81, 0x80 | text.len() as u8, 1, 2, 3, 4];
        frame.extend(text.bytes().zip([1, 2, 3, 4].into_iter().cycle()).map(|(byte, key)| byte ^ key));
        stream.write_all(&frame).unwrap();
        let mut answer = vec![0; back];
        stream.read_exact(&mut answer).unwrap();
        answer
    }

    /// A folder with one vector in it, gone when this is.
    struct Folder(PathBuf);

    impl Folder {
        fn of(name: &str, reply: &Value) -> Self {
            let place = std::env::temp_dir().join(format!("vectors-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&place).unwrap();
            let vector = json!({
                "name": "v", "about": "a", "source": "docs/", "config": {},
                "calls": [{"call": "generate", "request": {}, "outcome": {}}],
                "exchanges": [{"request": {"method": "WEBSOCKET", "path": "/r", "body": {"n": 1}}, "reply": reply}],
            });
            std::fs::write(place.join("v.json"), json!({"vectors": [vector]}).to_string()).unwrap();
            Self(place)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            // What cannot be removed is the system's to clear.
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// What the server says to a handshake, as far as the end of the head.
    fn shaken(stream: &mut TcpStream) -> String {
        let head = "GET /v/v/0/r HTTP/1.1\r\nhost: h\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
            sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            seen.push(byte[0]);
        }
        String::from_utf8(seen).unwrap()
    }

    #[test]
    fn messages_are_answered_and_one_too_many_ends_the_connection() {
        let folder = Folder::of(
            "messages",
            &json!({"headers": {"x-request-id": "q"}, "events": [{"data": {"a": 1}}]}),
        );
        let server = VectorServer::start(&folder.0, 0).unwrap();
        let mut stream = TcpStream::connect(server.addr()).unwrap();
        let head = shaken(&mut stream);
        // The example of RFC 6455, section 1.3.
        assert!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
        assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("x-request-id: q\r\n"), "{head}");
        assert_eq!(message(&mut stream, "{\"n\":1}", 9), b"\x81\x07{\"a\":1}");
        assert_eq!(message(&mut stream, "{\"n\":2}", 4), [0x88, 2, 3, 0xf0], "closed with 1008");
        // No message is awaited any more, so the handshake is a request too many.
        let again = shaken(&mut TcpStream::connect(server.addr()).unwrap());
        assert!(again.starts_with("HTTP/1.1 599 "), "{again}");
    }

    #[test]
    fn what_messages_do_not_have_is_refused() {
        for (field, reply) in [
            ("status", json!({"status": 401, "body": {}})),
            ("split", json!({"body": {}, "split": "bytes"})),
            ("line_end", json!({"events": [], "line_end": "\n"})),
            ("event", json!({"events": [{"event": "e", "data": {}}]})),
            ("base64", json!({"pieces": [{"base64": "AAA="}]})),
        ] {
            let folder = Folder::of(field, &reply);
            let refused = VectorServer::start(&folder.0, 0).unwrap_err().to_string();
            assert!(refused.contains(&format!("`{field}`")), "{refused}");
        }
    }
}
