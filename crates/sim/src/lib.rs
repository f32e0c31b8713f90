//! A local server that speaks the LLM providers' formats, with faults on demand.
//!
//! ```no_run
//! use liter_llm_sim::{Rule, SimConfig, Simulator};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let sim = Simulator::start(SimConfig::default())?;
//! sim.add_rule(Rule::from_json(r#"{"match": {"nth": 1}, "fault": {"status": 429}}"#)?)?;
//! println!("{:?}", sim.base_url("openai"));
//! println!("{} requests seen", sim.requests().len());
//! # Ok(())
//! # }
//! ```

mod answer;
mod anthropic;
mod anthropic_check;
mod azure;
mod cache;
mod chat_writer;
mod check;
mod config;
mod control;
mod faults;
mod http;
mod identity;
mod log;
mod models;
mod openai_chat;
mod reply;
mod response_input;
mod response_output;
mod responses;
mod route;
mod rules;
mod schema;
mod server;
mod vectors;
mod vendor;
mod websocket;

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::watch;

pub use config::{KeyPolicy, SimConfig, SimError};
pub use log::RequestRecord;
pub use rules::{Fault, Match, Nth, Rule};
pub use vectors::VectorServer;

/// A running simulator with its own threads. Dropping it stops it.
pub struct Simulator {
    shared: Arc<server::Shared>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The process the threads live in: a forked child has the value but not the threads.
    process: u32,
}

impl std::fmt::Debug for Simulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulator").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Simulator {
    /// Starts a simulator; when this returns it is listening.
    ///
    /// # Errors
    /// [`SimError::Config`] for a value out of range, [`SimError::Start`] when the address cannot be bound.
    pub fn start(config: SimConfig) -> Result<Self, SimError> {
        config.check()?;
        let asked = format!("{}:{}", config.host, config.port);
        let failed = |source| SimError::Start { address: asked.clone(), source };
        let listener = std::net::TcpListener::bind((config.host.as_str(), config.port)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (stop, stopped) = watch::channel(false);
        let count = config.threads;
        let shared = Arc::new(server::Shared::new(config));
        let mut threads = Vec::with_capacity(count);
        for index in 0..count {
            let listener = listener.try_clone().map_err(failed)?;
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
            let shared = Arc::clone(&shared);
            let mut stopped = stopped.clone();
            let body = move || {
                // Leaving this block drops the runtime, and with it every connection.
                runtime.block_on(async move {
                    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
                        return;
                    };
                    tokio::select! {
                        () = server::accept(listener, shared) => {}
                        _ = stopped.wait_for(|stop| *stop) => {}
                    }
                });
            };
            threads.push(
                std::thread::Builder::new().name(format!("llm-sim-{index}")).spawn(body).map_err(failed)?,
            );
        }
        Ok(Self { shared, address, stop, threads: Mutex::new(threads), process: std::process::id() })
    }

    /// The address it listens on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// The base URL to configure for a provider: with `/v1` for OpenAI and compatible names, the root for
    /// `anthropic` and `azure`, the authority for `entra`. `None` for a name that cannot stand in a path.
    #[must_use]
    pub fn base_url(&self, provider: &str) -> Option<String> {
        route::base_path(provider).map(|path| format!("http://{}{path}", self.address))
    }

    /// Replaces all rules; their counters start at zero.
    ///
    /// # Errors
    /// [`SimError::Config`] for a value out of range; then nothing is changed.
    pub fn set_rules(&self, rules: Vec<Rule>) -> Result<(), SimError> {
        rules.iter().try_for_each(Rule::check)?;
        self.shared.set_rules(rules);
        Ok(())
    }

    /// Adds a rule after those there are.
    ///
    /// # Errors
    /// [`SimError::Config`] for a value out of range.
    pub fn add_rule(&self, rule: Rule) -> Result<(), SimError> {
        rule.check()?;
        self.shared.add_rule(rule);
        Ok(())
    }

    /// Removes all rules.
    pub fn clear_rules(&self) {
        self.shared.set_rules(Vec::new());
    }

    /// The rules in force.
    #[must_use]
    pub fn rules(&self) -> Vec<Rule> {
        self.shared.rules().iter().map(|armed| armed.rule.clone()).collect()
    }

    /// The requests received, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.shared.log.records()
    }

    /// Forgets the requests received.
    pub fn clear_requests(&self) {
        self.shared.log.clear();
    }

    /// How many requests were served since the start, also when they are not kept.
    #[must_use]
    pub fn requests_served(&self) -> u64 {
        self.shared.served.load(Ordering::Relaxed)
    }

    /// How many connections were opened since the start.
    #[must_use]
    pub fn connections_opened(&self) -> u64 {
        self.shared.opened.load(Ordering::Relaxed)
    }

    /// How many connections are open now.
    #[must_use]
    pub fn open_connections(&self) -> u64 {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// How many Microsoft tokens were issued since the start.
    #[must_use]
    pub fn tokens_issued(&self) -> u64 {
        self.shared.identity.issued()
    }

    /// Stops: closes the listener and all connections, and waits for the threads. A second call does nothing.
    pub fn stop(&self) {
        self.stop.send_replace(true);
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        if self.process != std::process::id() {
            return;
        }
        for thread in threads {
            // A thread that panicked has ended, which is all that is asked here.
            let _ = thread.join();
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.stop();
    }
}
