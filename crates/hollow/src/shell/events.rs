//! Events: named by what they say, so that the same thing said again counts up the first one.

use crate::{behaviour::Draw, clock::Millis};
use kube::{
    Client,
    api::{Patch, PatchParams, PostParams},
    core::Request,
};
use rustc_hash::FxHashMap;
use serde_json::{Value, json};
use std::collections::VecDeque;

/// The component that events are from.
pub const COMPONENT: &str = "hollow";
/// Events that wait to be sent; more are dropped.
const WAITING: usize = 2000;
/// How many events are remembered, to be counted up when they come again.
const REMEMBERED: usize = 20_000;

/// An event to be sent.
#[derive(Clone, Debug)]
pub struct Record {
    /// The object it is about.
    pub namespace: String,
    /// `involvedObject`, with kind, name, uid and perhaps a field path.
    pub involved: Value,
    /// Warning or Normal.
    pub warning: bool,
    /// One word.
    pub reason: String,
    /// For people.
    pub message: String,
    /// The node.
    pub host: String,
    /// When it happened.
    pub at: Millis,
    /// Its name.
    pub name: String,
    /// How often it happened; above 1, the first one is counted up.
    pub count: u32,
}

/// Events on their way out, at a bounded rate.
#[derive(Debug)]
pub struct Outbox {
    waiting: VecDeque<Record>,
    counts: FxHashMap<u64, u32>,
    /// Events that may be sent now.
    tokens: f64,
    per_second: f64,
    filled: Millis,
    /// Events not sent since the start.
    pub dropped: u64,
}

impl Outbox {
    /// Sends so many a second; twice as many at once.
    pub fn new(per_second: u32, now: Millis) -> Self {
        let per_second = f64::from(per_second);
        Self {
            waiting: VecDeque::new(),
            counts: FxHashMap::default(),
            tokens: per_second * 2.0,
            per_second,
            filled: now,
            dropped: 0,
        }
    }

    /// Whether there is room for another event; if not, it counts as dropped. Normal ones leave a
    /// quarter of the burst to warnings. Asked first: most of a crowd's events need never be made.
    pub fn admit(&mut self, warning: bool, now: Millis) -> bool {
        let gained = now.since(self.filled).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + gained).min(self.per_second * 2.0);
        self.filled = now;
        let reserve = if warning { 0.0 } else { self.per_second / 2.0 };
        let room = self.tokens - reserve >= 1.0 && self.waiting.len() < WAITING;
        if room {
            self.tokens -= 1.0;
        } else {
            self.dropped += 1;
        }
        room
    }

    /// Takes an admitted event in.
    #[expect(clippy::too_many_arguments, reason = "they are the fields of an event")]
    pub fn put(
        &mut self,
        namespace: &str,
        involved: Value,
        warning: bool,
        reason: &str,
        message: String,
        host: &str,
        now: Millis,
    ) {
        let text = |key: &str| involved[key].as_str().unwrap_or_default();
        let hash = Draw::new(0)
            .word(text("uid"))
            .word(text("name"))
            .word(text("fieldPath"))
            .word(reason)
            .word(&message)
            .bits();
        if self.counts.len() >= REMEMBERED {
            self.counts.clear();
        }
        let count = self.counts.entry(hash).or_default();
        *count += 1;
        let (count, name) = (*count, format!("{}.{hash:016x}", text("name")));
        let (namespace, reason, host) = (namespace.to_owned(), reason.to_owned(), host.to_owned());
        self.waiting.push_back(Record {
            namespace,
            involved,
            warning,
            reason,
            message,
            host,
            at: now,
            name,
            count,
        });
    }

    /// The next to send.
    pub fn pop(&mut self) -> Option<Record> {
        self.waiting.pop_front()
    }
}

/// Sends an event: counts up the one that is there, or creates it.
pub async fn send(client: Client, record: Record) -> Result<(), kube::Error> {
    let request = Request::new(format!("/api/v1/namespaces/{}/events", record.namespace));
    let params = PatchParams {
        field_manager: Some(COMPONENT.into()),
        ..PatchParams::default()
    };
    let again = json!({"count": record.count, "lastTimestamp": record.at.to_string()});
    let patch = || {
        request
            .patch(&record.name, &params, &Patch::Merge(&again))
            .map_err(kube::Error::BuildRequest)
    };
    if record.count > 1 {
        match client.request_text(patch()?).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => return other.map(|_| ()),
        }
    }
    let body = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": record.name, "namespace": record.namespace},
        "involvedObject": record.involved,
        "type": if record.warning { "Warning" } else { "Normal" },
        "reason": record.reason,
        "message": record.message,
        "source": {"component": COMPONENT, "host": record.host},
        "reportingComponent": COMPONENT,
        "reportingInstance": record.host,
        "firstTimestamp": record.at.to_string(),
        "lastTimestamp": record.at.to_string(),
        "count": record.count,
    });
    let post = PostParams {
        field_manager: Some(COMPONENT.into()),
        ..PostParams::default()
    };
    let create = request
        .create(&post, body.to_string().into_bytes())
        .map_err(kube::Error::BuildRequest)?;
    match client.request_text(create).await {
        // From a former life of this process: the count goes on from one.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            client.request_text(patch()?).await.map(|_| ())
        }
        other => other.map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tell(outbox: &mut Outbox, warning: bool, message: &str, now: i64) {
        if outbox.admit(warning, Millis(now)) {
            let involved = json!({"kind": "Pod", "name": "a", "uid": "u"});
            outbox.put(
                "default",
                involved,
                warning,
                "BackOff",
                message.into(),
                "n",
                Millis(now),
            );
        }
    }

    #[test]
    fn the_same_event_counts_up_and_too_many_are_dropped() {
        let mut outbox = Outbox::new(4, Millis(0));
        for i in 0..20 {
            tell(&mut outbox, false, &format!("normal {i}"), 0);
        }
        assert_eq!(
            outbox.dropped, 14,
            "8 at once, a quarter of them kept for warnings"
        );
        tell(&mut outbox, true, "warning", 0);
        tell(&mut outbox, true, "warning", 0);
        tell(&mut outbox, true, "warning", 0);
        assert_eq!(outbox.dropped, 15);
        let sent: Vec<_> = std::iter::from_fn(|| outbox.pop()).collect();
        assert_eq!(sent.len(), 8);
        assert_eq!(
            (sent[6].count, sent[7].count, sent[6].name == sent[7].name),
            (1, 2, true)
        );
        tell(&mut outbox, true, "warning", 1000);
        assert_eq!(
            outbox.pop().map(|it| it.count),
            Some(3),
            "a second later there is room again"
        );
    }
}
