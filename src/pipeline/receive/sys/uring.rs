//! Receives with io_uring: one multishot receive fills a buffer for each datagram until it ends.
//!
//! In: a socket, a descriptor that becomes readable for a stop. Out: datagrams in the buffers of a
//! [`BufferRing`]. Bound: its buffers. When full: the receive ends with `ENOBUFS`, the kernel keeps
//! datagrams in the socket's queue, and the next wait starts another receive. Thread: the
//! receiver's.
//!
//! Only the thread that created the io_uring instance uses it (`IORING_SETUP_SINGLE_ISSUER`). The
//! kernel produces completions only when that thread asks for them (`IORING_SETUP_DEFER_TASKRUN`,
//! io_uring_setup(2)), so that a sleeping thread is not woken for each datagram. With this flag a
//! wait for several completions counts wake-ups instead of datagrams. So the wait here is always
//! for the first completion.

use super::buffer_ring::BufferRing;
use io_uring::squeue::Entry;
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// Number of the buffer group. An instance has one group.
const BUFFER_GROUP: u16 = 0;

/// Size of the submission queue. At most three requests wait in it: a receive, a poll, a
/// cancellation.
const SUBMISSION_COUNT: u32 = 4;

/// The error if the submission queue is full and the kernel takes nothing out of it.
const QUEUE_FULL: &str = "the submission queue of io_uring stays full";

/// Flag that makes the kernel produce completions (`IORING_ENTER_GETEVENTS`, linux/io_uring.h). It
/// is private in the io-uring crate.
const ENTER_GETEVENTS: u32 = 1;

/// The requests to the kernel, as numbers. The completion of a request has its number as user data.
const RECEIVE: u64 = 1;
const STOP: u64 = 2;
const CANCEL: u64 = 3;

/// A datagram that was received: its buffer, if it took one, and its length in bytes.
#[derive(Debug, Clone, Copy)]
struct Filled {
    buffer_id: Option<u16>,
    length: usize,
}

/// Receives the datagrams of one socket, on the thread that created it.
pub struct MultishotReceive<S: AsFd, T: AsFd> {
    // The ring is dropped before the buffers: see `Drop`.
    ring: ManuallyDrop<IoUring>,
    buffers: ManuallyDrop<BufferRing>,
    /// Datagrams that were taken from completions and not given back yet.
    filled: Vec<Filled>,
    /// Whether a multishot receive is active in the kernel.
    is_armed: bool,
    is_stopped: bool,
    /// Whether a cancellation was requested whose completion has not been reaped.
    is_cancelling: bool,
    /// Whether the receive is left to the kernel: see [`leave`](Self::leave).
    is_left: bool,
    /// Number of times that the kernel found no free buffer.
    exhausted_count: u32,
    socket: S,
    _stop: T,
}

impl<S: AsFd, T: AsFd> MultishotReceive<S, T> {
    /// Sets up an io_uring instance with `buffer_count` buffers of `buffer_bytes` each for
    /// `socket`, and watches `stop` until it is readable. The first wait or look starts to receive.
    ///
    /// # Errors
    ///
    /// Returns `EPERM` or `ENOSYS` if io_uring is denied, `ENOMEM` if not enough memory may be
    /// locked, `EINVAL` if the kernel is too old.
    ///
    /// # Panics
    ///
    /// Panics if `buffer_count` is not a power of two.
    pub fn new(socket: S, stop: T, buffer_count: u16, buffer_bytes: usize) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            // Room for two completions of each buffer, and for one of each submitted request.
            .setup_cqsize(2 * u32::from(buffer_count) + SUBMISSION_COUNT)
            .build(SUBMISSION_COUNT)?;
        let buffers = BufferRing::new(buffer_count, buffer_bytes);
        // SAFETY: ring and buffers outlive the registration. `Drop` frees them only after the
        // receive and the registration have ended, and leaks them otherwise.
        // JUSTIFICATION: the gain depends on the machine. CPU time of receiving a datagram, with
        // io_uring against recvmmsg: on the Intel Xeon 1.37 against 1.83 us at 20,000/s, and 0.65
        // against 0.77 us at 100,000/s (perf/results/2026-11-25-receive.md); on the AMD EPYC 0.70
        // against 0.65 us, and 0.42 against 0.39 us (perf/results/2026-11-25-receive-epyc.md). CPU
        // time of the whole daemon for a segment, on the EPYC: 6.6 against 6.2 us at 1,000/s, 2.6
        // against 2.8 us at 20,000/s, 2.5 against 3.0 us at 50,000/s
        // (perf/results/2026-11-25-compare-2/summary.md).
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                buffers.address(),
                buffer_count,
                BUFFER_GROUP,
                0,
            )?;
        }
        let mut this = Self {
            ring: ManuallyDrop::new(ring),
            filled: Vec::with_capacity(usize::from(buffer_count)),
            buffers: ManuallyDrop::new(buffers),
            is_armed: false,
            is_stopped: false,
            is_cancelling: false,
            is_left: false,
            exhausted_count: 0,
            socket,
            _stop: stop,
        };
        let poll = opcode::PollAdd::new(Fd(this._stop.as_fd().as_raw_fd()), libc::POLLIN as _);
        this.push(&poll.build().user_data(STOP))?;
        // No receive yet: it would take datagrams, and they would be lost if this call failed.
        this.enter()?;
        Ok(this)
    }

    /// Sleeps until a completion is there, or for `timeout`. Starts a receive if none is armed.
    ///
    /// # Errors
    ///
    /// Returns the kernel's error. A signal and the timeout are not errors.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.arm()?;
        let waited = match timeout.map(Timespec::from) {
            None => self.ring.submit_and_wait(1),
            Some(timeout) => {
                let arguments = SubmitArgs::new().timespec(&timeout);
                self.ring.submitter().submit_with_args(1, &arguments)
            }
        };
        match waited {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::ETIME)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes the kernel produce completions for the datagrams that wait, without sleeping. Starts a
    /// receive if none is armed.
    ///
    /// # Errors
    ///
    /// Returns the kernel's error. A signal is not an error.
    pub fn look(&mut self) -> io::Result<()> {
        self.arm()?;
        self.enter()
    }

    /// Submits what waits in the submission queue and makes the kernel produce completions.
    fn enter(&mut self) -> io::Result<()> {
        let to_submit = u32::try_from(self.ring.submission().len()).unwrap_or(0);
        // SAFETY: there is no argument for the kernel to read, and `push` states why the submitted
        // entries are sound.
        // JUSTIFICATION: under DEFER_TASKRUN the kernel produces completions only for a call with
        // IORING_ENTER_GETEVENTS. The crate's safe `submit` sets that flag only if it waits, or if
        // the kernel reports pending work, which needs another setup flag (io-uring 0.7.16).
        let looked = unsafe {
            let submitter = self.ring.submitter();
            submitter.enter::<libc::sigset_t>(to_submit, 0, ENTER_GETEVENTS, None)
        };
        match looked {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Reads the completions, for [`datagrams`](Self::datagrams) to return. Returns the number of
    /// datagrams.
    ///
    /// # Errors
    ///
    /// Returns the last error that the socket reported.
    pub fn reap(&mut self) -> io::Result<usize> {
        let mut failure = None;
        let places = self.filled.capacity() - self.filled.len();
        for completion in self.ring.completion().take(places) {
            match completion.user_data() {
                STOP => self.is_stopped = true,
                CANCEL => self.is_cancelling = false,
                RECEIVE => {
                    let (result, flags) = (completion.result(), completion.flags());
                    self.is_armed &= cqueue::more(flags);
                    let buffer_id = cqueue::buffer_select(flags);
                    if buffer_id.is_some() {
                        self.buffers.note_filled();
                    }
                    match usize::try_from(result) {
                        // An empty datagram takes no buffer.
                        Ok(length) => self.filled.push(Filled { buffer_id, length }),
                        Err(_) if result == -libc::ENOBUFS => self.exhausted_count += 1,
                        Err(_) if result == -libc::ECANCELED => {}
                        Err(_) => failure = Some(io::Error::from_raw_os_error(-result)),
                    }
                }
                _ => {}
            }
        }
        failure.map_or(Ok(self.filled.len()), Err)
    }

    /// Returns the datagrams that [`reap`](Self::reap) has read, in the order of their arrival.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        self.filled.iter().map(|filled| match filled.buffer_id {
            Some(id) => self.buffers.filled(id, filled.length),
            None => &[],
        })
    }

    /// Gives the buffers of the reaped datagrams back to the kernel.
    pub fn give_back(&mut self) {
        self.buffers.give_back(self.filled.drain(..).filter_map(|filled| filled.buffer_id));
    }

    /// Returns the number of buffers.
    pub fn buffer_count(&self) -> u16 {
        self.buffers.buffer_count()
    }

    /// Returns the number of buffers that are filled and not given back.
    pub fn buffers_out_count(&self) -> u16 {
        self.buffers.out_count()
    }

    /// Returns whether a receive is active in the kernel. If not, the next wait or look starts one.
    pub fn is_armed(&self) -> bool {
        self.is_armed
    }

    /// Returns whether the descriptor for a stop has become readable.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// Returns how often there was no buffer for a datagram since the last call. The kernel has
    /// kept these datagrams in the socket's queue.
    pub fn take_exhausted_count(&mut self) -> u32 {
        std::mem::take(&mut self.exhausted_count)
    }

    /// Asks the kernel to end the receive. Datagrams received by then can be reaped.
    ///
    /// # Errors
    ///
    /// Returns the kernel's error.
    pub fn cancel(&mut self) -> io::Result<()> {
        // If an earlier call has failed, its request may still wait in the submission queue.
        if !self.is_cancelling {
            self.push(&opcode::AsyncCancel::new(RECEIVE).build().user_data(CANCEL))?;
            self.is_cancelling = true;
        }
        self.ring.submit_and_wait(1)?;
        Ok(())
    }

    /// Gives up a receive that cannot be cancelled. The kernel keeps it with its buffers. The drop
    /// does not try to cancel it again: that could take datagrams out of the queue and lose them.
    pub fn leave(&mut self) {
        self.is_left = true;
    }

    /// Sleeps until a completion is there, without starting another receive.
    ///
    /// # Errors
    ///
    /// Returns the kernel's error.
    pub fn wait_for_end(&mut self) -> io::Result<()> {
        self.ring.submit_and_wait(1)?;
        Ok(())
    }

    fn arm(&mut self) -> io::Result<()> {
        if !self.is_armed {
            let receive = opcode::RecvMulti::new(Fd(self.socket.as_fd().as_raw_fd()), BUFFER_GROUP);
            self.push(&receive.build().user_data(RECEIVE))?;
            self.is_armed = true;
        }
        Ok(())
    }

    /// Puts `entry` into the submission queue. At most one entry of each of the three kinds waits
    /// there, so that the queue has room. If it has none all the same, submits what waits first.
    ///
    /// # Errors
    ///
    /// Returns the kernel's error, or an error if there is still no room. Without its entry a
    /// receive would never begin, and the receiver would be deaf.
    fn push(&mut self, entry: &Entry) -> io::Result<()> {
        if self.try_push(entry) {
            return Ok(());
        }
        self.enter()?;
        if self.try_push(entry) { Ok(()) } else { Err(io::Error::other(QUEUE_FULL)) }
    }

    /// Puts `entry` into the submission queue. Returns false if the queue is full.
    fn try_push(&mut self, entry: &Entry) -> bool {
        // SAFETY: the entry refers to no memory but the registered buffers, and to descriptors that
        // live as long as `self`. JUSTIFICATION: the crate has no safe function to submit an entry.
        // The costs of the receive are at `new`.
        unsafe { self.ring.submission().push(entry).is_ok() }
    }

    /// Ends the receive and the registration of the buffers. Returns whether the kernel has
    /// confirmed both.
    fn end(&mut self) -> bool {
        if self.is_armed && self.cancel().is_err() {
            return false;
        }
        // The completions of the cancellation and of the receive can come separately, and after the
        // completions of datagrams. The number of rounds is larger than needed.
        for _ in 0..2 * usize::from(self.buffer_count()) {
            let _ = self.reap();
            self.give_back();
            if !self.is_armed {
                return self.ring.submitter().unregister_buf_ring(BUFFER_GROUP).is_ok();
            }
            if self.ring.submit_and_wait(1).is_err() {
                break;
            }
        }
        false
    }
}

#[cfg(test)]
impl<S: AsFd, T: AsFd> MultishotReceive<S, T> {
    /// Puts another file in the place of the io_uring descriptor, so that every further call fails.
    /// The memory that is shared with the kernel stays.
    pub fn break_calls(&self) {
        let other = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
        // SAFETY: both descriptors are open. The library closes the second one as before.
        // JUSTIFICATION: it is a test, and the library owns the descriptor.
        assert!(unsafe { libc::dup2(other.as_raw_fd(), self.ring.as_raw_fd()) } >= 0);
    }

    /// Fills the submission queue with requests that do nothing.
    pub fn fill_submissions(&mut self) {
        while self.try_push(&opcode::Nop::new().build()) {}
    }
}

impl<S: AsFd, T: AsFd> Drop for MultishotReceive<S, T> {
    fn drop(&mut self) {
        let has_ended = !self.is_left && self.end();
        // SAFETY: neither field is used again. The kernel does not use the buffers after the
        // receive and the registration have ended; if they have not ended the buffers are leaked.
        // JUSTIFICATION: the order of the two drops, and a leak instead of memory that is freed
        // while the kernel may write to it. It is not about speed: it runs once for a receiver.
        unsafe {
            ManuallyDrop::drop(&mut self.ring);
            if has_ended {
                ManuallyDrop::drop(&mut self.buffers);
            }
        }
    }
}

impl<S: AsFd, T: AsFd> std::fmt::Debug for MultishotReceive<S, T> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("MultishotReceive")
            .field("buffers", &self.buffers)
            .field("is_armed", &self.is_armed)
            .finish_non_exhaustive()
    }
}
