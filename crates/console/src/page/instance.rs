//! An instance: its containers and conditions, what happened, what it says.

use gantry_hub::group::wishes::Verb;
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use kube::{Api, Client, api::ListParams};
use maud::{Markup, html};

use super::{Block, Interest, Nav, Page, events, group, placement, terminal, widgets, wishes};
use crate::{
    access::Right,
    act::{exec, wish::Wish},
    app::Cx,
    error::Fail,
    messages::M,
    model::{Instance, Key},
    view::{Params, groups::InstanceRow},
};
use std::sync::Arc;

/// The instance, if the user may see it.
///
/// # Errors
/// If they may not, or there is none.
pub fn seen(cx: &Cx, cluster: &str, tenant: &str, name: &str) -> Result<Arc<Instance>, Fail> {
    if !cx.sight.groups.see(tenant) {
        return Err(Fail::NotFound);
    }
    let state = cx.app.model.read();
    let member = state.members.get(cluster).ok_or(Fail::NotFound)?;
    let key: Key = (tenant.to_owned(), name.to_owned());
    member.instances.get(&key).cloned().ok_or(Fail::NotFound)
}

/// The member as the console itself: for reading what the hub has said that the user may read.
///
/// # Errors
/// If the member cannot be reached.
pub fn reader(cx: &Cx, cluster: &str) -> Result<Client, Fail> {
    let access = cx.app.model.access(cluster).ok_or(Fail::NotFound)?;
    Client::try_from(access).map_err(|e| Fail::Upstream(e.to_string()))
}

/// The page.
///
/// # Errors
/// If there is no such instance, or none that the user may see.
pub async fn page(
    cx: &Cx,
    params: &Params,
    cluster: &str,
    tenant: &str,
    name: &str,
) -> Result<Page, Fail> {
    let instance = seen(cx, cluster, tenant, name)?;
    let tab = params.get("tab");
    let may =
        |verb, resource, sub| cx.may_on(cluster, Right::core(verb, resource, tenant).sub(sub));
    let (pods, logs, lists, wish) = futures::join!(
        may("get", "pods", ""),
        may("get", "pods", "log"),
        may("list", "events", ""),
        wishes::may(cx, tenant, &instance.group)
    );
    let mut tabs = vec![("", M::Overview)];
    tabs.extend(logs.then_some(("logs", M::Logs)));
    tabs.extend(lists.then_some(("events", M::Events)));
    tabs.push(("placement", M::Placement));
    let exec = exec::may(cx, cluster, tenant).await;
    tabs.extend(exec.then_some(("terminal", M::Terminal)));
    tabs.extend(pods.then_some(("yaml", M::Yaml)));
    if !tabs.iter().any(|(t, _)| *t == tab) {
        return Err(Fail::NotFound);
    }
    let row = InstanceRow {
        cluster: cluster.to_owned(),
        instance: (*instance).clone(),
    };
    let base = format!("/instances/{cluster}/{tenant}/{name}");
    let key: Key = (tenant.to_owned(), instance.group.clone());
    cx.app.model.look(&key, &cx.app.stop, &cx.app.tasks);
    let used = cx.app.model.usage.of(&key, [name].into_iter()).remove(name);
    let cells = {
        let state = cx.app.model.read();
        let group = state.groups.get(&key);
        group.map_or(0, |g| g.spec.placement.cells.len())
    };
    let head = html! {
        div.title {
            h1 { (name) " " (group::state(cx, &row)) }
            div.actions { @if wish { @for wish in wishes(&instance, cells) {
                a.button href={ "/groups/" (tenant) "/" (instance.group) "/instances?verb=" (wish.name()) "&instance=" (name) } { (cx.t(wishes::word(&wish))) }
            } } }
        }
        @if !instance.trouble.is_empty() { p.said { (widgets::local(cx, &instance.trouble)) } }
        dl.facts.row {
            (widgets::fact(cx.t(M::Cell), &html! { (cluster) "/" (instance.cell) }))
            (widgets::fact(cx.t(M::Node), &html! { @if cx.sight.nodes { a href={ "/nodes/" (cluster) "/" (instance.node) } { (instance.node) } } @else { (instance.node) } }))
            (widgets::fact(cx.t(M::Address), &html! { span.mono { (instance.address) } }))
            (widgets::fact(cx.t(M::Revision), &html! { (instance.revision.map_or("—".to_owned(), |n| n.to_string())) }))
            (widgets::fact(cx.t(M::Restarts), &html! { (instance.restarts) }))
            (widgets::fact(cx.t(M::CpuRequested), &html! { (widgets::cores(instance.cpu)) @if let Some(s) = &used { " " (widgets::spark(&s.cpu, instance.cpu, widgets::cores)) } }))
            (widgets::fact(cx.t(M::MemoryRequested), &html! { (widgets::bytes(instance.memory)) @if let Some(s) = &used { " " (widgets::spark(&s.memory, instance.memory, widgets::bytes)) } }))
            (widgets::fact(cx.t(M::Age), &widgets::ago(cx, instance.created)))
        }
        nav.tabs aria-label=(name) {
            @for (value, word) in &tabs {
                a href={ (base) (if value.is_empty() { String::new() } else { format!("?tab={value}") }) } aria-current=[(tab == *value).then_some("page")] { (cx.t(*word)) }
            }
        }
    };
    let mut body = vec![Block::part("head", "", head)];
    let mut interest = Interest::Group(key);
    match tab {
        "logs" => {
            // One that is gone may still be looked at: the log says so.
            let containers = container_names(cx, cluster, tenant, name).await;
            let containers = containers.unwrap_or_default();
            body.push(Block::part(
                "logs",
                "card",
                logs_pane(cx, &instance, cluster, &containers, params),
            ));
            interest = Interest::Nothing;
        }
        "events" => {
            let api: Api<Event> = Api::namespaced(reader(cx, cluster)?, tenant);
            let wanted = ListParams::default().fields(&format!(
                "involvedObject.kind=Pod,involvedObject.name={name}"
            ));
            let mut list = api.list(&wanted).await?.items;
            body.push(Block::part("events", "card", events::table(cx, &mut list)));
        }
        "terminal" => {
            let api: Api<Pod> = Api::namespaced(reader(cx, cluster)?, tenant);
            let spec = api.get(name).await?.spec.unwrap_or_default();
            let containers: Vec<String> = spec.containers.into_iter().map(|c| c.name).collect();
            let place = format!("/exec/{cluster}/{tenant}/{name}");
            let pane = terminal::pane(cx, &place, &containers, params);
            body.push(Block::part("terminal", "card", pane));
            interest = Interest::Nothing;
        }
        "placement" => {
            body.push(Block::part("placement", "card", placement::pane(cx, &base)));
            interest = Interest::Nothing;
        }
        _ if pods => {
            let api: Api<Pod> = Api::namespaced(reader(cx, cluster)?, tenant);
            let mut pod = api.get(name).await?;
            pod.metadata.managed_fields = None;
            if tab == "yaml" {
                let html = html! { h2 { (cx.t(M::Yaml)) } pre.yaml { (group::to_yaml(&pod)?) } };
                body.push(Block::part("yaml", "card", html));
            } else {
                body.push(Block::part("containers", "card", containers(cx, &pod)));
                body.push(Block::part("conditions", "card", conditions(cx, &pod)));
            }
        }
        _ => {}
    }
    let mut crumbs = group::crumbs(cx, tenant, &instance.app);
    crumbs.push((
        instance.group.clone(),
        format!("/groups/{tenant}/{}", instance.group),
    ));
    Ok(Page {
        title: name.to_owned(),
        nav: Nav::Services,
        crumbs,
        body,
        interest,
    })
}

/// What can be wished for an instance as it is, of a Group with so many cells.
fn wishes(instance: &Instance, cells: usize) -> Vec<Wish> {
    let held = !instance.held.is_empty() && !instance.in_service;
    let traffic = if held { Verb::PutBack } else { Verb::PullOut };
    let mut all = vec![Wish::Here(traffic), Wish::Here(Verb::Restart)];
    if cells > 1 {
        all.push(Wish::MoveTo(String::new()));
    }
    all
}

fn container_state(cx: &Cx, status: Option<&ContainerStatus>) -> Markup {
    let state = status.and_then(|s| s.state.as_ref());
    let Some(state) = state else {
        return widgets::badge("dim", "○", cx.t(M::HealthUnknown));
    };
    if let Some(running) = &state.running {
        let ready = status.is_some_and(|s| s.ready);
        return html! {
            @if ready { (widgets::badge("good", "●", cx.t(M::Running))) } @else { (widgets::badge("warn", "▲", cx.t(M::RunningUnready))) }
            " " (widgets::ago(cx, running.started_at.as_ref().map(|t| t.0)))
        };
    }
    if let Some(waiting) = &state.waiting {
        return html! { (widgets::badge("warn", "◇", waiting.reason.as_deref().unwrap_or(""))) " " span.said { (waiting.message.as_deref().unwrap_or("")) } };
    }
    match &state.terminated {
        Some(ended) => {
            html! { (widgets::badge(if ended.exit_code == 0 { "dim" } else { "bad" }, "■", &cx.f(M::ExitCode, &[&ended.exit_code]))) " " (ended.reason.as_deref().unwrap_or("")) }
        }
        None => widgets::badge("dim", "○", cx.t(M::HealthUnknown)),
    }
}

fn containers(cx: &Cx, pod: &Pod) -> Markup {
    let spec = pod.spec.clone().unwrap_or_default();
    let status = pod.status.clone().unwrap_or_default();
    let inits = spec
        .init_containers
        .iter()
        .flatten()
        .map(|c| (c, &status.init_container_statuses));
    let all = inits.chain(
        spec.containers
            .iter()
            .map(|c| (c, &status.container_statuses)),
    );
    html! {
        h2 { (cx.t(M::Containers)) }
        div.scroll { table {
            thead { tr { th { (cx.t(M::Container)) } th { (cx.t(M::State)) } th { (cx.t(M::Image)) } th.num { (cx.t(M::Restarts)) } th { (cx.t(M::Ports)) } } }
            tbody {
                @for (c, statuses) in all {
                    @let status = statuses.iter().flatten().find(|s| s.name == c.name);
                    tr {
                        th scope="row" { (c.name) }
                        td { (container_state(cx, status)) }
                        td { (widgets::image(c.image.as_deref().unwrap_or(""))) }
                        td.num { (status.map_or(0, |s| s.restart_count)) }
                        td.mono { @for p in c.ports.iter().flatten() { (p.container_port) " " } }
                    }
                }
            }
        } }
    }
}

fn conditions(cx: &Cx, pod: &Pod) -> Markup {
    let status = pod.status.clone().unwrap_or_default();
    html! {
        h2 { (cx.t(M::Conditions)) }
        div.scroll { table {
            thead { tr { th { (cx.t(M::Condition)) } th { (cx.t(M::State)) } th { (cx.t(M::When)) } th { (cx.t(M::Reason)) } th { (cx.t(M::Message)) } } }
            tbody {
                @for c in status.conditions.iter().flatten() {
                    tr {
                        th scope="row" { (c.type_) }
                        td { @if c.status == "True" { (widgets::badge("good", "●", "True")) } @else { (widgets::badge("warn", "○", &c.status)) } }
                        td { (widgets::ago(cx, c.last_transition_time.as_ref().map(|t| t.0))) }
                        td { (c.reason.as_deref().unwrap_or("")) }
                        td.message { (c.message.as_deref().unwrap_or("")) }
                    }
                }
            }
        } }
    }
}

/// The log of one of an instance's containers, now or before its last restart.
fn logs_pane(
    cx: &Cx,
    instance: &Instance,
    cluster: &str,
    containers: &[String],
    params: &Params,
) -> Markup {
    let asked = params.get("container");
    let chosen = containers.iter().find(|c| *c == asked);
    let before = params.get("previous") == "1";
    let mut url = format!(
        "/logs/{cluster}/{}/{}?tail=500",
        instance.tenant, instance.name
    );
    if let Some(container) = chosen {
        url.push_str(&format!("&container={container}"));
    }
    if before {
        url.push_str("&previous=1");
    }
    let names: Vec<(&str, &str)> = [("", cx.t(M::MainContainer))]
        .into_iter()
        .chain(containers.iter().map(|c| (c.as_str(), c.as_str())))
        .collect();
    let runs = [("", cx.t(M::LogNow)), ("1", cx.t(M::LogBefore))];
    let choices = html! {
        @if containers.len() > 1 { (widgets::choices(params, "container", &names)) }
        @if instance.restarts > 0 || before { (widgets::choices(params, "previous", &runs)) }
    };
    widgets::logs(cx, &url, &choices)
}

/// The containers of an instance that may have logs, those that start it last.
async fn container_names(
    cx: &Cx,
    cluster: &str,
    tenant: &str,
    name: &str,
) -> Result<Vec<String>, Fail> {
    let api: Api<Pod> = Api::namespaced(reader(cx, cluster)?, tenant);
    let spec = api.get(name).await?.spec.unwrap_or_default();
    let more = spec.init_containers.unwrap_or_default();
    let debug = spec.ephemeral_containers.unwrap_or_default();
    let own = spec.containers.into_iter().chain(more).map(|c| c.name);
    Ok(own.chain(debug.into_iter().map(|c| c.name)).collect())
}
