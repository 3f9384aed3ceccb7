//! Probes a receive backend: receives one datagram with it, on a socket made for this.
//!
//! In: a [`Backend`]. Out: nothing if it works, else why not. Bound: [`PROBE_TIME_MAX`]. Thread:
//! each probe has one of its own, or it is the process of a trial (`trial.rs`).
//!
//! A probe sets up everything that the backend needs and makes each call that the backend makes. A
//! check of the kernel's version would not do: containers deny io_uring on kernels that have it.

use super::Backend;
use super::sys::MultishotReceive;
use super::{Stop, tokio_uring};
use crate::base::files::read_text;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// Time to wait for the probe's datagram. It is sent before the wait, so that it is there at once
/// if the backend works.
pub(super) const PROBE_TIME_MAX: Duration = Duration::from_secs(2);

/// Why a backend is not used on this host
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// The kernel refuses a call
    #[error("the receive backend {backend} does not work here: {source}{}", cause(source))]
    Refused {
        /// The backend that was tried.
        backend: Backend,
        /// The kernel's error.
        source: io::Error,
    },
    /// A signal has ended the process of the trial
    #[error(
        "the receive backend {backend} does not work here: the process that tried it was ended \
         by {}{}",
        signal_name(*signal),
        cause_of_signal(*signal)
    )]
    Killed {
        /// The backend that was tried.
        backend: Backend,
        /// The number of the signal.
        signal: i32,
    },
    /// A trial could end the daemon, and there is no child process for the trial
    #[error(
        "the receive backend {backend} was not tried: a seccomp profile may end the process that \
         tries it, and a child process cannot be made for the trial: {source}"
    )]
    NoChild {
        /// The backend that was to be tried.
        backend: Backend,
        /// The system's error.
        source: io::Error,
    },
}

impl Backend {
    /// Tries to receive a datagram with the backend, in this process. `recvmmsg` is not tried: it
    /// always works.
    ///
    /// # Errors
    ///
    /// Returns an error that names the likely cause and what to change.
    pub fn probe(self) -> Result<(), Unavailable> {
        if self == Self::Recvmmsg {
            return Ok(());
        }
        // On a new thread: the calling thread may run a tokio runtime, in which tokio-uring panics.
        let probed = thread::scope(|scope| {
            let probe = move || self.probe_here();
            let thread = thread::Builder::new().name("probe".into()).spawn_scoped(scope, probe)?;
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the attempt ended in a panic")))
        });
        probed.map_err(|source| Unavailable::Refused { backend: self, source })
    }

    /// Tries to receive a datagram with the backend, on the calling thread.
    ///
    /// # Errors
    ///
    /// Returns the kernel's error.
    pub(super) fn probe_here(self) -> io::Result<()> {
        match self {
            Self::Recvmmsg => Ok(()),
            Self::Uring => probe_uring(),
            Self::TokioUring => probe_tokio_uring(),
        }
    }
}

const DATAGRAM: &[u8] = b"probe";

/// Returns a connected pair of sockets, which need no network. A datagram waits in the second one.
fn sockets() -> io::Result<(UnixDatagram, UnixDatagram)> {
    let (sender, receiver) = UnixDatagram::pair()?;
    sender.send(DATAGRAM)?;
    Ok((sender, receiver))
}

fn probe_uring() -> io::Result<()> {
    let (_sender, receiver) = sockets()?;
    let stop = Stop::new()?;
    let mut receive = MultishotReceive::new(receiver, stop, 2, 64)?;
    receive.wait(Some(PROBE_TIME_MAX))?;
    receive.reap()?;
    let came = receive.datagrams().eq([DATAGRAM]);
    receive.give_back();
    if came && receive.is_armed() { Ok(()) } else { Err(no_datagram()) }
}

fn probe_tokio_uring() -> io::Result<()> {
    let (_sender, receiver) = sockets()?;
    let receiver = std::net::UdpSocket::from(OwnedFd::from(receiver));
    tokio_uring::runtime()?.block_on(async {
        let socket = ::tokio_uring::net::UdpSocket::from_std(receiver);
        let (result, buffer) = socket.read(Vec::with_capacity(64)).await;
        if buffer[..result?] == *DATAGRAM { Ok(()) } else { Err(no_datagram()) }
    })
}

fn no_datagram() -> io::Error {
    io::Error::other("it is set up, but a datagram does not come")
}

/// Returns the likely cause of an error and what to change, as the end of a sentence.
fn cause(error: &io::Error) -> &'static str {
    let seccomp = has_filter().unwrap_or_default();
    let disabled = read_text(Path::new("/proc/sys/kernel/io_uring_disabled"));
    let disabled = disabled.is_ok_and(|value| matches!(value.trim(), "1" | "2"));
    cause_of(error.raw_os_error(), seccomp, disabled)
}

/// Returns whether a seccomp filter applies to this process. `None`: /proc does not say.
pub(super) fn has_filter() -> Option<bool> {
    let status = read_text(Path::new("/proc/self/status")).ok()?;
    Some(status.lines().any(|line| line.starts_with("Seccomp:\t2")))
}

fn signal_name(signal: i32) -> String {
    match signal {
        libc::SIGSYS => "the signal SIGSYS".to_owned(),
        _ => format!("signal {signal}"),
    }
}

fn cause_of_signal(signal: i32) -> &'static str {
    match signal {
        libc::SIGSYS => {
            ". The container's seccomp profile ends programs that use io_uring: allow \
             io_uring_setup, io_uring_enter and io_uring_register in it"
        }
        _ => "",
    }
}

fn cause_of(code: Option<i32>, seccomp: bool, disabled: bool) -> &'static str {
    match code {
        Some(libc::EPERM) if disabled => {
            ". The host denies io_uring: set sysctl kernel.io_uring_disabled=0"
        }
        Some(libc::EPERM | libc::ENOSYS | libc::EACCES) if seccomp => {
            ". The container's seccomp profile denies io_uring: allow io_uring_setup, \
             io_uring_enter and io_uring_register in it"
        }
        Some(libc::EPERM | libc::EACCES) => {
            ". A security module of the host, or of the container, denies io_uring"
        }
        Some(libc::ENOSYS) => ". The kernel is built without io_uring",
        Some(libc::ENOMEM) => {
            ". Too little memory may be locked: raise the memlock limit (ulimit -l, LimitMEMLOCK, \
             --ulimit memlock) or give the daemon CAP_IPC_LOCK"
        }
        Some(libc::EINVAL) => ". The kernel is too old: io_uring is used from Linux 6.1 on",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_backend_can_be_tried_from_within_a_runtime() {
        for backend in Backend::ALL {
            let from_outside = thread::spawn(move || backend.probe().is_ok()).join();
            assert_eq!(backend.probe().is_ok(), from_outside.unwrap(), "{backend}");
        }
    }

    #[test]
    fn every_refusal_names_its_cause_and_the_remedy() {
        for (code, seccomp, disabled, text) in [
            (libc::EPERM, false, true, "kernel.io_uring_disabled=0"),
            (libc::EPERM, true, false, "seccomp profile"),
            (libc::ENOSYS, true, false, "seccomp profile"),
            (libc::ENOSYS, false, false, "built without io_uring"),
            (libc::EPERM, false, false, "security module"),
            (libc::ENOMEM, false, false, "LimitMEMLOCK"),
            (libc::EINVAL, false, false, "Linux 6.1"),
        ] {
            let cause = cause_of(Some(code), seccomp, disabled);
            assert!(cause.contains(text), "{code}: {cause}");
        }
        let source = io::Error::from_raw_os_error(libc::EINVAL);
        let text = Unavailable::Refused { backend: Backend::Uring, source }.to_string();
        assert!(text.starts_with("the receive backend uring does not work here: "), "{text}");
        assert!(text.ends_with("Linux 6.1 on"), "{text}");
    }
}
