//! Records of an engine's calls: to a thread that asks for them, or to a callback on a thread of its own.

use std::sync::Arc;

use liter_llm::telemetry::CallRecords;
use liter_llm::{ErrorKind, LlmError};

use crate::call::{Callback, Until, may_wait};
use crate::engine::{LiterLlmEngine, misuse};
use crate::result::{LiterLlmResult, LiterLlmStatus};
use crate::runtime::leave_signals_to_the_host;

/// Records of an engine's calls. Free it with `liter_llm_records_free`.
pub struct LiterLlmRecords {
    /// The process that began it.
    pid: u32,
    records: Arc<CallRecords>,
    told: bool,
}

/// Tells a callback that no more records come, however its thread ends.
struct Last(Callback);

impl Drop for Last {
    fn drop(&mut self) {
        self.0.call_apart(LiterLlmResult::end());
    }
}

/// The next record or the end; `None` when none came in time.
fn next(records: &CallRecords, until: Until) -> Option<LiterLlmResult> {
    loop {
        // Looked at first: what came before the end is read before it.
        let closed = records.is_closed();
        let left = until.left();
        match records.next_within(left.unwrap_or_default()) {
            Some(record) => return Some(LiterLlmResult::value(record.to_json())),
            None if closed => return Some(LiterLlmResult::end()),
            None if left.is_none() => return None,
            None => {}
        }
    }
}

/// Hands record after record to the callback, then the end.
fn tell(records: &CallRecords, callback: Callback) {
    let last = Last(callback);
    while let Some(record) = next(records, Until::Done).filter(|next| next.status() != LiterLlmStatus::End) {
        last.0.call_apart(record);
    }
}

impl LiterLlmRecords {
    /// Records of the calls that begin from now on; at most `most` wait to be read.
    pub fn new(engine: &LiterLlmEngine, most: usize, callback: Option<Callback>) -> Result<Self, LlmError> {
        let records = Arc::new(engine.client()?.telemetry().records(most));
        if let Some(callback) = callback {
            let records = Arc::clone(&records);
            let work = move || {
                leave_signals_to_the_host();
                tell(&records, callback);
            };
            std::thread::Builder::new().name("liter-llm-record".to_owned()).spawn(work).map_err(|error| {
                LlmError::new(ErrorKind::Connection, format!("no thread for the callback: {error}"))
            })?;
        }
        Ok(Self { pid: std::process::id(), records, told: callback.is_some() })
    }

    fn is_own(&self) -> bool {
        self.pid == std::process::id()
    }

    /// Waits for the next record; `limit` in milliseconds.
    pub fn next(&self, limit: i64) -> Result<LiterLlmResult, LlmError> {
        if !self.is_own() {
            return Err(misuse("the recording was begun in the parent process, before the fork"));
        }
        if self.told {
            return Err(misuse("these records go to their callback"));
        }
        if limit != 0 {
            may_wait()?;
        }
        Ok(next(&self.records, Until::milliseconds(limit)).unwrap_or_else(LiterLlmResult::pending))
    }

    /// How many records found the queue full.
    pub fn dropped(&self) -> u64 {
        self.records.dropped()
    }

    /// Ends the recording; what has come can still be read. One of a parent process is left alone.
    pub fn close(&self) {
        if self.is_own() {
            self.records.close();
        }
    }

    /// Ends it; one of a parent process is left alone, with what it holds.
    pub fn end(self) {
        if self.is_own() {
            self.records.close();
        } else {
            std::mem::forget(self);
        }
    }
}
