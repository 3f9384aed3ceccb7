//! The sections of the benchmark. Each section measures and prints tables.

#![allow(clippy::print_stdout, reason = "the program prints tables")]

use super::Effort;
use super::bench::{Outcome, Sender, Setup, Way, run, spread_of};
use std::thread;
use std::time::Duration;
use xrayd::pipeline::receive::Backend;

const MEGABYTE: usize = 1024 * 1024;

/// Runs all setups in turn, for several rounds. Returns the outcomes of each setup.
fn interleaved(
    setups: &[Setup],
    round_count: usize,
    load: impl Fn(&mut Sender) + Sync,
) -> Vec<Vec<Outcome>> {
    let mut outcomes = vec![Vec::new(); setups.len()];
    for _ in 0..round_count {
        for (setup, outcomes) in setups.iter().zip(&mut outcomes) {
            outcomes.push(run(*setup, |target| {
                let mut sender = Sender::new(target, 1);
                load(&mut sender);
                sender.sent_count()
            }));
        }
    }
    outcomes
}

fn single(way: Way, queue_bytes: usize) -> Setup {
    Setup { way, receiver_count: 1, queue_bytes }
}

fn lost(outcomes: &[Outcome]) -> u64 {
    outcomes.iter().map(Outcome::lost_count).sum()
}

/// Prints a table of CPU time per datagram. Returns the medians.
fn print_costs(title: &str, setups: &[Setup], all: &[Vec<Outcome>]) -> Vec<f64> {
    println!("### {title}\n");
    println!(
        "| | queue granted | us per datagram, median | minimum to maximum | lost |\n|---|---|---|---|---|"
    );
    let mut medians = Vec::new();
    for (setup, outcomes) in setups.iter().zip(all) {
        let costs = outcomes.iter().map(Outcome::microseconds_each).collect();
        let (median, least, most) = spread_of(costs);
        let (name, queue_bytes) = (setup.way.name(), outcomes[0].queue_bytes);
        let lost = lost(outcomes);
        println!("| {name} | {queue_bytes} | {median:.2} | {least:.2} to {most:.2} | {lost} |");
        medians.push(median);
    }
    println!();
    medians
}

/// Measures CPU time per datagram in bursts. Between two bursts the receiver sleeps.
pub fn drain(effort: Effort) {
    let setups: Vec<_> = Way::all().into_iter().map(|way| single(way, 4 * MEGABYTE)).collect();
    // The receiver sleeps before each burst. It receives some datagrams while the burst is still
    // being sent; they count too.
    let outcomes = interleaved(&setups, effort.choose(7, 2), |sender| {
        for _ in 0..20 {
            sender.send_paced(f64::INFINITY, 1_500);
            thread::sleep(Duration::from_millis(10));
        }
    });
    print_costs("Bursts of 1,500, sent as fast as one sender can", &setups, &outcomes);
}

/// Measures CPU time per datagram at steady rates.
pub fn paced(effort: Effort) {
    let setups: Vec<_> = Way::all().into_iter().map(|way| single(way, 32 * MEGABYTE)).collect();
    for rate in [1_000_u32, 20_000, 100_000] {
        let count = effort.choose(2 * rate, rate / 2);
        let outcomes = interleaved(&setups, effort.choose(5, 2), |sender| {
            sender.send_paced(f64::from(rate), u64::from(count));
        });
        let medians = print_costs(&format!("{rate} a second"), &setups, &outcomes);
        for (backend, pair) in Backend::ALL.iter().zip(medians.chunks(2)) {
            println!(
                "{backend}: {:.0} % of its loop that wakes for each",
                100.0 * pair[0] / pair[1]
            );
        }
        println!();
    }
}

/// Measures CPU time per datagram while one sender sends as fast as it can.
pub fn flat(effort: Effort) {
    let time = Duration::from_secs_f64(effort.choose(1.0, 0.3));
    let setups: Vec<_> = Way::all().into_iter().map(|way| single(way, 4 * MEGABYTE)).collect();
    let outcomes = interleaved(&setups, effort.choose(5, 2), |sender| sender.send_for(time));
    print_costs("As fast as possible", &setups, &outcomes);
    for (setup, outcomes) in setups.iter().zip(&outcomes) {
        let rates = outcomes.iter().map(|one| one.received_count() as f64 / time.as_secs_f64());
        println!("{}: {:.0} received a second", setup.way.name(), spread_of(rates.collect()).0);
    }
}

/// Measures the losses in bursts, with a queue of 4 MB.
pub fn burst(effort: Effort) {
    const COUNT: usize = 20_000;
    println!("### Bursts of {COUNT}, sent as fast as one sender can, queue of 4 MB\n");
    println!(
        "| | receivers | sending sockets | whole | lost | kernel drops |\n|---|---|---|---|---|---|"
    );
    let try_count = effort.choose(10, 2);
    for way in Way::backends() {
        for receiver_count in [1, 2] {
            for socket_count in [1, 16] {
                let setup = Setup { way, receiver_count, queue_bytes: 4 * MEGABYTE };
                let outcomes: Vec<_> = (0..try_count)
                    .map(|_| {
                        run(setup, |target| {
                            let mut sender = Sender::new(target, socket_count);
                            (0..COUNT).for_each(|_| sender.send());
                            sender.sent_count()
                        })
                    })
                    .collect();
                print_bursts(&format!("{receiver_count} | {socket_count}"), setup, &outcomes);
            }
        }
    }
}

fn print_bursts(what: &str, setup: Setup, outcomes: &[Outcome]) {
    let whole_count = outcomes.iter().filter(|outcome| outcome.lost_count() == 0).count();
    let dropped: u64 = outcomes.iter().map(|outcome| outcome.kernel_drop_count).sum();
    println!(
        "| {} | {what} | {whole_count} of {} | {} | {dropped} |",
        setup.way.name(),
        outcomes.len(),
        lost(outcomes)
    );
}

/// Measures the losses in a burst after silence. Before the silence there is load, so that the
/// receivers make pauses.
pub fn silence(effort: Effort) {
    let quiet = Duration::from_secs(effort.choose(10, 1));
    println!("### 1,000 at 250,000 a second after {} s of silence\n", quiet.as_secs());
    println!("| | queue granted | whole | lost | kernel drops |\n|---|---|---|---|---|");
    for way in Way::backends() {
        let setup = single(way, MEGABYTE / 2);
        let outcomes: Vec<_> = (0..effort.choose(10, 2))
            .map(|_| {
                run(setup, |target| {
                    let mut sender = Sender::new(target, 1);
                    sender.send_paced(20_000.0, 6_000);
                    thread::sleep(quiet);
                    sender.send_paced(250_000.0, 1_000);
                    sender.sent_count()
                })
            })
            .collect();
        print_bursts(&outcomes[0].queue_bytes.to_string(), setup, &outcomes);
    }
}

/// Measures CPU time per datagram at a low rate: many receivers compared with one receiver.
pub fn many(effort: Effort) {
    // The CPU time includes the set-up of the receivers that get no datagram. With this many
    // datagrams the share of the set-up is small.
    let count = effort.choose(10_000, 500);
    for backend in Backend::ALL {
        let way = Way::Paused(backend);
        let setups =
            [1, 16].map(|receiver_count| Setup { way, receiver_count, queue_bytes: 4 * MEGABYTE });
        let load = |sender: &mut Sender| sender.send_paced(1_000.0, count);
        let outcomes = interleaved(&setups, effort.choose(3, 2), load);
        let title = format!("{backend}: 1 receiver, then 16, at 1,000 a second");
        let medians = print_costs(&title, &setups, &outcomes);
        println!("16 receivers cost {:.2} times what one does\n", medians[1] / medians[0]);
    }
}

/// Measures how many datagrams each of four receivers gets from one sending socket.
pub fn spread(effort: Effort) {
    println!("### One sending socket, as fast as possible, to four receivers\n");
    println!("| | share of each receiver | lost |\n|---|---|---|");
    for way in Way::backends() {
        let setup = Setup { way, receiver_count: 4, queue_bytes: 4 * MEGABYTE };
        let outcome = run(setup, |target| {
            let mut sender = Sender::new(target, 1);
            sender.send_for(Duration::from_secs_f64(effort.choose(2.0, 0.3)));
            sender.sent_count()
        });
        let whole = outcome.received_count() as f64;
        let shares = outcome.received_counts.iter().map(|&count| 100.0 * count as f64 / whole);
        let shares: Vec<_> = shares.map(|share| format!("{share:.0} %")).collect();
        println!("| {} | {} | {} |", way.name(), shares.join(", "), outcome.lost_count());
    }
}

/// Measures the CPU time of four receivers that get no datagram.
pub fn idle(effort: Effort) {
    let time = Duration::from_secs(effort.choose(60, 3));
    println!("### {} s without a datagram, four receivers\n", time.as_secs());
    println!("| | CPU time of all receivers, including set-up and end |\n|---|---|");
    for way in Way::backends() {
        let setup = Setup { way, receiver_count: 4, queue_bytes: 4 * MEGABYTE };
        let outcome = run(setup, |_| {
            thread::sleep(time);
            0
        });
        println!("| {} | {:.2} ms |", way.name(), outcome.cpu_time.as_secs_f64() * 1e3);
    }
}
