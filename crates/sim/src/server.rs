//! The server: threads, connections, and the way of a request from route and rules to its answer.

use std::cell::OnceCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::answer::{Hash, letters};
use crate::cache::PromptCache;
use crate::config::SimConfig;
use crate::faults;
use crate::http::{Conn, Gone, ReadError, Request};
use crate::identity::Identity;
use crate::log::{Outcome, RequestLog};
use crate::reply::Reply;
use crate::responses::ResponseStore;
use crate::route::{Endpoint, Route, route};
use crate::rules::{ArmedRule, Rule, Subject};
use crate::vendor::{Answered, Dialect, VendorError, standing_headers};
use crate::{anthropic, azure, check, control, models, openai_chat, responses, websocket};

/// What all connections share.
pub(crate) struct Shared {
    pub config: SimConfig,
    pub log: RequestLog,
    pub cache: PromptCache,
    pub identity: Identity,
    pub responses: ResponseStore,
    pub opened: AtomicU64,
    pub open: AtomicU64,
    pub served: AtomicU64,
    rules: RwLock<Arc<Vec<Arc<ArmedRule>>>>,
    any_rules: AtomicBool,
}

impl Shared {
    pub(crate) fn new(config: SimConfig) -> Self {
        let shared = Self {
            log: RequestLog::new(config.log_requests, config.log_capacity),
            cache: PromptCache::default(),
            identity: Identity::new(config.token_lifetime_seconds),
            responses: ResponseStore::default(),
            opened: AtomicU64::new(0),
            open: AtomicU64::new(0),
            served: AtomicU64::new(0),
            rules: RwLock::new(Arc::new(Vec::new())),
            any_rules: AtomicBool::new(false),
            config,
        };
        shared.set_rules(shared.config.rules.clone());
        shared
    }

    pub(crate) fn set_rules(&self, rules: Vec<Rule>) {
        let armed: Vec<_> =
            rules.into_iter().enumerate().map(|(i, r)| Arc::new(ArmedRule::new(r, i))).collect();
        self.any_rules.store(!armed.is_empty(), Ordering::Release);
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(armed);
    }

    pub(crate) fn add_rule(&self, rule: Rule) {
        let mut guard = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        let mut list = guard.as_ref().clone();
        list.push(Arc::new(ArmedRule::new(rule, list.len())));
        *guard = Arc::new(list);
        self.any_rules.store(true, Ordering::Release);
    }

    pub(crate) fn rules(&self) -> Arc<Vec<Arc<ArmedRule>>> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether there are rules at all; without them requests need not be read for matching.
    pub(crate) fn has_rules(&self) -> bool {
        self.any_rules.load(Ordering::Acquire)
    }

    /// The first rule of those that `may` apply that fires.
    pub(crate) fn rule_where(
        &self,
        subject: &Subject<'_>,
        may: impl Fn(&Rule) -> bool,
    ) -> Option<Arc<ArmedRule>> {
        let rules = self.rules();
        rules.iter().find(|armed| may(&armed.rule) && armed.fires(subject)).cloned()
    }
}

/// A request on its way to an answer.
pub(crate) struct Call<'a> {
    pub request: &'a Request,
    pub provider: &'a str,
    pub dialect: Dialect,
    pub deployment: Option<&'a str>,
    /// Number of the request, for ids that differ.
    pub serial: u64,
    parsed: OnceCell<Answered<Value>>,
}

impl<'a> Call<'a> {
    pub(crate) fn new(request: &'a Request, route: &'a Route, serial: u64) -> Self {
        Self {
            request,
            provider: &route.provider,
            dialect: route.dialect,
            deployment: route.deployment.as_deref(),
            serial,
            parsed: OnceCell::new(),
        }
    }

    /// The body as a JSON object.
    pub(crate) fn body(&self) -> Answered<&Value> {
        self.parsed.get_or_init(|| check::body(&self.request.body)).as_ref().map_err(Clone::clone)
    }

    /// The model asked for, where the body names one.
    pub(crate) fn model(&self) -> &str {
        let named = self.body().ok().and_then(|b| b.get("model")).and_then(Value::as_str);
        self.deployment.or(named).unwrap_or("")
    }

    pub(crate) fn streaming(&self) -> bool {
        self.body().ok().and_then(|b| b.get("stream")).and_then(Value::as_bool).unwrap_or(false)
    }

    /// The id of this request, in its vendor's form.
    pub(crate) fn request_id(&self) -> String {
        let text = letters(Hash::new("request").and(&self.serial.to_le_bytes()).0, 24);
        match self.dialect {
            Dialect::Azure | Dialect::Entra => {
                let hex = format!("{:032x}", u128::from(Hash::new(&text).0) << 64 | u128::from(self.serial));
                format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
            }
            _ => format!("req_{text}"),
        }
    }
}

/// Accepts connections until the runtime ends.
pub(crate) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        // An accept that fails (too many files, a client gone again) is tried anew.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            continue;
        };
        tokio::spawn(connection(stream, Arc::clone(&shared)));
    }
}

/// Counts a connection as open while it lives.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    // Without this small frames wait for acknowledgements; a socket that refuses it still works.
    let _ = stream.set_nodelay(true);
    let id = shared.opened.fetch_add(1, Ordering::Relaxed) + 1;
    shared.open.fetch_add(1, Ordering::Relaxed);
    let _open = Open(Arc::clone(&shared));
    let mut conn = Conn::new(stream, id);
    loop {
        let request = match conn.request(shared.config.max_body_bytes).await {
            Ok(request) => request,
            Err(ReadError::Gone) => return,
            Err(ReadError::Malformed(what)) => {
                let _ = conn.send(format!("HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{what}", what.len()).as_bytes()).await;
                return;
            }
            Err(ReadError::TooLarge) => {
                let _ = conn
                    .send(b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                    .await;
                return;
            }
        };
        let keep_alive = request.keep_alive;
        match serve(&mut conn, &shared, request).await {
            Ok(true) if keep_alive => {}
            _ => return,
        }
    }
}

/// Answers one request; true when the connection may go on.
async fn serve(conn: &mut Conn, shared: &Arc<Shared>, request: Request) -> Result<bool, Gone> {
    let route = route(&request);
    if let Endpoint::Control(command) = &route.endpoint {
        let reply = control::reply(shared, &request, command);
        return faults::deliver(conn, reply, None, std::time::Duration::ZERO, request.keep_alive).await;
    }
    let serial = shared.served.fetch_add(1, Ordering::Relaxed);
    let upgrade = request.header("upgrade").is_some_and(|v| v.eq_ignore_ascii_case("websocket"));
    if upgrade && route.endpoint == Endpoint::Responses {
        return websocket::serve(conn, shared, &request, &route, serial).await;
    }
    let call = Call::new(&request, &route, serial);
    let header = |name: &str| request.header(name);
    let rule = if shared.has_rules() {
        let subject = Subject {
            provider: &route.provider,
            method: request.method(),
            path: request.path(),
            model: call.model(),
            streaming: call.streaming(),
            body: &request.body,
            header: &header,
        };
        shared.rule_where(&subject, |_| true)
    } else {
        None
    };
    let number =
        shared.log.push(conn.id, &request, None, &route.provider, rule.as_ref().map(|r| r.id.as_str()));
    let fault = rule.as_ref().map(|r| &r.rule.fault);
    let result = faults::before(conn, fault, shared.config.response_delay).await;
    let result = match result {
        Err(Gone) => Err(Gone),
        Ok(false) => Ok(false),
        Ok(true) => {
            let model = call.model();
            let id = call.request_id();
            let mut reply = match fault
                .and_then(|f| faults::replacement(f, route.dialect, model, &id, call.streaming()))
            {
                Some(reply) => reply,
                None => answer(shared, &call, &route).unwrap_or_else(|error| error.reply(route.dialect, &id)),
            };
            standing_headers(&mut reply, route.dialect, &id, model);
            let fault = fault.map(|f| (f, route.dialect, route.endpoint == Endpoint::Responses));
            faults::deliver(conn, reply, fault, shared.config.token_interval, request.keep_alive).await
        }
    };
    shared.log.finish(number, if result.is_ok() { Outcome::Answered } else { Outcome::ClientClosed });
    result
}

/// The undisturbed answer.
fn answer(shared: &Shared, call: &Call<'_>, route: &Route) -> Answered<Reply> {
    match &route.endpoint {
        Endpoint::Token(tenant) => return shared.identity.token(call.request, tenant),
        Endpoint::Metadata => return shared.identity.metadata(call.request),
        Endpoint::ManagedIdentity => return shared.identity.managed(call.request),
        Endpoint::Unknown | Endpoint::Control(_) => return Err(not_found(call)),
        _ => {}
    }
    authorize(shared, call, route)?;
    let wanted = match route.endpoint {
        Endpoint::Models | Endpoint::Model(_) => "GET",
        Endpoint::Response(_) => call.request.method(),
        _ => "POST",
    };
    if call.request.method() != wanted {
        let message = format!("Not allowed to {} on {}.", call.request.method(), call.request.path());
        return Err(VendorError::new(405, "invalid_request_error", message));
    }
    match &route.endpoint {
        Endpoint::Chat => openai_chat::reply(shared, call),
        Endpoint::Messages => anthropic::reply(shared, call),
        Endpoint::CountTokens => anthropic::count(call),
        Endpoint::Responses => responses::reply(shared, call),
        Endpoint::Response(id) => responses::stored(shared, call, id),
        Endpoint::Models => Ok(models::list(call)),
        Endpoint::Model(id) => models::one(call, id),
        Endpoint::Embeddings => models::embeddings(call),
        _ => Err(not_found(call)),
    }
}

fn not_found(call: &Call<'_>) -> VendorError {
    if call.dialect == Dialect::Azure {
        return VendorError::new(404, "404", "Resource not found");
    }
    let kind = if call.dialect == Dialect::Anthropic { "not_found_error" } else { "invalid_request_error" };
    VendorError::new(404, kind, format!("Invalid URL ({} {})", call.request.method(), call.request.path()))
}

/// Checks the key as the vendor does.
pub(crate) fn authorize(shared: &Shared, call: &Call<'_>, route: &Route) -> Answered<()> {
    let keys = &shared.config.keys;
    let bearer = call
        .request
        .header("authorization")
        .and_then(|v| v.strip_prefix("Bearer "))
        .map(str::trim)
        .filter(|k| !k.is_empty());
    match route.dialect {
        Dialect::Azure => return azure::authorize(shared, call, route, bearer),
        Dialect::Anthropic => {
            let key = call.request.header("x-api-key").filter(|k| !k.is_empty()).or(bearer);
            return match key {
                Some(key) if keys.accepts(call.provider, key) => Ok(()),
                None if keys.keyless(call.provider) => Ok(()),
                Some(_) => Err(VendorError::new(401, "authentication_error", "invalid x-api-key")),
                None => Err(VendorError::new(401, "authentication_error", "x-api-key header is required")),
            };
        }
        _ => {}
    }
    match bearer {
        _ if keys.keyless(call.provider) => Ok(()),
        Some(key) if keys.accepts(call.provider, key) => Ok(()),
        Some(key) => {
            let shown: String = key.chars().take(4).chain("****".chars()).collect();
            let message = format!(
                "Incorrect API key provided: {shown}. You can find your API key at https://platform.openai.com/account/api-keys."
            );
            Err(VendorError::new(401, "invalid_request_error", message).code("invalid_api_key"))
        }
        None => Err(VendorError::new(
            401,
            "invalid_request_error",
            "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
        )),
    }
}

/// A JSON error of the control interface.
pub(crate) fn control_error(status: u16, message: &str) -> Reply {
    Reply::json(status, &json!({"error": message}))
}
