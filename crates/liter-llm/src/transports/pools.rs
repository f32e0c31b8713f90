//! Connections by runtime and by host: a connection is only ever used by the Tokio runtime whose sockets it is among.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{Client, Url};
use tokio::runtime::{Handle, Id};
use tokio::sync::oneshot;

use super::connection::Connection;
use super::http::is_link_local;
use crate::core::error::LlmError;

/// A connection at rest is closed after this long.
const LONGEST_REST: Duration = Duration::from_secs(90);
/// Hosts close connections in bursts: after a look at all of them this long passes until the next.
const PAUSE: Duration = Duration::from_millis(100);

/// A poisoned lock only means that another thread panicked; what is behind it is still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What goes through a proxy, and upgrades, are left to reqwest.
#[derive(Clone)]
pub(super) struct Clients {
    /// Goes through the proxy that was asked for, or that the environment names.
    pub(super) proxied: Client,
    /// Knows no proxy; for the machine's own metadata and identity services.
    pub(super) direct: Client,
}

type Build = Box<dyn Fn() -> Result<Clients, LlmError> + Send + Sync>;

/// The connections to one host at rest, the one that rested last at the end.
pub(super) struct Origin {
    https: bool,
    host: String,
    port: u16,
    /// Whether the environment names a proxy for it.
    pub(super) proxied: bool,
    most: usize,
    resting: Mutex<Vec<Connection>>,
    keeper: Arc<Keeper>,
}

/// The task that closes connections at rest, as their sockets wake it.
#[derive(Default)]
struct Keeper(OnceLock<Waker>);

impl Keeper {
    /// Until the task has run for the first time there is nobody to be woken.
    fn waker(&self) -> &Waker {
        self.0.get().unwrap_or(Waker::noop())
    }
}

impl Origin {
    fn is_of(&self, url: &Url) -> bool {
        url.port_or_known_default() == Some(self.port)
            && (url.scheme() == "https") == self.https
            && url.host_str() == Some(&*self.host)
    }

    /// An open connection, if one rests.
    pub(super) fn take(&self) -> Option<Connection> {
        loop {
            let mut connection = lock(&self.resting).pop()?;
            // Its sockets wake who uses it from now on.
            if connection.since.elapsed() < LONGEST_REST && connection.is_idle(Waker::noop()) {
                return Some(connection);
            }
        }
    }

    /// Takes back a connection whose answer was read to its end.
    pub(super) fn give_back(&self, mut connection: Connection) {
        if connection.is_idle(self.keeper.waker()) {
            connection.since = Instant::now();
            let mut resting = lock(&self.resting);
            if resting.len() < self.most {
                resting.push(connection);
            }
        }
    }

    /// Closes what has rested for too long, and what the host has closed: kept open on this side, that would hold a
    /// socket each for nothing. Whether there was any.
    fn prune(&self) -> bool {
        let keeper = self.keeper.waker();
        let mut resting = lock(&self.resting);
        let gone: Vec<_> = resting
            .extract_if(.., |connection| {
                connection.since.elapsed() >= LONGEST_REST || !connection.is_idle(keeper)
            })
            .collect();
        drop(resting);
        !gone.is_empty()
    }
}

/// Everything that belongs to one runtime.
pub(super) struct Home {
    origins: Mutex<Vec<Arc<Origin>>>,
    clients: Mutex<Option<Clients>>,
    keeper: Arc<Keeper>,
    /// Dropped with the transport: it ends the task that waits for the end of the runtime.
    _transport: oneshot::Sender<()>,
}

/// The connections of each runtime that sends through a transport.
pub(super) struct Pools {
    build: Build,
    /// The proxies that the environment and the system name, unless they are not to count.
    proxies: Option<Matcher>,
    most: usize,
    homes: Mutex<HashMap<Id, Arc<Home>>>,
}

impl fmt::Debug for Pools {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Pools").field("runtimes", &lock(&self.homes).len()).finish()
    }
}

impl Pools {
    /// `most`: how many connections may rest for each host and runtime. `surroundings`: whether the proxies of the
    /// environment and the system count.
    pub(super) fn new(build: Build, most: usize, surroundings: bool) -> Arc<Self> {
        let homes = Mutex::new(HashMap::new());
        Arc::new(Self { build, proxies: surroundings.then(Matcher::from_system), most, homes })
    }

    /// What belongs to the runtime this is called on.
    ///
    /// # Errors
    /// `config` outside a Tokio runtime.
    pub(super) fn here(self: &Arc<Self>) -> Result<Arc<Home>, LlmError> {
        let runtime = Handle::try_current().map_err(|error| {
            LlmError::config("transport", "a request needs a running Tokio runtime").with_source(error)
        })?;
        let id = runtime.id();
        let mut homes = lock(&self.homes);
        if let Some(home) = homes.get(&id) {
            return Ok(Arc::clone(home));
        }
        let (transport, gone) = oneshot::channel();
        let home = Arc::new(Home {
            origins: Mutex::new(Vec::new()),
            clients: Mutex::new(None),
            keeper: Arc::default(),
            _transport: transport,
        });
        homes.insert(id, Arc::clone(&home));
        drop(homes);
        let leave = Leave { pools: Arc::downgrade(self), id };
        runtime.spawn(keep(Arc::downgrade(&home), gone, leave));
        Ok(home)
    }

    /// The connections to the host of `url`.
    pub(super) fn origin(&self, home: &Home, url: &Url) -> Arc<Origin> {
        let mut origins = lock(&home.origins);
        if let Some(origin) = origins.iter().find(|origin| origin.is_of(url)) {
            return Arc::clone(origin);
        }
        let target = url.as_str().parse().ok();
        let proxied = !is_link_local(url)
            && self
                .proxies
                .as_ref()
                .zip(target)
                .is_some_and(|(proxies, uri)| proxies.intercept(&uri).is_some());
        let origin = Arc::new(Origin {
            https: url.scheme() == "https",
            host: url.host_str().unwrap_or_default().to_owned(),
            port: url.port_or_known_default().unwrap_or_default(),
            proxied,
            most: self.most,
            resting: Mutex::new(Vec::new()),
            keeper: Arc::clone(&home.keeper),
        });
        origins.push(Arc::clone(&origin));
        origin
    }

    /// Whether the environment names a SOCKS proxy for the host of `url`.
    pub(super) fn is_socks(&self, url: &Url) -> bool {
        let target = url.as_str().parse().ok().filter(|_| !is_link_local(url));
        let proxy = self.proxies.as_ref().zip(target).and_then(|(proxies, uri)| proxies.intercept(&uri));
        proxy.is_some_and(|proxy| proxy.uri().scheme_str().is_some_and(|scheme| scheme.starts_with("socks")))
    }

    /// The clients for proxies and upgrades.
    ///
    /// # Errors
    /// `config` when they cannot be set up.
    pub(super) fn clients(&self, home: &Home) -> Result<Clients, LlmError> {
        let mut clients = lock(&home.clients);
        match &*clients {
            Some(clients) => Ok(clients.clone()),
            None => Ok(clients.insert((self.build)()?).clone()),
        }
    }
}

/// Closes connections that rest for too long, and at once those that their host closes, until the transport or the
/// runtime is gone.
async fn keep(home: Weak<Home>, mut transport: oneshot::Receiver<()>, _leave: Leave) {
    if let Some(home) = home.upgrade() {
        let waker = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
        let _ = home.keeper.0.set(waker);
    }
    loop {
        let woken = async {
            let mut begun = false;
            // Ready when this task is polled again: a connection at rest has wakened it.
            poll_fn(|_| if std::mem::replace(&mut begun, true) { Poll::Ready(()) } else { Poll::Pending })
                .await;
        };
        tokio::select! {
            biased;
            _ = &mut transport => return,
            () = woken => {}
            () = tokio::time::sleep(LONGEST_REST / 2) => {}
        }
        loop {
            let Some(home) = home.upgrade() else { return };
            let origins = lock(&home.origins).clone();
            drop(home);
            if origins.iter().filter(|origin| origin.prune()).count() == 0 {
                break;
            }
            drop(origins);
            tokio::select! {
                biased;
                _ = &mut transport => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }
}

/// A runtime that ends drops its tasks, and with them what it had here.
struct Leave {
    pools: Weak<Pools>,
    id: Id,
}

impl Drop for Leave {
    fn drop(&mut self) {
        if let Some(pools) = self.pools.upgrade() {
            // Connections are closed with it: not under the lock.
            let home = lock(&pools.homes).remove(&self.id);
            drop(home);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn each_runtime_has_its_own_and_takes_it_along() {
        let pools = Pools::new(Box::new(|| Err(LlmError::config("test", "not needed"))), 8, true);
        assert!(pools.here().is_err());
        let (one, two) = (runtime(), runtime());
        for _ in 0..2 {
            for runtime in [&one, &two] {
                runtime.block_on(async { pools.here().unwrap() });
            }
            assert_eq!(lock(&pools.homes).len(), 2);
        }
        drop(one);
        assert_eq!(lock(&pools.homes).len(), 1);
        drop(pools);
        // The transport is gone: nothing of it stays behind on the runtime.
        two.block_on(async {
            tokio::task::yield_now().await;
            assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
        });
    }

    #[test]
    fn hosts_are_told_apart() {
        let pools = Pools::new(Box::new(|| Err(LlmError::config("test", "not needed"))), 8, true);
        runtime().block_on(async {
            let home = pools.here().unwrap();
            let origin = |url: &str| pools.origin(&home, &Url::parse(url).unwrap());
            let first = origin("https://h/v1");
            assert!(Arc::ptr_eq(&first, &origin("https://h:443/v2?x")));
            for other in ["http://h:443/", "https://h:444/", "https://i/", "http://h/"] {
                assert!(!Arc::ptr_eq(&first, &origin(other)), "{other}");
            }
        });
    }
}
