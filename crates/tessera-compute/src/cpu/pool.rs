//! Worker threads that run one function together, meet at barriers inside it, and sleep between runs.
//!
//! A step of a model is one [`Pool::run`]; its stages are separated by [`Worker::barrier`]. Work
//! inside a stage is claimed from a counter, so that a thread which is not scheduled holds nobody up.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
#[cfg(any(test, not(feature = "lent-threads")))]
use std::thread::JoinHandle;
use std::thread::{self, Thread};

/// Spins before a waiting thread gives its time slice away, about 20 microseconds.
const SPINS: u32 = 1 << 10;
/// Rounds of giving time slices away before an idle worker sleeps.
const YIELDS: u32 = 32;

/// A number alone on its cache line.
#[repr(align(128))]
#[derive(Default)]
struct Padded(AtomicUsize);

type Job = *const (dyn Fn(&Worker<'_>) + Sync);

struct Shared {
    threads: usize,
    /// Bumped to start a run; workers compare it with the last run they did.
    epoch: Padded,
    /// Workers that have not finished the run.
    running: Padded,
    /// Threads that have arrived at the barrier, and how many barriers were passed.
    arrived: Padded,
    passed: Padded,
    poisoned: AtomicBool,
    stop: AtomicBool,
    job: Mutex<Option<SendJob>>,
    counters: Vec<Padded>,
}

#[derive(Clone, Copy)]
struct SendJob(Job);
// SAFETY: the pointer is only followed between the start of a run and its end, while `Pool::run`
// keeps the closure borrowed; the closure is `Sync`.
unsafe impl Send for SendJob {}

/// The threads. Dropping it ends them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<Started>,
}

/// The system gave fewer threads than were asked for.
#[derive(Debug)]
pub struct Refused {
    /// Threads that there were, the caller included.
    pub started: usize,
    /// What the system says.
    pub cause: io::Error,
}

/// A thread that was started, and what waits for its end.
type Started = (Thread, Box<dyn FnOnce() + Send>);

/// Starts a thread of this name.
type Spawn = dyn FnMut(String, Box<dyn FnOnce() + Send>) -> io::Result<Started>;

/// A thread of the system's.
#[cfg(any(test, not(feature = "lent-threads")))]
fn own(handle: JoinHandle<()>) -> Started {
    // A worker catches its panics; there is nothing left to report at its end.
    (handle.thread().clone(), Box::new(|| drop(handle.join())))
}

/// A thread that was lent.
#[cfg(any(test, feature = "lent-threads"))]
fn borrowed(work: Box<dyn FnOnce() + Send>) -> io::Result<Started> {
    Ok((crate::lent::begin(work)?, Box::new(crate::lent::end)))
}

/// One thread's view of a run.
pub struct Worker<'a> {
    /// Which thread this is; 0 is the caller.
    pub index: usize,
    shared: &'a Shared,
}

impl Pool {
    /// `threads - 1` workers beside the calling thread; `counters` stages can claim work. Where the system refuses a
    /// thread, those that did start end again.
    pub fn new(threads: usize, counters: usize) -> Result<Pool, Refused> {
        #[cfg(not(feature = "lent-threads"))]
        let mut spawn = |name, work| crate::threads::spawn(name, work).map(own);
        #[cfg(feature = "lent-threads")]
        let mut spawn = |_, work| borrowed(work);
        Pool::spawned(threads, counters, &mut spawn)
    }

    fn spawned(threads: usize, counters: usize, spawn: &mut Spawn) -> Result<Pool, Refused> {
        let many = cfg!(any(feature = "threads", feature = "lent-threads"));
        let threads = if many { threads.max(1) } else { 1 };
        let shared = Arc::new(Shared {
            threads,
            epoch: Padded::default(),
            running: Padded::default(),
            arrived: Padded::default(),
            passed: Padded::default(),
            poisoned: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            job: Mutex::new(None),
            counters: (0..counters).map(|_| Padded::default()).collect(),
        });
        // Dropped on the way out, it ends its workers.
        let mut pool = Pool { shared, workers: Vec::new() };
        for index in 1..threads {
            let shared = pool.shared.clone();
            let started = spawn(format!("tessera-{index}"), Box::new(move || work(&shared, index)));
            pool.workers.push(started.map_err(|cause| Refused { started: index, cause })?);
        }
        Ok(pool)
    }

    /// Number of threads, the caller included.
    pub fn threads(&self) -> usize {
        self.shared.threads
    }

    /// Runs `f` on every thread and returns when all are done.
    ///
    /// # Panics
    /// If `f` panics on any thread.
    pub fn run(&mut self, f: &(dyn Fn(&Worker<'_>) + Sync)) {
        let shared = &*self.shared;
        for c in &shared.counters {
            c.0.store(0, Ordering::Relaxed);
        }
        shared.arrived.0.store(0, Ordering::Relaxed);
        if !self.workers.is_empty() {
            // SAFETY: only the lifetime is erased; no worker touches the closure after `running`
            // reaches 0, which this function waits for even when `f` panics.
            let job: Job = unsafe { std::mem::transmute::<*const (dyn Fn(&Worker<'_>) + Sync), Job>(f) };
            *shared.job.lock().unwrap_or_else(|e| e.into_inner()) = Some(SendJob(job));
            shared.running.0.store(self.workers.len(), Ordering::Relaxed);
            shared.epoch.0.fetch_add(1, Ordering::Release);
            for (thread, _) in &self.workers {
                thread.unpark();
            }
        }
        let own = call(shared, 0, f);
        let mut wait = Wait::default();
        while shared.running.0.load(Ordering::Acquire) != 0 {
            wait.once();
        }
        let poisoned = shared.poisoned.swap(false, Ordering::Relaxed);
        match own {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) if poisoned => panic!("a worker thread panicked"),
            Ok(()) => {}
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.epoch.0.fetch_add(1, Ordering::Release);
        for (thread, end) in self.workers.drain(..) {
            thread.unpark();
            end();
        }
    }
}

fn call(shared: &Shared, index: usize, f: &(dyn Fn(&Worker<'_>) + Sync)) -> thread::Result<()> {
    let worker = Worker { index, shared };
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| f(&worker)));
    if result.is_err() {
        // Others may wait at a barrier for this thread: they look at the flag and leave.
        shared.poisoned.store(true, Ordering::Release);
    }
    result
}

fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        let mut wait = Wait::default();
        while shared.epoch.0.load(Ordering::Acquire) == seen {
            if wait.exhausted() {
                thread::park();
            } else {
                wait.once();
            }
        }
        seen = shared.epoch.0.load(Ordering::Acquire);
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let job = *shared.job.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(SendJob(job)) = job {
            // SAFETY: `Pool::run` set the job before it bumped the epoch and waits for `running`.
            let _ = call(shared, index, unsafe { &*job });
        }
        shared.running.0.fetch_sub(1, Ordering::Release);
    }
}

/// Spin, then give the time slice away.
#[derive(Default)]
struct Wait(u32);

impl Wait {
    fn once(&mut self) {
        if self.0 < SPINS {
            std::hint::spin_loop();
        } else {
            // A page's threads end in a panic, and cannot tell.
            #[cfg(feature = "lent-threads")]
            assert!(!crate::lent::is_broken(), "a worker thread panicked");
            thread::yield_now();
        }
        self.0 = self.0.saturating_add(1);
    }

    fn exhausted(&self) -> bool {
        self.0 > SPINS + YIELDS
    }
}

impl Worker<'_> {
    /// Number of threads in the run.
    pub fn threads(&self) -> usize {
        self.shared.threads
    }

    /// Waits until every thread has come here. What was written before is seen after.
    pub fn barrier(&self) {
        let shared = self.shared;
        if shared.threads == 1 {
            return;
        }
        let passed = shared.passed.0.load(Ordering::Acquire);
        if shared.arrived.0.fetch_add(1, Ordering::AcqRel) + 1 == shared.threads {
            shared.arrived.0.store(0, Ordering::Relaxed);
            shared.passed.0.fetch_add(1, Ordering::Release);
            return;
        }
        let mut wait = Wait::default();
        while shared.passed.0.load(Ordering::Acquire) == passed {
            wait.once();
            if shared.poisoned.load(Ordering::Acquire) {
                panic!("another thread panicked");
            }
        }
    }

    /// The next `step` of `total` items of the stage that owns `counter`, or `None` when all are taken.
    pub fn claim(&self, counter: usize, step: usize, total: usize) -> Option<std::ops::Range<usize>> {
        let from = self.shared.counters[counter].0.fetch_add(step, Ordering::Relaxed);
        (from < total).then(|| from..(from + step).min(total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_claimed_once_and_barriers_order_stages() {
        let mut pool = Pool::new(3, 2).unwrap();
        for _ in 0..200 {
            let marks: Vec<AtomicUsize> = (0..100).map(|_| AtomicUsize::new(0)).collect();
            pool.run(&|w| {
                while let Some(r) = w.claim(0, 7, 100) {
                    r.for_each(|i| _ = marks[i].fetch_add(1, Ordering::Relaxed));
                }
                w.barrier();
                assert!(marks.iter().all(|m| m.load(Ordering::Relaxed) >= 1));
                w.barrier();
                while let Some(r) = w.claim(1, 9, 100) {
                    r.for_each(|i| _ = marks[i].fetch_add(1, Ordering::Relaxed));
                }
            });
            assert!(marks.iter().all(|m| m.load(Ordering::Relaxed) == 2));
        }
    }

    #[test]
    fn a_panic_on_one_thread_reaches_the_caller_and_the_pool_lives() {
        let mut pool = Pool::new(3, 1).unwrap();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.run(&|w| {
                if w.index == 1 {
                    panic!("on purpose");
                }
                w.barrier();
            });
        }));
        assert!(result.is_err());
        let sum = AtomicUsize::new(0);
        pool.run(&|w| _ = sum.fetch_add(w.index + 1, Ordering::Relaxed));
        assert_eq!(sum.into_inner(), 6);
    }

    #[test]
    fn a_refused_thread_is_an_error_and_the_others_end() {
        let living = Arc::new(AtomicUsize::new(0));
        let seen = living.clone();
        let mut spawn = move |name: String, work: Box<dyn FnOnce() + Send>| {
            if name == "tessera-3" {
                return Err(io::Error::from(io::ErrorKind::WouldBlock));
            }
            let living = seen.clone();
            living.fetch_add(1, Ordering::SeqCst);
            let begun = thread::Builder::new().spawn(move || {
                work();
                living.fetch_sub(1, Ordering::SeqCst);
            });
            begun.map(own)
        };
        let Err(refused) = Pool::spawned(8, 1, &mut spawn) else { panic!("a thread was refused") };
        assert_eq!((refused.started, refused.cause.kind()), (3, io::ErrorKind::WouldBlock));
        assert_eq!(living.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn threads_that_are_lent_work_and_go_back() {
        let borrow = |threads| Pool::spawned(threads, 1, &mut |_, work| borrowed(work));
        let Err(refused) = borrow(2) else { panic!("none is lent yet") };
        assert_eq!((refused.started, refused.cause.kind()), (1, io::ErrorKind::WouldBlock));
        for _ in 0..2 {
            thread::spawn(|| crate::lent::lend());
        }
        crate::lent::add(2);
        for _ in 0..20 {
            let mut pool = borrow(3).unwrap();
            assert_eq!(crate::lent::idle(), 0);
            assert!(borrow(2).is_err());
            let sum = AtomicUsize::new(0);
            pool.run(&|w| {
                sum.fetch_add(w.index + 1, Ordering::Relaxed);
                w.barrier();
                assert_eq!(sum.load(Ordering::Relaxed), 6);
            });
            drop(pool);
            assert_eq!(crate::lent::idle(), 2);
        }
    }
}
