//! A bar of bytes on stderr, on a terminal only.

use crate::output::Output;
use indicatif::{ProgressBar, ProgressStyle};
use std::sync::Mutex;

/// The bar, or nothing.
pub struct Bar(Option<ProgressBar>);

impl Bar {
    /// A bar of `total` bytes.
    pub fn new(out: &Output, total: u64) -> Bar {
        Bar(out.shows_progress().then(|| {
            let bar = ProgressBar::new(total);
            let style = ProgressStyle::with_template(
                "{msg:40!} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
            );
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        }))
    }

    /// How far it is, and with what.
    pub fn show(&self, done: u64, total: u64, what: &str) {
        if let Some(bar) = &self.0 {
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(what.to_owned());
        }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// Makes the threads that everything parallel runs on: `threads`, or one a core. Where the system refuses them it runs
/// on this one, which is said. Whoever is second finds them made.
pub fn use_threads(threads: Option<u16>, out: &Output) -> anyhow::Result<()> {
    static MADE: Mutex<bool> = Mutex::new(false);
    let mut made = MADE.lock().unwrap_or_else(|e| e.into_inner());
    if std::mem::replace(&mut *made, true) {
        return Ok(());
    }
    let builder = || rayon::ThreadPoolBuilder::new().num_threads(threads.map_or(0, usize::from));
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    // There is one attempt at the pool that everything uses, and a panic where it failed: so another is tried first.
    let tried = room_for(threads.map_or_else(cores, usize::from))
        .and_then(|()| builder().build().map(drop).map_err(|e| e.to_string()));
    let Err(error) = tried else {
        return Ok(builder().build_global()?);
    };
    rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build_global()?;
    out.note(format_args!("note: everything runs on one thread, the system refused more: {error}"));
    Ok(())
}

/// Whether there is room for the stacks of so many threads. A thread that the system gave, and that then finds no memory
/// for what the standard library sets up in it, ends the process; so the room is asked for before, and not touched.
fn room_for(threads: usize) -> Result<(), String> {
    /// A stack of 2 MiB, and what a thread takes besides.
    const EACH: usize = 3 << 20;
    let room = Vec::<u8>::new().try_reserve_exact(threads.saturating_mul(EACH));
    room.map_err(|_| format!("there is no memory for the stacks of {threads} threads"))
}
