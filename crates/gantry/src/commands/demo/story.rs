//! What the demo shows on a running fleet, and that each step is what it is said to be.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use gantry_api::release::{BatchState, ReleaseSpec};
use gantry_api::strategy::{
    Accept, Bastion, Batches, Deadlines, OnFailure, StrategyChoice, StrategySpec,
};
use gantry_api::{CountOrPercent, Group, Phase, Release, RevisionChange, Span};
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::Shop;
use crate::commands::instances::Instance;
use crate::commands::release::{buttons, start, watch};
use crate::commands::{import as importing, instances};
use crate::failure::{Exit, Failure, Result};
use crate::fleet::Fleet;
use crate::import::{Options, read, translate};
use crate::output::{Tone, color, paint, println};
use crate::view::live::Live;
use crate::view::model::brief;

/// How long the shop may take until every instance is in service, and how long a release may.
const PATIENCE: Duration = Duration::from_secs(600);

/// The tag of images that never become ready on the demo's simulated nodes.
const BROKEN: &str = "broken";

/// On an EndpointSlice: the Service it belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

pub fn title(text: &str) -> Result<()> {
    println(format!(
        "\n{}",
        paint(format!("● {text}"), Tone::Strong, color())
    ))
}

fn line(text: &str) -> Result<()> {
    println(format!("  {text}"))
}

fn dim(text: &str) -> String {
    paint(text, Tone::Dim, color())
}

pub async fn tell(fleet: &Fleet, shop: &Shop, replicas: i32) -> Result<()> {
    behaviours(fleet).await?;
    let groups = bring_in(fleet, shop, replicas).await?;
    in_service(fleet, shop).await?;
    let good = pick(&groups, &["cart", "checkout"], 0);
    good_release(fleet, shop, good).await?;
    let bad = pick(&groups, &["front", "store"], groups.len() - 1);
    bad_release(fleet, shop, bad).await
}

/// The first group whose name starts with one of the words, else the one at `index`.
fn pick<'a>(groups: &'a [Group], words: &[&str], index: usize) -> &'a Group {
    groups
        .iter()
        .find(|g| words.iter().any(|w| g.name_any().starts_with(w)))
        .unwrap_or(&groups[index])
}

/// Tells the simulated nodes that images tagged `…broken` never become ready: a wish written where
/// anyone can read and change it.
async fn behaviours(fleet: &Fleet) -> Result<()> {
    let rules = format!("- image: \"*{BROKEN}*\"\n  ready: never\n  message: connection refused\n");
    for (member, client) in fleet.members() {
        let maps: Api<ConfigMap> = Api::namespaced(client, "kube-system");
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "hollow-behaviours"},
            "data": {"rules.yaml": rules},
        });
        maps.patch(
            "hollow-behaviours",
            &PatchParams::apply("gantry-demo").force(),
            &Patch::Apply(map),
        )
        .await
        .with_context(|| {
            format!(
                "cannot tell the simulated nodes of {} how to behave",
                member.name
            )
        })?;
    }
    Ok(())
}

async fn bring_in(fleet: &Fleet, shop: &Shop, replicas: i32) -> Result<Vec<Group>> {
    title(&format!(
        "A shop is brought in: gantry import -f {}",
        shop.place
    ))?;
    let client = fleet.client();
    let options = Options {
        tenant: shop.name.clone(),
        environment: "prod".into(),
        cells: importing::all_cells(&client).await?,
        replicas: Some(replicas),
        stateful_sets: false,
    };
    let unusable = |e: String| Failure::new(Exit::Failure, format!("{}: {e}", shop.place));
    let imported = translate(read(&shop.text).map_err(unusable)?, &options).map_err(unusable)?;
    if imported.groups.is_empty() {
        return Err(unusable("it holds no Deployment".to_owned()));
    }
    importing::apply(&client, &shop.name, &imported).await?;
    let total: i32 = imported.groups.iter().map(|g| g.spec.replicas).sum();
    line(&format!(
        "{} {} services of tenant {} as Apps and Groups: {total} instances over cells {}",
        paint("✓", Tone::Good, color()),
        imported.groups.len(),
        shop.name,
        options.cells.join(" ")
    ))?;
    for left in &imported.left {
        line(&paint(
            format!("not carried over: {left}"),
            Tone::Warn,
            color(),
        ))?;
    }
    Ok(imported.groups)
}

/// Waits until all instances of the shop receive traffic.
async fn in_service(fleet: &Fleet, shop: &Shop) -> Result<()> {
    let groups: Api<Group> = Api::namespaced(fleet.client(), &shop.name);
    let mut live = Live::new();
    let started = Instant::now();
    loop {
        let list = groups
            .list(&ListParams::default())
            .await
            .context("cannot list the groups")?;
        let wanted: i32 = list.items.iter().map(|g| g.spec.replicas).sum();
        let serving: i32 = list
            .items
            .iter()
            .filter_map(|g| g.status.as_ref())
            .map(|s| s.in_service)
            .sum();
        let done = serving >= wanted;
        let mark = if done {
            paint("✓", Tone::Good, color())
        } else {
            paint("…", Tone::Busy, color())
        };
        let took = format!("{:.0}s", started.elapsed().as_secs_f64());
        if live.is_terminal() || done {
            live.draw(&[format!(
                "  {mark} {serving}/{wanted} instances in service  {took}"
            )]);
        }
        if done {
            return Ok(());
        }
        if started.elapsed() > PATIENCE {
            let late = list.items.iter().find(|g| {
                g.status
                    .as_ref()
                    .is_none_or(|s| s.in_service < g.spec.replicas)
            });
            let why = late
                .and_then(|g| Some(format!("{}: {}", g.name_any(), g.status.as_ref()?.message)));
            return Err(Failure::new(
                Exit::Failure,
                format!(
                    "only {serving} of {wanted} instances came into service; {}",
                    why.unwrap_or_default()
                ),
            ));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn strategy(accept: Accept, on_failure: OnFailure, deadline: Span) -> Option<StrategyChoice> {
    let inline = StrategySpec {
        bastion: Bastion {
            instances: 1,
            accept,
        },
        batches: Batches {
            count: None,
            sizes: vec![
                CountOrPercent::Count(2),
                CountOrPercent::Percent(50),
                CountOrPercent::Percent(100),
            ],
        },
        max_unavailable: Some(CountOrPercent::Count(3)),
        deadlines: Deadlines {
            instance: deadline,
            ..Deadlines::default()
        },
        on_failure,
        ..StrategySpec::default()
    };
    Some(StrategyChoice {
        name: None,
        inline: Some(inline),
    })
}

async fn begin(
    fleet: &Fleet,
    shop: &Shop,
    group: &Group,
    image: &str,
    how: Option<StrategyChoice>,
) -> Result<Release> {
    let spec = ReleaseSpec {
        group: group.name_any(),
        revision: RevisionChange {
            image: Some(image.to_owned()),
            ..RevisionChange::default()
        },
        strategy: how,
        requested_by: "demo".into(),
        note: "gantry demo".into(),
        ..ReleaseSpec::default()
    };
    let groups: Api<Group> = Api::namespaced(fleet.client(), &shop.name);
    let group = groups
        .get(&group.name_any())
        .await
        .context("cannot get the group")?;
    start::create(&fleet.client(), &shop.name, None, &group, spec).await
}

/// A good revision: bastion, acceptance, batches over all cells.
async fn good_release(fleet: &Fleet, shop: &Shop, group: &Group) -> Result<()> {
    let image = next_tag(&group.spec.revision.image);
    title(&format!(
        "A good revision: gantry release start {} --image {} --watch",
        group.name_any(),
        short(&image)
    ))?;
    let before = names_and_addresses(&instances_of(fleet, shop, group).await?);
    let how = strategy(Accept::Manual, OnFailure::Pause, Span::minutes(2));
    let release = begin(fleet, shop, group, &image, how).await?;
    let client = fleet.client();
    let release = watch::draw_until(client.clone(), release, Some(PATIENCE), |r| {
        bastion_ready(r) || ended(r)
    })
    .await?;
    if !bastion_ready(&release) {
        return Err(unexpected(&release, "its bastion to become ready"));
    }
    line("")?;
    line(&out_of_traffic(fleet, shop, &release).await?)?;
    line(&dim(&format!(
        "a person accepts it: gantry release continue {} -n {}",
        release.name_any(),
        shop.name
    )))?;
    let release = buttons::press(&client, release, buttons::Button::Continue).await?;
    let release = watch::draw_until(client, release, Some(PATIENCE), ended).await?;
    if phase(&release) != Phase::Succeeded {
        return Err(unexpected(&release, "it to succeed"));
    }
    let all = instances_of(fleet, shop, group).await?;
    if names_and_addresses(&all) != before {
        return Err(Failure::new(
            Exit::Failure,
            "an instance changed its name or address in an update in place",
        ));
    }
    let on_new = all
        .iter()
        .filter(|i| i.image == image && i.in_service)
        .count();
    line(&format!(
        "{} {on_new} of {} instances run {} and are in service; none changed its name or address",
        paint("✓", Tone::Good, color()),
        all.len(),
        short(&image)
    ))
}

/// A broken revision: stopped at the bastion, taken back.
async fn bad_release(fleet: &Fleet, shop: &Shop, group: &Group) -> Result<()> {
    let (stem, _) = split_tag(&group.spec.revision.image);
    let image = format!("{stem}:{BROKEN}");
    title(&format!(
        "A broken revision: gantry release start {} --image {} --watch",
        group.name_any(),
        short(&image)
    ))?;
    let how = strategy(Accept::Auto, OnFailure::Rollback, Span::seconds(20));
    let release = begin(fleet, shop, group, &image, how).await?;
    let release = watch::draw_until(fleet.client(), release, Some(PATIENCE), ended).await?;
    if phase(&release) != Phase::RolledBack {
        return Err(unexpected(&release, "it to be rolled back"));
    }
    let all = instances_of(fleet, shop, group).await?;
    let old = all
        .iter()
        .filter(|i| i.image == group.spec.revision.image)
        .count();
    line(&format!(
        "{} stopped at the bastion and taken back: {old} of {} instances run {} again",
        paint("✓", Tone::Good, color()),
        all.len(),
        short(&group.spec.revision.image)
    ))
}

async fn instances_of(fleet: &Fleet, shop: &Shop, group: &Group) -> Result<Vec<Instance>> {
    let name = group.name_any();
    let (all, unreachable) =
        instances::list(&fleet.client(), Some(&shop.name), Some(&name)).await?;
    match unreachable.first() {
        Some((cluster, why)) => Err(Failure::new(
            Exit::Failure,
            format!("cannot list the instances on {cluster}: {why}"),
        )),
        None => Ok(all),
    }
}

fn names_and_addresses(instances: &[Instance]) -> Vec<(String, String)> {
    instances
        .iter()
        .map(|i| (i.name.clone(), i.address.clone()))
        .collect()
}

/// An image as a line has room for it: `…/cart:1.5.0`.
fn short(image: &str) -> String {
    if image.matches('/').count() < 2 {
        image.to_owned()
    } else {
        format!("…/{}", brief(image))
    }
}

fn phase(release: &Release) -> Phase {
    release.status.as_ref().map_or(Phase::Pending, |s| s.phase)
}

fn ended(release: &Release) -> bool {
    phase(release).is_final()
}

fn bastion_ready(release: &Release) -> bool {
    let bastion = release
        .status
        .as_ref()
        .and_then(|s| s.batches.iter().find(|b| b.index == 0));
    bastion.is_some_and(|b| b.state == BatchState::Ready)
}

fn unexpected(release: &Release, wanted: &str) -> Failure {
    let message = release.status.as_ref().map_or("", |s| s.message.as_str());
    Failure::new(
        Exit::ReleaseNotSucceeded,
        format!(
            "release {} is {}; the demo expected {wanted}: {message}",
            release.name_any(),
            phase(release).as_str()
        ),
    )
}

/// Looks into the member's EndpointSlices: the bastion must not be among the addresses that serve.
async fn out_of_traffic(fleet: &Fleet, shop: &Shop, release: &Release) -> Result<String> {
    let plan = release.status.as_ref().and_then(|s| s.plan.as_ref());
    let slice = plan
        .and_then(|p| p.batches.first())
        .and_then(|b| b.slices.first());
    let Some(slice) = slice else {
        return Err(unexpected(release, "a plan with a bastion"));
    };
    let bastion = slice.instance(&release.spec.group, slice.highest);
    let owner = fleet
        .members()
        .find(|(m, _)| m.cells.iter().any(|c| c.name == slice.cell));
    let Some((member, client)) = owner else {
        return Err(unexpected(release, "its bastion's cell in the fleet"));
    };
    // Services that publish addresses which are not ready say nothing of traffic.
    let services: Api<Service> = Api::namespaced(client.clone(), &shop.name);
    let services = services
        .list(&ListParams::default())
        .await
        .context("cannot list the member's Services")?;
    let serves = |name: &str| {
        let named = services.items.iter().find(|s| s.name_any() == name);
        let spec = named.and_then(|s| s.spec.as_ref());
        spec.is_some_and(|s| s.publish_not_ready_addresses != Some(true))
    };
    let slices: Api<EndpointSlice> = Api::namespaced(client, &shop.name);
    let list = slices
        .list(&ListParams::default())
        .await
        .context("cannot list the member's EndpointSlices")?;
    let of_traffic = list.items.iter().filter(|s| {
        s.labels()
            .get(SERVICE_NAME)
            .is_some_and(|name| serves(name))
    });
    let endpoints: Vec<_> = of_traffic.flat_map(|s| &s.endpoints).flatten().collect();
    let of_pod = |pod: &str| {
        let target = pod.to_owned();
        endpoints
            .iter()
            .filter(move |e| e.target_ref.as_ref().and_then(|r| r.name.as_deref()) == Some(&target))
    };
    let ready = |e: &k8s_openapi::api::discovery::v1::Endpoint| {
        e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(false)
    };
    let total = of_pod(&bastion).count();
    let serving = of_pod(&bastion).filter(|e| ready(e)).count();
    if total == 0 || serving > 0 {
        return Err(Failure::new(
            Exit::Failure,
            format!(
                "the bastion {bastion} should be listed and out of traffic, but {serving} of {total} endpoints of it are ready"
            ),
        ));
    }
    Ok(format!(
        "{} the bastion is ready and out of traffic: {} lists the endpoint of {bastion} as not ready",
        paint("✓", Tone::Good, color()),
        member.name,
    ))
}

/// The image before its tag, and the tag. A colon before the last slash is a port's.
fn split_tag(image: &str) -> (&str, Option<&str>) {
    match image.rsplit_once(':') {
        Some((stem, tag)) if !tag.contains('/') => (stem, Some(tag)),
        _ => (image, None),
    }
}

/// The image with the last number of its tag raised by one: `v0.10.6` to `v0.10.7`.
fn next_tag(image: &str) -> String {
    let (stem, tag) = split_tag(image);
    let tag = tag.unwrap_or("0");
    let digits = tag.bytes().rev().take_while(u8::is_ascii_digit).count();
    let (head, number) = tag.split_at(tag.len() - digits);
    match number.parse::<u64>() {
        Ok(n) => format!("{stem}:{head}{}", n + 1),
        Err(_) => format!("{stem}:{tag}-2"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags() {
        for (image, next) in [
            ("r/a:v0.10.6", "r/a:v0.10.7"),
            ("localhost:5000/a", "localhost:5000/a:1"),
            ("r/a:latest", "r/a:latest-2"),
            ("redis:alpine3.9", "redis:alpine3.10"),
        ] {
            assert_eq!(next_tag(image), next);
        }
        assert_eq!(split_tag("localhost:5000/a"), ("localhost:5000/a", None));
    }
}
