//! Whether a request made a new connection or went over a kept one; the HTTP client does not say it of a failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tower_service::Service;

tokio::task_local! {
    static CONNECTING: Connecting;
}

/// Whether a connection was begun for a request.
#[derive(Clone, Default)]
pub(super) struct Connecting(Arc<AtomicBool>);

impl Connecting {
    /// True from the moment the client began to connect. A request that got a kept connection meanwhile counts as one
    /// on a new connection, which is the cautious side.
    pub(super) fn began(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Notes connections that are begun while `request` runs.
pub(super) fn noting<F: Future>(request: F) -> (impl Future<Output = F::Output>, Connecting) {
    let connecting = Connecting::default();
    (CONNECTING.scope(connecting.clone(), request), connecting)
}

/// A connector that notes its use.
#[derive(Clone)]
pub(super) struct Noted<S>(pub(super) S);

impl<S: Service<R>, R> Service<R> for Noted<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        // The client connects inside the request's own future; what it does elsewhere concerns no request.
        let _ = CONNECTING.try_with(|connecting| connecting.0.store(true, Ordering::Release));
        self.0.call(request)
    }
}
