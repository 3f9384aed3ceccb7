//! Decides when the sender sends: bursts of a given size at even intervals.
//!
//! No I/O, no clock: the caller passes the time in nanoseconds. After a delay the sender sends at
//! most a few bursts at once and leaves out the rest; the reported rate shows that. So the load has
//! no larger bursts than requested.

/// The largest number of bursts that a late sender sends at once.
const CATCH_UP_MAX: u64 = 4;

/// If no burst size is given, the size is chosen for this many wake-ups a second. A sender that
/// wakes for each of 50,000 datagrams a second would use a third of a processor that the measured
/// daemon needs.
const WAKE_UPS_PER_SECOND: f64 = 2_000.0;

/// Returns the burst size if the user gives none. Up to 2,000 datagrams a second it is 1.
pub fn burst_for(rate: f64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the cast saturates"
    )]
    let burst = (rate / WAKE_UPS_PER_SECOND).ceil() as u32;
    burst.max(1)
}

/// The next action of the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Send a burst.
    Send,
    /// Wait until this time, in nanoseconds.
    WaitUntil(u64),
}

/// The schedule of a steady load.
#[derive(Debug, Clone)]
pub struct Pace {
    interval_ns: f64,
    /// Time at which the first burst is due. It grows when the schedule is postponed.
    start_ns: u64,
    next: u64,
    /// Number of bursts sent at once, without a wait.
    chain: u64,
    /// Largest number of bursts sent at once so far.
    pub chain_max: u64,
    /// The longest delay of a burst, in nanoseconds.
    pub late_max_ns: u64,
    /// The total time by which the schedule was postponed because of delays, in nanoseconds.
    pub held_up_ns: u64,
}

impl Pace {
    /// Creates a schedule of `rate` datagrams a second in bursts of `burst`, from `start_ns` on.
    pub fn new(rate: f64, burst: u32, start_ns: u64) -> Self {
        Self {
            interval_ns: f64::from(burst) * 1e9 / rate,
            start_ns,
            next: 0,
            chain: 0,
            chain_max: 0,
            late_max_ns: 0,
            held_up_ns: 0,
        }
    }

    /// Returns the action at `now_ns`. If the action is [`Step::Send`], the burst counts as sent.
    pub fn step(&mut self, now_ns: u64) -> Step {
        let due_ns = self.start_ns + nanoseconds(self.next as f64 * self.interval_ns);
        if now_ns < due_ns {
            self.chain = 0;
            return Step::WaitUntil(due_ns);
        }
        let late_ns = now_ns - due_ns;
        self.late_max_ns = self.late_max_ns.max(late_ns);
        let late_most_ns = nanoseconds((CATCH_UP_MAX - 1) as f64 * self.interval_ns);
        if late_ns > late_most_ns {
            self.start_ns += late_ns - late_most_ns;
            self.held_up_ns += late_ns - late_most_ns;
        }
        self.next += 1;
        self.chain += 1;
        self.chain_max = self.chain_max.max(self.chain);
        Step::Send
    }
}

fn nanoseconds(number: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a time since the start, in nanoseconds"
    )]
    let number = number as u64;
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Runs the schedule for one second with a sender that is never late. Returns the times of the
    /// bursts.
    fn times(rate: f64, burst: u32) -> Vec<u64> {
        let mut pace = Pace::new(rate, burst, 0);
        let (mut now, mut times) = (0, Vec::new());
        while now < SECOND {
            match pace.step(now) {
                Step::Send => times.push(now),
                Step::WaitUntil(time) => now = time,
            }
        }
        assert_eq!((pace.late_max_ns, pace.held_up_ns, pace.chain_max), (0, 0, 1));
        times
    }

    #[test]
    fn bursts_are_sent_at_even_distances() {
        for (rate, burst, count) in [(100.0, 1, 100), (3.0, 1, 3), (50_000.0, 25, 2_000)] {
            let times = times(rate, burst);
            assert_eq!(times.len(), count);
            let interval = SECOND as f64 * f64::from(burst) / rate;
            for (index, &time) in times.iter().enumerate() {
                assert!((time as f64 - index as f64 * interval).abs() <= 1.0);
            }
        }
    }

    #[test]
    fn datagrams_go_one_by_one_up_to_2000_a_second() {
        let bursts = [1.0, 100.0, 2_000.0, 2_001.0, 20_000.0, 50_000.0].map(burst_for);
        assert_eq!(bursts, [1, 1, 1, 2, 10, 25]);
    }

    #[test]
    fn a_late_sender_makes_up_for_four_bursts_and_leaves_out_the_rest() {
        let mut pace = Pace::new(1_000.0, 1, 0);
        assert_eq!(pace.step(0), Step::Send);
        // The sender was delayed from 0 to 100 ms: it now sends the bursts of 97, 98, 99 and 100
        // ms.
        let now = SECOND / 10;
        let sent = (0..100).take_while(|_| pace.step(now) == Step::Send).count();
        assert_eq!(sent, 4);
        assert_eq!(pace.chain_max, 5);
        assert_eq!(pace.late_max_ns, 99_000_000);
        assert_eq!(pace.held_up_ns, 96_000_000);
        assert_eq!(pace.step(now), Step::WaitUntil(101_000_000));
    }

    #[test]
    fn as_fast_as_it_can_never_waits() {
        let mut pace = Pace::new(f64::INFINITY, 0, 5);
        assert!((0..1_000).all(|index| pace.step(5 + index * 7) == Step::Send));
    }
}
