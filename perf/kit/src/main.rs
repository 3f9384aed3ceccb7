//! The command line of the kit. `perf/README.md` describes each command.

#![allow(clippy::print_stdout, reason = "the program prints reports")]

use lexopt::prelude::*;
use std::error::Error;
use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use xrayd_perf::compare::{self, Contender, Scenario};
use xrayd_perf::confine;
use xrayd_perf::endpoint::{self, Endpoint, Http};
use xrayd_perf::floor;
use xrayd_perf::sender::{self, Load, Size};
use xrayd_perf::spans;
use xrayd_perf::spans::sender::{self as span_sender, Options as SpanOptions, Protocol};

const USAGE: &str = "\
xrayd-perf sender --target HOST:PORT [--rate N [--burst N] | --once N] [--seconds N] [--count N]
                  [--bytes 1000 | --mix FOLDER] [--sockets 1] [--seed 1] [--gso]
xrayd-perf span-sender --target HOST:PORT --rate N [--protocol http|grpc] [--gzip]
                  [--connections 4] [--seconds N] [--batches N] [--seed 1]
xrayd-perf endpoint [--listen 127.0.0.1:0] [--plain | --http2] [--authority FILE]
                  [--delay-ms MS[,MS@SECONDS]...] [--jitter 0.0] [--documents-per-s N]
                  [--streams 200] [--throttled 0.0] [--failed 0.0] [--seed 1]
xrayd-perf floor --listen HOST:PORT --endpoint HOST:PORT --authority FILE
                  [--with-parsing | --spans [--gzip]]
xrayd-perf compare --out FOLDER (--daemon 'NAME=PATH [ARGUMENTS]')... [--ready 'NAME=TEXT']...
                  [--floor] [--only SCENARIO]... [--quick] [--rounds N] [--seconds N]
                  [--confined] [--http2] [--bytes 1000 | --mix FOLDER]
                  [--sockets 1] [--seed 1] [--gso] [--commit TEXT] [--check BUDGETS]
xrayd-perf confine PROGRAM [ARGUMENTS]...
";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xrayd-perf: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<ExitCode, Box<dyn Error>> {
    let mut words = std::env::args_os().skip(1);
    let command = words.next().unwrap_or_default();
    let words = words.collect::<Vec<_>>();
    match command.to_str() {
        Some("sender") => send(words),
        Some("span-sender") => send_spans(words),
        Some("endpoint") => serve(words),
        Some("floor") => run_floor(words),
        Some("compare") => run_compare(words),
        Some("confine") => {
            confine::become_confined(words.into_iter())?;
            Ok(ExitCode::SUCCESS)
        }
        Some(confine::QUEUES) => {
            confine::serve_queues(words.into_iter())?;
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            print!("{USAGE}");
            Ok(ExitCode::from(2))
        }
    }
}

fn send(words: Vec<OsString>) -> Result<ExitCode, Box<dyn Error>> {
    let mut target = None;
    let (mut rate, mut burst, mut once, mut seconds) = (None, 0, None, f64::INFINITY);
    let mut options = sender::Options {
        target: ([127, 0, 0, 1], 2000).into(),
        load: Load::Flat,
        size: Size::Fixed(1_000),
        socket_count: 1,
        seed: 1,
        gso: false,
        first_sequence: 0,
        count_max: u64::MAX,
    };
    let mut parser = lexopt::Parser::from_args(words);
    while let Some(word) = parser.next()? {
        match word {
            Long("target") => target = Some(parser.value()?.parse()?),
            Long("rate") => rate = Some(parser.value()?.parse()?),
            Long("burst") => burst = parser.value()?.parse()?,
            Long("once") => once = Some(parser.value()?.parse()?),
            Long("seconds") => seconds = parser.value()?.parse()?,
            Long("count") => options.count_max = parser.value()?.parse()?,
            Long("bytes") => options.size = Size::Fixed(parser.value()?.parse()?),
            Long("mix") => options.size = Size::Mix(parser.value()?.into()),
            Long("sockets") => options.socket_count = parser.value()?.parse()?,
            Long("seed") => options.seed = parser.value()?.parse()?,
            Long("gso") => options.gso = true,
            other => return Err(other.unexpected().into()),
        }
    }
    options.target = target.ok_or("sender needs --target")?;
    options.load = match (once, rate) {
        (Some(count), _) => Load::Once(count),
        (None, Some(rate)) => Load::Paced { rate, burst },
        (None, None) => Load::Flat,
    };
    let sender = sender::start(&options)?;
    wait(seconds, || sender.has_ended());
    println!("{}", serde_json::to_string(&sender.stop()?)?);
    Ok(ExitCode::SUCCESS)
}

/// Waits for this many seconds, or until something has ended.
fn wait(seconds: f64, has_ended: impl Fn() -> bool) {
    let end = std::time::Instant::now()
        + Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX / 4);
    while !has_ended() && std::time::Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn send_spans(words: Vec<OsString>) -> Result<ExitCode, Box<dyn Error>> {
    let (mut target, mut rate, mut seconds) = (None, None, f64::INFINITY);
    let mut options = SpanOptions {
        target: ([127, 0, 0, 1], 4318).into(),
        protocol: Protocol::Http,
        rate: 0.0,
        is_gzip: false,
        connection_count: 4,
        seed: 1,
        first_batch: 0,
        batch_count_max: u64::MAX,
    };
    let mut parser = lexopt::Parser::from_args(words);
    while let Some(word) = parser.next()? {
        match word {
            Long("target") => target = Some(parser.value()?.parse()?),
            Long("rate") => rate = Some(parser.value()?.parse()?),
            Long("protocol") => options.protocol = parser.value()?.parse()?,
            Long("gzip") => options.is_gzip = true,
            Long("connections") => options.connection_count = parser.value()?.parse()?,
            Long("seconds") => seconds = parser.value()?.parse()?,
            Long("batches") => options.batch_count_max = parser.value()?.parse()?,
            Long("seed") => options.seed = parser.value()?.parse()?,
            other => return Err(other.unexpected().into()),
        }
    }
    options.target = target.ok_or("span-sender needs --target")?;
    options.rate = rate.ok_or("span-sender needs --rate")?;
    let sender = span_sender::start(options)?;
    wait(seconds, || sender.has_ended());
    println!("{}", serde_json::to_string(&sender.stop()?)?);
    Ok(ExitCode::SUCCESS)
}

fn serve(words: Vec<OsString>) -> Result<ExitCode, Box<dyn Error>> {
    let mut options = endpoint::Options::default();
    let mut authority: Option<PathBuf> = None;
    let mut parser = lexopt::Parser::from_args(words);
    while let Some(word) = parser.next()? {
        match word {
            Long("listen") => options.address = parser.value()?.parse()?,
            Long("plain") => options.tls = None,
            Long("http2") => options.tls = Some(Http::Two),
            Long("authority") => authority = Some(parser.value()?.into()),
            Long("delay-ms") => options.faults.delays = parser.value()?.parse()?,
            Long("jitter") => options.faults.jitter = parser.value()?.parse()?,
            Long("documents-per-s") => {
                options.faults.documents_per_s = Some(parser.value()?.parse()?);
            }
            Long("streams") => options.stream_count_max = parser.value()?.parse()?,
            Long("throttled") => options.faults.throttled_share = parser.value()?.parse()?,
            Long("failed") => options.faults.failed_share = parser.value()?.parse()?,
            Long("seed") => options.seed = parser.value()?.parse()?,
            other => return Err(other.unexpected().into()),
        }
    }
    let endpoint = Endpoint::start(options)?;
    if let (Some(path), Some(text)) = (authority, &endpoint.authority) {
        std::fs::write(path, text)?;
    }
    eprintln!("AWS_ENDPOINT_URL_XRAY={}; close standard input to stop", endpoint.url());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    let counts = endpoint.counts();
    let latencies = endpoint.percentiles_us(0, u64::MAX, &[0.5, 0.99, 1.0]);
    let mut report = serde_json::to_value(counts)?;
    for (name, latency) in
        ["latency_p50_ms", "latency_p99_ms", "latency_max_ms"].iter().zip(latencies)
    {
        report[name] = (latency / 1e3).into();
    }
    println!("{report}");
    Ok(ExitCode::SUCCESS)
}

fn run_floor(words: Vec<OsString>) -> Result<ExitCode, Box<dyn Error>> {
    let (mut listen, mut endpoint, mut authority) = (None, None, None);
    let (mut with_parsing, mut is_for_spans, mut is_gzip) = (false, false, false);
    let mut parser = lexopt::Parser::from_args(words);
    while let Some(word) = parser.next()? {
        match word {
            Long("listen") => listen = Some(parser.value()?.parse()?),
            Long("endpoint") => endpoint = Some(parser.value()?.parse()?),
            Long("authority") => authority = Some(parser.value()?.into()),
            Long("with-parsing") => with_parsing = true,
            Long("spans") => is_for_spans = true,
            Long("gzip") => is_gzip = true,
            other => return Err(other.unexpected().into()),
        }
    }
    let listen = listen.ok_or("floor needs --listen")?;
    let endpoint = endpoint.ok_or("floor needs --endpoint")?;
    let authority = authority.ok_or("floor needs --authority")?;
    match (is_for_spans, with_parsing) {
        (true, true) => return Err("floor --spans parses nothing".into()),
        (true, false) => {
            spans::floor::run(&spans::floor::Options { listen, endpoint, authority, is_gzip })?;
        }
        (false, _) => {
            floor::run(&floor::Options { listen, endpoint, authority, with_parsing })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn run_compare(words: Vec<OsString>) -> Result<ExitCode, Box<dyn Error>> {
    let (mut folder, mut ready) = (None, Vec::new());
    let mut options = compare::Options {
        contenders: Vec::new(),
        scenarios: Vec::new(),
        round_count: 0,
        window: None,
        is_quick: false,
        is_confined: false,
        size: Size::Fixed(1_000),
        socket_count: 1,
        seed: 1,
        gso: false,
        http: Http::One,
        folder: PathBuf::new(),
        commit: "unknown".into(),
        budgets: None,
    };
    let mut parser = lexopt::Parser::from_args(words);
    while let Some(word) = parser.next()? {
        match word {
            Long("daemon") => {
                options.contenders.push(Contender::parse(&parser.value()?.string()?)?)
            }
            Long("ready") => ready.push(parser.value()?.string()?),
            Long("floor") => options.contenders.extend(Contender::floors()),
            Long("only") => {
                let name = parser.value()?.string()?;
                let scenarios = Scenario::parse(&name);
                options.scenarios.extend(scenarios.ok_or_else(|| format!("{name}: no scenario"))?);
            }
            Long("quick") => options.is_quick = true,
            Long("confined") => options.is_confined = true,
            Long("seconds") => {
                options.window = Some(Duration::try_from_secs_f64(parser.value()?.parse()?)?);
            }
            Long("rounds") => options.round_count = parser.value()?.parse()?,
            Long("http2") => options.http = Http::Two,
            Long("bytes") => options.size = Size::Fixed(parser.value()?.parse()?),
            Long("mix") => options.size = Size::Mix(parser.value()?.into()),
            Long("sockets") => options.socket_count = parser.value()?.parse()?,
            Long("seed") => options.seed = parser.value()?.parse()?,
            Long("gso") => options.gso = true,
            Long("commit") => options.commit = parser.value()?.string()?,
            Long("check") => options.budgets = Some(parser.value()?.into()),
            Long("out") => folder = Some(PathBuf::from(parser.value()?)),
            other => return Err(other.unexpected().into()),
        }
    }
    for text in ready {
        let (name, text) = text.split_once('=').ok_or("give --ready as NAME=TEXT")?;
        let daemon = options.contenders.iter_mut().find(|contender| contender.name == name);
        let daemon = daemon.ok_or_else(|| format!("--ready {name}: no such daemon"))?;
        daemon.ready_text = Some(text.to_owned());
    }
    options.folder = folder.ok_or("compare needs --out")?;
    std::fs::create_dir_all(&options.folder)?;
    if options.contenders.is_empty() {
        return Err("compare needs --daemon or --floor".into());
    }
    let (report, over_count) = compare::run(&options)?;
    print!("{report}");
    Ok(ExitCode::from(u8::from(over_count > 0)))
}
