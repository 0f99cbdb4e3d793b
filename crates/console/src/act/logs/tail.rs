//! The log of one container, line by line, over the container's restarts.

use std::{pin::Pin, time::Duration};

use futures::{AsyncBufRead, AsyncBufReadExt, StreamExt, io::Lines};
use gantry_api::labels;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::LogParams};

/// How long after a log has ended it is asked whether it goes on.
const AGAIN: Duration = Duration::from_secs(2);

/// The annotation by which a pod says which of its containers is meant where none is named.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

type Reader = Lines<Pin<Box<dyn AsyncBufRead + Send>>>;

/// A line: when it was written, as the member says it, and what it says.
pub type Line = (String, String);

/// A log that is being read.
pub struct Tail {
    api: Api<Pod>,
    name: String,
    asked: LogParams,
    open: Option<Reader>,
    /// When the last line was written, for where to go on after a restart.
    last: Option<Timestamp>,
}

impl Tail {
    /// Opens the log of an instance. Where no container is named it is the one that the pod says is meant,
    /// or that of its App, or the first.
    ///
    /// # Errors
    /// If there is no such log, or it may not be read.
    pub async fn open(api: Api<Pod>, name: &str, asked: LogParams) -> kube::Result<Self> {
        let mut asked = LogParams {
            timestamps: true,
            ..asked
        };
        if asked.container.is_none() {
            asked.container = meant(&api.get(name).await?);
        }
        let open = reader(&api, name, &asked).await?;
        Ok(Self {
            api,
            name: name.to_owned(),
            asked,
            open: Some(open),
            last: None,
        })
    }

    /// The next line. One that is followed goes on when the container has started again, for as long as
    /// `there` says that there is such an instance.
    pub async fn next(&mut self, there: impl Fn() -> bool) -> Option<Line> {
        loop {
            if let Some(lines) = &mut self.open {
                if let Some(Ok(line)) = lines.next().await {
                    let (time, text) = line.split_once(' ').unwrap_or((&line, ""));
                    let at: Option<Timestamp> = time.parse().ok();
                    // What is asked for again from a second on has been seen in part.
                    if at.is_some() && at <= self.last {
                        continue;
                    }
                    self.last = at.or(self.last);
                    return Some((time.to_owned(), text.to_owned()));
                }
                self.open = None;
            }
            if !self.asked.follow || self.asked.previous || !there() {
                return None;
            }
            tokio::time::sleep(AGAIN).await;
            if self.last.is_some() {
                self.asked.since_time = self.last;
                self.asked.tail_lines = None;
            }
            // While it does not run, there is none to be had.
            self.open = reader(&self.api, &self.name, &self.asked).await.ok();
        }
    }
}

async fn reader(api: &Api<Pod>, name: &str, asked: &LogParams) -> kube::Result<Reader> {
    let log: Pin<Box<dyn AsyncBufRead + Send>> = Box::pin(api.log_stream(name, asked).await?);
    Ok(log.lines())
}

/// The container that is meant where none is named.
fn meant(pod: &Pod) -> Option<String> {
    let all = &pod.spec.as_ref()?.containers;
    let is = |name: Option<&String>| name.is_some_and(|name| all.iter().any(|c| c.name == *name));
    let said = pod.annotations().get(DEFAULT_CONTAINER);
    let app = pod.labels().get(labels::APP);
    let found = [said, app].into_iter().find(|name| is(*name)).flatten();
    found.or(all.first().map(|c| &c.name)).cloned()
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn the_container_that_is_meant() {
        let pod = |said: &str, app: &str, containers: &[&str]| {
            let containers: Vec<_> = containers.iter().map(|c| json!({"name": c})).collect();
            let pod = json!({"metadata": {"annotations": {DEFAULT_CONTAINER: said}, "labels": {labels::APP: app}}, "spec": {"containers": containers}});
            meant(&from_value(pod).unwrap())
        };
        for (said, app, containers, want) in [
            ("proxy", "cart", &["cart", "proxy"][..], Some("proxy")),
            ("gone", "cart", &["proxy", "cart"], Some("cart")),
            ("gone", "other", &["proxy", "cart"], Some("proxy")),
            ("", "", &[], None),
        ] {
            assert_eq!(
                pod(said, app, containers).as_deref(),
                want,
                "{containers:?}"
            );
        }
    }
}
