//! `tessera doctor`: what this machine offers and what would be used, and why.

use crate::cli::DoctorArgs;
use crate::machine::{Memory, memory};
use crate::output::{Bytes, Output};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tessera_compute::cpu::kernels::Kernels;
use tessera_hub::{Store, without_secrets};

#[derive(Serialize)]
struct Report {
    version: &'static str,
    target: String,
    cpu: Option<String>,
    features: Vec<&'static str>,
    threads: usize,
    memory: Memory,
    store: StoreState,
    #[serde(rename = "use")]
    choice: Choice,
}

#[derive(Serialize)]
struct StoreState {
    path: PathBuf,
    because: &'static str,
    models: usize,
    bytes: u64,
    free_bytes: Option<u64>,
    endpoint: String,
    token: bool,
    pip: String,
}

#[derive(Serialize)]
struct Choice {
    backend: &'static str,
    kernels: String,
    threads: usize,
    /// The adapter that `--backend auto` tests and takes, or why there is none.
    gpu: String,
}

/// Prints the report.
pub fn run(_args: DoctorArgs, out: &Output) -> anyhow::Result<ExitCode> {
    let kernels = Kernels::choose(None).unwrap_or(Kernels::SCALAR);
    report(kernels.name().to_owned(), out)
}

/// `kernels` says which kernels would run and why.
fn report(kernels: String, out: &Output) -> anyhow::Result<ExitCode> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let store = Store::open_default()?;
    let models = store.list()?;
    let settings = store.settings();
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        cpu: cpu_name(),
        features: cpu_features(),
        threads,
        memory: memory(),
        store: StoreState {
            path: store.home().to_path_buf(),
            because: if std::env::var_os("TESSERA_HOME").is_some_and(|v| !v.is_empty()) {
                "TESSERA_HOME"
            } else {
                "the platform's cache folder"
            },
            models: models.len(),
            bytes: models.iter().fold(0, |sum, m| sum.saturating_add(m.bytes)),
            free_bytes: free_space(store.home()),
            endpoint: without_secrets(&settings.hf_endpoint),
            token: settings.hf_token.is_some(),
            pip: settings.pip_shown(),
        },
        choice: choice(kernels, threads),
    };
    if out.json {
        out.print_json(&report)?;
    } else {
        print_text(&report, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What `--backend auto` would take.
fn choice(kernels: String, threads: usize) -> Choice {
    #[cfg(feature = "gpu")]
    let (backend, gpu) = match crate::gpu::hardware() {
        Ok(adapter) => ("gpu", format!("{}, {}, {}", adapter.name, adapter.api, adapter.driver)),
        Err(why) => ("cpu", format!("none: {why}")),
    };
    #[cfg(not(feature = "gpu"))]
    let (backend, gpu) = ("cpu", "none: this build has no gpu feature".to_owned());
    Choice { backend, kernels, threads, gpu }
}

fn print_text(report: &Report, out: &Output) -> anyhow::Result<()> {
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "unknown".to_string(), |b| Bytes(b).to_string());
    let store = &report.store;
    let features = match report.features.as_slice() {
        [] => "none that matter".to_string(),
        some => some.join(" "),
    };
    let mut memory = format!(
        "{} total, {} available",
        size(report.memory.total_bytes),
        size(report.memory.available_bytes)
    );
    if let Some(limit) = report.memory.limit_bytes {
        let left = size(report.memory.limit_left_bytes);
        memory += &format!(", limited to {} by the control group, {left} of it left", Bytes(limit));
    }
    let token = if store.token { "HF_TOKEN is set" } else { "no HF_TOKEN" };
    for (key, value) in [
        ("tessera", format!("{} on {}", report.version, report.target)),
        ("cpu", report.cpu.clone().unwrap_or_else(|| "unknown".into())),
        ("features", features),
        ("threads", report.threads.to_string()),
        ("memory", memory),
        ("store", format!("{} ({})", store.path.display(), store.because)),
        ("models", format!("{}, {} (free: {})", store.models, Bytes(store.bytes), size(store.free_bytes))),
        ("hub", format!("{} ({token})", store.endpoint)),
        ("pip", store.pip.clone()),
        ("backend", format!("{}, {} threads", report.choice.backend, report.choice.threads)),
        ("gpu", report.choice.gpu.clone()),
        ("kernels", report.choice.kernels.clone()),
    ] {
        out.line(format_args!("{key:<10}{value}"))?;
    }
    Ok(())
}

/// Which instruction sets the kernels could use, best first.
fn cpu_features() -> Vec<&'static str> {
    let mut found = Vec::new();
    macro_rules! look {
        ($detect:ident: $($name:tt)*) => { $( if std::arch::$detect!($name) { found.push($name); } )* };
    }
    #[cfg(target_arch = "x86_64")]
    look!(is_x86_feature_detected: "avx512f" "avx512bw" "avx512vnni" "avx512bf16" "avxvnni" "avx2" "fma" "f16c" "avx" "sse4.2");
    #[cfg(target_arch = "aarch64")]
    look!(is_aarch64_feature_detected: "sve" "i8mm" "bf16" "dotprod" "fp16" "neon");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    found.clear();
    found
}

fn cpu_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

/// Free bytes for this user on the file system that holds `path` or will hold it.
#[cfg(unix)]
fn free_space(path: &Path) -> Option<u64> {
    use std::os::unix::ffi::OsStrExt;
    let here = path.ancestors().find(|p| p.exists())?;
    let text = std::ffi::CString::new(here.as_os_str().as_bytes()).ok()?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: `text` is a C string and `stat` has room for one result; both live through the call.
    let failed = unsafe { libc::statvfs(text.as_ptr(), stat.as_mut_ptr()) } != 0;
    if failed {
        return None;
    }
    // SAFETY: all-zero bytes are a valid `statvfs`, and the call has filled it in.
    let stat = unsafe { stat.assume_init() };
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion)] // types differ between platforms
    (stat.f_bavail as u64).checked_mul(stat.f_frsize as u64)
}

#[cfg(not(unix))]
fn free_space(_path: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_space_of_a_folder_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let free = free_space(&dir.path().join("not/yet/there"));
        assert_eq!(free.is_some(), cfg!(unix));
    }
}
