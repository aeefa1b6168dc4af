//! Ctrl-C as a flag, so that what was begun is undone before the program ends.

use std::sync::atomic::{AtomicBool, Ordering};

static SEEN: AtomicBool = AtomicBool::new(false);

extern "C" fn handle(_signal: libc::c_int) {
    if SEEN.swap(true, Ordering::Relaxed) {
        // Asked twice: do not wait for the loop that looks at the flag.
        // SAFETY: `_exit` may be called from a signal handler.
        unsafe { libc::_exit(130) }
    }
}

/// From here on Ctrl-C sets the flag; a second one ends the program at once.
pub fn watch() {
    let handler: extern "C" fn(libc::c_int) = handle;
    // SAFETY: the handler only touches an atomic and `_exit`.
    unsafe { libc::signal(libc::SIGINT, handler as libc::sighandler_t) };
}

/// Whether Ctrl-C was pressed.
pub fn seen() -> bool {
    SEEN.load(Ordering::Relaxed)
}

/// What was asked to stop has stopped.
pub fn forget() {
    SEEN.store(false, Ordering::Relaxed);
}
