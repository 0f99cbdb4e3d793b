//! The shell of the autoscaler: reads scales and metrics, scales, and writes the status.

use std::sync::Arc;

use gantry_machinery::selector::{Labels, Operator};
use jiff::Timestamp;
use kube::api::Patch;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::evaluate::{Target, evaluate};
use super::metrics::Metrics;
use super::pace::Memory;
use super::plan::{self, Bounds, Conditions, Failed, Rescale, Verdict};
use super::replicas::{Tolerance, World};
use super::{TOLERANCE, Timing};
use crate::model::autoscaler::{Autoscaler, Rules};
use crate::model::{AUTOSCALERS, Key, Meta, Pod};
use crate::runtime::discovery::{Catalogue, Served};
use crate::runtime::membership::Membership;
use crate::runtime::{ApiError, Context, Controller, Outcome, Queue, controller};
use crate::selector::{Expression, Selector};

const NAME: &str = "horizontal-pod-autoscaler";

struct Autoscalers {
    context: Context,
    membership: Arc<Membership>,
    catalogue: Catalogue,
    memories: Mutex<FxHashMap<Key, Memory>>,
    timing: Timing,
}

/// `autoscaling/v1` Scale.
#[derive(Debug, Clone, Deserialize)]
struct Scale {
    metadata: Meta,
    #[serde(default)]
    spec: ScaleSpec,
    #[serde(default)]
    status: ScaleStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct ScaleSpec {
    replicas: i32,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct ScaleStatus {
    replicas: i32,
    selector: String,
}

/// Registers the controller's handlers; its workers start with the returned function.
pub fn start(context: &Context, workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue: Arc<Queue<Key>> = Arc::new(Queue::default());
    let membership = Arc::new(Membership::default());
    let informers = &context.informers;
    {
        let queue = queue.clone();
        informers.autoscalers.on_change(move |old, new| {
            let same = matches!((old, new), (Some(o), Some(n)) if o.spec == n.spec
                && o.metadata.uid == n.metadata.uid);
            if let Some(autoscaler) = new.or(old)
                && !same
            {
                queue.add(autoscaler.metadata.key());
            }
        });
    }
    {
        // Which pods a target has is kept up to date; what they do is looked at by the clock.
        let membership = membership.clone();
        informers.pods.on_change(move |old, new| {
            let same = matches!((old, new), (Some(o), Some(n)) if o.meta.labels == n.meta.labels);
            if !same {
                membership.pod_changed(old, new, |_| {});
            }
        });
    }
    let controller = Arc::new(Autoscalers {
        context: context.clone(),
        membership,
        catalogue: Catalogue::default(),
        memories: Mutex::default(),
        timing: context.autoscaling,
    });
    let stop = context.stop.clone();
    move |tasks| controller::spawn(controller, &queue, workers, tasks, &stop)
}

impl Controller for Autoscalers {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let Some(autoscaler) = self.context.informers.autoscalers.get(key) else {
            self.membership.forget(key);
            self.memories.lock().remove(key);
            return Ok(Outcome::Done);
        };
        let mut memory = self.memories.lock().remove(key).unwrap_or_default();
        let result = self.autoscale(key, &autoscaler, &mut memory).await;
        self.memories.lock().insert(key.clone(), memory);
        result?;
        // What failed is tried again when its time comes, as all else.
        Ok(Outcome::After(self.timing.period))
    }
}

/// What is to be written into the status.
struct Report {
    conditions: Conditions,
    current: i32,
    desired: i32,
    metrics: Vec<Value>,
    rescaled: bool,
}

impl Autoscalers {
    fn warn(&self, about: &Autoscaler, reason: &'static str, message: String) {
        let recorder = &self.context.recorder;
        recorder.warning(NAME, &AUTOSCALERS, &about.metadata, reason, message);
    }

    async fn autoscale(
        &self,
        key: &Key,
        autoscaler: &Autoscaler,
        memory: &mut Memory,
    ) -> Result<(), ApiError> {
        let now = Timestamp::now();
        let mut report = Report {
            conditions: Conditions::of(&autoscaler.status, now),
            current: autoscaler.status.current_replicas,
            desired: autoscaler.status.desired_replicas,
            metrics: autoscaler.status.current_metrics.clone(),
            rescaled: false,
        };
        let (resource, scale) = match self.scale(key, autoscaler).await {
            Ok(found) => found,
            Err(why) => {
                self.warn(autoscaler, "FailedGetScale", why.clone());
                let message = format!(
                    "the HPA controller was unable to get the target's current scale: {why}"
                );
                report
                    .conditions
                    .set("AbleToScale", false, "FailedGetScale", message);
                return self.write(key, autoscaler, report, now).await;
            }
        };
        report.conditions.set(
            "AbleToScale",
            true,
            "SucceededGetScale",
            "the HPA controller was able to get the target's current scale".into(),
        );
        let current = scale.spec.replicas;
        memory.first_seen(current, now);
        report.current = current;
        let rescale = match plan::bounds(autoscaler, current) {
            Bounds::Disabled => {
                report.conditions.set(
                    "ScalingActive",
                    false,
                    "ScalingDisabled",
                    "scaling is disabled since the replica count of the target is zero".into(),
                );
                report.metrics.clear();
                None
            }
            Bounds::Above(to) => {
                report.metrics.clear();
                let why = "Current number of replicas above Spec.MaxReplicas".to_owned();
                Some(Rescale {
                    from: current,
                    to,
                    why,
                })
            }
            Bounds::Below(to) => {
                report.metrics.clear();
                let why = "Current number of replicas below Spec.MinReplicas".to_owned();
                Some(Rescale {
                    from: current,
                    to,
                    why,
                })
            }
            Bounds::Metrics => {
                let conditions = &mut report.conditions;
                match self
                    .by_metrics(key, autoscaler, &scale, memory, now, conditions)
                    .await
                {
                    Ok(verdict) => {
                        report.metrics = verdict.statuses;
                        if let Some(error) = verdict.error {
                            tracing::debug!(%key, error, "some metrics could not be told");
                        }
                        verdict.rescale
                    }
                    Err(failed) => {
                        report.metrics = failed.statuses;
                        self.warn(autoscaler, "FailedComputeMetricsReplicas", failed.error);
                        return self.write(key, autoscaler, report, now).await;
                    }
                }
            }
        };
        report.desired = current;
        if let Some(rescale) = rescale {
            let path = resource.path(&key.namespace);
            self.rescale(&path, autoscaler, &scale, &rescale, memory, &mut report)
                .await;
        }
        self.write(key, autoscaler, report, now).await
    }

    /// The resource and the scale of the target, or why there is none.
    async fn scale(&self, key: &Key, autoscaler: &Autoscaler) -> Result<(Served, Scale), String> {
        let target = &autoscaler.spec.scale_target_ref;
        let is =
            |s: &Served| *s.group == *target.group() && *s.kind == *target.kind && s.namespaced;
        let api = &self.context.api;
        let Some(resource) = self.catalogue.find(api, is).await else {
            return Err(format!(
                "no matches for kind \"{}\" in group \"{}\"",
                target.kind,
                target.group()
            ));
        };
        let path = resource.path(&key.namespace);
        match api.get_sub_at(&path, &target.name, "scale").await {
            Ok(Some(scale)) => Ok((resource, scale)),
            Ok(None) if resource.scalable => {
                let qualified = if resource.group.is_empty() {
                    resource.plural.to_string()
                } else {
                    format!("{}.{}", resource.plural, resource.group)
                };
                Err(format!("{qualified} \"{}\" not found", target.name))
            }
            Ok(None) => Err("the server could not find the requested resource".into()),
            Err(error) => Err(error.message()),
        }
    }

    async fn by_metrics(
        &self,
        key: &Key,
        autoscaler: &Autoscaler,
        scale: &Scale,
        memory: &mut Memory,
        now: Timestamp,
        conditions: &mut Conditions,
    ) -> Result<Verdict, Failed> {
        let pods = self.pods(key, autoscaler, scale, conditions);
        let pods = pods.map_err(|error| Failed {
            error,
            statuses: vec![],
        })?;
        let tolerance = |rules: Option<&Rules>| {
            rules
                .and_then(|r| r.tolerance)
                .map_or(TOLERANCE, |milli| milli as f64 / 1000.0)
        };
        let behavior = autoscaler.spec.behavior.as_ref();
        let target = Target {
            namespace: &key.namespace,
            selector: &scale.status.selector,
            status_replicas: scale.status.replicas,
            world: World {
                current: scale.spec.replicas,
                pods: &pods,
                tolerance: Tolerance {
                    up: tolerance(behavior.map(|b| &b.scale_up)),
                    down: tolerance(behavior.map(|b| &b.scale_down)),
                },
                timing: &self.timing,
                now,
            },
        };
        let metrics = Metrics {
            api: &self.context.api,
            catalogue: &self.catalogue,
        };
        let mut evaluated = Vec::new();
        for spec in &autoscaler.spec.metrics {
            let one = evaluate(&metrics, &target, spec).await;
            if let Err(failure) = &one {
                self.warn(autoscaler, failure.reason, failure.error.clone());
            }
            evaluated.push(one);
        }
        let timing = &self.timing;
        plan::by_metrics(
            autoscaler,
            scale.spec.replicas,
            &evaluated,
            memory,
            timing,
            now,
            conditions,
        )
    }

    /// The pods of the target, which must be its alone.
    fn pods(
        &self,
        key: &Key,
        autoscaler: &Autoscaler,
        scale: &Scale,
        conditions: &mut Conditions,
    ) -> Result<Vec<Arc<Pod>>, String> {
        let text = &scale.status.selector;
        if text.is_empty() {
            let error = "selector is required".to_owned();
            self.warn(autoscaler, "SelectorRequired", error.clone());
            let message = "the HPA target's scale is missing a selector".into();
            conditions.set("ScalingActive", false, "InvalidSelector", message);
            return Err(error);
        }
        let selector = match Labels::parse(text) {
            Ok(labels) => selector(&labels),
            Err(failure) => {
                let why = failure.message;
                let error = format!(
                    "couldn't convert selector into a corresponding internal selector object: {why}"
                );
                self.warn(autoscaler, "InvalidSelector", error.clone());
                conditions.set("ScalingActive", false, "InvalidSelector", error.clone());
                return Err(error);
            }
        };
        let informer = &self.context.informers.pods;
        self.membership
            .select(key, &selector, || informer.in_namespace(&key.namespace));
        let pods: Vec<Arc<Pod>> = self
            .membership
            .members(key)
            .iter()
            .filter_map(|pod| informer.get(pod))
            .collect();
        let mut others: Vec<Key> = pods
            .iter()
            .flat_map(|pod| self.membership.owners(pod))
            .filter(|owner| owner != key)
            .collect();
        if !others.is_empty() {
            others.push(key.clone());
            others.sort();
            others.dedup();
            let all: Vec<String> = others.iter().map(ToString::to_string).collect();
            let error = format!(
                "pods by selector {text} are controlled by multiple HPAs: [{}]",
                all.join(" ")
            );
            self.warn(autoscaler, "AmbiguousSelector", error.clone());
            conditions.set("ScalingActive", false, "AmbiguousSelector", error.clone());
            return Err(error);
        }
        Ok(pods)
    }

    async fn rescale(
        &self,
        path: &str,
        autoscaler: &Autoscaler,
        scale: &Scale,
        rescale: &Rescale,
        memory: &mut Memory,
        report: &mut Report,
    ) {
        let Rescale { from, to, why } = rescale;
        let patch = Patch::Merge(json!({
            "metadata": {"resourceVersion": scale.metadata.version.to_string()},
            "spec": {"replicas": to},
        }));
        let name = &autoscaler.spec.scale_target_ref.name;
        let sub = Some("scale");
        let written = self.context.api.patch_at::<Scale>(path, name, sub, &patch);
        if let Err(error) = written.await {
            let error = error.message();
            let message = format!("New size: {to}; reason: {why}; error: {error}");
            self.warn(autoscaler, "FailedRescale", message);
            let message =
                format!("the HPA controller was unable to update the target scale: {error}");
            report
                .conditions
                .set("AbleToScale", false, "FailedUpdateScale", message);
            report.desired = autoscaler.status.desired_replicas;
            return;
        }
        let message = format!("the HPA controller was able to update the target scale to {to}");
        report
            .conditions
            .set("AbleToScale", true, "SucceededRescale", message);
        self.context.recorder.normal(
            NAME,
            &AUTOSCALERS,
            &autoscaler.metadata,
            "SuccessfulRescale",
            format!("New size: {to}; reason: {why}"),
        );
        if let Some(behavior) = plan::behavior(autoscaler, &self.timing) {
            memory.scaled(&behavior, *from, *to, Timestamp::now());
        }
        report.desired = *to;
        report.rescaled = true;
    }

    async fn write(
        &self,
        key: &Key,
        autoscaler: &Autoscaler,
        report: Report,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let old = &autoscaler.status;
        let same = old.conditions == report.conditions.list
            && old.current_replicas == report.current
            && old.desired_replicas == report.desired
            && old.current_metrics == report.metrics
            && !report.rescaled;
        if same {
            return Ok(());
        }
        let mut status = json!({
            "currentReplicas": report.current,
            "desiredReplicas": report.desired,
            "currentMetrics": report.metrics,
            "conditions": report.conditions.list,
        });
        if report.metrics.is_empty() {
            status["currentMetrics"] = Value::Null;
        }
        if report.rescaled {
            status["lastScaleTime"] = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into();
        }
        let patch = crate::runtime::api::status_patch(&autoscaler.metadata.uid, status);
        let status = Some("status");
        match self
            .context
            .api
            .patch::<Autoscaler>(&AUTOSCALERS, key, status, &patch)
            .await
        {
            Ok(written) => {
                self.context.informers.autoscalers.apply(written);
                Ok(())
            }
            Err(error) if error.not_found() => Ok(()),
            Err(error) => {
                self.warn(autoscaler, "FailedUpdateStatus", error.message());
                Err(error)
            }
        }
    }
}

/// The selector of a scale in the form in which memberships are kept.
fn selector(labels: &Labels) -> Selector {
    let mut equal = Vec::new();
    let mut expressions = Vec::new();
    for one in labels.requirements() {
        let operator = match one.operator {
            Operator::Equals | Operator::DoubleEquals => {
                if let Some(value) = one.values.first() {
                    equal.push((one.key.as_str(), value.as_str()));
                }
                continue;
            }
            Operator::In => "In",
            Operator::NotIn | Operator::NotEquals => "NotIn",
            Operator::Exists => "Exists",
            Operator::DoesNotExist => "DoesNotExist",
            // Numbers are not compared in selectors of pods; such a term selects nothing.
            Operator::GreaterThan => "Gt",
            Operator::LessThan => "Lt",
        };
        expressions.push(Expression {
            key: one.key.as_str().into(),
            operator: operator.into(),
            values: one.values.iter().map(|v| v.as_str().into()).collect(),
        });
    }
    Selector {
        match_labels: equal.into_iter().collect(),
        match_expressions: expressions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_of_scales_are_understood() {
        let labels = Labels::parse("app=web,tier in (a,b),!old,x!=y").unwrap();
        assert_eq!(
            selector(&labels).to_json(),
            json!({"matchLabels": {"app": "web"}, "matchExpressions": [
                {"key": "old", "operator": "DoesNotExist"},
                {"key": "tier", "operator": "In", "values": ["a", "b"]},
                {"key": "x", "operator": "NotIn", "values": ["y"]}]})
        );
    }
}
