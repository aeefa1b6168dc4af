//! Threads that cannot be begun here, and are lent by whoever can: JavaScript, whose workers share the module's memory.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, mpsc};
use std::thread::{self, Thread};

type Work = Box<dyn FnOnce() + Send>;

struct Bench {
    /// Threads that were lent and have nothing to do.
    idle: usize,
    work: VecDeque<Work>,
}

static BENCH: Mutex<Bench> = Mutex::new(Bench { idle: 0, work: VecDeque::new() });
static CALLED: Condvar = Condvar::new();
static BROKEN: AtomicBool = AtomicBool::new(false);

fn bench() -> MutexGuard<'static, Bench> {
    BENCH.lock().unwrap_or_else(|e| e.into_inner())
}

/// Lends the calling thread: it does not return.
pub fn lend() -> ! {
    loop {
        let mut bench = bench();
        let work = loop {
            match bench.work.pop_front() {
                Some(work) => break work,
                None => bench = CALLED.wait(bench).unwrap_or_else(|e| e.into_inner()),
            }
        };
        drop(bench);
        work();
    }
}

/// So many more threads are in [`lend`], or on their way to it.
pub fn add(threads: usize) {
    bench().idle += threads;
}

/// Threads that [`begin`] can have.
pub fn idle() -> usize {
    bench().idle
}

/// Has work done by a thread that was lent, and returns when it is begun. When it is done, [`end`] is to be called.
///
/// # Errors
/// Where all threads have work.
pub fn begin(work: Work) -> io::Result<Thread> {
    let (runs, running) = mpsc::sync_channel(1);
    {
        let mut bench = bench();
        let none = || io::Error::new(io::ErrorKind::WouldBlock, "no thread is lent");
        bench.idle = bench.idle.checked_sub(1).ok_or_else(none)?;
        bench.work.push_back(Box::new(move || {
            // Whoever began it waits.
            let _ = runs.send(thread::current());
            work();
        }));
    }
    CALLED.notify_one();
    running.recv().map_err(io::Error::other)
}

/// A thread has no work any more, or soon.
pub fn end() {
    add(1);
}

/// A thread has panicked where a panic ends it: those that wait for it would wait for ever.
pub fn panicked() {
    BROKEN.store(true, Ordering::Release);
}

/// Whether one has.
pub fn is_broken() -> bool {
    BROKEN.load(Ordering::Acquire)
}
