//! Proxies, the environment's among them, and a machine without root certificates.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use liter_llm::{ErrorKind, FailurePhase};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::servers::*;

/// A proxy that opens tunnels; also returns the heads of the requests made to it.
async fn tunnel_proxy() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    let address = server(move |stream| {
        let seen = seen.clone();
        async move {
            let mut client = BufReader::new(stream);
            let head = read_request(&mut client).await.unwrap();
            let target = head.split(' ').nth(1).unwrap().to_owned();
            seen.lock().unwrap().push(head);
            if target.starts_with("denied") || target.starts_with("http:") {
                let _ = client.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await;
                return;
            }
            let mut host = TcpStream::connect(target).await.unwrap();
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut client, &mut host).await;
        }
    })
    .await;
    (address, heads)
}

#[tokio::test]
async fn the_proxy_sees_no_credential() {
    let (address, pem) = tls_server(&["127.0.0.1"]).await;
    let (proxy, heads) = tunnel_proxy().await;
    let file = std::env::temp_dir().join(format!("liter-llm-{}-proxy.pem", std::process::id()));
    std::fs::write(&file, pem).unwrap();
    let transport = with(|options| {
        options.proxy = Some(format!("http://{proxy}"));
        options.ca_bundle = Some(file.clone());
    });
    std::fs::remove_file(file).unwrap();
    let got = post(&transport, &format!("https://{address}/secret/path")).await.unwrap();
    assert_eq!(got.body.collect(None, None).await.unwrap(), "secure");
    let heads = heads.lock().unwrap();
    assert_eq!(heads.len(), 1);
    assert!(heads[0].starts_with(&format!("CONNECT {address} ")), "{heads:?}");
    let head = heads[0].to_ascii_lowercase();
    assert!(
        !head.contains("authorization") && !head.contains("sesame") && !head.contains("secret"),
        "{head}"
    );
}

#[tokio::test]
async fn a_proxy_that_refuses_or_is_gone_is_named_as_such() {
    let (proxy, _) = tunnel_proxy().await;
    let transport = with(|options| options.proxy = Some(format!("http://{proxy}")));
    let error = post(&transport, "https://denied.example/secret/path").await.unwrap_err();
    assert_failure(&error, ErrorKind::Connection, FailurePhase::Proxy);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = listener.local_addr().unwrap();
    drop(listener);
    for scheme in ["http", "socks5h"] {
        let transport = with(|options| options.proxy = Some(format!("{scheme}://user:sesame@{gone}")));
        let error = post(&transport, "https://api.example/secret/path").await.unwrap_err();
        assert_failure(&error, ErrorKind::Connection, FailurePhase::Proxy);
    }
}

/// Run by the tests below as a process of its own, with an environment made for it.
#[tokio::test]
#[ignore = "needs an environment made for it"]
async fn child_posts() {
    let urls = std::env::var("CHILD_URLS").unwrap();
    let transport = with(|options| options.connect_timeout = Duration::from_secs(5));
    for url in urls.split(' ') {
        match post(&transport, url).await {
            Ok(got) => println!("answer {}", got.status),
            Err(error) => println!("{:?}: {error}", error.detail().phase.unwrap()),
        }
    }
}

/// Posts to each URL in a process with these variables and no other proxy settings; returns what it printed.
async fn posts_with(urls: String, variables: &[(&str, String)]) -> String {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "proxies::child_posts", "--ignored", "--nocapture"]).env("CHILD_URLS", urls);
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUEST_METHOD"] {
        command.env_remove(name).env_remove(name.to_ascii_uppercase());
    }
    command.envs(variables.iter().cloned());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn proxy_variables_hold_also_for_this_machine() {
    let (proxy, heads) = tunnel_proxy().await;
    let (local, _) = fixed(answer("", b"local")).await;
    let (excepted, port) = ("https://denied-but-excepted.invalid/", local.port());
    let urls =
        format!("https://denied.example/secret/path {excepted} http://{local}/ http://localhost:{port}/");
    let variables = [
        ("HTTP_PROXY", format!("http://{proxy}")),
        ("HTTPS_PROXY", format!("http://{proxy}")),
        ("NO_PROXY", "denied-but-excepted.invalid,127.0.0.1".to_owned()),
    ];
    let printed = posts_with(urls, &variables).await;
    let heads = heads.lock().unwrap();
    assert_eq!(heads.len(), 2, "{heads:?}");
    assert!(heads[0].starts_with("CONNECT denied.example:443 ") && !heads[0].contains("sesame"), "{heads:?}");
    assert!(heads[1].starts_with(&format!("POST http://localhost:{port}/ ")), "{heads:?}");
    assert!(printed.contains("Proxy: ") && printed.contains("Dns: "), "{printed}");
    assert_eq!(printed.matches("answer 200").count(), 1, "{printed}");
    assert_eq!(printed.matches("answer 403").count(), 1, "{printed}");
}

#[tokio::test]
async fn without_root_certificates_plain_http_works_and_tls_is_refused() {
    let (plain, _) = fixed(answer("", b"plain")).await;
    let (secure, _) = tls_server(&["127.0.0.1"]).await;
    let variables = [("SSL_CERT_FILE", "no/such.pem".to_owned()), ("SSL_CERT_DIR", "no/such".to_owned())];
    let printed = posts_with(format!("http://{plain}/ https://{secure}/"), &variables).await;
    assert!(printed.contains("answer 200") && printed.contains("Tls: "), "{printed}");
    assert!(printed.contains("No CA certificates"), "{printed}");
}
