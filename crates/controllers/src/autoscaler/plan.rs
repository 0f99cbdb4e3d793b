//! The planner of autoscalers: the replicas that follow from what the metrics propose, and the
//! status to write.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Timing;
use super::pace::{self, Memory, Wish};
use crate::model::autoscaler::{
    Autoscaler, AutoscalerCondition, AutoscalerStatus, Behavior, MetricSpec,
};

/// What one metric came to.
pub type Evaluated = Result<Evaluation, Failure>;

#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    pub replicas: i32,
    /// As the reason of a rescale calls it.
    pub name: String,
    /// Entry of `status.currentMetrics`.
    pub status: Value,
}

/// Why a metric came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Of the condition and the event.
    pub reason: &'static str,
    pub error: String,
    /// What comes before the error where all metrics are told of together.
    pub context: String,
}

/// Why the target is scaled, or may not be, before any metric is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bounds {
    /// Zero replicas of a target that may not be scaled to zero: somebody has switched it off.
    Disabled,
    Above(i32),
    Below(i32),
    Metrics,
}

pub fn bounds(autoscaler: &Autoscaler, current: i32) -> Bounds {
    let min = min_replicas(autoscaler);
    let max = autoscaler.spec.max_replicas;
    if current == 0 && min != 0 {
        Bounds::Disabled
    } else if current > max {
        Bounds::Above(max)
    } else if current < min {
        Bounds::Below(min)
    } else {
        Bounds::Metrics
    }
}

fn min_replicas(autoscaler: &Autoscaler) -> i32 {
    autoscaler.spec.min_replicas.unwrap_or(1)
}

/// A rescale, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rescale {
    pub from: i32,
    pub to: i32,
    pub why: String,
}

/// The behaviour by which to go, with the window of this controller where none is named.
pub fn behavior(autoscaler: &Autoscaler, timing: &Timing) -> Option<Behavior> {
    let mut behavior = autoscaler.spec.behavior.clone()?;
    let window = i32::try_from(timing.downscale_stabilization.as_secs()).unwrap_or(i32::MAX);
    behavior
        .scale_down
        .stabilization_window_seconds
        .get_or_insert(window);
    Some(behavior)
}

/// What the metrics come to together.
pub struct Verdict {
    pub rescale: Option<Rescale>,
    /// Metrics that failed, although others decided.
    pub error: Option<String>,
    pub statuses: Vec<Value>,
}

/// Why nothing was decided, and what of the metrics is known all the same.
#[derive(Debug)]
pub struct Failed {
    pub error: String,
    pub statuses: Vec<Value>,
}

/// Decides by metrics.
///
/// # Errors
/// When no metric can be told, or when one cannot and the others would scale down.
pub fn by_metrics(
    autoscaler: &Autoscaler,
    current: i32,
    evaluated: &[Evaluated],
    memory: &mut Memory,
    timing: &Timing,
    now: Timestamp,
    conditions: &mut Conditions,
) -> Result<Verdict, Failed> {
    let statuses = || {
        let one = |one: &Evaluated| match one {
            Ok(found) => found.status.clone(),
            Err(_) => json!({"type": ""}),
        };
        evaluated.iter().map(one).collect()
    };
    let mut best: Option<&Evaluation> = None;
    let mut first: Option<&Failure> = None;
    let mut failed = 0;
    for one in evaluated {
        match one {
            Ok(found) => {
                if best.is_none_or(|b| b.replicas == 0 || found.replicas > b.replicas) {
                    best = Some(found);
                }
            }
            Err(failure) => {
                failed += 1;
                first.get_or_insert(failure);
            }
        }
    }
    let error = first.map(|f| {
        let (of, context, why) = (evaluated.len(), &f.context, &f.error);
        format!("invalid metrics ({failed} invalid out of {of}), first error is: {context}{why}")
    });
    let proposed = best.map_or(0, |b| b.replicas);
    if let (Some(failure), Some(error)) = (first, &error)
        && (failed >= evaluated.len() || proposed < current)
    {
        let message = format!(
            "the HPA was unable to compute the replica count: {}",
            failure.error
        );
        conditions.set("ScalingActive", false, failure.reason, message);
        return Err(Failed {
            error: error.clone(),
            statuses: statuses(),
        });
    }
    let name = best.map_or("", |b| b.name.as_str());
    conditions.set(
        "ScalingActive",
        true,
        "ValidMetricFound",
        format!("the HPA was able to successfully calculate a replica count from {name}"),
    );
    let mut wish = Wish {
        current,
        desired: proposed,
        min: min_replicas(autoscaler),
        max: autoscaler.spec.max_replicas,
    };
    let limited = match behavior(autoscaler, timing) {
        None => {
            let window =
                i32::try_from(timing.downscale_stabilization.as_secs()).unwrap_or(i32::MAX);
            let stabilized = memory.stabilize(proposed, window, now);
            conditions.set(
                "AbleToScale",
                true,
                stabilized.reason,
                stabilized.message.into(),
            );
            wish.desired = stabilized.replicas;
            pace::limit(&wish)
        }
        Some(behavior) => {
            let stabilized = memory.stabilize_by(&behavior, &wish, now);
            conditions.set(
                "AbleToScale",
                true,
                stabilized.reason,
                stabilized.message.into(),
            );
            wish.desired = stabilized.replicas;
            memory.limit_by(&behavior, &wish, now)
        }
    };
    conditions.set(
        "ScalingLimited",
        limited.replicas != wish.desired,
        limited.reason,
        limited.message.into(),
    );
    let why = if proposed > current {
        format!("{name} above target")
    } else if proposed < current {
        "All metrics below target".into()
    } else {
        String::new()
    };
    Ok(Verdict {
        rescale: (limited.replicas != current).then_some(Rescale {
            from: current,
            to: limited.replicas,
            why,
        }),
        error,
        statuses: statuses(),
    })
}

/// The conditions of an autoscaler.
pub struct Conditions {
    pub list: Vec<AutoscalerCondition>,
    now: Timestamp,
}

impl Conditions {
    pub fn of(status: &AutoscalerStatus, now: Timestamp) -> Self {
        // Kubernetes' times of conditions are whole seconds.
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        Conditions {
            list: status.conditions.clone(),
            now,
        }
    }

    pub fn set(&mut self, kind: &str, status: bool, reason: &str, message: String) {
        let status = if status { "True" } else { "False" };
        let at = match self.list.iter().position(|c| c.kind == kind) {
            Some(at) => at,
            None => {
                self.list.push(AutoscalerCondition {
                    kind: kind.into(),
                    ..AutoscalerCondition::default()
                });
                self.list.len() - 1
            }
        };
        let condition = &mut self.list[at];
        if condition.status != status {
            condition.last_transition_time = Some(self.now);
        }
        condition.status = status.into();
        condition.reason = reason.into();
        condition.message = message;
    }
}

/// Names of an autoscaler's metrics for errors: what Kubernetes puts before an error of each kind.
pub fn context(spec: &MetricSpec) -> String {
    match spec.kind.as_str() {
        "Resource" => format!(
            "failed to get {} resource metric value: ",
            spec.resource.as_ref().map_or("", |r| &r.name)
        ),
        "ContainerResource" => format!(
            "failed to get {} container metric value: ",
            spec.container_resource
                .as_ref()
                .map_or("", |r| &r.container)
        ),
        "Pods" => "failed to get pods metric value: ".into(),
        "Object" => "failed to get object metric value: ".into(),
        "External" => format!(
            "failed to get {} external metric value: ",
            spec.external.as_ref().map_or("", |e| &e.metric.name)
        ),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn autoscaler(spec: Value) -> Autoscaler {
        serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).unwrap()
    }

    fn found(replicas: i32, name: &str) -> Evaluated {
        Ok(Evaluation {
            replicas,
            name: name.into(),
            status: json!({"type": "Resource"}),
        })
    }

    fn failed() -> Evaluated {
        Err(Failure {
            reason: "FailedGetResourceMetric",
            error: "failed to get cpu utilization: no".into(),
            context: "failed to get cpu resource metric value: ".into(),
        })
    }

    fn decide(
        spec: Value,
        current: i32,
        evaluated: &[Evaluated],
    ) -> (Result<Verdict, Failed>, Conditions) {
        let autoscaler = autoscaler(spec);
        let now = Timestamp::from_second(1000).unwrap();
        let mut conditions = Conditions::of(&autoscaler.status, now);
        let verdict = by_metrics(
            &autoscaler,
            current,
            evaluated,
            &mut Memory::default(),
            &Timing::default(),
            now,
            &mut conditions,
        );
        (verdict, conditions)
    }

    fn told(conditions: &Conditions) -> Vec<String> {
        conditions
            .list
            .iter()
            .map(|c| format!("{} {} {}", c.kind, c.status, c.reason))
            .collect()
    }

    #[rstest]
    #[case(0, None, Bounds::Disabled)]
    #[case(0, Some(0), Bounds::Metrics)]
    #[case(11, None, Bounds::Above(10))]
    #[case(1, Some(3), Bounds::Below(3))]
    #[case(4, Some(3), Bounds::Metrics)]
    fn bounds_come_first(#[case] current: i32, #[case] min: Option<i32>, #[case] expected: Bounds) {
        let autoscaler = autoscaler(json!({"minReplicas": min, "maxReplicas": 10}));
        assert_eq!(bounds(&autoscaler, current), expected);
    }

    #[test]
    fn the_metric_that_asks_for_most_decides() {
        let (verdict, conditions) = decide(
            json!({"maxReplicas": 10}),
            3,
            &[
                found(4, "cpu resource"),
                found(5, "pods metric q"),
                found(2, "x"),
            ],
        );
        let verdict = verdict.unwrap();
        let rescale = verdict.rescale.unwrap();
        assert_eq!((rescale.from, rescale.to), (3, 5));
        assert_eq!(rescale.why, "pods metric q above target");
        assert_eq!(
            told(&conditions),
            [
                "ScalingActive True ValidMetricFound",
                "AbleToScale True ReadyForNewScale",
                "ScalingLimited False DesiredWithinRange"
            ]
        );
        assert_eq!(verdict.statuses.len(), 3);
    }

    #[test]
    fn a_failed_metric_forbids_to_shrink_but_not_to_grow() {
        let spec = json!({"maxReplicas": 10});
        let (verdict, conditions) = decide(spec.clone(), 3, &[failed(), found(2, "cpu")]);
        let why = verdict.err().unwrap();
        assert_eq!(
            why.statuses,
            [json!({"type": ""}), json!({"type": "Resource"})]
        );
        assert_eq!(
            why.error,
            "invalid metrics (1 invalid out of 2), first error is: failed to get cpu resource metric value: failed to get cpu utilization: no"
        );
        assert_eq!(
            told(&conditions),
            ["ScalingActive False FailedGetResourceMetric"]
        );
        assert_eq!(
            conditions.list[0].message,
            "the HPA was unable to compute the replica count: failed to get cpu utilization: no"
        );
        let (verdict, _) = decide(spec, 3, &[failed(), found(4, "cpu")]);
        let verdict = verdict.unwrap();
        assert_eq!(verdict.rescale.unwrap().to, 4);
        assert!(verdict.error.is_some());
        assert_eq!(verdict.statuses[0], json!({"type": ""}));
    }

    #[test]
    fn limits_are_told() {
        let (verdict, conditions) = decide(json!({"maxReplicas": 10}), 3, &[found(40, "cpu")]);
        assert_eq!(verdict.unwrap().rescale.unwrap().to, 6);
        assert_eq!(told(&conditions)[2], "ScalingLimited True ScaleUpLimit");
    }

    #[test]
    fn times_of_conditions_change_with_their_status() {
        let old = Timestamp::from_second(5).unwrap();
        let status = AutoscalerStatus {
            conditions: vec![AutoscalerCondition {
                kind: "AbleToScale".into(),
                status: "True".into(),
                last_transition_time: Some(old),
                ..AutoscalerCondition::default()
            }],
            ..AutoscalerStatus::default()
        };
        let mut conditions = Conditions::of(&status, Timestamp::from_second(9).unwrap());
        conditions.set("AbleToScale", true, "SucceededRescale", "m".into());
        assert_eq!(conditions.list[0].last_transition_time, Some(old));
        conditions.set("AbleToScale", false, "FailedGetScale", "m".into());
        assert_eq!(
            conditions.list[0].last_transition_time,
            Timestamp::from_second(9).ok()
        );
    }
}
