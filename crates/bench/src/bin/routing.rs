//! What routing adds to a call: CPU a call through a router of 1 to 100 deployments, for each policy, less that of the
//! same call through the retry loop alone. The deployments answer from memory; each has a real circuit, two tags, a
//! region and a price.
//!
//! `routing [--calls 20000] [--rounds 5]` prints a table; figures are medians over interleaved rounds.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use liter_llm::core::clock::MonotonicClock;
use liter_llm::core::route::{Candidates, Pricing, RouteOptions, Standing, Stands};
use liter_llm::resilience::attempts::Attempts;
use liter_llm::resilience::breaker::Breaker;
use liter_llm::resilience::breakers::{Breakers, Scope};
use liter_llm::resilience::options::CircuitOptions;
use liter_llm::routing::custom::{CustomPolicy, PolicyCall, PolicyCandidate};
use liter_llm::routing::member::Member;
use liter_llm::routing::options::RouterOptions;
use liter_llm::routing::policy::POLICIES;
use liter_llm::routing::router::{Deployments, Router, member};
use liter_llm::{LlmError, LlmProvider, LlmRequest, LlmResponse, Message, RetryOptions, Usage, async_trait};
use liter_llm_bench::inputs;

const SIZES: [usize; 5] = [1, 3, 10, 30, 100];

struct InMemory;

#[async_trait]
impl LlmProvider for InMemory {
    fn name(&self) -> &str {
        "in-memory"
    }

    async fn generate(&self, _: LlmRequest) -> Result<LlmResponse, LlmError> {
        Ok(LlmResponse { message: Message::assistant("Hello."), ..LlmResponse::default() })
    }
}

struct Circuit(Arc<Breakers>, Arc<Breaker>);

impl Stands for Circuit {
    fn standing(&self) -> Standing {
        let snapshot = self.1.snapshot(self.0.clock().now());
        Standing {
            circuit: snapshot.circuit,
            closed_for: snapshot.open_for.max(snapshot.cooling_for),
            in_flight: snapshot.in_flight,
            waiting: 0,
        }
    }
}

struct PerToken(f64);

impl Pricing for PerToken {
    fn estimate(&self, input: u64, output: u64) -> Option<f64> {
        #[allow(clippy::cast_precision_loss, reason = "small numbers")]
        Some(self.0 * (input + 4 * output) as f64)
    }

    fn cost(&self, _: &Usage) -> Option<f64> {
        None
    }
}

fn deployment(number: u32) -> Member {
    let name = format!("deployment-{number}");
    let breakers = Arc::new(Breakers::new(Some(CircuitOptions::default())));
    let breaker =
        breakers.of(&Scope { deployment: name.clone(), model: None, key: breakers.mark([]), region: None });
    let mut made = member(&name, Arc::new(InMemory), Arc::new(Circuit(breakers, breaker)));
    made.region = Some("eu".to_owned());
    made.tags = vec!["fast".to_owned(), "zero-retention".to_owned()];
    made.pricing = Some(Arc::new(PerToken(f64::from(number + 1) * 1e-7)));
    made
}

/// A policy of one's own that takes the candidates as they come.
struct AsTheyCome;

#[async_trait]
impl CustomPolicy for AsTheyCome {
    fn name(&self) -> &str {
        "as_they_come"
    }

    async fn order(&self, _: &PolicyCall, all: &[PolicyCandidate]) -> Result<Vec<String>, LlmError> {
        Ok(all.iter().take(1).map(|one| one.name.clone()).collect())
    }
}

/// The name of that policy in the table.
const OWN: &str = "your own";

fn router(policy: &str, size: usize) -> Result<Attempts, LlmError> {
    let members = (0..).map(deployment).take(size).collect();
    let options = RouterOptions {
        policy: if policy == OWN { "priority" } else { policy }.to_owned(),
        require_tags: vec!["fast".to_owned()],
        ..RouterOptions::default()
    };
    let mut router = Router::new("router", members, options, Arc::new(MonotonicClock::default()))?;
    if policy == OWN {
        router = router.with_policy(Arc::new(AsTheyCome));
    }
    let candidates: Arc<dyn Candidates> = Arc::new(Deployments(Arc::new(router)));
    Ok(Attempts::new(candidates, RetryOptions::default(), Duration::from_secs(600)))
}

fn request() -> Result<LlmRequest, LlmError> {
    let asked = RouteOptions { regions: vec!["eu".to_owned()], ..RouteOptions::default() };
    Ok(inputs::request(inputs::SMALL_REQUEST)?.with(|body| {
        body.model = None;
        body.route = Some(Box::new(asked));
    }))
}

/// User plus system time of this process so far; the time of day where that is not told.
fn cpu(begun: Instant) -> Duration {
    #[cfg(unix)]
    {
        use nix::sys::resource::{UsageWho, getrusage};
        if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
            let micros = |time: nix::sys::time::TimeVal| {
                time.tv_sec().unsigned_abs() * 1_000_000 + time.tv_usec().unsigned_abs()
            };
            return Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time()));
        }
    }
    begun.elapsed()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn option(name: &str, default: u32) -> u32 {
    let mut arguments = std::env::args();
    arguments.find(|argument| argument == name);
    arguments.next().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn run() -> Result<(), LlmError> {
    let (calls, rounds) = (option("--calls", 20_000), option("--rounds", 5));
    let failed = |error: std::io::Error| LlmError::invalid("measurement", format!("no runtime: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(failed)?;
    let request = request()?;
    let alone = Attempts::around(Arc::new(InMemory), RetryOptions::default(), Duration::from_secs(600));
    let mut stacks = vec![("alone", 0, alone, Vec::new())];
    for policy in POLICIES.iter().copied().chain([OWN]) {
        for size in SIZES {
            stacks.push((policy, size, router(policy, size)?, Vec::new()));
        }
    }
    let clock = Instant::now();
    for _ in 0..rounds {
        for (_, _, stack, took) in &mut stacks {
            let begun = cpu(clock);
            runtime.block_on(async {
                for _ in 0..calls {
                    std::hint::black_box(stack.generate(std::hint::black_box(request.clone())).await?);
                }
                Ok::<_, LlmError>(())
            })?;
            took.push((cpu(clock) - begun).as_secs_f64() * 1e6 / f64::from(calls));
        }
    }
    let mut figures = stacks.into_iter().map(|(policy, size, _, took)| (policy, size, median(took)));
    let base = figures.next().map(|(_, _, took)| took).unwrap_or_default();
    println!("the retry loop alone: {base:.2} us a call");
    println!("| policy | {} |", SIZES.map(|size| size.to_string()).join(" | "));
    let figures: Vec<_> = figures.collect();
    for row in figures.chunks(SIZES.len()) {
        let cells: Vec<_> = row.iter().map(|(_, _, took)| format!("{:.2}", took - base)).collect();
        println!("| {} | {} |", row[0].0, cells.join(" | "));
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
