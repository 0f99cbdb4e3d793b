//! How fast an autoscaler may go: what it recommended and did of late, the windows in which that
//! holds it back, and the policies of its behaviour.

use jiff::{SignedDuration, Timestamp};

use crate::model::autoscaler::{Behavior, Rules};

/// What an autoscaler recommended and did, as long as it matters.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    recommendations: Vec<(i32, Timestamp)>,
    /// Replicas added, and when.
    added: Vec<(i32, Timestamp)>,
    removed: Vec<(i32, Timestamp)>,
}

/// A number of replicas, whether it differs from the wish, and the reason and message to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limited {
    pub replicas: i32,
    pub reason: &'static str,
    pub message: &'static str,
}

/// What is asked for, and within what.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    pub current: i32,
    pub desired: i32,
    pub min: i32,
    pub max: i32,
}

fn ago(now: Timestamp, seconds: i32) -> Timestamp {
    now.checked_sub(SignedDuration::from_secs(i64::from(seconds)))
        .unwrap_or(Timestamp::MIN)
}

fn changed_since(events: &[(i32, Timestamp)], cutoff: Timestamp) -> i32 {
    events
        .iter()
        .filter(|(_, at)| *at > cutoff)
        .fold(0, |sum, (n, _)| sum.saturating_add(*n))
}

const WITHIN: (&str, &str) = (
    "DesiredWithinRange",
    "the desired count is within the acceptable range",
);

impl Memory {
    /// The first state that was seen is a recommendation too, so that a controller that has just
    /// started does not scale down at once.
    pub fn first_seen(&mut self, current: i32, now: Timestamp) {
        if self.recommendations.is_empty() {
            self.recommendations.push((current, now));
        }
    }

    /// Notes a change that was made.
    pub fn scaled(&mut self, behavior: &Behavior, from: i32, to: i32, now: Timestamp) {
        let (events, rules) = if to > from {
            (&mut self.added, &behavior.scale_up)
        } else {
            (&mut self.removed, &behavior.scale_down)
        };
        let longest = rules.policies.iter().map(|p| p.period_seconds).max();
        let cutoff = ago(now, longest.unwrap_or(0));
        events.retain(|(_, at)| *at >= cutoff);
        events.push((from.abs_diff(to).try_into().unwrap_or(i32::MAX), now));
    }

    /// The recommendation that counts where no behaviour is given: the highest within the window.
    pub fn stabilize(&mut self, desired: i32, window: i32, now: Timestamp) -> Limited {
        let cutoff = ago(now, window);
        self.recommendations.retain(|(_, at)| *at >= cutoff);
        let highest = self.recommendations.iter().map(|(n, _)| *n).max();
        self.recommendations.push((desired, now));
        stabilized(desired, highest.unwrap_or(desired).max(desired), false)
    }

    /// The recommendation that counts: within the windows of both directions, the one nearest to
    /// what there is.
    pub fn stabilize_by(&mut self, behavior: &Behavior, wish: &Wish, now: Timestamp) -> Limited {
        let window = |rules: &Rules| ago(now, rules.stabilization_window_seconds.unwrap_or(0));
        let (up, down) = (window(&behavior.scale_up), window(&behavior.scale_down));
        let (mut lowest, mut highest) = (wish.desired, wish.desired);
        for (n, at) in &self.recommendations {
            if *at > up {
                lowest = lowest.min(*n);
            }
            if *at > down {
                highest = highest.max(*n);
            }
        }
        self.recommendations
            .retain(|(_, at)| *at >= up || *at >= down);
        self.recommendations.push((wish.desired, now));
        let counts = wish.current.max(lowest).min(highest);
        stabilized(wish.desired, counts, wish.desired >= wish.current)
    }

    /// What the policies of the behaviour let through.
    pub fn limit_by(&self, behavior: &Behavior, wish: &Wish, now: Timestamp) -> Limited {
        if wish.desired > wish.current {
            let limit = self
                .up_limit(&behavior.scale_up, wish.current, now)
                .max(wish.current);
            let limited = upper(wish.max, limit);
            if wish.desired > limited.replicas {
                return limited;
            }
        } else if wish.desired < wish.current {
            let limit = self
                .down_limit(&behavior.scale_down, wish.current, now)
                .min(wish.current);
            let limited = if wish.min < limit {
                Limited {
                    replicas: limit,
                    reason: "ScaleDownLimit",
                    message: "the desired replica count is decreasing faster than the maximum scale rate",
                }
            } else {
                too_few(wish.min)
            };
            if wish.desired < limited.replicas {
                return limited;
            }
        }
        within(wish.desired)
    }

    fn start_of_period(&self, current: i32, period: i32, now: Timestamp) -> i32 {
        let cutoff = ago(now, period);
        current
            .saturating_sub(changed_since(&self.added, cutoff))
            .saturating_add(changed_since(&self.removed, cutoff))
    }

    fn up_limit(&self, rules: &Rules, current: i32, now: Timestamp) -> i32 {
        let proposals = rules.policies.iter().map(|policy| {
            let start = self.start_of_period(current, policy.period_seconds, now);
            if policy.kind == "Percent" {
                // Rounded up, or a small number would never grow.
                (f64::from(start) * (1.0 + f64::from(policy.value) / 100.0)).ceil() as i32
            } else {
                start.saturating_add(policy.value)
            }
        });
        match rules.select_policy.as_str() {
            "Disabled" => current,
            "Min" => proposals.min().unwrap_or(i32::MAX),
            _ => proposals.max().unwrap_or(i32::MIN),
        }
    }

    fn down_limit(&self, rules: &Rules, current: i32, now: Timestamp) -> i32 {
        let proposals = rules.policies.iter().map(|policy| {
            let start = self.start_of_period(current, policy.period_seconds, now);
            if policy.kind == "Percent" {
                (f64::from(start) * (1.0 - f64::from(policy.value) / 100.0)) as i32
            } else {
                start.saturating_sub(policy.value)
            }
        });
        match rules.select_policy.as_str() {
            "Disabled" => current,
            "Min" => proposals.max().unwrap_or(i32::MIN),
            _ => proposals.min().unwrap_or(i32::MAX),
        }
    }
}

/// What is let through where no behaviour is given: twice what there is, and at least four.
pub fn limit(wish: &Wish) -> Limited {
    let limit = wish.current.saturating_mul(2).max(4);
    if wish.desired < wish.min {
        return too_few(wish.min);
    }
    let limited = upper(wish.max, limit);
    if wish.desired > limited.replicas {
        limited
    } else {
        within(wish.desired)
    }
}

fn stabilized(desired: i32, counts: i32, up: bool) -> Limited {
    let (reason, message) = match (counts == desired, up) {
        (true, _) => ("ReadyForNewScale", "recommended size matches current size"),
        (false, true) => (
            "ScaleUpStabilized",
            "recent recommendations were lower than current one, applying the lowest recent recommendation",
        ),
        (false, false) => (
            "ScaleDownStabilized",
            "recent recommendations were higher than current one, applying the highest recent recommendation",
        ),
    };
    Limited {
        replicas: counts,
        reason,
        message,
    }
}

fn within(replicas: i32) -> Limited {
    Limited {
        replicas,
        reason: WITHIN.0,
        message: WITHIN.1,
    }
}

fn too_few(min: i32) -> Limited {
    Limited {
        replicas: min,
        reason: "TooFewReplicas",
        message: "the desired replica count is less than the minimum replica count",
    }
}

fn upper(max: i32, limit: i32) -> Limited {
    if max > limit {
        Limited {
            replicas: limit,
            reason: "ScaleUpLimit",
            message: "the desired replica count is increasing faster than the maximum scale rate",
        }
    } else {
        Limited {
            replicas: max,
            reason: "TooManyReplicas",
            message: "the desired replica count is more than the maximum replica count",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn behavior(value: Value) -> Behavior {
        serde_json::from_value(value).unwrap()
    }

    fn wish(current: i32, desired: i32) -> Wish {
        Wish {
            current,
            desired,
            min: 1,
            max: 100,
        }
    }

    #[rstest]
    #[case(1, 10, 4, "ScaleUpLimit")]
    #[case(10, 30, 20, "ScaleUpLimit")]
    #[case(80, 150, 100, "TooManyReplicas")]
    #[case(5, 0, 1, "TooFewReplicas")]
    #[case(5, 7, 7, "DesiredWithinRange")]
    fn without_behaviour(
        #[case] current: i32,
        #[case] desired: i32,
        #[case] replicas: i32,
        #[case] reason: &str,
    ) {
        let got = limit(&wish(current, desired));
        assert_eq!((got.replicas, got.reason), (replicas, reason));
    }

    #[test]
    fn the_highest_of_the_window_holds_until_it_is_over() {
        let mut memory = Memory::default();
        memory.first_seen(8, at(0));
        let got = memory.stabilize(3, 300, at(100));
        assert_eq!((got.replicas, got.reason), (8, "ScaleDownStabilized"));
        let got = memory.stabilize(2, 300, at(301));
        assert_eq!(got.replicas, 3);
        let got = memory.stabilize(9, 300, at(302));
        assert_eq!((got.replicas, got.reason), (9, "ReadyForNewScale"));
    }

    #[test]
    fn windows_hold_back_both_ways() {
        let behavior = behavior(json!({"scaleUp": {"stabilizationWindowSeconds": 60},
            "scaleDown": {"stabilizationWindowSeconds": 300}}));
        let mut memory = Memory::default();
        memory.first_seen(5, at(0));
        let got = memory.stabilize_by(&behavior, &wish(5, 9), at(30));
        assert_eq!((got.replicas, got.reason), (5, "ScaleUpStabilized"));
        let got = memory.stabilize_by(&behavior, &wish(5, 8), at(61));
        assert_eq!((got.replicas, got.reason), (8, "ReadyForNewScale"));
        let got = memory.stabilize_by(&behavior, &wish(8, 2), at(200));
        assert_eq!((got.replicas, got.reason), (8, "ScaleDownStabilized"));
        let got = memory.stabilize_by(&behavior, &wish(8, 2), at(400));
        assert_eq!(got.replicas, 2);
    }

    #[rstest]
    #[case::pods("Max", json!([{"type": "Pods", "value": 4, "periodSeconds": 60}]), 14)]
    #[case::percent_rounds_up("Max", json!([{"type": "Percent", "value": 15, "periodSeconds": 60}]), 12)]
    #[case::the_most("Max", json!([{"type": "Percent", "value": 15, "periodSeconds": 60}, {"type": "Pods", "value": 4, "periodSeconds": 60}]), 14)]
    #[case::the_least("Min", json!([{"type": "Percent", "value": 15, "periodSeconds": 60}, {"type": "Pods", "value": 4, "periodSeconds": 60}]), 12)]
    #[case::not_at_all("Disabled", json!([{"type": "Pods", "value": 4, "periodSeconds": 60}]), 10)]
    fn policies_of_growth(#[case] select: &str, #[case] policies: Value, #[case] limit: i32) {
        let behavior = behavior(json!({"scaleUp": {"selectPolicy": select, "policies": policies}}));
        let got = Memory::default().limit_by(&behavior, &wish(10, 50), at(0));
        assert_eq!((got.replicas, got.reason), (limit, "ScaleUpLimit"));
    }

    #[rstest]
    #[case::pods("Max", json!([{"type": "Pods", "value": 4, "periodSeconds": 60}]), 6)]
    #[case::percent("Max", json!([{"type": "Percent", "value": 25, "periodSeconds": 60}]), 7)]
    #[case::the_least("Min", json!([{"type": "Percent", "value": 25, "periodSeconds": 60}, {"type": "Pods", "value": 4, "periodSeconds": 60}]), 7)]
    #[case::not_at_all("Disabled", json!([{"type": "Pods", "value": 4, "periodSeconds": 60}]), 10)]
    fn policies_of_shrinking(#[case] select: &str, #[case] policies: Value, #[case] limit: i32) {
        let behavior =
            behavior(json!({"scaleDown": {"selectPolicy": select, "policies": policies}}));
        let got = Memory::default().limit_by(&behavior, &wish(10, 2), at(0));
        assert_eq!((got.replicas, got.reason), (limit, "ScaleDownLimit"));
    }

    #[test]
    fn what_was_done_within_the_period_counts() {
        let behavior = behavior(json!({"scaleUp": {"selectPolicy": "Max",
            "policies": [{"type": "Pods", "value": 4, "periodSeconds": 60}]}}));
        let mut memory = Memory::default();
        memory.scaled(&behavior, 10, 13, at(0));
        assert_eq!(
            memory.limit_by(&behavior, &wish(13, 50), at(30)).replicas,
            14
        );
        assert_eq!(
            memory.limit_by(&behavior, &wish(13, 50), at(60)).replicas,
            17
        );
    }
}
