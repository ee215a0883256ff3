//! Which system calls are refused: those that change the machine, look into other processes, make namespaces, or reach other
//! machines; by a filter in the kernel (seccomp).
//!
//! A list of what is refused, not of what is allowed: interpreters of all kinds make calls of all kinds, and what matters of
//! files is Landlock's business.

use std::collections::BTreeMap;

use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// Refused whatever their arguments are.
const REFUSED: &[i64] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_perf_event_open,
    // Mounts and roots.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    // Namespaces; see also `clone`.
    libc::SYS_unshare,
    libc::SYS_setns,
    // Memory that belongs to no process, where nobody counts it, and that outlives all of them.
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_shmget,
    libc::SYS_semget,
    libc::SYS_msgget,
    libc::SYS_mq_open,
    // Keyrings.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // The kernel and the clock.
    libc::SYS_bpf,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    // Ways around: files by handles, faults served by the process itself, calls by a queue that no filter sees.
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
];

/// Bits of `clone` that make a namespace.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Families of sockets that a job with the network may have: the internet, and what resolvers ask of the kernel.
const FAMILIES: [i32; 3] = [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// On x86-64 a call with this bit is the same call by another number (x32).
#[cfg(target_arch = "x86_64")]
const OTHER_NUMBERS: i64 = 0x4000_0000;

fn is(argument: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value)
}

/// Calls whose first argument is a process: of the same user it could be any.
const OF_PROCESS: [i64; 5] = [
    libc::SYS_prlimit64,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
];
/// Calls that name a kind of whom they are about, where 0 is a process, and which.
const OF_KIND: [i64; 1] = [libc::SYS_setpriority];

fn rules(network: bool, same_user: bool) -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let namespace = |bit: &i32| {
        let bit = u64::from(*bit as u32);
        SeccompRule::new(vec![is(0, SeccompCmpOp::MaskedEq(bit), bit)?])
    };
    rules.insert(libc::SYS_clone, NAMESPACES.iter().map(namespace).collect::<Result<_, _>>()?);
    let sockets = if network {
        let other = FAMILIES.iter().map(|family| is(0, SeccompCmpOp::Ne, *family as u64)).collect::<Result<_, _>>()?;
        let raw = |family: i32, kind: i32| {
            SeccompRule::new(vec![
                is(0, SeccompCmpOp::Eq, family as u64)?,
                is(1, SeccompCmpOp::MaskedEq(0xf), kind as u64)?,
            ])
        };
        vec![SeccompRule::new(other)?, raw(libc::AF_INET, libc::SOCK_RAW)?, raw(libc::AF_INET6, libc::SOCK_RAW)?]
    } else {
        Vec::new()
    };
    rules.insert(libc::SYS_socket, sockets);
    // A pair of these sends to any path.
    let datagrams = vec![is(1, SeccompCmpOp::MaskedEq(0xf), libc::SOCK_DGRAM as u64)?];
    rules.insert(libc::SYS_socketpair, vec![SeccompRule::new(datagrams)?]);
    if same_user {
        for call in OF_PROCESS {
            rules.insert(call, vec![SeccompRule::new(vec![is(0, SeccompCmpOp::Ne, 0)?])?]);
        }
        for call in OF_KIND {
            let other = |argument| SeccompRule::new(vec![is(argument, SeccompCmpOp::Ne, 0)?]);
            rules.insert(call, vec![other(0)?, other(1)?]);
        }
        // Its first argument is a kind, where 1 is a process.
        let other = |argument, this| SeccompRule::new(vec![is(argument, SeccompCmpOp::Ne, this)?]);
        rules.insert(libc::SYS_ioprio_set, vec![other(0, 1)?, other(1, 0)?]);
    }
    #[cfg(target_arch = "x86_64")]
    {
        let others: Vec<_> = rules.iter().map(|(call, rules)| (call | OTHER_NUMBERS, rules.clone())).collect();
        rules.extend(others);
    }
    Ok(rules)
}

/// Whether there is a filter for this machine.
pub(crate) fn supported() -> bool {
    TargetArch::try_from(std::env::consts::ARCH).is_ok() && rustix::thread::secure_computing_mode().is_ok()
}

/// Filters the calls of this thread and of all that it begins. `same_user` says that it runs as whoever began it.
pub(crate) fn restrict(network: bool, same_user: bool) -> Result<(), String> {
    if !supported() {
        return Ok(());
    }
    let failed = |e: &dyn std::fmt::Display| format!("seccomp: {e}");
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|e| failed(&e))?;
    let refused = rules(network, same_user).map_err(|e| failed(&e))?;
    // Its flags are behind a pointer, where no filter can look; who is told that there is no such call uses `clone`.
    let unknown = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    for (rules, errno) in [(refused, libc::EPERM), (unknown, libc::ENOSYS)] {
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32), arch);
        let program: seccompiler::BpfProgram = filter.and_then(TryInto::try_into).map_err(|e| failed(&e))?;
        seccompiler::apply_filter(&program).map_err(|e| failed(&e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketType, socket};

    /// What a thread in the filter gets.
    fn filtered<T: Send + 'static>(network: bool, then: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            restrict(network, true).unwrap();
            then()
        })
        .join()
        .unwrap()
    }

    fn family(of: i32) -> AddressFamily {
        AddressFamily::from_raw(of as u16)
    }

    #[test]
    fn without_the_network_there_are_no_sockets_but_pairs() {
        for kind in [SocketType::STREAM, SocketType::DGRAM] {
            for of in [libc::AF_INET, libc::AF_INET6, libc::AF_UNIX, libc::AF_NETLINK, libc::AF_PACKET] {
                let made = filtered(false, move || socket(family(of), kind, None).map(drop));
                assert_eq!(made, Err(rustix::io::Errno::PERM), "family {of}");
            }
        }
        assert!(filtered(false, || std::os::unix::net::UnixStream::pair().is_ok()));
        assert!(filtered(false, || std::os::unix::net::UnixDatagram::pair().is_err()));
    }

    #[test]
    fn with_the_network_there_are_those_of_the_internet() {
        let made = |of: i32, kind| filtered(true, move || socket(family(of), kind, None).map(drop));
        for of in [libc::AF_INET, libc::AF_NETLINK] {
            assert_eq!(made(of, SocketType::DGRAM), Ok(()), "family {of}");
        }
        assert_eq!(made(libc::AF_INET, SocketType::STREAM), Ok(()));
        for of in [libc::AF_UNIX, libc::AF_PACKET] {
            assert_eq!(made(of, SocketType::STREAM), Err(rustix::io::Errno::PERM), "family {of}");
        }
        assert_eq!(made(libc::AF_INET, SocketType::RAW), Err(rustix::io::Errno::PERM));
    }

    #[test]
    fn limits_and_turns_of_others_are_left_alone() {
        use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
        let most = getrlimit(Resource::Nofile).maximum;
        let limit = move |pid| prlimit(pid, Resource::Nofile, Rlimit { current: most, maximum: most }).map(drop);
        let parent = rustix::process::getppid();
        let me = rustix::process::getpid();
        assert_eq!(filtered(false, move || limit(None)), Ok(()));
        assert_eq!(filtered(false, move || limit(Some(me))), Err(rustix::io::Errno::PERM));
        assert!(filtered(false, move || limit(parent)).is_err());
        let nice = |pid| rustix::process::setpriority_process(pid, 19);
        assert!(filtered(false, move || nice(parent)).is_err());
    }

    #[test]
    fn no_namespace_is_made_and_threads_are() {
        let refused = filtered(false, || {
            std::thread::spawn(|| {}).join().unwrap();
            assert!(std::process::Command::new("true").status().unwrap().success());
            rustix::thread::set_no_new_privs(true).unwrap();
            std::process::Command::new("unshare").args(["-U", "true"]).status().map(|status| status.success())
        });
        assert!(!refused.unwrap_or(false));
    }
}
