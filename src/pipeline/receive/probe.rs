//! Chooses the receive backend: the configured one, or the best one that works on this host.
//!
//! In: the setting ([`ReceiveBackend`]). Out: the [`Backend`] to use, and the error of `uring` if
//! that was tried and does not work. Bound: [`PROBE_TIME_MAX`] for a probe. Thread: each probe has
//! one.
//!
//! A probe sets up everything that the backend needs and receives one datagram with it, on a socket
//! made for this. A check of the kernel's version would not do: containers deny io_uring on kernels
//! that have it.

use super::Backend;
use super::sys::MultishotReceive;
use super::{Stop, tokio_uring};
use crate::base::host::read_text;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// Time to wait for the probe's datagram. It is sent before the wait, so that it is there at once
/// if the backend works.
const PROBE_TIME_MAX: Duration = Duration::from_secs(2);

/// Why a backend does not work on this host
#[derive(Debug, thiserror::Error)]
#[error("the receive backend {backend} does not work here: {source}{}", cause(source))]
pub struct Unavailable {
    /// The backend that was tried.
    pub backend: Backend,
    /// The kernel's error.
    pub source: io::Error,
}

/// The setting that says how to receive datagrams (`--receiver`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReceiveBackend {
    /// io_uring if it works, otherwise `recvmmsg`.
    #[default]
    Auto,
    /// io_uring. The daemon does not start if io_uring does not work.
    Uring,
    /// `recvmmsg(2)`.
    Recvmmsg,
    /// The tokio-uring runtime. The daemon does not start if the runtime does not work.
    TokioUring,
}

impl ReceiveBackend {
    /// Parses the setting.
    ///
    /// # Errors
    ///
    /// Returns a message that lists the valid values if `text` is none of them.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" | "" => Ok(Self::Auto),
            "uring" => Ok(Self::Uring),
            "recvmmsg" => Ok(Self::Recvmmsg),
            "tokio-uring" => Ok(Self::TokioUring),
            _ => Err(format!(
                "{text:?} is no receive backend. Give auto, uring, recvmmsg or tokio-uring"
            )),
        }
    }
}

/// The choice of a receive backend.
#[derive(Debug)]
pub struct Choice {
    /// The backend to use.
    pub backend: Backend,
    /// Why `uring` does not work, if the setting is `auto` and another backend is used.
    pub fallback: Option<Unavailable>,
}

impl Choice {
    /// Returns the configured backend, or for `auto` the best one that works.
    ///
    /// # Errors
    ///
    /// Returns an error if the configured backend does not work on this host.
    pub fn make(wish: ReceiveBackend) -> Result<Self, Unavailable> {
        let backend = match wish {
            ReceiveBackend::Auto => {
                return Ok(match Backend::Uring.probe() {
                    Ok(()) => Self { backend: Backend::Uring, fallback: None },
                    Err(error) => Self { backend: Backend::Recvmmsg, fallback: Some(error) },
                });
            }
            ReceiveBackend::Uring => Backend::Uring,
            ReceiveBackend::Recvmmsg => Backend::Recvmmsg,
            ReceiveBackend::TokioUring => Backend::TokioUring,
        };
        backend.probe()?;
        Ok(Self { backend, fallback: None })
    }
}

impl Backend {
    /// Tries to receive a datagram with the backend. `recvmmsg` is not tried: it always works.
    ///
    /// # Errors
    ///
    /// Returns an error that names the likely cause and what to change.
    pub fn probe(self) -> Result<(), Unavailable> {
        let probe = match self {
            Self::Recvmmsg => return Ok(()),
            Self::Uring => probe_uring,
            Self::TokioUring => probe_tokio_uring,
        };
        // On a new thread: the calling thread may run a tokio runtime, in which tokio-uring panics.
        let probed = thread::scope(|scope| {
            let thread = thread::Builder::new().name("probe".into()).spawn_scoped(scope, probe)?;
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the attempt ended in a panic")))
        });
        probed.map_err(|source| Unavailable { backend: self, source })
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
    let seccomp = read_text(Path::new("/proc/self/status"))
        .is_ok_and(|status| status.lines().any(|line| line.starts_with("Seccomp:\t2")));
    let disabled = read_text(Path::new("/proc/sys/kernel/io_uring_disabled"));
    let disabled = disabled.is_ok_and(|value| matches!(value.trim(), "1" | "2"));
    cause_of(error.raw_os_error(), seccomp, disabled)
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

    #[test]
    fn recvmmsg_always_works() {
        assert!(Backend::Recvmmsg.probe().is_ok());
        let choice = Choice::make(ReceiveBackend::Recvmmsg).unwrap();
        assert_eq!(choice.backend, Backend::Recvmmsg);
        assert!(choice.fallback.is_none());
    }

    #[tokio::test]
    async fn a_backend_can_be_tried_from_within_a_runtime() {
        for backend in Backend::ALL {
            let from_outside = thread::spawn(move || backend.probe().is_ok()).join();
            assert_eq!(backend.probe().is_ok(), from_outside.unwrap(), "{backend}");
        }
    }

    #[test]
    fn without_a_wish_the_best_that_works_is_taken_and_else_it_says_why() {
        let choice = Choice::make(ReceiveBackend::Auto).unwrap();
        assert_eq!(choice.backend == Backend::Uring, Backend::Uring.probe().is_ok());
        assert_eq!(choice.backend == Backend::Uring, choice.fallback.is_none());
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
        let text = Unavailable { backend: Backend::Uring, source }.to_string();
        assert!(text.starts_with("the receive backend uring does not work here: "), "{text}");
        assert!(text.ends_with("Linux 6.1 on"), "{text}");
    }
}
