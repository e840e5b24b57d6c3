//! What a process was given before Rust's runtime changed it, and the fork that hands it on.
//! It is the one module with unsafe code, and must never decide what a signal or a program means.
//!
//! Why it is here: before `main` the runtime ignores SIGPIPE and opens `/dev/null` in place of closed
//! descriptors 0 to 2, and [`std::process::Command`] always resets SIGPIPE, sorts the environment and drops
//! entries of it. A stand-in for bash must pass all of that on as it was: `trap '' PIPE` in a caller, `<&-`,
//! the order in which `env` lists. Nothing safe can find out the first two (`/proc` shows them too late).
#![expect(unsafe_code, reason = "see above: each use says why it is sound")]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigHandler, SigSet, Signal, raise, signal};
use nix::unistd::{ForkResult, Pid, close, execvpe, fork, getpid, getppid, pipe2};

/// Bit n - 1 is set where signal n was ignored when the process began.
static IGNORED: AtomicU64 = AtomicU64::new(0);
/// Bit n is set where descriptor n of 0 to 2 was closed when the process began.
static CLOSED: AtomicU64 = AtomicU64::new(0);
const SIGNALS: i32 = 64;

/// The C library calls this before it calls the runtime's `main`.
// SAFETY: the section holds pointers to functions of this type (System V ABI, "Initialization and Termination").
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

/// Some 70 system calls, 10 µs.
extern "C" fn look() {
    let mut ignored = 0;
    for number in 1..=SIGNALS {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: it only reads an action, into memory that is large enough; all zeros is a valid one.
        let action = unsafe {
            if libc::sigaction(number, std::ptr::null(), action.as_mut_ptr()) != 0 {
                continue;
            }
            action.assume_init()
        };
        if action.sa_sigaction == libc::SIG_IGN {
            ignored |= 1 << (number - 1);
        }
    }
    let mut closed = 0;
    for descriptor in 0..3 {
        // SAFETY: it only asks, and any number may be asked about.
        if unsafe { libc::fcntl(descriptor, libc::F_GETFD) } == -1 {
            closed |= 1 << descriptor;
        }
    }
    IGNORED.store(ignored, Ordering::Relaxed);
    CLOSED.store(closed, Ordering::Relaxed);
}

/// Whether `signal` was ignored when this process began.
pub fn was_ignored(signal: Signal) -> bool {
    IGNORED.load(Ordering::Relaxed) >> (signal as i32 - 1) & 1 == 1
}

/// A program, looked for in `PATH`, with what it is given.
#[derive(Debug)]
pub struct Program<'a> {
    /// Its name.
    pub name: &'a CStr,
    /// The arguments with `argv[0]`.
    pub arguments: &'a [CString],
    /// Its environment, in this order.
    pub environment: &'a [CString],
}

/// Becomes `program`, with signals and descriptors as they were when this process began. It returns only on
/// failure.
pub fn exec(program: &Program<'_>) -> Errno {
    restore();
    match execvpe(program.name, program.arguments, program.environment) {
        Ok(never) => match never {},
        Err(errno) => errno,
    }
}

/// Why there is no child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStarted {
    /// There are no more processes, descriptors or memory for it.
    Fork(Errno),
    /// The program could not be executed.
    Exec(Errno),
}

/// Starts `program` as [`exec`] would, with the signal mask `mask`. It is killed when this process dies, as
/// if both were one. This process must have one thread only.
pub fn spawn(program: &Program<'_>, mask: &SigSet) -> Result<Pid, NotStarted> {
    let (reading, writing) = pipe2(OFlag::O_CLOEXEC).map_err(NotStarted::Fork)?;
    let parent = getpid();
    // SAFETY: this process has one thread, so the child may do whatever its parent may.
    match unsafe { fork() }.map_err(NotStarted::Fork)? {
        ForkResult::Child => {
            let _ = set_pdeathsig(Signal::SIGKILL);
            if getppid() != parent {
                // It died before the line above.
                std::process::exit(1);
            }
            let _ = mask.thread_set_mask();
            let errno = exec(program);
            let _ = File::from(writing).write_all(&(errno as i32).to_ne_bytes());
            std::process::exit(1);
        }
        ForkResult::Parent { child } => {
            drop(writing);
            let mut number = [0; 4];
            if File::from(reading).read_exact(&mut number).is_err() {
                // The pipe closed: the program runs.
                return Ok(child);
            }
            let _ = nix::sys::wait::waitpid(child, None);
            Err(NotStarted::Exec(Errno::from_raw(i32::from_ne_bytes(number))))
        }
    }
}

/// Splits this process, which must have one thread only. The child gets TERM when its parent dies, so that it can
/// clean up, or KILL where it ignores TERM.
pub fn fork_here() -> nix::Result<ForkResult> {
    let parent = getpid();
    let last = if was_ignored(Signal::SIGTERM) { Signal::SIGKILL } else { Signal::SIGTERM };
    // SAFETY: this process has one thread, so the child may do whatever its parent may.
    let forked = unsafe { fork() }?;
    if matches!(forked, ForkResult::Child) {
        let _ = set_pdeathsig(last);
        if getppid() != parent {
            // It died before the line above.
            let _ = raise(last);
        }
    }
    Ok(forked)
}

/// The number of a process that starts and ends here and now: the numbers of all processes that were started
/// shortly before are lower, unless the kernel has begun again at the lowest one. This process must have one thread.
pub fn newest_process() -> nix::Result<Pid> {
    // SAFETY: the child does nothing but end.
    match unsafe { fork() }? {
        // SAFETY: it runs none of the parent's code.
        ForkResult::Child => unsafe { libc::_exit(0) },
        ForkResult::Parent { child } => {
            let _ = nix::sys::wait::waitpid(child, None);
            Ok(child)
        }
    }
}

/// Makes the kernel kill what `command` starts when the thread that starts it ends, however that ends.
pub fn end_with_parent(command: &mut Command) {
    let parent = getpid();
    let ask = move || {
        // KILL, since a stopped or blocked program obeys nothing else.
        set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have ended before the line above.
        if getppid() == parent { Ok(()) } else { Err(Errno::ESRCH.into()) }
    };
    // SAFETY: between fork and exec only system calls are made: prctl, getppid.
    unsafe { command.pre_exec(ask) };
}

/// Lets children be waited for, even where the caller ignores SIGCHLD, which makes the kernel forget them.
pub fn keep_children() {
    if was_ignored(Signal::SIGCHLD) {
        set(Signal::SIGCHLD, SigHandler::SigDfl);
    }
}

fn restore() {
    if !was_ignored(Signal::SIGPIPE) {
        set(Signal::SIGPIPE, SigHandler::SigDfl);
    }
    if was_ignored(Signal::SIGCHLD) {
        set(Signal::SIGCHLD, SigHandler::SigIgn);
    }
    let closed = CLOSED.load(Ordering::Relaxed);
    for descriptor in (0..3).filter(|descriptor| closed >> descriptor & 1 == 1) {
        let _ = close(descriptor);
    }
}

fn set(number: Signal, handler: SigHandler) {
    // SAFETY: neither default nor ignoring runs any code of ours.
    let _ = unsafe { signal(number, handler) };
}
