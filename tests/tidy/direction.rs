//! Data flows in one direction: a room of `src` uses only certain rooms before it, and a part of a
//! room uses only parts before it.
//!
//! In: the [`Graph`] of `src`. Out: a failure that names the file and what it uses. Tests,
//! `src/main.rs` and `src/lib.rs` may use everything.

use crate::graph::{Graph, Module};
use crate::source::sources;
use std::collections::BTreeSet;
use std::path::Path;

/// A room, the rooms that it may use, and its parts in order. A part may use only the parts before
/// it. If `parts` is empty, the files of the room may use each other, but not in a circle.
struct Room {
    name: &'static str,
    uses: &'static [&'static str],
    parts: &'static [&'static str],
}

/// The rooms in order. A room may use only rooms that stand before it in this list.
const ROOMS: &[Room] = &[
    Room {
        name: "base",
        uses: &[],
        parts: &[
            "sync",
            "clock",
            "files",
            "host",
            "error_text",
            "conditions",
            "outage",
            "address",
            "account",
            "panics",
            "aborts",
            "memory",
            "log",
            "http_server",
            "grpc_server",
        ],
    },
    Room {
        name: "aws",
        uses: &["base"],
        parts: &[
            "answer",
            "encoding",
            "classify",
            "failure",
            "body",
            "endpoint",
            "transport",
            "client",
            "call",
            "identity",
            "sign",
            "service",
            "spans",
        ],
    },
    Room {
        name: "pipeline",
        uses: &["base", "aws"],
        parts: &[
            "shedding",
            "receive",
            "segment",
            "spans",
            "ring",
            "ingest",
            "batch",
            "spool",
            "call_limit",
            "sockets",
            "limits",
            "capacity",
            "upload",
            "tail",
            "sender",
        ],
    },
    Room {
        name: "admin",
        uses: &["base", "aws", "pipeline"],
        parts: &["local_client", "health", "metrics", "pages", "proxy", "telemetry"],
    },
    Room { name: "config", uses: &["base", "aws", "pipeline"], parts: &[] },
    Room {
        name: "commands",
        uses: &["base", "aws", "pipeline", "admin", "config"],
        parts: &["config", "healthcheck", "limits", "tail", "verify"],
    },
    Room { name: "daemon", uses: &["base", "aws", "pipeline", "admin", "config"], parts: &[] },
];

/// Circles of files that the test still allows. In a circle, each file uses the next one.
const CIRCLES: &[&[&str]] = &[];

fn room(name: &str) -> Option<&'static Room> {
    ROOMS.iter().find(|room| room.name == name)
}

/// Checks that the module `from` may use the module `to`. The error says why it may not.
fn check(from: &Module, to: &Module) -> Result<(), String> {
    let room_of_from = room(&from[0]).ok_or_else(|| format!("{} is in no list", from[0]))?;
    if from[0] != to[0] {
        let is_allowed = room_of_from.uses.contains(&to[0].as_str());
        return is_allowed
            .then_some(())
            .ok_or_else(|| format!("{} may not use {}", from[0], to[0]));
    }
    let parts = room_of_from.parts;
    // The room's own file and the parts of the room may use each other.
    let (Some(own), Some(other)) = (from.get(1), to.get(1)) else { return Ok(()) };
    if parts.is_empty() || own == other {
        return Ok(());
    }
    let place = |name: &String| parts.iter().position(|part| part == name);
    let (Some(own_place), Some(other_place)) = (place(own), place(other)) else {
        return Err(format!("{own} or {other} is in no list"));
    };
    let is_before = other_place < own_place;
    is_before.then_some(()).ok_or_else(|| format!("{other} stands behind {own}"))
}

/// Returns a text for each use in the graph that is not allowed.
fn faults(graph: &Graph) -> Vec<String> {
    let uses = graph.uses.iter().flat_map(|(from, used)| used.iter().map(move |to| (from, to)));
    let faults = uses.filter_map(|(from, to)| Some((from, to, check(from, to).err()?)));
    faults
        .map(|(from, to, fault)| format!("{} -> {}: {fault}", from.join("/"), to.join("/")))
        .collect()
}

#[test]
fn data_flows_one_way() {
    let faults = faults(&Graph::of(&sources("src")));
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let circles = Graph::of(&sources("src")).circles();
    let circles = circles.iter().map(|circle| circle.iter().map(|module| module.join("/")));
    let circles: BTreeSet<BTreeSet<String>> = circles.map(Iterator::collect).collect();
    let known = CIRCLES.iter().map(|circle| circle.iter().map(|&file| file.to_owned()).collect());
    assert_eq!(circles, known.collect());
}

#[test]
fn the_rooms_have_an_order_and_name_what_is_there_and_in_use() {
    let graph = Graph::of(&sources("src"));
    for (index, room) in ROOMS.iter().enumerate() {
        for used in room.uses {
            let is_before = ROOMS[..index].iter().any(|before| before.name == *used);
            assert!(is_before, "{} may use {used}, which does not stand before it", room.name);
        }
        let is_part = |module: &&Module| module[0] == room.name && module.len() > 1;
        let parts: BTreeSet<&str> = graph.uses.keys().filter(is_part).map(|it| &*it[1]).collect();
        let listed: BTreeSet<&str> = room.parts.iter().copied().collect();
        assert!(listed.is_empty() || listed == parts, "{}: {listed:?} {parts:?}", room.name);
    }
    let rooms: BTreeSet<&str> = graph.uses.keys().map(|module| &*module[0]).collect();
    assert_eq!(rooms, ROOMS.iter().map(|room| room.name).collect());
    let allowed = ROOMS.iter().flat_map(|room| room.uses.iter().map(|used| (room.name, *used)));
    let arrows = graph.arrows(1);
    let arrows = arrows.iter().map(|(from, to)| (&*from[0], &*to[0]));
    assert_eq!(arrows.collect::<BTreeSet<_>>(), allowed.collect());
}

/// Inserts `line` into a copy of the file at `path`, before the first `use`. Returns the faults of
/// `src` with this copy, and the number of circles.
fn planted(path: &str, line: &str) -> (Vec<String>, usize) {
    let mut sources = sources("src");
    let source = sources.iter_mut().find(|it| it.path == Path::new(path)).expect(path);
    let at = source.text.find("\nuse ").expect("it uses something");
    source.text.insert_str(at + 1, &format!("{line}\n"));
    let graph = Graph::of(&sources);
    (faults(&graph), graph.circles().len())
}

#[test]
fn a_planted_use_is_seen_wherever_it_stands() {
    let ring = "src/pipeline/ring/mod.rs";
    let entry = "src/pipeline/ring/entry.rs";
    for (path, line, used) in [
        // In this file a module with `#[cfg(test)]` stands before the first `use`.
        (ring, "use crate::commands::verify::verify;", "commands"),
        (ring, "use crate::{base::memory, commands::verify::{self, verify}};", "commands"),
        (ring, "use super::batch::Batch;", "batch"),
        (ring, "use super::{batch, segment::Segment};", "batch"),
        (entry, "use super::super::batch::Batch;", "batch"),
        (entry, "mod x { fn y() { z(&super::super::super::batch::Z) } }", "batch"),
        (entry, "fn x() { info!(\"{}\", crate::daemon::run()) }", "daemon"),
        ("src/admin/proxy/mod.rs", "pub use crate::commands::verify;", "commands"),
        ("src/base/memory.rs", "use super::log::RateLimit;", "log"),
        ("src/base/log/mod.rs", "use crate::config::Config;", "config"),
        ("src/aws/body.rs", "use super::Signer;", "sign"),
    ] {
        let (faults, _) = planted(path, line);
        assert!(faults.len() == 1 && faults[0].contains(used), "{path}, {line}: {faults:?}");
    }
    for (path, line) in [
        (ring, "// use crate::commands::verify::verify;"),
        (ring, "#[cfg(test)]\nuse crate::commands::verify::verify;"),
        (entry, "use super::tally::Tally;"),
        (ring, "pub(crate) fn x(x: &'static str) -> crate::base::memory::ChunkPool {}"),
    ] {
        assert_eq!(planted(path, line), (vec![], CIRCLES.len()), "{path}, {line}");
    }
    let in_a_circle = planted("src/pipeline/ring/tally.rs", "use super::handover::Handover;");
    assert_eq!(in_a_circle, (vec![], CIRCLES.len() + 1));
}

#[test]
#[should_panic(expected = "hides what is used")]
fn a_use_of_everything_is_refused() {
    planted("src/pipeline/ring/mod.rs", "use crate::*;");
}

#[test]
fn the_page_on_the_architecture_has_the_rooms() {
    let page = include_str!("../../docs/architecture.md");
    let (_, block) = page.split_once("```rooms\n").expect("the page has a block of rooms");
    let (block, _) = block.split_once("```").expect("the block has an end");
    let line = |room: &Room| match room.uses {
        [] => format!("{}: uses nothing\n", room.name),
        uses => format!("{}: uses {}\n", room.name, uses.join(", ")),
    };
    assert_eq!(block, ROOMS.iter().map(line).collect::<String>());
}
