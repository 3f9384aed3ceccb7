//! io_uring: one multishot receive that fills a buffer for each datagram, until it ends.
//!
//! The ring belongs to the thread that makes it (`SINGLE_ISSUER`), and completions are only worked
//! out when that thread asks for them (`DEFER_TASKRUN`): a thread that sleeps is not woken for
//! each datagram. Under that flag a wait by the number of completions counts wake-ups and not
//! datagrams, so the wait here is always for the first one.

use super::buffer_ring::BufferRing;
use io_uring::squeue::Entry;
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// The group that the buffers are registered as; a ring of ours has one.
const BUFFER_GROUP: u16 = 0;

/// Requests that wait for submission at most: a receive, a poll, a cancellation.
const SUBMISSION_COUNT: u32 = 4;

/// Look for completions (`IORING_ENTER_GETEVENTS`, linux/io_uring.h); the crate keeps it private.
const ENTER_GETEVENTS: u32 = 1;

/// What a completion belongs to.
const RECEIVE: u64 = 1;
const STOP: u64 = 2;
const CANCEL: u64 = 3;

/// A datagram that was received: its buffer, if it took one, and its length.
#[derive(Debug, Clone, Copy)]
struct Filled {
    buffer_id: Option<u16>,
    length: usize,
}

/// Receives the datagrams of one socket, on the thread that made it.
pub struct MultishotReceive<S: AsFd, T: AsFd> {
    // Dropped before the buffers; see `Drop`.
    ring: ManuallyDrop<IoUring>,
    buffers: ManuallyDrop<BufferRing>,
    filled: Vec<Filled>,
    is_armed: bool,
    is_stopped: bool,
    exhausted_count: u32,
    socket: S,
    _stop: T,
}

impl<S: AsFd, T: AsFd> MultishotReceive<S, T> {
    /// Sets up a ring with `buffer_count` buffers (a power of two) of `buffer_bytes` each, starts
    /// to receive from `socket`, and watches `stop` until it can be read.
    ///
    /// # Errors
    ///
    /// `EPERM` or `ENOSYS` where io_uring is denied, `ENOMEM` where memory may not be locked,
    /// `EINVAL` on kernels that are too old.
    pub fn new(socket: S, stop: T, buffer_count: u16, buffer_bytes: usize) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            // Room for a completion for each buffer, and for the few others.
            .setup_cqsize(2 * u32::from(buffer_count) + SUBMISSION_COUNT)
            .build(SUBMISSION_COUNT)?;
        let buffers = BufferRing::new(buffer_count, buffer_bytes);
        // SAFETY: ring and buffers outlive the registration: `Drop` frees them only when the
        // receive has ended and the registration is taken back, and else leaks them.
        // JUSTIFICATION: perf/results: a datagram costs less than with recvmmsg, and a sleeping
        // receiver need not be woken for each.
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
            exhausted_count: 0,
            socket,
            _stop: stop,
        };
        let poll = opcode::PollAdd::new(Fd(this._stop.as_fd().as_raw_fd()), libc::POLLIN as _);
        this.push(&poll.build().user_data(STOP));
        this.arm();
        this.look()?;
        Ok(this)
    }

    /// Sleeps until something has happened, or until `timeout`.
    ///
    /// # Errors
    ///
    /// What the kernel says, but for signals and the timeout.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.arm();
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

    /// Has the kernel work out what has happened, without a wait.
    ///
    /// # Errors
    ///
    /// What the kernel says, but for signals.
    pub fn look(&mut self) -> io::Result<()> {
        self.arm();
        let to_submit = u32::try_from(self.ring.submission().len()).unwrap_or(0);
        // SAFETY: there is no argument for the kernel to read, and `push` has made sure of the
        // entries that it submits.
        // JUSTIFICATION: the crate's own submit does not ask for events when there is no wait.
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

    /// Takes over what has happened; [`datagrams`](Self::datagrams) then has what came. Returns
    /// how many there are.
    ///
    /// # Errors
    ///
    /// When the socket reports an error.
    pub fn reap(&mut self) -> io::Result<usize> {
        let mut failure = None;
        let places = self.filled.capacity() - self.filled.len();
        for completion in self.ring.completion().take(places) {
            match completion.user_data() {
                STOP => self.is_stopped = true,
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

    /// The datagrams taken over, in the order they came.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        self.filled.iter().map(|filled| match filled.buffer_id {
            Some(id) => self.buffers.filled(id, filled.length),
            None => &[],
        })
    }

    /// Gives the buffers of those datagrams back to the kernel, and goes on to receive.
    pub fn give_back(&mut self) {
        self.buffers.give_back(self.filled.drain(..).filter_map(|filled| filled.buffer_id));
    }

    /// Number of buffers.
    pub fn buffer_count(&self) -> u16 {
        self.buffers.buffer_count()
    }

    /// Buffers that are filled and not given back.
    pub fn buffers_out_count(&self) -> u16 {
        self.buffers.out_count()
    }

    /// Whether the receive goes on; else the next wait or look starts another one.
    pub fn is_armed(&self) -> bool {
        self.is_armed
    }

    /// Whether the stop can be read.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// How often there was no buffer for a datagram since the last call; the kernel has kept it.
    pub fn take_exhausted_count(&mut self) -> u32 {
        std::mem::take(&mut self.exhausted_count)
    }

    /// Asks the kernel to end the receive, once; what it has received by then can be reaped.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn cancel(&mut self) -> io::Result<()> {
        self.push(&opcode::AsyncCancel::new(RECEIVE).build().user_data(CANCEL));
        self.ring.submit_and_wait(1)?;
        Ok(())
    }

    /// Sleeps until something has happened, without starting another receive.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn wait_for_end(&mut self) -> io::Result<()> {
        self.ring.submit_and_wait(1)?;
        Ok(())
    }

    fn arm(&mut self) {
        if !self.is_armed {
            let receive = opcode::RecvMulti::new(Fd(self.socket.as_fd().as_raw_fd()), BUFFER_GROUP);
            self.push(&receive.build().user_data(RECEIVE));
            self.is_armed = true;
        }
    }

    fn push(&mut self, entry: &Entry) {
        // SAFETY: the entry names no memory but the registered buffers, and descriptors that live
        // as long as `self`.
        // JUSTIFICATION: this is how the crate takes entries.
        let pushed = unsafe { self.ring.submission().push(entry) };
        // Each kind of entry is in the queue once at most, and the queue has room for all.
        debug_assert!(pushed.is_ok(), "the submission queue has room");
    }

    /// Ends the receive; says whether the kernel has confirmed it.
    fn end(&mut self) -> bool {
        if self.is_armed && self.cancel().is_err() {
            return false;
        }
        // The cancellation and the end of the receive are two completions.
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

impl<S: AsFd, T: AsFd> Drop for MultishotReceive<S, T> {
    fn drop(&mut self) {
        let has_ended = self.end();
        // SAFETY: neither is used again; the kernel has no use for the buffers when the receive
        // and the registration have ended, and else they stay where they are.
        // JUSTIFICATION: the order of the two, and to leak rather than to free too early.
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
