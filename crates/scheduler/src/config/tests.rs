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

#[rstest]
#[case::nothing_said(json!(null), json!(null), Ok(None))]
#[case::left_to_the_scheduler(json!(0), json!(0), Ok(None))]
#[case::for_all(json!(40), json!(null), Ok(Some(40)))]
#[case::of_a_profile(json!(40), json!(100), Ok(Some(100)))]
#[case::zero_is_nothing_said(json!(40), json!(0), Ok(Some(40)))]
#[case::too_much(json!(101), json!(null), Err("percentageOfNodesToScore"))]
#[case::too_much_of_a_profile(json!(40), json!(-1), Err("profiles[0].percentageOfNodesToScore"))]
fn a_share_of_the_nodes_is_scored(
    #[case] all: Value,
    #[case] own: Value,
    #[case] wanted: Result<Option<usize>, &str>,
) {
    let read = read(&with(json!({"percentageOfNodesToScore": all,
        "profiles": [{"percentageOfNodesToScore": own}]})));
    match (read, wanted) {
        (Ok(read), Ok(wanted)) => assert_eq!(read.profiles[0].scored, wanted),
        (Err(error), Err(field)) => assert!(error.to_string().contains(field), "{error}"),
        (read, _) => panic!("{read:?}"),
    }
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
#[case::dynamic(config("DynamicResources", json!({"timeout": "1s"})), "profiles[0].pluginConfig[0].args.timeout")]
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

/// Files as people have them: taken, or refused by the field that cannot be followed.
#[rstest]
#[case::a_kubeconfig_and_an_election(with(json!({"clientConnection": {"kubeconfig": "/etc/kubernetes/scheduler.conf"},
    "leaderElection": {"leaderElect": true, "resourceNamespace": "kube-system", "resourceName": "second"}})), None)]
#[case::as_kube_scheduler_writes_its_defaults(with(json!({
    "clientConnection": {"acceptContentTypes": "", "burst": 100, "contentType": "application/vnd.kubernetes.protobuf",
        "kubeconfig": "", "qps": 50},
    "enableContentionProfiling": true, "enableProfiling": true, "parallelism": 16, "percentageOfNodesToScore": 0,
    "podInitialBackoffSeconds": 1, "podMaxBackoffSeconds": 10, "delayCacheUntilActive": false, "extenders": null,
    "leaderElection": {"leaderElect": true, "leaseDuration": "15s", "renewDeadline": "10s", "resourceLock": "leases",
        "resourceName": "kube-scheduler", "resourceNamespace": "kube-system", "retryPeriod": "2s"},
    "profiles": [{"schedulerName": "default-scheduler",
        "pluginConfig": [
            {"name": "DefaultPreemption", "args": {"apiVersion": API_VERSION, "kind": "DefaultPreemptionArgs",
                "minCandidateNodesAbsolute": 100, "minCandidateNodesPercentage": 10}},
            {"name": "InterPodAffinity", "args": {"apiVersion": API_VERSION, "kind": "InterPodAffinityArgs",
                "hardPodAffinityWeight": 1, "ignorePreferredTermsOfExistingPods": false}},
            {"name": "NodeAffinity", "args": {"apiVersion": API_VERSION, "kind": "NodeAffinityArgs"}},
            {"name": "NodeResourcesBalancedAllocation", "args": {"apiVersion": API_VERSION,
                "kind": "NodeResourcesBalancedAllocationArgs",
                "resources": [{"name": "cpu", "weight": 1}, {"name": "memory", "weight": 1}]}},
            {"name": "NodeResourcesFit", "args": {"apiVersion": API_VERSION, "kind": "NodeResourcesFitArgs",
                "scoringStrategy": {"type": "LeastAllocated",
                    "resources": [{"name": "cpu", "weight": 1}, {"name": "memory", "weight": 1}]}}},
            {"name": "PodTopologySpread", "args": {"apiVersion": API_VERSION, "kind": "PodTopologySpreadArgs",
                "defaultingType": "System"}},
            {"name": "VolumeBinding", "args": {"apiVersion": API_VERSION, "kind": "VolumeBindingArgs",
                "bindTimeoutSeconds": 600}}],
        "plugins": {"multiPoint": {"enabled": [
            {"name": "SchedulingGates", "weight": 0}, {"name": "PrioritySort", "weight": 0},
            {"name": "NodeUnschedulable", "weight": 0}, {"name": "NodeName", "weight": 0},
            {"name": "TaintToleration", "weight": 3}, {"name": "NodeAffinity", "weight": 2},
            {"name": "NodePorts", "weight": 0}, {"name": "NodeResourcesFit", "weight": 1},
            {"name": "VolumeRestrictions", "weight": 0}, {"name": "NodeVolumeLimits", "weight": 0},
            {"name": "VolumeBinding", "weight": 0}, {"name": "VolumeZone", "weight": 0},
            {"name": "PodTopologySpread", "weight": 2}, {"name": "InterPodAffinity", "weight": 2},
            {"name": "DefaultPreemption", "weight": 0}, {"name": "NodeResourcesBalancedAllocation", "weight": 1},
            {"name": "ImageLocality", "weight": 1}, {"name": "DefaultBinder", "weight": 0}]}}}]})), None)]
#[case::one_that_scores_and_one_that_does_not(with(json!({"profiles": [{"schedulerName": "default-scheduler"},
    {"schedulerName": "no-scoring", "plugins": {"preScore": {"disabled": [{"name": "*"}]},
        "score": {"disabled": [{"name": "*"}]}}}]})), None)]
#[case::packing_and_nothing_else(one(json!({"schedulerName": "packing",
    "plugins": {"score": {"disabled": [{"name": "*"}], "enabled": [{"name": "NodeResourcesFit"}]}},
    "pluginConfig": [{"name": "NodeResourcesFit", "args": {"scoringStrategy": {"type": "MostAllocated",
        "resources": [{"name": "cpu", "weight": 1}, {"name": "memory", "weight": 1}, {"name": "nvidia.com/gpu", "weight": 3}]}}}]})), None)]
#[case::high_utilisation(one(json!({
    "plugins": {"score": {"enabled": [{"name": "NodeResourcesFit", "weight": 5}],
        "disabled": [{"name": "NodeResourcesBalancedAllocation"}]}},
    "pluginConfig": [{"name": "NodeResourcesFit", "args": {"apiVersion": API_VERSION, "kind": "NodeResourcesFitArgs",
        "scoringStrategy": {"type": "MostAllocated"}}}]})), None)]
#[case::nodes_of_a_profile(one(json!({"schedulerName": "foo", "pluginConfig": [{"name": "NodeAffinity", "args": {"addedAffinity":
    {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [
        {"key": "scheduler-profile", "operator": "In", "values": ["foo"]}]}]}}}}]})), None)]
#[case::own_spread(config("PodTopologySpread", json!({"defaultingType": "List", "defaultConstraints": [
    {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway"}]})), None)]
#[case::without_dear_scores(with(json!({"parallelism": 32, "percentageOfNodesToScore": 50, "profiles": [{"plugins":
    {"score": {"disabled": [{"name": "ImageLocality"}, {"name": "InterPodAffinity"}]}}}]})), None)]
#[case::spread_without_its_type(config("PodTopologySpread", json!({"defaultConstraints": [
    {"maxSkew": 3, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}]})),
    Some("profiles[0].pluginConfig[0].args.defaultConstraints"))]
#[case::gangs_of_another_project(one(json!({"schedulerName": "gangs", "plugins": {
    "queueSort": {"enabled": [{"name": "Coscheduling"}], "disabled": [{"name": "*"}]}}})),
    Some("profiles[0].plugins.queueSort.disabled[0].name"))]
#[case::a_plugin_of_ones_own(one(json!({"plugins": {"score": {"disabled": [{"name": "TaintToleration"}],
    "enabled": [{"name": "MyCustomPluginA"}]}}})), Some("profiles[0].plugins.score.enabled[0].name"))]
#[case::limits_and_not_requests(one(json!({"plugins": {"multiPoint": {"enabled": [{"name": "FitLimitResources", "weight": 1}]},
    "score": {"disabled": [{"name": "NodeResourcesFit"}]}}})), Some("profiles[0].plugins.multiPoint.enabled[0].name"))]
#[case::arguments_of_another_project(one(json!({"pluginConfig": [{"name": "TargetLoadPacking", "args": {"targetUtilization": 60}}]})),
    Some("profiles[0].pluginConfig[0].name"))]
#[case::an_extender(with(json!({"extenders": [{"urlPrefix": "http://localhost:10053", "filterVerb": "filter",
    "prioritizeVerb": "prioritize", "weight": 1, "nodeCacheCapable": true,
    "managedResources": [{"name": "example.com/gpu-mem", "ignoredByScheduler": false}]}]})), Some("extenders[0]"))]
#[case::of_an_older_version(json!({"apiVersion": "kubescheduler.config.k8s.io/v1beta2", "kind": "KubeSchedulerConfiguration",
    "leaderElection": {"leaderElect": true}}), Some("apiVersion"))]
#[case::of_the_time_before_profiles(with(json!({"disablePreemption": false})), Some("disablePreemption"))]
fn files_that_people_have(#[case] file: Value, #[case] refused: Option<&str>) {
    match (read(&file), refused) {
        (Ok(_), None) => {}
        (Err(error), Some(path)) => assert_eq!(error.path, path, "{error}"),
        (Ok(read), Some(path)) => panic!("{path} was taken: {read:?}"),
        (Err(error), None) => panic!("refused: {error}"),
    }
}

#[test]
fn defaults_written_out_are_the_defaults() {
    let all = [
        "TaintToleration",
        "NodeAffinity",
        "NodeResourcesFit",
        "PodTopologySpread",
        "InterPodAffinity",
    ];
    let weights = [3, 2, 1, 2, 2];
    let enabled: Vec<Value> = all
        .iter()
        .zip(weights)
        .map(|(name, weight)| json!({"name": name, "weight": weight}))
        .collect();
    let file = one(json!({"plugins": {"multiPoint": {"enabled": enabled}}}));
    assert_eq!(
        read(&file).expect("it is valid").profiles,
        [Profile::default()]
    );
    // Named in `score` after all were switched off, a plugin weighs one.
    let file = one(
        json!({"plugins": {"score": {"disabled": [{"name": "*"}], "enabled": [{"name": "NodeResourcesFit"}]}}}),
    );
    let profile = &read(&file).expect("it is valid").profiles[0];
    let weights = [Rule::Fit, Rule::Balance, Rule::Taints].map(|rule| profile.weights.of(rule));
    assert_eq!(weights, [1, 0, 0]);
}
