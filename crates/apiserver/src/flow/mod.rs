//! API priority and fairness: which requests wait, and which are turned away, when there are more
//! than the server works on at a time.
//!
//! A FlowSchema classifies a request and tells its flow (the user's, or the namespace's); the
//! priority level it names has a share of the server's seats. A level's requests wait in a queue
//! for each flow, up to as many as the level's configured queues hold together; then they are
//! answered 429. Flows take turns. A list takes as many seats as it has hundreds of objects to look
//! through ([`width`]), and levels lend each other what they leave empty ([`lend`], [`borrow`]).

mod borrow;
mod classify;
mod objects;
mod seats;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use gantry_machinery::flowcontrol::MANDATORY;
use gantry_store::Store;
use http::{HeaderValue, header};
use parking_lot::RwLock;
use rustc_hash::FxHashMap;
use serde_json::Value;

use crate::{
    api::Api,
    authn::UserInfo,
    authz::Attributes,
    object,
    registry::Entry,
    request::Query,
    respond::{self, Reply},
    rest::list,
};
use borrow::{Bounds, Demand, share_out};
use classify::Schema;
pub use objects::{ensure, settle};
use seats::{Refusal, Seat, Seats};

pub const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const LEVELS: &str = "prioritylevelconfigurations";
const SCHEMAS: &str = "flowschemas";

/// A quarter of the time Kubernetes gives it altogether.
const PATIENCE: Duration = Duration::from_secs(15);

/// How often it is looked what levels want, and after how many looks they are given it.
const LOOK: Duration = Duration::from_millis(500);
const LOOKS: usize = 20;

/// What a seat is good for: so many objects of a list, up to so many seats.
const OBJECTS_PER_SEAT: usize = 100;
const WIDEST: usize = 10;

/// The stored configuration in the form that requests are held against.
pub struct Flow {
    /// Seats of the whole server.
    seats: u32,
    /// How long a request waits for one.
    patience: Duration,
    plan: RwLock<Arc<Plan>>,
}

#[derive(Default)]
struct Plan {
    /// In the order in which they are tried.
    schemas: Vec<Schema>,
    levels: Vec<Arc<Level>>,
}

/// A priority level with its seats.
pub struct Level {
    pub name: String,
    uid: HeaderValue,
    /// `None`: exempt, no request waits.
    pub seats: Option<Arc<Seats>>,
    /// How many seats it has by itself, at least, and at most.
    pub bounds: Bounds,
    /// How many requests may wait, altogether and of one flow.
    room: (usize, usize),
}

/// How often a schema's requests were let in and turned away.
#[derive(Debug, Default)]
pub struct Tally {
    pub dispatched: AtomicU64,
    pub queue_full: AtomicU64,
    pub no_seat: AtomicU64,
    pub timed_out: AtomicU64,
}

/// What a request was classified as; holds its seat.
pub struct Ticket {
    schema: HeaderValue,
    level: HeaderValue,
    _seat: Option<Seat>,
}

impl Ticket {
    /// Tells the client which objects decided about its request.
    pub fn show(&self, reply: &mut Reply) {
        let headers = reply.headers_mut();
        headers.insert("x-kubernetes-pf-flowschema-uid", self.schema.clone());
        headers.insert("x-kubernetes-pf-prioritylevel-uid", self.level.clone());
    }
}

/// A request that finds no seat and no room to wait.
pub struct Refused(Ticket);

impl Refused {
    pub fn reply(&self) -> Reply {
        let mut reply = respond::text(429, "Too many requests, please try again later.\n");
        let headers = reply.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        self.0.show(&mut reply);
        reply
    }
}

impl Flow {
    pub fn new(seats: u32) -> Flow {
        Flow {
            seats,
            patience: PATIENCE,
            plan: RwLock::default(),
        }
    }

    /// Takes over the stored configuration; levels that stay the same keep their seats.
    pub fn reload(&self, store: &Store) {
        let read = |plural: &str| -> Vec<Value> {
            let snapshot = store.snapshot(&format!("{GROUP}/{plural}"));
            let parsed = snapshot.iter().map(|s| serde_json::from_slice(&s.value));
            parsed.filter_map(Result::ok).collect()
        };
        let mut levels = read(LEVELS);
        let mut schemas = read(SCHEMAS);
        // Requests cannot do without these two, whatever was deleted.
        for (plural, all) in [(LEVELS, &mut levels), (SCHEMAS, &mut schemas)] {
            for name in MANDATORY {
                if !all.iter().any(|o| object::name(o) == name) {
                    all.extend(objects::built_in(plural, name));
                }
            }
        }
        let mut plan = self.plan.write();
        let shares: u64 = levels.iter().map(shares).sum();
        let levels: Vec<Arc<Level>> = levels
            .iter()
            .map(|object| {
                let level = Level::of(object, self.seats, shares);
                let same = |other: &&Arc<Level>| other.same(&level);
                match plan.levels.iter().find(same) {
                    Some(there) => there.clone(),
                    None => Arc::new(level),
                }
            })
            .collect();
        let by_name: FxHashMap<&str, &Arc<Level>> =
            levels.iter().map(|l| (l.name.as_str(), l)).collect();
        let mut made: Vec<Schema> = schemas
            .iter()
            .filter_map(|object| {
                let name = object::text(object, "/spec/priorityLevelConfiguration/name");
                // One whose level there is not takes no part.
                let level = *by_name.get(name)?;
                let mut schema = Schema::of(object, level.clone());
                let before = plan.schemas.iter().find(|s| s.name == schema.name);
                if let Some(before) = before {
                    schema.tally = before.tally.clone();
                }
                Some(schema)
            })
            .collect();
        made.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        *plan = Arc::new(Plan {
            schemas: made,
            levels,
        });
    }

    /// Classifies a request and waits for its seat.
    pub async fn admit(
        &self,
        user: &UserInfo,
        asked: &Attributes<'_>,
        width: impl FnOnce() -> usize,
    ) -> Result<Option<Ticket>, Refused> {
        let plan = self.plan.read().clone();
        let Some(schema) = plan.schemas.iter().find(|s| s.matches(user, asked)) else {
            return Ok(None);
        };
        let level = &schema.level;
        let ticket = |seat| Ticket {
            schema: schema.uid.clone(),
            level: level.uid.clone(),
            _seat: seat,
        };
        let tally = &schema.tally;
        let seat = match &level.seats {
            None => None,
            Some(seats) => {
                let flow = || schema.flow(user, asked);
                // No request is worth more than its level has by itself.
                let width = width().min(level.bounds.nominal).max(1);
                match seats.take(width, flow, self.patience).await {
                    Ok(seat) => Some(seat),
                    Err(refusal) => {
                        let count = match refusal {
                            Refusal::NoSeat => &tally.no_seat,
                            Refusal::QueueFull => &tally.queue_full,
                            Refusal::TimedOut => &tally.timed_out,
                        };
                        count.fetch_add(1, Ordering::Relaxed);
                        return Err(Refused(ticket(None)));
                    }
                }
            }
        };
        tally.dispatched.fetch_add(1, Ordering::Relaxed);
        Ok(Some(ticket(seat)))
    }

    pub fn levels(&self) -> Vec<Arc<Level>> {
        self.plan.read().levels.clone()
    }

    /// Names of a schema and its level, and what became of its requests.
    pub fn tallies(&self) -> Vec<(String, String, Arc<Tally>)> {
        let plan = self.plan.read();
        let all = plan.schemas.iter();
        all.map(|s| (s.name.clone(), s.level.name.clone(), s.tally.clone()))
            .collect()
    }
}

/// How many seats a request is worth: a list as many as it looks through objects by the hundred.
pub fn width(store: &Store, entry: Option<&Entry>, asked: &Attributes<'_>, query: &Query) -> usize {
    let Some(entry) = entry.filter(|_| asked.verb == "list") else {
        return 1;
    };
    if list::selected_name(query).is_some() {
        return 1;
    }
    let stored = store.count(&entry.bucket);
    let limit = query.text("limit").parse().unwrap_or(0);
    let selects = ["labelSelector", "fieldSelector"]
        .iter()
        .any(|selector| !query.text(selector).is_empty());
    // What is left out by a selector has to be looked at all the same.
    let looked_at = match limit {
        0 => stored,
        _ if selects => stored,
        limit => stored.min(limit),
    };
    looked_at.div_ceil(OBJECTS_PER_SEAT).clamp(1, WIDEST)
}

/// Lets levels lend each other seats until the server stops.
pub async fn lend(api: Arc<Api>) {
    let mut demands: FxHashMap<String, Demand> = FxHashMap::default();
    let mut samples: FxHashMap<String, Vec<usize>> = FxHashMap::default();
    for look in 1_usize.. {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = api.stop.cancelled() => return,
        }
        let levels = api.flow.levels();
        let limited: Vec<(&Arc<Level>, &Arc<Seats>)> = levels
            .iter()
            .filter_map(|level| Some((level, level.seats.as_ref()?)))
            .collect();
        for (level, seats) in &limited {
            let seen = samples.entry(level.name.clone()).or_default();
            seen.push(seats.demand());
        }
        if look % LOOKS != 0 {
            continue;
        }
        let claims: Vec<(Bounds, Demand)> = limited
            .iter()
            .map(|(level, seats)| {
                let seen = samples.remove(&level.name).unwrap_or_default();
                let demand = demands.entry(level.name.clone()).or_default();
                demand.seen(seats.high(), &seen);
                (level.bounds, *demand)
            })
            .collect();
        for ((_, seats), given) in limited.iter().zip(share_out(&claims)) {
            seats.resize(given);
        }
        demands.retain(|name, _| limited.iter().any(|(level, _)| level.name == *name));
        samples.clear();
    }
}

/// An object's uid as it is shown to clients.
fn uid(object: &Value) -> HeaderValue {
    HeaderValue::from_str(object::meta_text(object, "uid"))
        .unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn number(object: &Value, pointer: &str) -> Option<u64> {
    object.pointer(pointer).and_then(Value::as_u64)
}

/// A level's share of the seats.
fn shares(object: &Value) -> u64 {
    let exempt = object::text(object, "/spec/type") == "Exempt";
    let of = if exempt { "exempt" } else { "limited" };
    let given = number(object, &format!("/spec/{of}/nominalConcurrencyShares"));
    given.unwrap_or(if exempt { 0 } else { 30 })
}

impl Level {
    fn of(object: &Value, server: u32, all: u64) -> Level {
        let exempt = object::text(object, "/spec/type") == "Exempt";
        let limit = (u64::from(server) * shares(object)).div_ceil(all.max(1));
        let limit = usize::try_from(limit)
            .unwrap_or(usize::MAX)
            .max(usize::from(!exempt));
        let queuing = |field: &str, default| {
            let pointer = format!("/spec/limited/limitResponse/queuing/{field}");
            number(object, &pointer).unwrap_or(default)
        };
        let queues = object::text(object, "/spec/limited/limitResponse/type") == "Queue";
        let room = |of: &str, default| match queues {
            true => queuing(of, default).saturating_mul(queuing("queueLengthLimit", 50)),
            false => 0,
        };
        let part = |field: &str| {
            let percent = number(object, &format!("/spec/{field}"))?;
            let part = limit as f64 * percent as f64 / 100.0;
            Some(part.round() as usize)
        };
        let lent = part(if exempt {
            "exempt/lendablePercent"
        } else {
            "limited/lendablePercent"
        });
        let total = usize::try_from(server).unwrap_or(usize::MAX).max(limit);
        let borrowed = part("limited/borrowingLimitPercent");
        let bounds = Bounds {
            nominal: limit,
            least: limit.saturating_sub(lent.unwrap_or(0)),
            most: borrowed.map_or(total, |more| limit.saturating_add(more)),
        };
        let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        // A flow has as many of the queues as it is dealt.
        let (room, share) = (size(room("queues", 64)), size(room("handSize", 8)));
        Level {
            name: object::name(object).to_owned(),
            uid: uid(object),
            seats: (!exempt).then(|| Seats::new(limit, room, share)),
            bounds,
            room: (room, share),
        }
    }

    fn same(&self, other: &Level) -> bool {
        self.name == other.name
            && self.uid == other.uid
            && self.seats.is_some() == other.seats.is_some()
            && self.bounds == other.bounds
            && self.room == other.room
    }
}

#[cfg(test)]
mod tests {
    use gantry_store::Options;

    use super::*;

    fn pods(verb: &str) -> Attributes<'_> {
        Attributes {
            verb,
            resource: "pods",
            namespace: "n",
            ..Attributes::default()
        }
    }

    /// A store without objects: the two levels that are always there.
    fn bare(seats: u32) -> Flow {
        let flow = Flow::new(seats);
        flow.reload(&Store::in_memory(Options::default()));
        flow
    }

    #[tokio::test]
    async fn a_level_without_queues_turns_away_what_finds_no_seat() {
        let flow = bare(2);
        let ann = UserInfo::new("ann", &[]).authenticated();
        let first = flow.admit(&ann, &pods("get"), || 1).await;
        let second = flow.admit(&ann, &pods("get"), || 1).await;
        assert!(matches!(first, Ok(Some(_))) && matches!(second, Ok(Some(_))));
        let Err(refused) = flow.admit(&ann, &pods("get"), || 1).await else {
            panic!("admitted beyond the limit");
        };
        let reply = refused.reply();
        assert_eq!(reply.status(), 429);
        assert_eq!(reply.headers()[header::RETRY_AFTER], "1");
        let root = UserInfo::new("root", &[crate::authn::MASTERS]).authenticated();
        assert!(matches!(
            flow.admit(&root, &pods("get"), || 1).await,
            Ok(Some(_))
        ));
        drop(first);
        assert!(flow.admit(&ann, &pods("get"), || 1).await.is_ok());
        let tallies = flow.tallies();
        let (_, _, tally) = tallies.iter().find(|t| t.0 == "catch-all").expect("there");
        assert_eq!(tally.no_seat.load(Ordering::Relaxed), 1);
        assert_eq!(tally.dispatched.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn a_level_with_queues_lets_wait_for_a_while() {
        let level = serde_json::json!({"metadata": {"name": "l"}, "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 1,
            "limitResponse": {"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 1}},
        }}});
        let level = Arc::new(Level::of(&level, 1, 1));
        let seats = level.seats.clone().expect("limited");
        let schema = objects::built_in(SCHEMAS, "catch-all").expect("built in");
        let flow = Flow::new(1);
        *flow.plan.write() = Arc::new(Plan {
            schemas: vec![Schema::of(&schema, level.clone())],
            levels: vec![level],
        });
        let flow = Arc::new(flow);
        let ann = UserInfo::new("ann", &[]).authenticated();
        let seat = flow.admit(&ann, &pods("get"), || 1).await;
        let waiting = tokio::spawn({
            let (flow, ann) = (flow.clone(), ann.clone());
            async move { flow.admit(&ann, &pods("list"), || 1).await.is_ok() }
        });
        while seats.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(
            flow.admit(&ann, &pods("get"), || 1).await.is_err(),
            "the queue is full"
        );
        drop(seat);
        assert!(waiting.await.expect("no panic"), "the seat is handed on");
        let mut flow = Arc::into_inner(flow).expect("nobody else has it");
        flow.patience = Duration::from_millis(10);
        let seat = flow.admit(&ann, &pods("get"), || 1).await;
        assert!(
            flow.admit(&ann, &pods("get"), || 1).await.is_err(),
            "nobody waits for ever"
        );
        drop(seat);
        assert_eq!((seats.taken(), seats.waiting()), (0, 0));
    }

    #[test]
    fn seats_are_shared_as_kubernetes_shares_them() {
        let levels = objects::all(LEVELS);
        let all = levels.iter().map(shares).sum();
        assert_eq!(all, 245);
        let limit = |name: &str| {
            let level = objects::built_in(LEVELS, name).expect("built in");
            Level::of(&level, 600, all).bounds.nominal
        };
        assert_eq!(limit("global-default"), 49);
        assert_eq!(limit("catch-all"), 13);
        assert_eq!(limit("workload-low"), 245);
        assert_eq!(limit("exempt"), 0);
    }

    #[test]
    fn levels_lend_and_borrow_as_their_configuration_says() {
        let level = objects::built_in(LEVELS, "workload-low").expect("built in");
        // 90 % may be lent; how much is borrowed is not limited.
        let bounds = Level::of(&level, 600, 245).bounds;
        assert_eq!((bounds.nominal, bounds.least, bounds.most), (245, 24, 600));
        let level = serde_json::json!({"metadata": {"name": "l"}, "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 1, "borrowingLimitPercent": 50}}});
        let bounds = Level::of(&level, 100, 4).bounds;
        assert_eq!((bounds.nominal, bounds.least, bounds.most), (25, 25, 38));
    }

    #[tokio::test]
    async fn lists_are_worth_their_objects_by_the_hundred() {
        use gantry_store::{Expect, Key, Op, Write};

        let store = Store::in_memory(Options::default());
        let registry = crate::registry::Registry::new(vec![], 0);
        let entry = registry.lookup("", "v1", "configmaps").expect("served");
        let asked = |verb, query: &str| {
            let query = Query::parse(Some(query).filter(|q| !q.is_empty()));
            width(&store, Some(entry), &pods(verb), &query)
        };
        assert_eq!(asked("list", ""), 1);
        let writes = (0..250).map(|n| Write {
            key: Key::new("/configmaps", format!("n/{n}")),
            expect: Expect::Absent,
            op: Op::Put {
                value: "{}".into(),
                stamp: None,
            },
        });
        store.commit_all(writes.collect()).await.expect("written");
        assert_eq!(asked("list", ""), 3);
        assert_eq!(asked("list", "limit=100"), 1);
        assert_eq!(asked("list", "limit=100&labelSelector=a"), 3);
        assert_eq!(asked("list", "fieldSelector=metadata.name%3Dx"), 1);
        assert_eq!(asked("get", ""), 1);
    }
}
