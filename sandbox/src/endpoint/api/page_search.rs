//! Answers the search of the page (`/api/search`) and the list of what was refused
//! (`/api/refused`).

use super::super::Sandbox;
use super::super::answer::{Answer, Failure};
use super::super::search::{self, Hit, Query};
use super::super::summary::Summary;
use crate::model::store::Snapshot;
use serde_json::{Map, Value, json};

impl Sandbox {
    /// Answers which of the traces that changed after the revision `since` match a text. A text
    /// that is a broken expression matches nothing, and the answer says what is wrong with it.
    pub(in super::super) fn page_search(&self, query: Option<&str>) -> Result<Answer, Failure> {
        let (mut text, mut since) = (String::new(), 0);
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*name {
                "q" => text = value.into_owned(),
                "since" => {
                    let wrong = |_| Failure::invalid("The parameter since is not a valid number");
                    since = value.parse().map_err(wrong)?;
                }
                _ => {}
            }
        }
        let query = Query::of(&text);
        let state = self.lock();
        let revision = state.store.status().revision;
        let changed = match query {
            Query::Broken(_) | Query::Nothing => Some(Vec::new()),
            _ => state.store.since(since),
        };
        drop(state);
        let is_gone = changed.is_none();
        let changed = changed.unwrap_or_default();
        let (matched, hits) = matching(&query, &changed);
        let mode = match &query {
            Query::Nothing => "nothing",
            Query::Expression(_) => "expression",
            Query::Broken(_) => "broken",
            Query::Words(..) => "words",
        };
        let problem = match &query {
            Query::Broken(error) => {
                json!({"position": error.position, "text": error.problem})
            }
            _ => Value::Null,
        };
        let begun = match query {
            _ if !matched.is_empty() => None,
            Query::Words(_, keyword) => keyword.map(str::to_owned),
            Query::Expression(_) => begun_annotation(&text, &changed),
            _ => None,
        };
        Ok(json!({
            "revision": revision,
            "gone": is_gone,
            "mode": mode,
            "problem": problem,
            "begun": begun,
            "matched": matched,
            "hits": hits,
        })
        .into())
    }

    /// Answers what was refused.
    pub(in super::super) fn page_refused(&self) -> Answer {
        let state = self.lock();
        json!({
            "count": state.refused.count(),
            "kinds": state.refused.kinds(),
            "dropped_kind_count": state.refused.dropped_kind_count(),
        })
        .into()
    }

    /// Forgets what was refused.
    pub(in super::super) fn page_forget_refused(&self) -> Answer {
        self.lock().refused.clear();
        json!({"count": 0}).into()
    }
}

/// Returns the annotation of a trace whose key begins with the last word of an expression:
/// `annotation.customer` for `fault AND annotation.cust`. Such an expression is complete by its
/// grammar, and not for the one who types it.
fn begun_annotation(text: &str, traces: &[Snapshot]) -> Option<String> {
    let (_, begun) = text.trim_end().rsplit_once("annotation.")?;
    let mut facts = traces.iter().flat_map(|trace| &trace.documents).map(|it| &it.facts);
    let is_longer = |key: &str| key.len() > begun.len() && key.starts_with(begun);
    let key = facts.find_map(|facts| facts.annotations.iter().find(|(key, _)| is_longer(key)))?;
    Some(format!("annotation.{}", key.0))
}

/// Returns the ids of the traces that a query matches, and by id where a word was found.
fn matching<'a>(query: &Query, traces: &'a [Snapshot]) -> (Vec<&'a str>, Map<String, Value>) {
    let (mut ids, mut hits) = (Vec::new(), Map::new());
    for trace in traces {
        let summary = Summary::of(trace);
        let found: Option<Option<Hit>> = match query {
            Query::Expression(expression) => expression.is_true_of(&summary).then_some(None),
            Query::Words(words, _) => search::find(words, &summary),
            Query::Nothing | Query::Broken(_) => None,
        };
        let Some(hit) = found else { continue };
        ids.push(&*trace.id);
        if let Some(hit) = hit {
            hits.insert(trace.id.to_string(), json!(hit));
        }
    }
    (ids, hits)
}
