//! The cluster's DNS, as Kubernetes' specification of it has it (DNS-Based Service Discovery, 1.1.0): what names of
//! Services, of the pods behind them and of addresses stand for. Outside of the cluster no name is known.

use super::{
    place::{list, strings, text},
    reach::{Reach, unknown},
};
use crate::program::{Failed, Kind, Lookup, Record, SERVER};
use k8s_openapi::api::{
    core::v1::{Service, ServiceSpec},
    discovery::v1::{Endpoint, EndpointSlice},
};
use kube::{Api, api::ListParams};
use serde_json::Value;

/// What names of the cluster end with.
const DOMAIN: &str = "cluster.local";
/// Names with fewer dots are first looked for with what the search list makes of them.
const NDOTS: usize = 5;

/// Where short names are looked for.
fn searched(namespace: &str) -> [String; 3] {
    [
        format!("{namespace}.svc.{DOMAIN}"),
        format!("svc.{DOMAIN}"),
        DOMAIN.to_owned(),
    ]
}

/// `/etc/resolv.conf` of a pod, as its `dnsPolicy` and `dnsConfig` make the kubelet write it.
pub fn resolver(pod: &Value, namespace: &str) -> String {
    let spec = &pod["spec"];
    let policy = match text(&spec["dnsPolicy"]) {
        // A pod of the node's network has the node's servers.
        "" | "ClusterFirst" if spec["hostNetwork"] == true => "Default",
        "" => "ClusterFirst",
        policy => policy,
    };
    let (mut servers, mut searches, mut options) = (vec![], vec![], vec![]);
    match policy {
        "None" => {}
        "Default" => servers.push(SERVER.to_owned()),
        _ => {
            servers.push(SERVER.to_owned());
            searches.extend(searched(namespace));
            options.push(("ndots".to_owned(), NDOTS.to_string()));
        }
    }
    let more = &spec["dnsConfig"];
    for (all, field) in [(&mut servers, "nameservers"), (&mut searches, "searches")] {
        for it in strings(&more[field]) {
            if !all.contains(&it) {
                all.push(it);
            }
        }
    }
    for option in list(&more["options"]) {
        let (name, value) = (text(&option["name"]), text(&option["value"]));
        options.retain(|(known, _)| known != name);
        options.push((name.to_owned(), value.to_owned()));
    }
    let mut out = String::new();
    if !searches.is_empty() {
        out += &format!("search {}\n", searches.join(" "));
    }
    for server in servers {
        out += &format!("nameserver {server}\n");
    }
    let options: Vec<String> = options
        .into_iter()
        .map(|(name, value)| match value.as_str() {
            "" => name,
            value => format!("{name}:{value}"),
        })
        .collect();
    if !options.is_empty() {
        out += &format!("options {}\n", options.join(" "));
    }
    out
}

/// A name with its last dot, as records have it.
fn whole(name: &str) -> String {
    format!("{name}.")
}

/// What an endpoint is called below its Service.
fn host(endpoint: &Endpoint, address: &str) -> String {
    endpoint
        .hostname
        .clone()
        .unwrap_or_else(|| address.replace('.', "-"))
}

fn ready(endpoint: &&Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    conditions.is_none_or(|it| it.ready != Some(false))
}

/// The IPv4 address behind the name of a reversed one.
fn forward(name: &str) -> Option<String> {
    let digits = name.strip_suffix(".in-addr.arpa")?;
    let mut parts: Vec<&str> = digits.split('.').collect();
    parts.reverse();
    let address = parts.join(".");
    let address: std::net::Ipv4Addr = address.parse().ok()?;
    Some(address.to_string())
}

impl Reach {
    /// What a name stands for; nothing where it is not known.
    pub async fn records(&self, lookup: &Lookup) -> Result<Vec<Record>, Failed> {
        let name = lookup.name.trim_end_matches('.').to_lowercase();
        let mut names = vec![];
        if lookup.search && !lookup.name.ends_with('.') && name.matches('.').count() < NDOTS {
            names.extend(searched(&self.namespace).map(|it| format!("{name}.{it}")));
        }
        names.push(name);
        for name in names {
            let found = self.known(&name, lookup.kind).await?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(vec![])
    }

    async fn known(&self, name: &str, kind: Kind) -> Result<Vec<Record>, Failed> {
        let record = |kind: Kind, data: String| Record {
            name: whole(name),
            kind,
            data,
        };
        if kind == Kind::Ptr {
            let names = match forward(name) {
                Some(address) => self.named(&address).await?,
                None => vec![],
            };
            return Ok(names.into_iter().map(|it| record(kind, it)).collect());
        }
        let Some(inside) = name
            .strip_suffix(DOMAIN)
            .and_then(|it| it.strip_suffix('.'))
        else {
            return Ok(vec![]);
        };
        let parts: Vec<&str> = inside.split('.').collect();
        let (above, service, namespace) = match parts.as_slice() {
            [address, _, "pod"] if kind == Kind::A => {
                let address = address.replace('-', ".");
                let known = address.parse::<std::net::Ipv4Addr>().is_ok();
                return Ok(known.then(|| record(kind, address)).into_iter().collect());
            }
            [above @ .., service, namespace, "svc"] => (above, *service, *namespace),
            _ => return Ok(vec![]),
        };
        let services: Api<Service> = Api::namespaced(self.client.clone(), namespace);
        let found = services.get_opt(service).await.map_err(unknown)?;
        let Some(spec) = found.and_then(|it| it.spec) else {
            return Ok(vec![]);
        };
        if let (Some("ExternalName"), Some(other)) = (spec.type_.as_deref(), &spec.external_name) {
            let alias = || record(Kind::Cname, whole(other.trim_end_matches('.')));
            return Ok(above.is_empty().then(alias).into_iter().collect());
        }
        let own = format!("{service}.{namespace}.svc.{DOMAIN}");
        let headless = matches!(spec.cluster_ip.as_deref(), None | Some("" | "None"));
        let slices = match headless {
            true => self.slices(namespace, service).await?,
            false => vec![],
        };
        let data = match (kind, above) {
            (Kind::A, []) if headless => addresses(&slices, None),
            (Kind::A, []) => spec.cluster_ip.into_iter().collect(),
            (Kind::A, [pod]) if headless => addresses(&slices, Some(pod)),
            (Kind::Srv, [port, protocol]) => {
                let (Some(port), Some(protocol)) =
                    (port.strip_prefix('_'), protocol.strip_prefix('_'))
                else {
                    return Ok(vec![]);
                };
                match headless {
                    true => served_by(&slices, &own, port, protocol),
                    false => served(&spec, &own, port, protocol),
                }
            }
            _ => vec![],
        };
        Ok(data.into_iter().map(|it| record(kind, it)).collect())
    }

    /// What an address is called: a Service, or a pod behind one that has no address.
    async fn named(&self, address: &str) -> Result<Vec<String>, Failed> {
        let all: Api<Service> = Api::all(self.client.clone());
        let services = all.list(&ListParams::default()).await.map_err(unknown)?;
        let name = |meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
            let text = |it: &Option<String>| it.clone().unwrap_or_default();
            format!(
                "{}.{}.svc.{DOMAIN}.",
                text(&meta.name),
                text(&meta.namespace)
            )
        };
        let mut own = services.items.iter().filter(|it| {
            let spec = it.spec.as_ref();
            spec.and_then(|it| it.cluster_ip.as_deref()) == Some(address)
        });
        if let Some(service) = own.next() {
            return Ok(vec![name(&service.metadata)]);
        }
        let mut names = vec![];
        for service in services.items {
            let spec = service.spec.as_ref();
            if spec.and_then(|it| it.cluster_ip.as_deref()) != Some("None") {
                continue;
            }
            let text = |it: &Option<String>| it.clone().unwrap_or_default();
            let (namespace, of) = (
                text(&service.metadata.namespace),
                text(&service.metadata.name),
            );
            for slice in self.slices(&namespace, &of).await? {
                let behind = slice.endpoints.iter().flatten().filter(ready);
                let here = behind.filter(|it| it.addresses.iter().any(|it| it == address));
                names.extend(
                    here.map(|it| format!("{}.{}", host(it, address), name(&service.metadata))),
                );
            }
        }
        Ok(names)
    }
}

/// The addresses behind a Service: all, or those of the pod of this name.
fn addresses(slices: &[EndpointSlice], pod: Option<&&str>) -> Vec<String> {
    let endpoints = slices.iter().flat_map(|it| it.endpoints.iter().flatten());
    let mut all: Vec<String> = endpoints
        .filter(ready)
        .filter_map(|it| Some((it, it.addresses.first()?)))
        .filter(|(it, address)| pod.is_none_or(|pod| host(it, address) == **pod))
        .map(|(_, address)| address.clone())
        .collect();
    all.sort();
    all.dedup();
    all
}

fn srv(port: i32, target: &str) -> String {
    format!("0 100 {port} {target}.")
}

/// Where a Service's own port is.
fn served(spec: &ServiceSpec, own: &str, port: &str, protocol: &str) -> Vec<String> {
    let ports = spec.ports.iter().flatten();
    ports
        .filter(|it| it.name.as_deref() == Some(port))
        .filter(|it| {
            let given = it.protocol.as_deref().unwrap_or("TCP");
            given.eq_ignore_ascii_case(protocol)
        })
        .map(|it| srv(it.port, own))
        .collect()
}

/// Where the pods behind a Service serve a port.
fn served_by(slices: &[EndpointSlice], own: &str, port: &str, protocol: &str) -> Vec<String> {
    let mut all = vec![];
    for slice in slices {
        let ports = slice.ports.iter().flatten();
        let numbers: Vec<i32> = ports
            .filter(|it| it.name.as_deref() == Some(port))
            .filter(|it| {
                let given = it.protocol.as_deref().unwrap_or("TCP");
                given.eq_ignore_ascii_case(protocol)
            })
            .filter_map(|it| it.port)
            .collect();
        for endpoint in slice.endpoints.iter().flatten().filter(ready) {
            let Some(address) = endpoint.addresses.first() else {
                continue;
            };
            let target = format!("{}.{own}", host(endpoint, address));
            all.extend(numbers.iter().map(|it| srv(*it, &target)));
        }
    }
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_resolver_is_told_what_the_pod_says() {
        let usual = "search n.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n";
        let cases = [
            (json!({"dnsPolicy": "ClusterFirst"}), usual),
            (
                json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true}),
                "nameserver 10.96.0.10\n",
            ),
            (
                json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}),
                usual,
            ),
            (
                json!({"dnsPolicy": "None", "dnsConfig": {
                    "nameservers": ["1.1.1.1"], "searches": ["my.local"],
                    "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}),
                "search my.local\nnameserver 1.1.1.1\noptions ndots:2 edns0\n",
            ),
            (
                json!({"dnsPolicy": "ClusterFirst", "dnsConfig": {
                    "searches": ["my.local"], "options": [{"name": "ndots", "value": "2"}]}}),
                "search n.svc.cluster.local svc.cluster.local cluster.local my.local\nnameserver 10.96.0.10\noptions ndots:2\n",
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(resolver(&json!({"spec": spec}), "n"), expected, "{spec}");
        }
    }

    #[test]
    fn reversed_addresses_are_turned() {
        assert_eq!(forward("10.0.96.10.in-addr.arpa").unwrap(), "10.96.0.10");
        for wrong in ["10.in-addr.arpa", "a.0.96.10.in-addr.arpa", "10.96.0.10"] {
            assert_eq!(forward(wrong), None, "{wrong}");
        }
    }
}
