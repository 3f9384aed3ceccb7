//! The files of the page, which are part of the binary.
//!
//! In: a name. Out: the file, with its type. The files are plain modules, styles and markup in
//! `page/`; nothing builds them. Pure code.

use super::answer::{Answer, Failure};
use bytes::Bytes;
use http::StatusCode;

/// Each file by its name.
macro_rules! assets {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("page/", $name)))),*]
    };
}

const ASSETS: &[(&str, &[u8])] = assets![
    "api.js",
    "app.js",
    "arrivals.js",
    "base.css",
    "connect.js",
    "details.js",
    "dom.js",
    "exceptions.js",
    "filter.js",
    "filterbar.js",
    "format.js",
    "graph.js",
    "help.js",
    "icon.svg",
    "index.html",
    "json.js",
    "keys.js",
    "layout.js",
    "listheading.js",
    "live.js",
    "map.js",
    "mapparts.js",
    "nothing.js",
    "raw.js",
    "router.js",
    "rule.js",
    "rules.js",
    "splitter.js",
    "theme.js",
    "trace.css",
    "trace.js",
    "tracehead.js",
    "tracerow.js",
    "traces.css",
    "traces.js",
    "tracetools.js",
    "tree.js",
    "viewport.js",
    "views.css",
    "virtual.js",
    "waterfall.js",
    "waterfallrow.js",
];

/// The file of this name.
pub fn find(name: &str) -> Result<Answer, Failure> {
    let found = ASSETS.iter().find(|(known, _)| *known == name);
    let (name, bytes) = found.ok_or_else(|| {
        Failure::new(StatusCode::NOT_FOUND, "ResourceNotFoundException", "There is no such file")
    })?;
    let content_type = content_type(name);
    Ok(Answer { content_type, body: Bytes::from_static(bytes), is_asset: true })
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.') {
        Some((_, "html")) => "text/html; charset=utf-8",
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    #[test]
    fn every_file_of_the_page_is_in_the_binary_with_a_type() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sandbox/page");
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        let mut known: Vec<&str> = ASSETS.iter().map(|(name, _)| *name).collect();
        known.sort_unstable();
        assert_eq!(names, known);
        assert!(names.iter().all(|name| content_type(name) != "application/octet-stream"));
    }
}
