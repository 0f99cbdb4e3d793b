//! Adoption and leaving: workloads of a member become Groups at some moment, live as such for a while, are
//! handed back, and may be adopted anew; the real planners, on what the real reads show of a member whose
//! controllers go on at their own pace. Between any two calls the hub may end, a response may be lost, and
//! each read may be older than the truth.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
};

use gantry_api::{
    AppSpec, GroupSpec, RevisionSpec,
    group::{Adopt, AdoptKind},
    labels,
};
use gantry_hub::{
    adopt::{self, Deed, Kind, controller, labels_of, leave, name, read, uid},
    render::{self, Source},
    world::Revisions,
};
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::objects::Objects;

const GROUP: &str = "it-prod";
const CELL: &str = "a";

/// Where the workload stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Plain,
    Adopting,
    Managed,
    Leaving,
}

#[derive(Clone, Copy, Debug)]
struct Faults {
    crash: f64,
    lost_response: f64,
    stale: f64,
    death: f64,
}

pub struct Run {
    rng: ChaCha8Rng,
    verbose: bool,
    truth: Objects,
    /// What was so a while ago: a read may show it.
    past: Vec<Objects>,
    faults: Faults,
    stage: Stage,
    kind: AdoptKind,
    workload: String,
    /// How many instances people want.
    wish: i64,
    deployment: bool,
    revisions: Revisions,
    /// Instances may be replaced: people bring other images, and nobody has adopted anything.
    people_roll_out: bool,
    /// UIDs of pods that the weather or people took: those may be gone.
    taken: BTreeSet<String>,
    /// Every pod that was there, with its name and address.
    known: BTreeMap<String, (String, Value)>,
    pub met: BTreeSet<&'static str>,
}

/// Reads of one look: each is from some moment, and none from before the one before it.
struct Look<'a> {
    moments: Vec<&'a Objects>,
    next: std::sync::Mutex<usize>,
    picks: Vec<usize>,
}

impl Look<'_> {
    fn moment(&self) -> &Objects {
        let mut next = self.next.lock().unwrap();
        let pick = self.picks[(*next).min(self.picks.len() - 1)];
        *next += 1;
        self.moments[pick]
    }
}

impl read::Reader for Look<'_> {
    type Error = Infallible;

    async fn get(&self, kind: Kind, name: &str) -> Result<Option<Value>, Infallible> {
        Ok(self.moment().get(kind, name).cloned())
    }

    async fn list(&self, kind: Kind, selector: &str) -> Result<Vec<Value>, Infallible> {
        let wanted: Vec<(&str, &str)> = selector
            .split(',')
            .filter_map(|pair| pair.split_once('='))
            .collect();
        let mut all = self.moment().of(kind);
        all.retain(|o| wanted.iter().all(|(k, v)| labels_of(o)[*k] == **v));
        Ok(all)
    }
}

impl Run {
    pub fn new(seed: u64, verbose: bool) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let deployment = rng.random_bool(0.5);
        let wish = rng.random_range(0..=6);
        let mut truth = Objects::default();
        let workload = if deployment { "web" } else { "db" };
        truth.make_workload(deployment, workload, wish);
        let faults = Faults {
            crash: *[0.0, 0.05, 0.3].choose(&mut rng).unwrap(),
            lost_response: *[0.0, 0.05, 0.2].choose(&mut rng).unwrap(),
            stale: *[0.0, 0.3, 0.7].choose(&mut rng).unwrap(),
            death: *[0.0, 0.0, 0.002, 0.01].choose(&mut rng).unwrap(),
        };
        Self {
            rng,
            verbose,
            truth,
            past: Vec::new(),
            faults,
            stage: Stage::Plain,
            kind: if deployment {
                AdoptKind::Deployment
            } else {
                AdoptKind::StatefulSet
            },
            workload: workload.to_owned(),
            wish,
            deployment: false,
            revisions: Revisions::new(),
            people_roll_out: true,
            taken: BTreeSet::new(),
            known: BTreeMap::new(),
            met: BTreeSet::new(),
        }
    }

    fn log(&self, line: impl FnOnce() -> String) {
        if self.verbose {
            println!("{}", line());
        }
    }

    /// A few lives of the workload: plain, a Group, plain again.
    pub fn run(&mut self) -> Result<(), String> {
        for round in 0..self.rng.random_range(1..=3) {
            self.people_roll_out = true;
            // Pods that a Group has left are replaced first: its set would take those with its names.
            if round > 0 {
                self.roll_out();
            }
            self.some_time(|run| {
                if run.rng.random_bool(0.1) {
                    run.roll_out();
                }
            })?;
            // The planner waits for the end of a rollout, as a table of its obstacles says; here it has ended.
            self.rest()?;
            self.people_roll_out = false;
            self.log(|| format!("round {round}: adopt {:?}", self.kind));
            self.stage = Stage::Adopting;
            self.come_through()?;
            self.met.insert(match self.kind {
                AdoptKind::Deployment => "Deployment adopted",
                AdoptKind::StatefulSet => "StatefulSet adopted",
            });
            self.stage = Stage::Managed;
            self.managed()?;
            self.some_time(|_| ())?;
            self.leave()?;
            self.plain()?;
        }
        Ok(())
    }

    fn some_time(&mut self, mut people: impl FnMut(&mut Self)) -> Result<(), String> {
        for _ in 0..self.rng.random_range(5..20) {
            people(self);
            self.tick()?;
        }
        Ok(())
    }

    /// So many moments that all controllers have done what they wanted.
    fn rest(&mut self) -> Result<(), String> {
        let death = std::mem::take(&mut self.faults.death);
        for _ in 0..25 {
            self.tick()?;
        }
        self.faults.death = death;
        Ok(())
    }

    /// Until the planner says that it is done; with the faults over after a while.
    fn come_through(&mut self) -> Result<(), String> {
        let faults = self.faults;
        for patience in 0..600 {
            if patience == 300 {
                self.faults = Faults {
                    crash: 0.0,
                    lost_response: 0.0,
                    stale: 0.0,
                    death: 0.0,
                };
            }
            if patience < 200 && self.stage == Stage::Adopting && self.rng.random_bool(0.02) {
                self.scale();
            }
            self.tick()?;
            if self.rng.random_bool(0.7) && self.hub() {
                self.faults = faults;
                return Ok(());
            }
        }
        Err(format!("{:?} never comes through", self.stage))
    }

    /// One look of the hub, and its deeds as far as it gets; whether nothing is left to do.
    fn hub(&mut self) -> bool {
        let mut picks = Vec::new();
        let moments: Vec<&Objects> = self.past.iter().chain([&self.truth]).collect();
        let mut from = 0;
        for _ in 0..6 {
            let newest = moments.len() - 1;
            if !self.rng.random_bool(self.faults.stale) {
                from = newest;
            } else if from < newest {
                from = self.rng.random_range(from..=newest);
            }
            picks.push(from);
        }
        let look = Look {
            moments,
            next: 0.into(),
            picks,
        };
        let step = match self.stage {
            Stage::Adopting => self.plan_adoption(&look),
            _ => self.plan_leaving(&look),
        };
        self.log(|| format!("  {}: {} deeds", step.waits, step.deeds.len()));
        for deed in &step.deeds {
            if self.rng.random_bool(self.faults.crash) {
                self.met.insert("crash between deeds");
                return false;
            }
            self.log(|| format!("  {deed:?}"));
            let taken = match deed {
                Deed::Record(revision) => {
                    self.revisions.insert(revision.number, (**revision).clone());
                    true
                }
                Deed::Patch { kind, name, patch } => self.truth.patch(*kind, name, patch),
                Deed::Orphan { kind, name, uid } => self.truth.orphan(*kind, name, uid),
                Deed::Serve { name, version } => self.truth.serve(name, version),
                Deed::Create { kind, object } => self.truth.create(*kind, (**object).clone()),
            };
            if !taken {
                self.met.insert("refused");
                return false;
            }
            if self.rng.random_bool(self.faults.lost_response) {
                self.met.insert("lost response");
                return false;
            }
        }
        step.done()
    }

    fn plan_adoption(&self, look: &Look<'_>) -> adopt::Step {
        let (app, group) = (AppSpec::default(), group_spec());
        let wish = Adopt {
            kind: self.kind,
            name: self.workload.clone(),
            cell: CELL.to_owned(),
            replace: false,
        };
        let mut found = futures::executor::block_on(read::found(look, &wish, GROUP)).unwrap();
        let guest = |p: &Value| controller(p).is_none() && labels_of(p)[labels::GROUP] == GROUP;
        found.guests = self.truth.of(Kind::Pod).iter().filter(|p| guest(p)).count() as i32;
        adopt::plan(&adopt::World {
            adopt: &wish,
            source: Source {
                app_name: "it",
                app: &app,
                group_name: GROUP,
                group: &group,
            },
            namespace: "shop",
            revisions: &self.revisions,
            selector: &BTreeMap::new(),
            found: &found,
        })
    }

    /// Name of the Group's StatefulSet in the cell.
    fn set_name(&self) -> String {
        match self.kind {
            AdoptKind::StatefulSet => self.workload.clone(),
            AdoptKind::Deployment => format!("{}-{CELL}", GROUP),
        }
    }

    fn template(&self) -> Value {
        let revision = self.revisions.values().next_back().unwrap();
        render::cell_template(revision, CELL, &BTreeMap::new())
    }

    fn plan_leaving(&self, look: &Look<'_>) -> adopt::Step {
        let set = self.set_name();
        let world = leave::World {
            group: GROUP.to_owned(),
            namespace: "shop".to_owned(),
            cell: CELL.to_owned(),
            deployment: self.deployment.then(|| match self.kind {
                AdoptKind::Deployment => self.workload.clone(),
                AdoptKind::StatefulSet => set.clone(),
            }),
            template: self.template(),
            ..leave::World::default()
        };
        let world = futures::executor::block_on(read::left(look, world, &set)).unwrap();
        leave::plan(&world)
    }

    /// The Group is there: all pods that lived are its instances.
    fn managed(&mut self) -> Result<(), String> {
        for pod in self.truth.of(Kind::Pod) {
            if labels_of(&pod)[labels::GROUP] != GROUP || labels_of(&pod)[labels::CELL] != CELL {
                return Err(format!("{} is no instance of the group", name(&pod)));
            }
        }
        if self.kind == AdoptKind::Deployment
            && !(self.truth.of(Kind::ReplicaSet).is_empty()
                && self.truth.of(Kind::Deployment).is_empty())
        {
            return Err("something else still keeps the instances".to_owned());
        }
        Ok(())
    }

    /// What the Group's planner does for a cell: the set has what the guests have not.
    fn group(&mut self) {
        let guests = self
            .truth
            .live()
            .filter(|p| controller(p).is_none())
            .count() as i64;
        let rest = (self.wish - guests).max(0);
        let name = self.set_name();
        match self.truth.get(Kind::StatefulSet, &name) {
            Some(set) if set["spec"]["replicas"] != rest => {
                let patch = json!({"metadata": {"resourceVersion": adopt::version(set)}, "spec": {"replicas": rest}});
                if set["spec"]["replicas"].as_i64() > Some(rest) {
                    self.truth.surplus(&name, rest, &mut self.taken);
                }
                self.truth.patch(Kind::StatefulSet, &name, &patch);
            }
            None if rest > 0 => {
                self.met.insert("named instances beside guests");
                let own = json!({labels::GROUP: GROUP, labels::CELL: CELL});
                let set = json!({
                    "metadata": {"name": name, "labels": own},
                    "spec": {"replicas": rest, "selector": {"matchLabels": own}, "template": self.template(),
                        "podManagementPolicy": "Parallel", "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}},
                });
                self.truth.create(Kind::StatefulSet, set);
            }
            _ => {}
        }
        // Gates: most are open.
        for pod in self.truth.of(Kind::Pod) {
            if self.rng.random_bool(0.3) && labels_of(&pod)[labels::GROUP] == GROUP {
                let open = self.rng.random_bool(0.8);
                self.truth.gate(adopt::name(&pod), open);
            }
        }
    }

    fn leave(&mut self) -> Result<(), String> {
        let guests = self.truth.live().any(|p| controller(p).is_none());
        self.deployment = guests || self.rng.random_bool(0.5);
        self.log(|| format!("leaves, as a deployment: {}", self.deployment));
        // What the hub itself has written before it reads, it reads.
        self.past.clear();
        self.stage = Stage::Leaving;
        self.come_through()?;
        self.stage = Stage::Plain;
        self.revisions.clear();
        if self.deployment {
            if self.kind == AdoptKind::StatefulSet {
                self.workload = self.set_name();
            }
            self.kind = AdoptKind::Deployment;
            self.met.insert("left as a Deployment");
        } else {
            self.workload = self.set_name();
            self.kind = AdoptKind::StatefulSet;
            self.met.insert("left as a StatefulSet");
        }
        Ok(())
    }

    /// What was left is a plain workload that runs on: it has all instances, keeps them, and brings back one
    /// that is lost.
    fn plain(&mut self) -> Result<(), String> {
        self.rest()?;
        let kind = if self.deployment {
            Kind::Deployment
        } else {
            Kind::StatefulSet
        };
        let made = self.truth.get(kind, &self.workload).cloned();
        let Some(made) = made else {
            // A cell without instances has nothing to hand back.
            return if self.truth.live().count() == 0 {
                self.anew()
            } else {
                Err("nothing was left".to_owned())
            };
        };
        if !labels_of(&made)[labels::GROUP].is_null() && kind == Kind::StatefulSet {
            return Err("the StatefulSet bears the group's label".to_owned());
        }
        self.wish = made["spec"]["replicas"].as_i64().unwrap_or(1);
        let live: Vec<Value> = self.truth.live().cloned().collect();
        if live.len() as i64 != self.wish || live.iter().any(|p| controller(p).is_none()) {
            return Err(format!(
                "{} of {} instances run, or are nobody's",
                live.len(),
                self.wish
            ));
        }
        if let Some(pod) = live.first() {
            self.taken.insert(uid(pod).to_owned());
            self.truth.kill(name(pod));
            self.rest()?;
            if self.truth.live().count() as i64 != self.wish {
                return Err("an instance that was lost does not come back".to_owned());
            }
            self.met.insert("brought back after leaving");
        }
        Ok(())
    }

    fn anew(&mut self) -> Result<(), String> {
        let deployment = self.kind == AdoptKind::Deployment;
        self.workload = "again".to_owned();
        self.truth.make_workload(deployment, "again", self.wish);
        Ok(())
    }

    /// People want another number of what they have.
    fn scale(&mut self) {
        let kind = match self.kind {
            AdoptKind::Deployment => Kind::Deployment,
            AdoptKind::StatefulSet => Kind::StatefulSet,
        };
        let Some(object) = self.truth.get(kind, &self.workload).cloned() else {
            return;
        };
        let wish = self.wish + 1;
        let patch = json!({"metadata": {"resourceVersion": adopt::version(&object)}, "spec": {"replicas": wish}});
        if object["metadata"]["deletionTimestamp"].is_null()
            && self.truth.patch(kind, &self.workload, &patch)
        {
            self.log(|| format!("  people scale to {wish}"));
            self.wish = wish;
            self.met.insert("scaled meanwhile");
        }
    }

    /// People bring another image, before anyone adopts: instances are replaced.
    fn roll_out(&mut self) {
        if self.kind != AdoptKind::Deployment {
            return;
        }
        let Some(object) = self.truth.get(Kind::Deployment, &self.workload).cloned() else {
            return;
        };
        let image = format!("it:{}", self.rng.random_range(2..100));
        let spec = json!({"template": {"spec": {"containers": [{"name": "it", "image": image}]}}});
        let patch = json!({"metadata": {"resourceVersion": adopt::version(&object)}, "spec": spec});
        self.truth.patch(Kind::Deployment, &self.workload, &patch);
        self.taken
            .extend(self.truth.live().map(|p| uid(p).to_owned()));
        self.met.insert("rolled out before");
    }

    /// A moment of the member: each controller may have its turn.
    fn tick(&mut self) -> Result<(), String> {
        self.past.push(self.truth.clone());
        if self.past.len() > 4 {
            self.past.remove(0);
        }
        for pod in self.truth.of(Kind::Pod) {
            if self.rng.random_bool(self.faults.death) {
                self.log(|| format!("  {} dies", name(&pod)));
                self.met.insert("an instance died");
                self.taken.insert(uid(&pod).to_owned());
                self.truth.kill(name(&pod));
            }
        }
        if self.stage == Stage::Managed {
            self.group();
        }
        self.truth.controllers(&mut self.rng);
        self.check()
    }

    fn check(&mut self) -> Result<(), String> {
        let pods = self.truth.of(Kind::Pod);
        let now: BTreeMap<&str, &Value> = pods.iter().map(|p| (uid(p), p)).collect();
        for (uid, (name, address)) in &self.known {
            match now.get(uid.as_str()) {
                None if !self.taken.contains(uid) && !self.people_roll_out => {
                    return Err(format!("{name} is lost"));
                }
                Some(pod) if pod["status"]["podIP"] != *address || adopt::name(pod) != name => {
                    return Err(format!("{name} has another name or address"));
                }
                Some(pod) if pod["status"]["restarts"] != 0 => {
                    return Err(format!("{name} was restarted"));
                }
                _ => {}
            }
        }
        for pod in &pods {
            let owners = pod["metadata"]["ownerReferences"].as_array();
            let owners = owners
                .into_iter()
                .flatten()
                .filter(|o| o["controller"] == true);
            if owners.count() > 1 {
                return Err(format!("{} has two owners", name(pod)));
            }
            // Those that would each make up for it when it is gone.
            let keepers: Vec<&str> = self.truth.keepers(pod);
            if keepers.len() > 1 {
                return Err(format!("{} is kept by {keepers:?}", name(pod)));
            }
            if self.people_roll_out {
                continue;
            }
            let entry = (name(pod).to_owned(), pod["status"]["podIP"].clone());
            self.known.entry(uid(pod).to_owned()).or_insert(entry);
        }
        let live = self
            .truth
            .live()
            .filter(|p| !self.taken.contains(uid(p)))
            .count() as i64;
        if self.stage != Stage::Plain && live > self.wish {
            return Err(format!(
                "{live} instances run where {} are wanted",
                self.wish
            ));
        }
        Ok(())
    }
}

fn group_spec() -> GroupSpec {
    GroupSpec {
        environment: "prod".into(),
        revision: RevisionSpec {
            image: "it:1".into(),
            ..RevisionSpec::default()
        },
        ..GroupSpec::default()
    }
}
