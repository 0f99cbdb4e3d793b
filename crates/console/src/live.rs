//! Pages that stay open are kept current.
//!
//! Everyone who looks at the same page with the same eyes (user, language, time zone) is in one *room*:
//! the page is rendered once for all of them when something that it shows has changed, and each is sent
//! the parts that are not as they were sent last. What only tells how long ago something was does not
//! count as a change: browsers tick such clocks themselves.

use std::{
    collections::HashMap,
    convert::Infallible,
    hash::{Hash, Hasher},
    sync::{Arc, Weak},
    time::Duration,
};

use axum::{
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, header};
use http_body_util::StreamBody;
use hyper::body::Frame;
use parking_lot::Mutex;
use rustc_hash::FxHasher;
use serde_json::json;
use tokio::{
    sync::{broadcast::error::RecvError, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    app::{App, Cx, peer, to},
    error::Fail,
    page::{self, Block, Page},
    prefs::Prefs,
    view::Params,
};

/// Changes are gathered this long before a page is rendered.
const GATHER: Duration = Duration::from_millis(120);
/// A page is not rendered more often than this.
const APART: Duration = Duration::from_millis(450);
/// And at least this often: what someone may see changes without any object changing.
const AT_LEAST: Duration = Duration::from_secs(30);
/// This often a comment is sent, so that a lost connection is noticed, and the session is looked at: it may have
/// expired, or its token been revoked. (One that is ended here ends its pages at once.)
const HEARTBEAT: Duration = Duration::from_secs(10);

/// A page as it was rendered last.
#[derive(Debug, Default)]
pub struct Shown {
    /// Each part: its id, the mark of what it says, its HTML.
    parts: Vec<(String, u64, String)>,
    /// Mark of which parts there are and in which order.
    shape: u64,
    /// Mark of everything.
    pub mark: u64,
    /// All of it.
    whole: String,
    title: String,
}

/// A mark of what HTML says, without what stands in `<time>`s.
pub fn mark(html: &str) -> u64 {
    let mut hasher = FxHasher::default();
    let mut rest = html;
    while let Some(start) = rest.find("<time") {
        let open = rest[start..].find('>').map_or(rest.len(), |n| start + n);
        rest[..open].hash(&mut hasher);
        let close = rest[open..]
            .find("</time>")
            .map_or(rest.len(), |n| open + n);
        rest = &rest[close..];
        // Past this end, or the same start would be found again.
        rest = rest.strip_prefix("</time>").unwrap_or(rest);
    }
    rest.hash(&mut hasher);
    hasher.finish()
}

impl Shown {
    /// Of a page.
    pub fn of(page: &Page) -> Self {
        let mut parts = Vec::new();
        gather(&page.body, &mut parts);
        let mut shape = FxHasher::default();
        let mut all = FxHasher::default();
        for (id, mark, _) in &parts {
            id.hash(&mut shape);
            (id, mark).hash(&mut all);
        }
        page.title.hash(&mut all);
        Self {
            shape: shape.finish(),
            mark: all.finish(),
            whole: page::frame::blocks(&page.body).into_string(),
            title: page.title.clone(),
            parts,
        }
    }

    /// What has to be sent to who has seen `old`.
    pub fn since(&self, old: &Self) -> Vec<Bytes> {
        if self.shape != old.shape {
            return vec![self.event_whole()];
        }
        let mut events: Vec<Bytes> = Vec::new();
        for (now, before) in self.parts.iter().zip(&old.parts) {
            if now.1 != before.1 {
                let data = json!({"id": now.0, "html": now.2});
                events.push(event("part", &data.to_string()));
            }
        }
        if self.title != old.title {
            events.push(event("title", &json!(self.title).to_string()));
        }
        events
    }

    fn event_whole(&self) -> Bytes {
        let data = json!({"html": self.whole, "title": self.title});
        event("main", &data.to_string())
    }
}

fn gather(blocks: &[Block], parts: &mut Vec<(String, u64, String)>) {
    for block in blocks {
        match block {
            Block::Part { id, .. } => {
                let html = page::frame::block(block).into_string();
                parts.push((id.clone(), mark(&html), html));
            }
            Block::Group { id, blocks, .. } => {
                parts.push((id.clone(), 0, String::new()));
                gather(blocks, parts);
            }
        }
    }
}

fn event(name: &str, data: &str) -> Bytes {
    // JSON has no line ends of its own.
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

/// What a room says.
#[derive(Clone)]
enum Said {
    Page(Arc<Shown>),
    Gone,
    Login,
    Nothing,
    /// Whose eyes the room looked with has left for good: whoever else is in it opens another.
    Closed,
}

type Room = watch::Sender<Said>;

/// The rooms in which somebody is.
#[derive(Default)]
pub struct Rooms {
    all: Mutex<HashMap<String, Weak<Room>>>,
}

impl Rooms {
    /// Enters a room, which opens with the first who does.
    fn enter(&self, cx: &Cx, place: &str) -> (Arc<Room>, watch::Receiver<Said>) {
        let prefs = &cx.prefs;
        let key = format!(
            "{place}\u{0}{}\u{0}{}\u{0}{:?}\u{0}{}",
            prefs.lang.code(),
            prefs.zone_name,
            prefs.favourites,
            cx.session.identity()
        );
        let mut all = self.all.lock();
        if let Some(room) = all.get(&key).and_then(Weak::upgrade) {
            let receiver = room.subscribe();
            return (room, receiver);
        }
        all.retain(|_, room| room.strong_count() > 0);
        let (sender, receiver) = watch::channel(Said::Nothing);
        let room = Arc::new(sender);
        all.insert(key.clone(), Arc::downgrade(&room));
        drop(all);
        let (cx, place, weak) = (cx.clone(), place.to_owned(), Arc::downgrade(&room));
        let (app, ended) = (cx.app.clone(), cx.session.ended.clone());
        app.tasks.clone().spawn(async move {
            tokio::select! {
                () = run(cx, place, weak.clone()) => {}
                () = ended.cancelled() => app.rooms.close(&key, &weak),
            }
        });
        (room, receiver)
    }

    fn close(&self, key: &str, room: &Weak<Room>) {
        let mut all = self.all.lock();
        if all.get(key).is_some_and(|known| known.ptr_eq(room)) {
            all.remove(key);
        }
        drop(all);
        if let Some(room) = room.upgrade() {
            room.send_replace(Said::Closed);
        }
    }
}

/// Renders a room's page whenever something that it shows has changed, until nobody is left.
async fn run(mut cx: Cx, place: String, room: Weak<Room>) {
    let (path, query) = place.split_once('?').unwrap_or((&place, ""));
    let params = Params::parse(query);
    let mut changes = cx.app.model.changes();
    loop {
        // What changes from here on is looked at after this rendering.
        cx = Cx::with(&cx.app, cx.session.latest(), cx.prefs.clone()).await;
        let found = page::find(&cx, path, &params).await;
        let (said, interest) = match &found {
            Ok(page) => (
                Said::Page(Arc::new(Shown::of(page))),
                Some(page.interest.clone()),
            ),
            Err(Fail::Login) => (Said::Login, None),
            Err(Fail::Upstream(_)) => (Said::Nothing, None),
            Err(_) => (Said::Gone, None),
        };
        let rendered = Instant::now();
        let Some(sender) = room.upgrade() else { return };
        if !matches!(said, Said::Nothing) {
            sender.send_replace(said);
        }
        drop(sender);
        let again = rendered + AT_LEAST;
        let due = loop {
            tokio::select! {
                () = cx.app.stop.cancelled() => return,
                () = sleep_until(again) => break Instant::now(),
                change = changes.recv() => match change {
                    Ok(topic) => if interest.as_ref().is_none_or(|i| i.concerns(&topic)) {
                        break Instant::now() + GATHER;
                    },
                    Err(RecvError::Lagged(_)) => break Instant::now() + GATHER,
                    Err(RecvError::Closed) => return,
                },
            }
            if room.strong_count() == 0 {
                return;
            }
        };
        sleep_until(due.max(rendered + APART)).await;
        // Everything until now is in the rendering that follows.
        while !matches!(changes.try_recv(), Err(e) if !matches!(e, tokio::sync::broadcast::error::TryRecvError::Lagged(_)))
        {
        }
    }
}

/// `GET /live?u=PLACE&m=MARK`: the changes of a page since it was as the mark says.
pub async fn stream(State(app): State<Arc<App>>, request: Request) -> Response {
    let headers = request.headers().clone();
    let params = Params::parse(request.uri().query().unwrap_or_default());
    let (place, seen) = (params.get("u").to_owned(), params.get("m").to_owned());
    if headers
        .get("sec-fetch-site")
        .is_some_and(|v| v != "same-origin")
    {
        return to("/");
    }
    let session = match app.sessions.of(&headers, &app.hub, peer(&request)).await {
        Ok(session) => session,
        // An EventSource cannot read a status: the page is told, and goes to log in.
        Err(_) => return answer(Body::from(event("login", "{}"))),
    };
    let ended = session.ended.clone();
    let cx = Cx::with(&app, session, Arc::new(Prefs::of(&headers))).await;
    let (room, receiver) = app.rooms.enter(&cx, &place);
    let state = Listener {
        app,
        headers,
        ended,
        beat: Instant::now() + HEARTBEAT,
        room,
        receiver,
        last: None,
        seen: u64::from_str_radix(&seen, 16).ok(),
        waiting: vec![Bytes::from_static(b"retry: 1000\n\n")],
        over: false,
    };
    let events = stream::unfold(state, |mut state| async move {
        let bytes = state.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(bytes)), state))
    });
    answer(Body::new(StreamBody::new(events)))
}

fn answer(body: Body) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

struct Listener {
    app: Arc<App>,
    headers: http::HeaderMap,
    /// Of the session.
    ended: CancellationToken,
    /// When the session is looked at next, however much is sent meanwhile.
    beat: Instant,
    /// Keeps the room open.
    room: Arc<Room>,
    receiver: watch::Receiver<Said>,
    last: Option<Arc<Shown>>,
    /// Mark of what the browser has from the page itself.
    seen: Option<u64>,
    waiting: Vec<Bytes>,
    over: bool,
}

impl Listener {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if !self.waiting.is_empty() {
                let all = std::mem::take(&mut self.waiting);
                return Some(all.concat().into());
            }
            if self.over {
                return None;
            }
            let said = self.receiver.borrow_and_update().clone();
            self.hear(said);
            if !self.waiting.is_empty() || self.over {
                continue;
            }
            tokio::select! {
                biased;
                () = self.app.stop.cancelled() => return None,
                () = self.ended.cancelled() => return Some(self.login()),
                () = sleep_until(self.beat) => {
                    self.beat = Instant::now() + HEARTBEAT;
                    let session = self.app.sessions.of(&self.headers, &self.app.hub, None).await;
                    return Some(match session {
                        Ok(_) => Bytes::from_static(b": beat\n\n"),
                        Err(_) => self.login(),
                    });
                }
                changed = self.receiver.changed() => if changed.is_err() { return None },
            }
        }
    }

    /// The session is over, and so is the stream.
    fn login(&mut self) -> Bytes {
        self.over = true;
        event("login", "{}")
    }

    fn hear(&mut self, said: Said) {
        match said {
            Said::Nothing => {}
            // A browser comes again, and into a room that is open.
            Said::Closed if !self.ended.is_cancelled() => self.over = true,
            Said::Login | Said::Closed => {
                let login = self.login();
                self.waiting.push(login);
            }
            Said::Gone => {
                if self.last.take().is_some() || self.seen.take().is_some() {
                    self.waiting.push(event("gone", "{}"));
                }
            }
            Said::Page(shown) => {
                match (&self.last, self.seen.take()) {
                    (Some(old), _) if old.mark == shown.mark => {}
                    (Some(old), _) => self.waiting.extend(shown.since(old)),
                    (None, Some(seen)) if seen == shown.mark => {}
                    (None, _) => self.waiting.push(shown.event_whole()),
                }
                self.last = Some(shown);
            }
        }
        let _ = &self.room;
    }
}

#[cfg(test)]
mod tests {
    use maud::{PreEscaped, html};

    use super::*;

    fn page(parts: &[(&str, &str)]) -> Shown {
        let body = parts
            .iter()
            .map(|(id, text)| Block::part(*id, "", html! { (PreEscaped(*text)) }))
            .collect();
        Shown::of(&Page {
            body,
            ..Page::default()
        })
    }

    #[test]
    fn only_what_changed_is_sent_and_clocks_are_no_change() {
        let before = page(&[
            ("a", "one <time datetime='x'>3s</time> two"),
            ("b", "<b>1</b>"),
        ]);
        let later = page(&[
            ("a", "one <time datetime='x'>9s</time> two"),
            ("b", "<b>1</b>"),
        ]);
        assert!(later.mark == before.mark && later.since(&before).is_empty());
        let changed = page(&[
            ("a", "one <time datetime='y'>3s</time> two"),
            ("b", "<b>1</b>"),
        ]);
        let events = changed.since(&before);
        assert_eq!(events.len(), 1);
        let text = String::from_utf8_lossy(&events[0]).into_owned();
        assert!(
            text.starts_with("event: part\ndata: {")
                && text.contains("\"id\":\"a\"")
                && text.ends_with("\n\n")
        );
        let reshaped = page(&[("a", "x"), ("c", "y")]);
        assert!(String::from_utf8_lossy(&reshaped.since(&before)[0]).starts_with("event: main"));
    }

    #[test]
    fn marks_end() {
        for text in [
            "<time",
            "<time>",
            "<time>a",
            "<time>a</time>",
            "a<time></time><time>b</time>c",
        ] {
            mark(text);
        }
        assert_ne!(mark("<time>1</time>a"), mark("<time>1</time>b"));
    }
}
