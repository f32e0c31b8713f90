//! The ledger: what has been spent and what is reserved, and whether another call may go.
//!
//! Each budget's calls of one window are booked to an account. A call reserves its *ceiling*, the most it can cost,
//! before it is sent, and gives what it did not use back when it ends. It may go while `spent + reserved < limit`;
//! after that `spent + reserved <= limit + its own ceiling`, and as no call costs more than its ceiling, at most one
//! call's worth is ever spent beyond the limit, however many run at once.
//!
//! Ceilings are far above what most calls cost, so that `spent + reserved >= limit` does not mean that the money is
//! gone. Then a call is not refused but waits until running ones have ended and it is certain; it is refused when
//! `spent >= limit`. Only a call that has waited for as long as it can is refused while money is left.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::ledger_file::FileBook;
use super::ledger_memory::MemoryBook;
use super::money::Money;
use crate::core::call::is_under_way;
use crate::core::error::LlmError;
#[cfg(feature = "model")]
use crate::core::sync::Seeded;

/// The longest wait where more than 90 % is spent: what running calls leave will hardly be worth more.
const PATIENCE_AT_THE_END: Duration = Duration::from_secs(5);
/// Waiting calls look again this often although nothing was heard: another process may have ended a call.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// A window of time, in seconds since 1970 (UTC): from `start` until before `end`.
///
/// ```
/// use liter_llm::{Per, Window};
///
/// let Window { start, end } = Per::Day.window(90_000);
/// assert_eq!((start, end), (86_400, 172_800));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Window {
    /// Its first second.
    pub start: i64,
    /// The next window's first second.
    pub end: i64,
}

/// An account that a call is booked to.
#[derive(Debug, Clone)]
pub struct Line {
    /// The account's name.
    pub account: Arc<str>,
    /// The window that the call belongs to.
    pub window: Window,
    /// How much may be spent in it.
    pub limit: Money,
    /// Whether calls are refused at the limit.
    pub hard: bool,
}

/// What a call is thought to cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// The most.
    pub ceiling: Money,
    /// What is usual; never above the ceiling.
    pub expected: Money,
}

/// How an account stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Level {
    /// Spent by calls that have ended.
    pub spent: Money,
    /// The most that the running calls can cost.
    pub reserved: Money,
    /// What the running calls usually cost.
    pub expected: Money,
    /// Calls that have ended and were charged.
    pub calls: u64,
    /// Calls that run.
    pub running: u64,
}

/// What is said to a call that wants to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// It may.
    Go,
    /// Nobody knows yet whether there is money for it.
    Wait,
    /// There is none.
    Stop,
}

impl Level {
    /// Whether another call may go. The ledger's one rule; see the head of the file.
    #[must_use]
    pub fn look(&self, limit: Money) -> Look {
        if self.spent >= limit {
            Look::Stop
        } else if self.spent.plus(self.reserved) < limit {
            Look::Go
        } else {
            Look::Wait
        }
    }
}

/// For whom a call is made and who answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bill {
    /// The deployment.
    pub deployment: Arc<str>,
    /// The caller's label.
    pub key: Option<String>,
}

/// What a call that has ended is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charge {
    /// It was never sent, or the provider refused it.
    Nothing,
    /// This much.
    Cost(Money),
    /// It was answered, and nobody knows the price.
    Unpriced,
}

/// What calls of one deployment or one caller have cost.
///
/// ```
/// use liter_llm::{Money, Total};
///
/// let total = Total { spent: Money::from_usd(0.5).unwrap(), calls: 4, unpriced: 0 };
/// assert_eq!(total.spent.usd() / total.calls as f64, 0.125);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Total {
    /// In US dollars.
    pub spent: Money,
    /// Calls that were charged.
    pub calls: u64,
    /// Of these, those whose price is not known; they count as nothing in `spent`.
    pub unpriced: u64,
}

impl Total {
    pub(super) fn add(&mut self, charge: Charge) {
        self.calls += 1;
        match charge {
            Charge::Cost(cost) => self.spent = self.spent.plus(cost),
            Charge::Unpriced => self.unpriced += 1,
            Charge::Nothing => self.calls -= 1,
        }
    }
}

/// Everything in the ledger.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The accounts: name, start of the window, level.
    pub accounts: Vec<(Arc<str>, i64, Level)>,
    /// By deployment.
    pub deployments: Vec<(String, Total)>,
    /// By caller.
    pub keys: Vec<(String, Total)>,
}

/// Which line decided, and how its account stood.
pub type Found = (usize, Level);

/// The answer to a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is reserved.
    Reserved,
    /// To be asked again when a call has ended.
    Wait(Found),
    /// Refused.
    Full(Found),
    /// The store cannot be written.
    Failed(String),
}

/// Why there is no reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The money is spent.
    Full(Found),
    /// Running calls held the money for as long as the call could wait.
    Held(Found),
    /// The store cannot be written.
    Failed(String),
}

/// The first line that stands against a call, worst first.
pub(super) fn judge(lines: &[Line], levels: impl IntoIterator<Item = Level>) -> Verdict {
    let mut verdict = Verdict::Reserved;
    for (position, (line, level)) in lines.iter().zip(levels).enumerate().filter(|(_, (line, _))| line.hard) {
        match level.look(line.limit) {
            Look::Stop => return Verdict::Full((position, level)),
            Look::Wait if verdict == Verdict::Reserved => verdict = Verdict::Wait((position, level)),
            _ => {}
        }
    }
    verdict
}

/// The id of a call that runs without a reservation in the file.
pub(super) const UNRESERVED: u64 = 0;

/// What a call holds while it runs.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub id: u64,
    /// Accounts and starts of their windows.
    pub lines: Vec<(Arc<str>, i64)>,
    pub amount: Amount,
    pub bill: Bill,
}

#[derive(Clone)]
enum Store {
    Memory(Arc<MemoryBook>),
    File(Arc<FileBook>),
}

/// The ledger of a router: in memory, or in a file that several processes share.
pub struct Ledger(Store);

impl Ledger {
    /// A ledger that lives as long as the process.
    #[must_use]
    pub fn in_memory() -> Arc<Self> {
        Arc::new(Self(Store::Memory(Arc::default())))
    }

    /// The ledger in this SQLite file, which is made when it is not there.
    ///
    /// # Errors
    /// `config`: it cannot be opened or written, or is something else.
    pub fn at(path: &Path) -> Result<Arc<Self>, LlmError> {
        FileBook::open(path).map(|book| Arc::new(Self(Store::File(book))))
    }

    /// A ledger in memory with a mistake in it.
    #[cfg(feature = "model")]
    #[must_use]
    pub fn with_seeded(seeded: Seeded) -> Arc<Self> {
        Arc::new(Self(Store::Memory(Arc::new(MemoryBook::with_seeded(seeded)))))
    }

    /// The file it is kept in; `None` for one in memory.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Store::Memory(_) => None,
            Store::File(book) => Some(book.path()),
        }
    }

    #[cfg(test)]
    pub(super) fn end_writer(&self) {
        if let Store::File(book) = &self.0 {
            book.end_writer();
        }
    }

    fn ticket(&self, amount: Amount, bill: Bill) -> Ticket {
        let id = match &self.0 {
            Store::Memory(_) => 0,
            Store::File(book) => book.next_id(),
        };
        Ticket {
            store: self.0.clone(),
            held: Held { id, lines: Vec::new(), amount, bill },
            open: true,
            sent: false,
            noted: false,
        }
    }

    /// Reserves without waiting, in memory; `None`: this is one in a file.
    ///
    /// # Errors
    /// The verdict when it is not [`Reserved`](Verdict::Reserved).
    pub fn try_reserve(&self, lines: &[Line], amount: Amount, bill: Bill) -> Option<Result<Ticket, Verdict>> {
        let Store::Memory(book) = &self.0 else { return None };
        let mut ticket = self.ticket(amount, bill);
        let verdict = book.reserve(lines, &mut ticket.held);
        Some(if verdict == Verdict::Reserved { Ok(ticket) } else { Err(ticket.refused(verdict)) })
    }

    async fn ask(&self, lines: &[Line], amount: Amount, bill: &Bill) -> Result<Ticket, Verdict> {
        match &self.0 {
            Store::Memory(book) => {
                let mut ticket = self.ticket(amount, bill.clone());
                match book.reserve(lines, &mut ticket.held) {
                    Verdict::Reserved => Ok(ticket),
                    verdict => Err(ticket.refused(verdict)),
                }
            }
            Store::File(book) => book.reserve(lines.to_vec(), self.ticket(amount, bill.clone())).await,
        }
    }

    fn ended(&self) -> &Notify {
        match &self.0 {
            Store::Memory(book) => book.ended(),
            Store::File(book) => book.ended(),
        }
    }

    /// Reserves, waiting while it is not certain whether there is money, at most for `patience`, and for 5 s where more
    /// than 90 % is spent. `lines` is asked anew
    /// after each wait: a new window may have begun.
    ///
    /// # Errors
    /// The money is spent or held, or the store cannot be written and a line is hard.
    pub async fn reserve(
        &self,
        lines: impl Fn() -> Vec<Line> + Send,
        amount: Amount,
        bill: Bill,
        patience: Duration,
    ) -> Result<Ticket, Refusal> {
        let begun = Instant::now();
        let until = begun + patience;
        loop {
            let asked = lines();
            if asked.is_empty() {
                return Ok(self.ticket(amount, bill));
            }
            let mut ended = std::pin::pin!(self.ended().notified());
            // From here on no end is missed.
            ended.as_mut().enable();
            let found = match self.ask(&asked, amount, &bill).await {
                Ok(ticket) => return Ok(ticket),
                Err(Verdict::Full(found)) => return Err(Refusal::Full(found)),
                Err(Verdict::Failed(why)) if asked.iter().any(|line| line.hard) => {
                    return Err(Refusal::Failed(why));
                }
                // Budgets that only count let the call go; what it costs is booked when the store can be written.
                Err(Verdict::Failed(_) | Verdict::Reserved) => {
                    let mut ticket = self.ticket(amount, bill);
                    ticket.held.id = UNRESERVED;
                    ticket.held.lines =
                        asked.iter().map(|line| (Arc::clone(&line.account), line.window.start)).collect();
                    return Ok(ticket);
                }
                Err(Verdict::Wait(found)) => found,
            };
            let nearly = asked.get(found.0).is_some_and(|line| found.1.spent > line.limit.times(9, 10));
            let until = if nearly { until.min(begun + PATIENCE_AT_THE_END) } else { until };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Refusal::Held(found));
            }
            // Heard or not, it looks again.
            let _ = tokio::time::timeout(left.min(LOOK_AGAIN), ended).await;
        }
    }

    /// How an account stood when this process last saw it. Reads no file.
    #[must_use]
    pub fn level(&self, account: &str, window: Window) -> Level {
        match &self.0 {
            Store::Memory(book) => book.level(account, window.start),
            Store::File(book) => book.level(account, window.start),
        }
    }

    /// Everything in the ledger. One in a file reads it, which may take a few milliseconds.
    ///
    /// # Errors
    /// The file cannot be read, as a sentence.
    pub fn snapshot(&self) -> Result<Snapshot, String> {
        match &self.0 {
            Store::Memory(book) => Ok(book.snapshot()),
            Store::File(book) => book.snapshot(),
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        if let Store::File(book) = &self.0 {
            book.flush();
        }
    }
}

/// A reservation. Dropped, it gives everything back when the call was not sent, and is charged what is usual when it was:
/// nobody knows what came of it.
pub struct Ticket {
    store: Store,
    pub(super) held: Held,
    open: bool,
    sent: bool,
    noted: bool,
}

impl Ticket {
    /// What is sent is noted in the running call: dropped with nothing under way there, it was still in line.
    pub(super) const fn noted(&mut self, noted: bool) {
        self.noted = noted;
    }

    /// The call is on its way.
    pub const fn send(&mut self) {
        self.sent = true;
    }

    /// What it was thought to cost.
    #[must_use]
    pub const fn amount(&self) -> Amount {
        self.held.amount
    }

    /// There was no reservation: nothing is to be given back.
    pub(super) fn refused(mut self, verdict: Verdict) -> Verdict {
        self.open = false;
        verdict
    }

    /// The call has ended. Returns when that is written.
    pub async fn settle(mut self, charge: Charge) {
        self.open = false;
        match &self.store {
            Store::Memory(book) => book.settle(&self.held, charge),
            Store::File(book) => book.settle_and_wait(self.held.clone(), charge).await,
        }
    }

    /// The call has ended. A ledger in a file writes it soon.
    pub fn settle_soon(mut self, charge: Charge) {
        self.end(charge);
    }

    fn end(&mut self, charge: Charge) {
        self.open = false;
        match &self.store {
            Store::Memory(book) => book.settle(&self.held, charge),
            Store::File(book) => book.settle(self.held.clone(), charge),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.open {
            self.end(match self.sent && (!self.noted || is_under_way()) {
                true => Charge::Cost(self.held.amount.expected),
                false => Charge::Nothing,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn sum(parts: u64) -> Money {
        Money::from_parts(parts)
    }

    fn line(account: &str, limit: u64) -> Line {
        Line { account: account.into(), window: Window { start: 0, end: 60 }, limit: sum(limit), hard: true }
    }

    fn amount(ceiling: u64, expected: u64) -> Amount {
        Amount { ceiling: sum(ceiling), expected: sum(expected) }
    }

    fn bill(key: Option<&str>) -> Bill {
        Bill { deployment: "d".into(), key: key.map(str::to_owned) }
    }

    fn take(ledger: &Ledger, lines: &[Line], amount: Amount) -> Result<Ticket, Verdict> {
        ledger.try_reserve(lines, amount, bill(None)).unwrap()
    }

    #[test]
    fn the_rule() {
        let look = |spent, reserved, expected| {
            let level = Level {
                spent: sum(spent),
                reserved: sum(reserved),
                expected: sum(expected),
                ..Level::default()
            };
            level.look(sum(100))
        };
        assert_eq!(look(0, 99, 99), Look::Go);
        assert_eq!(look(99, 0, 0), Look::Go, "the last call may cross the limit");
        assert_eq!(look(0, 100, 100), Look::Wait, "nothing is spent: nobody is refused");
        assert_eq!(look(90, 1_000, 1_000), Look::Wait);
        assert_eq!(look(99, 1_000, 1_000), Look::Wait);
        assert_eq!(look(100, 0, 0), Look::Stop);
    }

    #[test]
    fn what_is_reserved_is_given_back_or_charged() {
        let ledger = Ledger::in_memory();
        let lines = [line("a", 100)];
        let level = || ledger.level("a", lines[0].window);
        let mut sent = take(&ledger, &lines, amount(80, 5)).ok().unwrap();
        assert_eq!((level().reserved, level().running), (sum(80), 1));
        drop(take(&ledger, &lines, amount(80, 5)).ok().unwrap());
        assert_eq!((level().reserved, level().spent, level().calls), (sum(80), sum(0), 0));
        sent.send();
        drop(sent);
        assert_eq!((level().reserved, level().spent, level().calls), (sum(0), sum(5), 1));
        take(&ledger, &lines, amount(80, 5)).ok().unwrap().settle_soon(Charge::Cost(sum(95)));
        assert_eq!(take(&ledger, &lines, amount(1, 1)).err(), Some(Verdict::Full((0, level()))));
        // A new window begins with nothing, and what was reserved before it does not touch it.
        let late = [Line { window: Window { start: 60, end: 120 }, ..line("a", 100) }];
        let ticket = take(&ledger, &late, amount(1, 1)).ok().unwrap();
        assert_eq!(ledger.level("a", late[0].window).spent, Money::ZERO);
        // A clock that is set back does not open a past window again.
        let back = take(&ledger, &lines, amount(1, 1)).ok().unwrap();
        ticket.settle_soon(Charge::Cost(sum(3)));
        back.settle_soon(Charge::Cost(sum(4)));
        assert_eq!(ledger.level("a", late[0].window).spent, sum(7));
    }

    #[test]
    fn a_call_goes_only_if_all_its_accounts_let_it() {
        let ledger = Ledger::in_memory();
        let lines = [line("a", 1_000), line("b", 10)];
        let ticket = take(&ledger, &lines, amount(10, 10)).ok().unwrap();
        assert!(matches!(take(&ledger, &lines, amount(10, 10)).err(), Some(Verdict::Wait((1, _)))));
        assert_eq!(ledger.level("a", lines[0].window).running, 1, "a refused call reserves nowhere");
        ticket.settle_soon(Charge::Cost(sum(10)));
        assert!(matches!(take(&ledger, &lines, amount(10, 10)).err(), Some(Verdict::Full((1, _)))));
        let soft = [lines[0].clone(), Line { hard: false, ..lines[1].clone() }];
        take(&ledger, &soft, amount(10, 10)).ok().unwrap().settle_soon(Charge::Unpriced);
        let level = ledger.level("b", lines[1].window);
        assert_eq!((level.spent, level.calls), (sum(10), 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_while_it_is_not_certain() {
        let ledger = Ledger::in_memory();
        let lines = || vec![line("a", 100)];
        let first = take(&ledger, &lines(), amount(100, 1)).ok().unwrap();
        let wait =
            |patience| ledger.reserve(lines, amount(100, 1), bill(None), Duration::from_secs(patience));
        assert!(matches!(wait(5).await, Err(Refusal::Held((0, _)))));
        let begun = Instant::now();
        let ends = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            first.settle(Charge::Cost(sum(99))).await;
        };
        let (second, ()) = tokio::join!(wait(30), ends);
        assert_eq!(begun.elapsed(), Duration::from_secs(2));
        // At the end nobody waits for long.
        let begun = Instant::now();
        assert!(matches!(wait(30).await, Err(Refusal::Held((0, level))) if level.spent == sum(99)));
        assert_eq!(begun.elapsed(), PATIENCE_AT_THE_END);
        second.ok().unwrap().settle(Charge::Cost(sum(1))).await;
        assert!(matches!(wait(30).await, Err(Refusal::Full((0, level))) if level.spent == sum(100)));
    }
}
