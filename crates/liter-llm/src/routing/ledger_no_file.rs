//! In the place of `ledger_file.rs` where the crate is built without the feature `sqlite`: no file can be opened, so that
//! there is never a book to ask.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::Notify;

use super::ledger::{Charge, Held, Level, Line, Snapshot, Ticket, Verdict};
use crate::core::error::LlmError;

/// A file that there is not.
pub struct FileBook(Infallible);

impl FileBook {
    /// Refuses.
    pub fn open(path: &Path) -> Result<Arc<Self>, LlmError> {
        let what = format!(
            "`budget.path`: `{}` cannot be used: this program was built without liter-llm's feature `sqlite`; switch \
             it on, or leave `path` out to keep budgets in memory",
            path.display()
        );
        Err(LlmError::config("budget.path", what))
    }

    pub fn path(&self) -> &Path {
        match self.0 {}
    }

    pub fn next_id(&self) -> u64 {
        match self.0 {}
    }

    pub fn ended(&self) -> &Notify {
        match self.0 {}
    }

    #[allow(clippy::unused_async, reason = "as the one with a file")]
    pub async fn reserve(&self, _lines: Vec<Line>, _ticket: Ticket) -> Result<Ticket, Verdict> {
        match self.0 {}
    }

    pub fn settle(&self, _held: Held, _charge: Charge) {
        match self.0 {}
    }

    #[allow(clippy::unused_async, reason = "as the one with a file")]
    pub async fn settle_and_wait(&self, _held: Held, _charge: Charge) {
        match self.0 {}
    }

    pub fn level(&self, _account: &str, _start: i64) -> Level {
        match self.0 {}
    }

    pub fn snapshot(&self) -> Result<Snapshot, String> {
        match self.0 {}
    }

    #[cfg(test)]
    pub fn end_writer(&self) {
        match self.0 {}
    }

    pub fn flush(&self) {
        match self.0 {}
    }
}
