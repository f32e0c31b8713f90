//! The ledger in an SQLite file: one thread for each process writes it, several processes share it.
//!
//! Calls hand their reservations to the thread, which writes all that have come meanwhile in one transaction that takes
//! the write lock at its beginning: what it reads is what every process has written. A process shows that it is alive
//! by moving its time limit on; what a dead one has reserved is charged as what such calls usually cost.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use tokio::sync::{Notify, oneshot};

use super::ledger::{Charge, Held, Level, Line, Snapshot, Ticket, Total, UNRESERVED, Verdict, judge};
use super::money::Money;
use crate::core::error::LlmError;

/// How long an ended call waits until that is written; it will be, and what is asked later comes after it.
const WRITTEN: Duration = Duration::from_millis(250);
/// How long a transaction waits for another process's.
const BUSY: Duration = Duration::from_secs(5);
/// A process that has written nothing for so many seconds is dead.
const ALIVE: i64 = 60;
/// How often a process shows that it is alive.
const BEAT: Duration = Duration::from_secs(15);
/// The most jobs of one transaction.
const BATCH: usize = 256;
/// Accounts are kept this many seconds after their window began: 100 days.
const KEPT: i64 = 100 * 86_400;
/// The most accounts remembered outside of the file; beyond that all are forgotten, until they are read again.
const SHOWN: usize = 65_536;
/// The most that one reservation holds, about 560 USD: SQLite's sum of many must not overflow.
const MOST_RESERVED: i64 = i64::MAX >> 14;
/// The layout of the file that this version reads and writes.
const LAYOUT: i64 = 1;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS accounts(
        name TEXT NOT NULL, start INTEGER NOT NULL, spent INTEGER NOT NULL, calls INTEGER NOT NULL,
        PRIMARY KEY(name, start)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS reservations(
        account TEXT NOT NULL, start INTEGER NOT NULL, owner TEXT NOT NULL, id INTEGER NOT NULL,
        ceiling INTEGER NOT NULL, expected INTEGER NOT NULL,
        PRIMARY KEY(account, start, owner, id)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS owners(name TEXT PRIMARY KEY, expires INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS totals(
        kind TEXT NOT NULL, name TEXT NOT NULL, spent INTEGER NOT NULL, calls INTEGER NOT NULL,
        unpriced INTEGER NOT NULL, PRIMARY KEY(kind, name)) WITHOUT ROWID;
    PRAGMA user_version = 1;
";

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

enum Job {
    Reserve { lines: Vec<Line>, ticket: Ticket, reply: oneshot::Sender<Result<Ticket, Verdict>> },
    Settle { held: Held, charge: Charge, reply: Option<oneshot::Sender<()>> },
    Read(Sender<Result<Snapshot, String>>),
    Flush(Sender<()>),
}

/// What the thread tells the calls.
#[derive(Default)]
struct Shared {
    ended: Notify,
    /// Accounts as last read: start of the window, level.
    levels: Mutex<HashMap<Arc<str>, (i64, Level)>>,
}

impl Shared {
    fn show(&self, account: &Arc<str>, start: i64, level: Level) {
        let mut levels = locked(&self.levels);
        match levels.get_mut(account) {
            Some(shown) if shown.0 > start => {}
            Some(shown) => *shown = (start, level),
            None => {
                if levels.len() >= SHOWN {
                    levels.clear();
                }
                levels.insert(Arc::clone(account), (start, level));
            }
        }
    }
}

struct Worker {
    process: u32,
    jobs: Sender<Job>,
}

/// The ledger in a file.
pub(super) struct FileBook {
    path: PathBuf,
    shared: Arc<Shared>,
    worker: Mutex<Worker>,
    ids: AtomicU64,
}

impl FileBook {
    pub fn open(path: &Path) -> Result<Arc<Self>, LlmError> {
        let shared = Arc::new(Shared::default());
        let jobs = Writer::start(path, &shared).map_err(|why| {
            let text = format!("`budget.path`: `{}` cannot be used: {why}", path.display());
            LlmError::config("budget.path", text)
        })?;
        let worker = Mutex::new(Worker { process: std::process::id(), jobs });
        Ok(Arc::new(Self { path: path.to_owned(), shared, worker, ids: AtomicU64::new(1) }))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    pub fn ended(&self) -> &Notify {
        &self.shared.ended
    }

    fn send(&self, job: Job) -> Result<(), String> {
        let mut worker = locked(&self.worker);
        if worker.process != std::process::id() {
            // A forked child has no threads, and may not touch the parent's connection.
            let jobs = Writer::start(&self.path, &self.shared)?;
            *worker = Worker { process: std::process::id(), jobs };
        }
        let unsent = worker.jobs.send(job);
        // Dropping a job that was not sent may drop a ticket, which comes back here to be settled.
        drop(worker);
        unsent.map_err(|_| "its thread has ended".to_owned())
    }

    /// Reserves for `ticket`, now or not.
    pub async fn reserve(&self, lines: Vec<Line>, ticket: Ticket) -> Result<Ticket, Verdict> {
        let (reply, answer) = oneshot::channel();
        // What cannot be sent comes back in the error, and the ticket is dropped with it: nothing is reserved.
        self.send(Job::Reserve { lines, ticket, reply }).map_err(Verdict::Failed)?;
        answer.await.unwrap_or_else(|_| Err(Verdict::Failed("its thread has ended".to_owned())))
    }

    pub fn settle(&self, held: Held, charge: Charge) {
        // Without its thread the process is at its end; what is reserved in the file is charged when its time is up.
        let _ = self.send(Job::Settle { held, charge, reply: None });
    }

    pub async fn settle_and_wait(&self, held: Held, charge: Charge) {
        let (reply, done) = oneshot::channel();
        if self.send(Job::Settle { held, charge, reply: Some(reply) }).is_ok() {
            // An answer is not held up, or lost to its deadline, by another process's transaction.
            let _ = tokio::time::timeout(WRITTEN, done).await;
        }
    }

    pub fn level(&self, account: &str, start: i64) -> Level {
        let levels = locked(&self.shared.levels);
        levels.get(account).filter(|shown| shown.0 >= start).map_or_else(Level::default, |shown| shown.1)
    }

    pub fn snapshot(&self) -> Result<Snapshot, String> {
        let (reply, answer) = mpsc::channel();
        self.send(Job::Read(reply))?;
        answer.recv_timeout(2 * BUSY).unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Ends the thread, as a panic would.
    #[cfg(test)]
    pub fn end_writer(&self) {
        locked(&self.worker).jobs = mpsc::channel().0;
    }

    /// Waits until what has ended is written.
    pub fn flush(&self) {
        if locked(&self.worker).process != std::process::id() {
            return;
        }
        let (reply, done) = mpsc::channel();
        if self.send(Job::Flush(reply)).is_ok() {
            let _ = done.recv_timeout(Duration::from_secs(2));
        }
    }
}

/// A settlement: of whom, and how much.
type End = (Held, Charge);

/// The thread that owns the connection.
struct Writer {
    db: Connection,
    owner: String,
    shared: Arc<Shared>,
    /// Ended calls that could not be written yet.
    unwritten: Vec<End>,
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn level(tx: &Transaction<'_>, account: &str, start: i64) -> rusqlite::Result<Level> {
    let mut booked = tx.prepare_cached("SELECT spent, calls FROM accounts WHERE name = ?1 AND start = ?2")?;
    let mut rows = booked.query(params![account, start])?;
    let (spent, calls): (i64, i64) = match rows.next()? {
        Some(row) => (row.get(0)?, row.get(1)?),
        None => (0, 0),
    };
    let mut running = tx.prepare_cached(
        "SELECT coalesce(sum(ceiling), 0), coalesce(sum(expected), 0), count(*) FROM reservations
         WHERE account = ?1 AND start = ?2",
    )?;
    running.query_row(params![account, start], |row| {
        Ok(Level {
            spent: Money::from_stored(spent),
            reserved: Money::from_stored(row.get(0)?),
            expected: Money::from_stored(row.get(1)?),
            calls: u64::try_from(calls).unwrap_or_default(),
            running: u64::try_from(row.get::<_, i64>(2)?).unwrap_or_default(),
        })
    })
}

fn book(tx: &Transaction<'_>, account: &str, start: i64, cost: Money, calls: i64) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO accounts VALUES(?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET spent = min(spent + excluded.spent, 9223372036854775807),
         calls = calls + excluded.calls",
    )?
    .execute(params![account, start, cost.stored(), calls])?;
    Ok(())
}

impl Writer {
    fn start(path: &Path, shared: &Arc<Shared>) -> Result<Sender<Job>, String> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| error.to_string())?;
        let owner = format!("{}-{:016x}", std::process::id(), u64::from_ne_bytes(random));
        let mut writer = Self::open(path, owner, Arc::clone(shared)).map_err(|error| error.to_string())?;
        let (jobs, queue) = mpsc::channel();
        std::thread::Builder::new()
            .name("liter-llm-ledger".to_owned())
            .spawn(move || writer.run(&queue))
            .map_err(|error| error.to_string())?;
        Ok(jobs)
    }

    fn open(path: &Path, owner: String, shared: Arc<Shared>) -> rusqlite::Result<Self> {
        let mut db = Connection::open(path)?;
        db.busy_timeout(BUSY)?;
        db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0))?;
        db.execute_batch("PRAGMA synchronous = NORMAL")?;
        // Several processes may make the file at once: the tables are made under the write lock. And whether it can be
        // written is to be known now, not at the first call.
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let layout: i64 = tx.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let tables: i64 = tx.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if layout != LAYOUT && (layout != 0 || tables != 0) {
            let what = "it is no ledger of this version".to_owned();
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOTADB);
            return Err(rusqlite::Error::SqliteFailure(code, Some(what)));
        }
        tx.execute_batch(TABLES)?;
        let now = seconds();
        tx.execute("DELETE FROM accounts WHERE start < ?1", [now - KEPT])?;
        tx.execute("INSERT INTO owners VALUES(?1, ?2)", params![owner, now + ALIVE])?;
        bury(&tx, now)?;
        {
            let mut newest = tx.prepare("SELECT name, max(start) FROM accounts GROUP BY name")?;
            let mut rows = newest.query([])?;
            while let Some(row) = rows.next()? {
                let (name, start) = (row.get::<_, String>(0)?, row.get(1)?);
                let level = level(&tx, &name, start)?;
                shared.show(&Arc::from(name), start, level);
            }
        }
        tx.commit()?;
        Ok(Self { db, owner, shared, unwritten: Vec::new() })
    }

    fn run(&mut self, queue: &Receiver<Job>) {
        loop {
            let jobs: Vec<Job> = match queue.recv_timeout(BEAT) {
                Ok(first) => std::iter::once(first).chain(queue.try_iter().take(BATCH - 1)).collect(),
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            self.work(jobs);
        }
        self.work(Vec::new());
        // Without reservations nobody need wait for this owner's time to run out.
        let _ = self.db.execute(
            "DELETE FROM owners WHERE name = ?1 AND NOT EXISTS (SELECT 1 FROM reservations WHERE owner = ?1)",
            [&self.owner],
        );
    }

    fn work(&mut self, jobs: Vec<Job>) {
        let mut asked = Vec::new();
        let mut written_replies = Vec::new();
        let mut readers = Vec::new();
        let mut flushes = Vec::new();
        for job in jobs {
            match job {
                Job::Reserve { lines, ticket, reply } => asked.push((lines, ticket, reply)),
                Job::Settle { held, charge, reply } => {
                    self.unwritten.push((held, charge));
                    written_replies.extend(reply);
                }
                Job::Read(reply) => readers.push(reply),
                Job::Flush(reply) => flushes.push(reply),
            }
        }
        let mut wanted: Vec<_> =
            asked.iter_mut().map(|(lines, ticket, _)| (&**lines, &mut ticket.held)).collect();
        let written = self.write(&mut wanted);
        if let Ok(written) = &written {
            self.unwritten.clear();
            for ((account, start), level) in &written.levels {
                self.shared.show(account, *start, *level);
            }
        }
        self.shared.ended.notify_waiters();
        for reply in written_replies {
            let _ = reply.send(());
        }
        let verdicts = match written {
            Ok(written) => written.verdicts,
            Err(error) => vec![Verdict::Failed(error.to_string()); asked.len()],
        };
        for ((_, ticket, reply), verdict) in asked.into_iter().zip(verdicts) {
            // A caller that has gone meanwhile drops the ticket, and with it what is reserved.
            let _ = reply.send(match verdict {
                Verdict::Reserved => Ok(ticket),
                verdict => Err(ticket.refused(verdict)),
            });
        }
        for reply in readers {
            let _ = reply.send(self.read().map_err(|error| error.to_string()));
        }
        for reply in flushes {
            let _ = reply.send(());
        }
    }

    /// One transaction: this process is alive, calls have ended, others want to go.
    fn write(&mut self, wanted: &mut [(&[Line], &mut Held)]) -> rusqlite::Result<Written> {
        let now = seconds();
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.prepare_cached(
            "INSERT INTO owners VALUES(?1, ?2) ON CONFLICT DO UPDATE SET expires = excluded.expires",
        )?
        .execute(params![self.owner, now + ALIVE])?;
        bury(&tx, now)?;
        let mut levels = HashMap::new();
        // Ended calls first: they make room for the others.
        for (held, charge) in &self.unwritten {
            settle(&tx, &self.owner, held, *charge)?;
            for (account, start) in &held.lines {
                levels.insert((Arc::clone(account), *start), Level::default());
            }
        }
        for ((account, start), shown) in &mut levels {
            *shown = level(&tx, account, *start)?;
        }
        let mut verdicts = Vec::with_capacity(wanted.len());
        for (lines, held) in wanted {
            let mut found = Vec::with_capacity(lines.len());
            for line in *lines {
                let place = (Arc::clone(&line.account), line.window.start);
                let level = match levels.get(&place) {
                    Some(level) => *level,
                    None => level(&tx, &line.account, line.window.start)?,
                };
                levels.insert(place, level);
                found.push(level);
            }
            let verdict = judge(lines, found);
            if verdict == Verdict::Reserved {
                held.lines =
                    lines.iter().map(|line| (Arc::clone(&line.account), line.window.start)).collect();
                for place in &held.lines {
                    reserve(&tx, &self.owner, held, place)?;
                    let level = levels.entry(place.clone()).or_default();
                    level.reserved = level.reserved.plus(held.amount.ceiling);
                    level.expected = level.expected.plus(held.amount.expected);
                    level.running += 1;
                }
            }
            verdicts.push(verdict);
        }
        tx.commit()?;
        Ok(Written { verdicts, levels })
    }

    fn read(&mut self) -> rusqlite::Result<Snapshot> {
        let tx = self.db.transaction()?;
        let mut snapshot = Snapshot::default();
        let names = "SELECT name, start FROM accounts UNION SELECT account, start FROM reservations";
        let mut names = tx.prepare_cached(names)?;
        for place in names.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))? {
            let (name, start) = place?;
            let level = level(&tx, &name, start)?;
            snapshot.accounts.push((Arc::from(name), start, level));
        }
        let mut totals = tx.prepare_cached("SELECT kind, name, spent, calls, unpriced FROM totals")?;
        let mut rows = totals.query([])?;
        while let Some(row) = rows.next()? {
            let count = |value: i64| u64::try_from(value).unwrap_or_default();
            let total = Total {
                spent: Money::from_stored(row.get(2)?),
                calls: count(row.get(3)?),
                unpriced: count(row.get(4)?),
            };
            let of = match row.get::<_, String>(0)?.as_str() {
                KEY => &mut snapshot.keys,
                _ => &mut snapshot.deployments,
            };
            of.push((row.get(1)?, total));
        }
        Ok(snapshot)
    }
}

/// What came of a transaction.
struct Written {
    verdicts: Vec<Verdict>,
    levels: HashMap<(Arc<str>, i64), Level>,
}

const DEPLOYMENT: &str = "deployment";
const KEY: &str = "key";

fn reserve(
    tx: &Transaction<'_>,
    owner: &str,
    held: &Held,
    (account, start): &(Arc<str>, i64),
) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT INTO reservations VALUES(?1, ?2, ?3, ?4, ?5, ?6)")?.execute(params![
        account,
        start,
        owner,
        number(held.id),
        held.amount.ceiling.stored().min(MOST_RESERVED),
        held.amount.expected.stored().min(MOST_RESERVED)
    ])?;
    Ok(())
}

fn settle(tx: &Transaction<'_>, owner: &str, held: &Held, charge: Charge) -> rusqlite::Result<()> {
    let (cost, calls, unpriced) = match charge {
        Charge::Nothing => (Money::ZERO, 0, 0),
        Charge::Cost(cost) => (cost, 1, 0),
        Charge::Unpriced => (Money::ZERO, 1, 1),
    };
    for (account, start) in &held.lines {
        let removed = tx
            .prepare_cached(
                "DELETE FROM reservations WHERE account = ?1 AND start = ?2 AND owner = ?3 AND id = ?4",
            )?
            .execute(params![account, start, owner, number(held.id)])?;
        // One that is gone was charged what is usual when this process was taken for dead.
        let buried = removed == 0 && held.id != UNRESERVED;
        let (cost, calls) = if buried { (cost.minus(held.amount.expected), 0) } else { (cost, calls) };
        if cost > Money::ZERO || calls > 0 {
            book(tx, account, *start, cost, calls)?;
        }
    }
    if calls > 0 {
        let key = held.bill.key.as_deref().map(|key| (KEY, key));
        for (kind, name) in std::iter::once((DEPLOYMENT, &*held.bill.deployment)).chain(key) {
            tx.prepare_cached(
                "INSERT INTO totals VALUES(?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE SET
                 spent = min(spent + excluded.spent, 9223372036854775807), calls = calls + excluded.calls,
                 unpriced = unpriced + excluded.unpriced",
            )?
            .execute(params![kind, name, cost.stored(), calls, unpriced])?;
        }
    }
    Ok(())
}

/// Charges what dead processes have reserved as such calls usually cost: nobody knows what came of them.
fn bury(tx: &Transaction<'_>, now: i64) -> rusqlite::Result<()> {
    let dead = tx.prepare_cached("DELETE FROM owners WHERE expires < ?1")?.execute([now])?;
    if dead == 0 {
        return Ok(());
    }
    const LEFT: &str = "FROM reservations WHERE owner NOT IN (SELECT name FROM owners)";
    let mut left = tx.prepare(&format!("SELECT account, start, expected {LEFT}"))?;
    let mut rows = left.query([])?;
    while let Some(row) = rows.next()? {
        book(tx, &row.get::<_, String>(0)?, row.get(1)?, Money::from_stored(row.get(2)?), 1)?;
    }
    tx.execute(&format!("DELETE {LEFT}"), [])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::routing::ledger::{Amount, Bill, Ledger, Window};

    fn line() -> Line {
        let window = Window { start: 0, end: 60 };
        Line { account: "router/day".into(), window, limit: Money::from_parts(100), hard: false }
    }

    fn bill() -> Bill {
        Bill { deployment: "d".into(), key: None }
    }

    fn file(name: &str) -> PathBuf {
        let name = format!("liter-llm-{name}-{}-{}.db", std::process::id(), seconds());
        std::env::temp_dir().join(name)
    }

    fn forget(path: &Path) {
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", path.display()));
        }
    }

    #[tokio::test]
    async fn sums_beyond_what_the_file_can_hold_stay_there() {
        let path = file("sums");
        let ledger = Ledger::at(&path).unwrap();
        let huge = Money::from_parts(u64::MAX);
        let amount = Amount { ceiling: huge, expected: huge };
        let reserve = async || ledger.reserve(|| vec![line()], amount, bill(), Duration::ZERO).await.unwrap();
        let (one, other) = (reserve().await, reserve().await);
        one.settle(Charge::Cost(huge)).await;
        other.settle(Charge::Cost(huge)).await;
        let snapshot = ledger.snapshot().unwrap();
        let (_, _, level) = &snapshot.accounts[0];
        assert_eq!((level.calls, level.running, level.spent.stored()), (2, 0, i64::MAX));
        assert_eq!((snapshot.deployments[0].1.calls, snapshot.deployments[0].1.unpriced), (2, 0));
        drop(ledger);
        forget(&path);
    }

    #[tokio::test]
    async fn an_answer_does_not_wait_for_another_process() {
        let path = file("locked");
        let ledger = Ledger::at(&path).unwrap();
        let ticket =
            ledger.reserve(|| vec![line()], Amount::default(), bill(), Duration::ZERO).await.unwrap();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let begun = std::time::Instant::now();
        ticket.settle(Charge::Cost(Money::from_parts(7))).await;
        assert!(begun.elapsed() < Duration::from_secs(2));
        other.execute_batch("COMMIT").unwrap();
        assert_eq!(ledger.snapshot().unwrap().accounts[0].2.spent, Money::from_parts(7));
        drop(ledger);
        forget(&path);
    }

    #[test]
    fn a_writer_that_has_ended_refuses_and_holds_nobody() {
        let path = file("ended");
        let ledger = Ledger::at(&path).unwrap();
        ledger.end_writer();
        let (done, ended) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let amount = Amount::default();
            let hard = || vec![Line { hard: true, ..line() }];
            let refused = runtime.block_on(ledger.reserve(hard, amount, bill(), Duration::ZERO)).is_err();
            let _ = done.send(refused);
        });
        assert_eq!(ended.recv_timeout(Duration::from_secs(10)), Ok(true));
        forget(&path);
    }
}
