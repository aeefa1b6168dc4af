//! What a fetch tells while it runs, and what came in the end.

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// What a fetch tells while it runs.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// One line that the user should see.
    Note(&'a str),
    /// How far it is.
    Bytes {
        /// The file that just grew.
        file: &'a str,
        /// Bytes that are here, of all files.
        done: u64,
        /// Bytes of all files; 0 while that is not known.
        total: u64,
    },
}

/// Hears of progress, from several threads.
pub type Progress<'a> = dyn Fn(Event<'_>) + Sync + 'a;

/// Adds up the bytes of all files.
pub(crate) struct Tally<'a> {
    progress: &'a Progress<'a>,
    done: AtomicI64,
    total: AtomicU64,
}

impl<'a> Tally<'a> {
    pub fn new(progress: &'a Progress<'a>) -> Tally<'a> {
        Tally { progress, done: AtomicI64::new(0), total: AtomicU64::new(0) }
    }

    pub fn note(&self, text: &str) {
        (self.progress)(Event::Note(text));
    }

    pub fn set_total(&self, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    pub fn moved(&self, file: &str, bytes: i64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes).max(0) as u64;
        let total = self.total.load(Ordering::Relaxed);
        (self.progress)(Event::Bytes { file, done, total });
    }

    /// For small files whose length nobody stated beforehand.
    pub fn extra(&self, file: &str, bytes: i64) {
        self.total.fetch_add(bytes.max(0) as u64, Ordering::Relaxed);
        self.moved(file, bytes);
    }

    pub fn at(&self, file: &str, done: u64, total: u64) {
        (self.progress)(Event::Bytes { file, done, total });
    }
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// An MLC folder, now under its final name.
    Installed(PathBuf),
    /// A folder with `config.json` and safetensors, to be converted.
    Checkpoint(PathBuf),
    /// A GGUF file, to be converted.
    Gguf(PathBuf),
}
