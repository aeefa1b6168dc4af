//! What this machine has.

use serde::Serialize;

/// Memory of this machine.
#[derive(Default, Serialize)]
pub struct Memory {
    /// Installed.
    pub total_bytes: Option<u64>,
    /// Free, or in caches that can be given up.
    pub available_bytes: Option<u64>,
    /// Least limit of the process's control groups, as containers have.
    pub limit_bytes: Option<u64>,
    /// What is left of a control group's limit, caches not counted: the least of all groups.
    pub limit_left_bytes: Option<u64>,
}

/// What the system tells.
pub fn memory() -> Memory {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let limit = control_groups(&read);
    Memory {
        limit_bytes: limit.map(|(limit, _)| limit),
        limit_left_bytes: limit.map(|(_, left)| left),
        ..system::memory()
    }
}

impl Memory {
    /// Bytes that this process may still take, as far as the system tells.
    pub fn free(&self) -> Option<u64> {
        [self.available_bytes, self.limit_left_bytes].into_iter().flatten().min()
    }
}

/// The least limit among the process's control group and those above it, and the least that is left of one.
fn control_groups(read: &dyn Fn(&str) -> Option<String>) -> Option<(u64, u64)> {
    let own = read("/proc/self/cgroup")?;
    let mut found: Option<(u64, u64)> = None;
    for line in own.lines() {
        // `0::/path` of version 2, `4:memory:/path` of version 1.
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let group = match controllers {
            "" => Group {
                root: "/sys/fs/cgroup",
                limits: &["memory.max", "memory.high"],
                usage: "memory.current",
                under: "",
            },
            c if c.split(',').any(|c| c == "memory") => Group {
                root: "/sys/fs/cgroup/memory",
                limits: &["memory.limit_in_bytes"],
                usage: "memory.usage_in_bytes",
                under: "total_",
            },
            _ => continue,
        };
        // Inside a container the path may be that of the world outside: then only the root is there.
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for part in ends.map(|end| path[..end].trim_end_matches('/')) {
            if let Some((limit, left)) = group.at(part, read) {
                found = Some(found.map_or((limit, left), |(l, f)| (l.min(limit), f.min(left))));
            }
        }
    }
    found
}

/// Files of a version of control groups.
struct Group {
    root: &'static str,
    limits: &'static [&'static str],
    usage: &'static str,
    /// How fields that count the groups below begin.
    under: &'static str,
}

impl Group {
    /// The limit of one group, if it has one, and what is left of it.
    fn at(&self, path: &str, read: &dyn Fn(&str) -> Option<String>) -> Option<(u64, u64)> {
        let file = |name: &str| read(&format!("{}{path}/{name}", self.root));
        let number = |name: &str| file(name)?.trim().parse::<u64>().ok();
        // "max" or a number near 2^63 mean that there is none.
        let limit = self.limits.iter().filter_map(|name| number(name)).filter(|l| *l < 1 << 60).min()?;
        let stat = file("memory.stat").unwrap_or_default();
        let field = |name: &str| {
            let mut lines = stat.lines().filter_map(|line| line.split_once(' '));
            let value = lines.find(|(n, _)| n.strip_prefix(self.under) == Some(name))?.1;
            value.trim().parse::<u64>().ok()
        };
        let caches: u64 =
            ["active_file", "inactive_file", "slab_reclaimable"].into_iter().filter_map(field).sum();
        let used = number(self.usage)?.saturating_sub(caches);
        Some((limit, limit.saturating_sub(used)))
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod system {
    use super::Memory;

    pub fn memory() -> Memory {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let (total_bytes, available_bytes) = (field(&text, "MemTotal:"), field(&text, "MemAvailable:"));
        Memory { total_bytes, available_bytes, ..Memory::default() }
    }

    pub fn field(text: &str, name: &str) -> Option<u64> {
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    }
}

#[cfg(target_os = "macos")]
mod system {
    use super::Memory;

    #[allow(deprecated)] // The crate that libc points to is one more dependency for three calls.
    pub fn memory() -> Memory {
        // SAFETY: sysconf takes no pointers; unknown values give -1.
        let (pages, page) =
            unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
        let (pages, page) = (u64::try_from(pages).ok(), u64::try_from(page).ok());
        let bytes = |pages: u64| page.and_then(|page| page.checked_mul(pages));
        // SAFETY: all zeros is a value of this structure of numbers.
        let mut now: libc::vm_statistics64 = unsafe { std::mem::zeroed() };
        let mut len = libc::HOST_VM_INFO64_COUNT;
        // SAFETY: the structure is ours and has `len` numbers of the kind that is asked for.
        let told = unsafe {
            let to = (&raw mut now).cast::<libc::integer_t>();
            libc::host_statistics64(libc::mach_host_self(), libc::HOST_VM_INFO64, to, &mut len)
        };
        // Free pages, and those that hold what can be read again.
        let free = u64::from(now.free_count) + u64::from(now.inactive_count);
        let available_bytes = (told == libc::KERN_SUCCESS).then(|| bytes(free)).flatten();
        Memory { total_bytes: pages.and_then(bytes), available_bytes, ..Memory::default() }
    }
}

#[cfg(windows)]
mod system {
    use super::Memory;

    /// `MEMORYSTATUSEX` of the Windows API.
    #[repr(C)]
    struct Status {
        length: u32,
        load: u32,
        total_physical: u64,
        available_physical: u64,
        total_commit: u64,
        available_commit: u64,
        total_virtual: u64,
        available_virtual: u64,
        available_extended: u64,
    }

    #[link(name = "kernel32")]
    unsafe extern "system" {
        fn GlobalMemoryStatusEx(status: *mut Status) -> i32;
    }

    pub fn memory() -> Memory {
        // SAFETY: all zeros is a value of this structure of numbers.
        let mut now: Status = unsafe { std::mem::zeroed() };
        now.length = size_of::<Status>() as u32;
        // SAFETY: the structure is ours and says its length.
        if unsafe { GlobalMemoryStatusEx(&mut now) } == 0 {
            return Memory::default();
        }
        // What is promised counts at once here, used or not.
        let available_bytes = Some(now.available_physical.min(now.available_commit));
        Memory { total_bytes: Some(now.total_physical), available_bytes, ..Memory::default() }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "macos", windows)))]
mod system {
    use super::Memory;

    /// What is free cannot be asked in one way.
    pub fn memory() -> Memory {
        #[cfg(unix)]
        // SAFETY: sysconf takes no pointers; unknown values give -1.
        let total_bytes = {
            let (pages, page) =
                unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
            u64::try_from(pages).ok().and_then(|pages| pages.checked_mul(u64::try_from(page).ok()?))
        };
        #[cfg(not(unix))]
        let total_bytes = None;
        Memory { total_bytes, ..Memory::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    #[cfg(target_os = "linux")]
    fn meminfo() {
        let text = "MemTotal:       16384 kB\nMemFree: 1 kB\nMemAvailable:    8192 kB\n";
        assert_eq!(system::field(text, "MemTotal:"), Some(16 << 20));
        assert_eq!(system::field(text, "MemAvailable:"), Some(8 << 20));
        assert_eq!(system::field(text, "Nothing:"), None);
        assert!(memory().free().is_some());
    }

    fn groups(files: &[(&str, &str)]) -> Option<(u64, u64)> {
        let files: HashMap<_, _> = files.iter().copied().collect();
        control_groups(&|path| files.get(path).map(|text| (*text).to_owned()))
    }

    #[test]
    fn the_process_s_own_group_and_those_above() {
        let own = ("/proc/self/cgroup", "0::/a.slice/b.service\n");
        assert_eq!(groups(&[own]), None);
        let mut files = vec![
            own,
            ("/sys/fs/cgroup/a.slice/memory.max", "1000\n"),
            ("/sys/fs/cgroup/a.slice/memory.current", "700\n"),
            (
                "/sys/fs/cgroup/a.slice/memory.stat",
                "anon 200\nfile 500\ninactive_file 300\nactive_file 100\n",
            ),
            ("/sys/fs/cgroup/a.slice/b.service/memory.max", "max\n"),
            ("/sys/fs/cgroup/a.slice/b.service/memory.high", "max\n"),
        ];
        // 700 are used, 400 of them by caches of files.
        assert_eq!(groups(&files), Some((1000, 700)));
        files[4].1 = "5000\n";
        files.push(("/sys/fs/cgroup/a.slice/b.service/memory.current", "4900\n"));
        assert_eq!(groups(&files), Some((1000, 100)));
        files[5].1 = "500\n";
        assert_eq!(groups(&files), Some((500, 0)));
    }

    #[test]
    fn the_root_alone_and_the_first_version() {
        // A container that is told the path of the world outside.
        let files = [
            ("/proc/self/cgroup", "0::/docker/abc\n"),
            ("/sys/fs/cgroup/memory.max", "1000\n"),
            ("/sys/fs/cgroup/memory.current", "10\n"),
        ];
        assert_eq!(groups(&files), Some((1000, 990)));
        let files = [
            ("/proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/x\n0::/\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "1000\n"),
            ("/sys/fs/cgroup/memory/x/memory.usage_in_bytes", "500\n"),
            ("/sys/fs/cgroup/memory/x/memory.stat", "inactive_file 1\ntotal_inactive_file 100\n"),
        ];
        assert_eq!(groups(&files), Some((1000, 600)));
    }
}
