//! Runs a [`Program`](tessera_compute::program::Program) on any adapter that wgpu reaches: Vulkan, Metal, DX12, WebGPU.
//!
//! A program becomes a list of dispatches at load (`plan.rs`), each a kernel of `kernels.rs` with its constants and
//! buffers. A step writes one block of data (`layout.rs`), encodes one compute pass and reads back what is wanted
//! (`executor.rs`). Weights stay as they lie in the file (`weights.rs`); arithmetic is f32. An adapter is tested before it is
//! trusted (`selftest.rs`, `verified.rs`).

mod config;
mod device;
mod error;
mod executor;
mod fold;
pub mod kernels;
mod layout;
mod memory;
mod plan;
pub mod product;
pub mod profile;
pub mod selftest;
mod tune;
pub mod verified;
mod weights;

pub use config::{Config, Tuned};
pub use device::{Adapter, Description, Gpu};
pub use error::GpuError;
pub use executor::GpuBackend;
pub use memory::Memory;
