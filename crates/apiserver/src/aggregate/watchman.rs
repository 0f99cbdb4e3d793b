//! Looks after backends: whether they answer, and what they offer.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use gantry_machinery::status::Failure;
use gantry_store::Key;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use rustc_hash::FxHashMap;
use serde_json::Value;
use tokio::time::Instant;

use super::{
    GROUP, PLURAL,
    backend::{Backend, Linker},
    headers,
    offer::{self, Offer},
    state::{self, Known, Remote},
    trust,
    verdict::{self, Verdict},
};
use crate::{
    api::Api,
    bootstrap, object,
    proxy::forward::{self, BoxBody},
    rest::update::{self, Change, Track},
    webhook::{resolve, words},
};

/// Between looks at a backend that answers.
const CALM: Duration = Duration::from_secs(30);
/// The first pause after one that does not; each one after is twice as long, up to [`CALM`].
const PRESSING: Duration = Duration::from_millis(250);
/// Between looks at what one offers.
const OFFERS: Duration = Duration::from_secs(60);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a backend that does not answer is asked in one look: there may be several endpoints.
const ATTEMPTS: usize = 5;

/// When a backend is looked at next.
#[derive(Default)]
struct Plan {
    failures: u32,
    due: Option<Instant>,
    offers: Option<Instant>,
}

/// Looks until the server stops.
pub async fn run(api: Arc<Api>) {
    let mut plans: FxHashMap<String, Plan> = FxHashMap::default();
    let mut stirred = true;
    loop {
        if let Err(failure) = trust::publish(&api).await {
            tracing::warn!(%failure, "telling extension API servers whom to believe");
        }
        let state = api.aggregator.state();
        for known in state
            .all()
            .filter(|k| k.remote.is_none() && k.reason != "Local")
        {
            write(&api, known, &Verdict::local()).await;
        }
        plans.retain(|name, _| state.by_name(name).is_some_and(|k| k.remote.is_some()));
        let now = Instant::now();
        let mut looks = vec![];
        for known in state.remotes() {
            let plan = plans.entry(known.name.clone()).or_default();
            if stirred || plan.due.is_none_or(|due| due <= now) {
                let offers = plan.offers.is_none_or(|due| due <= now) || !known.available;
                looks.push(look(&api, known, offers));
            }
        }
        for (name, answers, asked) in join_all(looks).await {
            let plan = plans.entry(name).or_default();
            plan.failures = if answers { 0 } else { plan.failures + 1 };
            let pause = match plan.failures {
                0 => CALM,
                n => CALM.min(PRESSING * 2_u32.saturating_pow(n - 1)),
            };
            plan.due = Some(Instant::now() + pause);
            if asked {
                plan.offers = Some(Instant::now() + OFFERS);
            }
        }
        let next = plans.values().filter_map(|p| p.due).min();
        let next = next.unwrap_or_else(|| Instant::now() + CALM);
        stirred = tokio::select! {
            () = api.aggregator.stirred.notified() => true,
            () = tokio::time::sleep_until(next) => false,
            () = api.stop.cancelled() => return,
        };
    }
}

/// Looks at one: its name, whether it answers, whether it was asked for what it offers.
async fn look(api: &Arc<Api>, known: &Arc<Known>, offers: bool) -> (String, bool, bool) {
    let name = known.name.clone();
    let Some(remote) = &known.remote else {
        return (name, true, false);
    };
    let verdict = judge(api, known, remote).await;
    let answers = verdict.is_available();
    let asked = answers && offers;
    // What it offers first: who sees that it is available finds it in discovery.
    if asked {
        let offer = offer::fetch(known, remote).await;
        api.aggregator.learned(&known.name, Arc::new(offer));
    } else if !answers && remote.offer.fresh {
        let offer = Offer {
            fresh: false,
            ..Offer::clone(&remote.offer)
        };
        api.aggregator.learned(&known.name, Arc::new(offer));
    }
    if !answers && (known.available || known.reason != verdict.reason) {
        api.aggregator.failed(&known.name, verdict.reason);
    }
    write(api, known, &verdict).await;
    (name, answers, asked)
}

async fn judge(api: &Api, known: &Known, remote: &Remote) -> Verdict {
    let wanted = &remote.backend.service;
    let name = format!("{}/{}", wanted.namespace, wanted.name);
    let service = api.store.get(&Key::new("/services", name));
    let service = service.and_then(|s| object::parse(&s.value).ok());
    let slices = resolve::slices(&api.store, &wanted.namespace, &wanted.name);
    if let Some(verdict) = verdict::of_service(wanted, service.as_ref(), &slices) {
        return verdict;
    }
    let mut last = match probe(known, &remote.backend).await {
        Ok(()) => return Verdict::passed(),
        Err(why) => why,
    };
    let more = (1..ATTEMPTS).map(|_| probe(known, &remote.backend));
    for outcome in join_all(more).await {
        match outcome {
            Ok(()) => return Verdict::passed(),
            Err(why) => last = why,
        }
    }
    Verdict::failed(last)
}

/// Asks a backend for what it must have: the list of its resources.
async fn probe(known: &Known, backend: &Backend) -> Result<(), String> {
    let linker = backend.probe.as_ref().map_err(Clone::clone)?;
    let place = linker.places()?.swap_remove(0);
    let (host, port) = &place;
    let path = format!("/apis/{}/{}", known.group, known.version);
    let url = format!("https://{}{path}", forward::authority(host, *port));
    let outcome = tokio::time::timeout(PATIENCE, ask(linker, &place, &path)).await;
    let why = match outcome {
        Ok(Ok(status)) if status.is_success() => return Ok(()),
        Ok(Ok(status)) => format!("bad status from {url}: {}", status.as_u16()),
        Ok(Err(why)) => format!("Get {url:?}: {why}"),
        Err(_) => format!("Get {url:?}: context deadline exceeded"),
    };
    Err(format!("failing or missing response from {url}: {why}"))
}

async fn ask(linker: &Linker, place: &resolve::Place, path: &str) -> Result<StatusCode, String> {
    let link = linker.open_at(place).await;
    let link = link.map_err(|e| words(&place.0, place.1, &e))?;
    let mut request = Request::new(());
    *request.method_mut() = Method::GET;
    let (mut parts, ()) = request.into_parts();
    parts.headers = headers::naming(&offer::asker()).map_err(|e| e.to_string())?;
    let body = BoxBody::new(Empty::new().map_err(|never| match never {}));
    let authority = forward::authority(&place.0, place.1);
    let answer = forward::exchange(link.into_stream(), parts, path, &authority, body).await;
    answer
        .map(|answer| answer.status())
        .map_err(|e| e.to_string())
}

/// Writes the condition, where it is another one than before.
async fn write(api: &Arc<Api>, known: &Known, verdict: &Verdict) {
    match tell(api, known, verdict).await {
        Err(failure) if !matches!(failure.code, 404 | 409) => {
            tracing::warn!(%failure, name = known.name, "the status of an APIService");
        }
        _ => {}
    }
}

async fn tell(api: &Arc<Api>, known: &Known, verdict: &Verdict) -> Result<(), Failure> {
    let Some(mut cx) = bootstrap::own(api, GROUP, "v1", PLURAL, "") else {
        return Ok(());
    };
    cx.target.name.clone_from(&known.name);
    let now = object::time(cx.now);
    let stored = api.store.get(&cx.key(&known.name));
    let object = stored.and_then(|s| object::parse(&s.value).ok());
    let object = object.unwrap_or_default();
    let unchanged = verdict.condition(state::condition(&object), &now).is_none();
    if unchanged || object.get("spec") != Some(&known.spec) {
        return Ok(());
    }
    let change = Change {
        subresource: "status".to_owned(),
        track: Track::Server,
        given: None,
        retries: 16,
    };
    update::modify(&mut cx, change, |_, old| {
        let mut new = old.clone();
        if let Some(condition) = verdict.condition(state::condition(old), &now) {
            set(&mut new, condition);
        }
        Ok(new)
    })
    .await?;
    Ok(())
}

fn set(object: &mut Value, condition: Value) {
    if !object.get("status").is_some_and(Value::is_object) {
        object["status"] = serde_json::json!({});
    }
    let all = &mut object["status"]["conditions"];
    match all {
        Value::Array(all) => match all.iter_mut().find(|c| c["type"] == "Available") {
            Some(there) => *there = condition,
            None => all.push(condition),
        },
        other => *other = vec![condition].into(),
    }
}
