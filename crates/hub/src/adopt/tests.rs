//! Adoption and leaving against a small model of a member: its controllers, and a hub that dies after any
//! write. No pod may ever go.

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::{AppSpec, GroupSpec, RevisionSpec};
use proptest::prelude::*;

use super::{leave, obstacles::Obstacle, *};

/// A member's objects, by kind and name.
#[derive(Clone, Debug, Default)]
struct Member {
    objects: BTreeMap<(Kind, String), Value>,
    revisions: Revisions,
    clock: i64,
}

fn object(kind: Kind, name: &str, labels: Value, owner: Option<&str>) -> Value {
    let owners =
        owner.map(|uid| json!([{"uid": uid, "controller": true, "kind": "X", "name": "x"}]));
    json!({
        "kind": kind.gvk().2,
        "metadata": {"name": name, "uid": format!("uid-{name}"), "resourceVersion": "1", "generation": 1, "labels": labels, "ownerReferences": owners},
        "spec": {}, "status": {"observedGeneration": 1},
    })
}

impl Member {
    fn put(&mut self, kind: Kind, object: Value) {
        self.objects
            .insert((kind, name(&object).to_owned()), object);
    }

    fn of(&self, kind: Kind) -> Vec<Value> {
        let all = self.objects.iter().filter(|((k, _), _)| *k == kind);
        all.map(|(_, o)| o.clone()).collect()
    }

    fn pods(&self) -> BTreeSet<String> {
        self.of(Kind::Pod)
            .iter()
            .map(|p| uid(p).to_owned())
            .collect()
    }

    fn deployment(pods: usize) -> Self {
        let mut member = Self::default();
        let mut web = object(Kind::Deployment, "web", json!({"app": "web"}), None);
        web["spec"] = json!({"replicas": pods, "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}}});
        web["status"] = json!({"observedGeneration": 1, "replicas": pods, "updatedReplicas": pods});
        member.put(Kind::Deployment, web);
        for (set, replicas) in [("web-1", pods), ("web-0", 0)] {
            let labels = json!({"app": "web", labels::POD_TEMPLATE_HASH: set});
            let mut it = object(Kind::ReplicaSet, set, labels.clone(), Some("uid-web"));
            it["spec"] =
                json!({"replicas": replicas, "template": {"metadata": {"labels": labels}}});
            member.put(Kind::ReplicaSet, it);
            for n in 0..replicas {
                let mut pod = object(
                    Kind::Pod,
                    &format!("{set}-x{n}"),
                    labels.clone(),
                    Some(&format!("uid-{set}")),
                );
                pod["spec"]["nodeName"] = json!(format!("node-{}", n % 3));
                member.put(Kind::Pod, pod);
            }
        }
        member
    }

    fn stateful_set(pods: usize) -> Self {
        let mut member = Self::default();
        let mut db = object(Kind::StatefulSet, "db", json!({"app": "db"}), None);
        db["spec"] = json!({
            "replicas": pods, "podManagementPolicy": "Parallel", "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "db", "image": "db:1"}]}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        });
        let hash = hash(&db);
        db["status"] = json!({"observedGeneration": 1, "replicas": pods, "updatedReplicas": pods, "updateRevision": hash, "currentRevision": hash});
        member.put(Kind::StatefulSet, db);
        for n in 0..pods {
            let labels = json!({"app": "db", labels::CONTROLLER_REVISION_HASH: hash});
            member.put(
                Kind::Pod,
                object(Kind::Pod, &format!("db-{n}"), labels, Some("uid-db")),
            );
        }
        member
    }

    fn does(&mut self, deed: &Deed) {
        self.clock += 1;
        match deed {
            Deed::Record(revision) => {
                self.revisions.insert(revision.number, (**revision).clone());
            }
            Deed::Patch { kind, name, patch } => {
                let Some(object) = self.objects.get_mut(&(*kind, name.clone())) else {
                    return;
                };
                // A stale view is refused.
                if version(object) != patch["metadata"]["resourceVersion"] {
                    return;
                }
                let before = object["spec"].clone();
                json_patch::merge(object, patch);
                object["metadata"]["resourceVersion"] = json!(format!("c{}", self.clock));
                if object["spec"] != before {
                    let generation = object["metadata"]["generation"].as_i64().unwrap_or(0);
                    object["metadata"]["generation"] = json!(generation + 1);
                }
            }
            Deed::Orphan { kind, name, uid } => {
                if self.objects.remove(&(*kind, name.clone())).is_some() {
                    for object in self
                        .objects
                        .values_mut()
                        .filter(|o| controller(o) == Some(uid))
                    {
                        object["metadata"]["ownerReferences"] = Value::Null;
                    }
                }
            }
            Deed::Serve { name, .. } => {
                if let Some(pod) = self.objects.get_mut(&(Kind::Pod, name.clone())) {
                    pod["status"]["conditions"] =
                        json!([{"type": labels::IN_SERVICE, "status": "True"}]);
                }
            }
            Deed::Create { kind, object } => {
                let mut object = (**object).clone();
                object["metadata"]["uid"] =
                    json!(format!("uid-{}-{}", kind.gvk().2, name(&object)));
                object["metadata"]["resourceVersion"] = json!(format!("c{}", self.clock));
                self.put(*kind, object);
            }
        }
    }

    /// What the controllers do about it.
    fn react(&mut self) {
        for (_, set) in self
            .objects
            .iter_mut()
            .filter(|((k, _), _)| *k == Kind::StatefulSet)
        {
            set["status"]["observedGeneration"] = set["metadata"]["generation"].clone();
            set["status"]["updateRevision"] = json!(hash(set));
        }
        for set in self.of(Kind::StatefulSet) {
            let hash = set["status"]["updateRevision"].clone();
            let partition = set["spec"]["updateStrategy"]["rollingUpdate"]["partition"]
                .as_i64()
                .unwrap_or(0);
            let mut updated = 0;
            for pod in self
                .of(Kind::Pod)
                .iter()
                .filter(|p| controller(p) == Some(uid(&set)))
            {
                let ordinal: i64 = name(pod).rsplit('-').next().unwrap().parse().unwrap();
                if labels_of(pod)[labels::CONTROLLER_REVISION_HASH] == hash {
                    updated += 1;
                } else if ordinal >= partition {
                    // It would be replaced: the test sees it gone.
                    self.objects.remove(&(Kind::Pod, name(pod).to_owned()));
                }
            }
            let set = self
                .objects
                .get_mut(&(Kind::StatefulSet, name(&set).to_owned()))
                .unwrap();
            set["status"]["updatedReplicas"] = json!(updated);
        }
        for set in self.of(Kind::ReplicaSet) {
            self.objects
                .get_mut(&(Kind::ReplicaSet, name(&set).to_owned()))
                .unwrap()["status"]["observedGeneration"] = set["metadata"]["generation"].clone();
            let selector = set["spec"]["selector"]["matchLabels"].clone();
            let wished = set["spec"]["replicas"].as_i64().unwrap_or(0);
            let mut owned = 0;
            for (_, pod) in self
                .objects
                .iter_mut()
                .filter(|((k, _), _)| *k == Kind::Pod)
            {
                if controller(pod).is_none()
                    && selector.is_object()
                    && has_labels(pod, &selector)
                    && owned < wished
                {
                    pod["metadata"]["ownerReferences"] =
                        json!([{"uid": uid(&set), "controller": true}]);
                }
                owned += i64::from(controller(pod) == Some(uid(&set)));
            }
            for n in owned..wished {
                // One too many is as bad as one too few.
                self.put(
                    Kind::Pod,
                    object(
                        Kind::Pod,
                        &format!("{}-new{n}", name(&set)),
                        json!({}),
                        Some(uid(&set)),
                    ),
                );
            }
        }
    }

    fn found(&self, adopt: &Adopt) -> Found {
        let kind = match adopt.kind {
            AdoptKind::Deployment => Kind::Deployment,
            AdoptKind::StatefulSet => Kind::StatefulSet,
        };
        let workload = self.objects.get(&(kind, adopt.name.clone())).cloned();
        let mut owners: Vec<String> = workload.iter().map(|w| uid(w).to_owned()).collect();
        let mut sets = self.of(Kind::ReplicaSet);
        sets.retain(|s| match &workload {
            Some(workload) => controller(s) == Some(uid(workload)),
            None => !labels_of(s)[labels::ADOPTING].is_null(),
        });
        owners.extend(sets.iter().map(|s| uid(s).to_owned()));
        let mut pods = self.of(Kind::Pod);
        pods.retain(|p| controller(p).is_some_and(|c| owners.iter().any(|o| o == c)));
        let cells = [("node-0", "a"), ("node-1", "b")].map(|(n, c)| (n.to_owned(), c.to_owned()));
        Found {
            workload,
            sets,
            pods,
            cells: cells.into(),
            guests: self.of(Kind::Pod).len() as i32,
        }
    }
}

/// Changes with the template alone.
fn hash(set: &Value) -> String {
    render::digest(&set["spec"]["template"])
}

fn adopt(kind: AdoptKind) -> Adopt {
    let name = match kind {
        AdoptKind::Deployment => "web",
        AdoptKind::StatefulSet => "db",
    };
    Adopt {
        kind,
        name: name.into(),
        cell: "a".into(),
        replace: false,
    }
}

/// Adopts with a hub that dies after as many writes as `lives` says, again and again.
fn run(member: &mut Member, adopt: &Adopt, lives: &[usize]) -> Step {
    let (app, group) = (
        AppSpec::default(),
        GroupSpec {
            environment: "prod".into(),
            revision: RevisionSpec {
                image: "it:1".into(),
                ..RevisionSpec::default()
            },
            ..GroupSpec::default()
        },
    );
    let source = Source {
        app_name: "it",
        app: &app,
        group_name: "it-prod",
        group: &group,
    };
    let selector = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
    let before = member.pods();
    let mut lives = lives.iter().copied().chain(std::iter::repeat(usize::MAX));
    for _ in 0..200 {
        let found = member.found(adopt);
        let revisions = member.revisions.clone();
        let world = World {
            adopt,
            source,
            namespace: "shop",
            revisions: &revisions,
            selector: &selector,
            found: &found,
        };
        let step = plan(&world);
        if step.done() {
            return step;
        }
        for deed in step.deeds.iter().take(lives.next().unwrap()) {
            member.does(deed);
            assert_eq!(member.pods(), before, "{deed:?}");
        }
        member.react();
        assert_eq!(member.pods(), before, "{step:?}");
    }
    panic!("it never comes through: {:#?}", member.objects.keys());
}

#[test]
fn a_stateful_set_keeps_its_name_and_its_instances() {
    let mut member = Member::stateful_set(3);
    let step = run(&mut member, &adopt(AdoptKind::StatefulSet), &[]);
    assert_eq!(step.instances, 3);
    let set = &member.objects[&(Kind::StatefulSet, "db".into())];
    assert_eq!(labels_of(set)[labels::GROUP], "it-prod");
    assert_eq!(
        set["spec"]["updateStrategy"]["rollingUpdate"]["partition"],
        0
    );
    let template = &set["spec"]["template"];
    assert_eq!(template["spec"]["nodeSelector"]["zone"], "a");
    assert_eq!(labels_of(template)[labels::REVISION], "1");
    // Revision 1 is what ran, and no release takes it for the same as what it brings.
    let one = &member.revisions[&1];
    assert_eq!(one.template["spec"]["containers"][0]["image"], "db:1");
    assert!(one.template["spec"]["readinessGates"].is_null());
    for pod in member.of(Kind::Pod) {
        assert_eq!(labels_of(&pod)[labels::CELL], "a");
    }
}

#[test]
fn a_deployments_instances_become_guests_of_their_cells() {
    let mut member = Member::deployment(6);
    let step = run(&mut member, &adopt(AdoptKind::Deployment), &[]);
    assert_eq!(step.instances, 6);
    assert!(member.of(Kind::Deployment).is_empty() && member.of(Kind::ReplicaSet).is_empty());
    let cells: Vec<Value> = member
        .of(Kind::Pod)
        .iter()
        .map(|p| labels_of(p)[labels::CELL].clone())
        .collect();
    // A node of no cell of the group counts to the one that is named.
    assert_eq!(cells, ["a", "b", "a", "a", "b", "a"]);
    assert!(member.of(Kind::Pod).iter().all(|p| controller(p).is_none()));
}

#[test]
fn what_is_in_the_way_is_said_with_what_to_do() {
    let cases: [(AdoptKind, &str, Value, &str); 10] = [
        (
            AdoptKind::StatefulSet,
            "/spec/selector",
            json!({"matchLabels": {labels::GROUP: "other"}}),
            "would let go of its instances",
        ),
        (
            AdoptKind::Deployment,
            "/spec/selector",
            json!({"matchLabels": {labels::GROUP: "it-prod"}}),
            "",
        ),
        (
            AdoptKind::Deployment,
            "/status/updatedReplicas",
            json!(1),
            "in the middle of a rollout",
        ),
        (
            AdoptKind::Deployment,
            "/metadata/deletionTimestamp",
            json!("2026-01-01T00:00:00Z"),
            "being deleted",
        ),
        (
            AdoptKind::Deployment,
            "/metadata/ownerReferences",
            json!([{"controller": true, "uid": "u", "kind": "Rollout", "name": "r"}]),
            "Rollout/r controls it",
        ),
        (
            AdoptKind::StatefulSet,
            "/spec/ordinals",
            json!({"start": 5}),
            "count from 5",
        ),
        (
            AdoptKind::StatefulSet,
            "/status/currentRevision",
            json!("other"),
            "held on another revision",
        ),
        (
            AdoptKind::StatefulSet,
            "/spec/podManagementPolicy",
            json!("OrderedReady"),
            "",
        ),
        (
            AdoptKind::StatefulSet,
            "/metadata/annotations",
            json!({"meta.helm.sh/release-name": "r"}),
            "",
        ),
        (AdoptKind::Deployment, "/spec/paused", json!(true), ""),
    ];
    for (kind, path, value, fatal) in cases {
        let mut member = match kind {
            AdoptKind::Deployment => Member::deployment(2),
            AdoptKind::StatefulSet => Member::stateful_set(2),
        };
        let adopt = adopt(kind);
        for object in member
            .objects
            .values_mut()
            .filter(|o| o["kind"] == kind.as_str())
        {
            let (parent, field) = path.rsplit_once('/').unwrap();
            object.pointer_mut(parent).unwrap()[field] = value.clone();
        }
        let found = member.found(&adopt);
        let all = obstacles::of(kind, found.workload.as_ref().unwrap(), &found, "it-prod");
        let said: Vec<&Obstacle> = all.iter().filter(|o| o.fatal).collect();
        if fatal.is_empty() {
            assert!(said.is_empty(), "{path}: {said:?}");
            assert!(all.iter().any(|o| !o.remedy.is_empty()), "{path}");
        } else {
            assert!(
                said.len() == 1 && said[0].why.contains(fatal) && !said[0].remedy.is_empty(),
                "{path}: {said:?}"
            );
        }
    }
}

/// A Group that was left as a Deployment leaves pods with its own instances' names: its StatefulSet would take
/// them back, and delete what is beyond its number.
#[test]
fn pods_that_the_groups_own_set_would_take_are_in_the_way() {
    for (pod, taken) in [
        ("it-prod-a-0", true),
        ("it-prod-b-12", true),
        ("it-prod-c-0", false),
        ("it-prod-a-0x", false),
        ("it-prod-a", false),
        ("web-1-x0", false),
    ] {
        let mut member = Member::deployment(1);
        let labels = json!({"app": "web", labels::POD_TEMPLATE_HASH: "web-1"});
        member.put(Kind::Pod, object(Kind::Pod, pod, labels, Some("uid-web-1")));
        let found = member.found(&adopt(AdoptKind::Deployment));
        let workload = found.workload.as_ref().unwrap();
        let all = obstacles::of(AdoptKind::Deployment, workload, &found, "it-prod");
        assert_eq!(
            all.iter().any(|o| o.fatal && o.why.contains(pod)),
            taken,
            "{pod}"
        );
    }
}

#[test]
fn what_is_not_there_is_not_made() {
    let mut wish = adopt(AdoptKind::Deployment);
    wish.name = "wbe".into();
    let member = Member::deployment(1);
    let (app, group) = (AppSpec::default(), GroupSpec::default());
    let source = Source {
        app_name: "it",
        app: &app,
        group_name: "it-prod",
        group: &group,
    };
    let (selector, found, none) = (BTreeMap::new(), member.found(&wish), Revisions::new());
    let step = plan(&World {
        adopt: &wish,
        source,
        namespace: "shop",
        revisions: &none,
        selector: &selector,
        found: &found,
    });
    assert!(
        step.deeds.is_empty() && step.waits.contains("no Deployment wbe in namespace shop"),
        "{step:?}"
    );
}

/// A cell of a Group as the hub has made it.
fn managed(pods: usize, guests: usize) -> (Member, leave::World) {
    let template = json!({
        "metadata": {"labels": {labels::GROUP: "it-prod", labels::CELL: "a", labels::REVISION: "4"}},
        "spec": {"containers": [{"name": "it"}], "readinessGates": [{"conditionType": labels::IN_SERVICE}, {"conditionType": "other"}]},
    });
    let mut member = Member::stateful_set(pods);
    let mut set = member
        .objects
        .remove(&(Kind::StatefulSet, "db".into()))
        .unwrap();
    set["metadata"]["labels"] = template["metadata"]["labels"].clone();
    set["spec"]["template"] = template.clone();
    set["status"]["updateRevision"] = json!(hash(&set));
    let hash = hash(&set);
    member.put(Kind::StatefulSet, set);
    for (n, pod) in member
        .objects
        .iter_mut()
        .filter(|((k, _), _)| *k == Kind::Pod)
        .map(|(_, p)| p)
        .enumerate()
    {
        pod["metadata"]["labels"] = template["metadata"]["labels"].clone();
        pod["metadata"]["labels"][labels::CONTROLLER_REVISION_HASH] = json!(hash);
        pod["spec"] = template["spec"].clone();
        // The first is out of service.
        pod["status"]["conditions"] =
            json!([{"type": labels::IN_SERVICE, "status": if n == 0 { "False" } else { "True" }}]);
    }
    for n in 0..guests {
        member.put(
            Kind::Pod,
            object(
                Kind::Pod,
                &format!("web-x{n}"),
                json!({labels::GROUP: "it-prod", labels::CELL: "a"}),
                None,
            ),
        );
    }
    let world = leave::World {
        group: "it-prod".into(),
        namespace: "shop".into(),
        cell: "a".into(),
        template,
        ..leave::World::default()
    };
    (member, world)
}

fn leave(member: &mut Member, world: &leave::World, lives: &[usize]) {
    let before = member.pods();
    let mut lives = lives.iter().copied().chain(std::iter::repeat(usize::MAX));
    for _ in 0..200 {
        let get = |kind, name: &str| member.objects.get(&(kind, name.to_owned())).cloned();
        let name = world.deployment.clone().unwrap_or_default();
        let now = leave::World {
            set: get(Kind::StatefulSet, "db"),
            made: get(Kind::Deployment, &name),
            replica_set: get(Kind::ReplicaSet, &leave::replica_set_name(world, &name)),
            pods: member.of(Kind::Pod),
            ..world.clone()
        };
        let step = leave::plan(&now);
        if step.done() {
            return;
        }
        for deed in step.deeds.iter().take(lives.next().unwrap()) {
            member.does(deed);
        }
        member.react();
        assert_eq!(member.pods(), before, "{step:?}");
    }
    panic!("it never comes through");
}

#[test]
fn what_is_left_is_plain() {
    let (mut member, world) = managed(3, 0);
    leave(&mut member, &world, &[]);
    let set = &member.objects[&(Kind::StatefulSet, "db".into())];
    assert!(labels_of(set)[labels::GROUP].is_null());
    assert_eq!(
        set["spec"]["template"]["spec"]["readinessGates"],
        json!([{"conditionType": "other"}])
    );
    assert_eq!(
        set["spec"]["updateStrategy"]["rollingUpdate"]["partition"],
        0
    );
    let open = |p: &Value| p["status"]["conditions"][0]["status"] == "True";
    assert!(member.of(Kind::Pod).iter().all(open));

    let (mut member, mut world) = managed(2, 3);
    world.deployment = Some("web".into());
    leave(&mut member, &world, &[]);
    assert!(member.of(Kind::StatefulSet).is_empty());
    let made = &member.objects[&(Kind::Deployment, "web".into())];
    assert_eq!(made["spec"]["replicas"], 5);
    let set = &member.of(Kind::ReplicaSet)[0];
    assert!(
        member
            .of(Kind::Pod)
            .iter()
            .all(|p| controller(p) == Some(uid(set)))
    );
    // The Deployment takes the ReplicaSet for its own: same template but for the hash, and selected by it.
    let mut template = set["spec"]["template"].clone();
    template["metadata"]["labels"]
        .as_object_mut()
        .unwrap()
        .remove(labels::POD_TEMPLATE_HASH);
    assert_eq!(template, made["spec"]["template"]);
    assert!(has_labels(set, &made["spec"]["selector"]["matchLabels"]));
}

proptest! {
    /// Whenever the hub dies, what it left goes on where it was, and no instance is touched.
    #[test]
    fn a_crash_between_any_two_writes_loses_nothing(
        lives in prop::collection::vec(0usize..4, 0..40), pods in 0usize..6, guests in 0usize..3, deployment in any::<bool>(),
    ) {
        let kind = if deployment { AdoptKind::Deployment } else { AdoptKind::StatefulSet };
        let mut member = if deployment { Member::deployment(pods) } else { Member::stateful_set(pods) };
        let step = run(&mut member, &adopt(kind), &lives);
        prop_assert_eq!(step.instances as usize, pods);
        let (mut member, mut world) = managed(pods, if deployment { guests } else { 0 });
        world.deployment = deployment.then(|| "web".to_owned());
        leave(&mut member, &world, &lives);
    }
}
