//! The server from outside: the real program on a free port, on a golden folder.

#[path = "../common/mod.rs"]
mod common;

mod chat;
mod clients;
mod completions;
mod faults;
mod fields;
mod hosts;
mod responses;
mod running;
mod server;
mod structured;
