//! Makes the fields `aws` and `service` of a document.

use super::attributes::Attributes;
use super::names;
use serde_json::{Map, Value, json};

/// Collects fields and leaves out missing ones.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn with(mut self, key: &str, value: Option<impl Into<Value>>) -> Self {
        self.0.extend(value.map(|value| (key.to_owned(), value.into())));
        self
    }

    fn value(self) -> Option<Value> {
        (!self.0.is_empty()).then(|| self.0.into())
    }
}

/// Returns the field `aws`: the host of a segment, and the called resource of a subsegment. Returns
/// `None` on another cloud.
pub fn make(
    attributes: &Attributes<'_>,
    resource: &Attributes<'_>,
    is_segment: bool,
) -> Option<Value> {
    if resource.text("cloud.provider").is_some_and(|provider| provider != "aws") {
        return None;
    }
    let own = Fields::default();
    let own = if is_segment { with_host(own, resource) } else { own };
    let own = match attributes.take(&["aws.account_id"]) {
        Some(account) => own.with("account_id", Some(account)),
        None => own.with("account_id", resource.text("cloud.account.id").filter(|_| is_segment)),
    };
    with_call(own, attributes).value()
}

fn with_host(fields: Fields, resource: &Attributes<'_>) -> Fields {
    let platform = resource.text("cloud.platform").unwrap_or_default();
    let zone = resource.text("cloud.availability_zone");
    let ec2 = Fields::default()
        .with("instance_id", resource.text("host.id"))
        .with("availability_zone", zone)
        .with("instance_size", resource.text("host.type"))
        .with("ami_id", resource.text("host.image.id"));
    let ecs = Fields::default()
        .with("container", resource.text("container.name"))
        .with("container_id", resource.text("container.id"))
        .with("availability_zone", zone)
        .with("container_arn", resource.text("aws.ecs.container.arn"))
        .with("cluster_arn", resource.text("aws.ecs.cluster.arn"))
        .with("task_arn", resource.text("aws.ecs.task.arn"))
        .with("task_family", resource.text("aws.ecs.task.family"))
        .with("launch_type", resource.text("aws.ecs.launchtype"));
    let eks = Fields::default()
        .with("cluster_name", resource.text("k8s.cluster.name"))
        .with("pod", resource.text("k8s.pod.name"))
        .with("container_id", resource.text("container.id"));
    let deployment = resource.text("service.instance.id").and_then(|id| id.parse::<i64>().ok());
    let beanstalk = Fields::default()
        .with("environment_name", resource.text("service.namespace"))
        .with("deployment_id", deployment)
        .with("version_label", resource.text("service.version"));
    let is_ec2 = platform == "aws_ec2" || resource.text("host.id").is_some();
    let is_eks = platform == "aws_eks" || resource.text("k8s.cluster.name").is_some();
    fields
        .with("ec2", ec2.value().filter(|_| is_ec2))
        .with("ecs", ecs.value().filter(|_| platform == "aws_ecs"))
        .with("eks", eks.value().filter(|_| is_eks))
        .with(
            "elastic_beanstalk",
            beanstalk.value().filter(|_| platform == "aws_elastic_beanstalk"),
        )
        .with("cloudwatch_logs", logs(resource))
        .with("xray", sdk(resource))
}

fn logs(resource: &Attributes<'_>) -> Option<Value> {
    let list = |key: &str| {
        let texts = resource.texts(key).into_iter().flat_map(|text| text.split('&'));
        texts.filter(|text| !text.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let of_arn = |arn: &String| {
        let name = arn.split(':').nth(6).unwrap_or(arn);
        json!({"arn": arn, "log_group": name})
    };
    let arns = list("aws.log.group.arns");
    let groups: Vec<Value> = if arns.is_empty() {
        list("aws.log.group.names").iter().map(|name| json!({"log_group": name})).collect()
    } else {
        arns.iter().map(of_arn).collect()
    };
    (!groups.is_empty()).then(|| groups.into())
}

fn sdk(resource: &Attributes<'_>) -> Option<Value> {
    let name = resource.text("telemetry.sdk.name")?;
    let sdk = match resource.text("telemetry.sdk.language") {
        Some(language) => format!("{name} for {language}"),
        None => name.to_owned(),
    };
    let auto = resource.first(&["telemetry.distro.version", "telemetry.auto.version"]);
    Fields::default()
        .with("sdk", Some(sdk))
        .with("sdk_version", resource.text("telemetry.sdk.version"))
        .with("auto_instrumentation", Some(auto.is_some()))
        .value()
}

fn with_call(fields: Fields, attributes: &Attributes<'_>) -> Fields {
    let is_of_sdk = names::is_of_aws_sdk(attributes);
    let of_method = || {
        let method = attributes.take(&["rpc.method"])?;
        Some(method.rsplit('/').next().unwrap_or(method))
    };
    let operation =
        attributes.take(&["aws.operation"]).or_else(|| of_method().filter(|_| is_of_sdk));
    let tables = [
        attributes.texts("aws.dynamodb.table_names"),
        attributes.first(&["aws.table_name", "aws.table.name"]).into_iter().collect(),
    ];
    let tables = tables.into_iter().find(|list| !list.is_empty()).unwrap_or_default();
    attributes.mark(&["aws.dynamodb.table_names", "aws.table_name", "aws.table.name"]);
    let queue = ["aws.sqs.queue.url", "messaging.url", "aws.queue_url", "aws.queue.url"];
    let region = attributes
        .take(&["aws.region"])
        .or_else(|| attributes.take(&["cloud.region"]).filter(|_| is_of_sdk));
    fields
        .with("operation", operation)
        .with("region", region)
        .with("request_id", attributes.take(&["aws.request_id", "aws.requestId"]))
        .with("queue_url", attributes.take(&queue))
        .with("bucket_name", attributes.take(&["aws.s3.bucket"]))
        .with("table_name", tables.first().copied().filter(|_| tables.len() == 1))
        .with("table_names", Some(tables.clone()).filter(|tables| tables.len() > 1))
}

/// Returns the field `service`: the version of the service.
pub fn service(resource: &Attributes<'_>) -> Option<Value> {
    Fields::default().with("version", resource.text("service.version")).value()
}
