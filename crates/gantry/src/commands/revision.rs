//! `gantry revision`: what a group's revisions are made of, and how two of them differ.

use clap::{Args, Subcommand};
use gantry_api::{Group, RevisionSpec, labels};
use gantry_hub::diff::{changed, compare};
use gantry_hub::world::Revisions;
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::release::{group, place};
use crate::cli::{Global, Output, Tenant};
use crate::connect::failed;
use crate::failure::{Exit, Failure, Result};
use crate::output::{Format, Tone, color, paint, print, print_value, table};

#[derive(Debug, Subcommand)]
pub enum Revision {
    List(Of),
    Show(Show),
    Diff(Diff),
}

/// List the revisions of a group that are kept.
#[derive(Debug, Args)]
pub struct Of {
    /// The group
    pub group: String,
    #[command(flatten)]
    pub tenant: Tenant,
    #[command(flatten)]
    pub output: Output,
}

/// Show one revision.
#[derive(Debug, Args)]
pub struct Show {
    /// The group
    pub group: String,
    /// Number of the revision
    pub number: i64,
    #[command(flatten)]
    pub tenant: Tenant,
    #[command(flatten)]
    pub output: Output,
}

/// Show how two revisions differ: image, files, environment, resources, probes.
#[derive(Debug, Args)]
pub struct Diff {
    /// The group
    pub group: String,
    /// The one revision [default: the group's current one]
    pub from: Option<i64>,
    /// The other revision [default: the newest]
    pub to: Option<i64>,
    #[command(flatten)]
    pub tenant: Tenant,
}

pub async fn run(args: Revision, global: &Global) -> Result<()> {
    match args {
        Revision::List(args) => list(args, global).await,
        Revision::Show(args) => {
            let (client, tenant) = place(&args.tenant, global).await?;
            let all = all(&client, &tenant, &args.group).await?;
            let spec = &kept(&all, &tenant, &args.group, args.number)?.spec;
            match args.output.output {
                Format::Table => print_value(spec, Format::Yaml),
                other => print_value(spec, other),
            }
        }
        Revision::Diff(args) => {
            let (client, tenant) = place(&args.tenant, global).await?;
            let all = all(&client, &tenant, &args.group).await?;
            let group = group(&client, &tenant, &args.group).await?;
            let current = current(&group);
            let from = args.from.or(current).unwrap_or(1);
            let to = args
                .to
                .or_else(|| all.keys().next_back().copied())
                .unwrap_or(from);
            let a = &kept(&all, &tenant, &args.group, from)?.spec;
            let b = &kept(&all, &tenant, &args.group, to)?.spec;
            print(&diff(from, a, to, b, color()))
        }
    }
}

fn current(group: &Group) -> Option<i64> {
    let status = group.status.as_ref()?;
    Some(status.current.as_ref()?.revision)
}

/// The revisions of a group that are kept, by number.
pub async fn all(client: &Client, tenant: &str, group: &str) -> Result<Revisions> {
    let api: Api<ControllerRevision> = Api::namespaced(client.clone(), tenant);
    let selector = format!("{}={group}", labels::GROUP);
    let list = api
        .list(&ListParams::default().labels(&selector))
        .await
        .map_err(|e| failed(&format!("cannot list the revisions of {tenant}/{group}"), e))?;
    Ok(list
        .items
        .iter()
        .filter_map(gantry_hub::read_revision)
        .map(|r| (r.number, r))
        .collect())
}

fn kept<'a>(
    all: &'a Revisions,
    tenant: &str,
    group: &str,
    number: i64,
) -> Result<&'a gantry_hub::world::Revision> {
    all.get(&number).ok_or_else(|| {
        let numbers: Vec<String> = all.keys().map(ToString::to_string).collect();
        Failure::new(
            Exit::Failure,
            format!("revision {number} of {tenant}/{group} is not kept"),
        )
        .hint(format!("kept are {}", numbers.join(", ")))
    })
}

async fn list(args: Of, global: &Global) -> Result<()> {
    let (client, tenant) = place(&args.tenant, global).await?;
    let group = group(&client, &tenant, &args.group).await?;
    let all = all(&client, &tenant, &args.group).await?;
    if args.output.output != Format::Table {
        let list: Vec<Value> = all
            .values()
            .map(|r| json!({"revision": r.number, "digest": r.digest, "spec": r.spec}))
            .collect();
        return print_value(&list, args.output.output);
    }
    let current = current(&group);
    let mut before: Option<&RevisionSpec> = None;
    let mut rows = Vec::new();
    for revision in all.values() {
        let changed = before.map_or(String::new(), |b| changed(b, &revision.spec).join(", "));
        let mark = if current == Some(revision.number) {
            "current"
        } else {
            ""
        };
        rows.push(vec![
            revision.number.to_string(),
            revision.spec.image.clone(),
            mark.to_owned(),
            changed,
        ]);
        before = Some(&revision.spec);
    }
    print(&table(
        &["REVISION", "IMAGE", "STATE", "CHANGED FROM THE ONE BEFORE"],
        rows,
    ))
}

/// How two revisions differ, field by field; texts of several lines line by line.
fn diff(from: i64, a: &RevisionSpec, to: i64, b: &RevisionSpec, color: bool) -> String {
    if changed(a, b).is_empty() {
        return format!("revisions {from} and {to} ask for the same\n");
    }
    let mut text = format!("revision {from} → {to}\n");
    for field in compare(a, b) {
        text += &format!("{}\n", paint(&field.name, Tone::Strong, color));
        for (mark, line) in field.lines {
            let tone = match mark {
                '-' => Tone::Bad,
                '+' => Tone::Good,
                _ => Tone::Dim,
            };
            text += &format!("  {}\n", paint(format!("{mark} {line}"), tone, color));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_revision_is_compared() {
        let spec = |value: Value| -> RevisionSpec { serde_json::from_value(value).unwrap() };
        let a = spec(json!({
            "image": "cart:1", "args": ["serve"],
            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
            "config": [{"path": "/etc/cart.yaml", "text": "a: 1\nb: 2\nc: 3\nd: 4\ne: 5\n"}],
            "resources": {"limits": {"cpu": "1"}},
        }));
        let b = spec(json!({
            "image": "cart:2",
            "env": [{"name": "B", "value": "3"}],
            "config": [{"path": "/etc/cart.yaml", "text": "a: 1\nb: 2\nc: 3\nd: 4\ne: 6\nf: 7\n"}],
            "resources": {"limits": {"cpu": "2"}},
            "probes": {"ready": {"httpGet": {"port": 80}}},
        }));
        insta::assert_snapshot!(diff(3, &a, 4, &b, false));
        assert_eq!(
            diff(3, &a, 3, &a, false),
            "revisions 3 and 3 ask for the same\n"
        );
    }
}
