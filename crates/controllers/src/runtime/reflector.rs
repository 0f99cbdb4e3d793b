//! List, then watch from the list's version, for ever: what a cache is filled by.
//!
//! `kube::runtime::watcher` is not used because it decodes into `kube::Resource` types, whose whole
//! `ObjectMeta` (with `managedFields`) would be built for every pod, and because it does not tell
//! the version of a list, without which a cache that also takes in its own writes cannot know which
//! of them a list is too old to show.

use std::time::Duration;

use futures::StreamExt;
use kube::api::{ListParams, WatchParams};
use kube::core::watch::WatchEvent;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::api::{Api, ApiError};

/// Objects a list request asks for at a time.
const PAGE: u32 = 5000;
/// Seconds after which the server ends a watch.
const WATCH_SECONDS: std::ops::Range<u32> = 240..290;
/// Shortest and longest wait before a failed list or watch is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));

/// What is listed and watched.
pub struct Source {
    pub path: String,
    pub field_selector: Option<&'static str>,
    pub metadata_only: bool,
}

/// Takes in what the API server has.
pub trait Sink<T> {
    /// All there is at `version`.
    fn replace(&self, objects: Vec<T>, version: u64);
    /// A new or changed object; returns its resource version.
    fn changed(&self, object: T) -> u64;
    /// The last state of an object that is gone; returns the version of its deletion.
    fn removed(&self, object: T) -> u64;
}

/// Fills `sink` until stopped. An API server that is away is asked again and again.
pub async fn run<T: DeserializeOwned + Clone>(
    api: &Api,
    source: &Source,
    sink: &impl Sink<T>,
    stop: &CancellationToken,
) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = keep(api, source, sink) => {}
    }
}

async fn keep<T: DeserializeOwned + Clone>(api: &Api, source: &Source, sink: &impl Sink<T>) {
    let mut version: Option<String> = None;
    let mut wait = RETRY.0;
    loop {
        let result = match version.clone() {
            None => list(api, source, sink).await.map(Some),
            Some(from) => follow(api, source, sink, from, &mut version).await,
        };
        match result {
            Ok(next) => {
                version = next;
                wait = RETRY.0;
            }
            Err(error) => {
                tracing::warn!(
                    path = source.path,
                    error = &error as &dyn std::error::Error,
                    message = error.message(),
                    "list or watch failed; trying again"
                );
                tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.5))).await;
                wait = (wait * 2).min(RETRY.1);
            }
        }
    }
}

/// The version to watch from.
async fn list<T: DeserializeOwned>(
    api: &Api,
    source: &Source,
    sink: &impl Sink<T>,
) -> Result<String, ApiError> {
    let mut params = ListParams {
        limit: Some(PAGE),
        field_selector: source.field_selector.map(str::to_owned),
        ..ListParams::default()
    };
    let mut objects = Vec::new();
    loop {
        let page = api
            .list::<T>(&source.path, &params, source.metadata_only)
            .await?;
        if objects.is_empty() {
            objects = page.items;
        } else {
            objects.extend(page.items);
        }
        if page.metadata.continue_token.is_empty() {
            let version = page.metadata.resource_version;
            sink.replace(objects, version.parse().unwrap_or(u64::MAX));
            return Ok(version);
        }
        params.continue_token = Some(page.metadata.continue_token);
    }
}

/// Follows the watch until it ends; the version to go on from, or `None` to list again. `reached`
/// keeps up with what has been seen, so that a watch that breaks goes on from there.
async fn follow<T: DeserializeOwned + Clone>(
    api: &Api,
    source: &Source,
    sink: &impl Sink<T>,
    from: String,
    reached: &mut Option<String>,
) -> Result<Option<String>, ApiError> {
    let params = WatchParams {
        bookmarks: true,
        timeout: Some(rand::random_range(WATCH_SECONDS)),
        field_selector: source.field_selector.map(str::to_owned),
        ..WatchParams::default()
    };
    let stream = match api
        .watch::<T>(&source.path, &params, &from, source.metadata_only)
        .await
    {
        Ok(stream) => stream,
        Err(error) if error.expired() => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        match event? {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                *reached = Some(sink.changed(object).to_string());
            }
            WatchEvent::Deleted(object) => *reached = Some(sink.removed(object).to_string()),
            WatchEvent::Bookmark(bookmark) => *reached = Some(bookmark.metadata.resource_version),
            WatchEvent::Error(status) => {
                if status.code != 410 {
                    tracing::warn!(path = source.path, %status, "watch ended with an error");
                }
                return Ok(None);
            }
        }
    }
    Ok(reached.take())
}
