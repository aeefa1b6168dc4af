//! Runs a decoder program on a backend.
