//! Counts the documents that arrived, their duplicates and their latencies.

use super::document::Mark;

/// Limit of the documents' numbers. The kit's sender only uses numbers below it. One bit for each
/// of them takes 512 MB.
const SEQUENCE_MAX: u64 = 1 << 32;

/// Counts documents by their marks.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    /// One bit for each document number; 1 if the document has arrived.
    seen: Vec<u64>,
    /// Number of documents that arrived at least once.
    pub delivered_count: u64,
    /// Number of repeated arrivals.
    pub duplicate_count: u64,
    /// Number of marks that the kit's sender cannot have made.
    pub foreign_count: u64,
    /// Time of each document from its sending to its delivery, in microseconds, in order of
    /// arrival.
    latencies_us: Vec<u32>,
}

impl Tally {
    /// Counts a document that arrived at `now_ns`.
    pub fn add(&mut self, mark: Mark, now_ns: u64) {
        if mark.sequence >= SEQUENCE_MAX {
            self.foreign_count += 1;
            return;
        }
        let word = usize::try_from(mark.sequence / 64).unwrap_or(usize::MAX);
        let bit = 1 << (mark.sequence % 64);
        if word >= self.seen.len() {
            self.seen.resize((word + 1).next_power_of_two(), 0);
        }
        if self.seen[word] & bit != 0 {
            self.duplicate_count += 1;
            return;
        }
        self.seen[word] |= bit;
        self.delivered_count += 1;
        let latency_us = now_ns.saturating_sub(mark.time_ns) / 1_000;
        self.latencies_us.push(u32::try_from(latency_us).unwrap_or(u32::MAX));
    }

    /// Returns the percentiles of the latencies in microseconds, for a part of the documents in
    /// order of arrival: those from index `from` up to, but not including, `to`. Each of `shares`
    /// (0 to 1) is one percentile.
    pub fn percentiles_us(&self, from: u64, to: u64, shares: &[f64]) -> Vec<f64> {
        let index =
            |count: u64| usize::try_from(count).unwrap_or(usize::MAX).min(self.latencies_us.len());
        let mut latencies = self.latencies_us[index(from)..index(to)].to_vec();
        latencies.sort_unstable();
        shares.iter().map(|&share| percentile(&latencies, share)).collect()
    }
}

/// Returns the percentile of the sorted `numbers` by nearest rank, or NaN if there are none.
pub fn percentile(numbers: &[u32], share: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a length is an index"
    )]
    let rank = (share * numbers.len() as f64).ceil() as usize;
    numbers.get(rank.max(1) - 1).map_or(f64::NAN, |&number| f64::from(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(sequence: u64, time_ns: u64) -> Mark {
        Mark { sequence, time_ns }
    }

    #[test]
    fn a_document_counts_once_and_then_as_a_duplicate() {
        let mut tally = Tally::default();
        for sequence in [0, 63, 64, 100_000, 63, 63, 0] {
            tally.add(mark(sequence, 0), 1);
        }
        assert_eq!((tally.delivered_count, tally.duplicate_count), (4, 3));
        assert_eq!(tally.percentiles_us(0, 10, &[1.0]).len(), 1);
        assert_eq!(tally.latencies_us.len(), 4);
    }

    #[test]
    fn a_number_of_nobody_takes_no_memory() {
        let mut tally = Tally::default();
        tally.add(mark(u64::MAX, 0), 1);
        assert_eq!((tally.foreign_count, tally.delivered_count, tally.seen.len()), (1, 0, 0));
    }

    #[test]
    fn latencies_are_of_the_documents_that_are_asked_for() {
        let mut tally = Tally::default();
        for sequence in 0..100 {
            tally.add(mark(sequence, 0), (sequence + 1) * 1_000);
        }
        assert_eq!(tally.percentiles_us(0, 100, &[0.5, 0.99, 1.0]), [50.0, 99.0, 100.0]);
        assert_eq!(tally.percentiles_us(90, 100, &[0.5]), [95.0]);
        assert_eq!(tally.percentiles_us(99, u64::MAX, &[0.5]), [100.0]);
        // If the time of arrival is before the time of sending, the latency is 0 and not negative.
        tally.add(mark(100, 10), 5);
        assert_eq!(tally.percentiles_us(100, 101, &[0.5]), [0.0]);
    }

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        assert_eq!(percentile(&[1, 2, 3, 4], 0.5), 2.0);
        assert_eq!(percentile(&[1, 2, 3, 4], 0.51), 3.0);
        assert_eq!(percentile(&[1, 2, 3, 4], 0.0), 1.0);
        assert_eq!(percentile(&[7], 0.99), 7.0);
        assert!(percentile(&[], 0.5).is_nan());
    }
}
