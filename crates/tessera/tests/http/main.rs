//! The server from outside: the real program on a free port, on a golden folder.

#[path = "../common/mod.rs"]
mod common;

mod apps;
mod attacks;
mod chat;
mod clients;
mod completions;
mod faults;
mod fields;
#[cfg(unix)]
mod files;
mod hosts;
mod responses;
mod running;
mod server;
mod structured;
mod vectors;
