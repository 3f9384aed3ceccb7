//! The faults of the endpoint and their durations: windows of 1 to 5 s, drawn at random from a
//! seed.

use std::time::Duration;

/// A fault of the service.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// No fault.
    None,
    /// Status 500, or 503 with `Retry-After: 1`.
    ServerError,
    /// An HTML page with status 502.
    HtmlPage,
    /// Status 429 above this many documents a second.
    Throttle { documents_per_second: f64 },
    /// The answers have status 200 and name some documents as throttled.
    PartThrottle,
    /// Status 413 for a body with more than this many bytes.
    TooLarge { body_bytes_max: usize },
    /// The connection is reset before the request is accepted.
    Reset,
    /// The documents are accepted. The answer is late, but before the daemon's timeout.
    Slow { pause: Duration },
    /// The endpoint does not answer, and the connection stays open.
    BlackHole,
    /// The documents are accepted, and the connection is closed or reset without an answer.
    LostAnswer,
    /// The documents are accepted, and the connection is closed in the middle of the answer.
    HalfAnswer,
    /// The endpoint does not listen, and open connections are closed.
    ConnectionRefused,
}

impl Fault {
    /// Returns the name of the fault for tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ServerError => "500 and 503",
            Self::HtmlPage => "502 in HTML",
            Self::Throttle { .. } => "429 above a rate",
            Self::PartThrottle => "some documents throttled",
            Self::TooLarge { .. } => "413 above a size",
            Self::Reset => "reset",
            Self::Slow { .. } => "slow answers",
            Self::BlackHole => "no answer",
            Self::LostAnswer => "lost answer",
            Self::HalfAnswer => "half an answer",
            Self::ConnectionRefused => "connection refused",
        }
    }
}

/// A fault, the share of affected requests, and the duration.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// The fault.
    pub fault: Fault,
    /// Share of requests with the fault, from 0 to 1.
    pub share: f64,
    /// Duration of the window.
    pub time: Duration,
}

impl Window {
    /// A window without a fault, for an unlimited time.
    pub const CALM: Self = Self { fault: Fault::None, share: 0.0, time: Duration::MAX };

    /// A window in which the endpoint does not listen, for an unlimited time.
    pub const OUTAGE: Self =
        Self { fault: Fault::ConnectionRefused, share: 1.0, time: Duration::MAX };

    /// Draws a window for a load of `rate` documents a second.
    pub fn draw(random: &mut fastrand::Rng, rate: f64) -> Self {
        // About half of the windows have no fault, so that the daemon can catch up.
        let fault = match random.u32(..22) {
            0 => Fault::ServerError,
            1 => Fault::HtmlPage,
            2 => Fault::Throttle { documents_per_second: rate * (0.5 + random.f64()) },
            3 => Fault::PartThrottle,
            4 => Fault::TooLarge { body_bytes_max: random.usize(2_000..40_000) },
            5 => Fault::Reset,
            6 => Fault::Slow { pause: Duration::from_millis(random.u64(50..900)) },
            7 => Fault::BlackHole,
            8 => Fault::LostAnswer,
            9 => Fault::HalfAnswer,
            10 => Fault::ConnectionRefused,
            _ => Fault::None,
        };
        // In a third of the windows the fault affects every request, in the remaining windows a
        // part.
        let share = if random.u32(..3) == 0 { 1.0 } else { 0.05 + 0.5 * random.f64() };
        Self { fault, share, time: Duration::from_millis(random.u64(1_000..=5_000)) }
    }
}
