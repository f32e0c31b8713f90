//! The WebSocket transport against a server on this machine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::result_large_err, missing_docs)]

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue};
use liter_llm::transports::http::{HttpOptions, HttpTransport, Limits};
use liter_llm::transports::websockets::{Handshake, MAX_MESSAGE_BYTES, WebSocketConnection, connect};
use liter_llm::{ErrorKind, FailurePhase, LlmError};
use reqwest::Url;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};

type Server = WebSocketStream<TcpStream>;

async fn listen() -> (TcpListener, Url) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("ws://{}/v1/responses?q=1", listener.local_addr().unwrap())).unwrap();
    (listener, url)
}

async fn open(url: &Url) -> Result<Handshake, LlmError> {
    let transport = HttpTransport::new(&HttpOptions::default()).unwrap();
    let headers =
        HeaderMap::from_iter([(http::header::AUTHORIZATION, HeaderValue::from_static("Bearer sk-sesame"))]);
    connect(&transport, url, headers, &Limits { first_byte: Some(Duration::from_secs(5)) }).await
}

/// A connection to a server that runs `serve` once the handshake is done.
async fn connected<F>(serve: impl FnOnce(Server) -> F + Send + 'static) -> WebSocketConnection
where
    F: Future<Output = ()> + Send + 'static,
{
    let (listener, url) = listen().await;
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let check = |request: &Request, mut response: Response| {
            assert_eq!(request.uri().to_string(), "/v1/responses?q=1");
            assert_eq!(request.headers()["authorization"], "Bearer sk-sesame");
            response.headers_mut().insert("x-request-id", HeaderValue::from_static("r1"));
            Ok(response)
        };
        serve(tokio_tungstenite::accept_hdr_async(stream, check).await.unwrap()).await;
    });
    match open(&url).await.unwrap() {
        Handshake::Open(connection) => *connection,
        Handshake::Refused(answer) => panic!("refused with {}", answer.status),
    }
}

const IDLE: Option<Duration> = Some(Duration::from_secs(5));

#[tokio::test]
async fn messages_go_both_ways_until_a_clean_close() {
    let mut connection = connected(|mut server| async move {
        for _ in 0..2 {
            let text = server.next().await.unwrap().unwrap();
            server.send(Message::text(format!("re: {}", text.to_text().unwrap()))).await.unwrap();
        }
        server.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })).await.unwrap();
        while let Some(Ok(_)) = server.next().await {}
    })
    .await;
    assert_eq!(connection.headers()["x-request-id"], "r1");
    for text in ["one", "zw\u{f6}lf"] {
        connection.send_text(text).await.unwrap();
        assert_eq!(connection.next_text(IDLE).await.unwrap().unwrap(), format!("re: {text}"));
    }
    assert_eq!(connection.next_text(IDLE).await.unwrap(), None);
    assert_eq!(connection.next_text(IDLE).await.unwrap(), None);
    assert!(!format!("{connection:?}").contains("sesame"));
    connection.close().await;
}

#[tokio::test]
async fn pings_are_answered_and_count_as_life() {
    let mut connection = connected(|mut server| async move {
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_millis(60)).await;
            server.send(Message::Ping("p".into())).await.unwrap();
            assert_eq!(server.next().await.unwrap().unwrap(), Message::Pong("p".into()));
        }
        server.send(Message::text("done")).await.unwrap();
        let _ = server.next().await;
    })
    .await;
    let text = connection.next_text(Some(Duration::from_millis(250))).await.unwrap();
    assert_eq!(text.as_deref(), Some("done"));
}

#[tokio::test]
async fn close_codes_are_told_apart() {
    for (code, kind, retryable) in [
        (1001, ErrorKind::Connection, true),
        (1008, ErrorKind::ProviderError, false),
        (1009, ErrorKind::RequestTooLarge, false),
        (1011, ErrorKind::ProviderError, true),
        (1012, ErrorKind::Connection, true),
        (1013, ErrorKind::Overloaded, true),
        (4001, ErrorKind::ProviderError, false),
    ] {
        let mut connection = connected(move |mut server| async move {
            let frame = CloseFrame { code: code.into(), reason: "the reason".into() };
            server.close(Some(frame)).await.unwrap();
            while let Some(Ok(_)) = server.next().await {}
        })
        .await;
        let error = connection.next_text(IDLE).await.unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (kind, retryable), "{error:?}");
        assert_eq!(error.detail().code.as_deref(), Some(code.to_string().as_str()));
        assert!(kind == ErrorKind::Connection || error.to_string().contains("the reason"), "{error}");
    }
}

#[tokio::test]
async fn a_broken_connection_is_unanswered_only_while_nothing_was_heard() {
    for heard in [false, true] {
        let mut connection = connected(move |mut server| async move {
            server.next().await.unwrap().unwrap();
            if heard {
                server.send(Message::text("half")).await.unwrap();
            }
        })
        .await;
        connection.send_text("hello").await.unwrap();
        if heard {
            assert_eq!(connection.next_text(IDLE).await.unwrap().as_deref(), Some("half"));
        }
        let error = connection.next_text(IDLE).await.unwrap_err();
        assert_eq!((error.kind(), error.detail().phase), (ErrorKind::Connection, Some(FailurePhase::Reset)));
        assert_eq!(error.is_unanswered(), !heard, "{error:?}");
    }
}

#[tokio::test]
async fn silence_runs_into_its_limit() {
    let mut connection = connected(|mut server| async move {
        let _ = server.send(Message::text("one")).await;
        let _ = server.next().await;
        let _ = server.next().await;
    })
    .await;
    let limit = Some(Duration::from_millis(200));
    assert_eq!(connection.next_text(limit).await.unwrap().as_deref(), Some("one"));
    let start = Instant::now();
    let error = connection.next_text(limit).await.unwrap_err();
    assert_eq!((error.kind(), error.detail().phase), (ErrorKind::Timeout, Some(FailurePhase::Idle)));
    connection.send_text("two").await.unwrap();
    let error = connection.next_text(limit).await.unwrap_err();
    assert_eq!((error.kind(), error.detail().phase), (ErrorKind::Timeout, Some(FailurePhase::FirstByte)));
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn binary_and_oversized_messages_are_refused() {
    for message in [Message::binary("x"), Message::text("x".repeat(MAX_MESSAGE_BYTES + 1))] {
        let mut connection = connected(|mut server| async move {
            let _ = server.send(message).await;
            let _ = server.next().await;
        })
        .await;
        let error = connection.next_text(IDLE).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode, "{error:?}");
    }
}

#[tokio::test]
async fn closing_says_goodbye() {
    let (told, heard) = tokio::sync::oneshot::channel();
    let connection = connected(|mut server| async move {
        told.send(server.next().await.unwrap().unwrap().is_close()).unwrap();
        while let Some(Ok(_)) = server.next().await {}
    })
    .await;
    connection.close().await;
    assert!(heard.await.unwrap());
}

/// Answers the handshake with these bytes, the last ones late.
async fn answering(head: &'static str, body: &'static str) -> Url {
    let (listener, url) = listen().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        stream.write_all(body.as_bytes()).await.unwrap();
    });
    url
}

#[tokio::test]
async fn a_refused_handshake_keeps_status_headers_and_the_whole_body() {
    let head = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-length: 24\r\n\r\n{\"error\":{";
    let url = answering(head, "\"code\":\"slow\"}").await;
    let Handshake::Refused(answer) = open(&url).await.unwrap() else { panic!("opened") };
    assert_eq!((answer.status, answer.headers["retry-after"].as_bytes()), (429, &b"7"[..]));
    assert_eq!(answer.body.collect(None, IDLE).await.unwrap(), "{\"error\":{\"code\":\"slow\"}");
}

#[tokio::test]
async fn an_upgrade_without_proof_is_refused() {
    let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                sec-websocket-accept: bm90IHRoZSBwcm9vZg==\r\n\r\n";
    let url = answering(head, "").await;
    assert_eq!(open(&url).await.unwrap_err().kind(), ErrorKind::Decode);
}

#[tokio::test]
async fn a_host_that_is_not_there_is_a_connection_error() {
    let (listener, url) = listen().await;
    drop(listener);
    let error = open(&url).await.unwrap_err();
    assert_eq!((error.kind(), error.detail().phase), (ErrorKind::Connection, Some(FailurePhase::Refused)));
    let error = open(&Url::parse("ftp://127.0.0.1/").unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}
