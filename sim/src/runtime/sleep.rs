//! Waiting for a time, by the clock of the node that waits.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::Instant;
use super::executor::{forget, with};

/// Done when the clock of the node that polls it shows a time.
#[derive(Debug)]
pub struct Sleep {
    until: Instant,
    timer: Option<(Duration, u64)>,
}

impl Sleep {
    pub(super) fn until(until: Instant) -> Self {
        Self { until, timer: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let (until, before) = (self.until.since_start(), self.timer.take());
        before.into_iter().for_each(forget);
        self.timer = with(|e| e.wake_at(until, cx.waker()));
        if self.timer.is_some() { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.timer.take().into_iter().for_each(forget);
    }
}

/// The time for something was over.
#[derive(Debug, thiserror::Error)]
#[error("it took too long")]
pub struct Elapsed;

pin_project! {
    /// A future, or that its time was over.
    #[derive(Debug)]
    pub struct Timeout<F> {
        #[pin]
        future: F,
        sleep: Sleep,
    }
}

impl<F> Timeout<F> {
    pub(super) fn new(future: F, sleep: Sleep) -> Self {
        Self { future, sleep }
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(done) = this.future.poll(cx) {
            return Poll::Ready(Ok(done));
        }
        Pin::new(this.sleep).poll(cx).map(|()| Err(Elapsed))
    }
}
