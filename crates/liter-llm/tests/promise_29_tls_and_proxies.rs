//! Row 29: TLS is verified by default, a certificate authority of one's own is honoured, and a proxy sees no credential.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use liter_llm::{Client, ErrorKind, LlmProvider, LlmRequest, ProviderConfig};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

const KEY: &str = "sk-sesame-0123456789";
const ANSWER: &str = r#"{"id":"x","choices":[{"index":0,"message":{"role":"assistant","content":"secure"},"finish_reason":"stop"}]}"#;

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Issuer {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for `name`; without an issuer signed by itself.
fn certificate(issuer: Option<&Issuer>, name: &str, expired: bool) -> rustls::ServerConfig {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(if expired { 2020 } else { 2090 }, 2, 1);
    let key = KeyPair::generate().unwrap();
    let made = match issuer {
        Some(issuer) => params.signed_by(&key, issuer).unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.der().clone()], key)
        .unwrap()
}

async fn head_of<S: tokio::io::AsyncRead + Unpin>(stream: &mut BufReader<S>) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

/// A TLS server that answers chats; also counts the connections made to it.
async fn tls_server(config: rustls::ServerConfig) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let mut stream = BufReader::new(stream);
                let Some(head) = head_of(&mut stream).await else { return };
                assert!(head.contains(KEY), "the host itself needs the key");
                let length = head.lines().find_map(|line| {
                    line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok()
                });
                stream.read_exact(&mut vec![0; length.unwrap_or(0)]).await.unwrap();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{ANSWER}",
                    ANSWER.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    (address, count)
}

/// A proxy that opens tunnels; also returns all that was sent to it before a tunnel was open.
async fn tunnel_proxy() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                let mut client = BufReader::new(stream);
                let Some(head) = head_of(&mut client).await else { return };
                let target = head.split(' ').nth(1).unwrap().to_owned();
                seen.lock().unwrap().push(head);
                let Ok(mut host) = TcpStream::connect(target).await else { return };
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut host).await;
            });
        }
    });
    (address, heads)
}

fn client(base_url: &str) -> Client {
    let config = ProviderConfig::new("openai").with_model("m").with_api_key(KEY).with_base_url(base_url);
    Client::new(config).unwrap()
}

/// Run by the tests below as a process of its own, with an environment made for it.
#[tokio::test]
#[ignore = "needs an environment made for it"]
async fn child_calls() {
    for base_url in std::env::var("CHILD_URLS").unwrap().split(' ') {
        match client(base_url).generate(LlmRequest::new().with_prompt("x")).await {
            Ok(answer) => println!("answer {}", answer.text()),
            Err(error) => {
                assert!(!format!("{error} {error:?}").contains(KEY));
                let detail = error.detail();
                println!(
                    "{} {:?} retryable {} attempts {}: {error}",
                    error.kind(),
                    detail.phase,
                    error.is_retryable(),
                    detail.attempts.len()
                );
            }
        }
    }
}

/// What the calls came to, a line each, in a process with these variables and no other settings of that kind.
async fn calls_with(urls: &[String], variables: &[(&str, String)]) -> Vec<String> {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child_calls", "--ignored", "--nocapture"]).env("CHILD_URLS", urls.join(" "));
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir"] {
        command.env_remove(name).env_remove(name.to_ascii_uppercase());
    }
    command.envs(variables.iter().cloned());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let ours = |line: &&str| line.starts_with("answer ") || line.contains(" attempts ");
    text.lines().filter(ours).map(str::to_owned).collect()
}

fn bundle(name: &str, issuer: &Issuer) -> PathBuf {
    let file = std::env::temp_dir().join(format!("liter-llm-{}-{name}.pem", std::process::id()));
    std::fs::write(&file, issuer.pem()).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_29_three_bad_certificates_are_refused_and_an_own_authority_is_honoured() {
    let issuer = authority();
    let file = bundle("authority", &issuer);
    let servers = [
        tls_server(certificate(Some(&issuer), "127.0.0.1", true)).await,
        tls_server(certificate(Some(&issuer), "other.example", false)).await,
        tls_server(certificate(None, "127.0.0.1", false)).await,
        tls_server(certificate(Some(&issuer), "127.0.0.1", false)).await,
    ];
    let urls: Vec<String> = servers.iter().map(|(address, _)| format!("https://{address}/v1")).collect();
    let lines = calls_with(&urls, &[("SSL_CERT_FILE", file.display().to_string())]).await;
    std::fs::remove_file(file).unwrap();
    assert_eq!(lines.len(), 4, "{lines:?}");
    for line in &lines[..3] {
        assert!(line.starts_with("connection Some(Tls) retryable false attempts 1:"), "{line}");
    }
    assert_eq!(lines[3], "answer secure");
    for (_, count) in &servers {
        assert_eq!(count.load(Ordering::SeqCst), 1, "not tried again");
    }
    // Without the authority's certificate the good one is refused as well.
    let lines = calls_with(&urls[3..], &[]).await;
    assert!(lines[0].starts_with("connection Some(Tls) retryable false"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_29_the_proxy_is_asked_for_a_tunnel_and_sees_no_credential() {
    let issuer = authority();
    let file = bundle("proxy", &issuer);
    let (address, count) = tls_server(certificate(Some(&issuer), "127.0.0.1", false)).await;
    let urls = [format!("https://{address}/v1")];
    let (proxy, heads) = tunnel_proxy().await;
    let authority = ("SSL_CERT_FILE", file.display().to_string());
    for (variable, value, asked) in [
        ("HTTPS_PROXY", format!("http://{proxy}"), 1),
        ("https_proxy", format!("http://{proxy}"), 1),
        ("ALL_PROXY", format!("http://{proxy}"), 1),
        ("HTTPS_PROXY", format!("http://someone:own-password@{proxy}"), 1),
        ("HTTP_PROXY", format!("http://{proxy}"), 0),
    ] {
        heads.lock().unwrap().clear();
        let lines = calls_with(&urls, &[authority.clone(), (variable, value.clone())]).await;
        assert_eq!(lines, ["answer secure"], "{variable}={value}");
        let heads = heads.lock().unwrap();
        assert_eq!(heads.len(), asked, "{variable}={value}: {heads:?}");
        for head in heads.iter() {
            assert!(head.starts_with(&format!("CONNECT {address} ")), "{head}");
            let lower = head.to_ascii_lowercase();
            assert!(!lower.contains("sesame") && !lower.contains("\r\nauthorization"), "{head}");
            assert_eq!(lower.contains("proxy-authorization: basic"), value.contains('@'), "{head}");
        }
    }
    heads.lock().unwrap().clear();
    for excepted in ["127.0.0.1", "127.0.0.0/8", "*"] {
        let variables = [
            authority.clone(),
            ("HTTPS_PROXY", format!("http://{proxy}")),
            ("NO_PROXY", excepted.to_owned()),
        ];
        assert_eq!(calls_with(&urls, &variables).await, ["answer secure"], "{excepted}");
        assert!(heads.lock().unwrap().is_empty(), "NO_PROXY={excepted}");
    }
    assert_eq!(count.load(Ordering::SeqCst), 8);
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn row_29_an_untrusted_certificate_is_a_connection_error_of_the_tls_phase() {
    let (address, count) = tls_server(certificate(None, "127.0.0.1", false)).await;
    let base_url = format!("https://{address}/v1");
    let error = client(&base_url).generate(LlmRequest::new().with_prompt("x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection);
    assert!(error.to_string().contains("certificate"), "{error}");
    assert_eq!(count.load(Ordering::SeqCst), 1);
}
