//! A bar of bytes on stderr, on a terminal only.

use crate::output::Output;
use indicatif::{ProgressBar, ProgressStyle};

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

/// Runs everything parallel on `threads` threads.
pub fn use_threads(threads: Option<u16>) -> anyhow::Result<()> {
    if let Some(threads) = threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads.into()).build_global()?;
    }
    Ok(())
}
