//! Serves the files of the page, which are compiled into the binary.
//!
//! In: the name of a file, with its folder. Out: the content and the content type. The files are
//! JavaScript modules, style sheets and HTML in `page/`, with a folder for each view. There is no
//! build step. No I/O, no clock.

use super::answer::{Answer, Failure};
use bytes::Bytes;
use http::StatusCode;

/// Expands names of files in `page/` to a list. Each entry has the name and the content of a file.
macro_rules! assets {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("../../page/", $name)))),*]
    };
}

const ASSETS: &[(&str, &[u8])] = assets![
    "app.js",
    "guide/connect.js",
    "guide/help.js",
    "guide/otlp.js",
    "icon.svg",
    "index.html",
    "list/arrivals.js",
    "list/filter.js",
    "list/filterbar.js",
    "list/heading.js",
    "list/list.css",
    "list/nothing.js",
    "list/scale.js",
    "list/timerange.js",
    "list/timestrip.js",
    "list/tracerow.js",
    "list/traces.js",
    "map/crossings.js",
    "map/graph.js",
    "map/layout.js",
    "map/map.js",
    "map/pack.js",
    "map/parts.js",
    "map/viewport.js",
    "refused/refused.css",
    "refused/refused.js",
    "rules/rule.js",
    "rules/rules.js",
    "shared/api.js",
    "shared/base.css",
    "shared/controls.css",
    "shared/dom.js",
    "shared/format.js",
    "shared/keys.js",
    "shared/live.js",
    "shared/router.js",
    "shared/splitter.js",
    "shared/theme.js",
    "shared/virtual.js",
    "trace/details.css",
    "trace/details.js",
    "trace/download.js",
    "trace/exceptionlist.js",
    "trace/exceptions.js",
    "trace/head.js",
    "trace/json.js",
    "trace/notes.js",
    "trace/overview.js",
    "trace/raw.js",
    "trace/segmentrow.js",
    "trace/tools.js",
    "trace/trace.css",
    "trace/trace.js",
    "trace/tree.js",
    "trace/waterfall.js",
    "trace/window.js",
    "views.css",
];

/// Returns the file with this name.
///
/// # Errors
///
/// Returns a failure (404) if the page has no such file.
pub fn find(name: &str) -> Result<Answer, Failure> {
    let found = ASSETS.iter().find(|(known, _)| *known == name);
    let (name, bytes) = found.ok_or_else(|| {
        let message = "The page has no file with this name";
        Failure::new(StatusCode::NOT_FOUND, "ResourceNotFoundException", message)
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
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("page");
        let mut folders = vec![root.clone()];
        let mut names: Vec<String> = Vec::new();
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    folders.push(path);
                } else {
                    names.push(path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        names.sort();
        let mut known: Vec<&str> = ASSETS.iter().map(|(name, _)| *name).collect();
        known.sort_unstable();
        assert_eq!(names, known);
        assert!(names.iter().all(|name| content_type(name) != "application/octet-stream"));
    }
}
