//! Work that takes long for long bodies: away from the thread that carries the connections, as much at once as
//! there are cores, and no longer than somebody waits for it. Models are loaded elsewhere, so neither holds the
//! other up.

use super::error::{ApiError, ApiResult};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tessera_openai::wanted::while_wanted;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Work on fewer bytes is done at once.
const SHORT: usize = 16 << 10;

/// From here on a body is long. Encoding takes some hundred bytes of memory for each byte of text, so only few
/// long ones are worked on at once, whatever the number of cores, and what they took is given back.
const LONG: usize = 256 << 10;
const LONG_AT_ONCE: usize = 2;

/// Where such work is done.
pub struct Work {
    cores: Arc<Semaphore>,
    long: Arc<Semaphore>,
}

/// Tells the work that nobody waits for it any more.
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Work {
    /// With a place for each core.
    pub fn new() -> Work {
        Work { cores: Arc::new(Semaphore::new(cores())), long: Arc::new(Semaphore::new(LONG_AT_ONCE)) }
    }

    /// Does work on a body of so many bytes. `compiles`: it may take long for short ones too. Who waits for a
    /// place and goes away has cost nothing.
    pub async fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        compiles: bool,
        work: impl FnOnce() -> ApiResult<T> + Send + 'static,
    ) -> ApiResult<T> {
        if bytes <= SHORT && !compiles {
            return work();
        }
        // The scarcer place first, so that nobody holds a core and waits.
        let long = if bytes > LONG { Some(place(&self.long).await?) } else { None };
        let core = place(&self.cores).await?;
        let waiting = Waiting(Arc::default());
        let gone = waiting.0.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _places = (core, &long);
            let done = while_wanted(gone, work);
            if long.is_some() {
                give_back();
            }
            done
        });
        let done = task.await;
        drop(waiting);
        done.unwrap_or_else(|e| {
            tracing::error!("a request failed: {e}");
            Err(ApiError::internal("the server failed; its log says how"))
        })
    }
}

/// Threads that such work may take.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

async fn place(places: &Arc<Semaphore>) -> ApiResult<OwnedSemaphorePermit> {
    // It is never closed.
    places.clone().acquire_owned().await.map_err(|e| ApiError::internal(e.to_string()))
}

/// Freed memory goes back to the system: glibc keeps what lies below anything that is still in use.
fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the call takes no pointers and may be made by any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;
    use tessera_openai::wanted::still_wanted;

    #[tokio::test(flavor = "multi_thread")]
    async fn as_much_at_once_as_there_are_cores_and_less_of_long_bodies() {
        let (work, most) = (Arc::new(Work::new()), Arc::new(AtomicUsize::new(0)));
        for (bytes, limit) in [(SHORT + 1, cores()), (LONG + 1, LONG_AT_ONCE.min(cores()))] {
            let now = Arc::new(AtomicUsize::new(0));
            most.store(0, Ordering::SeqCst);
            let mut all = tokio::task::JoinSet::new();
            for _ in 0..4 * limit {
                let (work, now, most) = (work.clone(), now.clone(), most.clone());
                all.spawn(async move {
                    let one = move || {
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(5));
                        now.fetch_sub(1, Ordering::SeqCst);
                        Ok(())
                    };
                    work.run(bytes, false, one).await
                });
            }
            while let Some(done) = all.join_next().await {
                done.unwrap().unwrap();
            }
            assert!(most.load(Ordering::SeqCst) <= limit, "{most:?} at once, {limit} are allowed");
        }
    }

    #[tokio::test]
    async fn work_whose_client_has_gone_is_told_so() {
        let work = Work::new();
        let (told, mut tell) = tokio::sync::mpsc::unbounded_channel();
        let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
        let one = move || {
            begun.send(()).unwrap();
            while still_wanted().is_ok() {
                std::thread::sleep(Duration::from_millis(1));
            }
            told.send(()).unwrap();
            still_wanted()
        };
        {
            let asking = work.run(0, true, one);
            tokio::pin!(asking);
            tokio::select! {
                _ = &mut asking => panic!("nobody has gone"),
                _ = begins.recv() => {}
            }
        }
        tell.recv().await.unwrap();
        assert_eq!(work.run(0, true, still_wanted).await, Ok(()), "the next one is wanted");
    }
}
