//! `tessera devices`: the adapters that a program can run on.

use crate::cli::DevicesArgs;
use crate::gpu;
use crate::output::{Bytes, Output};
use serde::Serialize;
use std::process::ExitCode;
use tessera_gpu::{Adapter, Description};

#[derive(Serialize)]
struct Device {
    name: String,
    api: String,
    kind: &'static str,
    driver: String,
    /// Computes on the CPU, so it is taken only by its name.
    software: bool,
    largest_binding_bytes: u64,
    largest_buffer_bytes: u64,
    /// Absent where the driver does not tell.
    memory_bytes: Option<u64>,
    /// What this process may still take of it.
    free_bytes: Option<u64>,
}

impl From<Description> for Device {
    fn from(d: Description) -> Device {
        let Description { name, api, kind, driver, software, binding, buffer, memory } = d;
        Device {
            name,
            api,
            kind,
            driver,
            software,
            largest_binding_bytes: binding,
            largest_buffer_bytes: buffer,
            memory_bytes: memory.map(|memory| memory.total),
            free_bytes: memory.map(|memory| memory.free),
        }
    }
}

/// Prints them.
pub fn run(_args: DevicesArgs, out: &Output) -> anyhow::Result<ExitCode> {
    let devices: Vec<Device> = gpu::adapters().iter().map(Adapter::describe).map(Device::from).collect();
    if out.json {
        out.print_json(&devices)?;
        return Ok(ExitCode::SUCCESS);
    }
    if devices.is_empty() {
        out.line("No adapter: no driver for Vulkan, Metal or DX12 was found. --backend cpu needs none.")?;
        return Ok(ExitCode::SUCCESS);
    }
    let row = |d: &Device| {
        vec![
            d.name.clone(),
            d.api.clone(),
            d.kind.to_owned(),
            d.free_bytes.map_or_else(|| "?".to_owned(), |bytes| Bytes(bytes).to_string()),
            Bytes(d.largest_binding_bytes).to_string(),
            d.driver.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = devices.iter().map(row).collect();
    out.table(&["NAME", "API", "KIND", "FREE", "BINDING", "DRIVER"], &[3, 4], &rows)?;
    Ok(ExitCode::SUCCESS)
}
