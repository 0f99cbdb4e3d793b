//! Watching a release to its end.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use gantry_api::{Group, Phase, Release, Span};
use jiff::Timestamp;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};

use super::Watching;
use crate::connect::failed;
use crate::failure::{Exit, Failure, Result};
use crate::output::{Format, color, print, print_value};
use crate::view::live::Live;
use crate::view::model::release_view;
use crate::view::tree::{ReleaseView, Step, heading, render};

/// Shows the release once, or until its end.
pub async fn status(
    client: Client,
    release: Release,
    watching: Watching,
    format: Format,
) -> Result<Option<Exit>> {
    if watching.watch {
        return until_end(client, release, watching.timeout).await;
    }
    if format != Format::Table {
        print_value(&release, format)?;
    } else {
        let group = group_of(&client, &release).await?;
        let lines = render(
            &release_view(&release, group.as_ref(), Timestamp::now()),
            usize::MAX,
            200,
            color(),
        );
        print(&(lines.join("\n") + "\n"))?;
    }
    Ok(None)
}

async fn group_of(client: &Client, release: &Release) -> Result<Option<Group>> {
    let groups: Api<Group> =
        Api::namespaced(client.clone(), &release.namespace().unwrap_or_default());
    groups
        .get_opt(&release.spec.group)
        .await
        .map_err(|e| failed("cannot get the release's group", e))
}

/// How a watched release ended.
pub fn exit(phase: Phase) -> Option<Exit> {
    match phase {
        Phase::Succeeded => None,
        phase if phase.is_final() => Some(Exit::ReleaseNotSucceeded),
        _ => Some(Exit::ReleaseWaits),
    }
}

/// Draws the release until it has ended, or until the time is over.
pub async fn until_end(
    client: Client,
    release: Release,
    timeout: Option<Span>,
) -> Result<Option<Exit>> {
    let seen = draw_until(client, release, timeout.map(Span::duration), |r| {
        r.status.as_ref().is_some_and(|s| s.phase.is_final())
    })
    .await?;
    Ok(exit(seen.status.map_or(Phase::Pending, |s| s.phase)))
}

/// Draws the release until `enough` holds, or until the time is over; its last state.
pub async fn draw_until(
    client: Client,
    release: Release,
    timeout: Option<Duration>,
    enough: impl Fn(&Release) -> bool,
) -> Result<Release> {
    let (namespace, name) = (release.namespace().unwrap_or_default(), release.name_any());
    let group = group_of(&client, &release).await?;
    let api: Api<Release> = Api::namespaced(client, &namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut changes = watcher(api, config).default_backoff().boxed();
    let mut live = Live::new();
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    let deadline = timeout.map(|t| tokio::time::Instant::now() + t);
    let mut now = release;
    loop {
        show(
            &mut live,
            &release_view(&now, group.as_ref(), Timestamp::now()),
        );
        if enough(&now) || deadline.is_some_and(|d| tokio::time::Instant::now() > d) {
            return Ok(now);
        }
        tokio::select! {
            _ = tick.tick() => {}
            change = changes.try_next() => match change {
                Ok(Some(watcher::Event::Apply(release) | watcher::Event::InitApply(release))) => now = release,
                Ok(Some(watcher::Event::Delete(_))) => {
                    return Err(Failure::new(Exit::Failure, format!("the release {namespace}/{name} was deleted")));
                }
                Ok(Some(_)) => {}
                Ok(None) => return Err(Failure::new(Exit::Failure, "the watch ended")),
                // The server may be away for a while; the watch comes back by itself.
                Err(e) => tracing::info!(error = %e, "watching again"),
            },
        }
    }
}

/// On a terminal the whole tree; elsewhere only what a log wants: the instances that move and the
/// release's own words, without running clocks.
fn show(live: &mut Live, view: &ReleaseView) {
    let (width, height) = live.size();
    if live.is_terminal() {
        live.draw(&render(view, height.saturating_sub(2), width, color()));
        return;
    }
    let mut still = view.clone();
    still.seconds = 0;
    let message = heading(&still, false).into_iter().skip(2);
    let mut lines: Vec<String> = message.map(|m| format!("  {} {m}", view.phase)).collect();
    let cells = view.clusters.iter().flat_map(|c| &c.cells);
    for i in cells
        .flat_map(|c| &c.instances)
        .filter(|i| i.step != Step::Waiting)
    {
        let service = if i.in_service {
            "in service"
        } else {
            "out of service"
        };
        let note = if i.note.is_empty() {
            String::new()
        } else {
            format!(": {}", i.note)
        };
        lines.push(format!(
            "    {}  revision {}  {service}  {}{note}",
            i.name,
            i.revision,
            i.step.word()
        ));
    }
    live.draw(&lines);
}
