//! The audit log: who asked what, when, and what came of it, as a policy wants it recorded.
//!
//! A request only collects what is known of it; a thread of its own decodes bodies, writes the
//! events and turns the files over. The queue in between is bounded: when it is full, requests wait
//! for it, so that no event is lost and memory is bounded.

mod event;
mod log;
mod notes;
mod policy;

use std::{sync::Arc, thread};

use http::request::Parts;
use tokio::sync::{mpsc, oneshot};

pub use event::{Content, Event, Peer};
pub use log::LogFile;
pub use notes::Notes;
pub use policy::{Level, Policy, Stage};

use crate::{
    authn::UserInfo,
    authz::Attributes,
    request::Target,
    respond::{Body, Reply},
};

/// What is recorded and where it is kept.
#[derive(Debug, Clone)]
pub struct AuditConfig {
    pub policy: Policy,
    pub file: LogFile,
}

/// Events that may wait to be written.
const QUEUE: usize = 10_000;

enum Message {
    Event(Box<Event>),
    Flush(oneshot::Sender<()>),
}

/// Why the log cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("opening the audit log")]
pub struct AuditError(#[from] std::io::Error);

pub struct Audit {
    policy: Policy,
    queue: mpsc::Sender<Message>,
}

impl Audit {
    pub fn start(config: &AuditConfig) -> Result<Audit, AuditError> {
        let log = log::Log::open(config.file.clone())?;
        let (queue, messages) = mpsc::channel(QUEUE);
        thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || write(log, messages))?;
        Ok(Audit {
            policy: config.policy.clone(),
            queue,
        })
    }

    /// Begins the record of a request; `None` when nothing is to be recorded of it. `user` is
    /// `None` when it is not known who asks.
    pub async fn begin(
        self: &Arc<Self>,
        parts: &Parts,
        id: &str,
        received: jiff::Timestamp,
        user: Option<&UserInfo>,
        (a, target): (&Attributes<'_>, Option<&Target>),
    ) -> Option<Record> {
        let verdict = self.policy.judge(user, a);
        if verdict.level == Level::None {
            return None;
        }
        let event = Event::new(parts, id, received, user, a, target, &verdict);
        let mut record = Record {
            audit: self.clone(),
            omitted: verdict.omitted,
            event: Some(Box::new(event)),
        };
        if user.is_some() {
            record.stage(Stage::RequestReceived).await;
        }
        Some(record)
    }

    /// Waits until all events of before are written.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.queue.send(Message::Flush(done)).await.is_ok() {
            let _ = written.await;
        }
    }
}

/// What is recorded of one request. The last stage is written when it is finished, or dropped.
pub struct Record {
    audit: Arc<Audit>,
    omitted: Vec<Stage>,
    event: Option<Box<Event>>,
}

impl Record {
    fn at(&self, stage: Stage) -> Option<Box<Event>> {
        if self.omitted.contains(&stage) {
            return None;
        }
        let mut event = self.event.clone()?;
        event.stage(stage);
        Some(event)
    }

    async fn stage(&mut self, stage: Stage) {
        if let Some(event) = self.at(stage) {
            let _ = self.audit.queue.send(Message::Event(event)).await;
        }
    }

    /// Changes what is known of the request.
    pub fn note(&mut self, change: impl FnOnce(&mut Event)) {
        if let Some(event) = &mut self.event {
            change(event);
        }
    }

    /// A place for what admission has to say about the request.
    pub fn notes(&self) -> Notes {
        let level = self.event.as_ref().map(|event| event.level);
        level.map(Notes::at).unwrap_or_default()
    }

    /// Takes what came of the request.
    pub fn answer(&mut self, reply: &Reply) {
        self.note(|event| event.answer(reply));
    }

    /// A request that nobody is known for has been answered.
    pub async fn unauthenticated(mut self) {
        self.stage(Stage::ResponseStarted).await;
        self.event = None;
    }

    /// The answer was all.
    pub async fn complete(mut self, panicked: bool) {
        let stage = if panicked {
            Stage::Panic
        } else {
            Stage::ResponseComplete
        };
        self.stage(stage).await;
        self.event = None;
    }

    /// The answer has begun; it is complete when the record is dropped.
    pub async fn started(&mut self) {
        self.stage(Stage::ResponseStarted).await;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let Some(event) = &mut self.event else {
            return;
        };
        let stage = if thread::panicking() {
            event.panicked();
            Stage::Panic
        } else {
            event.gone();
            Stage::ResponseComplete
        };
        let Some(event) = self.at(stage) else { return };
        if let Err(mpsc::error::TrySendError::Full(message)) =
            self.audit.queue.try_send(Message::Event(event))
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let queue = self.audit.queue.clone();
            runtime.spawn(async move { queue.send(message).await });
        }
    }
}

/// Whether an answer goes on after its head, as a watch does.
pub fn goes_on(reply: &Reply) -> bool {
    matches!(reply.body(), Body::Stream(_))
}

fn write(mut log: log::Log, mut messages: mpsc::Receiver<Message>) {
    let failed = |error: std::io::Error| {
        tracing::error!(%error, "writing the audit log");
    };
    while let Some(message) = messages.blocking_recv() {
        match message {
            Message::Event(event) => {
                let mut line = event.line();
                line.push(b'\n');
                if let Err(error) = log.write(&line) {
                    failed(error);
                }
            }
            Message::Flush(done) => {
                if let Err(error) = log.flush() {
                    failed(error);
                }
                let _ = done.send(());
            }
        }
        // In batches under load, at once otherwise.
        if messages.is_empty()
            && let Err(error) = log.flush()
        {
            failed(error);
        }
    }
    if let Err(error) = log.flush() {
        failed(error);
    }
}
