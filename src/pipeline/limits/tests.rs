//! Tests of the limits: the sum of all holders, the defaults, and the table.

use super::*;
use crate::base::host::QueueGrant;

const HOST: Host = Host {
    memory_bytes: 24 << 30,
    cgroup_limit_bytes: None,
    descriptor_count_max: 1024,
    processor_count: 4,
    queues: QueueGrant::ANY,
};

fn derive(buffer_size_mb: u64, receiver_count: usize, host: Host) -> Limits {
    let wanted = Wanted { concurrency_max: 256, ..Wanted::default() };
    Limits::derive(Wanted { buffer_size_mb, receiver_count, ..wanted }, host)
}

fn sum_bytes(limits: &Limits) -> u64 {
    limits.holders().iter().map(|(_, count, bytes)| count * bytes).sum()
}

#[test]
fn the_holders_together_stay_within_the_total() {
    for megabytes in [3, 4, 6, 10, 64, 256, 4096] {
        for (receiver_count, has_spool) in
            [0, 1, 2, 3, 16, 64, 256].into_iter().flat_map(|n| [(n, false), (n, true)])
        {
            let wanted = Wanted { concurrency: 0, concurrency_max: 256, ..Wanted::default() };
            let buffer_size_mb = megabytes;
            let wanted = Wanted { buffer_size_mb, receiver_count, has_spool, ..wanted };
            let limits = Limits::derive(wanted, HOST);
            assert_eq!(limits.total_bytes, megabytes * MEGABYTE);
            let sum = sum_bytes(&limits);
            assert!(sum <= limits.total_bytes, "{megabytes} MB: {sum} of {limits:?}");
            assert!(sum > limits.total_bytes * 8 / 10, "{megabytes} MB: {sum} of {limits:?}");
            assert!(limits.chunk_count_max > limits.batch_reserve_count + 16, "{limits:?}");
            assert!(limits.batch_reserve_count >= limits.entry_room_count, "{limits:?}");
        }
    }
}

#[test]
fn spans_get_half_and_segments_as_much_as_with_the_other_half_alone() {
    for megabytes in [3, 6, 20, 64, 4096] {
        for (concurrency, has_spool) in [(0, false), (0, true), (9, true)] {
            let wanted = Wanted { concurrency, concurrency_max: 256, ..Wanted::default() };
            let with = Wanted { buffer_size_mb: megabytes, has_spool, ..wanted };
            let with = Limits::derive(Wanted { takes_spans: true, ..with }, HOST);
            let half = Wanted { buffer_size_mb: megabytes.max(6) / 2, has_spool, ..wanted };
            let half = Limits::derive(half, HOST);
            assert_eq!(with.total_bytes, megabytes.max(6) * MEGABYTE);
            let spans = with.spans.unwrap();
            assert_eq!(spans.bytes, with.total_bytes / 2);
            let alone = Limits { total_bytes: half.total_bytes, spans: None, ..with };
            assert_eq!(alone, half);
            let sum = sum_bytes(&with);
            assert!(sum <= with.total_bytes && sum > with.total_bytes * 8 / 10, "{with:?}");
            assert!(spans.chunk_count_max > spans.batch_reserve_count + 16, "{spans:?}");
        }
    }
}

#[test]
fn the_default_is_a_hundredth_of_the_machine_or_a_tenth_of_the_cgroup() {
    assert_eq!(derive(0, 0, HOST).total_bytes, (24 << 30) / 100);
    let sidecar = Host { cgroup_limit_bytes: Some(256 * MEGABYTE), ..HOST };
    assert_eq!(derive(0, 0, sidecar).total_bytes, 256 * MEGABYTE / 10);
    let small = Host { memory_bytes: 100 * MEGABYTE, ..HOST };
    assert_eq!(derive(0, 0, small).total_bytes, TOTAL_BYTES_MIN);
}

#[test]
fn receivers_are_one_a_processor_and_as_many_as_memory_allows() {
    assert_eq!(derive(64, 0, HOST).receiver_count, 4);
    let large = Host { processor_count: 96, ..HOST };
    assert_eq!(derive(1024, 0, large).receiver_count, RECEIVER_COUNT_AUTO_MAX);
    assert_eq!(derive(1024, 64, HOST).receiver_count, 64);
    assert_eq!(derive(3, 64, HOST).receiver_count, 1);
    let small = Host { cgroup_limit_bytes: Some(64 * MEGABYTE), processor_count: 64, ..HOST };
    assert_eq!(derive(0, 64, small).receiver_count, 3);
}

#[test]
fn small_queues_take_no_more_than_the_share_of_the_queues() {
    let small = QueueGrant { least_bytes: 131_072, most_bytes: 425_984 };
    for (megabytes, processor_count, cgroup, socket_count) in [
        (10, 1, None, 9),
        (10, 2, None, 5),
        (10, 4, None, 3),
        (192, 2, None, 79),
        (192, 2, Some(64), 27),
        (7, 2, None, 3),
        (3, 1, None, 2),
    ] {
        let cgroup_limit_bytes = cgroup.map(|limit| limit * MEGABYTE);
        let host = Host { processor_count, cgroup_limit_bytes, queues: small, ..HOST };
        let limits = derive(megabytes, 0, host);
        assert_eq!(limits.receiver_count, processor_count);
        assert_eq!(limits.sockets.count, socket_count, "{megabytes} {processor_count}");
        let (_, count, bytes) = limits.holders()[1];
        let bounded = cgroup.unwrap_or(megabytes).min(megabytes);
        let share = bounded * MEGABYTE / if bounded < 8 { 4 } else { 3 };
        assert!((share * 9 / 10..=share).contains(&(count * bytes)), "{count} x {bytes}");
        assert!(sum_bytes(&limits) <= limits.total_bytes, "{limits:?}");
        assert!(limits.chunk_count_max > limits.batch_reserve_count + 16, "{limits:?}");
    }
}

#[test]
fn a_size_beyond_all_memory_is_no_overflow() {
    let limits = derive(u64::MAX, 256, HOST);
    assert_eq!(limits.chunk_count_max, 1 << 22);
}

#[test]
fn the_table_names_every_holder_and_the_sum() {
    let limits = derive(64, 2, HOST);
    let table = limits.to_string();
    for (name, ..) in limits.holders() {
        assert!(table.contains(name), "{table}");
    }
    assert!(table.contains(&format!(" {}\n", megabytes(sum_bytes(&limits)))), "{table}");
    assert!(table.contains(" 64.00\n"), "{table}");
}
