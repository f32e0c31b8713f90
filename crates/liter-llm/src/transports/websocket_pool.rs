//! WebSockets kept open between answers: one answer at a time on each.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::websockets::WebSocketConnection;

/// How long an unused connection is kept. OpenAI ends a connection after 60 minutes in all; a minute of rest keeps
/// well clear of what proxies on the way forget.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

type Idle = Arc<Mutex<Vec<(Instant, Box<WebSocketConnection>)>>>;

/// The open connections of one deployment.
#[derive(Default, Clone)]
pub struct WebSocketPool {
    idle: Idle,
}

impl WebSocketPool {
    /// An open connection that rested shortly enough, if there is one.
    #[must_use]
    pub fn take(&self) -> Option<WebSocketLease> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(since, _)| since.elapsed() < IDLE_LIMIT);
        let (_, connection) = idle.pop()?;
        Some(WebSocketLease { connection, home: Arc::clone(&self.idle) })
    }

    /// A lease on a new connection.
    #[must_use]
    pub fn lease(&self, connection: Box<WebSocketConnection>) -> WebSocketLease {
        WebSocketLease { connection, home: Arc::clone(&self.idle) }
    }
}

/// A connection in use. Dropping it closes the connection; only [`give_back`](Self::give_back) keeps it.
pub struct WebSocketLease {
    /// The connection.
    pub connection: Box<WebSocketConnection>,
    home: Idle,
}

impl WebSocketLease {
    /// Keeps the connection for the next answer.
    pub fn give_back(self) {
        self.home.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), self.connection));
    }
}
