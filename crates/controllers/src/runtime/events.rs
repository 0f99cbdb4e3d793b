//! Events about objects, with client-go's rules of thrift: the same event again raises a count, and
//! an object that has much to tell is cut short.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;
use kube::api::Patch;
use rustc_hash::FxHashMap;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::api::Api;
use crate::model::{EVENTS, Key, Kind, Meta, meta::MetaOnly};

/// Events one object may emit at once, and seconds until it may emit one more.
const BURST: u32 = 25;
const REFILL_SECONDS: i64 = 300;
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

/// What tells one event from another: about whom, why, and in what words.
type Told = (Arc<str>, Cow<'static, str>, String);

/// What was said before, and how often.
#[derive(Default)]
struct Memory {
    told: FxHashMap<Told, (Key, u32)>,
    order: VecDeque<(Arc<str>, Cow<'static, str>, String)>,
    buckets: FxHashMap<Arc<str>, (u32, i64)>,
}

enum Verdict {
    Drop,
    Create,
    Count(Key, u32),
}

impl Memory {
    fn judge(&mut self, event: &Event) -> Verdict {
        let now = event.at.as_second();
        if self.buckets.len() > REMEMBERED {
            self.buckets
                .retain(|_, (left, since)| *left < BURST && now - *since < REFILL_SECONDS * 25);
        }
        let (left, since) = self
            .buckets
            .entry(event.uid.clone())
            .or_insert((BURST, now));
        let gained = (now - *since) / REFILL_SECONDS;
        if gained > 0 {
            *left = (i64::from(*left) + gained)
                .min(i64::from(BURST))
                .try_into()
                .unwrap_or(BURST);
            *since += gained * REFILL_SECONDS;
        }
        if *left == 0 {
            return Verdict::Drop;
        }
        *left -= 1;
        let told = (
            event.uid.clone(),
            event.reason.clone(),
            event.message.clone(),
        );
        match self.told.get_mut(&told) {
            Some((key, count)) => {
                *count += 1;
                Verdict::Count(key.clone(), *count)
            }
            None => Verdict::Create,
        }
    }

    fn remember(&mut self, event: Event, key: Key) {
        let told = (event.uid, event.reason, event.message);
        if self.told.insert(told.clone(), (key, 1)).is_none() {
            self.order.push_back(told);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.told.remove(&oldest);
        }
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
        match memory.judge(&event) {
            Verdict::Drop => {}
            Verdict::Count(key, count) => {
                let patch =
                    Patch::Merge(json!({"count": count, "lastTimestamp": seconds(event.at)}));
                match api.patch::<MetaOnly>(&EVENTS, &key, None, &patch).await {
                    Ok(_) => {}
                    // The event has outlived its time: tell it anew.
                    Err(error) if error.not_found() => create(&api, event, &mut memory).await,
                    Err(error) => {
                        tracing::debug!(
                            error = &error as &dyn std::error::Error,
                            "event not counted"
                        );
                    }
                }
            }
            Verdict::Create => create(&api, event, &mut memory).await,
        }
    }
}

/// Events carry whole seconds.
fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

async fn create(api: &Api, event: Event, memory: &mut Memory) {
    let namespace = if event.namespace.is_empty() {
        "default"
    } else {
        &event.namespace
    };
    let name = format!("{}.{:x}", event.name, event.at.as_nanosecond());
    let at = seconds(event.at);
    let object = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": {
            "apiVersion": event.api_version,
            "kind": event.kind,
            "namespace": &*event.namespace,
            "name": &*event.name,
            "uid": &*event.uid,
        },
        "type": if event.warning { "Warning" } else { "Normal" },
        "reason": event.reason,
        "message": event.message.chars().take(1024).collect::<String>(),
        "source": {"component": event.component},
        "reportingComponent": event.component,
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    });
    let key = Key::new(namespace, &name);
    match api
        .create::<MetaOnly>(&EVENTS, &key.namespace, &object)
        .await
    {
        Ok(_) => memory.remember(event, key),
        Err(error) => {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "event not written"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_with_much_to_tell_is_cut_short_and_recovers() {
        let mut memory = Memory::default();
        let event = |n: u32, at: i64| Event {
            api_version: "v1".into(),
            kind: "Thing".into(),
            namespace: "n".into(),
            name: "web".into(),
            uid: "u".into(),
            warning: false,
            reason: "SuccessfulCreate".into(),
            message: format!("{n}"),
            component: "test",
            at: Timestamp::from_second(at).unwrap(),
        };
        let told = (0..40)
            .filter(|n| !matches!(memory.judge(&event(*n, 0)), Verdict::Drop))
            .count();
        assert_eq!(told, 25);
        assert!(matches!(memory.judge(&event(99, 300)), Verdict::Create));
        assert!(matches!(memory.judge(&event(100, 300)), Verdict::Drop));
        memory.remember(event(7, 0), Key::new("n", "e"));
        assert!(matches!(memory.judge(&event(7, 600)), Verdict::Count(_, 2)));
    }
}
