//! The engine on golden folders and on a backend made for faults.

mod common;
mod control;
mod exact;
mod faults;
mod lost;
mod machine;
mod outputs;
