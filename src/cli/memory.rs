//! How much memory there is, and how much was used.

use std::fs;
use std::path::{Path, PathBuf};

use gristmill_engine::job::MIN_MEMORY;

/// The memory that this process may use, in bytes.
pub(crate) fn whole() -> u64 {
    limit(Path::new("/")).unwrap_or(2 << 30)
}

/// Half of the memory that this process may use.
pub(crate) fn half() -> u64 {
    (whole() / 2).max(MIN_MEMORY)
}

/// The most memory that this process has held at once, in bytes.
pub(crate) fn peak() -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// The least of the machine's memory and the limits of the control groups that this process is in.
fn limit(root: &Path) -> Option<u64> {
    let machine = fs::read_to_string(root.join("proc/meminfo")).ok().and_then(|text| kibibytes(&text, "MemTotal:"));
    let number = |path: &PathBuf| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    groups(root).iter().filter_map(number).chain(machine).min()
}

/// The files that hold limits: of our group and of all above it, for both versions of control groups. In a container
/// the group's name may be that outside of it; its own is then the topmost.
fn groups(root: &Path) -> Vec<PathBuf> {
    let base = root.join("sys/fs/cgroup");
    let mut all = vec![base.join("memory.max"), base.join("memory/memory.limit_in_bytes")];
    let text = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        let (base, file) = match controllers {
            "" => (base.clone(), "memory.max"),
            other if other.split(',').any(|c| c == "memory") => (base.join("memory"), "memory.limit_in_bytes"),
            _ => continue,
        };
        let names = Path::new(group).ancestors().map(|a| a.strip_prefix("/").unwrap_or(a));
        all.extend(names.filter(|a| !a.as_os_str().is_empty()).map(|a| base.join(a).join(file)));
    }
    all
}

/// The number behind a label of a file in /proc, which counts in KiB.
fn kibibytes(text: &str, label: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(label))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit_of(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        limit(root.path())
    }

    #[test]
    fn the_least_limit_counts() {
        let machine = ("proc/meminfo", "MemFree: 1 kB\nMemTotal:       1000 kB\n");
        assert_eq!(limit_of(&[]), None);
        assert_eq!(limit_of(&[machine]), Some(1_024_000));
        let ours = ("proc/self/cgroup", "0::/a/b\n");
        let none = ("sys/fs/cgroup/a/b/memory.max", "max\n");
        assert_eq!(limit_of(&[machine, ours, none]), Some(1_024_000));
        assert_eq!(limit_of(&[machine, ours, none, ("sys/fs/cgroup/a/memory.max", "5000\n")]), Some(5000));
        assert_eq!(limit_of(&[machine, ours, ("sys/fs/cgroup/memory.max", "700")]), Some(700));
        let first = ("proc/self/cgroup", "7:cpu:/x\n3:cpuset,memory:/docker/1f:2\n");
        let docker = ("sys/fs/cgroup/memory/docker/1f:2/memory.limit_in_bytes", "4096\n");
        assert_eq!(limit_of(&[machine, first, docker]), Some(4096));
        let container = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "8192\n");
        assert_eq!(limit_of(&[machine, first, container]), Some(8192));
        let unlimited = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(limit_of(&[machine, first, unlimited]), Some(1_024_000));
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(peak().unwrap() > 1 << 16);
        assert!(half() >= MIN_MEMORY);
    }
}
