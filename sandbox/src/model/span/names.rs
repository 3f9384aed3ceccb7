//! Finds the name of a segment or subsegment, its namespace and its origin.
//!
//! X-Ray draws its service map from these names. A segment has the name of its service, and a call
//! the name of the called service. The attributes are those of the semantic conventions, old names
//! and new: <https://opentelemetry.io/docs/specs/semconv/>.

use super::attributes::Attributes;
use super::sql;
use xrayd_otlp::message::{Kind, Span};

/// Longest name of a segment, in characters.
const LENGTH_MAX: usize = 200;

/// Name of a segment if the span has none that X-Ray allows.
const NAMELESS: &str = "span";

/// Names of the attribute that says the system of a remote procedure call.
const RPC_SYSTEM: &[&str] = &["rpc.system", "rpc.system.name"];

/// Returns whether a span is a call of an AWS SDK.
pub fn is_of_aws_sdk(attributes: &Attributes<'_>) -> bool {
    attributes.first(RPC_SYSTEM) == Some("aws-api")
}

/// Returns the name of the service that a segment is about.
pub fn of_service(span: &Span, attributes: &Attributes<'_>, resource: &Attributes<'_>) -> String {
    let local = attributes.take(&["aws.local.service"]);
    fixed(local.or_else(|| resource.text("service.name")).unwrap_or(&span.name))
}

/// Returns the name of the service that a span calls, or of the work that it does.
pub fn of_call(span: &Span, attributes: &Attributes<'_>) -> String {
    let is_call = matches!(span.kind(), Kind::Client | Kind::Producer);
    let remote = || {
        let name = attributes.text("aws.remote.service").filter(|_| is_call)?;
        let is_of_aws = is_of_aws_sdk(attributes);
        let bare = ["AWS.SDK.", "AWS::"].iter().find_map(|prefix| name.strip_prefix(prefix));
        Some(bare.filter(|_| is_of_aws).unwrap_or(name).to_owned())
    };
    let owned = |keys: &[&str]| attributes.first(keys).map(str::to_owned);
    let found = remote()
        .or_else(|| owned(&["peer.service", "service.peer.name"]))
        .or_else(|| of_aws(attributes))
        .or_else(|| of_database(attributes))
        .or_else(|| {
            owned(&["messaging.destination.name", "messaging.destination"]).filter(|_| is_call)
        })
        .or_else(|| owned(&["rpc.service", "faas.invoked_name"]))
        .or_else(|| owned(&["http.host"]).filter(|_| is_call))
        .or_else(|| owned(&["server.address", "net.peer.name"]).filter(|_| is_call))
        .or_else(|| host_of(attributes.first(&["url.full", "http.url"])?).map(str::to_owned));
    fixed(&found.unwrap_or_else(|| span.name.clone()))
}

/// Returns the name of the AWS service that is called, such as `DynamoDB`.
fn of_aws(attributes: &Attributes<'_>) -> Option<String> {
    if let Some(service) = attributes.text("aws.service") {
        return Some(service.to_owned());
    }
    if !is_of_aws_sdk(attributes) {
        return None;
    }
    // The newer conventions have no service: the method is `DynamoDB/GetItem`.
    let of_method = || attributes.text("rpc.method")?.split_once('/').map(|(service, _)| service);
    attributes.text("rpc.service").or_else(of_method).map(str::to_owned)
}

/// Returns the name of a database: `NAME@HOST`, or what is known of it.
fn of_database(attributes: &Attributes<'_>) -> Option<String> {
    let system = attributes.first(sql::SYSTEM);
    let name = attributes.first(sql::NAMESPACE).or(system)?;
    let url = attributes.text(sql::CONNECTION).map(|url| url.strip_prefix("jdbc:").unwrap_or(url));
    let host = url.and_then(host_of).or_else(|| attributes.first(sql::HOST));
    Some(host.map_or_else(|| name.to_owned(), |host| format!("{name}@{host}")))
}

/// Returns the host of a URL, without user and port.
fn host_of(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#', ';']).next()?;
    let host = authority.rsplit('@').next()?;
    let host = match host.strip_prefix('[') {
        Some(address) => address.split(']').next()?,
        None => host.split(':').next()?,
    };
    Some(host).filter(|host| !host.is_empty())
}

/// Returns the namespace of a subsegment: `aws`, `remote`, or none for work inside the service.
pub fn namespace(span: &Span, attributes: &Attributes<'_>) -> Option<&'static str> {
    if is_of_aws_sdk(attributes) || attributes.text("aws.service").is_some() {
        return Some("aws");
    }
    matches!(span.kind(), Kind::Client | Kind::Producer).then_some("remote")
}

/// Returns the origin of a segment by the resource, such as `AWS::ECS::Container`.
pub fn origin(resource: &Attributes<'_>) -> Option<&'static str> {
    if resource.text("cloud.provider").is_some_and(|provider| provider != "aws") {
        return None;
    }
    Some(match resource.text("cloud.platform")? {
        "aws_app_runner" => "AWS::AppRunner::Service",
        "aws_eks" => "AWS::EKS::Container",
        "aws_elastic_beanstalk" => "AWS::ElasticBeanstalk::Environment",
        "aws_ecs" => match resource.text("aws.ecs.launchtype") {
            Some("ec2") => "AWS::ECS::EC2",
            Some("fargate") => "AWS::ECS::Fargate",
            _ => "AWS::ECS::Container",
        },
        "aws_ec2" => "AWS::EC2::Instance",
        _ => return None,
    })
}

/// Returns a name without the characters that X-Ray does not allow.
fn fixed(name: &str) -> String {
    let is_allowed = |it: &char| it.is_alphanumeric() || " _.:/%&#=+\\-@".contains(*it);
    let name: String = name.chars().filter(is_allowed).take(LENGTH_MAX).collect();
    if name.trim().is_empty() { NAMELESS.to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_found_in_urls_of_many_forms() {
        for (url, host) in [
            ("https://shop.example/a?b", Some("shop.example")),
            ("http://u:p@shop.example:8080", Some("shop.example")),
            ("http://[::1]:80/", Some("::1")),
            ("mysql://db:3306;x=1", Some("db")),
            ("http:///a", None),
            ("/a", None),
        ] {
            assert_eq!(host_of(url), host, "{url}");
        }
    }

    #[test]
    fn a_name_has_only_the_characters_of_x_ray() {
        assert_eq!(fixed("GET /a?b=<c>\n"), "GET /ab=c");
        assert_eq!(fixed("größe 価格"), "größe 価格");
        assert_eq!(fixed("<>"), NAMELESS);
        assert_eq!(fixed("  "), NAMELESS);
        assert_eq!(fixed(&"é".repeat(300)).chars().count(), 200);
    }
}
