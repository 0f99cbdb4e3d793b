//! One metric of an autoscaler: read, reckoned, and told in its status.

use gantry_machinery::quantity::Quantity;
use serde_json::{Value, json};

use super::metrics::Metrics;
use super::plan::{Evaluated, Evaluation, Failure, context};
use super::replicas::{self, Proposal, World};
use crate::model::autoscaler::{Identifier, MetricSpec, NamedMetric, ResourceMetric};
use crate::selector::go_selector;

/// The scale of a target, and how its pods are found.
pub struct Target<'a> {
    pub namespace: &'a str,
    pub selector: &'a str,
    pub status_replicas: i32,
    pub world: World<'a>,
}

fn amount(milli: i64) -> Value {
    Quantity::from_milli(milli).to_string().into()
}

pub async fn evaluate(metrics: &Metrics<'_>, target: &Target<'_>, spec: &MetricSpec) -> Evaluated {
    let (reason, result) = match spec.kind.as_str() {
        "Resource" => (
            "FailedGetResourceMetric",
            of_resource(metrics, target, spec.resource.as_ref(), "resource").await,
        ),
        "ContainerResource" => (
            "FailedGetContainerResourceMetric",
            of_resource(
                metrics,
                target,
                spec.container_resource.as_ref(),
                "containerResource",
            )
            .await,
        ),
        "Pods" => (
            "FailedGetPodsMetric",
            of_pods(metrics, target, spec.pods.as_ref()).await,
        ),
        "Object" => (
            "FailedGetObjectMetric",
            of_object(metrics, target, spec.object.as_ref()).await,
        ),
        "External" => (
            "FailedGetExternalMetric",
            external(metrics, target, spec.external.as_ref()).await,
        ),
        other => (
            "InvalidMetricSourceType",
            Err(format!("unknown metric source type {other:?}")),
        ),
    };
    result.map_err(|error| Failure {
        reason,
        error,
        context: context(spec),
    })
}

async fn of_resource(
    metrics: &Metrics<'_>,
    target: &Target<'_>,
    spec: Option<&ResourceMetric>,
    field: &str,
) -> Result<Evaluation, String> {
    const NEITHER: &str = "invalid resource metric source: neither an average utilization target nor an average value (usage) target was set";
    let spec = spec.ok_or(NEITHER)?;
    let (name, container) = (&spec.name, &spec.container);
    let of_container = field == "containerResource";
    let read = async || {
        metrics
            .resource(name, target.namespace, target.selector, container)
            .await
            .map_err(|why| format!("unable to get metrics for resource {name}: {why}"))
    };
    let (proposal, told) = if let Some(wanted) = spec.target.average_value {
        let proposal = match read().await {
            Ok(samples) => replicas::by_average(&target.world, samples, wanted, name == "cpu"),
            Err(why) => Err(why),
        };
        let proposal = proposal.map_err(|why| format!("failed to get {name} usage: {why}"))?;
        // Kubernetes does not tell here that it is of a container.
        (proposal, format!("{name} resource"))
    } else {
        let wanted = spec.target.average_utilization.ok_or(NEITHER)?;
        let proposal = match read().await {
            Ok(samples) => {
                replicas::by_utilization(&target.world, samples, wanted, name, container)
            }
            Err(why) => Err(why),
        };
        let proposal =
            proposal.map_err(|why| format!("failed to get {name} utilization: {why}"))?;
        let kind = if of_container {
            "container resource"
        } else {
            "resource"
        };
        let told = format!("{name} {kind} utilization (percentage of request)");
        (proposal, told)
    };
    let mut current = json!({"averageValue": amount(proposal.value)});
    if let Some(percent) = proposal.utilization {
        current["averageUtilization"] = percent.into();
    }
    let mut about = json!({"name": name, "current": current});
    if of_container {
        about["container"] = container.as_str().into();
    }
    let kind = if of_container {
        "ContainerResource"
    } else {
        "Resource"
    };
    Ok(Evaluation {
        replicas: proposal.replicas,
        name: told,
        status: json!({"type": kind, field: about}),
    })
}

async fn of_pods(
    metrics: &Metrics<'_>,
    target: &Target<'_>,
    spec: Option<&NamedMetric>,
) -> Result<Evaluation, String> {
    const NONE: &str = "invalid pods metric source: no average value target was set";
    let spec = spec.ok_or(NONE)?;
    let wanted = spec.target.average_value.ok_or(NONE)?;
    let name = &spec.metric.name;
    let samples = metrics
        .of_pods(&spec.metric, target.namespace, target.selector)
        .await
        .map_err(|why| format!("unable to get metric {name}: {why}"))?;
    let proposal = replicas::by_average(&target.world, samples, wanted, false)?;
    Ok(Evaluation {
        replicas: proposal.replicas,
        name: format!("pods metric {name}"),
        status: json!({"type": "Pods", "pods": {
            "metric": spec.metric,
            "current": {"averageValue": amount(proposal.value)},
        }}),
    })
}

async fn of_object(
    metrics: &Metrics<'_>,
    target: &Target<'_>,
    spec: Option<&NamedMetric>,
) -> Result<Evaluation, String> {
    const NEITHER: &str =
        "invalid object metric source: neither a value target nor an average value target was set";
    let spec = spec.ok_or(NEITHER)?;
    let name = &spec.metric.name;
    let object = &spec.described_object;
    // The order of the words is Kubernetes'.
    let read = metrics
        .of_object(&spec.metric, target.namespace, object)
        .await
        .map_err(|why| {
            let (kind, namespace) = (&object.kind, target.namespace);
            format!(
                "unable to get metric {name}: {kind} on {namespace} {}/{why}",
                object.name
            )
        });
    let (proposal, field, told) = match (spec.target.value, spec.target.average_value) {
        (Some(wanted), _) => (
            replicas::by_value(&target.world, read?, wanted)?,
            "value",
            format!("{} metric {name}", object.kind),
        ),
        (None, Some(wanted)) => {
            let value = read.map_err(|why| format!("failed to get {name} object metric: {why}"))?;
            (
                replicas::per_pod(
                    target.status_replicas,
                    value,
                    wanted,
                    target.world.tolerance,
                ),
                "averageValue",
                outside(&spec.metric),
            )
        }
        _ => return Err(NEITHER.into()),
    };
    Ok(Evaluation {
        replicas: proposal.replicas,
        name: told,
        status: json!({"type": "Object", "object": {
            "describedObject": object,
            "metric": spec.metric,
            "current": {field: amount(proposal.value)},
        }}),
    })
}

async fn external(
    metrics: &Metrics<'_>,
    target: &Target<'_>,
    spec: Option<&NamedMetric>,
) -> Result<Evaluation, String> {
    const NEITHER: &str = "invalid external metric source: neither a value target nor an average value target was set";
    let spec = spec.ok_or(NEITHER)?;
    let name = &spec.metric.name;
    let read = async || {
        metrics
            .external(&spec.metric, target.namespace)
            .await
            .map_err(|why| {
                let selector = go_selector(spec.metric.selector.as_ref());
                let namespace = target.namespace;
                format!("unable to get external metric {namespace}/{name}/{selector}: {why}")
            })
    };
    let (proposal, field): (Proposal, _) = match (spec.target.average_value, spec.target.value) {
        (Some(wanted), _) => {
            let value = read()
                .await
                .map_err(|why| format!("failed to get {name} external metric: {why}"))?;
            let tolerance = target.world.tolerance;
            (
                replicas::per_pod(target.status_replicas, value, wanted, tolerance),
                "averageValue",
            )
        }
        (None, Some(wanted)) => {
            let proposal = match read().await {
                Ok(value) => replicas::by_value(&target.world, value, wanted),
                Err(why) => Err(why),
            };
            let proposal =
                proposal.map_err(|why| format!("failed to get external metric {name}: {why}"))?;
            (proposal, "value")
        }
        _ => return Err(NEITHER.into()),
    };
    Ok(Evaluation {
        replicas: proposal.replicas,
        name: outside(&spec.metric),
        status: json!({"type": "External", "external": {
            "metric": spec.metric,
            "current": {field: amount(proposal.value)},
        }}),
    })
}

fn outside(metric: &Identifier) -> String {
    format!(
        "external metric {}({})",
        metric.name,
        go_selector(metric.selector.as_ref())
    )
}
