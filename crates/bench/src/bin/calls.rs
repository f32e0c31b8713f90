//! Calls a second and CPU a call: the engine's client beside the bare HTTP clients, in one run, against a server that
//! runs already (the simulator in a process of its own).
//!
//! `calls --url http://127.0.0.1:8089/openai/v1 [--rounds 5] [--calls 5000] [--concurrency 100] [--clients a,b]`
//! prints one line of JSON per client. Rounds are interleaved; the figures are medians over rounds. CPU is user plus
//! system time of all threads of this process.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use liter_llm::{Client, LlmProvider, LlmRequest, ProviderConfig};
use liter_llm_bench::inputs;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Outcome = Result<usize, Failure>;

/// One way to make the call; gives the length of the answer's body or text.
trait Caller: Send + Sync {
    fn call(&self) -> BoxFuture<'_, Outcome>;
}

/// What the other clients send: the bytes and headers the engine sends for the same request.
struct Wire {
    url: String,
    body: Bytes,
}

const KEY: &str = "sk-measured";
const MODEL: &str = "gpt-4o-mini";

struct Engine {
    client: Client,
    request: LlmRequest,
}

impl Caller for Engine {
    fn call(&self) -> BoxFuture<'_, Outcome> {
        Box::pin(async { Ok(self.client.generate(self.request.clone()).await?.raw.len()) })
    }
}

/// The engine between two language borders: JSON in, JSON out.
struct EngineJson {
    client: Client,
    request: Vec<u8>,
}

impl Caller for EngineJson {
    fn call(&self) -> BoxFuture<'_, Outcome> {
        Box::pin(async {
            let request = LlmRequest::from_json(&self.request)?;
            Ok(serde_json::to_vec(&self.client.generate(request).await?)?.len())
        })
    }
}

struct Reqwest {
    client: reqwest::Client,
    url: reqwest::Url,
    body: Bytes,
}

impl Caller for Reqwest {
    fn call(&self) -> BoxFuture<'_, Outcome> {
        Box::pin(async {
            let sent = self.client.post(self.url.clone()).bearer_auth(KEY);
            let sent = sent.header("content-type", "application/json").header("accept", "application/json");
            let answer = sent.body(self.body.clone()).send().await?.error_for_status()?;
            Ok(answer.bytes().await?.len())
        })
    }
}

struct Hyper {
    client: HyperClient<HttpConnector, Full<Bytes>>,
    wire: Wire,
}

impl Caller for Hyper {
    fn call(&self) -> BoxFuture<'_, Outcome> {
        Box::pin(async {
            let request = http::Request::post(&self.wire.url)
                .header("content-type", "application/json")
                .header("accept", "application/json")
                .header("authorization", format!("Bearer {KEY}"))
                .body(Full::new(self.wire.body.clone()))?;
            let answer = self.client.request(request).await?;
            Ok(answer.into_body().collect().await?.to_bytes().len())
        })
    }
}

/// User plus system time of this process so far.
fn cpu() -> Result<Duration, Failure> {
    #[cfg(unix)]
    {
        use nix::sys::resource::{UsageWho, getrusage};
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        let micros = |time: nix::sys::time::TimeVal| {
            time.tv_sec().unsigned_abs() * 1_000_000 + time.tv_usec().unsigned_abs()
        };
        Ok(Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time())))
    }
    #[cfg(not(unix))]
    Err("CPU time is measured on Unix only".into())
}

/// Lets the process open as many sockets as it may.
fn raise_file_limit() {
    #[cfg(unix)]
    {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
            // Where it fails, the run says so itself by the first refused socket.
            let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
        }
    }
}

/// Entries of a folder under `/proc/self` (open files, threads); none where there is no such folder.
fn entries(folder: &str) -> Option<usize> {
    std::fs::read_dir(format!("/proc/self/{folder}")).ok().map(Iterator::count)
}

#[derive(Clone)]
struct Options {
    url: String,
    rounds: usize,
    calls: usize,
    concurrency: usize,
    request: String,
    only: Vec<String>,
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, Failure> {
    let mut options = Options {
        url: String::new(),
        rounds: 5,
        calls: 5000,
        concurrency: 100,
        request: inputs::SMALL_REQUEST.to_owned(),
        only: Vec::new(),
    };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--url" => options.url = value,
            "--rounds" => options.rounds = value.parse()?,
            "--calls" => options.calls = value.parse()?,
            "--concurrency" => options.concurrency = value.parse()?,
            "--request" => options.request = std::fs::read_to_string(value)?,
            "--clients" => options.only = value.split(',').map(str::to_owned).collect(),
            other => return Err(format!("unknown option {other}").into()),
        }
    }
    if options.url.is_empty() || options.rounds == 0 || options.concurrency == 0 || options.calls == 0 {
        return Err("give --url; rounds, calls and concurrency are one or more".into());
    }
    Ok(options)
}

/// A client with its name in the results.
type Named = (&'static str, Arc<dyn Caller>);

fn callers(options: &Options) -> Result<Vec<Named>, Failure> {
    let request = LlmRequest::from_json(options.request.as_bytes())?;
    let adapter = liter_llm::adapters::by_name("openai_chat")?;
    // What the engine's own row for OpenAI changes, so that all clients send the same bytes.
    let row = liter_llm::providers::row("openai")?;
    let target =
        liter_llm::adapters::Target { provider: "openai", model: MODEL, quirks: &row.quirks, stream: false };
    let encoded = adapter.encode(&request, &target)?;
    let body = Bytes::from(encoded.body);
    let url = format!("{}{}", options.url, encoded.path);
    let engine = || -> Result<Client, Failure> {
        let mut config = ProviderConfig::parse(&format!("openai/{MODEL}"))?;
        config.base_url = Some(options.url.clone());
        config.api_key = Some(KEY.into());
        Ok(Client::new(config)?)
    };
    let bare = reqwest::Client::builder().http1_only().tcp_nodelay(true).no_proxy().build()?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let hyper = HyperClient::builder(hyper_util::rt::TokioExecutor::new()).build(connector);
    let all: Vec<Named> = vec![
        ("hyper", Arc::new(Hyper { client: hyper, wire: Wire { url: url.clone(), body: body.clone() } })),
        ("reqwest", Arc::new(Reqwest { client: bare, url: url.parse()?, body })),
        ("engine", Arc::new(Engine { client: engine()?, request })),
        ("engine_json", Arc::new(EngineJson { client: engine()?, request: options.request.clone().into() })),
    ];
    Ok(all
        .into_iter()
        .filter(|(name, _)| options.only.is_empty() || options.only.iter().any(|o| o == name))
        .collect())
}

struct Round {
    cpu_us: f64,
    per_second: f64,
}

async fn round(caller: &Arc<dyn Caller>, calls: usize, concurrency: usize) -> Result<Round, Failure> {
    let (begun, before) = (Instant::now(), cpu()?);
    let taken = Arc::new(AtomicUsize::new(0));
    let workers: Vec<_> = (0..concurrency.min(calls))
        .map(|_| {
            let (caller, taken) = (Arc::clone(caller), Arc::clone(&taken));
            tokio::spawn(async move {
                while taken.fetch_add(1, Ordering::Relaxed) < calls {
                    if caller.call().await? == 0 {
                        return Err("an empty answer".into());
                    }
                }
                Ok::<(), Failure>(())
            })
        })
        .collect();
    for worker in workers {
        worker.await??;
    }
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    let count = calls as f64;
    Ok(Round {
        cpu_us: (cpu()? - before).as_secs_f64() * 1e6 / count,
        per_second: count / begun.elapsed().as_secs_f64(),
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

async fn measure(options: &Options) -> Result<(), Failure> {
    let callers = callers(options)?;
    let mut sockets = Vec::new();
    // The first round warms up and counts what stays open after it: the pool.
    for (_, caller) in &callers {
        let before = entries("fd").unwrap_or(0);
        round(caller, options.calls, options.concurrency).await?;
        sockets.push(entries("fd").unwrap_or(0).saturating_sub(before));
    }
    let mut rounds: Vec<Vec<Round>> = callers.iter().map(|_| Vec::new()).collect();
    for _ in 0..options.rounds {
        for ((_, caller), rounds) in callers.iter().zip(&mut rounds) {
            rounds.push(round(caller, options.calls, options.concurrency).await?);
        }
    }
    for (((name, _), rounds), sockets) in callers.iter().zip(rounds).zip(sockets) {
        let line = serde_json::json!({
            "client": name,
            "cpu_us": median(rounds.iter().map(|round| round.cpu_us).collect()),
            "per_second": median(rounds.iter().map(|round| round.per_second).collect()),
            "sockets": sockets,
            "threads": entries("task"),
            "calls": options.calls,
            "concurrency": options.concurrency,
        });
        println!("{line}");
    }
    Ok(())
}

fn main() -> ExitCode {
    raise_file_limit();
    let outcome = options(std::env::args().skip(1)).and_then(|options| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(measure(&options))
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("calls: {error}");
            ExitCode::from(2)
        }
    }
}
