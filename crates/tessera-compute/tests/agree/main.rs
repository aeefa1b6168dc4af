//! Whether everything on the CPU is as its twin has it: kernels, and programs of them.

mod kept;
mod kernels;
mod programs;
mod random;
