//! Which system calls the daemon may make (seccomp).
//!
//! An allow-list for the whole process, put in force when all threads run. It holds what the daemon does while it
//! runs, adding ports included: memory, threads, events, Unix sockets, files, TAP. Not in it, and so refused: starting
//! programs, tracing, mounting, loading, changing identity, executable memory, sockets of families that nothing here
//! speaks, terminal controls, and everything that nobody thought of.
//!
//! A call that is refused fails with EPERM: a daemon that carries the network of a hundred VMs is not killed because a
//! library was updated and found a new way to ask for the time.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};

/// Calls that are allowed whatever their arguments are.
const ANY: &[libc::c_long] = &[
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_memfd_create,
    libc::SYS_mincore,
    libc::SYS_mlock,
    libc::SYS_mremap,
    libc::SYS_munlock,
    libc::SYS_munmap,
    // Threads and their CPUs.
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_get_robust_list,
    libc::SYS_getcpu,
    libc::SYS_gettid,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    // Signals; to itself only, but a process cannot be told from its arguments here.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    // Time.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_gettime,
    libc::SYS_timerfd_settime,
    // Events.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_rm_watch,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_signalfd4,
    // Descriptors and files; landlock says which.
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fallocate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_statx,
    libc::SYS_umask,
    libc::SYS_unlinkat,
    libc::SYS_write,
    libc::SYS_writev,
    // Sockets; which kinds is said below.
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_socketpair,
    // The process and the host.
    libc::SYS_capget,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getpriority,
    libc::SYS_getrandom,
    libc::SYS_getresgid,
    libc::SYS_getresuid,
    libc::SYS_getrusage,
    libc::SYS_getuid,
    libc::SYS_prlimit64,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

/// Names of calls that only older architectures have, and that their C libraries still use.
#[cfg(target_arch = "x86_64")]
const LEGACY: &[libc::c_long] = &[
    libc::SYS_access,
    libc::SYS_arch_prctl,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_dup2,
    libc::SYS_epoll_wait,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_stat,
    libc::SYS_time,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const LEGACY: &[libc::c_long] = &[];

/// Requests of ioctl(2): TAP devices, interfaces of the host, and what the standard library asks of descriptors.
const IOCTLS: &[u64] = &[
    0x400454ca, // TUNSETIFF
    0x400454cb, // TUNSETPERSIST
    0x800454cf, // TUNGETFEATURES
    0x400454d0, // TUNSETOFFLOAD
    0x800454d2, // TUNGETIFF
    0x800454d3, // TUNGETSNDBUF
    0x400454d4, // TUNSETSNDBUF
    0x800454d7, // TUNGETVNETHDRSZ
    0x400454d8, // TUNSETVNETHDRSZ
    0x400454d9, // TUNSETQUEUE
    0x400454dc, // TUNSETVNETLE
    0x8913,     // SIOCGIFFLAGS
    0x8914,     // SIOCSIFFLAGS
    0x8921,     // SIOCGIFMTU
    0x8922,     // SIOCSIFMTU
    0x8927,     // SIOCGIFHWADDR
    0x8933,     // SIOCGIFINDEX
    0x8946,     // SIOCETHTOOL
    0x5421,     // FIONBIO
    0x541b,     // FIONREAD
    0x5450,     // FIONCLEX
    0x5451,     // FIOCLEX
    0x5401,     // TCGETS: whether standard error is a terminal
    0x5413,     // TIOCGWINSZ
];

/// Operations of prctl(2): names of threads and of memory, and slack of timers.
const PRCTLS: &[u64] = &[
    15,         // PR_SET_NAME
    16,         // PR_GET_NAME
    29,         // PR_SET_TIMERSLACK
    0x53564d41, // PR_SET_VMA
];

/// Families of socket(2): local ones, and what interfaces of the host are asked and set through.
const FAMILIES: &[u64] = &[libc::AF_UNIX as u64, libc::AF_INET as u64, libc::AF_NETLINK as u64];

fn one_of(argument: u8, values: &[u64]) -> Result<Vec<SeccompRule>> {
    let rule = |&value| SeccompRule::new(vec![SeccompCondition::new(argument, Len::Dword, Op::Eq, value)?]);
    Ok(values.iter().map(rule).collect::<Result<_, _>>()?)
}

/// The filter that `refused` is the answer of.
fn filter(refused: SeccompAction) -> Result<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for &call in ANY.iter().chain(LEGACY) {
        rules.insert(call, Vec::new());
    }
    let not_executable = SeccompCondition::new(2, Len::Dword, Op::MaskedEq(libc::PROT_EXEC as u64), 0)?;
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![SeccompRule::new(vec![not_executable.clone()])?]);
    }
    rules.insert(libc::SYS_ioctl, one_of(1, IOCTLS)?);
    rules.insert(libc::SYS_prctl, one_of(0, PRCTLS)?);
    rules.insert(libc::SYS_socket, one_of(0, FAMILIES)?);
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, refused, SeccompAction::Allow, arch)?.try_into()?)
}

/// Gives up all other system calls, in all threads, for good.
pub(crate) fn restrict() -> Result<()> {
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let filter = filter(refused).context("cannot make the seccomp filter")?;
    apply_filter_all_threads(&filter).context("cannot enforce the seccomp filter")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a scene in a thread of its own under the filter.
    fn under_filter(scene: fn()) {
        let filter = filter(SeccompAction::Errno(libc::EPERM as u32)).unwrap();
        std::thread::spawn(move || {
            seccompiler::apply_filter(&filter).unwrap();
            scene();
        })
        .join()
        .unwrap();
    }

    #[test]
    fn what_the_daemon_does_goes_on() {
        under_filter(|| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("socket");
            let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
            let client = std::os::unix::net::UnixStream::connect(&path).unwrap();
            listener.accept().unwrap();
            drop(client);
            std::fs::write(dir.path().join("a"), "x").unwrap();
            std::fs::rename(dir.path().join("a"), dir.path().join("b")).unwrap();
            std::thread::Builder::new().name("worker".into()).spawn(|| ()).unwrap().join().unwrap();
            let cpus = rustix::thread::sched_getaffinity(None).unwrap();
            rustix::thread::sched_setaffinity(None, &cpus).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(1));
            let big = vec![1_u8; 64 << 20];
            assert_eq!(big.iter().map(|&b| u64::from(b)).sum::<u64>(), 64 << 20);
            let caught = std::panic::catch_unwind(|| panic!("caught"));
            assert!(caught.is_err());
        });
    }

    #[test]
    fn what_it_does_not_do_is_refused() {
        under_filter(|| {
            let started = std::process::Command::new("/bin/true").status();
            assert!(started.is_err(), "a program was started");
            let refused =
                rustix::net::socket(rustix::net::AddressFamily::PACKET, rustix::net::SocketType::RAW, None);
            assert_eq!(refused.unwrap_err(), rustix::io::Errno::PERM);
            assert_eq!(rustix::process::chroot("/").unwrap_err(), rustix::io::Errno::PERM);
        });
    }
}
