//! Threads that are begun only where there is memory for them.
//!
//! A thread sets up a second stack for signals before it runs what it was given. Where the system gave the thread and
//! has no memory for that stack any more, the standard library can only end the process. So the memory is asked for
//! before, and one thread is awaited before the next is begun: what a running thread takes for its allocations is
//! taken before the next one asks.

use std::io;
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};

/// The standard library's stack of a thread.
pub const STACK: usize = 2 << 20;
/// What must be left beside a thread's stack: for the one for signals, and for the work of all the threads, which
/// ends the process as well where an allocation fails. Threads that leave less are of no use.
#[cfg(feature = "threads")]
const BESIDES: usize = 32 << 20;

/// Whether there is room for a thread with such a stack, in bytes.
///
/// # Errors
/// What the system says to so much memory.
pub fn room(stack: usize) -> io::Result<()> {
    // A mapping, since memory from the allocator may be some that it kept. It is not touched, so it costs no pages.
    #[cfg(feature = "threads")]
    memmap2::MmapOptions::new().len(stack.saturating_add(BESIDES)).map_anon().map(drop)?;
    #[cfg(not(feature = "threads"))]
    let _ = stack;
    Ok(())
}

/// Begins a thread, and returns when it runs.
///
/// # Errors
/// What the system says, where it gives no thread or no memory for one.
pub fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    room(STACK)?;
    let (runs, running) = mpsc::sync_channel(1);
    let begun = Builder::new().name(name).stack_size(STACK).spawn(move || {
        // Nobody waits only where `spawn` itself panicked.
        let _ = runs.send(());
        work();
    })?;
    let _ = running.recv();
    Ok(begun)
}

#[cfg(all(test, feature = "threads"))]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_address_space_is_no_room() {
        room(STACK).unwrap();
        room(1 << 50).unwrap_err();
        room(usize::MAX).unwrap_err();
    }

    #[test]
    fn a_thread_has_its_name_and_runs() {
        let (told, tells) = mpsc::channel();
        let name = move || told.send(std::thread::current().name().map(str::to_owned)).unwrap();
        spawn("a name".to_owned(), name).unwrap().join().unwrap();
        assert_eq!(tells.recv().unwrap().as_deref(), Some("a name"));
    }
}
