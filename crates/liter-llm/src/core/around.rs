//! What a layer does before and after the call of what it wraps, without moving the answer.

use std::future::poll_fn;
use std::task::Poll;

use futures_util::future::BoxFuture;

use super::error::LlmError;

/// A call under way.
pub(crate) type Answering<'a, T> = BoxFuture<'a, Result<T, LlmError>>;

/// A call that `begin` sets out on when it is first polled, and that `end` looks at when it is over. What `begin` gives
/// beside the call is kept until then, and dropped with the call when that is given up.
///
/// An `async` block would do the same, but moves what it awaits several times, and an answer is large.
pub(crate) fn around<'a, T, G>(
    begin: impl FnOnce() -> Result<(Answering<'a, T>, G), LlmError> + Send + 'a,
    end: impl Fn(&mut G, &mut Result<T, LlmError>) + Send + 'a,
) -> Answering<'a, T>
where
    T: 'a,
    G: Send + 'a,
{
    let mut begin = Some(begin);
    let mut running = None;
    Box::pin(poll_fn(move |context| {
        if let Some(begin) = begin.take() {
            match begin() {
                Ok(begun) => running = Some(begun),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        // None: polled again after its end, which nobody may do.
        let Some((call, kept)) = &mut running else { return Poll::Pending };
        let mut polled = call.as_mut().poll(context);
        if let Poll::Ready(outcome) = &mut polled {
            end(kept, outcome);
            running = None;
        }
        polled
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    use std::time::Duration;

    use super::*;

    struct Guard<'a>(&'a AtomicU32);

    impl Drop for Guard<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_is_told_once_and_what_is_kept_is_dropped() {
        let (begun, dropped) = (AtomicU32::new(0), AtomicU32::new(0));
        let call = |answer: Result<u32, LlmError>| {
            around(
                || {
                    begun.fetch_add(1, Relaxed);
                    let inner: Answering<'_, u32> = Box::pin(async {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        answer
                    });
                    Ok((inner, Guard(&dropped)))
                },
                |_, outcome| *outcome = outcome.as_ref().map(|value| value + 1).map_err(Clone::clone),
            )
        };
        let waiting = call(Ok(1));
        assert_eq!(begun.load(Relaxed), 0, "it begins when it is polled");
        assert_eq!((waiting.await.unwrap(), dropped.load(Relaxed)), (2, 1));
        call(Err(LlmError::Timeout)).await.unwrap_err();
        assert_eq!(dropped.load(Relaxed), 2);
        // Given up half-way.
        let late = tokio::time::timeout(Duration::from_millis(1), call(Ok(1))).await;
        assert!(late.is_err());
        assert_eq!((begun.load(Relaxed), dropped.load(Relaxed)), (3, 3));
    }

    #[tokio::test]
    async fn what_cannot_begin_fails() {
        let call = around::<(), ()>(|| Err(LlmError::Timeout), |(), _| unreachable!());
        assert_eq!(call.await.unwrap_err().kind(), crate::core::error::ErrorKind::Timeout);
    }
}
