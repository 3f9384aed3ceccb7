//! Makes the field `http` of a document.

use super::attributes::Attributes;
use serde_json::{Map, Value, json};
use xrayd_otlp::message::Kind;

const METHOD: &[&str] = &["http.request.method", "http.method"];
const USER_AGENT: &[&str] = &["user_agent.original", "http.user_agent"];
const CLIENT: &[&str] = &["client.address", "http.client_ip"];
const PEER: &[&str] = &["network.peer.address", "net.sock.peer.addr", "net.peer.ip"];
const URL: &[&str] = &["url.full", "http.url"];
const SCHEME: &[&str] = &["url.scheme", "http.scheme"];
const LENGTH: &[&str] = &["http.response.body.size", "http.response_content_length"];
/// Names of the attribute with the status code of a response.
pub const STATUS: &[&str] = &["http.response.status_code", "http.status_code"];

/// Pairs of attributes with the host and the port of a server. The first pair with a host counts.
const OF_SERVER: &[(&str, &str)] = &[
    ("http.host", ""),
    ("http.server_name", "net.host.port"),
    ("server.address", "server.port"),
    ("net.host.name", "net.host.port"),
];
const OF_PEER: &[(&str, &str)] = &[
    ("http.host", ""),
    ("server.address", "server.port"),
    ("net.peer.name", "net.peer.port"),
    ("net.peer.ip", "net.peer.port"),
];

/// Returns the field `http`, or `None` if the span is not about HTTP.
pub fn make(kind: Kind, attributes: &Attributes<'_>) -> Option<Value> {
    let all = [METHOD, STATUS, URL, USER_AGENT, &["http.target", "http.host", "http.scheme"]];
    if !all.concat().iter().any(|key| attributes.get(key).is_some()) {
        return None;
    }
    let mut request = Map::new();
    let mut set = |key: &str, value: Option<Value>| {
        request.extend(value.map(|value| (key.to_owned(), value)));
    };
    set("method", attributes.take(METHOD).map(Value::from));
    set("url", url(kind, attributes).map(Value::from));
    set("user_agent", attributes.take(USER_AGENT).map(Value::from));
    if matches!(kind, Kind::Server | Kind::Consumer) {
        let client = attributes.take(CLIENT);
        set("client_ip", client.or_else(|| attributes.first(PEER)).map(Value::from));
        set("x_forwarded_for", client.map(|_| Value::from(true)));
    }
    let mut response = Map::new();
    let status = attributes.take_integer(STATUS);
    response.extend(status.map(|status| ("status".to_owned(), json!(status))));
    let length = attributes.take_integer(LENGTH);
    response.extend(length.map(|length| ("content_length".to_owned(), json!(length))));
    let mut http = Map::new();
    let groups = [("request", request), ("response", response)];
    let groups = groups.into_iter().filter(|(_, group)| !group.is_empty());
    http.extend(groups.map(|(key, group)| (key.to_owned(), group.into())));
    (!http.is_empty()).then(|| http.into())
}

/// Returns the URL of a request: as a whole, or put together from its parts. Without a host, the
/// path alone.
fn url(kind: Kind, attributes: &Attributes<'_>) -> Option<String> {
    if let Some(url) = attributes.take(URL) {
        return Some(url.to_owned());
    }
    let path = attributes.take(&["http.target"]).map(str::to_owned).or_else(|| {
        let query = attributes.take(&["url.query"]);
        let path = attributes.take(&["url.path"])?;
        let mark = |query: &str| if query.starts_with('?') { "" } else { "?" };
        Some(query.map_or(path.to_owned(), |query| format!("{path}{}{query}", mark(query))))
    });
    let pairs = if kind == Kind::Server { OF_SERVER } else { OF_PEER };
    let Some((host, port)) = pairs.iter().find(|(host, _)| attributes.text(host).is_some()) else {
        return path;
    };
    let scheme = attributes.take(SCHEME).unwrap_or("http");
    let host_name = attributes.take(&[host]).unwrap_or_default();
    let port = attributes.take_shown(&[port]);
    let usual = if scheme == "https" { "443" } else { "80" };
    let port = port.filter(|port| port != usual).map_or_else(String::new, |it| format!(":{it}"));
    Some(format!("{scheme}://{host_name}{port}{}", path.as_deref().unwrap_or("/")))
}
