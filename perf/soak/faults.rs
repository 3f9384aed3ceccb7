//! What the endpoint does wrong, and for how long: windows of 1 to 5 seconds, drawn at random from
//! a seed.

use std::time::Duration;

/// What is wrong with the service.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// Nothing.
    None,
    /// 500, or 503 with `Retry-After: 1`.
    ServerError,
    /// A page in HTML with status 502.
    HtmlPage,
    /// 429 for what is above so many documents a second.
    Throttle { documents_per_second: f64 },
    /// Some documents are named as throttled in an answer of success.
    PartThrottle,
    /// 413 for a body above so many bytes.
    TooLarge { body_bytes_max: usize },
    /// The connection is reset before the request is taken.
    Reset,
    /// The documents are taken and the answer comes late, but in time.
    Slow { pause: Duration },
    /// No answer ever.
    BlackHole,
    /// The documents are taken and the connection ends, or is reset, without an answer.
    LostAnswer,
    /// The documents are taken and the connection ends in the middle of the answer.
    HalfAnswer,
    /// Nobody listens, and the connections that there were are gone.
    ConnectionRefused,
}

impl Fault {
    /// Its name in tables.
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

/// A fault, the share of requests that it meets, and how long it lasts.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// What is wrong.
    pub fault: Fault,
    /// 0 to 1.
    pub share: f64,
    /// How long.
    pub time: Duration,
}

impl Window {
    /// Nothing is wrong for as long as it takes.
    pub const CALM: Self = Self { fault: Fault::None, share: 0.0, time: Duration::MAX };

    /// Nobody listens for as long as it takes.
    pub const OUTAGE: Self =
        Self { fault: Fault::ConnectionRefused, share: 1.0, time: Duration::MAX };

    /// Draws one for a load of `rate` documents a second.
    pub fn draw(random: &mut fastrand::Rng, rate: f64) -> Self {
        // Every second window is a quiet one, about: the service has to catch up at times.
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
        // A third of them meet every request, the others some.
        let share = if random.u32(..3) == 0 { 1.0 } else { 0.05 + 0.5 * random.f64() };
        Self { fault, share, time: Duration::from_millis(random.u64(1_000..=5_000)) }
    }
}
