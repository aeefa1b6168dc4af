//! The adapter that tests run on: the first there is, which in CI is Mesa's lavapipe.

use std::process::Command;
use std::sync::OnceLock;
use tessera_gpu::{Adapter, Config, Gpu, GpuBackend};

/// The first adapter. Where there is none, Mesa's is installed if TESSERA_TEST_INSTALL says so; else the test is skipped
/// and says so.
pub fn adapter() -> Option<Adapter> {
    static FOUND: OnceLock<Option<Adapter>> = OnceLock::new();
    let first = || pollster::block_on(Adapter::all()).into_iter().next();
    let find = || {
        if let Some(adapter) = first() {
            return Some(adapter);
        }
        if std::env::var_os("TESSERA_TEST_INSTALL").is_none() {
            eprintln!("skipped: there is no adapter (TESSERA_TEST_INSTALL=1 installs mesa-vulkan-drivers)");
            return None;
        }
        for args in [
            &["update", "-qq"][..],
            &["install", "-y", "-qq", "--no-install-recommends", "mesa-vulkan-drivers"],
        ] {
            let done = Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(args).output();
            let done = done
                .unwrap_or_else(|e| panic!("apt-get: {e}; the tests of the GPU need a driver for Vulkan"));
            assert!(done.status.success(), "apt-get {args:?}: {}", String::from_utf8_lossy(&done.stderr));
        }
        Some(first().expect("mesa-vulkan-drivers has an adapter"))
    };
    FOUND.get_or_init(find).clone()
}

/// A device with no more than every WebGPU has. Tests share it, and so its pipelines.
pub fn device() -> Option<Gpu> {
    static OPEN: OnceLock<Option<Gpu>> = OnceLock::new();
    OPEN.get_or_init(|| Some(pollster::block_on(adapter()?.open(true)).unwrap())).clone()
}

#[allow(dead_code)] // Not every test needs one.
/// A backend on it. `halves`: whether keys and values are.
pub fn backend(halves: bool) -> Option<GpuBackend> {
    Some(GpuBackend::new(device()?, Config { halves, ..Config::default() }))
}
