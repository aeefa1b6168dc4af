//! A bar of bytes on stderr, on a terminal only.

use crate::output::Output;
use indicatif::{ProgressBar, ProgressStyle};
use std::sync::Mutex;
use tessera_compute::threads;

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

/// Makes the threads that everything parallel runs on: `count`, or one a core. Where the system refuses them it runs
/// on this one, which is said. Whoever is second finds them made.
pub fn use_threads(count: Option<u16>, out: &Output) -> anyhow::Result<()> {
    static MADE: Mutex<bool> = Mutex::new(false);
    let mut made = MADE.lock().unwrap_or_else(|e| e.into_inner());
    if std::mem::replace(&mut *made, true) {
        return Ok(());
    }
    let begun = Mutex::new(Vec::new());
    let begin = |thread: rayon::ThreadBuilder| {
        let thread = threads::spawn(format!("tessera-files-{}", thread.index()), || thread.run())?;
        begun.lock().unwrap_or_else(|e| e.into_inner()).push(thread);
        Ok(())
    };
    let builder =
        || rayon::ThreadPoolBuilder::new().num_threads(count.map_or(0, usize::from)).spawn_handler(begin);
    // There is one attempt at the pool that everything uses, and a panic where it failed: so another is tried first,
    // and has given back what it took before the second.
    let tried = builder().build().map(drop);
    for thread in begun.lock().unwrap_or_else(|e| e.into_inner()).drain(..) {
        let _ = thread.join();
    }
    let Err(error) = tried else {
        return Ok(builder().build_global()?);
    };
    rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build_global()?;
    out.note(format_args!("note: everything runs on one thread, the system refused more: {error}"));
    Ok(())
}
