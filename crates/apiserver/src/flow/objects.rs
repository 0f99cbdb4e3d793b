//! The FlowSchemas and priority levels that every server has, and the status of all of them.

use std::sync::Arc;

use gantry_machinery::{
    flowcontrol::{self, MANDATORY},
    status::Failure,
};
use serde_json::{Value, json};

use super::{GROUP, LEVELS, SCHEMAS};
use crate::{
    api::{Api, Cx},
    bootstrap, object,
    rest::{
        create::{self, Ownership},
        update::{self, Change, Track},
    },
};

/// Says that the server may bring an object up to date.
const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
const PRODUCER: &str = "api-priority-and-fairness-config-producer-v1";
const CONSUMER: &str = "api-priority-and-fairness-config-consumer-v1";

fn object(name: &str, spec: &Value) -> Value {
    json!({
        "metadata": {"name": name, "annotations": {AUTOUPDATE: "true"}},
        "spec": spec,
    })
}

/// An object as it comes with the server.
pub fn built_in(plural: &str, name: &str) -> Option<Value> {
    let spec = flowcontrol::built_in(plural).get(name)?;
    Some(object(name, spec))
}

pub fn all(plural: &str) -> Vec<Value> {
    let specs = flowcontrol::built_in(plural).iter();
    specs.map(|(name, spec)| object(name, spec)).collect()
}

fn own(api: &Arc<Api>, plural: &str, name: &str, manager: &str) -> Option<Cx> {
    let mut cx = bootstrap::own(api, GROUP, "v1", plural, "")?;
    cx.target.name = name.to_owned();
    cx.query.add("fieldManager", manager);
    Some(cx)
}

/// Makes what is missing of a kind's objects, and brings those up to date that allow it.
async fn provide(api: &Arc<Api>, plural: &str, wanted: Vec<Value>) -> Result<(), Failure> {
    let each = wanted.into_iter().map(|object| async move {
        let name = object::name(&object).to_owned();
        let Some(mut cx) = own(api, plural, &name, PRODUCER) else {
            return Ok(());
        };
        let Some(stored) = api.store.get(&cx.key(&name)) else {
            return match create::object_of(&mut cx, object, Ownership::Update).await {
                Err(failure) if failure.reason != "AlreadyExists" => Err(failure),
                _ => Ok(()),
            };
        };
        let there = object::parse(&stored.value)?;
        let notes = object::meta(&there).and_then(|m| m.get("annotations"));
        let follows = notes
            .and_then(|n| n.get(AUTOUPDATE))
            .is_some_and(|v| v == "true");
        if !follows || there.get("spec") == object.get("spec") {
            return Ok(());
        }
        let change = Change {
            subresource: String::new(),
            track: Track::Update,
            given: None,
            retries: 16,
        };
        let changed = update::modify(&mut cx, change, |_, old| {
            let mut new = old.clone();
            new["spec"] = object["spec"].clone();
            Ok(new)
        });
        changed.await.map(drop)
    });
    futures::future::try_join_all(each).await.map(drop)
}

/// Provides the objects that come with the server and their status.
pub async fn ensure(api: &Arc<Api>) -> Result<(), Failure> {
    provide(api, LEVELS, all(LEVELS)).await?;
    provide(api, SCHEMAS, all(SCHEMAS)).await?;
    statuses(api).await
}

/// After a write to one of the objects: mandatory ones come back, statuses follow.
pub async fn settle(api: &Arc<Api>) {
    for plural in [LEVELS, SCHEMAS] {
        let mandatory = MANDATORY.iter();
        let mandatory = mandatory
            .filter_map(|name| built_in(plural, name))
            .collect();
        if let Err(failure) = provide(api, plural, mandatory).await {
            tracing::warn!(%failure, plural, "providing the mandatory objects of flow control");
        }
    }
    if let Err(failure) = statuses(api).await {
        tracing::warn!(%failure, "writing the status of flow schemas");
    }
}

/// What a FlowSchema's status says about the level it names.
fn dangling(level: &str, there: bool) -> Value {
    if there {
        return json!({
            "type": "Dangling", "status": "False", "reason": "Found",
            "message": format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?} and it exists"),
        });
    }
    json!({
        "type": "Dangling", "status": "True", "reason": "NotFound",
        "message": format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?} but there is no such object"),
    })
}

fn conditions(schema: &Value) -> Vec<Value> {
    let list = schema.pointer("/status/conditions");
    list.and_then(Value::as_array).cloned().unwrap_or_default()
}

async fn statuses(api: &Arc<Api>) -> Result<(), Failure> {
    let levels = api.store.snapshot(&format!("{GROUP}/{LEVELS}"));
    let schemas = api.store.snapshot(&format!("{GROUP}/{SCHEMAS}"));
    let mut writes = vec![];
    for stored in schemas.iter() {
        let schema = object::parse(&stored.value)?;
        let level = object::text(&schema, "/spec/priorityLevelConfiguration/name");
        let mut wanted = dangling(level, levels.get(level).is_some());
        let all = conditions(&schema);
        let before = all.iter().find(|c| c["type"] == "Dangling");
        let same = |before: &Value| {
            let mut fields = ["status", "reason", "message"].iter();
            fields.all(|f| before[*f] == wanted[*f])
        };
        if before.is_some_and(same) {
            continue;
        }
        let since = before.filter(|b| b["status"] == wanted["status"]);
        let name = object::name(&schema).to_owned();
        let Some(mut cx) = own(api, SCHEMAS, &name, CONSUMER) else {
            continue;
        };
        wanted["lastTransitionTime"] = match since {
            Some(since) => since["lastTransitionTime"].clone(),
            None => object::time(cx.now).into(),
        };
        writes.push(async move {
            let change = Change {
                subresource: "status".to_owned(),
                track: Track::Update,
                given: None,
                retries: 16,
            };
            let changed = update::modify(&mut cx, change, |_, old| {
                let mut new = old.clone();
                let mut all = conditions(old);
                all.retain(|c| c["type"] != "Dangling");
                all.push(wanted.clone());
                new["status"] = json!({"conditions": all});
                Ok(new)
            });
            match changed.await {
                // Deleted meanwhile.
                Err(failure) if failure.code != 404 => Err(failure),
                _ => Ok(()),
            }
        });
    }
    futures::future::try_join_all(writes).await.map(drop)
}
