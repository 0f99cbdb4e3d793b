//! Events about objects, with client-go's rules of thrift: the same event again raises a count, and
//! an object that has much to tell is cut short.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;
use kube::api::Patch;
use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::api::Api;
use crate::model::{EVENTS, Key, Kind, Meta, meta::MetaOnly};

/// Events one object may emit at once, and seconds until it may emit one more.
const BURST: u32 = 25;
const REFILL_SECONDS: i64 = 300;
/// So many different events that are alike within so many seconds are told as one.
const COMBINED_FROM: usize = 10;
const COMBINED_SECONDS: i64 = 600;
/// Events that wait to be written; what comes on top is dropped.
const WAITING: usize = 1000;
/// Distinct events, and objects, that are remembered.
const REMEMBERED: usize = 4096;

struct Event {
    api_version: String,
    kind: Cow<'static, str>,
    namespace: Arc<str>,
    name: Arc<str>,
    uid: Arc<str>,
    warning: bool,
    reason: Cow<'static, str>,
    message: String,
    component: &'static str,
    at: Timestamp,
}

/// Takes events and never waits.
#[derive(Clone)]
pub struct Recorder {
    send: mpsc::Sender<Event>,
}

impl Recorder {
    /// A recorder, and the task that writes what it takes until stopped.
    pub fn new(
        api: Api,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (send, receive) = mpsc::channel(WAITING);
        (Recorder { send }, write(api, receive, stop))
    }

    pub fn normal(
        &self,
        component: &'static str,
        kind: &Kind,
        about: &Meta,
        reason: impl Into<Cow<'static, str>>,
        message: String,
    ) {
        self.record(component, kind, about, false, reason, message);
    }

    pub fn warning(
        &self,
        component: &'static str,
        kind: &Kind,
        about: &Meta,
        reason: impl Into<Cow<'static, str>>,
        message: String,
    ) {
        self.record(component, kind, about, true, reason, message);
    }

    /// A warning about an object of a kind that is not known beforehand.
    pub fn warning_of(
        &self,
        component: &'static str,
        (api_version, kind): (String, String),
        about: &Meta,
        reason: &'static str,
        message: String,
    ) {
        self.send(
            component,
            api_version,
            kind.into(),
            about,
            true,
            reason.into(),
            message,
        );
    }

    fn record(
        &self,
        component: &'static str,
        kind: &Kind,
        about: &Meta,
        warning: bool,
        reason: impl Into<Cow<'static, str>>,
        message: String,
    ) {
        let (api_version, kind) = (kind.api_version(), kind.kind.into());
        self.send(
            component,
            api_version,
            kind,
            about,
            warning,
            reason.into(),
            message,
        );
    }

    #[expect(clippy::too_many_arguments, reason = "they are the fields of an event")]
    fn send(
        &self,
        component: &'static str,
        api_version: String,
        kind: Cow<'static, str>,
        about: &Meta,
        warning: bool,
        reason: Cow<'static, str>,
        message: String,
    ) {
        let event = Event {
            api_version,
            kind,
            namespace: about.namespace.clone(),
            name: about.name.clone(),
            uid: about.uid.clone(),
            warning,
            reason,
            message,
            component,
            at: Timestamp::now(),
        };
        if let Err(dropped) = self.send.try_send(event) {
            let reason = &*dropped.into_inner().reason;
            tracing::debug!(reason, "event dropped: too many wait to be written");
        }
    }
}

/// Who tells, and of what.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct About {
    component: &'static str,
    kind: Cow<'static, str>,
    namespace: Arc<str>,
    name: Arc<str>,
    uid: Arc<str>,
}

/// Events that are alike but for their words.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Alike {
    about: About,
    warning: bool,
    reason: Cow<'static, str>,
}

impl Alike {
    fn of(event: &Event) -> Self {
        Alike {
            about: About {
                component: event.component,
                kind: event.kind.clone(),
                namespace: event.namespace.clone(),
                name: event.name.clone(),
                uid: event.uid.clone(),
            },
            warning: event.warning,
            reason: event.reason.clone(),
        }
    }
}

/// What tells one event from another; without words, the one that combines those that are alike.
type Told = (Alike, Option<String>);

/// The different words of events that are alike.
#[derive(Default)]
struct Words {
    told: FxHashSet<String>,
    last: Timestamp,
}

/// What was said before, and how often.
#[derive(Default)]
struct Memory {
    alike: FxHashMap<Alike, Words>,
    told: FxHashMap<Told, (Key, u32)>,
    order: VecDeque<Told>,
    buckets: FxHashMap<About, (u32, i64)>,
}

/// How to write an event, if at all.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    key: Key,
    count: u32,
    drop: bool,
}

impl Memory {
    /// Takes in an event, whose words may change thereby.
    fn judge(&mut self, event: &mut Event) -> Verdict {
        let alike = Alike::of(event);
        let told = (alike.clone(), self.combined(&alike, event));
        let fresh = || {
            let namespace = if event.namespace.is_empty() {
                "default"
            } else {
                &event.namespace
            };
            let name = format!("{}.{:x}", event.name, event.at.as_nanosecond());
            (Key::new(namespace, &name), 0)
        };
        if !self.told.contains_key(&told) {
            self.order.push_back(told.clone());
        }
        let (key, count) = self.told.entry(told).or_insert_with(fresh);
        *count += 1;
        let verdict = Verdict {
            key: key.clone(),
            count: *count,
            drop: !self.let_through(alike.about, event.at.as_second()),
        };
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.told.remove(&oldest);
        }
        verdict
    }

    /// The words by which an event is known; none where there were so many of late that they are
    /// combined.
    fn combined(&mut self, alike: &Alike, event: &mut Event) -> Option<String> {
        let recent = |last: Timestamp| event.at.as_second() - last.as_second() <= COMBINED_SECONDS;
        if self.alike.len() > REMEMBERED {
            self.alike.retain(|_, words| recent(words.last));
        }
        let words = self.alike.entry(alike.clone()).or_default();
        if !recent(words.last) {
            words.told.clear();
        }
        words.last = event.at;
        words.told.insert(event.message.clone());
        if words.told.len() < COMBINED_FROM {
            return Some(event.message.clone());
        }
        let any = words.told.iter().next().cloned();
        if let Some(any) = any {
            words.told.remove(&any);
        }
        event.message = format!("(combined from similar events): {}", event.message);
        None
    }

    fn let_through(&mut self, about: About, now: i64) -> bool {
        if self.buckets.len() > REMEMBERED {
            self.buckets
                .retain(|_, (left, since)| *left < BURST && now - *since < REFILL_SECONDS * 25);
        }
        let (left, since) = self.buckets.entry(about).or_insert((BURST, now));
        let gained = (now - *since) / REFILL_SECONDS;
        if gained > 0 {
            *left = (i64::from(*left) + gained)
                .min(i64::from(BURST))
                .try_into()
                .unwrap_or(BURST);
            *since += gained * REFILL_SECONDS;
        }
        if *left == 0 {
            return false;
        }
        *left -= 1;
        true
    }
}

async fn write(api: Api, mut receive: mpsc::Receiver<Event>, stop: CancellationToken) {
    let mut memory = Memory::default();
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = receive.recv() => match event {
                Some(event) => event,
                None => return,
            },
        };
        let mut event = event;
        let verdict = memory.judge(&mut event);
        if verdict.drop {
            continue;
        }
        let Verdict { key, count, .. } = verdict;
        if count == 1 {
            create(&api, &event, &key, count).await;
            continue;
        }
        let patch = Patch::Merge(json!({
            "count": count,
            "lastTimestamp": seconds(event.at),
            "message": words(&event),
        }));
        match api.patch::<MetaOnly>(&EVENTS, &key, None, &patch).await {
            Ok(_) => {}
            // The event has outlived its time: tell it anew.
            Err(error) if error.not_found() => create(&api, &event, &key, count).await,
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "event not counted"
                );
            }
        }
    }
}

fn words(event: &Event) -> String {
    event.message.chars().take(1024).collect()
}

/// Events carry whole seconds.
fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

async fn create(api: &Api, event: &Event, key: &Key, count: u32) {
    let at = seconds(event.at);
    let object = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": &*key.name, "namespace": &*key.namespace},
        "involvedObject": {
            "apiVersion": &event.api_version,
            "kind": &event.kind,
            "namespace": &*event.namespace,
            "name": &*event.name,
            "uid": &*event.uid,
        },
        "type": if event.warning { "Warning" } else { "Normal" },
        "reason": &event.reason,
        "message": words(event),
        "source": {"component": event.component},
        "reportingComponent": event.component,
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": count,
    });
    let created = api.create::<MetaOnly>(&EVENTS, &key.namespace, &object);
    if let Err(error) = created.await {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "event not written"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(reason: &'static str, message: &str, at: i64) -> Event {
        Event {
            api_version: "v1".into(),
            kind: "Thing".into(),
            namespace: "n".into(),
            name: "web".into(),
            uid: "u".into(),
            warning: false,
            reason: reason.into(),
            message: message.into(),
            component: "test",
            at: Timestamp::from_second(at).unwrap(),
        }
    }

    #[test]
    fn an_object_with_much_to_tell_is_cut_short_and_recovers() {
        let mut memory = Memory::default();
        let mut judge =
            |n: u32, at: i64| memory.judge(&mut event("SuccessfulCreate", &format!("{n}"), at));
        let told = (0..40).filter(|n| !judge(*n, 0).drop).count();
        assert_eq!(told, 25);
        assert!(!judge(99, 300).drop);
        assert!(judge(100, 300).drop);
        let again = judge(99, 600);
        assert!(!again.drop && again.count > 1);
    }

    #[test]
    fn the_same_again_is_counted() {
        let mut memory = Memory::default();
        let first = memory.judge(&mut event("A", "m", 0));
        let again = memory.judge(&mut event("A", "m", 9));
        assert_eq!((first.count, again.count), (1, 2));
        assert_eq!(first.key, again.key);
        let mut other = event("A", "m", 9);
        other.component = "another";
        assert_eq!(memory.judge(&mut other).count, 1);
    }

    #[test]
    fn many_that_are_alike_become_one() {
        let mut memory = Memory::default();
        let mut judge = |n: u32, at: i64| {
            let mut event = event("A", &format!("m{n}"), at);
            let verdict = memory.judge(&mut event);
            (event.message, verdict.count, verdict.key)
        };
        for n in 0..9 {
            let (message, count, _) = judge(n, 0);
            assert_eq!((message, count), (format!("m{n}"), 1));
        }
        let (message, count, key) = judge(9, 1);
        assert_eq!(message, "(combined from similar events): m9");
        assert_eq!(count, 1);
        let next = judge(10, 2);
        let combined = "(combined from similar events): m10".to_owned();
        assert_eq!(next, (combined, 2, key));
        assert_eq!(judge(11, 700).0, "m11", "the others were long ago");
    }
}
