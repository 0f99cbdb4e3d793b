//! Keeps Services and their IPAddresses in step: one that is lost is made again, one that nobody has
//! goes, and what cannot be mended is told as an event. It also brings back the range that the server is
//! configured with and the `kubernetes` Service when somebody deletes them.
//!
//! Behaviour is that of kube-apiserver's `ipallocator-repair-controller` of Kubernetes 1.36, but that a
//! lost IPAddress is made again at once.

use std::{
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use gantry_machinery::status::Failure;
use gantry_store::{Batch, EventKind, Key, Lagged};
use jiff::Timestamp;
use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::{Value, json};

use super::{
    ADDRESSES, RANGES,
    addresses::{self, Address, Mend},
    ranges_of, service_addresses,
};
use crate::{
    api::Api,
    bootstrap, object,
    rest::create::{self, Ownership},
};

/// Until then, whoever makes a Service after its address may still be about to do it.
const GRACE: Duration = Duration::from_secs(60);
/// How long is waited when something could not be done.
const AGAIN: Duration = Duration::from_secs(5);

const SERVICES: &str = "/services";

/// A Service as far as its addresses go.
#[derive(Debug, Clone, Default)]
struct Service {
    namespace: String,
    name: String,
    addresses: Vec<u32>,
}

impl Service {
    fn of(object: &Value) -> Service {
        Service {
            namespace: object::meta_text(object, "namespace").to_owned(),
            name: object::name(object).to_owned(),
            addresses: service_addresses(object),
        }
    }
}

/// What is wrong with one address, and what is done about it.
#[derive(Debug, PartialEq, Eq)]
struct Finding<'a> {
    address: String,
    mend: Option<Mend<'a>>,
    reason: &'static str,
    action: &'static str,
    note: String,
}

/// What is wrong with a Service's addresses. `address` answers the object of one, `has` whether a
/// Service that is named has an address.
fn look_at_service<'a>(
    service: &'a Service,
    in_range: impl Fn(u32) -> bool,
    address: impl Fn(&str) -> Option<Address>,
    has: impl Fn(&(String, String), u32) -> Option<bool>,
) -> Vec<Finding<'a>> {
    let own = (service.namespace.as_str(), service.name.as_str());
    let subject = format!("Service {}/{}", own.0, own.1);
    let mut found = vec![];
    for ip in &service.addresses {
        let text = Ipv4Addr::from(*ip).to_string();
        let mut find = |mend, reason, note: String| {
            found.push(Finding {
                address: text.clone(),
                mend,
                reason,
                action: "ClusterIPAllocation",
                note,
            });
        };
        let again = Some(Mend::Recreate { service: own });
        if !in_range(*ip) {
            let note = format!(
                "Cluster IP [IPv4]: {text} is not within any configured Service CIDR; please recreate service"
            );
            find(None, "ClusterIPOutOfRange", note);
            continue;
        }
        let Some(there) = address(&text) else {
            let note = format!("Cluster IP [IPv4]: {text} is not allocated; repairing");
            find(
                Some(Mend::Create { service: own }),
                "ClusterIPNotAllocated",
                note,
            );
            continue;
        };
        let wrong =
            format!("the ClusterIP [IPv4]: {text} for {subject} has a wrong reference; repairing");
        let Some(parent) = &there.service else {
            find(again, "ClusterIPNotAllocated", wrong);
            continue;
        };
        if (parent.0.as_str(), parent.1.as_str()) != own {
            match has(parent, *ip) {
                None => {
                    find(again, "ClusterIPNotAllocated", wrong);
                    continue;
                }
                Some(true) => {
                    let note = format!(
                        "Cluster IP [IPv4]:{text} was assigned to multiple services; please recreate service"
                    );
                    find(None, "ClusterIPAlreadyAllocated", note);
                    continue;
                }
                // The object is wrong about that one, which is found where it is looked at.
                Some(false) => continue,
            }
        }
        if !there.managed || !there.family {
            find(again, "", String::new());
        }
    }
    found
}

/// What becomes of an object of an address.
#[derive(Debug, PartialEq, Eq)]
enum Fate<'a> {
    Stays,
    /// Nobody has it; looked at again after this long.
    Waits(Duration),
    Goes(Finding<'a>),
}

/// What becomes of one that is kept here. `has` as above.
fn look_at_address<'a>(
    address: &Address,
    now: Timestamp,
    has: impl Fn(&(String, String)) -> Option<bool>,
) -> Fate<'a> {
    if !address.managed {
        return Fate::Stays;
    }
    let name = &address.name;
    let goes = |reason, note| {
        Fate::Goes(Finding {
            address: name.clone(),
            mend: Some(Mend::Remove),
            reason,
            action: "IPAddressAllocation",
            note,
        })
    };
    let Some(parent) = &address.service else {
        let note = format!(
            "IPAddress {name} appears to have been modified, not referencing a Service: cleaning up"
        );
        return goes("IPAddressNotAllocated", note);
    };
    let subject = format!("IPAddress: {name} for Service {}/{}", parent.0, parent.1);
    match has(parent) {
        Some(true) => Fate::Stays,
        Some(false) => {
            let note = format!("{subject} has a wrong reference; cleaning up");
            goes("IPAddressWrongReference", note)
        }
        None => {
            let age = address.created.map_or(GRACE, |created| {
                now.duration_since(created).try_into().unwrap_or_default()
            });
            match GRACE.checked_sub(age).filter(|left| !left.is_zero()) {
                Some(left) => Fate::Waits(left),
                None => goes(
                    "IPAddressNotAllocated",
                    format!("{subject} appears to have leaked: cleaning up"),
                ),
            }
        }
    }
}

/// What is to be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Work {
    /// By its name in the store.
    Service(Arc<str>),
    Address(Arc<str>),
    /// The configured range and the Service of the server.
    Own,
}

struct Repair {
    api: Arc<Api>,
    /// When something is looked at again.
    due: FxHashMap<Work, Instant>,
    /// What cannot be mended and has been told.
    told: FxHashSet<(Arc<str>, String, &'static str)>,
}

/// Repairs until the server stops.
pub async fn run(api: Arc<Api>) {
    let stop = api.stop.clone();
    let mut repair = Repair {
        api,
        due: FxHashMap::default(),
        told: FxHashSet::default(),
    };
    let forever = async { while repair.follow().await.is_ok() {} };
    tokio::select! {
        () = forever => {}
        () = stop.cancelled() => {}
    }
}

impl Repair {
    /// Looks at everything and then at what changes, until a watch has fallen behind.
    async fn follow(&mut self) -> Result<(), Lagged> {
        let store = self.api.store.clone();
        let watch = |bucket: &str| store.watch(bucket, store.revision()).ok();
        let (Some(mut services), Some(mut addresses), Some(mut ranges)) =
            (watch(SERVICES), watch(ADDRESSES), watch(RANGES))
        else {
            tokio::time::sleep(AGAIN).await;
            return Ok(());
        };
        for stored in store.snapshot(SERVICES).iter() {
            self.look(Work::Service(stored.key.name.clone())).await;
        }
        for stored in store.snapshot(ADDRESSES).iter() {
            self.look(Work::Address(stored.key.name.clone())).await;
        }
        self.look(Work::Own).await;
        loop {
            let next = self.due.values().min().copied();
            let soon = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let batch = tokio::select! {
                batch = services.next() => batch,
                batch = addresses.next() => batch,
                batch = ranges.next() => batch,
                () = soon => {
                    let now = Instant::now();
                    let due: Vec<Work> = self.due.extract_if(|_, at| *at <= now).map(|(work, _)| work).collect();
                    for work in due {
                        self.look(work).await;
                    }
                    continue;
                }
            };
            match batch {
                Ok(batch) => {
                    for work in work_of(&batch) {
                        self.look(work).await;
                    }
                }
                Err(Lagged::Closed) => return Err(Lagged::Closed),
                Err(_) => return Ok(()),
            }
        }
    }

    async fn look(&mut self, work: Work) {
        let looked = match &work {
            Work::Service(name) => self.service(name).await,
            Work::Address(name) => self.address(name).await,
            Work::Own => self.own().await,
        };
        match looked {
            Ok(None) => {}
            Ok(Some(left)) => {
                self.due.insert(work, Instant::now() + left);
            }
            Err(failure) => {
                tracing::warn!(%failure, ?work, "repairing addresses of Services");
                self.due.insert(work, Instant::now() + AGAIN);
            }
        }
    }

    fn read(&self, bucket: &str, name: &str) -> Result<Option<Value>, Failure> {
        let stored = self.api.store.get(&Key::new(bucket, name));
        stored.map(|s| object::parse(&s.value)).transpose()
    }

    /// Whether a Service has an address; `None`: there is no such Service.
    fn has(&self, (namespace, name): &(String, String), ip: u32) -> Option<bool> {
        let there = self.read(SERVICES, &format!("{namespace}/{name}")).ok()??;
        Some(service_addresses(&there).contains(&ip))
    }

    async fn service(&mut self, name: &Arc<str>) -> Result<Option<Duration>, Failure> {
        let Some(object) = self.read(SERVICES, name)? else {
            self.told.retain(|(service, ..)| service != name);
            return Ok(None);
        };
        let service = Service::of(&object);
        let ranges = self.api.store.snapshot(RANGES);
        let in_range = |ip: u32| {
            ranges.is_empty()
                || ranges.iter().any(|stored| {
                    let range = object::parse(&stored.value).unwrap_or_default();
                    ranges_of(&range).0.iter().any(|subnet| subnet.has(ip))
                })
        };
        let address = |ip: &str| Some(Address::of(&self.read(ADDRESSES, ip).ok()??));
        let has = |parent: &(String, String), ip| self.has(parent, ip);
        for finding in look_at_service(&service, in_range, address, has) {
            if finding.mend.is_some()
                || self
                    .told
                    .insert((name.clone(), finding.address.clone(), finding.reason))
            {
                self.tell("v1", "Service", &object, &finding).await;
            }
            if let Some(mend) = finding.mend {
                addresses::mend(&self.api, &finding.address, mend).await?;
            }
        }
        Ok(None)
    }

    async fn address(&mut self, name: &Arc<str>) -> Result<Option<Duration>, Failure> {
        let (Some(object), Ok(ip)) = (self.read(ADDRESSES, name)?, name.parse::<Ipv4Addr>()) else {
            return Ok(None);
        };
        let has = |parent: &(String, String)| self.has(parent, ip.into());
        match look_at_address(&Address::of(&object), Timestamp::now(), has) {
            Fate::Stays => Ok(None),
            Fate::Waits(left) => Ok(Some(left)),
            Fate::Goes(finding) => {
                self.tell("networking.k8s.io/v1", "IPAddress", &object, &finding)
                    .await;
                addresses::mend(&self.api, name, Mend::Remove).await?;
                Ok(None)
            }
        }
    }

    /// Brings back what the server cannot be without.
    async fn own(&self) -> Result<Option<Duration>, Failure> {
        bootstrap::range(&self.api).await?;
        bootstrap::service(&self.api).await?;
        Ok(None)
    }

    /// Writes an event. That it is missed does no harm.
    async fn tell(&self, version: &str, kind: &str, about: &Value, finding: &Finding<'_>) {
        if finding.reason.is_empty() {
            return;
        }
        let namespace = match object::meta_text(about, "namespace") {
            "" => "default",
            namespace => namespace,
        };
        let Some(mut cx) = bootstrap::own(&self.api, "", "v1", "events", namespace) else {
            return;
        };
        let name = object::name(about);
        let event = json!({
            "metadata": {"name": format!("{name}.{:x}", rand::random::<u64>()), "namespace": namespace},
            "involvedObject": {
                "apiVersion": version, "kind": kind, "name": name,
                "namespace": object::meta_text(about, "namespace"),
                "uid": object::meta_text(about, "uid"),
                "resourceVersion": object::meta_text(about, "resourceVersion"),
            },
            "reason": finding.reason, "action": finding.action, "message": finding.note, "type": "Warning",
            "eventTime": cx.now.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
            "reportingComponent": "ipallocator-repair-controller",
            "reportingInstance": "ipallocator-repair-controller-gantry",
        });
        if let Err(failure) = create::object_of(&mut cx, event, Ownership::Update).await {
            tracing::debug!(%failure, "an event about an address of a Service");
        }
    }
}

/// What a change makes worth a look.
fn work_of(batch: &Batch) -> Vec<Work> {
    let mut all = vec![];
    for event in &batch.events {
        let name = &event.object.key.name;
        let gone = event.kind == EventKind::Delete;
        match &*event.object.key.bucket {
            SERVICES if gone && &**name == "default/kubernetes" => all.push(Work::Own),
            SERVICES => all.push(Work::Service(name.clone())),
            RANGES if gone => all.push(Work::Own),
            RANGES => {}
            _ => {
                // Of a new one nothing is known to be wrong but that it may belong to nobody; one that was
                // changed or removed may be missed by its Service.
                if gone || event.previous.is_some() {
                    let object = object::parse(&event.object.value).unwrap_or_default();
                    if let Some((namespace, service)) = Address::of(&object).service {
                        all.push(Work::Service(format!("{namespace}/{service}").into()));
                    }
                }
                if !gone {
                    all.push(Work::Address(name.clone()));
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(text: &str) -> (String, String) {
        let (namespace, name) = text.split_once('/').expect("a pair");
        (namespace.to_owned(), name.to_owned())
    }

    fn address(parent: &str) -> Address {
        Address {
            name: "10.0.0.9".to_owned(),
            managed: true,
            family: true,
            service: (!parent.is_empty()).then(|| pair(parent)),
            created: "2026-01-01T00:00:00Z".parse().ok(),
        }
    }

    /// Services: `default/one`, looked at, and `default/two`, which has the same address.
    fn has(parent: &(String, String)) -> Option<bool> {
        match parent.1.as_str() {
            "one" | "two" => Some(true),
            "other" => Some(false),
            _ => None,
        }
    }

    #[test]
    fn what_is_done_about_a_service() {
        let service = Service {
            namespace: "default".to_owned(),
            name: "one".to_owned(),
            addresses: vec![Ipv4Addr::new(10, 0, 0, 9).into()],
        };
        let own = ("default", "one");
        let create = Some(Mend::Create { service: own });
        let again = Some(Mend::Recreate { service: own });
        let unlabelled = Address {
            managed: false,
            ..address("default/one")
        };
        let other_family = Address {
            family: false,
            ..address("default/one")
        };
        for (there, in_range, expected) in [
            (Some(address("default/one")), true, None),
            (None, true, Some((create, "ClusterIPNotAllocated"))),
            (None, false, Some((None, "ClusterIPOutOfRange"))),
            (
                Some(address("")),
                true,
                Some((again, "ClusterIPNotAllocated")),
            ),
            (
                Some(address("default/gone")),
                true,
                Some((again, "ClusterIPNotAllocated")),
            ),
            (
                Some(address("default/two")),
                true,
                Some((None, "ClusterIPAlreadyAllocated")),
            ),
            (Some(address("default/other")), true, None),
            (Some(unlabelled), true, Some((again, ""))),
            (Some(other_family), true, Some((again, ""))),
        ] {
            let found = look_at_service(&service, |_| in_range, |_| there.clone(), |p, _| has(p));
            let found: Vec<_> = found.iter().map(|f| (f.mend, f.reason)).collect();
            assert_eq!(found, Vec::from_iter(expected), "{there:?}");
        }
    }

    #[test]
    fn what_becomes_of_an_address() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let foreign = Address {
            managed: false,
            ..address("default/gone")
        };
        let (soon, late) = (at("2026-01-01T00:00:20Z"), at("2026-01-01T00:01:00Z"));
        for (address, now, expected) in [
            (address("default/one"), soon, ""),
            (address("default/gone"), soon, "40s"),
            (address("default/gone"), late, "IPAddressNotAllocated"),
            (address("default/other"), soon, "IPAddressWrongReference"),
            (address(""), soon, "IPAddressNotAllocated"),
            (foreign, late, ""),
        ] {
            let fate = match look_at_address(&address, now, has) {
                Fate::Stays => String::new(),
                Fate::Waits(left) => format!("{left:?}"),
                Fate::Goes(finding) => finding.reason.to_owned(),
            };
            assert_eq!(fate, expected, "{address:?}");
        }
    }
}
