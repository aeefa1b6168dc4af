//! Which adapter computes, by what was asked for.

use crate::cli::{ComputeArgs, Kv};
use crate::output::hinted;
use tessera_gpu::{Adapter, Config, Description, GpuBackend};

/// All adapters, hardware first.
pub fn adapters() -> Vec<Adapter> {
    pollster::block_on(Adapter::all())
}

/// The adapter that `args` name, or the first that is hardware, opened.
pub fn backend(args: &ComputeArgs) -> anyhow::Result<GpuBackend> {
    let halves = match args.kv {
        Some(Kv::F32) => false,
        Some(Kv::Q8) => {
            anyhow::bail!("--kv q8 is for --backend cpu; a GPU keeps keys and values as f16 or f32")
        }
        Some(Kv::F16) | None => true,
    };
    let adapters = adapters();
    let all: Vec<Description> = adapters.iter().map(Adapter::describe).collect();
    let Some(i) = choose(&all, args.adapter.as_deref()) else {
        let known: Vec<&str> = all.iter().map(|a| a.name.as_str()).collect();
        let message = match (&args.adapter, known.as_slice()) {
            (_, []) => "there is no adapter: no driver for Vulkan, Metal or DX12 was found".to_owned(),
            (Some(name), known) => {
                format!("no adapter has {name:?} in its name; there are: {}", known.join(", "))
            }
            (None, known) => format!("no adapter is hardware; there are: {}", known.join(", ")),
        };
        return Err(hinted(
            message,
            "`tessera devices` lists adapters; --adapter NAME takes one of them; --backend cpu needs none",
        ));
    };
    let gpu = pollster::block_on(adapters[i].open(false))?;
    Ok(GpuBackend::new(gpu, Config { halves, ..Config::default() }))
}

/// The first whose name has this in it, whatever the case; without one the first that is hardware.
fn choose(all: &[Description], name: Option<&str>) -> Option<usize> {
    match name {
        Some(name) => all.iter().position(|a| a.name.to_lowercase().contains(&name.to_lowercase())),
        None => all.iter().position(|a| !a.software),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_is_taken_only_by_name() {
        let adapter = |name: &str, software| Description {
            name: name.to_owned(),
            api: "vulkan".to_owned(),
            kind: "other",
            driver: String::new(),
            software,
            binding: 1 << 27,
            buffer: 1 << 28,
        };
        let all = [adapter("llvmpipe (LLVM 15)", true), adapter("Some Card", false)];
        assert_eq!(choose(&all, None), Some(1));
        assert_eq!(choose(&all[..1], None), None);
        assert_eq!(choose(&all, Some("LLVMpipe")), Some(0));
        assert_eq!(choose(&all, Some("other card")), None);
    }
}
