//! Numbers that do not come twice.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A random number: the standard library seeds its hashers from the system.
pub fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// An id with a prefix, such as `chatcmpl-1f...`.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}{:016x}{:08x}", random(), random() as u32)
}
