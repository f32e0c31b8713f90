//! The HTTP transport against small servers of its own that fail in every way a host can.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod proxies;
mod servers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::HeaderMap;
use liter_llm::transports::http::{Limits, parse_base_url};
use liter_llm::transports::is_stale_connection;
use liter_llm::{ErrorKind, FailurePhase};
use reqwest::Url;
use servers::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn an_answer_comes_back_whole_and_headers_go_out_as_given() {
    let (address, heads) = fixed(answer("x-request-id: r1\r\n", b"{\"ok\":true}")).await;
    let transport = transport();
    for _ in 0..3 {
        let got = post(&transport, &format!("http://{address}/v1/x?q=1")).await.unwrap();
        assert_eq!((got.status, got.headers["x-request-id"].as_bytes()), (200, &b"r1"[..]));
        assert_eq!(got.body.collect(None, None).await.unwrap(), "{\"ok\":true}");
    }
    let head = heads.lock().unwrap()[0].to_ascii_lowercase();
    assert!(head.starts_with("post /v1/x?q=1 http/1.1\r\n"), "{head}");
    let agent = format!("user-agent: liter-llm/{}\r\n", env!("CARGO_PKG_VERSION"));
    for line in
        ["content-length: 7\r\n", "authorization: bearer sk-sesame\r\n", "accept-encoding: gzip\r\n", &agent]
    {
        assert!(head.contains(line), "{line:?} in {head}");
    }
    assert!(!head.contains("referer"));
    let url = Url::parse(&format!("http://{address}/token")).unwrap();
    let got = transport.get(&url, HeaderMap::new(), &Limits::default()).await.unwrap();
    assert_eq!(got.status, 200);
    assert!(heads.lock().unwrap()[3].starts_with("GET /token"));
}

#[tokio::test]
async fn a_stream_is_never_asked_for_compressed() {
    let (address, heads) = fixed(answer("", b"data: x\n\n")).await;
    let url = Url::parse(&format!("http://{address}/")).unwrap();
    transport().post(&url, HeaderMap::new(), "", &Limits::default(), false).await.unwrap();
    assert!(heads.lock().unwrap()[0].to_ascii_lowercase().contains("accept-encoding: identity\r\n"));
}

#[tokio::test]
async fn a_refused_connection_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = post(&transport(), &format!("http://{address}/secret/path?q=1")).await.unwrap_err();
    assert_failure(&error, ErrorKind::Connection, FailurePhase::Refused);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(error.is_retryable() && !is_stale_connection(&error));
    assert!(error.detail().causes.len() > 1);
}

#[tokio::test]
async fn an_unknown_host_is_a_dns_failure() {
    if std::env::vars().any(|(name, _)| name.to_ascii_lowercase().ends_with("s_proxy")) {
        return; // The proxy would be asked for the name.
    }
    let transport = with(|options| options.connect_timeout = Duration::from_secs(30));
    let error = post(&transport, "https://no-such-host.invalid/secret/path").await.unwrap_err();
    assert_failure(&error, ErrorKind::Connection, FailurePhase::Dns);
    assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
}

#[tokio::test]
async fn a_certificate_nobody_vouches_for_is_refused() {
    let (address, _) = tls_server(&["127.0.0.1"]).await;
    let error = post(&transport(), &format!("https://{address}/secret/path")).await.unwrap_err();
    assert_failure(&error, ErrorKind::Connection, FailurePhase::Tls);
    assert!(!error.is_retryable());
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn a_named_certificate_is_trusted_for_its_own_host_only() {
    for (name, good) in [("127.0.0.1", true), ("other.example", false)] {
        let (address, pem) = tls_server(&[name]).await;
        let file = std::env::temp_dir().join(format!("liter-llm-{}-{name}.pem", std::process::id()));
        std::fs::write(&file, pem).unwrap();
        let transport = with(|options| options.ca_bundle = Some(file.clone()));
        std::fs::remove_file(file).unwrap();
        match post(&transport, &format!("https://{address}/")).await {
            Ok(got) => {
                assert!(good);
                assert_eq!(got.body.collect(None, None).await.unwrap(), "secure");
            }
            Err(error) => {
                assert!(!good, "{error:?}");
                assert_failure(&error, ErrorKind::Connection, FailurePhase::Tls);
            }
        }
    }
}

#[tokio::test]
async fn plain_http_behind_https_is_a_tls_failure() {
    let silent = server(|stream| async move { drop(stream) }).await;
    let plain = server(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = stream.read_u64().await;
    })
    .await;
    for (address, phases) in
        [(silent, &[FailurePhase::Tls, FailurePhase::Refused][..]), (plain, &[FailurePhase::Tls])]
    {
        let error = post(&transport(), &format!("https://{address}/")).await.unwrap_err();
        assert!(phases.contains(&error.detail().phase.unwrap()), "{error:?}");
        assert!(error.is_retryable());
    }
}

#[tokio::test]
async fn a_silent_host_runs_into_the_first_byte_limit() {
    let address = server(|stream| async move {
        let mut stream = BufReader::new(stream);
        read_request(&mut stream).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    })
    .await;
    let url = Url::parse(&format!("http://{address}/secret/path")).unwrap();
    let limits = Limits { first_byte: Some(Duration::from_millis(300)) };
    let start = Instant::now();
    let error = transport().post(&url, secret(), "{}", &limits, true).await.unwrap_err();
    let took = start.elapsed();
    assert_failure(&error, ErrorKind::Timeout, FailurePhase::FirstByte);
    assert!(took >= Duration::from_millis(290) && took < Duration::from_millis(800), "{took:?}");
    assert!(error.to_string().contains("0.3 s") && error.is_retryable(), "{error}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_host_that_takes_no_connection_runs_into_the_connect_limit() {
    // A listener with a queue of one that never accepts: once the queue is full, the system drops what comes.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    for _ in 0..8 {
        let connect = TcpStream::connect(address);
        match tokio::time::timeout(Duration::from_millis(200), connect).await {
            Ok(stream) => held.push(stream),
            Err(_) => break,
        }
    }
    let transport = with(|options| options.connect_timeout = Duration::from_millis(400));
    let start = Instant::now();
    let error = post(&transport, &format!("http://{address}/")).await.unwrap_err();
    assert_failure(&error, ErrorKind::Timeout, FailurePhase::Connect);
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(error.to_string().contains("0.4 s"), "{error}");
}

/// Sends the head, then `pieces` as chunks with `pause` before each, then either ends or hangs.
async fn drip(pieces: usize, pause: Duration, hang: bool) -> SocketAddr {
    server(move |stream| async move {
        let mut stream = BufReader::new(stream);
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        for _ in 0..pieces {
            tokio::time::sleep(pause).await;
            if stream.write_all(b"1\r\nx\r\n").await.is_err() {
                return;
            }
        }
        if hang {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        let _ = stream.write_all(b"0\r\n\r\n").await;
    })
    .await
}

#[tokio::test]
async fn silence_between_chunks_runs_into_the_idle_limit() {
    let address = drip(2, Duration::from_millis(1), true).await;
    let mut got = post(&transport(), &format!("http://{address}/secret/path")).await.unwrap();
    let idle = Some(Duration::from_millis(200));
    let mut read = 0;
    let start = Instant::now();
    let error = loop {
        match got.body.chunk(idle).await {
            Ok(piece) => read += piece.unwrap().len(),
            Err(error) => break error,
        }
    };
    assert_eq!(read, 2);
    assert_failure(&error, ErrorKind::Timeout, FailurePhase::Idle);
    assert!(start.elapsed() < Duration::from_secs(1) && !is_stale_connection(&error));
}

#[tokio::test]
async fn a_slow_but_living_stream_is_not_cut() {
    let address = drip(12, Duration::from_millis(60), false).await;
    let got = post(&transport(), &format!("http://{address}/")).await.unwrap();
    let body = got.body.collect(None, Some(Duration::from_millis(400))).await.unwrap();
    assert_eq!(body.len(), 12);
}

#[tokio::test]
async fn a_new_connection_that_breaks_before_the_answer_is_not_stale() {
    let address = server(|stream| async move {
        let mut stream = BufReader::new(stream);
        read_request(&mut stream).await;
    })
    .await;
    let error = post(&transport(), &format!("http://{address}/secret/path")).await.unwrap_err();
    assert_failure(&error, ErrorKind::Connection, FailurePhase::Reset);
    assert!(error.is_unanswered() && !is_stale_connection(&error) && error.is_retryable());
}

#[tokio::test]
async fn nor_is_one_that_is_reset() {
    let address = server(|stream| async move {
        let mut stream = BufReader::new(stream);
        read_request(&mut stream).await;
        stream.get_ref().set_zero_linger().unwrap();
    })
    .await;
    let error = post(&transport(), &format!("http://{address}/secret/path")).await.unwrap_err();
    assert_failure(&error, ErrorKind::Connection, FailurePhase::Reset);
    assert!(error.is_unanswered() && !is_stale_connection(&error));
}

#[tokio::test]
async fn a_kept_connection_the_host_has_dropped_is_stale_and_leaves_the_pool() {
    // Each connection answers once, reads the next request and hangs up.
    let count = Arc::new(AtomicUsize::new(0));
    let connections = count.clone();
    let address = server(move |stream| {
        connections.fetch_add(1, Ordering::SeqCst);
        async move {
            let mut stream = BufReader::new(stream);
            read_request(&mut stream).await;
            stream.write_all(&answer("", b"first")).await.unwrap();
            read_request(&mut stream).await;
        }
    })
    .await;
    let transport = transport();
    let url = format!("http://{address}/");
    assert_eq!(post(&transport, &url).await.unwrap().body.collect(None, None).await.unwrap(), "first");
    let error = post(&transport, &url).await.unwrap_err();
    assert!(is_stale_connection(&error), "{error:?}");
    assert_eq!(post(&transport, &url).await.unwrap().status, 200);
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_stale() {
    let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_vec();
    let address = server(move |stream| {
        let cut = cut.clone();
        async move {
            let mut stream = BufReader::new(stream);
            read_request(&mut stream).await;
            stream.write_all(&cut).await.unwrap();
        }
    })
    .await;
    let got = post(&transport(), &format!("http://{address}/secret/path")).await.unwrap();
    let error = got.body.collect(None, None).await.unwrap_err();
    assert_failure(&error, ErrorKind::Connection, FailurePhase::Reset);
    assert!(!is_stale_connection(&error));
    assert_eq!(error.detail().status_code, Some(200));
}

#[tokio::test]
async fn something_that_is_not_http_is_a_decode_error() {
    let (address, _) = fixed(b"SSH-2.0-OpenSSH_9.0\r\n\r\n".to_vec()).await;
    let error = post(&transport(), &format!("http://{address}/")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode, "{error:?}");
}

#[tokio::test]
async fn a_compressed_answer_is_read() {
    let body = b"{\"text\":\"hello\"}".repeat(100);
    let (address, _) = fixed(answer("content-encoding: gzip\r\n", &gzip(&body))).await;
    let got = post(&transport(), &format!("http://{address}/")).await.unwrap();
    assert_eq!(got.body.collect(None, None).await.unwrap(), body);
    let (address, _) = fixed(answer("content-encoding: gzip\r\n", b"not gzip at all")).await;
    let got = post(&transport(), &format!("http://{address}/")).await.unwrap();
    assert_eq!(got.body.collect(None, None).await.unwrap_err().kind(), ErrorKind::Decode);
}

#[tokio::test]
async fn a_gzip_bomb_is_refused() {
    let bomb = gzip(&vec![0; 8 << 20]);
    assert!(bomb.len() < 64 << 10);
    let (address, _) = fixed(answer("content-encoding: gzip\r\n", &bomb)).await;
    let transport = with(|options| options.max_body_bytes = 1 << 20);
    let got = post(&transport, &format!("http://{address}/")).await.unwrap();
    let error = got.body.collect(None, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode);
    assert!(error.to_string().contains("1048576") && !error.is_retryable(), "{error}");
}

#[tokio::test]
async fn a_body_over_the_cap_is_refused_with_and_without_its_length() {
    let (known, _) = fixed(answer("", &[b'x'; 1001])).await;
    let unknown = drip(1001, Duration::ZERO, false).await;
    for address in [known, unknown] {
        let url = format!("http://{address}/");
        let got = post(&transport(), &url).await.unwrap();
        assert_eq!(got.body.collect(Some(1000), None).await.unwrap_err().kind(), ErrorKind::Decode);
        let got = post(&transport(), &url).await.unwrap();
        assert_eq!(got.body.collect(Some(1001), None).await.unwrap().len(), 1001);
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let (target, seen) = fixed(answer("", b"elsewhere")).await;
    let redirect =
        format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: http://{target}/\r\ncontent-length: 0\r\n\r\n");
    let (address, _) = fixed(redirect.into_bytes()).await;
    let got = post(&transport(), &format!("http://{address}/")).await.unwrap();
    assert_eq!(got.status, 307);
    assert!(seen.lock().unwrap().is_empty());
}

/// Runs `work` in a turn in which Tokio lets nothing more be ready, as for the last of many calls in one task.
async fn at_the_end_of_a_turn<T>(work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let mut first = true;
    std::future::poll_fn(|context| {
        if std::mem::take(&mut first) {
            while let std::task::Poll::Ready(spent) = tokio::task::coop::poll_proceed(context) {
                spent.made_progress();
            }
        }
        work.as_mut().poll(context)
    })
    .await
}

#[tokio::test]
async fn an_end_that_has_come_is_seen_in_a_turn_that_is_over() {
    let limits = Limits { first_byte: Some(Duration::from_secs(3)) };
    for parting in
        [&b""[..], b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"]
    {
        let address = server(move |stream| async move {
            let mut stream = BufReader::new(stream);
            if read_request(&mut stream).await.is_some() {
                stream.write_all(&answer("", b"one")).await.unwrap();
                tokio::time::sleep(Duration::from_millis(30)).await;
                let _ = stream.write_all(parting).await;
            }
        })
        .await;
        let transport = transport();
        let url = format!("http://{address}/");
        let first = post(&transport, &url).await.unwrap();
        first.body.collect(None, None).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let url = parse_base_url(&url).unwrap();
        let second = transport.post(&url, secret(), "{\"a\":1}", &limits, true);
        let second = at_the_end_of_a_turn(second).await;
        assert_eq!(second.map(|answer| answer.status).map_err(|error| error.to_string()), Ok(200));
    }
}
