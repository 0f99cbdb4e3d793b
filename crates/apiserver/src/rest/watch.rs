//! Watching: a stream of frames, each serialised once for all who see the same.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use gantry_machinery::{
    protobuf::{self, Encoder},
    status::Failure,
};
use gantry_store::{Event, EventKind, Lagged, ReadError, Stored, Watch};
use rand::Rng;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    frames::{self, Kind},
    get,
    list::{self, Filter, PART},
};
use crate::{
    api::{Api, Cx},
    audit, convert, errors, object,
    registry::Entry,
    respond::{self, Form, Media, Output, Reply},
};

/// How often a watcher that wants bookmarks gets one.
const BOOKMARKS: Duration = Duration::from_secs(60);

/// The media type of a watch in protobuf.
const MESSAGES: &str = "application/vnd.kubernetes.protobuf;stream=watch";
/// What a watch can be encoded in.
const STREAMED: &str =
    "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";

fn frame(media: Media, encoder: &mut Encoder, kind: &str, object: &[u8]) -> Result<Bytes, Failure> {
    if media == Media::Protobuf {
        let body = respond::message(encoder, object)?;
        return Ok(protobuf::watch_frame(kind, &body).into());
    }
    let mut out = BytesMut::with_capacity(object.len() + kind.len() + 24);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(kind.as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(object);
    out.put_slice(b"}\n");
    Ok(out.freeze())
}

/// The frame that ends a watch with a failure.
fn error_frame(media: Media, failure: &Failure) -> Bytes {
    let status = failure.to_value().to_string();
    frame(media, &mut Encoder::new(), "ERROR", status.as_bytes()).unwrap_or_else(|failure| {
        tracing::error!(%failure, "encoding the end of a watch");
        Bytes::new()
    })
}

struct Stream {
    watch: Watch,
    entry: Arc<Entry>,
    output: Output,
    filter: Filter,
    /// Events up to this revision are not sent (a watch from the future).
    after: u64,
    pending: VecDeque<Bytes>,
    /// Objects of the state at the beginning that are not rendered yet.
    initial: std::vec::IntoIter<Arc<Stored>>,
    /// The version of that state, where the watcher wants to be told when it has all of it.
    mark: Option<u64>,
    bookmarks: Option<Instant>,
    ends: Instant,
    stop: CancellationToken,
    /// Rings when definitions have been read again; of custom resources alone.
    definitions: Option<tokio::sync::watch::Receiver<()>>,
    /// A Table watch shows its columns once.
    columns: bool,
    encoder: Encoder,
    cx: Cx,
    over: bool,
}

pub async fn watch(cx: &mut Cx) -> Result<Reply, Failure> {
    let media_type = match cx.output.media {
        Media::Json => respond::JSON,
        Media::Protobuf => MESSAGES,
        Media::Yaml => return Err(errors::not_acceptable(STREAMED)),
    };
    let filter = Filter::parse(cx)?;
    list::check_watch_options(cx)?;
    let version = cx.query.text("resourceVersion").to_owned();
    let wanted = get::parse_version(&version)?;
    let initial = cx.query.flag("sendInitialEvents");
    let given = cx
        .query
        .get("sendInitialEvents")
        .is_some_and(|v| !v.is_empty());
    let bookmarks = cx.query.flag("allowWatchBookmarks");
    if initial && !bookmarks {
        return Err(errors::invalid_options(
            "ListOptions",
            "allowWatchBookmarks",
            "FieldValueForbidden",
            "Forbidden: sendInitialEvents requires setting allowWatchBookmarks to true".to_owned(),
        ));
    }
    let seconds = cx.query.integer("timeoutSeconds")?.unwrap_or(0);
    let ends = Instant::now()
        + if seconds > 0 {
            Duration::from_secs(seconds.unsigned_abs())
        } else {
            Duration::from_secs(rand::rng().random_range(1800..3600))
        };
    let store = cx.store().clone();
    if initial {
        get::reached(&store, wanted).await?;
    }
    let bucket = cx.entry.bucket.clone();
    let from_now = initial || (wanted == 0 && !given);
    let opened = if from_now || (given && wanted == 0) {
        // The state now, then what comes after it.
        let snapshot = store.snapshot(&bucket);
        let revision = snapshot.revision();
        store
            .watch(&bucket, revision)
            .map(|w| (w, revision, Some(snapshot)))
    } else {
        match store.watch(&bucket, wanted) {
            Err(ReadError::Future { newest }) => {
                store.watch(&bucket, newest).map(|w| (w, wanted, None))
            }
            opened => opened.map(|w| (w, wanted, None)),
        }
    };
    let (watch, after, snapshot) = match opened {
        Ok(opened) => opened,
        Err(e) => {
            let last = error_frame(cx.output.media, &gone(wanted, &e));
            let once = futures::stream::iter([last]);
            return Ok(respond::stream(media_type, once));
        }
    };
    let definitions = cx.resource().custom.as_ref().map(|_| {
        let mut definitions = cx.api.redefined.subscribe();
        // The definition may have changed since the resource was looked up.
        definitions.mark_changed();
        definitions
    });
    let mut stream = Stream {
        watch,
        entry: cx.entry.clone(),
        output: cx.output,
        filter,
        after,
        pending: VecDeque::new(),
        initial: vec![].into_iter(),
        mark: None,
        bookmarks: bookmarks.then(|| next_bookmark(ends)).flatten(),
        ends,
        stop: cx.api.stop.clone(),
        definitions,
        columns: true,
        encoder: Encoder::new(),
        over: false,
        cx: Cx {
            api: cx.api.clone(),
            entry: cx.entry.clone(),
            target: cx.target.clone(),
            query: cx.query.clone(),
            user: cx.user.clone(),
            headers: http::HeaderMap::new(),
            output: cx.output,
            now: cx.now,
            warnings: vec![],
            notes: audit::Notes::default(),
            own: cx.own,
            pieces: Default::default(),
            conversions: Default::default(),
        },
    };
    if let Some(snapshot) = snapshot.filter(|_| from_now) {
        stream.begin(&snapshot, initial).await?;
        // What cannot be rendered at all is answered with its failure.
        stream.part().await?;
    }
    // An empty first frame sends the head of the answer at once.
    let body = futures::stream::unfold(stream, |mut stream| async move {
        stream.next().await.map(|bytes| (bytes, stream))
    });
    Ok(respond::stream(media_type, body))
}

/// A watcher gets a last bookmark this long before its watch ends.
const LAST: Duration = Duration::from_secs(2);

/// When the next bookmark is due; `None` when the last one is sent.
fn next_bookmark(ends: Instant) -> Option<Instant> {
    let now = Instant::now();
    let last = ends.checked_sub(LAST)?;
    (last > now).then(|| last.min(now + BOOKMARKS))
}

fn gone(wanted: u64, e: &ReadError) -> Failure {
    let oldest = match e {
        ReadError::Compacted { oldest } => *oldest,
        ReadError::Future { newest } => *newest,
    };
    errors::expired(format!("too old resource version: {wanted} ({oldest})"))
}

/// Ends when the definition of a custom resource says something else than when the watch began, or
/// is gone: what the watch would show then is another thing.
async fn redefined(
    definitions: &mut Option<tokio::sync::watch::Receiver<()>>,
    api: &Api,
    entry: &Entry,
) {
    let Some(definitions) = definitions else {
        return std::future::pending().await;
    };
    let resource = &entry.resource;
    let print = |entry: &Entry| entry.resource.custom.as_ref().map(|c| c.print);
    while definitions.changed().await.is_ok() {
        let registry = api.registry.read();
        let now = registry.lookup(&resource.group, &resource.version, &resource.plural);
        if now.and_then(|now| print(now)) != print(entry) {
            return;
        }
    }
}

impl Stream {
    /// Has synthetic ADDED frames sent for what is there, and a mark where they end.
    async fn begin(
        &mut self,
        snapshot: &gantry_store::Snapshot,
        mark: bool,
    ) -> Result<(), Failure> {
        let all = snapshot.range(&self.filter.prefix, None);
        let selected = self.filter.choose(&self.cx.api, &self.entry, all).await?;
        self.initial = selected.into_iter();
        self.mark = mark.then(|| snapshot.revision());
        Ok(())
    }

    /// Makes frames of events.
    async fn events(&mut self, events: &[Arc<Event>]) {
        for event in events {
            if let Some(bytes) = self.event(event).await {
                self.pending.push_back(bytes);
            }
        }
    }

    async fn selects(&self, stored: Option<&Arc<Stored>>) -> Result<bool, Failure> {
        if !self.filter.inside {
            return Ok(stored.is_some_and(|s| self.filter.matches(&self.entry, s)));
        }
        let chosen = self
            .filter
            .choose(&self.cx.api, &self.entry, stored.into_iter())
            .await?;
        Ok(!chosen.is_empty())
    }

    /// Renders some of those frames: as many as a webhook converts at once, where one has to, and
    /// never those of a whole fleet before the client has read the first.
    async fn part(&mut self) -> Result<(), Failure> {
        let part: Vec<Arc<Stored>> = self.initial.by_ref().take(PART).collect();
        for whole in get::all(&self.cx.api, &self.entry, &part).await? {
            let bytes = self.shaped("ADDED", whole)?;
            self.pending.push_back(bytes);
        }
        if self.initial.as_slice().is_empty()
            && let Some(revision) = self.mark.take()
        {
            let mark = self.bookmark(revision, true)?;
            self.pending.push_back(mark);
        }
        Ok(())
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.pending.pop_front() {
                return Some(bytes);
            }
            if self.over {
                return None;
            }
            if !self.initial.as_slice().is_empty() {
                if let Err(failure) = self.part().await {
                    self.end(&failure);
                }
                continue;
            }
            let mark = self.bookmarks.unwrap_or(self.ends);
            tokio::select! {
                batch = self.watch.next() => match batch {
                    Ok(batch) => {
                        self.events(&batch.events).await;
                    }
                    Err(Lagged::Compacted { oldest }) => {
                        let failure = errors::expired(format!(
                            "too old resource version: {} ({oldest})", self.watch.revision()
                        ));
                        self.end(&failure);
                    }
                    Err(Lagged::Closed) => return None,
                },
                () = tokio::time::sleep_until(mark.min(self.ends)) => {
                    if Instant::now() >= self.ends {
                        return None;
                    }
                    if self.bookmarks.is_some() {
                        self.bookmarks = next_bookmark(self.ends);
                        if let Ok(batch) = self.watch.try_next() {
                            self.events(&batch.events).await;
                            match self.bookmark(batch.revision.max(self.after), false) {
                                Ok(mark) => self.pending.push_back(mark),
                                Err(failure) => self.end(&failure),
                            }
                        }
                    }
                },
                () = redefined(&mut self.definitions, &self.cx.api, &self.entry) => {
                    while let Ok(batch) = self.watch.try_next()
                        && !batch.events.is_empty()
                    {
                        self.events(&batch.events).await;
                    }
                    self.over = true;
                }
                () = self.stop.cancelled() => return None,
            }
        }
    }

    async fn event(&mut self, event: &Event) -> Option<Bytes> {
        if event.revision <= self.after {
            return None;
        }
        match self.shown(event).await {
            Ok(shown) => shown,
            Err(failure) => {
                tracing::error!(key = %event.object.key, %failure, "rendering a watch event");
                self.over = true;
                Some(error_frame(self.output.media, &failure))
            }
        }
    }

    /// The frame of an event that the watcher is to see.
    async fn shown(&mut self, event: &Event) -> Result<Option<Bytes>, Failure> {
        let before = self.selects(event.previous.as_ref()).await?;
        let put = (event.kind == EventKind::Put).then_some(&event.object);
        let now = self.selects(put).await?;
        let kind = match (event.kind, before, now) {
            (EventKind::Delete, true, _) => Kind::Deleted,
            (EventKind::Put, false, true) => Kind::Added,
            (EventKind::Put, true, true) => Kind::Modified,
            (EventKind::Put, true, false) => Kind::Left,
            _ => return Ok(None),
        };
        self.bytes(event, kind).await.map(Some)
    }

    fn end(&mut self, failure: &Failure) {
        let last = error_frame(self.output.media, failure);
        self.pending.push_back(last);
        self.over = true;
    }

    async fn bytes(&mut self, event: &Event, kind: Kind) -> Result<Bytes, Failure> {
        let name = kind.as_str();
        let left = match kind {
            Kind::Left => event.previous.as_ref(),
            _ => None,
        };
        // The object as it is sent, with the version of the event.
        let (object, version) = match left {
            Some(previous) => (&**previous, Some(event.revision)),
            None => (&*event.object, None),
        };
        if !get::as_stored(&self.entry, object) {
            return self.render(name, object, version).await;
        }
        let Some(slot) = frames::slot(event, self.output, kind) else {
            return self.render(name, object, version).await;
        };
        if let Some(made) = slot.get() {
            return Ok(made);
        }
        let made = self.render(name, object, version).await?;
        Ok(slot.put(made, &self.cx.api.frames))
    }

    /// A frame in the version and form of this watcher alone.
    async fn render(
        &mut self,
        kind: &str,
        stored: &Stored,
        version: Option<u64>,
    ) -> Result<Bytes, Failure> {
        let mut whole = get::bytes(&self.cx.api, &self.entry, stored).await?;
        if let Some(version) = version {
            whole = object::restamp(&self.entry.served_head, &whole, version);
        }
        self.shaped(kind, whole)
    }

    /// A frame of an object in the version of the request.
    fn shaped(&mut self, kind: &str, whole: Bytes) -> Result<Bytes, Failure> {
        let json: Bytes = match self.output.form {
            Form::Object => whole,
            Form::Partial | Form::PartialList => respond::partial(&self.cx, &whole)?,
            Form::Table(include) => {
                let item = object::parse(&whole)?;
                let meta = json!({"resourceVersion": object::meta_text(&item, "resourceVersion")});
                let table = respond::table(
                    self.output,
                    &self.entry,
                    &[item],
                    include,
                    meta,
                    std::mem::take(&mut self.columns),
                );
                table.to_string().into()
            }
        };
        frame(self.output.media, &mut self.encoder, kind, &json)
    }

    fn bookmark(&mut self, revision: u64, initial: bool) -> Result<Bytes, Failure> {
        let resource = &self.entry.resource;
        let mut meta = json!({"resourceVersion": revision.to_string()});
        if initial {
            meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.output.form {
            Form::Object => {
                let mut object = convert::zero(resource);
                object["kind"] = resource.kind.clone().into();
                object["apiVersion"] = resource.api_version().into();
                object["metadata"] = meta;
                object
            }
            Form::Partial | Form::PartialList => json!({
                "kind": "PartialObjectMetadata", "apiVersion": self.output.meta_version,
                "metadata": meta,
            }),
            Form::Table(_) => {
                let mut table = respond::table(
                    self.output,
                    &self.entry,
                    &[],
                    crate::rules::Include::None,
                    meta,
                    std::mem::take(&mut self.columns),
                );
                table["rows"] = Value::Array(vec![]);
                table
            }
        };
        let json = object.to_string();
        frame(
            self.output.media,
            &mut self.encoder,
            "BOOKMARK",
            json.as_bytes(),
        )
    }
}
