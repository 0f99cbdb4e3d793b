//! Work that goes on when nobody waits for it any more.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::runtime::Handle;

/// The work ended in a panic, or was polled after its end.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended;

/// A future that is carried to its end. Whoever waits for it polls it; if they go away before, a task of
/// its own takes over. That costs no task and no change of threads where they stay, as most do.
pub struct Lasting<F>(Option<Pin<Box<F>>>)
where
    F: Future<Output: Send> + Send + 'static;

impl<F> Lasting<F>
where
    F: Future<Output: Send> + Send + 'static,
{
    pub fn new(work: F) -> Self {
        Lasting(Some(Box::pin(work)))
    }
}

impl<F> Future for Lasting<F>
where
    F: Future<Output: Send> + Send + 'static,
{
    type Output = Result<F::Output, Ended>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.0 else {
            return Poll::Ready(Err(Ended));
        };
        let step = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx)));
        let outcome = match step {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(outcome)) => Ok(outcome),
            Err(_) => Err(Ended),
        };
        self.0 = None;
        Poll::Ready(outcome)
    }
}

impl<F> Drop for Lasting<F>
where
    F: Future<Output: Send> + Send + 'static,
{
    fn drop(&mut self) {
        // Where there is no runtime any more, nothing goes on.
        if let Some(work) = self.0.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn work_goes_on_when_nobody_waits() {
        let (begin, begun) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel();
        let mut work = Lasting::new(async move {
            let _ = begun.await;
            let _ = end.send(7);
        });
        assert!(futures::poll!(&mut work).is_pending());
        drop(work);
        begin.send(()).unwrap();
        assert_eq!(ended.await, Ok(7));
    }

    #[tokio::test]
    async fn a_panic_is_an_outcome_and_happens_once() {
        assert_eq!(Lasting::new(async { 7 }).await, Ok(7));
        let mut work = Lasting::new(async {
            tokio::task::yield_now().await;
            panic!("as intended");
        });
        assert_eq!((&mut work).await, Err::<(), _>(Ended));
        assert_eq!((&mut work).await, Err(Ended));
    }
}
