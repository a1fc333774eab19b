//! Memory available to this process.

use std::fs;
use std::path::Path;

/// Bytes available on the system and in the control group of this process; `None` where neither is known.
///
/// Source: Linux, `Documentation/filesystems/proc.rst` (`MemAvailable`) and `Documentation/admin-guide/cgroup-v2.rst`.
pub(crate) fn available_memory() -> Option<u64> {
    let system = fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_available(&text));
    [system, of_control_group(Path::new("/sys/fs/cgroup"))].into_iter().flatten().min()
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn mem_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Bytes left below the limit of a control group; `None` without a limit.
fn of_control_group(dir: &Path) -> Option<u64> {
    let number = |name: &str| fs::read_to_string(dir.join(name)).ok()?.trim().parse::<u64>().ok();
    Some(number("memory.max")?.saturating_sub(number("memory.current")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_read() {
        assert_eq!(mem_available("MemTotal:  9 kB\nMemAvailable:    12 kB\n"), Some(12 * 1024));
        assert_eq!(mem_available("MemTotal:  9 kB\n"), None);
        assert_eq!(mem_available("MemAvailable: x kB"), None);
    }

    #[test]
    fn a_control_group_without_a_limit_sets_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(of_control_group(dir.path()), None);
        fs::write(dir.path().join("memory.max"), "max\n").unwrap();
        fs::write(dir.path().join("memory.current"), "100\n").unwrap();
        assert_eq!(of_control_group(dir.path()), None);
        fs::write(dir.path().join("memory.max"), "150\n").unwrap();
        assert_eq!(of_control_group(dir.path()), Some(50));
    }
}
