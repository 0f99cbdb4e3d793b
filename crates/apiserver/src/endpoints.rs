//! Where the `kubernetes` Service leads: its Endpoints and its EndpointSlice, which the API server
//! itself keeps, as kube-apiserver does. Clients within a cluster find the server by them.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use gantry_machinery::status::Failure;
use serde_json::{Value, json};

use crate::{
    api::Api,
    bootstrap, object,
    rest::{
        create::{self, Ownership},
        update::{self, Change, Track},
    },
};

const NAMESPACE: &str = "default";
const NAME: &str = "kubernetes";

/// How often they are looked at; kube-apiserver's interval.
const LOOK: Duration = Duration::from_secs(10);

/// The address that the server tells others to reach it at: what is configured, else the one that
/// it listens on. Where that is all of them or the loopback, which Endpoints cannot name, it is the
/// one from which this host would send to the world, as kube-apiserver chooses it. `None`: this
/// host has no such address.
pub fn reachable(advertised: Option<IpAddr>, listening: IpAddr) -> Option<IpAddr> {
    let chosen = advertised.unwrap_or(listening);
    if !chosen.is_unspecified() && !chosen.is_loopback() {
        return Some(chosen);
    }
    // Nothing is sent: connecting a datagram socket only looks up the route. (TEST-NET-1, RFC 5737)
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified() && !address.is_loopback()).then_some(address)
}

/// What is to be there: group and plural of the resource, and the object.
fn wanted(address: SocketAddr) -> [(&'static str, &'static str, Value); 2] {
    let port = json!({"name": "https", "port": address.port(), "protocol": "TCP"});
    let ip = address.ip().to_string();
    let endpoints = json!({
        "metadata": {
            "name": NAME, "namespace": NAMESPACE,
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{"addresses": [{"ip": ip}], "ports": [port]}],
    });
    let slice = json!({
        "metadata": {
            "name": NAME, "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": NAME},
        },
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [ip], "conditions": {"ready": true}}],
        "ports": [port],
    });
    [
        ("", "endpoints", endpoints),
        ("discovery.k8s.io", "endpointslices", slice),
    ]
}

/// The fields in which what is there is to be as wanted; labels are only added.
const KEPT: [&str; 3] = ["subsets", "endpoints", "ports"];

fn in_step(there: &Value, wanted: &Value) -> bool {
    let labels = wanted.pointer("/metadata/labels");
    let mut labels = labels.and_then(Value::as_object).into_iter().flatten();
    KEPT.iter()
        .all(|field| there.get(*field) == wanted.get(*field))
        && labels.all(|(name, value)| {
            let there = there.pointer("/metadata/labels");
            there.and_then(|labels| labels.get(name)) == Some(value)
        })
}

async fn settle(api: &Arc<Api>, group: &str, plural: &str, wanted: &Value) -> Result<(), Failure> {
    let Some(mut cx) = bootstrap::own(api, group, "v1", plural, NAMESPACE) else {
        return Ok(());
    };
    let Some(stored) = api.store.get(&cx.key(NAME)) else {
        create::object_of(&mut cx, wanted.clone(), Ownership::Update).await?;
        return Ok(());
    };
    if in_step(&object::parse(&stored.value)?, wanted) {
        return Ok(());
    }
    cx.target.name = NAME.to_owned();
    let change = Change {
        subresource: String::new(),
        track: Track::Update,
        given: None,
        retries: 16,
    };
    update::modify(&mut cx, change, |_, old| {
        let mut new = old.clone();
        for field in KEPT {
            if let Some(value) = wanted.get(field) {
                new[field] = value.clone();
            }
        }
        let labels = wanted.pointer("/metadata/labels");
        for (name, value) in labels.and_then(Value::as_object).into_iter().flatten() {
            new["metadata"]["labels"][name] = value.clone();
        }
        Ok(new)
    })
    .await?;
    Ok(())
}

/// Writes both where they are not there or say something else.
pub async fn publish(api: &Arc<Api>) -> Result<(), Failure> {
    let Some(address) = api.reachable else {
        return Ok(());
    };
    for (group, plural, object) in wanted(address) {
        match settle(api, group, plural, &object).await {
            // Somebody else was faster, or the namespace is not there: the next look is soon.
            Err(failure) if !matches!(failure.code, 403 | 404 | 409) => return Err(failure),
            _ => {}
        }
    }
    Ok(())
}

/// Keeps them until the server stops.
pub async fn run(api: Arc<Api>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = api.stop.cancelled() => return,
        }
        if let Err(failure) = publish(&api).await {
            tracing::warn!(%failure, "endpoints of the kubernetes Service");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_says_where_is_taken_as_it_is() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        for (advertised, listening, expected) in [
            (None, "10.1.2.3", "10.1.2.3"),
            (Some("10.9.9.9"), "0.0.0.0", "10.9.9.9"),
            (Some("fd00::1"), "127.0.0.1", "fd00::1"),
        ] {
            let found = reachable(advertised.map(ip), ip(listening));
            assert_eq!(found, Some(ip(expected)));
        }
        for listening in ["0.0.0.0", "127.0.0.1"] {
            if let Some(found) = reachable(None, ip(listening)) {
                assert!(!found.is_loopback() && !found.is_unspecified(), "{found}");
            }
        }
    }

    #[test]
    fn what_others_add_does_not_count() {
        let address = SocketAddr::from(([10, 0, 0, 1], 6443));
        for (_, _, wanted) in wanted(address) {
            let mut there = wanted.clone();
            there["metadata"]["labels"]["mine"] = "x".into();
            assert!(in_step(&there, &wanted));
            there["ports"] = json!([]);
            there["subsets"] = json!([]);
            assert!(!in_step(&there, &wanted));
            assert!(!in_step(&json!({}), &wanted));
        }
    }
}
