//! The ledger in memory.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Notify;

use super::ledger::{Amount, Charge, Held, Level, Line, Snapshot, Total, Verdict, Window, judge};
use super::money::Money;
#[cfg(feature = "model")]
use crate::core::sync::Seeded;
use crate::core::sync::{Mutex, lock};

/// The most labels of callers with totals of their own; further ones share the label [`OTHERS`].
const LABELS: usize = 10_000;
/// The label of callers beyond [`LABELS`].
const OTHERS: &str = "(others)";
/// Accounts of past windows are looked for when there are so many more than after the last look.
const SWEEP: usize = 1_024;
#[derive(Debug)]
struct Account {
    window: Window,
    level: Level,
}

#[derive(Debug, Default)]
struct Pages {
    accounts: HashMap<Arc<str>, Account>,
    sweep_at: usize,
    deployments: HashMap<Arc<str>, Total>,
    keys: HashMap<String, Total>,
}

impl Pages {
    /// The account in this window, or in a later one if that has begun (a clock that was set back).
    fn account(&mut self, line: &Line) -> &mut Account {
        if !self.accounts.contains_key(&line.account) && self.accounts.len() >= self.sweep_at.max(SWEEP) {
            let now = line.window.start;
            self.accounts.retain(|_, account| account.window.end > now || account.level.running > 0);
            self.sweep_at = self.accounts.len() + SWEEP;
        }
        let fresh = || Account { window: line.window, level: Level::default() };
        let account = self.accounts.entry(Arc::clone(&line.account)).or_insert_with(fresh);
        if account.window.start < line.window.start {
            *account = fresh();
        }
        account
    }
}

/// The ledger in memory.
#[derive(Debug, Default)]
pub(super) struct MemoryBook {
    pages: Mutex<Pages>,
    ended: Notify,
    #[cfg(feature = "model")]
    seeded: Option<Seeded>,
}

impl MemoryBook {
    #[cfg(feature = "model")]
    pub fn with_seeded(seeded: Seeded) -> Self {
        Self { seeded: Some(seeded), ..Self::default() }
    }

    pub const fn ended(&self) -> &Notify {
        &self.ended
    }

    pub fn level(&self, account: &str, start: i64) -> Level {
        let pages = lock(&self.pages);
        let present = pages.accounts.get(account).filter(|account| account.window.start >= start);
        present.map_or_else(Level::default, |account| account.level)
    }

    fn judged(pages: &mut Pages, lines: &[Line]) -> Verdict {
        let levels: Vec<Level> = lines.iter().map(|line| pages.account(line).level).collect();
        judge(lines, levels)
    }

    pub fn reserve(&self, lines: &[Line], held: &mut Held) -> Verdict {
        let mut pages = lock(&self.pages);
        let verdict = Self::judged(&mut pages, lines);
        if verdict != Verdict::Reserved {
            return verdict;
        }
        #[cfg(feature = "model")]
        if self.seeded == Some(Seeded::SplitCheck) {
            drop(pages);
            pages = lock(&self.pages);
        }
        held.lines.clear();
        for line in lines {
            let account = pages.account(line);
            let level = &mut account.level;
            level.reserved = level.reserved.plus(held.amount.ceiling);
            level.expected = level.expected.plus(held.amount.expected);
            level.running += 1;
            held.lines.push((Arc::clone(&line.account), account.window.start));
        }
        verdict
    }

    pub fn settle(&self, held: &Held, charge: Charge) {
        let mut pages = lock(&self.pages);
        for (name, start) in &held.lines {
            // What a call of a past window cost belongs to that window.
            let Some(account) = pages.accounts.get_mut(name).filter(|account| account.window.start == *start)
            else {
                continue;
            };
            #[cfg(feature = "model")]
            if self.seeded == Some(Seeded::LostRefund) {
                let read = account.level;
                drop(pages);
                pages = lock(&self.pages);
                if let Some(account) = pages.accounts.get_mut(name) {
                    account.level = settled(read, held.amount, charge);
                }
                continue;
            }
            account.level = settled(account.level, held.amount, charge);
        }
        if charge != Charge::Nothing {
            pages.deployments.entry(Arc::clone(&held.bill.deployment)).or_default().add(charge);
            if let Some(key) = &held.bill.key {
                let known = pages.keys.len() < LABELS || pages.keys.contains_key(key);
                let label = if known { key.as_str() } else { OTHERS };
                match pages.keys.get_mut(label) {
                    Some(total) => total.add(charge),
                    None => pages.keys.entry(label.to_owned()).or_default().add(charge),
                }
            }
        }
        drop(pages);
        self.ended.notify_waiters();
    }

    pub fn snapshot(&self) -> Snapshot {
        let pages = lock(&self.pages);
        let account =
            |(name, account): (&Arc<str>, &Account)| (Arc::clone(name), account.window.start, account.level);
        Snapshot {
            accounts: pages.accounts.iter().map(account).collect(),
            deployments: pages
                .deployments
                .iter()
                .map(|(name, total)| (name.as_ref().to_owned(), *total))
                .collect(),
            keys: pages.keys.iter().map(|(name, total)| (name.clone(), *total)).collect(),
        }
    }
}

/// A level after a call has ended.
fn settled(level: Level, amount: Amount, charge: Charge) -> Level {
    let cost = match charge {
        Charge::Cost(cost) => cost,
        Charge::Nothing | Charge::Unpriced => Money::ZERO,
    };
    Level {
        spent: level.spent.plus(cost),
        reserved: level.reserved.minus(amount.ceiling),
        expected: level.expected.minus(amount.expected),
        calls: level.calls + u64::from(charge != Charge::Nothing),
        running: level.running.saturating_sub(1),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::routing::ledger::Bill;

    #[test]
    fn labels_and_accounts_do_not_pile_up() {
        let book = MemoryBook::default();
        let call = |account: String, start: i64, label: String| {
            let window = Window { start, end: start + 60 };
            let limit = Money::from_parts(100);
            let line = Line { account: account.into(), window, limit, hard: true };
            let bill = Bill { deployment: "d".into(), key: Some(label) };
            let mut held = Held { id: 0, lines: Vec::new(), amount: Amount::default(), bill };
            assert_eq!(book.reserve(&[line], &mut held), Verdict::Reserved);
            book.settle(&held, Charge::Cost(Money::from_parts(1)));
        };
        for label in 0..LABELS + 5 {
            call(format!("key:{label}"), 0, label.to_string());
        }
        for label in 0..SWEEP + 5 {
            call(format!("new:{label}"), 60, "0".to_owned());
        }
        let snapshot = book.snapshot();
        assert!(snapshot.accounts.len() < 3 * SWEEP, "{} accounts", snapshot.accounts.len());
        let others = snapshot.keys.iter().find(|(label, _)| label == OTHERS).unwrap();
        assert_eq!((others.1.calls, snapshot.keys.len()), (5, LABELS + 1));
    }
}
