//! Tables of cases, and whole rollouts against ReplicaSets that come up at random.

use super::*;
use proptest::prelude::*;
use rstest::rstest;
use serde_json::json;

const NOW: i64 = 1_800_000_000;

fn deployment(replicas: i32, strategy: Value) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": "w", "namespace": "n", "uid": "d", "generation": 1},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"a": "1"}}, "strategy": strategy,
            "revisionHistoryLimit": 2, "progressDeadlineSeconds": 600,
            "template": {"metadata": {"labels": {"a": "1"}}, "spec": {"v": "new"}}},
    }))
    .unwrap()
}

fn rolling(surge: Value, unavailable: Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

/// `version/replicas/available/max`, the older the further left.
fn sets(text: &str, desired: i32) -> Vec<Arc<ReplicaSet>> {
    text.split_whitespace()
        .enumerate()
        .map(|(i, text)| {
            let mut parts = text.split('/');
            let version = parts.next().unwrap();
            let mut next = || parts.next().unwrap().parse::<i32>().unwrap();
            let (replicas, available, max) = (next(), next(), next());
            Arc::new(
                serde_json::from_value(json!({
                    "metadata": {"name": format!("w-{version}"), "uid": version,
                        "creationTimestamp": format!("2026-01-01T00:00:{i:02}Z"),
                        "annotations": {REVISION: (i + 1).to_string(), DESIRED: desired.to_string(), MAX: max.to_string()}},
                    "spec": {"replicas": replicas, "selector": {}, "template": {
                        "metadata": {"labels": {"a": "1", TEMPLATE_HASH: "x"}}, "spec": {"v": version}}},
                    "status": {"replicas": replicas, "readyReplicas": available, "availableReplicas": available},
                }))
                .unwrap(),
            )
        })
        .collect()
}

fn run(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Plan {
    plan(&World {
        deployment,
        sets,
        has_pods: &|_| false,
        now: Timestamp::from_second(NOW).unwrap(),
    })
}

fn sizes(plan: &Plan) -> String {
    let one = |action: &Action| match action {
        Action::Create { replicas, .. } => Some(format!("+{replicas}")),
        Action::Update { set, replicas, .. } if set.spec.replicas != Some(*replicas) => {
            Some(format!("{}={replicas}", set.metadata.uid))
        }
        Action::Delete(set) => Some(format!("-{}", set.metadata.uid)),
        _ => None,
    };
    plan.actions
        .iter()
        .filter_map(one)
        .collect::<Vec<_>>()
        .join(" ")
}

#[rstest]
#[case::first(10, rolling(json!("25%"), json!("25%")), "", "+10")]
#[case::starts_with_the_surge(10, rolling(json!("25%"), json!("25%")), "old/10/10/13", "+3")]
#[case::then_shrinks_the_old(10, rolling(json!(3), json!(2)), "old/10/10/13 new/3/0/13", "old=8")]
#[case::waits_while_all_budget_is_used(10, rolling(json!(3), json!(2)), "old/8/8/13 new/5/0/13", "")]
#[case::grows_with_room(10, rolling(json!(3), json!(2)), "old/8/8/13 new/3/0/13", "new=5")]
#[case::unhealthy_old_go_first(10, rolling(json!(3), json!(2)), "old/8/3/13 new/5/5/13", "old=3")]
#[case::no_surge_shrinks_first(4, rolling(json!(0), json!(1)), "old/4/4/4 new/0/0/4", "old=3")]
#[case::both_zero_is_one_unavailable(4, rolling(json!(0), json!(0)), "old/4/4/4 new/0/0/4", "old=3")]
#[case::done(4, rolling(json!(1), json!(1)), "old/0/0/5 new/4/4/5", "")]
#[case::recreate_stops_the_old(4, json!({"type": "Recreate"}), "old/4/4/4", "old=0")]
#[case::recreate_starts_the_new(4, json!({"type": "Recreate"}), "old/0/0/4", "+4")]
#[case::too_large_shrinks(2, rolling(json!(1), json!(0)), "new/4/4/5", "new=2")]
fn steps(
    #[case] replicas: i32,
    #[case] strategy: Value,
    #[case] before: &str,
    #[case] after: &str,
) {
    let plan = run(&deployment(replicas, strategy), &sets(before, replicas));
    assert_eq!(sizes(&plan), after);
}

#[rstest]
// The example of KEP/docs "proportional scaling": 10 to 15 in the middle of a rollout.
#[case(15, "old/8/8/13 new/5/0/13", "new=7 old=11")]
#[case(5, "old/8/8/13 new/5/0/13", "new=3 old=5")]
#[case(0, "old/8/8/13 new/5/0/13", "new=0 old=0")]
fn scales_in_proportion(#[case] replicas: i32, #[case] before: &str, #[case] after: &str) {
    let plan = run(
        &deployment(replicas, rolling(json!(3), json!(2))),
        &sets(before, 10),
    );
    assert_eq!(sizes(&plan), after);
}

#[test]
fn paused_scales_but_does_not_roll() {
    let mut paused = deployment(3, rolling(json!(1), json!(1)));
    paused.spec.paused = true;
    let plan = run(&paused, &sets("old/2/2/3", 2));
    assert_eq!(sizes(&plan), "old=3");
    assert_eq!(plan.status.conditions[0].reason, "DeploymentPaused");
}

#[test]
fn a_rollback_renumbers_and_keeps_history() {
    let plan = run(
        &deployment(1, rolling(json!(1), json!(0))),
        &sets("new/0/0/2 old/1/1/2", 1),
    );
    let Some(Action::Update { annotations, .. }) = plan.actions.first() else {
        panic!("{plan:?}")
    };
    assert_eq!(annotations.get(REVISION), Some("3"));
    assert_eq!(annotations.get(REVISION_HISTORY), Some("1"));
    assert!(plan.actions.contains(&Action::SetRevision("3".into())));
    assert_eq!(
        plan.events,
        [(
            "ScalingReplicaSet",
            "Scaled up replica set w-new from 0 to 1".to_owned()
        )]
    );
}

#[rstest]
#[case::the_one_before_the_newest("0", Some("b"), "DeploymentRollback")]
#[case::an_older_one("1", Some("a"), "DeploymentRollback")]
#[case::the_same("3", None, "DeploymentRollbackTemplateUnchanged")]
#[case::none_such("9", None, "DeploymentRollbackRevisionNotFound")]
fn an_annotation_asks_for_a_rollback(
    #[case] to: &str,
    #[case] version: Option<&str>,
    #[case] reason: &str,
) {
    let mut deployment = deployment(1, rolling(json!(1), json!(0)));
    let asked = [(ROLLBACK_TO, to), ("note", "new"), (REVISION, "3")];
    deployment.metadata.annotations = asked.into_iter().collect();
    let plan = run(&deployment, &sets("a/0/0/2 b/0/0/2 new/1/1/2", 1));
    let Some(Action::RollBack(back)) = plan.actions.last() else {
        panic!("{plan:?}")
    };
    let got = back.as_ref().map(|(template, annotations)| {
        assert_eq!(template["metadata"]["labels"], json!({"a": "1"}));
        assert_eq!(annotations, &[(REVISION, "3")].into_iter().collect());
        template["spec"]["v"].as_str().unwrap()
    });
    assert_eq!(got, version);
    let told = plan.events.iter().chain(&plan.warning);
    assert!(told.clone().any(|(r, _)| *r == reason), "{told:?}");
    assert_eq!(plan.warning.is_some(), version.is_none());
}

#[test]
fn nothing_is_rolled_back_while_paused_or_for_what_is_no_number() {
    for (paused, to) in [(true, "1"), (false, "one")] {
        let mut deployment = deployment(1, rolling(json!(1), json!(0)));
        deployment.spec.paused = paused;
        deployment.metadata.annotations = [(ROLLBACK_TO, to)].into_iter().collect();
        let plan = run(&deployment, &sets("a/0/0/2 new/1/1/2", 1));
        assert!(
            !plan
                .actions
                .iter()
                .any(|a| matches!(a, Action::RollBack(_)))
        );
    }
}

#[rstest]
#[case::first("", "3", "3")]
#[case::next("1,3", "5", "1,3,5")]
fn earlier_numbers_are_noted(#[case] before: &str, #[case] number: &str, #[case] after: &str) {
    assert_eq!(lengthened(before, number).as_deref(), Some(after));
}

#[test]
fn only_so_many_earlier_numbers_are_noted() {
    let before = vec!["1234567"; 250].join(",");
    assert_eq!(before.len(), 1999);
    let after = lengthened(&before, "99").unwrap();
    assert_eq!(after.len(), 1999 - 8 + 3);
    assert!(after.ends_with(",1234567,99"));
    assert_eq!(lengthened("1", &"9".repeat(2001)), None);
}

#[test]
fn a_revision_that_is_no_number_is_left_as_it_is() {
    let odd: Labels = [(REVISION, "x")].into_iter().collect();
    assert_eq!(renumbered(&odd, 3), odd);
}

#[test]
fn a_set_without_a_note_of_its_size_gets_no_share_where_nothing_ran_yet() {
    let before = sets("old/2/0/0 new/2/0/5", 4);
    let plan = run(&deployment(8, rolling(json!(0), json!(1))), &before);
    assert_eq!(
        sizes(&plan),
        "new=6",
        "three for it by its note, and one left over"
    );
}

#[test]
fn history_beyond_the_limit_goes_when_complete() {
    let mut done = deployment(1, rolling(json!(1), json!(0)));
    done.status.updated_replicas = 1;
    done.status.replicas = 1;
    done.status.available_replicas = 1;
    done.status.observed_generation = 1;
    let plan = run(&done, &sets("a/0/0/2 b/0/0/2 c/0/0/2 d/0/0/2 new/1/1/2", 1));
    assert_eq!(sizes(&plan), "-a -b");
}

#[test]
fn the_progress_deadline_passes() {
    let mut stuck = deployment(2, rolling(json!(1), json!(0)));
    let before = sets("old/2/2/3 new/1/0/3", 2);
    stuck.status = run(&stuck, &before).status;
    let plan = run(&stuck, &before);
    assert_eq!(plan.after, Some(Duration::from_secs(601)));
    for condition in &mut stuck.status.conditions {
        condition.last_update_time = Timestamp::from_second(NOW - 601).ok();
    }
    let plan = run(&stuck, &before);
    let progressing = plan
        .status
        .conditions
        .iter()
        .find(|c| c.kind == "Progressing")
        .unwrap();
    assert_eq!(progressing.reason, "ProgressDeadlineExceeded");
    assert_eq!(
        progressing.message,
        "ReplicaSet \"w-new\" has timed out progressing."
    );
    assert_eq!(plan.after, None);
}

proptest! {
    /// A rollout ends, and on its way never exceeds the surge nor asks for less than may be
    /// unavailable.
    #[test]
    fn a_rollout_ends_within_its_limits(
        replicas in 0i32..12,
        surge in 0i32..4,
        unavailable in 0i32..4,
        ups in prop::collection::vec(0i32..4, 0..60),
    ) {
        let mut deployment = deployment(replicas, rolling(json!(surge), json!(unavailable)));
        let max_surge = fenceposts(&deployment).0;
        let max_unavailable = fenceposts(&deployment).1.min(replicas);
        let mut world = sets(&format!("old/{replicas}/{replicas}/{}", replicas + max_surge), replicas);
        let mut rest = 0;
        for up in ups.into_iter().chain(std::iter::repeat_n(3, 80)) {
            let plan = run(&deployment, &world);
            rest = if sizes(&plan).is_empty() { rest + 1 } else { 0 };
            for action in &plan.actions {
                match action {
                    Action::Create { replicas: n, annotations, .. } => {
                        let mut new = (*sets(&format!("new/{n}/0/0"), replicas)[0]).clone();
                        new.metadata.annotations = annotations.clone();
                        new.metadata.created = Timestamp::from_second(NOW).ok();
                        new.status.replicas = *n;
                        world.push(Arc::new(new));
                    }
                    Action::Update { set, replicas: n, annotations, .. } => {
                        let at = world.iter().position(|s| s.metadata.uid == set.metadata.uid).unwrap();
                        let set = Arc::make_mut(&mut world[at]);
                        set.spec.replicas = Some(*n);
                        set.metadata.annotations = annotations.clone();
                        set.status.replicas = *n;
                        set.status.available_replicas = set.status.available_replicas.min(*n);
                    }
                    _ => {}
                }
            }
            deployment.status = plan.status;
            let total: i32 = world.iter().map(|s| s.spec.replicas.unwrap()).sum();
            let available: i32 = world.iter().map(|s| s.status.available_replicas).sum();
            prop_assert!(total <= replicas + max_surge);
            prop_assert!(available >= replicas - max_unavailable, "{available} available");
            for set in &mut world {
                let set = Arc::make_mut(set);
                set.status.available_replicas = (set.status.available_replicas + up).min(set.spec.replicas.unwrap());
            }
        }
        prop_assert!(rest > 2);
        let left: Vec<_> = world.iter().map(|s| (s.metadata.uid.to_string(), s.spec.replicas)).collect();
        prop_assert_eq!(left, [("old".to_owned(), Some(0)), ("new".to_owned(), Some(replicas))]);
        let last = deployment.status.conditions.iter().find(|c| c.kind == "Progressing").unwrap();
        prop_assert_eq!(&last.reason, "NewReplicaSetAvailable");
    }
}
