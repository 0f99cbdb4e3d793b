//! The IPAddress of each address that a Service has. It is written and removed with the Service, in one
//! transaction: neither is ever there without the other, however the server ends.

use std::{net::Ipv4Addr, sync::Arc};

use bytes::Bytes;
use gantry_machinery::status::Failure;
use gantry_store::{Expect, Key, Op, Stored, Write};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{already_allocated, service_addresses};
use crate::{
    api::{Api, Cx},
    object,
    registry::Entry,
};

pub const BUCKET: &str = "networking.k8s.io/ipaddresses";
const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
/// Who keeps the addresses of Services, in the label.
const MANAGER: &str = "ipallocator.k8s.io";

/// What the object of an address looks like, as far as it matters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Address {
    pub name: String,
    /// Its labels are those of an address that is kept here.
    pub managed: bool,
    pub family: bool,
    /// Namespace and name of the Service that it names; `None`: it names something else.
    pub service: Option<(String, String)>,
    pub created: Option<Timestamp>,
}

impl Address {
    pub fn of(object: &Value) -> Address {
        let label = |name: &str| {
            let labels = object::meta(object).and_then(|m| m.get("labels"));
            labels.and_then(|l| l.get(name)).and_then(Value::as_str)
        };
        let parent = |field: &str| object::text(object, &format!("/spec/parentRef/{field}"));
        let of_service = parent("group").is_empty() && parent("resource") == "services";
        Address {
            name: object::name(object).to_owned(),
            managed: label(MANAGED_BY) == Some(MANAGER),
            family: label(FAMILY) == Some("IPv4"),
            service: of_service
                .then(|| (parent("namespace").to_owned(), parent("name").to_owned())),
            created: object::meta_text(object, "creationTimestamp").parse().ok(),
        }
    }
}

/// The IPAddress of a Service's address.
fn made(entry: &Entry, address: &str, service: (&str, &str), now: Timestamp) -> Value {
    let (namespace, name) = service;
    let at = object::time(now);
    let mut object = json!({
        "metadata": {
            "name": address, "uid": object::uid(), "creationTimestamp": at,
            "labels": {FAMILY: "IPv4", MANAGED_BY: MANAGER},
            "managedFields": [{
                "manager": "kube-apiserver", "operation": "Update", "time": at,
                "apiVersion": "networking.k8s.io/v1", "fieldsType": "FieldsV1",
                "fieldsV1": {
                    "f:metadata": {"f:labels": {
                        ".": {}, format!("f:{FAMILY}"): {}, format!("f:{MANAGED_BY}"): {}}},
                    "f:spec": {"f:parentRef": {
                        ".": {}, "f:name": {}, "f:namespace": {}, "f:resource": {}}},
                },
            }],
        },
        "spec": {"parentRef": {"resource": "services", "namespace": namespace, "name": name}},
    });
    if entry.traits.generation {
        object::set_meta(&mut object, "generation", 1);
    }
    object
}

fn entry(api: &Api) -> Option<Arc<Entry>> {
    api.registry.read().stored_in(BUCKET).cloned()
}

pub fn key(entry: &Entry, address: &str) -> Key {
    object::key(entry, "", address)
}

fn put(entry: &Entry, object: &Value, expect: Expect) -> Result<Write, Failure> {
    let value: Bytes = object::encode(&entry.head, object, "")?;
    let stamp = Some(object::stamp(&entry.head));
    Ok(Write {
        key: key(entry, object::name(object)),
        expect,
        op: Op::Put { value, stamp },
    })
}

/// The removal of an object, or its mark where a finalizer keeps it.
fn removal(entry: &Entry, stored: &Stored, now: Timestamp) -> Result<Option<Write>, Failure> {
    let mut object = object::parse(&stored.value)?;
    let expect = Expect::At(stored.revision);
    if object::finalizers(&object).is_empty() {
        let last = object::encode(&entry.head, &object, "")?;
        let stamp = Some(object::stamp(&entry.head));
        return Ok(Some(Write {
            key: stored.key.clone(),
            expect,
            op: Op::Delete { last, stamp },
        }));
    }
    if object::deleting(&object) {
        return Ok(None);
    }
    object::set_meta(&mut object, "deletionTimestamp", object::time(now));
    object::set_meta(&mut object, "deletionGracePeriodSeconds", 0);
    Ok(Some(put(entry, &object, expect)?))
}

/// The writes of IPAddresses that belong to one of a Service: what it has now, or `None` where it goes.
pub fn beside(cx: &Cx, service: &Key, now: Option<&Value>) -> Result<Vec<Write>, Failure> {
    let Some(entry) = entry(&cx.api) else {
        return Ok(vec![]);
    };
    let before = match cx.store().get(service) {
        Some(stored) => service_addresses(&object::parse(&stored.value)?),
        None => vec![],
    };
    let now = now.map(service_addresses).unwrap_or_default();
    let (namespace, name) = service.name.split_once('/').unwrap_or_default();
    let mut writes = vec![];
    for address in &now {
        let text = Ipv4Addr::from(*address).to_string();
        match cx.store().get(&key(&entry, &text)) {
            None => {
                let object = made(&entry, &text, (namespace, name), cx.now);
                writes.push(put(&entry, &object, Expect::Absent)?);
            }
            // Somebody else made one since it was looked whether it is free.
            Some(_) if !before.contains(address) => return Err(already_allocated(cx, name, &text)),
            Some(_) => {}
        }
    }
    for address in before.iter().filter(|a| !now.contains(a)) {
        let text = Ipv4Addr::from(*address).to_string();
        if let Some(stored) = cx.store().get(&key(&entry, &text)) {
            writes.extend(removal(&entry, &stored, cx.now)?);
        }
    }
    Ok(writes)
}

/// What repairs an address by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mend<'a> {
    Create { service: (&'a str, &'a str) },
    Recreate { service: (&'a str, &'a str) },
    Remove,
}

/// Carries out a repair. What has changed meanwhile is left as it is: it is looked at again.
pub async fn mend(api: &Arc<Api>, address: &str, mend: Mend<'_>) -> Result<(), Failure> {
    let Some(entry) = entry(api) else {
        return Ok(());
    };
    let now = Timestamp::now();
    let mut writes = vec![];
    if let Mend::Recreate { .. } | Mend::Remove = mend
        && let Some(stored) = api.store.get(&key(&entry, address))
    {
        writes.extend(removal(&entry, &stored, now)?);
    }
    if let Mend::Create { service } | Mend::Recreate { service } = mend {
        let object = made(&entry, address, service, now);
        writes.push(put(&entry, &object, Expect::Absent)?);
    }
    let committed = api.store.commit_all(writes).await;
    api.services.noticed(&api.store, address);
    match committed {
        Ok(_) | Err(gantry_store::CommitError::Conflict { .. }) => Ok(()),
        Err(error) => Err(crate::errors::internal(error)),
    }
}
