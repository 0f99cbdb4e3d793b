//! Sends what Notifications tell: a bounded queue each, tries with growing pauses, dead letters in the status.
//!
//! Deliveries of one Notification go one after the other, in order. What waits is lost with the process: who must
//! not miss anything reads the records.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use gantry_api::{
    Notification, NotificationStatus, gate::SecretKey, labels, notification::DeadLetter,
};
use gantry_records::Record;
use http::{Method, Request, header};
use http_body_util::Full;
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::Time};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    outside::Outside,
    table::{Key, Table, key},
};
use crate::{
    group::status::set_condition,
    notify::{
        TEST, event_id,
        form::{self, taken},
        guard::{Allowed, Guard},
        pause, test, wants,
    },
};

/// Deliveries that wait for one Notification, at most.
const WAITING: usize = 1000;
/// Dead letters that the status keeps.
const DEAD: usize = 20;
/// As much of an answer is read.
const ANSWER_LIMIT: usize = 64 << 10;
/// Tests that are asked for are looked for so often.
const TESTS_EVERY: Duration = Duration::from_secs(1);
/// A status is written at most so often.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// Tells Notifications of records.
pub struct Notifier {
    hub: kube::Client,
    table: Arc<Table<Notification>>,
    /// For tenants.
    guarded: Outside,
    /// For the operator's own.
    open: Outside,
    queues: Mutex<HashMap<Key, Arc<Queue>>>,
    stop: CancellationToken,
}

#[derive(Default)]
struct Queue(Mutex<State>);

#[derive(Default)]
struct State {
    waiting: VecDeque<Arc<Record>>,
    /// Let go because too much waited, since the last look.
    overrun: Vec<Arc<Record>>,
    running: bool,
}

impl Queue {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Notifier {
    /// A notifier; tenants reach public addresses and what is `allowed`.
    ///
    /// # Errors
    /// Where TLS cannot be set up.
    pub fn new(
        hub: kube::Client,
        table: Arc<Table<Notification>>,
        allowed: &[Allowed],
        stop: CancellationToken,
    ) -> Result<Arc<Self>, rustls::Error> {
        Ok(Arc::new(Self {
            hub,
            table,
            guarded: Outside::new(Guard {
                allowed: allowed.to_vec(),
                open: false,
            })?,
            open: Outside::new(Guard {
                allowed: vec![],
                open: true,
            })?,
            queues: Mutex::default(),
            stop,
        }))
    }

    /// Puts a record into the queue of every Notification that wants it.
    pub fn offer(self: &Arc<Self>, record: &Record) {
        let mut shared = None;
        for notification in self.table.all() {
            let key = key(notification.as_ref());
            if !wants(&key.0, &notification.spec, record) {
                continue;
            }
            let record = shared
                .get_or_insert_with(|| Arc::new(record.clone()))
                .clone();
            self.push(key, record);
        }
    }

    fn push(self: &Arc<Self>, key: Key, record: Arc<Record>) {
        let queue = {
            let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
            queues.entry(key.clone()).or_default().clone()
        };
        let start = queue.with(|s| {
            s.waiting.push_back(record);
            if s.waiting.len() > WAITING {
                // The one at the front is being tried.
                s.overrun.extend(s.waiting.remove(1));
            }
            !std::mem::replace(&mut s.running, true)
        });
        if start {
            tokio::spawn(self.clone().deliver(key, queue));
        }
    }

    /// Sends a test to each Notification whose annotation asks for one, until the hub ends. Whether it wants
    /// such an event does not matter for a test. The table is small: it is looked through each second.
    pub async fn tests(self: Arc<Self>) {
        let mut asked: HashMap<Key, String> = HashMap::new();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(TESTS_EVERY) => {}
            }
            for notification in self.table.all() {
                let Some(at) = notification.annotations().get(TEST) else {
                    continue;
                };
                let key = key(notification.as_ref());
                if asked.insert(key.clone(), at.clone()).as_ref() == Some(at) {
                    continue;
                }
                if let Some(record) = test(&notification, at, Timestamp::now()) {
                    self.push(key, Arc::new(record));
                }
            }
        }
    }

    /// Delivers what waits for a Notification until nothing does.
    async fn deliver(self: Arc<Self>, key: Key, queue: Arc<Queue>) {
        let Some(notification) = self.table.get(&key) else {
            self.forget(&key);
            return;
        };
        let mut status = notification.status.clone().unwrap_or_default();
        let mut written = Instant::now().checked_sub(STATUS_EVERY);
        loop {
            let Some(notification) = self.table.get(&key) else {
                self.forget(&key);
                return;
            };
            let (next, overrun, waiting) = queue.with(|s| {
                let next = s.waiting.front().cloned();
                (next, std::mem::take(&mut s.overrun), s.waiting.len())
            });
            for record in overrun {
                let why = format!("{WAITING} deliveries were waiting already");
                bury(&mut status, &record, 0, why);
            }
            status.waiting = waiting as i64;
            let due = written.is_none_or(|at| at.elapsed() >= STATUS_EVERY);
            if next.is_none() || due {
                self.write(&key, &notification, &mut status).await;
                written = Some(Instant::now());
            }
            let Some(record) = next else {
                let idle = queue.with(|s| {
                    s.running = !s.waiting.is_empty();
                    !s.running
                });
                if idle {
                    return;
                }
                continue;
            };
            let end = tokio::select! {
                () = self.stop.cancelled() => return,
                end = self.attempt(&key, &record, &mut status) => end,
            };
            queue.with(|s| s.waiting.pop_front());
            match end {
                Ok(()) => {
                    status.delivered += 1;
                    status.last_delivered = Some(Time(Timestamp::now()));
                    status.message.clear();
                }
                Err((tries, why)) => {
                    status.message = why.clone();
                    bury(&mut status, &record, tries, why);
                }
            }
        }
    }

    fn forget(&self, key: &Key) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.remove(key);
    }

    /// Tries one delivery until it is taken, or given up on: after how many tries, and why.
    async fn attempt(
        &self,
        key: &Key,
        record: &Record,
        status: &mut NotificationStatus,
    ) -> Result<(), (i32, String)> {
        let begun = Instant::now();
        let mut tries = 0;
        loop {
            // Read again each time: whoever mends the URL or the Secret is heard.
            let Some(notification) = self.table.get(key) else {
                return Err((tries, "the Notification is gone".to_owned()));
            };
            tries += 1;
            let Err(why) = self.send(&key.0, &notification, record).await else {
                return Ok(());
            };
            debug!(notification = %key.1, tries, %why, "not delivered");
            let wait = pause(tries as u32, rand::random());
            if begun.elapsed() + wait > notification.spec.retry_for.duration() {
                return Err((tries, why));
            }
            if status.message != why {
                status.message = why;
                self.write(key, &notification, status).await;
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn send(
        &self,
        namespace: &str,
        notification: &Notification,
        record: &Record,
    ) -> Result<(), String> {
        let spec = &notification.spec;
        let url = match (&spec.url, &spec.url_from) {
            (Some(url), _) => url.clone(),
            (None, Some(from)) => self.secret(namespace, from).await?,
            (None, None) => return Err("it has no url".to_owned()),
        };
        let signing_key = match &spec.signing_key {
            Some(from) => Some(self.secret(namespace, from).await?),
            None => None,
        };
        let message = form::message(spec, &url, signing_key.as_deref(), record, Timestamp::now());
        let exchange = self.post(namespace, &message);
        let answer = tokio::time::timeout(spec.timeout.duration(), exchange).await;
        let (code, body) = match answer {
            Ok(answer) => answer?,
            Err(_) => return Err(format!("no answer in {}", spec.timeout)),
        };
        taken(spec.format, code, &body)
    }

    async fn post(&self, namespace: &str, message: &form::Message) -> Result<(u16, Bytes), String> {
        let outside = if namespace == labels::SYSTEM_NAMESPACE {
            &self.open
        } else {
            &self.guarded
        };
        // URLs of chat tools hold a token: errors do not show them.
        let uri: http::Uri = message
            .url
            .trim()
            .parse()
            .map_err(|_| "its URL cannot be read".to_owned())?;
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header(header::USER_AGENT, "gantry-hub");
        for (name, value) in &message.headers {
            request = request.header(*name, value);
        }
        let body = Full::new(Bytes::from(message.body.clone()));
        let request = request.body(body).map_err(|e| e.to_string())?;
        let (head, body) = outside.exchange(request, ANSWER_LIMIT).await?;
        Ok((head.status.as_u16(), body))
    }

    async fn secret(&self, namespace: &str, key: &SecretKey) -> Result<String, String> {
        let api: Api<Secret> = Api::namespaced(self.hub.clone(), namespace);
        let secret = api.get(&key.name).await;
        let secret = secret.map_err(|e| format!("read secret {}: {e}", key.name))?;
        let data = secret.data.and_then(|mut d| d.remove(&key.key));
        let data = data.ok_or_else(|| format!("secret {} has no key {}", key.name, key.key))?;
        let text = String::from_utf8(data.0);
        let text =
            text.map_err(|_| format!("key {} of secret {} is no text", key.key, key.name))?;
        Ok(text.trim().to_owned())
    }

    async fn write(&self, key: &Key, notification: &Notification, status: &mut NotificationStatus) {
        let generation = notification.metadata.generation;
        status.observed_generation = generation;
        let (good, reason) = if status.message.is_empty() {
            (true, "Delivered")
        } else {
            (false, "NotDelivered")
        };
        set_condition(
            &mut status.conditions,
            "Ready",
            good,
            reason,
            status.message.clone(),
            generation,
            Timestamp::now(),
        );
        if notification.status.as_ref() == Some(status) {
            return;
        }
        let mut value = json!(status);
        if status.message.is_empty() {
            value["message"] = serde_json::Value::Null;
        }
        let api: Api<Notification> = Api::namespaced(self.hub.clone(), &key.0);
        let params = PatchParams {
            field_manager: Some(labels::FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(json!({"status": value}));
        match api.patch_status(&key.1, &params, &patch).await {
            Ok(fresh) => {
                self.table.put(fresh);
            }
            Err(error) => warn!(notification = %key.1, %error, "cannot write the status"),
        }
    }
}

fn bury(status: &mut NotificationStatus, record: &Record, tries: i32, message: String) {
    let object = &record.object;
    status.dead += 1;
    status.dead_letters.insert(
        0,
        DeadLetter {
            id: event_id(record),
            about: format!(
                "{} of {} {}: {}",
                record.verb, object.kind, object.name, record.outcome
            ),
            tries,
            message: message.chars().take(300).collect(),
            at: Time(Timestamp::now()),
        },
    );
    status.dead_letters.truncate(DEAD);
}
