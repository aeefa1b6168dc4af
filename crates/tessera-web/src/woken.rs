//! Whether it is worth asking a device again, for one who waits in JavaScript.

use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};

/// See the module.
#[derive(Default)]
pub struct Woken(Mutex<State>);

#[derive(Default)]
struct State {
    woken: bool,
    waits: Option<Waker>,
}

impl Woken {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Ready if it was woken since this was ready the last time.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if std::mem::take(&mut state.woken) {
            return Poll::Ready(());
        }
        state.waits = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        let waits = {
            let mut state = self.state();
            state.woken = true;
            state.waits.take()
        };
        if let Some(waits) = waits {
            waits.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_once_each_time() {
        let (device, page) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
        let waker = Waker::from(page.clone());
        let mut cx = Context::from_waker(&waker);
        assert!(device.poll(&mut cx).is_pending());
        Waker::from(device.clone()).wake();
        assert!(page.state().woken);
        assert!(device.poll(&mut cx).is_ready());
        assert!(device.poll(&mut cx).is_pending());
        // One that comes before anyone waits is not forgotten.
        Waker::from(device.clone()).wake();
        assert!(device.poll(&mut cx).is_ready());
    }
}
