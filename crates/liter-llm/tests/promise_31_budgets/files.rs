//! Budgets kept in a file: shared, restarted, broken, left behind.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use liter_llm::routing::router::Router;
use liter_llm::{ErrorKind, LlmProvider as _, Money};
use serde_json::json;

use crate::model::{
    CALLS, Model, ask, calls, deployment, dollars, keyed, router, runs, spend, spent, storm, sum,
};

pub fn file(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.sqlite", std::process::id()));
    forget(&path);
    path
}

pub fn forget(path: &Path) {
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{end}", path.display()));
    }
}

const SHARED: &str = "LITER_LLM_ROW_31_FILE";
const SHARED_LIMIT: u64 = 10_000;

fn shared_router(model: &Arc<Model>, path: &Path) -> Arc<Router> {
    let budget = json!({ "usd": dollars(SHARED_LIMIT), "per": "month", "path": path });
    router(vec![deployment("a", model, Some(500), &[])], budget)
}

/// The other process's part; does nothing unless it is started by the test below.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_31_one_process_of_two() {
    let Ok(path) = std::env::var(SHARED) else { return };
    let model = Arc::new(Model::default());
    let router = shared_router(&model, Path::new(&path));
    storm(&router, &model, (SHARED_LIMIT, 500), |index| ask(80 + index % 11, "")).await;
    println!("given {}", model.given.load(Ordering::SeqCst));
}

#[test]
fn row_31_two_processes_share_a_file() {
    let myself = std::env::current_exe().unwrap();
    for run in 0..runs() {
        let path = file(&format!("row-31-shared-{run}"));
        let start = |_| {
            Command::new(&myself)
                .args(["--exact", "files::row_31_one_process_of_two", "--nocapture"])
                .env(SHARED, &path)
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        };
        let processes: Vec<_> = (0..2).map(start).collect();
        let given: Vec<u64> = processes
            .into_iter()
            .map(|process| {
                let output = process.wait_with_output().unwrap();
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
                let given = text.lines().find_map(|line| line.split_once("given ")).unwrap().1;
                given.trim().parse().unwrap()
            })
            .collect();
        let total = given.iter().sum::<u64>();
        assert!((SHARED_LIMIT..=SHARED_LIMIT + 90).contains(&total), "{given:?}");
        // A third process finds what the two have spent.
        let router = shared_router(&Arc::default(), &path);
        let [level] = &*spend(&router).budgets else { panic!() };
        assert_eq!((level.spent, level.reserved, level.running), (sum(total), Money::ZERO, 0));
        drop(router);
        forget(&path);
    }
}

#[tokio::test]
async fn row_31_money_survives_a_restart() {
    let path = file("row-31-restart");
    let model = Arc::new(Model::default());
    let router = shared_router(&model, &path);
    let attempts = calls(&router);
    attempts.generate(keyed(ask(400, ""), "alice")).await.unwrap();
    let mut stream = attempts.stream(ask(300, "")).await.unwrap();
    while stream.next().await.is_some() {}
    drop((stream, attempts, router));
    let router = shared_router(&model, &path);
    let all = spend(&router);
    assert_eq!((all.budgets[0].spent, all.budgets[0].calls), (sum(700), 2));
    assert_eq!((all.deployments[0].name.as_str(), all.deployments[0].total.spent), ("a", sum(700)));
    assert_eq!((all.keys[0].name.as_str(), all.keys[0].total.spent), ("alice", sum(400)));
    let shown = serde_json::to_value(&all).unwrap();
    assert_eq!(
        (&shown["budgets"][0]["spent"], &shown["keys"][0]["spent"]),
        (&json!("0.0007"), &json!("0.0004"))
    );
    // With the limit spent, the next start refuses before the first call.
    calls(&router).generate(ask(9_400, "")).await.unwrap();
    drop(router);
    let router = shared_router(&model, &path);
    let before = model.answered.load(Ordering::SeqCst);
    let error = calls(&router).generate(ask(1, "")).await.unwrap_err();
    assert_eq!((error.kind(), model.answered.load(Ordering::SeqCst)), (ErrorKind::BudgetExceeded, before));
    drop(router);
    forget(&path);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_31_money_survives_a_reload_midway() {
    for _ in 0..runs() {
        let model = Arc::new(Model::default());
        let make = || {
            router(
                vec![deployment("a", &model, Some(500), &[])],
                json!({ "usd": dollars(5_000), "per": "month" }),
            )
        };
        let old = make();
        let (first, new) = (calls(&old), make());
        let early = join_all((0..CALLS / 2).map(|_| first.generate(ask(50, ""))));
        let late = async {
            tokio::time::sleep(Duration::from_millis(2)).await;
            // Calls run through the old one while the new one takes over.
            new.take_over(&old);
            let second = calls(&new);
            join_all((0..CALLS / 2).map(|_| second.generate(ask(50, "")))).await
        };
        let (early, late) = tokio::join!(early, late);
        let answered = early.iter().chain(&late).filter(|answer| answer.is_ok()).count() as u64;
        assert_eq!((spent(&new), answered), (sum(model.given.load(Ordering::SeqCst)), 100));
        assert_eq!(spent(&new), spent(&old));
    }
}

#[tokio::test]
async fn row_31_a_file_that_breaks_later_makes_no_call_free() {
    let path = file("row-31-broken");
    let model = Arc::new(Model::default());
    let router = shared_router(&model, &path);
    let attempts = calls(&router);
    attempts.generate(ask(10, "")).await.unwrap();
    let running = attempts.stream(ask(20, "")).await.unwrap();
    let breaker = rusqlite::Connection::open(&path).unwrap();
    breaker.execute_batch("ALTER TABLE reservations RENAME TO hidden").unwrap();
    let error = attempts.generate(ask(10, "")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BudgetExceeded);
    assert!(error.to_string().contains("cannot be written"), "{error}");
    assert_eq!(model.answered.load(Ordering::SeqCst), 2, "the call did not go");
    // What ends meanwhile is written when it can be.
    let chunks: Vec<_> = running.collect().await;
    assert_eq!(chunks.len(), 3);
    breaker.execute_batch("ALTER TABLE hidden RENAME TO reservations").unwrap();
    attempts.generate(ask(10, "")).await.unwrap();
    assert_eq!(spent(&router), sum(40));
    drop((attempts, router));
    forget(&path);
}

#[tokio::test]
async fn row_31_a_dead_process_holds_no_money_for_ever() {
    let path = file("row-31-dead");
    let model = Arc::new(Model::default());
    drop(shared_router(&model, &path));
    let db = rusqlite::Connection::open(&path).unwrap();
    // A process that reserved nearly everything and has not been heard of for a while.
    db.execute_batch(
        "BEGIN IMMEDIATE; INSERT INTO owners VALUES('4711-x', 1);
         INSERT INTO reservations SELECT 'router/month', unixepoch('now', 'start of month'), '4711-x', 1,
            9900000000, 300000000; COMMIT;",
    )
    .unwrap();
    let router = shared_router(&model, &path);
    let [level] = &*spend(&router).budgets else { panic!() };
    assert_eq!((level.spent, level.reserved, level.calls), (sum(300), Money::ZERO, 1));
    // One that lives does: calls wait for it.
    db.execute_batch(
        "BEGIN IMMEDIATE; INSERT INTO owners VALUES('4712-x', unixepoch('now') + 30);
         INSERT INTO reservations SELECT 'router/month', unixepoch('now', 'start of month'), '4712-x', 1,
            9900000000, 300000000; COMMIT;",
    )
    .unwrap();
    let error = calls(&router).generate(ask(1, "").with_timeout(0.3)).await.unwrap_err();
    assert!(error.to_string().contains("is held by running calls"), "{error}");
    db.execute_batch("DELETE FROM reservations").unwrap();
    calls(&router).generate(ask(1, "")).await.unwrap();
    drop(router);
    forget(&path);
}
