//! Static credentials, the Azure token flows and the choice between them, against a token service made of closures.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::header::HeaderName;
use liter_llm::credentials::{
    Clock, Credential, EntraOptions, KeyOrigin, SecretKey, StaticCredential, TokenHttp, azure_credential,
    entra,
};
use liter_llm::{ErrorKind, LlmError, async_trait};

fn key(value: &str) -> SecretKey {
    SecretKey::new(value, "api_key", KeyOrigin::Argument).unwrap()
}

/// A clock that stands still; sleeping is noted and takes no time.
struct TestClock {
    start: Instant,
    slept: Mutex<Vec<Duration>>,
}

impl TestClock {
    fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), slept: Mutex::default() })
    }
}

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> Instant {
        self.start
    }

    fn wall(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000)
    }

    async fn sleep(&self, duration: Duration) {
        self.slept.lock().unwrap().push(duration);
    }
}

#[tokio::test]
async fn static_credentials_set_their_header_and_hide_it() {
    let cases = [
        (StaticCredential::bearer(&key("canary")).unwrap(), Some(("authorization", "Bearer canary"))),
        (
            StaticCredential::header(HeaderName::from_static("x-api-key"), &key("canary")).unwrap(),
            Some(("x-api-key", "canary")),
        ),
        (StaticCredential::none(), None),
    ];
    for (credential, expected) in cases {
        let mut headers = HeaderMap::new();
        if let Some((name, _)) = expected {
            headers.insert(name, "old".parse().unwrap());
        }
        credential.authorize(&mut headers).await.unwrap();
        assert_eq!(credential.static_headers(), Some(&headers));
        assert_eq!(headers.len(), usize::from(expected.is_some()));
        for (name, value) in &headers {
            assert_eq!(expected, Some((name.as_str(), value.to_str().unwrap())));
            assert!(value.is_sensitive());
        }
        assert!(!credential.refresh_after_rejection().await);
        assert!(!format!("{credential:?} {headers:?} {}", credential.describe()).contains("canary"));
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Sent {
    method: &'static str,
    url: String,
    headers: Vec<(&'static str, String)>,
    body: Option<String>,
}

/// A token service: answers in order, the last one over and over.
struct TestHttp {
    sent: Mutex<Vec<Sent>>,
    answers: Mutex<VecDeque<(u16, String)>>,
}

impl TestHttp {
    fn new(answers: &[(u16, &str)]) -> Arc<Self> {
        let answers = answers.iter().map(|(status, body)| (*status, (*body).to_owned())).collect();
        Arc::new(Self { sent: Mutex::default(), answers: Mutex::new(answers) })
    }

    fn sent(&self) -> Vec<Sent> {
        self.sent.lock().unwrap().clone()
    }
}

#[async_trait]
impl TokenHttp for TestHttp {
    async fn send(
        &self,
        method: &'static str,
        url: &str,
        headers: &[(&'static str, String)],
        body: Option<String>,
    ) -> Result<(u16, Vec<u8>), LlmError> {
        self.sent.lock().unwrap().push(Sent { method, url: url.to_owned(), headers: headers.to_vec(), body });
        let mut answers = self.answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        let (status, body) =
            answer.ok_or_else(|| LlmError::new(ErrorKind::Connection, "connection refused"))?;
        Ok((status, body.into_bytes()))
    }
}

const GRANTED: (u16, &str) =
    (200, r#"{"token_type":"Bearer","expires_in":3599,"ext_expires_in":3599,"access_token":"canary-token"}"#);

type Variables<'a> = &'a [(&'a str, &'a str)];
type Built = Result<Arc<dyn Credential>, LlmError>;

fn build(key: Option<SecretKey>, options: &EntraOptions, env: Variables<'_>, http: &Arc<TestHttp>) -> Built {
    let env: HashMap<String, String> =
        env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    entra::azure_credential_at(key, options, &|name| env.get(name).cloned(), http.clone(), TestClock::new())
}

fn options(json: serde_json::Value) -> EntraOptions {
    serde_json::from_value(json).unwrap()
}

async fn authorization(credential: &dyn Credential) -> Result<String, LlmError> {
    let mut headers = HeaderMap::new();
    credential.authorize(&mut headers).await?;
    let value = headers.get("authorization").or_else(|| headers.get("api-key")).unwrap();
    assert!(value.is_sensitive());
    Ok(value.to_str().unwrap().to_owned())
}

fn form_headers() -> Vec<(&'static str, String)> {
    vec![("content-type", "application/x-www-form-urlencoded".into()), ("accept", "application/json".into())]
}

/// A file with this text, removed by whoever made it.
fn file_with(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("liter-llm-{}-{name}", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn a_client_secret_becomes_a_form() {
    let http = TestHttp::new(&[GRANTED]);
    let given = options(serde_json::json!({
        "tenant_id": "contoso.example", "client_id": "app-1", "client_secret": "can~ary+/=& secret"
    }));
    let credential = build(None, &given, &[], &http).unwrap();
    assert!(credential.static_headers().is_none());
    assert!(http.sent().is_empty(), "nothing is sent before the first call");
    for _ in 0..3 {
        assert_eq!(authorization(&*credential).await.unwrap(), "Bearer canary-token");
    }
    let expected = Sent {
        method: "POST",
        url: "https://login.microsoftonline.com/contoso.example/oauth2/v2.0/token".into(),
        headers: form_headers(),
        body: Some(
            "client_id=app-1&scope=https%3A%2F%2Fcognitiveservices.azure.com%2F.default\
             &client_secret=can~ary%2B%2F%3D%26%20secret&grant_type=client_credentials"
                .into(),
        ),
    };
    assert_eq!(http.sent(), [expected]);
    assert!(credential.refresh_after_rejection().await);
    authorization(&*credential).await.unwrap();
    assert_eq!(http.sent().len(), 2);
}

#[tokio::test]
async fn the_federated_token_file_is_read_for_each_token() {
    let http = TestHttp::new(&[GRANTED]);
    let file = file_with("federated", "assertion.one\n");
    let path = file.to_str().unwrap();
    let env = [
        ("AZURE_TENANT_ID", "tenant-1"),
        ("AZURE_CLIENT_ID", "app-1"),
        ("AZURE_FEDERATED_TOKEN_FILE", path),
        ("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.us/"),
        ("AZURE_CLIENT_SECRET", ""),
    ];
    let credential = build(None, &EntraOptions::default(), &env, &http).unwrap();
    authorization(&*credential).await.unwrap();
    std::fs::write(&file, "assertion.two").unwrap();
    assert!(credential.refresh_after_rejection().await);
    authorization(&*credential).await.unwrap();
    let body = |assertion: &str| {
        Some(format!(
            "client_id=app-1&scope=https%3A%2F%2Fcognitiveservices.azure.com%2F.default&client_assertion_type=\
             urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion={assertion}\
             &grant_type=client_credentials"
        ))
    };
    let sent = http.sent();
    assert_eq!(sent[0].url, "https://login.microsoftonline.us/tenant-1/oauth2/v2.0/token");
    assert_eq!((sent[0].method, &sent[0].headers), ("POST", &form_headers()));
    assert_eq!([&sent[0].body, &sent[1].body], [&body("assertion.one"), &body("assertion.two")]);

    std::fs::remove_file(&file).unwrap();
    let again = build(None, &EntraOptions::default(), &env, &http).unwrap();
    let error = authorization(&*again).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains(path));
}

#[tokio::test]
async fn a_managed_identity_asks_the_metadata_service() {
    // The metadata service writes its numbers as strings.
    let granted = (200, r#"{"access_token":"canary-token","expires_in":"3599","expires_on":"1003599"}"#);
    for (env, client_id, url) in [
        (
            vec![],
            None,
            "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01\
             &resource=https%3A%2F%2Fcognitiveservices.azure.com%2F",
        ),
        (
            vec![("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:8080/")],
            Some("id 1"),
            "http://127.0.0.1:8080/metadata/identity/oauth2/token?api-version=2018-02-01\
             &resource=https%3A%2F%2Fcognitiveservices.azure.com%2F&client_id=id%201",
        ),
    ] {
        let http = TestHttp::new(&[granted]);
        let given = EntraOptions {
            managed_identity: true,
            client_id: client_id.map(str::to_owned),
            ..EntraOptions::default()
        };
        let credential = build(None, &given, &env, &http).unwrap();
        assert_eq!(authorization(&*credential).await.unwrap(), "Bearer canary-token");
        let headers = vec![("metadata", "true".to_owned()), ("accept", "application/json".to_owned())];
        assert_eq!(http.sent(), [Sent { method: "GET", url: url.into(), headers, body: None }]);
    }
}

#[tokio::test]
async fn app_service_has_its_own_identity_endpoint() {
    let http = TestHttp::new(&[(200, r#"{"access_token":"canary-token","expires_on":"1003600"}"#)]);
    let env =
        [("IDENTITY_ENDPOINT", "http://127.0.0.1:41741/msi/token"), ("IDENTITY_HEADER", "canary-header")];
    let credential = build(None, &EntraOptions::default(), &env, &http).unwrap();
    assert_eq!(authorization(&*credential).await.unwrap(), "Bearer canary-token");
    let expected = Sent {
        method: "GET",
        url: "http://127.0.0.1:41741/msi/token?api-version=2019-08-01\
              &resource=https%3A%2F%2Fcognitiveservices.azure.com%2F"
            .into(),
        headers: vec![("x-identity-header", "canary-header".into()), ("accept", "application/json".into())],
        body: None,
    };
    assert_eq!(http.sent(), [expected]);
    let arc = EntraOptions { managed_identity: true, ..EntraOptions::default() };
    assert!(build(None, &arc, &env[..1], &http).is_err_and(|error| error.kind() == ErrorKind::Config));
}

#[tokio::test]
async fn the_metadata_service_is_asked_again_while_it_is_away() {
    let managed = EntraOptions { managed_identity: true, ..EntraOptions::default() };
    let http = TestHttp::new(&[(404, ""), (410, ""), (429, ""), (503, "busy"), GRANTED]);
    let clock = TestClock::new();
    let credential =
        entra::azure_credential_at(None, &managed, &|_| None, http.clone(), clock.clone()).unwrap();
    authorization(&*credential).await.unwrap();
    assert_eq!(http.sent().len(), 5);
    assert_eq!(*clock.slept.lock().unwrap(), [1, 2, 4, 8].map(Duration::from_secs));

    let http = TestHttp::new(&[(503, "busy")]);
    let error = authorization(&*build(None, &managed, &[], &http).unwrap()).await.unwrap_err();
    assert!(error.is_retryable() && http.sent().len() == 5);

    let http =
        TestHttp::new(&[(400, r#"{"error":"invalid_request","error_description":"Identity not found"}"#)]);
    let error = authorization(&*build(None, &managed, &[], &http).unwrap()).await.unwrap_err();
    assert_eq!(http.sent().len(), 1);
    assert!(!error.is_retryable());
    assert!(error.to_string().contains("invalid_request: Identity not found"), "{error}");

    let http = TestHttp::new(&[]);
    let error = authorization(&*build(None, &managed, &[], &http).unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection);
    assert!(error.to_string().contains("is this a machine in Azure?"), "{error}");
}

#[tokio::test]
async fn a_refusal_carries_microsofts_words_and_no_secret() {
    let refusal = r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided: canary+secret, canary%2Bsecret. Trace ID: trace-1 Correlation ID: c-1","error_codes":[7000215],"trace_id":"trace-1","correlation_id":"c-1"}"#;
    let given = options(serde_json::json!({
        "tenant_id": "t-1", "client_id": "app-1", "client_secret": "canary+secret"
    }));
    let cases = [
        ((401, refusal), ErrorKind::Authentication, false),
        ((400, "canary+secret"), ErrorKind::Authentication, false),
        ((503, "<html>canary+secret</html>"), ErrorKind::Authentication, true),
        ((200, r#"{"access_token":"canary\ntoken"}"#), ErrorKind::Decode, false),
        ((200, r#"{"access_token":["canary"]}"#), ErrorKind::Decode, false),
        ((200, "canary"), ErrorKind::Decode, false),
    ];
    for (answer, kind, retryable) in cases {
        let http = TestHttp::new(&[answer]);
        let credential = build(None, &given, &[], &http).unwrap();
        let error = authorization(&*credential).await.unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (kind, retryable), "{error}");
        let json = serde_json::to_string(&error).unwrap();
        let shown = format!("{error} {error:?} {json} {} {given:?}", credential.describe());
        assert!(!shown.contains("canary"), "{shown}");
        assert!(!serde_json::to_string(&given).unwrap().contains("canary"));
        if answer.1 == refusal {
            assert_eq!(
                error.to_string(),
                "the token service at login.microsoftonline.com refused: invalid_client: AADSTS7000215: Invalid \
                 client secret provided: ***, ***. (status 401, request id trace-1)"
            );
            assert_eq!(error.detail().code.as_deref(), Some("AADSTS7000215"));
        }
    }
}

#[tokio::test]
async fn the_choice_follows_what_is_given() {
    let http = TestHttp::new(&[GRANTED]);
    let none = EntraOptions::default();
    let fixed = options(serde_json::json!({ "azure_ad_token": "ready-token" }));
    let from_env =
        SecretKey::new("env-key", "api_key", KeyOrigin::Environment("AZURE_OPENAI_API_KEY".into()));
    let application = [
        ("AZURE_TENANT_ID", "t-1"),
        ("AZURE_CLIENT_ID", "app-1"),
        ("AZURE_CLIENT_SECRET", "secret"),
        ("AZURE_OPENAI_API_KEY", "env-key"),
    ];
    let cases: [(Option<SecretKey>, &EntraOptions, Variables<'_>, &str); 6] = [
        (Some(key("given-key")), &none, &application, "given-key"),
        (None, &none, &application, "env-key"),
        (None, &none, &application[..3], "Bearer canary-token"),
        (None, &fixed, &application, "Bearer ready-token"),
        (Some(from_env.unwrap()), &fixed, &application, "Bearer ready-token"),
        (None, &none, &[("AZURE_OPENAI_AD_TOKEN", "env-token")], "Bearer env-token"),
    ];
    for (key, options, env, expected) in cases {
        let credential = build(key, options, env, &http).unwrap();
        assert_eq!(authorization(&*credential).await.unwrap(), expected);
        let described = credential.describe();
        assert!(!described.contains(expected.trim_start_matches("Bearer ")), "{described}");
    }
    // Application options are completed from the environment.
    let tenant = options(serde_json::json!({ "tenant_id": "t-2" }));
    let credential = build(None, &tenant, &application, &http).unwrap();
    authorization(&*credential).await.unwrap();
    assert!(http.sent().last().unwrap().url.contains("/t-2/"));
}

#[test]
fn half_given_sets_are_refused_by_name() {
    use serde_json::json;
    let http = TestHttp::new(&[]);
    let cases: [(serde_json::Value, Variables<'_>, &[&str]); 13] = [
        (json!({}), &[], &["AZURE_OPENAI_API_KEY", "managed_identity"]),
        (
            json!({"client_id": "a"}),
            &[],
            &["`tenant_id`", "AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE"],
        ),
        (json!({"client_id": "a", "tenant_id": "t"}), &[], &["`client_secret`"]),
        (json!({"client_secret": "s"}), &[], &["`tenant_id`", "`client_id`"]),
        (json!({"federated_token_file": "f", "client_id": "a"}), &[], &["`tenant_id`"]),
        (json!({}), &[("AZURE_CLIENT_SECRET", "s")], &["AZURE_TENANT_ID", "AZURE_CLIENT_ID"]),
        (json!({}), &[("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "a")], &["AZURE_CLIENT_SECRET"]),
        (json!({}), &[("AZURE_CLIENT_SECRET", "s\n")], &["AZURE_CLIENT_SECRET", "line break"]),
        (
            json!({"azure_ad_token": "x", "managed_identity": true}),
            &[],
            &["azure_ad_token", "managed_identity"],
        ),
        (json!({"tenant_id": "../x", "client_id": "a", "client_secret": "s"}), &[], &["`tenant_id`"]),
        (
            json!({"tenant_id": "t", "client_id": "a", "client_secret": "s", "authority_host": "http://evil.example"}),
            &[],
            &["authority_host", "https"],
        ),
        (
            json!({"tenant_id": "t", "client_id": "a", "client_secret": "s"}),
            &[("AZURE_AUTHORITY_HOST", "https://user@evil.example")],
            &["AZURE_AUTHORITY_HOST"],
        ),
        (json!({}), &[("AZURE_OPENAI_API_KEY", "k\u{e9}y")], &["AZURE_OPENAI_API_KEY", "ASCII"]),
    ];
    for (given, env, words) in cases {
        let error = build(None, &options(given.clone()), env, &http).err().expect("refused");
        // Nothing at all is a missing key; a half-given set is a configuration that cannot work.
        let nothing = given == json!({}) && env.is_empty();
        assert_eq!(error.kind(), if nothing { ErrorKind::Authentication } else { ErrorKind::Config });
        assert!(error.detail().before_send);
        for word in words {
            assert!(error.to_string().contains(word), "{given} {env:?}: {error}");
        }
    }
    let fixed = options(json!({"azure_ad_token": "x"}));
    let error = build(Some(key("k")), &fixed, &[], &http).err().expect("refused");
    assert!(error.to_string().contains("give one of them"));
    for secret in [json!("canary\n"), json!({"value": "canary"}), json!(["canary"])] {
        let error = serde_json::from_value::<EntraOptions>(json!({"client_secret": secret})).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("client_secret") && !text.contains("canary"), "{text}");
    }
    for host in ["http://localhost:9", "http://127.0.0.1:9", "http://[::1]:9", "login.example.com"] {
        let given = json!({"tenant_id": "t", "client_id": "a", "client_secret": "s", "authority_host": host});
        assert!(azure_credential(None, &options(given), &|_| None, http.clone()).is_ok(), "{host}");
    }
}
