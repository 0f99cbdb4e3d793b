//! The way into a store that may be away for a while.
//!
//! Entries are written in the order in which they were sent. While the store answers, they go straight into it;
//! when it does not, they wait in a [spool](crate::spool), synced to disk, and are written when it is back.
//! When the spool is full, [`Writer::send`] waits: whoever sends can look again at what it sends from.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::Instant,
};
use tracing::{error, info, warn};

use crate::{
    Records,
    record::{Entry, Seen},
    spool::Spool,
    store::Error,
};

/// Entries written at once.
const BATCH: usize = 256;
/// The longest wait between two tries of a store that is away.
const LONGEST: Duration = Duration::from_secs(2);

/// How a writer works.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file in which entries wait while the store is away; without one they wait in memory.
    pub spool: Option<PathBuf>,
    /// The most that the file may hold, in bytes.
    pub spool_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            spool: None,
            spool_bytes: 256 << 20,
        }
    }
}

enum Message {
    Entry(Box<Entry>),
    Flush(oneshot::Sender<()>),
    Baseline(oneshot::Sender<Vec<Seen>>),
}

/// Writes entries, in order, each at least once, and each record so that it counts once. Clones send to the same
/// task, which ends when the last of them is dropped and everything is in the store or the spool.
#[derive(Clone, Debug)]
pub struct Writer {
    sender: mpsc::Sender<Message>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl State {
    fn set_trouble(&self, why: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
}

impl Writer {
    /// Starts a writer. What waits in the spool from an earlier run is written first.
    ///
    /// # Errors
    /// Where the spool cannot be opened.
    pub fn start(
        records: Arc<dyn Records>,
        options: &Options,
    ) -> Result<(Self, JoinHandle<()>), Error> {
        let spool = match &options.spool {
            Some(path) => Spool::open(path, options.spool_bytes).map_err(|source| Error::File {
                path: path.display().to_string(),
                source,
            })?,
            None => Spool::memory(),
        };
        let (sender, receiver) = mpsc::channel(BATCH);
        let state = Arc::new(State::default());
        let task = Task {
            records,
            receiver,
            before: 0,
            spool: Some(spool),
            refused: options.spool.as_ref().map(|p| p.with_extension("refused")),
            baseline: Vec::new(),
            state: state.clone(),
            tries: 0,
            next: Instant::now(),
        };
        let writer = Self { sender, state };
        Ok((writer, tokio::spawn(task.run())))
    }

    /// Sends an entry, waiting for room. `false` where the writer has ended.
    pub async fn send(&self, entry: Entry) -> bool {
        let message = Message::Entry(Box::new(entry));
        self.sender.send(message).await.is_ok()
    }

    /// Waits until everything sent before is in the store or, where that is away, in the spool.
    pub async fn flush(&self) {
        let (tell, told) = oneshot::channel();
        if self.sender.send(Message::Flush(tell)).await.is_ok() {
            // Where the task has ended there is nothing to wait for.
            let _ = told.await;
        }
    }

    /// Asks what the store has seen, with everything that was sent before and nothing that is sent afterwards. The
    /// answer comes when the store gives it; an error means that the writer has ended.
    pub async fn baseline(&self) -> oneshot::Receiver<Vec<Seen>> {
        let (tell, told) = oneshot::channel();
        // Where the task has ended, `tell` is dropped, which the receiver sees.
        let _ = self.sender.send(Message::Baseline(tell)).await;
        told
    }

    /// How much waits for the store: bytes on disk, entries in memory.
    pub fn waiting(&self) -> u64 {
        self.state.waiting.load(Ordering::Relaxed)
    }

    /// Why the store cannot be written to at present.
    pub fn trouble(&self) -> Option<String> {
        let trouble = self.state.trouble.lock();
        trouble.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Task {
    records: Arc<dyn Records>,
    receiver: mpsc::Receiver<Message>,
    /// Absent only while a blocking call has it.
    spool: Option<Spool>,
    /// How much of the spool was there before the baseline was asked for, and still is.
    before: u64,
    /// Where entries go that the store refuses for good.
    refused: Option<PathBuf>,
    /// Who waits for what the store has seen. Until they have it, nothing that came after them is written.
    baseline: Vec<oneshot::Sender<Vec<Seen>>>,
    state: Arc<State>,
    tries: u32,
    next: Instant,
}

impl Task {
    async fn run(mut self) {
        loop {
            let room = self.spool.as_ref().is_some_and(Spool::has_room);
            let idle = self.spool.as_ref().is_some_and(Spool::is_empty) && self.baseline.is_empty();
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(self.next), if !idle => self.drain().await,
                message = self.receiver.recv(), if room => {
                    let Some(message) = message else { break };
                    self.take(message).await;
                }
            }
            let waiting = self.spool.as_ref().map_or(0, Spool::waiting);
            self.state.waiting.store(waiting, Ordering::Relaxed);
        }
        // A last try; what does not come through waits in the spool for the next run.
        while self.spool.as_ref().is_some_and(|s| !s.is_empty()) {
            let before = self.spool.as_ref().map_or(0, Spool::waiting);
            self.drain().await;
            if self.spool.as_ref().map_or(0, Spool::waiting) >= before {
                break;
            }
        }
        self.records.close().await;
    }

    /// Takes what has come, with whatever has come behind it.
    async fn take(&mut self, first: Message) {
        let (mut entries, mut flushed, mut asked) = (Vec::new(), Vec::new(), None);
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Entry(entry) => entries.push(*entry),
                Message::Flush(tell) => flushed.push(tell),
                Message::Baseline(tell) => asked = Some(tell),
            }
            next = if entries.len() < BATCH && asked.is_none() {
                self.receiver.try_recv().ok()
            } else {
                None
            };
        }
        if !entries.is_empty() {
            let direct =
                self.baseline.is_empty() && self.spool.as_ref().is_some_and(Spool::is_empty);
            if !direct || !self.write(&entries).await {
                self.keep(entries).await;
            }
        }
        if let Some(tell) = asked {
            self.baseline.push(tell);
            self.before = self.spool.as_ref().map_or(0, Spool::waiting);
        }
        for tell in flushed {
            // Who no longer waits need not be told.
            let _ = tell.send(());
        }
    }

    /// Writes entries to the store; whether they are dealt with.
    async fn write(&mut self, entries: &[Entry]) -> bool {
        match self.records.write(entries).await {
            Ok(()) => {
                self.well();
                true
            }
            Err(error) if error.is_refusal() => {
                // One of them is to blame: it must not hold up the others.
                for entry in entries {
                    match self.records.write(std::slice::from_ref(entry)).await {
                        Ok(()) => {}
                        Err(error) if error.is_refusal() => self.set_aside(entry, &error).await,
                        // Written again as a whole, which harms nothing.
                        Err(error) => return self.unwell(&error),
                    }
                }
                self.well();
                true
            }
            Err(error) => self.unwell(&error),
        }
    }

    fn well(&mut self) {
        if self.tries > 0 {
            info!("the records are written again");
        }
        self.tries = 0;
        self.next = Instant::now();
        self.state.set_trouble(None);
    }

    fn unwell(&mut self, error: &Error) -> bool {
        if self.tries == 0 {
            warn!(%error, "records cannot be written now; they wait");
        }
        self.tries += 1;
        let wait = Duration::from_millis(50).saturating_mul(1 << self.tries.min(8));
        self.next = Instant::now() + wait.min(LONGEST);
        self.state.set_trouble(Some(error.to_string()));
        false
    }

    async fn set_aside(&self, entry: &Entry, why: &Error) {
        error!(error = %why, "the store refuses a record; it is set aside");
        if let Some(path) = self.refused.clone() {
            let entry = entry.clone();
            let kept = tokio::task::spawn_blocking(move || {
                Spool::open(&path, u64::MAX).and_then(|mut spool| spool.append(&[entry]))
            });
            if !matches!(kept.await, Ok(Ok(()))) {
                error!("the record could not be set aside: it is lost");
            }
        }
    }

    /// Reads the baseline, or writes a batch of what waits.
    async fn drain(&mut self) {
        if self.before == 0 && !self.baseline.is_empty() {
            match self.records.seen().await {
                Ok(seen) => {
                    self.well();
                    for tell in self.baseline.drain(..) {
                        // Who no longer waits need not be told.
                        let _ = tell.send(seen.clone());
                    }
                }
                Err(error) => {
                    self.unwell(&error);
                }
            }
            return;
        }
        let left = self.before;
        let within = if left > 0 { left } else { u64::MAX };
        let peek = move |spool: &mut Spool| spool.peek(BATCH, within);
        let Some(entries) = self.with_spool(peek).await else {
            return;
        };
        if !self.write(&entries).await {
            return;
        }
        let count = entries.len();
        let waiting = self.spool.as_ref().map_or(0, Spool::waiting);
        if self
            .with_spool(move |spool| spool.advance(count))
            .await
            .is_some()
        {
            let now = self.spool.as_ref().map_or(0, Spool::waiting);
            self.before = left.saturating_sub(waiting.saturating_sub(now));
        }
    }

    /// Puts entries into the spool, however long that takes: where the disk is full there is no other place.
    async fn keep(&mut self, entries: Vec<Entry>) {
        let entries = Arc::new(entries);
        loop {
            let batch = entries.clone();
            if self
                .with_spool(move |spool| spool.append(&batch))
                .await
                .is_some()
            {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            if self.baseline.is_empty()
                && self.spool.as_ref().is_some_and(Spool::is_empty)
                && self.write(&entries).await
            {
                return;
            }
        }
    }

    /// Works with the spool beside the executor, since syncing takes its time.
    async fn with_spool<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Spool) -> std::io::Result<T> + Send + 'static,
    ) -> Option<T> {
        let mut spool = self.spool.take()?;
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&mut spool);
            (spool, result)
        });
        match done.await {
            Ok((spool, result)) => {
                self.spool = Some(spool);
                result
                    .inspect_err(|error| error!(%error, "the spool of records cannot be used"))
                    .ok()
            }
            // The runtime is ending.
            Err(_) => None,
        }
    }
}
