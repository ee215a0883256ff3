//! What user code may do on the machine that runs it: which files, calls, capabilities and how much of everything.
//!
//! [`Sandbox`] is that as data, and [`Sandbox::enter`] makes it so for the thread that calls it and for all that this thread
//! begins; there is no way out. `paths` knows what interpreters need to read, `calls` which system calls nobody needs who
//! maps and reduces, `flags` what users say about it. Who is in the sandbox is begun, watched and ended by
//! `process::supervisor`; limits that the kernel knows no words for (memory of a process and its children, the size of a
//! folder) are watched there too.
//!
//! Everything works without privilege. Root gives its away: the code gets a user id of its own, which owns its folder and
//! nothing else, and reads what Landlock lets it read. Where a kernel lacks a part, the others hold, and [`missing`] tells.
//!
//! Sources: the kernel's `Documentation/userspace-api/landlock.rst` and `seccomp_filter.rst`; capabilities(7).

mod calls;
pub(crate) mod flags;
mod paths;

use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::fs::FileType;
use rustix::process::{Gid, Resource, Rlimit, Uid};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};
use serde::{Deserialize, Serialize};

pub(crate) use paths::needed;

/// The newest Landlock that we know. Older ones do less.
const LANDLOCK: ABI = ABI::V6;
/// User ids that code of root is given: this and the number of its supervisor. Above those of people, services and containers
/// (systemd's `UIDS-GIDS.md`).
const FIRST_UID: u32 = 1_900_000_000;
/// Files that a process may have open.
const OPEN_FILES: u64 = 1024;

/// What code may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sandbox {
    /// Files and folders that it may read and execute.
    pub(crate) readable: Vec<PathBuf>,
    /// Folders in which it may do as it likes.
    pub(crate) own: Vec<PathBuf>,
    /// Whether it may use the network.
    pub(crate) network: bool,
}

/// How much of everything code may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// Bytes of memory of a process and all that it began.
    pub(crate) memory: u64,
    /// Bytes in its folder.
    pub(crate) scratch: u64,
    /// Processes and threads at a time.
    pub(crate) processes: u64,
    /// Seconds of a core that one process may use.
    pub(crate) cpu: Option<u64>,
}

impl Limits {
    /// As limits of a process. `used` are processes and threads of the same user that count against their number.
    pub(crate) fn of_process(&self, used: u64) -> Vec<(Resource, Rlimit)> {
        let limits = [
            (Resource::Nofile, Some(OPEN_FILES)),
            // Whoever watches is to see first what was passed: its words say more.
            (Resource::Fsize, Some(self.scratch.saturating_add(1 << 20))),
            (Resource::Nproc, Some(self.processes + used + 8)),
            (Resource::Core, Some(0)),
            (Resource::Cpu, self.cpu),
        ];
        let limit = |(resource, most): (Resource, Option<u64>)| {
            let most = most?;
            // At the second limit of time a process is killed without a word why.
            let later = if resource == Resource::Cpu { most + 5 } else { most };
            // The system's hard limit stays where it is lower than ours.
            let hard = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
            Some((resource, Rlimit { current: Some(most.min(hard)), maximum: Some(later.min(hard)) }))
        };
        limits.into_iter().filter_map(limit).collect()
    }
}

/// Who code runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// As whoever began it.
    Same,
    /// As a user of its own.
    Own(u32),
}

impl Identity {
    /// A user of its own for what root begins, where root may give itself away and the kernel can bound what that user reads.
    pub(crate) fn choose() -> Self {
        let id = FIRST_UID + std::process::id();
        let may = CapabilitySet::CHOWN | CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::SETPCAP;
        let has = rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(may));
        let known = ["uid_map", "gid_map"].iter().all(|map| {
            let text = std::fs::read_to_string(format!("/proc/self/{map}")).unwrap_or_default();
            text.lines().any(|line| in_range(line, id))
        });
        let root = rustix::process::geteuid().is_root();
        if root && has && known && landlock_abi() != ABI::Unsupported { Self::Own(id) } else { Self::Same }
    }

    /// Gives it the pipes that are this process's standard streams.
    pub(crate) fn give_streams(self) {
        let Self::Own(id) = self else { return };
        for fd in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
            if rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo) {
                // What cannot be given can be used all the same, but not be opened again.
                let _ = rustix::fs::fchown(fd, Some(Uid::from_raw(id)), Some(Gid::from_raw(id)));
            }
        }
    }

    /// Gives it a folder that was made for it, with what is in there.
    pub(crate) fn give(self, folder: &Path) -> io::Result<()> {
        let Self::Own(id) = self else { return Ok(()) };
        std::os::unix::fs::chown(folder, Some(id), Some(id))?;
        for entry in std::fs::read_dir(folder)? {
            std::os::unix::fs::lchown(entry?.path(), Some(id), Some(id))?;
        }
        Ok(())
    }
}

/// Whether a line of a map of ids (user_namespaces(7)) has an id.
fn in_range(line: &str, id: u32) -> bool {
    let mut numbers = line.split_ascii_whitespace().filter_map(|number| number.parse::<u64>().ok());
    let (Some(first), Some(_), Some(n)) = (numbers.next(), numbers.next(), numbers.next()) else { return false };
    (first..first.saturating_add(n)).contains(&u64::from(id))
}

impl Sandbox {
    /// Puts the calling thread into the sandbox, with all that it begins from now on.
    pub(crate) fn enter(&self, identity: Identity) -> Result<(), String> {
        if let Identity::Own(id) = identity {
            // It may read what root may, as far as Landlock lets it, and nothing else that root may.
            become_user(id).map_err(|e| format!("root's rights cannot be given away: {e}"))?;
        } else {
            // Nothing is there to lose for most.
            let _ = rustix::thread::clear_ambient_capability_set();
            drop_capabilities(CapabilitySet::empty()).map_err(|e| format!("capabilities cannot be dropped: {e}"))?;
        }
        rustix::thread::set_no_new_privs(true).map_err(|e| format!("no_new_privs: {e}"))?;
        self.restrict_files().map_err(|e| format!("Landlock: {e}"))?;
        calls::restrict(self.network, identity == Identity::Same)
    }

    fn restrict_files(&self) -> Result<RulesetStatus, landlock::RulesetError> {
        let read = AccessFs::from_read(LANDLOCK);
        let write = AccessFs::from_all(LANDLOCK) & !(AccessFs::MakeChar | AccessFs::MakeBlock);
        let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev;
        let mut rules =
            Ruleset::default().handle_access(AccessFs::from_all(LANDLOCK))?.scope(Scope::from_all(LANDLOCK))?;
        if !self.network {
            rules = rules.handle_access(AccessNet::from_all(LANDLOCK))?;
        }
        let mut rules = rules.create()?;
        let all = [
            (paths::SYSTEM.iter().map(PathBuf::from).collect::<Vec<_>>(), read),
            (paths::DEVICES.iter().map(PathBuf::from).collect(), device),
            (paths::of_etc(), read),
            (self.readable.clone(), read),
            (self.own.clone(), write),
        ];
        for (paths, access) in all {
            for path in paths {
                rules = rules.add_rules(beneath(&path, access))?;
            }
        }
        Ok(rules.restrict_self()?.ruleset)
    }
}

/// The rule for a path; none where there is nothing.
fn beneath(path: &Path, access: BitFlags<AccessFs>) -> Option<Result<PathBeneath<PathFd>, landlock::RulesetError>> {
    let fd = PathFd::new(path).ok()?;
    // Rights to folders mean nothing for a file.
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(LANDLOCK) };
    Some(Ok(PathBeneath::new(fd, access)))
}

/// The calling thread becomes a user that owns nothing, keeping of root's rights that to read everything.
fn become_user(id: u32) -> rustix::io::Result<()> {
    use rustix::thread;
    let bits = CapabilitiesSecureBits::NO_ROOT | CapabilitiesSecureBits::NO_SETUID_FIXUP;
    thread::set_capabilities_secure_bits(bits)?;
    thread::set_thread_groups(&[])?;
    thread::set_thread_res_gid(Gid::from_raw(id), Gid::from_raw(id), Gid::from_raw(id))?;
    thread::set_thread_res_uid(Uid::from_raw(id), Uid::from_raw(id), Uid::from_raw(id))?;
    drop_capabilities(CapabilitySet::DAC_READ_SEARCH)?;
    // Of a container's root it may be missing: then what others may read is read.
    let has = thread::capabilities(None)?.permitted.contains(CapabilitySet::DAC_READ_SEARCH);
    if has { thread::configure_capability_in_ambient_set(CapabilitySet::DAC_READ_SEARCH, true) } else { Ok(()) }
}

fn drop_capabilities(keep: CapabilitySet) -> rustix::io::Result<()> {
    let has = rustix::thread::capabilities(None)?;
    let keep = keep & has.permitted;
    for capability in CapabilitySet::all().iter().filter(|c| !keep.contains(*c)) {
        // Needs a right that ordinary users lack, who have nothing to drop.
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    rustix::thread::set_capabilities(None, CapabilitySets { effective: keep, permitted: keep, inheritable: keep })
}

/// What the kernel has of Landlock. Asks with a thread of its own, since asking is entering.
fn landlock_abi() -> ABI {
    let ask = || {
        let rules = Ruleset::default().handle_access(AccessFs::Execute)?.create()?;
        rules.add_rules(beneath(Path::new("/"), AccessFs::Execute.into()))?.restrict_self()
    };
    match std::thread::spawn(ask).join() {
        Ok(Ok(status)) => match status.landlock {
            LandlockStatus::Available { effective_abi, .. } => effective_abi,
            _ => ABI::Unsupported,
        },
        _ => ABI::Unsupported,
    }
}

/// What this machine lacks of a sandbox, in words for people; empty if nothing.
pub(crate) fn missing() -> Vec<&'static str> {
    let mut all = Vec::new();
    match landlock_abi() {
        ABI::Unsupported => all.push("files are not restricted (no Landlock)"),
        abi if abi < ABI::V3 => all.push("files of others can be truncated (Landlock before ABI 3)"),
        abi if abi < LANDLOCK => {
            all.push("signals to processes of the same user are not restricted (Landlock before ABI 6)")
        }
        _ => {}
    }
    if !calls::supported() {
        all.push("system calls and the network are not restricted (no seccomp)");
    }
    if rustix::process::geteuid().is_root() && Identity::choose() == Identity::Same {
        all.push("code runs as root, without its capabilities (this root cannot give another user id)");
    }
    if !Path::new("/proc/thread-self/children").is_file() {
        all.push("memory and the number of processes are not watched (no CONFIG_PROC_CHILDREN)");
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_in_the_sandbox_reads_what_it_may_and_no_more() {
        assert!(landlock_abi() >= LANDLOCK, "this kernel's Landlock is {:?}", landlock_abi());
        let folder = tempfile::tempdir().unwrap();
        let [ours, theirs, read] = ["ours", "theirs", "read"].map(|name| {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("file"), name).unwrap();
            path
        });
        let sandbox = Sandbox { readable: vec![read.clone()], own: vec![ours.clone()], network: false };
        std::thread::spawn(move || {
            sandbox.enter(Identity::Same).unwrap();
            assert_eq!(std::fs::read(ours.join("file")).unwrap(), b"ours");
            std::fs::write(ours.join("new"), "x").unwrap();
            assert_eq!(std::fs::read(read.join("file")).unwrap(), b"read");
            assert!(std::fs::write(read.join("file"), "x").is_err());
            assert!(std::fs::read(theirs.join("file")).is_err());
            assert!(std::fs::read("/etc/shadow").is_err());
            assert!(std::fs::read("/usr/bin/env").is_ok());
            assert!(std::net::UdpSocket::bind("127.0.0.1:0").is_err());
            assert!(std::net::TcpListener::bind("127.0.0.1:0").is_err());
            assert!(std::os::unix::net::UnixStream::pair().is_ok());
        })
        .join()
        .unwrap();
        assert!(std::net::UdpSocket::bind("127.0.0.1:0").is_ok(), "other threads are not in it");
    }
}
