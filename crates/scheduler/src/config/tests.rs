use super::*;
use crate::core::profile::{DefaultSpread, Rule, Strategy};
use rstest::rstest;
use serde_json::json;

fn with(more: Value) -> Value {
    let mut all = json!({"apiVersion": API_VERSION, "kind": "KubeSchedulerConfiguration"});
    if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
        all.extend(more);
    }
    all
}

fn one(profile: Value) -> Value {
    with(json!({"profiles": [profile]}))
}

fn config(plugin: &str, args: Value) -> Value {
    one(json!({"pluginConfig": [{"name": plugin, "args": args}]}))
}

#[test]
fn an_empty_configuration_is_the_default() {
    let read = read(&with(json!({}))).expect("it is valid");
    assert_eq!(read.profiles, [Profile::default()]);
    assert_eq!(read.backoff, BACKOFF);
    let election = read.election;
    assert_eq!(
        (election.namespace.as_str(), election.name.as_str()),
        ("kube-system", "kube-scheduler")
    );
    assert!(election.elect && read.notes.is_empty());
}

#[test]
fn a_whole_file_is_read() {
    let read = read(&with(json!({
        "parallelism": 16,
        "clientConnection": {"kubeconfig": "/etc/k", "qps": 50},
        "leaderElection": {"leaderElect": true, "leaseDuration": "1m30s", "renewDeadline": "20s", "retryPeriod": "5s",
            "resourceName": "mine"},
        "podInitialBackoffSeconds": 2, "podMaxBackoffSeconds": 60,
        "profiles": [
            {"schedulerName": "packer",
                "plugins": {
                    "score": {"disabled": [{"name": "NodeResourcesBalancedAllocation"}],
                        "enabled": [{"name": "NodeResourcesFit", "weight": 5}]},
                    "multiPoint": {"disabled": [{"name": "ImageLocality"}]},
                    "postFilter": {"disabled": [{"name": "*"}]}},
                "pluginConfig": [
                    {"name": "NodeResourcesFit", "args": {"kind": "NodeResourcesFitArgs", "ignoredResourceGroups": ["example.com"],
                        "scoringStrategy": {"type": "RequestedToCapacityRatio",
                            "resources": [{"name": "example.com/gpu", "weight": 3}, {"name": "cpu"}],
                            "requestedToCapacityRatio": {"shape": [
                                {"utilization": 0, "score": 0}, {"utilization": 100, "score": 10}]}}}},
                    {"name": "PodTopologySpread", "args": {"defaultingType": "List", "defaultConstraints": [
                        {"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}]}},
                    {"name": "DefaultPreemption", "args": {"minCandidateNodesPercentage": 5}},
                    {"name": "InterPodAffinity", "args": {"hardPodAffinityWeight": 7}}]},
            {"schedulerName": "default-scheduler"}],
    })))
    .expect("it is valid");
    let packer = &read.profiles[0];
    assert_eq!(read.profiles[1], Profile::default());
    assert_eq!(packer.scheduler_name, "packer");
    let weights =
        [Rule::Fit, Rule::Balance, Rule::Images, Rule::Taints].map(|r| packer.weights.of(r));
    assert_eq!(weights, [5, 0, 0, 3]);
    assert_eq!(
        packer.strategy,
        Strategy::RequestedToCapacityRatio(vec![(0, 0), (100, 100)])
    );
    assert_eq!(
        packer.resources,
        [("example.com/gpu".to_owned(), 3), ("cpu".to_owned(), 1)]
    );
    assert_eq!(packer.ignored_groups, ["example.com"]);
    assert!(!packer.preemption);
    assert_eq!((packer.trials, packer.hard_affinity_weight), ((5, 100), 7));
    assert!(
        matches!(&packer.default_spread, DefaultSpread::List(list) if list[0].topology_key == "rack")
    );
    let election = read.election;
    assert_eq!(
        (election.lease.as_secs(), election.name.as_str()),
        (90, "mine")
    );
    assert_eq!(read.backoff.1.as_secs(), 60);
    assert_eq!(read.kubeconfig.as_deref(), Some("/etc/k"));
    assert_eq!(read.workers, Some(16));
    assert_eq!(read.notes.len(), 1, "{:?}", read.notes);
}

#[test]
fn usage_is_looked_at_where_its_plugin_is_enabled() {
    use crate::core::load::{LoadArgs, Source};
    let enabled = json!([{"name": "LoadAwareScheduling", "weight": 3}]);
    let args = json!([{"name": "LoadAwareScheduling", "args": {
        "nodeMetricExpirationSeconds": 60, "usageThresholds": {"cpu": 70, "memory": 0},
        "estimatedScalingFactors": {"memory": 50}, "resourceWeights": {"cpu": 2},
        "filterExpiredNodeMetrics": true, "metricsSource": "slo.koordinator.sh"}}]);
    let load = |plugins: Value| {
        let read =
            read(&one(json!({"plugins": plugins, "pluginConfig": args}))).expect("it is valid");
        let profile = read.profiles[0].clone();
        (
            profile.load,
            profile.weights.of(Rule::Load),
            read.notes.len(),
        )
    };
    let want = LoadArgs {
        thresholds: [Some(70), None],
        weights: [2, 0],
        factors: [85, 50],
        expiry: 60,
        source: Source::NodeMetric,
    };
    assert_eq!(
        load(json!({"multiPoint": {"enabled": enabled}})),
        (Some(want.clone()), 3, 1)
    );
    let scored = LoadArgs {
        thresholds: [None; 2],
        ..want.clone()
    };
    assert_eq!(
        load(json!({"score": {"enabled": enabled}})),
        (Some(scored), 3, 1)
    );
    assert_eq!(
        load(json!({"filter": {"enabled": enabled}})),
        (Some(want), 0, 1)
    );
    // Arguments alone switch nothing on.
    assert_eq!(load(json!({})), (None, 0, 2));
}

/// What cannot be followed is refused by its path.
#[rstest]
#[case::version(json!({"apiVersion": "kubescheduler.config.k8s.io/v1beta3"}), "apiVersion")]
#[case::unknown_field(with(json!({"algorithmSource": {}})), "algorithmSource")]
#[case::extender(with(json!({"extenders": [{"urlPrefix": "http://x"}]})), "extenders[0]")]
#[case::plugin(one(json!({"plugins": {"score": {"enabled": [{"name": "Coscheduling"}]}}})), "profiles[0].plugins.score.enabled[0].name")]
#[case::filter_off(
    one(json!({"plugins": {"filter": {"disabled": [{"name": "NodeResourcesFit"}]}}})),
    "profiles[0].plugins.filter.disabled[0].name")]
#[case::all_off(one(json!({"plugins": {"multiPoint": {"disabled": [{"name": "*"}]}}})), "profiles[0].plugins.multiPoint.disabled[0].name")]
#[case::half_off(
    one(json!({"plugins": {"filter": {"disabled": [{"name": "PodTopologySpread"}]}}})),
    "profiles[0].plugins.filter.disabled[0].name")]
#[case::point(one(json!({"plugins": {"scores": {}}})), "profiles[0].plugins.scores")]
#[case::weight(one(json!({"plugins": {"score": {"enabled": [{"name": "NodeAffinity", "weight": 101}]}}})), "profiles[0].plugins.score.enabled[0].weight")]
#[case::dynamic(config("DynamicResources", json!({})), "profiles[0].pluginConfig[0].name")]
#[case::args_kind(config("NodeResourcesFit", json!({"kind": "Other"})), "profiles[0].pluginConfig[0].args.kind")]
#[case::args_field(config("NodeResourcesFit", json!({"strategy": {}})), "profiles[0].pluginConfig[0].args.strategy")]
#[case::strategy(
    config("NodeResourcesFit", json!({"scoringStrategy": {"type": "Best"}})),
    "profiles[0].pluginConfig[0].args.scoringStrategy.type")]
#[case::shape_falls(
    config("NodeResourcesFit", json!({"scoringStrategy": {"type": "RequestedToCapacityRatio", "requestedToCapacityRatio":
        {"shape": [{"utilization": 50, "score": 1}, {"utilization": 40, "score": 2}]}}})),
    "profiles[0].pluginConfig[0].args.scoringStrategy.requestedToCapacityRatio.shape[1].utilization")]
#[case::balance_weight(
    config("NodeResourcesBalancedAllocation", json!({"resources": [{"name": "cpu", "weight": 2}]})),
    "profiles[0].pluginConfig[0].args.resources[0].weight")]
#[case::spread_selector(
    config("PodTopologySpread", json!({"defaultingType": "List", "defaultConstraints": [
        {"maxSkew": 1, "topologyKey": "k", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}]})),
    "profiles[0].pluginConfig[0].args.defaultConstraints[0].labelSelector")]
#[case::volume_shape(config("VolumeBinding", json!({"shape": []})), "profiles[0].pluginConfig[0].args.shape")]
#[case::load(config("LoadAwareScheduling", json!({"usageThresholds": {"gpu": 1}})), "profiles[0].pluginConfig[0].args.usageThresholds.gpu")]
#[case::load_source(config("LoadAwareScheduling", json!({"metricsSource": "prometheus"})), "profiles[0].pluginConfig[0].args.metricsSource")]
#[case::same_name(with(json!({"profiles": [{}, {}]})), "profiles[1].schedulerName")]
#[case::lock(with(json!({"leaderElection": {"resourceLock": "endpoints"}})), "leaderElection.resourceLock")]
#[case::renew(with(json!({"leaderElection": {"renewDeadline": "15s"}})), "leaderElection.renewDeadline")]
#[case::duration(with(json!({"leaderElection": {"retryPeriod": "soon"}})), "leaderElection.retryPeriod")]
#[case::backoff(with(json!({"podInitialBackoffSeconds": 20, "podMaxBackoffSeconds": 10})), "podMaxBackoffSeconds")]
fn refused_by_path(#[case] configuration: Value, #[case] path: &str) {
    let error = read(&configuration).expect_err("it cannot be followed");
    assert_eq!(error.path, path, "{error}");
    assert!(!error.problem.is_empty());
}
