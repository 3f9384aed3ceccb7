//! Chooses the receive backend: the configured one, or the best one that works on this host.
//!
//! In: the setting ([`ReceiveBackend`]). Out: the [`Backend`] to use, and the error of `uring` if
//! that was tried and does not work. Bound: that of a trial (`trial.rs`). Thread: the one that
//! starts the daemon.

use super::Backend;
use super::probe::Unavailable;
use super::trial;

/// The setting that says how to receive datagrams (`--receiver`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReceiveBackend {
    /// io_uring if it works and receivers have one socket, otherwise `recvmmsg`.
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
    /// Why `uring` is not used, if the setting is `auto` and another backend is used.
    pub fallback: Option<Unavailable>,
}

impl Choice {
    /// Returns the configured backend, or for `auto` the best one that works. If receivers have
    /// several sockets (`has_many`), this is `recvmmsg`, because the others read one.
    ///
    /// # Errors
    ///
    /// Returns an error if the configured backend does not work on this host, or if it cannot be
    /// tried safely.
    pub fn make(wish: ReceiveBackend, has_many: bool) -> Result<Self, Unavailable> {
        match (wish, has_many) {
            (ReceiveBackend::Auto, true) => Self::of_trial(ReceiveBackend::Recvmmsg, trial::run),
            (wish, _) => Self::of_trial(wish, trial::run),
        }
    }

    fn of_trial(
        wish: ReceiveBackend,
        run: impl Fn(Backend) -> Result<(), Unavailable>,
    ) -> Result<Self, Unavailable> {
        let backend = match wish {
            ReceiveBackend::Auto => {
                return Ok(match run(Backend::Uring) {
                    Ok(()) => Self { backend: Backend::Uring, fallback: None },
                    Err(error) => Self { backend: Backend::Recvmmsg, fallback: Some(error) },
                });
            }
            ReceiveBackend::Uring => Backend::Uring,
            ReceiveBackend::Recvmmsg => Backend::Recvmmsg,
            ReceiveBackend::TokioUring => Backend::TokioUring,
        };
        run(backend)?;
        Ok(Self { backend, fallback: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recvmmsg_always_works_and_is_taken_for_several_sockets() {
        for (wish, has_many) in [
            (ReceiveBackend::Recvmmsg, false),
            (ReceiveBackend::Recvmmsg, true),
            (ReceiveBackend::Auto, true),
        ] {
            let choice = Choice::make(wish, has_many).unwrap();
            assert_eq!(choice.backend, Backend::Recvmmsg);
            assert!(choice.fallback.is_none());
        }
    }

    #[test]
    fn without_a_wish_the_best_that_works_is_taken_and_else_it_says_why() {
        let works = Choice::of_trial(ReceiveBackend::Auto, |_| Ok(())).unwrap();
        assert_eq!(works.backend, Backend::Uring);
        assert!(works.fallback.is_none());
        let killed = |backend| Err(Unavailable::Killed { backend, signal: libc::SIGSYS });
        let choice = Choice::of_trial(ReceiveBackend::Auto, killed).unwrap();
        assert_eq!(choice.backend, Backend::Recvmmsg);
        assert!(choice.fallback.unwrap().to_string().contains("seccomp profile"));
        for wish in [ReceiveBackend::Uring, ReceiveBackend::TokioUring] {
            let error = Choice::of_trial(wish, killed).unwrap_err();
            assert!(error.to_string().contains("SIGSYS"), "{error}");
        }
    }
}
