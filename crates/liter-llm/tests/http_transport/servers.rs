//! Small servers on this machine, and requests to them.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::{HeaderMap, HeaderValue};
use liter_llm::transports::http::{HttpAnswer, HttpOptions, HttpTransport, Limits, parse_base_url};
use liter_llm::{ErrorKind, FailurePhase, LlmError};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

pub const SECRET: &str = "Bearer sk-sesame";

pub fn transport() -> HttpTransport {
    HttpTransport::new(&HttpOptions::default()).unwrap()
}

pub fn with(change: impl FnOnce(&mut HttpOptions)) -> HttpTransport {
    let mut options = HttpOptions::default();
    change(&mut options);
    HttpTransport::new(&options).unwrap()
}

pub fn secret() -> HeaderMap {
    HeaderMap::from_iter([(http::header::AUTHORIZATION, HeaderValue::from_static(SECRET))])
}

pub async fn post(transport: &HttpTransport, url: &str) -> Result<HttpAnswer, LlmError> {
    let url = parse_base_url(url).unwrap();
    transport.post(&url, secret(), "{\"a\":1}", &Limits::default(), true).await
}

/// Serves each connection with `serve`, on its own task; returns the address.
pub async fn server<F, S>(serve: S) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
    S: Fn(TcpStream) -> F + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// Reads one request; returns its head, or nothing when the client closed the connection.
pub async fn read_request<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(head)
}

pub fn answer(extra: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{extra}\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// A server that answers every request with the same bytes; also returns the heads it saw.
pub async fn fixed(bytes: Vec<u8>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    let address = server(move |stream| {
        let (bytes, seen) = (bytes.clone(), seen.clone());
        async move { serve_fixed(stream, &bytes, &seen).await }
    })
    .await;
    (address, heads)
}

pub async fn serve_fixed<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    bytes: &[u8],
    seen: &Mutex<Vec<String>>,
) {
    let mut stream = BufReader::new(stream);
    while let Some(head) = read_request(&mut stream).await {
        seen.lock().unwrap().push(head);
        if stream.write_all(bytes).await.is_err() {
            return;
        }
        let _ = stream.flush().await;
    }
}

pub fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

#[track_caller]
pub fn assert_failure(error: &LlmError, kind: ErrorKind, phase: FailurePhase) {
    assert_eq!((error.kind(), error.detail().phase), (kind, Some(phase)), "{error:?}");
    let text = format!("{error:?} {error} {:?}", error.detail().causes);
    assert!(!text.contains("sesame") && !text.contains("/secret/path") && !text.contains("q=1"), "{text}");
}

/// A TLS server with a certificate of its own for these names; also returns the certificate as PEM.
pub async fn tls_server(names: &[&str]) -> (SocketAddr, String) {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let issued = rcgen::generate_simple_self_signed(names).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![issued.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let address = server(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve_fixed(stream, &answer("", b"secure"), &Mutex::default()).await;
            }
        }
    })
    .await;
    (address, issued.cert.pem())
}
