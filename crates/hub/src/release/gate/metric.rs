//! A metric: measured again and again, held to bounds and to the instances on the old revision.

use gantry_api::gate::{Compare, Gate, GateState, GateStatus, Metric};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Answer, Ask, Looked, Question, Scene, decide, id, next};

/// What stands for the names of instances in a query.
const PODS: &str = "{{pods}}";

pub(super) fn look(
    scene: &Scene<'_>,
    gate: &Gate,
    metric: &Metric,
    status: &mut GateStatus,
    looked: &mut Looked,
) {
    if let Some(answer) = scene.world.answers.get(&id(scene, gate, status)) {
        status.measured += 1;
        status.asked = Some(Time(scene.now));
        match judge(metric, answer) {
            Judged::Pass(text) => {
                status.passes += 1;
                status.message = text;
            }
            Judged::Fail(text) => {
                status.failures += 1;
                status.message = text;
            }
            Judged::Silent(text) => status.message = text,
        }
        if let Answer::Metric { value, baseline } = answer {
            status.value = shown(value);
            status.baseline = baseline.as_ref().map_or(String::new(), shown);
        }
        if status.failures > metric.failure_limit {
            let message = status.message.clone();
            decide(status, GateState::Failed, message, scene.now);
            return;
        }
        if status.passes >= metric.count {
            let message = status.message.clone();
            decide(status, GateState::Passed, message, scene.now);
            return;
        }
    }
    let due = next(status, metric.interval, scene.now);
    if due > scene.now {
        looked.due(Some(due));
        return;
    }
    if status.message.is_empty() {
        status.message = format!("is asked of {}", metric.address);
    }
    let (new, old) = names(scene);
    let filled = |names: &[&str]| metric.query.replace(PODS, &names.join("|"));
    looked.asks.push(Ask {
        id: id(scene, gate, status),
        token: metric.token.clone(),
        question: Question::Metric {
            address: metric.address.clone(),
            query: filled(&new),
            baseline: (metric.compare.is_some() && !old.is_empty()).then(|| filled(&old)),
        },
    });
}

fn shown(value: &Result<f64, String>) -> String {
    value.as_ref().map_or(String::new(), f64::to_string)
}

/// Names of instances on the new revision, and of those in service on another.
fn names<'a>(scene: &Scene<'a>) -> (Vec<&'a str>, Vec<&'a str>) {
    let (mut new, mut old) = (Vec::new(), Vec::new());
    for cell in scene.world.cells {
        for instance in cell.instances.values() {
            if cell.at(instance, scene.target) {
                new.push(instance.name.as_str());
            } else if instance.in_service() {
                old.push(instance.name.as_str());
            }
        }
    }
    (new, old)
}

enum Judged {
    Pass(String),
    Fail(String),
    /// No answer: neither a pass nor a failure.
    Silent(String),
}

fn judge(metric: &Metric, answer: &Answer) -> Judged {
    let Answer::Metric { value, baseline } = answer else {
        return Judged::Silent("the answer is to another question".to_owned());
    };
    let value = match value {
        Ok(value) if value.is_finite() => *value,
        Ok(value) => return Judged::Silent(format!("the value is {value}")),
        Err(why) => return Judged::Silent(format!("no answer: {why}")),
    };
    if let Some(min) = metric.min.filter(|min| value < *min) {
        return Judged::Fail(format!("{value} is below {min}"));
    }
    if let Some(max) = metric.max.filter(|max| value > *max) {
        return Judged::Fail(format!("{value} is above {max}"));
    }
    let Some(compare) = &metric.compare else {
        return Judged::Pass(format!("{value} is within bounds"));
    };
    match baseline {
        // Nothing is left on the old revision.
        None => Judged::Pass(format!("{value} is within bounds; nothing to compare with")),
        Some(Ok(old)) if old.is_finite() => against(compare, value, *old),
        Some(Ok(old)) => Judged::Silent(format!("the old revision's value is {old}")),
        Some(Err(why)) => Judged::Silent(format!("no answer of the old revision: {why}")),
    }
}

fn against(compare: &Compare, value: f64, old: f64) -> Judged {
    if let Some(ratio) = compare.max_ratio.filter(|ratio| value > old * ratio) {
        return Judged::Fail(format!(
            "{value} is more than {ratio} times the old revision's {old}"
        ));
    }
    if let Some(above) = compare.max_above.filter(|above| value - old > *above) {
        return Judged::Fail(format!(
            "{value} is above the old revision's {old} by more than {above}"
        ));
    }
    if let Some(below) = compare.max_below.filter(|below| old - value > *below) {
        return Judged::Fail(format!(
            "{value} is below the old revision's {old} by more than {below}"
        ));
    }
    Judged::Pass(format!("{value} beside the old revision's {old}"))
}
