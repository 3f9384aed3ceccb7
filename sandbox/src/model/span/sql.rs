//! Makes the field `sql` of a document.

use super::attributes::Attributes;
use serde_json::{Value, json};

/// Names of the attribute with the system of a database, such as `postgresql`.
pub const SYSTEM: &[&str] = &["db.system.name", "db.system"];
/// Names of the attribute with the name of a database.
pub const NAMESPACE: &[&str] = &["db.namespace", "db.name"];
/// Names of the attribute with the host of a database.
pub const HOST: &[&str] = &["server.address", "net.peer.name"];
/// Name of the attribute with a URL of a database. The newer conventions do not have it.
pub const CONNECTION: &str = "db.connection_string";

const QUERY: &[&str] = &["db.query.text", "db.statement"];

/// The systems with SQL, by their old and new names.
const WITH_SQL: &[&str] = &[
    "clickhouse",
    "cockroachdb",
    "db2",
    "derby",
    "h2",
    "hana",
    "hive",
    "hsqldb",
    "ibm.db2",
    "mariadb",
    "microsoft.sql_server",
    "mssql",
    "mysql",
    "oracle",
    "oracle.db",
    "other_sql",
    "postgresql",
    "redshift",
    "aws.redshift",
    "sap.hana",
    "spanner",
    "sqlite",
    "teradata",
    "trino",
];

/// Returns the field `sql`, or `None` if the span is not about a database with SQL.
pub fn make(span_name: &str, attributes: &Attributes<'_>) -> Option<Value> {
    let system = attributes.first(SYSTEM).filter(|system| WITH_SQL.contains(system))?;
    let name = attributes.take(NAMESPACE);
    let host = attributes.first(HOST);
    let connection = attributes.take(&[CONNECTION]).or(host).map(|from| match name {
        Some(name) => format!("{from}/{name}"),
        None => from.to_owned(),
    });
    attributes.mark(SYSTEM);
    let mut sql = json!({"database_type": system});
    for (key, value) in [
        // The document's reference has the URL of the database here. The exporter writes the name
        // of the span, because the URL is of no use.
        ("url", Some(span_name.to_owned()).filter(|name| !name.is_empty())),
        ("connection_string", connection),
        ("user", attributes.take(&["db.user"]).map(str::to_owned)),
        ("sanitized_query", attributes.take(QUERY).map(str::to_owned)),
    ] {
        if let Some(value) = value {
            sql[key] = value.into();
        }
    }
    Some(sql)
}
