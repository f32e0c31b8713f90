//! Name resolution: the system's, with a short memory, and one look-up at a time for each name.
//!
//! The system's resolver blocks, for half a minute and longer when no name server answers, and cannot be called off. So
//! each look-up has a thread of its own while it lasts: a name that cannot be resolved holds that one thread and no
//! place that another name, or another client, could wait for.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::Shared;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::oneshot;

use super::failure::DnsFailure;

/// How long an answer is used again. Long enough that a burst of new connections asks once, short enough to follow a
/// host that moves.
const MEMORY: Duration = Duration::from_secs(30);

/// The most look-ups of one transport under way. It has a handful of hosts, each of them one at a time.
const LOOK_UPS: usize = 32;

/// With more names than this, those that have expired are forgotten.
const NAMES: usize = 256;

type Found = Result<Arc<[SocketAddr]>, Arc<io::Error>>;
type Lookup = Pin<Box<dyn Future<Output = Found> + Send>>;
/// Blocks until there is an answer.
type System = dyn Fn(&str) -> io::Result<Arc<[SocketAddr]>> + Send + Sync;

enum Entry {
    Known {
        addresses: Arc<[SocketAddr]>,
        since: Instant,
    },
    /// Joined by all who ask, for as long as its thread is busy with it: whoever gives up waiting does so by the limit
    /// on connecting.
    Asked {
        lookup: Shared<Lookup>,
        process: u32,
    },
}

type Names = HashMap<String, Entry>;

/// A resolver that remembers successes for [`MEMORY`] and failures not at all. Its clones share what they remember;
/// each transport has its own.
#[derive(Clone)]
pub(super) struct CachingResolver {
    system: Arc<System>,
    names: Arc<Mutex<Names>>,
    memory: Duration,
}

impl CachingResolver {
    /// Over the system's resolver.
    pub(super) fn new() -> Self {
        // The port is the caller's to fill in.
        Self::over(MEMORY, |name| Ok((name, 0).to_socket_addrs()?.collect()))
    }

    fn over(
        memory: Duration,
        system: impl Fn(&str) -> io::Result<Arc<[SocketAddr]>> + Send + Sync + 'static,
    ) -> Self {
        Self { system: Arc::new(system), names: Arc::default(), memory }
    }

    fn names(&self) -> std::sync::MutexGuard<'_, Names> {
        // The map is whole between any two statements, so a panic elsewhere does not spoil it.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks on a thread of its own, which also notes the answer: all who waited for it may have given up.
    fn ask(&self, name: &str) -> io::Result<Shared<Lookup>> {
        let (answer, answered) = oneshot::channel();
        let (resolver, name) = (self.clone(), name.to_owned());
        let thread = std::thread::Builder::new().name("liter-llm-dns".to_owned());
        thread.spawn(move || {
            let found = (resolver.system)(&name).map_err(Arc::new);
            let mut names = resolver.names();
            match &found {
                Ok(addresses) if !addresses.is_empty() => {
                    names.insert(
                        name,
                        Entry::Known { addresses: Arc::clone(addresses), since: Instant::now() },
                    );
                }
                _ => drop(names.remove(&name)),
            }
            drop(names);
            drop(answer.send(found));
        })?;
        let lookup: Lookup = Box::pin(async move {
            answered.await.unwrap_or_else(|_| Err(Arc::new(io::Error::other("the look-up broke off"))))
        });
        Ok(lookup.shared())
    }

    async fn addresses(&self, name: &str) -> Found {
        let lookup = {
            let mut names = self.names();
            let process = std::process::id();
            match names.get(name) {
                Some(Entry::Known { addresses, since }) if since.elapsed() < self.memory => {
                    return Ok(Arc::clone(addresses));
                }
                // A forked child inherits look-ups whose threads it does not have.
                Some(Entry::Asked { lookup, process: asking }) if *asking == process => lookup.clone(),
                _ => {
                    let busy = |entry: &Entry| matches!(entry, Entry::Asked { process: asking, .. } if *asking == process);
                    if names.len() >= NAMES {
                        names.retain(|_, entry| match entry {
                            Entry::Known { since, .. } => since.elapsed() < self.memory,
                            Entry::Asked { .. } => busy(entry),
                        });
                    }
                    if names.values().filter(|entry| busy(entry)).count() >= LOOK_UPS {
                        let message = format!("{LOOK_UPS} names are being looked up already");
                        return Err(Arc::new(io::Error::new(io::ErrorKind::ResourceBusy, message)));
                    }
                    // The thread notes its answer once the map is free.
                    let lookup = self.ask(name).map_err(Arc::new)?;
                    names.insert(name.to_owned(), Entry::Asked { lookup: lookup.clone(), process });
                    lookup
                }
            }
        };
        lookup.await
    }
}

impl CachingResolver {
    /// The addresses of a host, with port 0.
    pub(super) async fn look_up(&self, name: &str) -> Result<Vec<SocketAddr>, DnsFailure> {
        // The cause is shared by all who waited, so each gets it wrapped.
        let found = self.addresses(name).await;
        let found = found.map_err(|cause| DnsFailure(io::Error::new(cause.kind(), Shareable(cause))))?;
        Ok(found.to_vec())
    }
}

impl Resolve for CachingResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let found = resolver.look_up(name.as_str()).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// A cause that several errors have.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Shareable(Arc<io::Error>);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Condvar, mpsc};

    use super::*;

    const HERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    /// A resolver that counts, takes 20 ms, and fails as often as told before it succeeds.
    fn counting(memory: Duration, failures: usize) -> (CachingResolver, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let resolver = CachingResolver::over(memory, move |_| {
            let number = count.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(20));
            if number < failures {
                return Err(io::Error::other("no such name"));
            }
            Ok(Arc::from([HERE]))
        });
        (resolver, asked)
    }

    async fn resolve(resolver: &CachingResolver, name: &str) -> Result<Vec<SocketAddr>, String> {
        let resolving = resolver.resolve(name.parse().unwrap());
        resolving.await.map(Iterator::collect).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_burst_asks_once_and_the_answer_is_used_again() {
        let (resolver, asked) = counting(MEMORY, 0);
        let burst = (0..100).map(|_| resolve(&resolver, "host.test"));
        for found in futures_util::future::join_all(burst).await {
            assert_eq!(found.unwrap().len(), 1);
        }
        resolve(&resolver, "host.test").await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        resolve(&resolver, "other.test").await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn an_answer_is_forgotten_in_time() {
        let (resolver, asked) = counting(Duration::from_millis(30), 0);
        resolve(&resolver, "host.test").await.unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
        resolve(&resolver, "host.test").await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn failures_reach_all_who_wait_and_are_not_remembered() {
        let (resolver, asked) = counting(MEMORY, 1);
        let both =
            futures_util::future::join(resolve(&resolver, "h.test"), resolve(&resolver, "h.test")).await;
        for found in [both.0, both.1] {
            assert!(found.unwrap_err().contains("no such name"));
        }
        resolve(&resolver, "h.test").await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn who_gives_up_waiting_spoils_nothing_for_the_others() {
        let (resolver, asked) = counting(MEMORY, 0);
        // Asks, and goes away before the answer.
        assert!(resolve(&resolver, "h.test").now_or_never().is_none());
        resolve(&resolver, "h.test").await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_failure_that_nobody_waited_for_is_forgotten_too() {
        let (resolver, asked) = counting(MEMORY, 1);
        assert!(resolve(&resolver, "h.test").now_or_never().is_none());
        while !resolver.names().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        resolve(&resolver, "h.test").await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    type Door = Arc<(Mutex<bool>, Condvar)>;

    /// A resolver that knows `good.*` at once and does not come back from any other name until it is told to; each
    /// name asked for comes out of the channel.
    fn stuck() -> (CachingResolver, mpsc::Receiver<String>, Door) {
        let (asked, names) = mpsc::channel();
        let door: Door = Arc::new((Mutex::new(false), Condvar::new()));
        let (asked, inner) = (Mutex::new(asked), Arc::clone(&door));
        let resolver = CachingResolver::over(MEMORY, move |name| {
            asked.lock().unwrap().send(name.to_owned()).unwrap();
            if !name.starts_with("good") {
                drop(inner.1.wait_while(inner.0.lock().unwrap(), |open| !*open).unwrap());
                return Err(io::Error::other("no such name"));
            }
            Ok(Arc::from([HERE]))
        });
        (resolver, names, door)
    }

    #[test]
    fn names_that_cannot_be_resolved_keep_no_other_waiting() {
        // The runtime has one thread for what blocks: look-ups need none of it.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let (resolver, names, door) = stuck();
        runtime.block_on(async {
            let soon = Duration::from_millis(5);
            // Forty calls to one dead host that give up, and again: it is asked for once, and holds one thread.
            for _ in 0..2 {
                let calls = (0..40).map(|_| tokio::time::timeout(soon, resolve(&resolver, "dead.test")));
                assert!(futures_util::future::join_all(calls).await.iter().all(Result::is_err));
            }
            for number in 1..LOOK_UPS - 1 {
                let dead = format!("dead{number}.test");
                assert!(tokio::time::timeout(soon, resolve(&resolver, &dead)).await.is_err());
            }
            let begun = Instant::now();
            for good in ["good.test", "good2.test"] {
                assert_eq!(resolve(&resolver, good).await.unwrap(), [HERE]);
            }
            assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
            // Another transport's names are not in anyone's way, however many of this one's are stuck.
            assert!(tokio::time::timeout(soon, resolve(&resolver, "last.test")).await.is_err());
            assert!(resolve(&resolver, "more.test").await.unwrap_err().contains("being looked up"));
            assert_eq!(resolve(&counting(MEMORY, 0).0, "good.test").await.unwrap(), [HERE]);
            assert_eq!(names.try_iter().filter(|name| name == "dead.test").count(), 1);
            // The threads come back, and with them the places.
            *door.0.lock().unwrap() = true;
            door.1.notify_all();
            while resolver.names().values().any(|entry| matches!(entry, Entry::Asked { .. })) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert!(resolve(&resolver, "more.test").await.unwrap_err().contains("no such name"));
        });
    }

    #[tokio::test]
    async fn expired_names_do_not_pile_up() {
        let (resolver, _) = counting(Duration::ZERO, 0);
        let names: Vec<String> = (0..NAMES * 2).map(|number| format!("h{number}.test")).collect();
        for part in names.chunks(LOOK_UPS) {
            futures_util::future::join_all(part.iter().map(|name| resolve(&resolver, name))).await;
        }
        assert!(resolver.names().len() <= NAMES);
    }

    #[tokio::test]
    async fn the_systems_resolver_knows_this_machine() {
        let found = resolve(&CachingResolver::new(), "localhost").await.unwrap();
        assert!(found.iter().all(|address| address.ip().is_loopback()) && !found.is_empty());
    }
}
