//! Tables of cases, and endpoints that come and go at random.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn service(spec: Value) -> Service {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "n", "uid": "s", "labels": {"team": "x"}}, "spec": spec}))
    .unwrap()
}

fn plain() -> Service {
    service(
        json!({"clusterIP": "10.0.0.1", "selector": {"a": "1"}, "ports": [{"port": 80, "targetPort": 8080}]}),
    )
}

fn pod(n: usize, ready: bool) -> Pod {
    let status = if ready { "True" } else { "False" };
    serde_json::from_value(json!({
        "metadata": {"name": format!("web-{n}"), "namespace": "n", "uid": n.to_string()},
        "spec": {"nodeName": "node-1", "hostname": format!("web-{n}"), "subdomain": "web", "containers": [
            {"ports": [{"name": "http", "containerPort": 8000 + (n % 2)}]}]},
        "status": {"phase": "Running", "podIP": format!("10.1.{}.{}", n / 250, n % 250),
            "conditions": [{"type": "Ready", "status": status}]},
    }))
    .unwrap()
}

fn run(service: &Service, pods: &[Arc<Pod>], slices: &[Arc<EndpointSlice>]) -> Plan {
    plan(&World {
        service,
        pods,
        slices,
        zone_of: &|node| (node != "gone").then(|| Some("sh-a".into())),
        shares: None,
    })
}

#[test]
fn traffic_stays_on_the_node_or_in_the_zone_where_asked() {
    let cases = [
        ("", Value::Null),
        ("PreferClose", json!({"forZones": [{"name": "sh-a"}]})),
        ("PreferSameZone", json!({"forZones": [{"name": "sh-a"}]})),
        (
            "PreferSameNode",
            json!({"forZones": [{"name": "sh-a"}], "forNodes": [{"name": "node-1"}]}),
        ),
    ];
    for (distribution, wanted) in cases {
        let service = service(
            json!({"clusterIP": "10.0.0.1", "selector": {"a": "1"}, "trafficDistribution": distribution}),
        );
        let plan = run(&service, &[pod(0, true), pod(1, false)].map(Arc::new), &[]);
        let of = |ready: bool| {
            let all = plan
                .create
                .iter()
                .flat_map(|it| it["endpoints"].as_array().unwrap());
            let mut all = all.filter(|it| it["conditions"]["ready"] == ready);
            all.next().unwrap()["hints"].clone()
        };
        assert_eq!(
            (of(true), of(false)),
            (wanted, Value::Null),
            "{distribution}: only what is ready"
        );
    }
}

#[test]
fn pods_on_nodes_that_are_not_there_serve_only_where_their_state_does_not_matter() {
    let mut lost = pod(0, true);
    lost.node = Some("gone".into());
    let pods = [Arc::new(lost), Arc::new(pod(1, true))];
    for (always, count) in [(false, 1), (true, 2)] {
        let service = service(json!({"clusterIP": "10.0.0.1", "selector": {"a": "1"},
            "publishNotReadyAddresses": always}));
        let plan = run(&service, &pods, &[]);
        let endpoints = plan.create[0]["endpoints"].as_array().unwrap();
        let lost = "skipping Pod web-0 for Service n/web: Node gone Not Found";
        let lost: &[&str] = if always { &[] } else { &[lost] };
        assert_eq!(
            (endpoints.len(), plan.lost),
            (count, lost.iter().map(|s| (*s).into()).collect())
        );
    }
}

#[test]
fn slices_tell_since_when_they_say_so() {
    let at = |seconds: i64| Timestamp::from_second(seconds).ok();
    let noted = |object: &Value| object["metadata"]["annotations"].clone();
    let mut service = plain();
    service.metadata.created = at(10);
    let first = run(&service, &[], &[]);
    assert_eq!(
        noted(&first.create[0]),
        json!({LAST_CHANGE: "1970-01-01T00:00:10Z"})
    );
    let slice: Arc<EndpointSlice> =
        Arc::new(serde_json::from_value(first.create[0].clone()).unwrap());
    let ready = |n, seconds| {
        let mut pod = pod(n, true);
        pod.ready_since = at(seconds);
        Arc::new(pod)
    };
    let writes = |pods: &[Arc<Pod>]| {
        let plan = run(&service, pods, std::slice::from_ref(&slice));
        let updates = plan.update.iter().map(|(_, fields)| noted(fields));
        let created = plan.create.iter().map(noted);
        updates.chain(created).collect::<Vec<_>>()
    };
    let told = |pods: &[Arc<Pod>]| writes(pods).pop().unwrap();
    let since = told(&[ready(0, 30), ready(1, 20), ready(2, 5)]);
    assert_eq!(since, json!({LAST_CHANGE: "1970-01-01T00:00:20Z"}));
    assert!(!told(&[ready(2, 5)]).is_string(), "nothing new");
}

#[test]
fn hints_by_share_are_told_of_and_stay() {
    let mut service = plain();
    service.metadata.annotations = Labels::from_json(Some(
        &json!({"service.kubernetes.io/topology-mode": "Auto"}),
    ));
    assert!(hints::asked(&service));
    let shares: Shares = Ok([("sh-a".to_owned(), 0.5), ("sh-b".to_owned(), 0.5)].into());
    let pods: Vec<Arc<Pod>> = (0..4).map(|n| Arc::new(pod(n, true))).collect();
    let run = |slices: &[Arc<EndpointSlice>], shares: &Shares, pods: &[Arc<Pod>]| {
        plan(&World {
            service: &service,
            pods,
            slices,
            zone_of: &|_| Some(Some("sh-a".into())),
            shares: Some(shares),
        })
    };
    let first = run(&[], &shares, &pods);
    assert_eq!(first.told[0].reason, "TopologyAwareHintsEnabled");
    let slices: Vec<Arc<EndpointSlice>> = first
        .create
        .iter()
        .map(|it| Arc::new(serde_json::from_value(it.clone()).unwrap()))
        .collect();
    let zones = slices
        .iter()
        .flat_map(|it| &it.endpoints)
        .map(|it| it.hints.as_ref().unwrap().for_zones[0].name.as_str());
    assert_eq!(
        zones.filter(|it| *it == "sh-b").count(),
        2,
        "half of them, though all are in sh-a"
    );
    assert_eq!(
        run(&slices, &shares, &pods),
        Plan::default(),
        "nothing more to do, or to say"
    );
    let lost = run(&slices, &shares, &pods[..1]);
    assert_eq!(
        lost.told[0].message,
        "Insufficient number of endpoints (1 endpoints, 2 zones), addressType: IPv4"
    );
    assert!(
        lost.update
            .iter()
            .all(|(_, it)| it["endpoints"][0].get("hints").is_none())
    );
}

#[test]
fn a_service_nobody_serves_has_one_empty_slice() {
    let plan = run(&plain(), &[], &[]);
    assert_eq!(plan.create.len(), 1);
    assert_eq!(plan.create[0]["endpoints"], json!([]));
    assert_eq!(plan.create[0]["ports"], json!([]));
}

#[test]
fn an_endpoint_says_where_who_and_how() {
    let mut leaving = pod(2, true);
    leaving.meta.deleted = Some(Timestamp::UNIX_EPOCH);
    let mut done = pod(3, true);
    done.phase = crate::model::pod::Phase::Succeeded;
    let pods = [pod(0, true), pod(1, false), leaving, done].map(Arc::new);
    let plan = run(&plain(), &pods, &[]);
    let slice = &plan.create[0];
    assert_eq!(
        slice["endpoints"][0],
        json!({"addresses": ["10.1.0.0"], "conditions": {"ready": true, "serving": true, "terminating": false},
            "hostname": "web-0", "nodeName": "node-1", "zone": "sh-a",
            "targetRef": {"kind": "Pod", "namespace": "n", "name": "web-0", "uid": "0"}})
    );
    assert_eq!(
        slice["endpoints"][1]["conditions"],
        json!({"ready": false, "serving": false, "terminating": false})
    );
    assert_eq!(
        slice["endpoints"][2]["conditions"],
        json!({"ready": false, "serving": true, "terminating": true})
    );
    assert_eq!(slice["endpoints"].as_array().unwrap().len(), 3);
    assert_eq!(
        slice["ports"],
        json!([{"name": "", "port": 8080, "protocol": "TCP"}])
    );
    assert_eq!(
        slice["metadata"]["labels"],
        json!({"team": "x", "kubernetes.io/service-name": "web",
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"})
    );
    assert_eq!(slice["metadata"]["ownerReferences"][0]["kind"], "Service");
}

#[test]
fn named_ports_group_pods_and_headless_services_are_marked() {
    let service = service(
        json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}),
    );
    let pods = [pod(0, true), pod(1, true)].map(Arc::new);
    let plan = run(&service, &pods, &[]);
    let ports: Vec<_> = plan
        .create
        .iter()
        .map(|s| s["ports"][0]["port"].clone())
        .collect();
    assert_eq!(ports, [json!(8000), json!(8001)]);
    assert_eq!(plan.create[0]["metadata"]["labels"][HEADLESS], "");
}

#[test]
fn unready_addresses_are_published_where_asked_for() {
    let service = service(json!({"clusterIP": "None", "publishNotReadyAddresses": true}));
    let plan = run(&service, &[Arc::new(pod(0, false))], &[]);
    assert_eq!(
        plan.create[0]["endpoints"][0]["conditions"],
        json!({"ready": true, "serving": false, "terminating": false})
    );
}

/// Slices of a Service with the endpoints of these pods.
fn slices_of(service: &Service, groups: &[Vec<usize>]) -> Vec<Arc<EndpointSlice>> {
    let one = |(n, group): (usize, &Vec<usize>)| {
        let pods: Vec<Arc<Pod>> = group.iter().map(|n| Arc::new(pod(*n, true))).collect();
        let mut object = run(service, &pods, &[]).create.remove(0);
        object["metadata"]["name"] = format!("old-{n}").into();
        object["metadata"]["uid"] = format!("old-{n}").into();
        Arc::new(serde_json::from_value(object).unwrap())
    };
    groups.iter().enumerate().map(one).collect()
}

/// As Kubernetes' own tests of its reconciler have it.
#[test]
fn endpoints_are_laid_with_as_few_writes_as_kubernetes_makes() {
    let every = |of: usize, rest: usize| (0..of).filter(|n| n % 4 == rest).collect::<Vec<_>>();
    // Pods, slices before; creates, updates, deletes, and lengths after.
    let cases = [
        (
            250,
            vec![every(250, 0), every(250, 1)],
            (1, 1, 0),
            vec![63, 87, 100],
        ),
        (
            300,
            vec![every(300, 0), every(300, 1)],
            (2, 0, 0),
            vec![50, 75, 75, 100],
        ),
        (250, vec![], (3, 0, 0), vec![50, 100, 100]),
        (1, vec![vec![0]], (0, 0, 0), vec![1]),
        (0, vec![vec![0], vec![1]], (0, 1, 1), vec![0]),
    ];
    for (count, before, counts, lengths) in cases {
        let service = plain();
        let mut slices = slices_of(&service, &before);
        let pods: Vec<Arc<Pod>> = (0..count).map(|n| Arc::new(pod(n, true))).collect();
        let plan = run(&service, &pods, &slices);
        let got = (plan.create.len(), plan.update.len(), plan.delete.len());
        carry_out(plan, &mut slices, &mut 0);
        let mut after: Vec<usize> = slices.iter().map(|s| s.endpoints.len()).collect();
        after.sort_unstable();
        assert_eq!((got, after), (counts, lengths), "{count} pods");
    }
}

#[test]
fn slices_of_other_ports_are_used_again_and_those_of_another_service_are_not() {
    let old = plain();
    let groups: Vec<Vec<usize>> = (0..10).map(|n| (n * 30..n * 30 + 30).collect()).collect();
    let mut slices = slices_of(&old, &groups);
    let pods: Vec<Arc<Pod>> = (0..300).map(|n| Arc::new(pod(n, true))).collect();
    let new = service(
        json!({"clusterIP": "10.0.0.1", "selector": {"a": "1"}, "ports": [{"port": 80, "targetPort": 9}]}),
    );
    let plan = run(&new, &pods, &slices);
    let got = (plan.create.len(), plan.update.len(), plan.delete.len());
    assert_eq!(got, (0, 3, 7));
    let ports = json!([{"name": "", "port": 9, "protocol": "TCP"}]);
    assert!(
        plan.update
            .iter()
            .all(|(_, fields)| fields["ports"] == ports)
    );

    for slice in &mut slices {
        Arc::make_mut(slice).metadata.owners.clear();
    }
    let plan = run(&new, &pods, &slices);
    let got = (plan.create.len(), plan.update.len(), plan.delete.len());
    assert_eq!(got, (3, 0, 10));

    let mut leaving = new;
    leaving.metadata.deleted = Some(Timestamp::UNIX_EPOCH);
    assert!(run(&leaving, &pods, &slices).create.is_empty());
}

/// Slices in the API server.
fn carry_out(plan: Plan, slices: &mut Vec<Arc<EndpointSlice>>, born: &mut usize) {
    let doomed: Vec<_> = plan.delete.iter().map(|s| s.metadata.uid.clone()).collect();
    slices.retain(|s| !doomed.contains(&s.metadata.uid));
    for (slice, fields) in plan.update {
        let at = slices
            .iter()
            .position(|s| s.metadata.uid == slice.metadata.uid)
            .unwrap();
        let slice = Arc::make_mut(&mut slices[at]);
        slice.endpoints = serde_json::from_value(fields["endpoints"].clone()).unwrap();
        if !fields["ports"].is_null() {
            slice.ports = serde_json::from_value(fields["ports"].clone()).unwrap();
        }
    }
    for mut object in plan.create {
        *born += 1;
        object["metadata"]["name"] = format!("web-{born}").into();
        object["metadata"]["uid"] = format!("{born}").into();
        slices.push(Arc::new(serde_json::from_value(object).unwrap()));
    }
}

proptest! {
    /// The slices hold each endpoint once, never more than 100, and a second look changes nothing.
    #[test]
    fn slices_follow_the_pods(steps in prop::collection::vec(prop::collection::vec((0usize..400, any::<bool>()), 0..300), 1..6)) {
        let service = plain();
        let mut slices = Vec::new();
        let mut born = 0;
        for step in steps {
            let pods: BTreeMap<usize, bool> = step.into_iter().collect();
            let pods: Vec<Arc<Pod>> = pods.into_iter().map(|(n, ready)| Arc::new(pod(n, ready))).collect();
            carry_out(run(&service, &pods, &slices), &mut slices, &mut born);
            let mut found: Vec<(String, bool)> = slices.iter().flat_map(|s| &s.endpoints)
                .map(|e| (e.target_ref.as_ref().unwrap().uid.clone(), e.conditions.ready.unwrap())).collect();
            found.sort();
            let mut wanted: Vec<(String, bool)> = pods.iter().map(|p| (p.meta.uid.to_string(), p.ready)).collect();
            wanted.sort();
            prop_assert_eq!(found, wanted);
            prop_assert!(slices.iter().all(|s| s.endpoints.len() <= PER_SLICE));
            prop_assert!(!slices.is_empty());
            prop_assert_eq!(run(&service, &pods, &slices), Plan::default());
        }
    }
}
