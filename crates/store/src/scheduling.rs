//! How soon the committer gets a processor when its sync is done.

/// How long the calling thread asks to run at a time, in nanoseconds. The shorter, the sooner.
#[cfg(target_os = "linux")]
const SLICE: u64 = 200_000;

/// Lets the calling thread run soon after it wakes, also when all processors are busy, in exchange
/// for being interrupted sooner. Its share of the processor stays the same.
///
/// A commit is some hundred microseconds of work around a wait for the disk. Where others keep
/// the processors busy, Linux lets them run on until the next tick: 4 ms, many times what the disk
/// took. Since Linux 6.12, a thread that asks for shorter turns than the running one is let in at
/// once. Older kernels, and other systems, go on as they do.
pub(crate) fn run_soon() {
    #[cfg(target_os = "linux")]
    if let Err(error) = linux::set_slice(SLICE) {
        tracing::debug!(%error, "the committer's turns stay as they are");
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;

    #[expect(
        unsafe_code,
        reason = "the standard library and rustix have no call for it; it reads and writes one plain structure"
    )]
    pub(super) fn set_slice(nanoseconds: u64) -> io::Result<()> {
        const SIZE: libc::c_uint = size_of::<libc::sched_attr>() as libc::c_uint;
        // SAFETY: it is made of integers, for all of which zero is a value.
        let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes at most `SIZE` bytes to what is borrowed for the call. Thread 0
        // is the calling one.
        let read =
            unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, SIZE, 0) };
        if read != 0 {
            return Err(io::Error::last_os_error());
        }
        // Of other classes of threads this would be something else.
        if attributes.sched_policy != libc::SCHED_OTHER as u32 {
            return Ok(());
        }
        attributes.sched_runtime = nanoseconds;
        // SAFETY: the kernel reads as many bytes as the structure says it has.
        let written =
            unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
        match written {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    #[cfg(test)]
    mod tests {
        #[test]
        fn a_thread_may_ask_for_short_turns() {
            // Whatever the kernel makes of it, it takes it; where calls are filtered, it says so.
            match super::set_slice(super::super::SLICE) {
                Ok(()) => {}
                Err(error) => assert!(
                    matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)),
                    "{error}"
                ),
            }
        }
    }
}
