//! Prompt caches: which prefixes have been seen, as Anthropic (marked) and OpenAI (automatic) count them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many prefixes are remembered; when full, the memory starts anew.
const CAPACITY: usize = 100_000;
/// How long an automatic cache lasts.
const AUTOMATIC: Duration = Duration::from_secs(600);

/// Prefixes seen, with the time until which they count.
#[derive(Default)]
pub(crate) struct PromptCache {
    known: Mutex<HashMap<u64, Instant>>,
}

/// A prefix that ends with a block: its hash and tokens, and the time to live where the block carries a marker.
pub(crate) struct Prefix {
    pub hash: u64,
    pub tokens: u64,
    pub ttl: Option<Duration>,
}

impl PromptCache {
    /// Tokens of the longest known prefix, in steps of 128, for prompts of at least `least`; remembers the prefixes.
    pub(crate) fn automatic(&self, total: u64, prefixes: &[(u64, u64)], least: u64) -> u64 {
        if total < least {
            return 0;
        }
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() > CAPACITY {
            known.clear();
        }
        let mut cached = 0;
        for (hash, tokens) in prefixes.iter().filter(|p| p.1 >= least.min(total)) {
            if known.get(hash).is_some_and(|until| *until > now) {
                cached = cached.max(*tokens);
            }
            known.insert(*hash, now + AUTOMATIC);
        }
        cached / 128 * 128
    }

    /// Tokens read from and written to the cache for prefixes in growing order; the writes by time to live.
    /// Only prefixes up to the last marker count; those between markers can be hit but are not written.
    pub(crate) fn marked(&self, prefixes: &[Prefix], least: u64) -> (u64, Vec<(u64, Duration)>) {
        let Some(last) = prefixes.iter().rposition(|p| p.ttl.is_some() && p.tokens >= least) else {
            return (0, Vec::new());
        };
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() > CAPACITY {
            known.clear();
        }
        let reachable = prefixes.get(..=last).unwrap_or_default();
        let hit = reachable.iter().rev().find(|p| known.get(&p.hash).is_some_and(|until| *until > now));
        let read = hit.map_or(0, |p| p.tokens);
        let mut written = Vec::new();
        let mut upto = read;
        for prefix in reachable.iter().filter(|p| p.tokens >= least) {
            let Some(ttl) = prefix.ttl else {
                continue;
            };
            if prefix.tokens > upto {
                written.push((prefix.tokens - upto, ttl));
                upto = prefix.tokens;
            }
            known.insert(prefix.hash, now + ttl);
        }
        (read, written)
    }
}
