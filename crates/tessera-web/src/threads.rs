//! Threads: workers of JavaScript's over the same memory.

use tessera_compute::lent;
use wasm_bindgen::prelude::*;

/// What a worker calls, when it has told that it is there. It does not return.
#[wasm_bindgen]
pub fn lend() {
    lent::lend()
}

/// So many workers are there that were not before.
#[wasm_bindgen]
pub fn lent(threads: usize) {
    lent::add(threads);
}

/// Workers that have nothing to do.
#[wasm_bindgen]
pub fn idle() -> usize {
    lent::idle()
}
