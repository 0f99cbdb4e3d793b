//! `gantry get`: what there is. The tables are the server's own, the same that kubectl prints.

use clap::{Args, ValueEnum};
use http::Request;
use kube::Client;
use serde::Deserialize;
use serde_json::Value;

use super::instances;
use crate::cli::{Global, Output, Tenant};
use crate::connect::{Connection, connect, failed};
use crate::failure::Result;
use crate::output::{Format, print, print_value, println, table};

/// List clusters, tenants, apps, groups, strategies, releases, orders, stopped lines, notifications or
/// instances.
#[derive(Debug, Args)]
pub struct Get {
    /// What to list
    #[arg(value_enum)]
    pub kind: What,
    /// One of them by name; for instances, the group
    pub name: Option<String>,
    #[command(flatten)]
    pub tenant: Tenant,
    /// Those of all tenants
    #[arg(short = 'A', long, conflicts_with = "tenant")]
    pub all_tenants: bool,
    /// Only those whose labels match, such as gantry.dev/app=cart
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    #[value(alias = "cluster")]
    Clusters,
    #[value(alias = "app")]
    Apps,
    #[value(alias = "group")]
    Groups,
    #[value(alias = "strategy")]
    Strategies,
    #[value(aliases = ["release", "rel"])]
    Releases,
    /// Releases of many groups in order
    #[value(name = "orders", aliases = ["order", "releaseorders", "releaseorder"])]
    Orders,
    /// Switches that halt releases
    #[value(name = "stoplines", aliases = ["stopline", "stop"])]
    StopLines,
    #[value(alias = "tenant")]
    Tenants,
    #[value(alias = "notification")]
    Notifications,
    /// Pods of groups, on all members
    #[value(aliases = ["instance", "pods"])]
    Instances,
}

impl What {
    /// Whether it is of the fleet and not of a tenant.
    fn of_fleet(self) -> bool {
        matches!(self, What::Clusters | What::StopLines | What::Tenants)
    }

    fn plural(self) -> &'static str {
        match self {
            What::Clusters => "clusters",
            What::Apps => "apps",
            What::Groups => "groups",
            What::Strategies => "strategies",
            What::Releases => "releases",
            What::Orders => "releaseorders",
            What::StopLines => "stoplines",
            What::Tenants => "tenants",
            What::Notifications => "notifications",
            What::Instances => "pods",
        }
    }
}

pub async fn run(args: Get, global: &Global) -> Result<()> {
    let connection = connect(global).await?;
    let namespace = (!args.all_tenants).then(|| {
        args.tenant
            .tenant
            .clone()
            .unwrap_or_else(|| connection.namespace.clone())
    });
    if args.kind == What::Instances {
        return instances::print_all(
            &connection.client,
            namespace.as_deref(),
            args.name.as_deref(),
            args.output.output,
        )
        .await;
    }
    let url = url(
        args.kind,
        namespace.as_deref(),
        args.name.as_deref(),
        args.selector.as_deref(),
    );
    let what = format!("cannot get {}", args.kind.plural());
    if args.output.output != Format::Table {
        let value: Value = request(&connection.client, &url, "application/json")
            .await
            .map_err(|e| failed(&what, e))?;
        return print_value(&value, args.output.output);
    }
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let answer: Table = request(&connection.client, &url, accept)
        .await
        .map_err(|e| failed(&what, e))?;
    show(&answer, &args, &connection)
}

fn url(kind: What, namespace: Option<&str>, name: Option<&str>, selector: Option<&str>) -> String {
    let mut url = "/apis/gantry.dev/v1alpha1".to_owned();
    if let (Some(namespace), true) = (namespace, !kind.of_fleet()) {
        url.push_str(&format!("/namespaces/{namespace}"));
    }
    url.push_str(&format!("/{}", kind.plural()));
    if let Some(name) = name {
        url.push_str(&format!("/{name}"));
    }
    if let Some(selector) = selector {
        let text: String = selector.bytes().map(|b| format!("%{b:02X}")).collect();
        url.push_str(&format!("?labelSelector={text}"));
    }
    url
}

async fn request<T: serde::de::DeserializeOwned>(
    client: &Client,
    url: &str,
    accept: &str,
) -> Result<T, kube::Error> {
    let request = Request::get(url)
        .header("accept", accept)
        .body(vec![])
        .map_err(kube::Error::HttpError)?;
    client.request(request).await
}

/// `meta.k8s.io/v1 Table`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Table {
    column_definitions: Vec<Column>,
    #[serde(default)]
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Column {
    name: String,
    #[serde(default)]
    priority: i32,
}

#[derive(Deserialize)]
struct Row {
    cells: Vec<Value>,
    #[serde(default)]
    object: Value,
}

fn show(answer: &Table, args: &Get, connection: &Connection) -> Result<()> {
    if answer.rows.is_empty() {
        let place = if args.all_tenants || args.kind.of_fleet() {
            "the fleet".to_owned()
        } else {
            format!(
                "tenant {}",
                args.tenant
                    .tenant
                    .as_deref()
                    .unwrap_or(&connection.namespace)
            )
        };
        return println(format!("No {} in {place}.", args.kind.plural()));
    }
    let columns: Vec<usize> = answer
        .column_definitions
        .iter()
        .enumerate()
        .filter(|(_, c)| c.priority == 0)
        .map(|(i, _)| i)
        .collect();
    let with_tenant = args.all_tenants && !args.kind.of_fleet();
    let mut header: Vec<String> = if with_tenant {
        vec!["TENANT".to_owned()]
    } else {
        vec![]
    };
    header.extend(
        columns
            .iter()
            .map(|i| answer.column_definitions[*i].name.to_uppercase()),
    );
    let rows = answer
        .rows
        .iter()
        .map(|row| {
            let tenant = row
                .object
                .pointer("/metadata/namespace")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let mut cells = if with_tenant {
                vec![tenant.to_owned()]
            } else {
                vec![]
            };
            cells.extend(columns.iter().map(|i| cell(row.cells.get(*i))));
            cells
        })
        .collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    print(&table(&header, rows))
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let cases = [
            (
                url(What::Groups, Some("shop"), None, None),
                "/apis/gantry.dev/v1alpha1/namespaces/shop/groups",
            ),
            (
                url(What::Clusters, Some("shop"), Some("sh"), None),
                "/apis/gantry.dev/v1alpha1/clusters/sh",
            ),
            (
                url(What::Apps, None, None, Some("a=b")),
                "/apis/gantry.dev/v1alpha1/apps?labelSelector=%61%3D%62",
            ),
        ];
        for (got, expected) in cases {
            assert_eq!(got, expected);
        }
    }
}
