//! Connections at rest, and ends of streams that are late: nothing is left open, and nobody waits for it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use http::HeaderMap;
use liter_llm::transports::http::{HttpOptions, HttpTransport, Limits, parse_base_url};
use liter_llm::{Client, Folder, LlmProvider, LlmRequest, ProviderConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Barrier;

const CONNECTIONS: usize = 20;

fn lane() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn hosts() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

async fn read_request(stream: &mut TcpStream) -> bool {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return true;
            }
        }
        if !matches!(stream.read_buf(&mut request).await, Ok(1..)) {
            return false;
        }
    }
}

/// What a host has seen of its connections.
#[derive(Default)]
struct Seen {
    opened: AtomicUsize,
    closed: AtomicUsize,
}

impl Seen {
    fn closed_soon(&self, count: usize, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while self.closed.load(Ordering::SeqCst) != count && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.closed.load(Ordering::SeqCst) == count
    }
}

/// Serves each connection on `runtime` with `serve`; the connection is then read until the client closes it.
fn host<F>(runtime: &Runtime, serve: impl Fn(TcpStream) -> F + Send + 'static) -> (SocketAddr, Arc<Seen>)
where
    F: Future<Output = TcpStream> + Send + 'static,
{
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Seen::default());
    let kept = Arc::clone(&seen);
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // What is written last is not to wait until the client has acknowledged what came before.
            stream.set_nodelay(true).unwrap();
            let (seen, work) = (Arc::clone(&kept), serve(stream));
            seen.opened.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut stream = work.await;
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
                seen.closed.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    (address, seen)
}

/// A host that gives its first [`CONNECTIONS`] connections an answer each, all at once, and then closes its side.
fn parting_host(runtime: &Runtime, rest: Duration) -> (SocketAddr, Arc<Seen>) {
    let together = Arc::new(Barrier::new(CONNECTIONS));
    host(runtime, move |mut stream| {
        let together = Arc::clone(&together);
        async move {
            read_request(&mut stream).await;
            together.wait().await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine").await.unwrap();
            tokio::time::sleep(rest).await;
            stream.shutdown().await.unwrap();
            stream
        }
    })
}

async fn post(transport: &HttpTransport, address: SocketAddr) {
    let url = parse_base_url(&format!("http://{address}/")).unwrap();
    let answer = transport.post(&url, HeaderMap::new(), "{}", &Limits::default(), true).await.unwrap();
    assert_eq!(answer.body.collect(None, None).await.unwrap(), "fine");
}

#[test]
fn what_the_host_closes_at_rest_is_closed_at_once() {
    let hosts = hosts();
    let (address, seen) = parting_host(&hosts, Duration::from_millis(100));
    let transport = HttpTransport::new(&HttpOptions::default()).unwrap();
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(join_all((0..CONNECTIONS).map(|_| post(&transport, address))));
    assert_eq!(seen.closed.load(Ordering::SeqCst), 0);
    // Nobody uses the transport meanwhile.
    assert!(seen.closed_soon(CONNECTIONS, Duration::from_secs(2)), "{:?}", seen.closed);
}

#[test]
fn also_on_a_runtime_that_is_only_driven_now_and_then() {
    let hosts = hosts();
    let (address, seen) = parting_host(&hosts, Duration::from_millis(50));
    let transport = HttpTransport::new(&HttpOptions::default()).unwrap();
    let lane = lane();
    lane.block_on(join_all((0..CONNECTIONS).map(|_| post(&transport, address))));
    assert!(!seen.closed_soon(1, Duration::from_millis(150)), "nobody drives the lane");
    // Two turns: one sees the sockets, the next closes.
    lane.block_on(async {
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
    });
    assert!(seen.closed_soon(CONNECTIONS, Duration::from_secs(1)), "{:?}", seen.closed);
}

/// The whole answer but the end of its body, which comes after `late`.
fn late_host(runtime: &Runtime, late: Duration) -> (SocketAddr, Arc<Seen>) {
    host(runtime, move |mut stream| async move {
        while read_request(&mut stream).await {
            let event = r#"data: {"id":"1","choices":[{"index":0,"delta":{"content":"fine"},"finish_reason":"stop"}]}"#;
            let events = format!("{event}\n\ndata: [DONE]\n\n");
            let head =
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            let answer = format!("{head}{:x}\r\n{events}\r\n", events.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
            tokio::time::sleep(late).await;
            if stream.write_all(b"0\r\n\r\n").await.is_err() {
                break;
            }
        }
        stream
    })
}

fn client(address: SocketAddr) -> Client {
    let mut config = ProviderConfig::parse("openai/m").unwrap();
    config.base_url = Some(format!("http://{address}/v1"));
    config.api_key = Some("sk-of-a-test".to_owned().into());
    Client::new(config).unwrap()
}

/// Reads a stream on the lane to its end, or until the text has come; how long the call took.
fn stream(lane: &Runtime, client: &Client, to_the_end: bool) -> Duration {
    let begun = Instant::now();
    lane.block_on(async {
        let mut chunks = client.stream(LlmRequest::new().with_prompt("x")).await.unwrap();
        let (mut text, mut folder) = (String::new(), Folder::new());
        while let Some(chunk) = chunks.next().await {
            folder.push(&chunk.unwrap());
            text = folder.partial().text();
            if !to_the_end && !text.is_empty() {
                break;
            }
        }
        assert_eq!(text, "fine");
    });
    begun.elapsed()
}

/// More than the limit on a lane, with room for a machine that is busy.
const SHORT: Duration = Duration::from_millis(250);

#[test]
fn on_a_lane_a_late_end_costs_the_connection_and_little_time() {
    let hosts = hosts();
    let (address, seen) = late_host(&hosts, Duration::from_secs(1));
    let (client, lane) = (client(address), lane());
    for number in 1..=3 {
        let time = stream(&lane, &client, true);
        assert!(time < SHORT, "{time:?}");
        // Nobody drives the lane any more, and yet the connection is closed.
        assert!(seen.closed_soon(number, Duration::from_secs(3)), "{number}: {:?}", seen.closed);
    }
    assert_eq!(seen.opened.load(Ordering::SeqCst), 3);
}

#[test]
fn on_a_lane_an_end_that_follows_soon_is_waited_for() {
    let hosts = hosts();
    let (address, seen) = late_host(&hosts, Duration::from_micros(300));
    let (client, lane) = (client(address), lane());
    for _ in 0..50 {
        assert!(stream(&lane, &client, true) < SHORT);
    }
    // A busy machine may make a few of them late.
    let opened = seen.opened.load(Ordering::SeqCst);
    assert!(opened <= 10, "{opened} connections for 50 streams");
}

#[test]
fn on_a_lane_a_stream_that_is_left_closes_its_connection() {
    let hosts = hosts();
    let (address, seen) = late_host(&hosts, Duration::from_secs(1));
    let (client, lane) = (client(address), lane());
    for number in 1..=3 {
        let time = stream(&lane, &client, false);
        assert!(time < SHORT, "{time:?}");
        assert!(seen.closed_soon(number, Duration::from_secs(3)), "{number}: {:?}", seen.closed);
    }
}
