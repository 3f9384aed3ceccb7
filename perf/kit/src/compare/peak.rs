//! Finds the highest rate that a limited daemon delivers, and offers it less and more than that.
//!
//! The search doubles the rate until the daemon no longer keeps up, then halves the distance a few
//! times. The peak is the highest rate that was delivered in any of these loads.

use super::contender::Contender;
use super::limit::{Cgroup, Limit};
use super::measure::{self, Conditions};
use super::row::Writer;
use super::scenario::{self, MULTIPLES, Scenario};
use super::summary::Summary;
use super::turn::Turn;
use crate::endpoint::Endpoint;
use std::io;

/// First rate of the search, in documents a second.
const RATE_FIRST: f64 = 1_000.0;
/// Limits of the search.
const RATE_MIN: f64 = 20.0;
const RATE_MAX: f64 = 400_000.0;
/// A daemon keeps up with a rate if it delivers this share of it. A window of 2.5 s has 25 periods
/// of the quota, and one more or less makes a difference of 4 %.
const KEPT_UP_MIN: f64 = 0.95;
/// How often a load is repeated if it does not count. Something else may have taken the processor
/// for a moment.
const TRIES: u32 = 3;
/// How often the distance is halved. Afterwards the peak is known to 5 %.
const HALVINGS: u32 = 4;

/// The search for the highest rate that a daemon keeps up with.
#[derive(Debug, Clone, PartialEq)]
struct Search {
    rate: f64,
    /// The highest rate that it kept up with, and the lowest that it did not.
    kept_up: Option<f64>,
    too_high: Option<f64>,
    halvings: u32,
}

impl Search {
    fn new() -> Self {
        Self { rate: RATE_FIRST, kept_up: None, too_high: None, halvings: 0 }
    }

    /// Takes the result of the current rate. Returns the next rate, or `None` at the end.
    fn next(&mut self, has_kept_up: bool) -> Option<f64> {
        if has_kept_up {
            self.kept_up = Some(self.rate);
        } else {
            self.too_high = Some(self.rate);
        }
        self.rate = match (self.kept_up, self.too_high) {
            (Some(low), None) => low * 2.0,
            (None, Some(high)) => high / 2.0,
            (Some(low), Some(high)) => {
                self.halvings += 1;
                (low * high).sqrt()
            }
            (None, None) => return None,
        };
        let is_over = self.halvings > HALVINGS || !(RATE_MIN..=RATE_MAX).contains(&self.rate);
        (!is_over).then_some(self.rate)
    }
}

/// The environment of the measurement.
pub struct Bench<'a> {
    /// The contenders that take part.
    pub contenders: &'a [&'a Contender],
    /// The endpoint.
    pub endpoint: &'a Endpoint,
    /// The settings of all turns.
    pub conditions: &'a Conditions,
    /// Writes the rows.
    pub writer: &'a mut Writer,
    /// Gets the rows.
    pub summary: &'a mut Summary,
}

impl Bench<'_> {
    /// Finds the peak of each contender, then measures [`MULTIPLES`] of it in each round. Returns
    /// why this machine cannot do so, if it cannot.
    ///
    /// # Errors
    ///
    /// Fails if a contender does not run as requested, or if a row cannot be written.
    pub fn run(&mut self, limit: Limit, round_count: usize) -> io::Result<Option<String>> {
        if let Err(error) = Cgroup::new(limit) {
            return Ok(Some(error.to_string()));
        }
        let contenders = self.contenders;
        let mut peaks = Vec::new();
        for contender in contenders {
            peaks.push(self.peak(contender, limit)?);
        }
        for round in 0..round_count {
            for multiple in MULTIPLES {
                for index in scenario::order(contenders.len(), round) {
                    let (contender, peak) = (contenders[index], peaks[index]);
                    let offered = Scenario::Offered {
                        limit,
                        rate: whole(peak * multiple),
                        multiple: Some(multiple),
                    };
                    let turn = self.turn(contender, offered, round)?;
                    self.write(contender, offered, round, turn, peak)?;
                }
            }
        }
        Ok(None)
    }

    /// Searches for the peak, writes the row of the load that delivered most, and returns its rate.
    fn peak(&mut self, contender: &Contender, limit: Limit) -> io::Result<f64> {
        let mut search = Search::new();
        let mut best: Option<(f64, Scenario, Turn)> = None;
        let mut reason = String::from("it delivers nothing");
        let mut rate = Some(RATE_FIRST);
        while let Some(now) = rate {
            let offered = Scenario::Offered { limit, rate: whole(now), multiple: None };
            let mut turn = self.turn(contender, offered, 0)?;
            for _ in 1..TRIES {
                if turn.discarded.is_some() {
                    turn = self.turn(contender, offered, 0)?;
                }
            }
            let figure = |name| turn.figures.get(name).copied().unwrap_or_default();
            let (delivered, sent) = (figure("delivered_per_s"), figure("offered_per_s"));
            // If something else was at its limit, the daemon's peak may be higher, but no higher
            // load can show that.
            let counts = turn.discarded.is_none();
            rate = search.next(counts && delivered >= KEPT_UP_MIN * sent);
            if let Some(discarded) = &turn.discarded {
                reason.clone_from(discarded);
            }
            if counts && delivered > 0.0 && best.as_ref().is_none_or(|(most, ..)| delivered > *most)
            {
                best = Some((delivered, offered, turn));
            }
        }
        let Some((peak, offered, turn)) = best else {
            let name = &contender.name;
            let limit = limit.name();
            return Err(io::Error::other(format!("{limit}: no load of {name} counts: {reason}")));
        };
        self.write(contender, offered, 0, turn, peak)?;
        Ok(peak)
    }

    fn turn(&self, contender: &Contender, offered: Scenario, round: usize) -> io::Result<Turn> {
        let (name, rate) = (offered.name(), offered.rate().unwrap_or_default());
        eprintln!("{name} round {}: {}, {rate}/s", round + 1, contender.name);
        measure::turn(contender, offered, self.endpoint, self.conditions)
    }

    fn write(
        &mut self,
        contender: &Contender,
        offered: Scenario,
        round: usize,
        mut turn: Turn,
        peak: f64,
    ) -> io::Result<()> {
        let delivered = turn.figures.get("delivered_per_s").copied().unwrap_or_default();
        turn.put("peak_per_s", peak);
        turn.put("goodput_share", delivered / peak);
        self.summary.rows.push(self.writer.write(contender, offered, round, turn)?);
        Ok(())
    }
}

/// Returns the nearest whole rate above 0.
fn whole(rate: f64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate of at most a few million"
    )]
    let rate = rate.round() as u32;
    rate.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches with a daemon that keeps up with rates up to `peak`. Returns all rates.
    fn rates(peak: f64) -> Vec<f64> {
        let (mut search, mut rates) = (Search::new(), vec![RATE_FIRST]);
        while let Some(rate) = search.next(rates[rates.len() - 1] <= peak) {
            rates.push(rate);
        }
        rates
    }

    #[test]
    fn the_search_ends_within_5_percent_of_the_peak() {
        for peak in [40.0, 900.0, 1_000.0, 7_300.0, 41_000.0, 190_000.0] {
            let rates = rates(peak);
            let best = rates.iter().copied().filter(|&rate| rate <= peak).fold(0.0, f64::max);
            assert!(best > 0.95 * peak, "{best} of {peak}: {rates:?}");
            assert!(rates.len() < 15, "{rates:?}");
        }
    }

    #[test]
    fn the_search_ends_if_the_daemon_keeps_up_with_all_or_with_none() {
        assert!(rates(f64::INFINITY).iter().all(|&rate| rate <= RATE_MAX));
        assert!(rates(0.0).iter().all(|&rate| rate >= RATE_MIN));
    }
}
