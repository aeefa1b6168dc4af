//! What this machine has.

use serde::Serialize;

/// Memory of this machine.
#[derive(Default, Serialize)]
pub struct Memory {
    /// Installed.
    pub total_bytes: Option<u64>,
    /// Free, or in caches that can be given up.
    pub available_bytes: Option<u64>,
    /// Limit of the control group, as containers have.
    pub limit_bytes: Option<u64>,
}

/// From `/proc/meminfo` and the control group; elsewhere from the C library, as far as it tells.
pub fn memory() -> Memory {
    if let Ok(text) = std::fs::read_to_string("/proc/meminfo") {
        return Memory {
            total_bytes: meminfo_field(&text, "MemTotal:"),
            available_bytes: meminfo_field(&text, "MemAvailable:"),
            limit_bytes: cgroup_limit(),
        };
    }
    Memory { total_bytes: physical_memory(), ..Memory::default() }
}

fn meminfo_field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn cgroup_limit() -> Option<u64> {
    let text = std::fs::read_to_string("/sys/fs/cgroup/memory.max")
        .or_else(|_| std::fs::read_to_string("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
        .ok()?;
    // "max" or a number near 2^63 mean that there is none.
    text.trim().parse().ok().filter(|&limit: &u64| limit < 1 << 60)
}

#[cfg(unix)]
fn physical_memory() -> Option<u64> {
    // SAFETY: sysconf takes no pointers; unknown values give -1.
    let (pages, page) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
    u64::try_from(pages).ok()?.checked_mul(u64::try_from(page).ok()?)
}

#[cfg(not(unix))]
fn physical_memory() -> Option<u64> {
    None
}

impl Memory {
    /// Bytes that a process may still take, as far as the system tells.
    pub fn free(&self) -> Option<u64> {
        [self.available_bytes, self.limit_bytes].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo() {
        let text = "MemTotal:       16384 kB\nMemFree: 1 kB\nMemAvailable:    8192 kB\n";
        assert_eq!(meminfo_field(text, "MemTotal:"), Some(16 << 20));
        assert_eq!(meminfo_field(text, "MemAvailable:"), Some(8 << 20));
        assert_eq!(meminfo_field(text, "Nothing:"), None);
    }
}
