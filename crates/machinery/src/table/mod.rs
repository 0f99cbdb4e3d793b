//! Objects as rows: the Table that `kubectl get` prints, with the columns of each built-in kind
//! (`data/columns.json`) or of the CustomResourceDefinition.

mod age;
mod cells;
mod jsonpath;
mod nodes;
mod pods;
mod services;
mod storage;
mod workloads;

use std::sync::OnceLock;

use jiff::Timestamp;
use rustc_hash::FxHashMap;
use serde::Deserialize;
use serde_json::{Value, json};

pub use age::{age, human_duration};
pub use jsonpath::JsonPath;

use crate::{resource::Resource, validation::value::at};

/// What a row carries beside its cells (`includeObject`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Include {
    None,
    Metadata,
    Object,
}

#[derive(Deserialize, Clone)]
struct Column {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    format: String,
    priority: i32,
    #[serde(default)]
    description: String,
}

fn columns() -> &'static FxHashMap<String, Vec<Column>> {
    static COLUMNS: OnceLock<FxHashMap<String, Vec<Column>>> = OnceLock::new();
    COLUMNS.get_or_init(|| {
        // The table is part of the binary: a build with a broken one fails every test.
        serde_json::from_str(include_str!("../../data/columns.json")).unwrap_or_default()
    })
}

/// Makes a kind's cells of an object.
type Row = fn(&Value, Timestamp) -> Vec<Value>;

/// The `columnDefinitions` of a resource and the cells of each item. A built-in column that no
/// recorded answer describes carries an empty description.
pub fn table(resource: &Resource, items: &[&Value], now: Timestamp) -> (Value, Vec<Value>) {
    if let Some(custom) = &resource.custom {
        return custom_table(custom, items, now);
    }
    // Keys of the core group start with the slash that stands for its empty name.
    let key = format!(
        "{}/{}/{}",
        resource.group, resource.version, resource.plural
    );
    let row = row(&resource.group, &resource.plural);
    match (columns().get(&key), row) {
        (Some(columns), Some(row)) => {
            let cells = items
                .iter()
                .map(|item| Value::Array(row(item, now)))
                .collect();
            (definitions(columns), cells)
        }
        _ => without_columns(items),
    }
}

/// The columns of what has none of its own: name and time of creation.
pub fn without_columns(items: &[&Value]) -> (Value, Vec<Value>) {
    (
        json!([
            definition("Name", "string", "name", "", 0),
            definition("Created At", "date", "", "", 0),
        ]),
        items
            .iter()
            .map(|item| json!([cells::name(item), cells::created(item)]))
            .collect(),
    )
}

fn definition(name: &str, kind: &str, format: &str, description: &str, priority: i32) -> Value {
    json!({"name": name, "type": kind, "format": format, "description": description,
           "priority": priority})
}

/// The description of a column that every kind has.
fn common(name: &str) -> &'static str {
    let any = columns().get("/v1/configmaps");
    let column = any.and_then(|all| all.iter().find(|c| c.name == name));
    column.map_or("", |c| &c.description)
}

fn definitions(columns: &[Column]) -> Value {
    let all = columns
        .iter()
        .map(|c| definition(&c.name, &c.kind, &c.format, &c.description, c.priority));
    Value::Array(all.collect())
}

fn row(group: &str, plural: &str) -> Option<Row> {
    Some(match (group, plural) {
        ("", "pods") => pods::pod,
        ("", "nodes") => nodes::node,
        ("", "services") => services::service,
        ("", "endpoints") => services::endpoints,
        ("", "configmaps") => cells::config_map,
        ("", "secrets") => cells::secret,
        ("", "events") | ("events.k8s.io", "events") => cells::event,
        ("", "namespaces") => cells::namespace,
        ("", "serviceaccounts") => cells::service_account,
        ("", "podtemplates") => workloads::pod_template,
        ("", "replicationcontrollers") => workloads::replication_controller,
        ("", "resourcequotas") => cells::resource_quota,
        ("", "persistentvolumes") => storage::volume,
        ("", "persistentvolumeclaims") => storage::claim,
        ("", "componentstatuses") => cells::component_status,
        ("", "limitranges") => cells::role,
        ("apps", "deployments") => workloads::deployment,
        ("apps", "replicasets") => workloads::replica_set,
        ("apps", "statefulsets") => workloads::stateful_set,
        ("apps", "daemonsets") => workloads::daemon_set,
        ("apps", "controllerrevisions") => workloads::controller_revision,
        ("batch", "jobs") => workloads::job,
        ("batch", "cronjobs") => workloads::cron_job,
        ("autoscaling", "horizontalpodautoscalers") => workloads::autoscaler,
        ("networking.k8s.io", "ingresses") => services::ingress,
        ("networking.k8s.io", "ingressclasses") => services::ingress_class,
        ("networking.k8s.io", "networkpolicies") => services::network_policy,
        ("networking.k8s.io", "ipaddresses") => services::ip_address,
        ("networking.k8s.io", "servicecidrs") => services::service_cidr,
        ("discovery.k8s.io", "endpointslices") => services::endpoint_slice,
        ("policy", "poddisruptionbudgets") => workloads::disruption_budget,
        ("rbac.authorization.k8s.io", "roles" | "clusterroles") => cells::role,
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => cells::binding,
        ("scheduling.k8s.io", "priorityclasses") => cells::priority_class,
        ("node.k8s.io", "runtimeclasses") => cells::runtime_class,
        ("coordination.k8s.io", "leases") => cells::lease,
        ("storage.k8s.io", "storageclasses") => storage::class,
        ("storage.k8s.io", "csidrivers") => storage::driver,
        ("storage.k8s.io", "csinodes") => storage::csi_node,
        ("storage.k8s.io", "csistoragecapacities") => storage::capacity,
        ("storage.k8s.io", "volumeattachments") => storage::attachment,
        ("storage.k8s.io", "volumeattributesclasses") => storage::attributes_class,
        ("admissionregistration.k8s.io", plural) => cells::admission(plural)?,
        ("certificates.k8s.io", "certificatesigningrequests") => cells::signing_request,
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => cells::flow_schema,
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations") => cells::priority_level,
        ("apiextensions.k8s.io", "customresourcedefinitions") => cells::definition,
        ("apiregistration.k8s.io", "apiservices") => cells::api_service,
        _ => return None,
    })
}

/// Additional printer columns are JSON paths into the object.
fn custom_table(
    custom: &crate::resource::Custom,
    items: &[&Value],
    now: Timestamp,
) -> (Value, Vec<Value>) {
    let mut head = vec![definition("Name", "string", "name", common("Name"), 0)];
    if custom.columns.is_empty() {
        head.push(definition("Age", "date", "", common("Age"), 0));
        let rows = items.iter().map(|item| {
            let created = item.pointer("/metadata/creationTimestamp");
            let age = custom_cell("date", &Vec::from_iter(created), now);
            json!([cells::name(item), age])
        });
        return (Value::Array(head), rows.collect());
    }
    head.extend(custom.columns.iter().map(|c| {
        let path;
        let description = if c.description.is_empty() {
            path = format!(
                "Custom resource definition column (in JSONPath format): {}",
                c.json_path
            );
            &path
        } else {
            &c.description
        };
        definition(&c.name, &c.kind, &c.format, description, c.priority)
    }));
    let paths: Vec<_> = custom
        .columns
        .iter()
        .map(|c| (c.kind.as_str(), JsonPath::parse(&c.json_path)))
        .collect();
    let rows = items.iter().map(|item| {
        let mut row = vec![cells::name(item)];
        row.extend(paths.iter().map(|(kind, path)| {
            let found = path.as_ref().map(|p| p.find(item)).unwrap_or_default();
            custom_cell(kind, &found, now)
        }));
        Value::Array(row)
    });
    (Value::Array(head), rows.collect())
}

fn custom_cell(kind: &str, found: &[&Value], now: Timestamp) -> Value {
    let Some(first) = found.first() else {
        return Value::Null;
    };
    match kind {
        "integer" => first
            .as_i64()
            .map(Value::from)
            .or_else(|| first.as_f64().map(|f| Value::from(f as i64)))
            .unwrap_or(Value::Null),
        "number" => first.as_f64().map_or(Value::Null, |_| (*first).clone()),
        "boolean" => first.as_bool().map_or(Value::Null, Value::from),
        "date" => match first.as_str().map(str::parse::<Timestamp>) {
            Some(Ok(at)) => age(at, now).into(),
            _ => "<unknown>".into(),
        },
        _ => Value::from(found.iter().map(|v| plain(v)).collect::<Vec<_>>().join(",")),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Metadata of an object, for the commonest lookups of rows.
fn metadata(object: &Value) -> &Value {
    at(object, "metadata")
}
