//! Name resolution: the system's, with a short memory, and one look-up at a time for each name.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::Shared;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::failure::DnsFailure;

/// How long an answer is used again. Long enough that a burst of new connections asks once, short enough to follow a
/// host that moves.
const MEMORY: Duration = Duration::from_secs(30);

/// A look-up that has gone on for this long is not joined any more: whoever began it may have lost its runtime.
const PATIENCE: Duration = Duration::from_secs(10);

/// With more names than this, those that have expired are forgotten.
const NAMES: usize = 256;

type Found = Result<Arc<[SocketAddr]>, Arc<io::Error>>;
type Lookup = Pin<Box<dyn Future<Output = Found> + Send>>;
type System = dyn Fn(String) -> Lookup + Send + Sync;

enum Entry {
    Known { addresses: Arc<[SocketAddr]>, since: Instant },
    Asked { lookup: Shared<Lookup>, since: Instant, process: u32 },
}

/// A resolver that remembers successes for [`MEMORY`] and failures not at all. Its clones share what they remember;
/// each transport has its own.
#[derive(Clone)]
pub(super) struct CachingResolver {
    system: Arc<System>,
    names: Arc<Mutex<HashMap<String, Entry>>>,
    memory: Duration,
}

impl CachingResolver {
    /// Over the system's resolver.
    pub(super) fn new() -> Self {
        Self::over(MEMORY, |name| {
            Box::pin(async move {
                // The port is the caller's to fill in.
                let found = tokio::net::lookup_host((name, 0)).await.map_err(Arc::new)?;
                Ok(found.collect())
            })
        })
    }

    fn over(memory: Duration, system: impl Fn(String) -> Lookup + Send + Sync + 'static) -> Self {
        Self { system: Arc::new(system), names: Arc::default(), memory }
    }

    fn names(&self) -> std::sync::MutexGuard<'_, HashMap<String, Entry>> {
        // The map is whole between any two statements, so a panic elsewhere does not spoil it.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn addresses(&self, name: &str) -> Found {
        let lookup = {
            let mut names = self.names();
            match names.get(name) {
                Some(Entry::Known { addresses, since }) if since.elapsed() < self.memory => {
                    return Ok(Arc::clone(addresses));
                }
                // A forked child inherits look-ups whose threads it does not have.
                Some(Entry::Asked { lookup, since, process })
                    if since.elapsed() < PATIENCE && *process == std::process::id() =>
                {
                    lookup.clone()
                }
                _ => {
                    if names.len() >= NAMES {
                        names.retain(|_, entry| match entry {
                            Entry::Known { since, .. } => since.elapsed() < self.memory,
                            Entry::Asked { since, .. } => since.elapsed() < PATIENCE,
                        });
                    }
                    let lookup = (self.system)(name.to_owned()).shared();
                    let (since, process) = (Instant::now(), std::process::id());
                    let asked = Entry::Asked { lookup: lookup.clone(), since, process };
                    names.insert(name.to_owned(), asked);
                    lookup
                }
            }
        };
        let found = lookup.clone().await;
        let mut names = self.names();
        // The first of those who waited settles it; a later look-up's entry is not this one's to change.
        if matches!(names.get(name), Some(Entry::Asked { lookup: known, .. }) if known.ptr_eq(&lookup)) {
            match &found {
                Ok(addresses) if !addresses.is_empty() => {
                    let known = Entry::Known { addresses: Arc::clone(addresses), since: Instant::now() };
                    names.insert(name.to_owned(), known);
                }
                _ => drop(names.remove(name)),
            }
        }
        found
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

    use super::*;

    /// A resolver that counts, takes 20 ms, and fails as often as told before it succeeds.
    fn counting(memory: Duration, failures: usize) -> (CachingResolver, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let resolver = CachingResolver::over(memory, move |_| {
            let number = count.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                if number < failures {
                    return Err(Arc::new(io::Error::other("no such name")));
                }
                Ok(Arc::from([SocketAddr::from(([127, 0, 0, 1], 0))]))
            })
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
    async fn expired_names_do_not_pile_up() {
        let (resolver, _) = counting(Duration::ZERO, 0);
        let names: Vec<String> = (0..NAMES * 2).map(|number| format!("h{number}.test")).collect();
        for part in names.chunks(NAMES / 2) {
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
