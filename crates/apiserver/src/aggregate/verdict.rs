//! Whether an APIService is available, in kube-aggregator's reasons and words.

use serde_json::{Value, json};

use super::backend::ServiceRef;
use crate::object;

/// What is found about an APIService: its condition `Available` but for the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub status: &'static str,
    pub reason: &'static str,
    pub message: String,
}

impl Verdict {
    fn no(reason: &'static str, message: String) -> Verdict {
        Verdict {
            status: "False",
            reason,
            message,
        }
    }

    /// Of a group version of this server.
    pub fn local() -> Verdict {
        Verdict {
            status: "True",
            reason: "Local",
            message: "Local APIServices are always available".to_owned(),
        }
    }

    pub fn passed() -> Verdict {
        Verdict {
            status: "True",
            reason: "Passed",
            message: "all checks passed".to_owned(),
        }
    }

    /// Its server does not answer as it must.
    pub fn failed(message: String) -> Verdict {
        Verdict::no("FailedDiscoveryCheck", message)
    }

    pub fn is_available(&self) -> bool {
        self.status == "True"
    }

    /// The condition to be written, where it is another than the one before.
    pub fn condition(&self, before: Option<&Value>, now: &str) -> Option<Value> {
        let same = |field: &str, value: &str| {
            before.is_some_and(|b| b.get(field).and_then(Value::as_str) == Some(value))
        };
        let same_status = same("status", self.status);
        if same_status && same("reason", self.reason) && same("message", &self.message) {
            return None;
        }
        let since = match before.filter(|_| same_status) {
            Some(before) => object::text(before, "/lastTransitionTime"),
            None => now,
        };
        Some(json!({
            "type": "Available", "status": self.status, "lastTransitionTime": since,
            "reason": self.reason, "message": self.message,
        }))
    }
}

/// What the Service and its slices say against asking the server; `None`: it is to be asked.
pub fn of_service(
    wanted: &ServiceRef,
    service: Option<&Value>,
    slices: &[Value],
) -> Option<Verdict> {
    let ServiceRef {
        namespace,
        name,
        port,
    } = wanted;
    let what = format!("service/{name} in {namespace:?}");
    let Some(service) = service else {
        return Some(Verdict::no(
            "ServiceNotFound",
            format!("{what} is not present"),
        ));
    };
    if !matches!(object::text(service, "/spec/type"), "" | "ClusterIP") {
        return None;
    }
    let ports = service.pointer("/spec/ports").and_then(Value::as_array);
    let found = ports
        .into_iter()
        .flatten()
        .find(|p| p.get("port").and_then(Value::as_u64) == Some((*port).into()));
    let Some(found) = found else {
        return Some(Verdict::no(
            "ServicePortError",
            format!("{what} is not listening on port {port}"),
        ));
    };
    let port_name = object::text(found, "/name");
    if slices.is_empty() {
        return Some(Verdict::no(
            "EndpointsNotFound",
            format!("cannot find endpointslices for {what}"),
        ));
    }
    if !slices.iter().any(|s| leads_somewhere(s, port_name)) {
        return Some(Verdict::no(
            "MissingEndpoints",
            format!("endpointslices for {what} have no addresses with port name {port_name:?}"),
        ));
    }
    None
}

/// Whether a slice has a ready endpoint and the port.
fn leads_somewhere(slice: &Value, port_name: &str) -> bool {
    let list = |field: &str| {
        slice
            .get(field)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
    };
    let ready = list("endpoints")
        .any(|e| e.pointer("/conditions/ready").and_then(Value::as_bool) != Some(false));
    let port = list("ports")
        .any(|p| object::text(p, "/name") == port_name && p.get("port").is_some_and(Value::is_u64));
    ready && port
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> ServiceRef {
        ServiceRef {
            namespace: "shop".to_owned(),
            name: "api".to_owned(),
            port: 443,
        }
    }

    #[test]
    fn a_service_is_looked_at_before_its_server_is_asked() {
        let service =
            json!({"spec": {"type": "ClusterIP", "ports": [{"name": "https", "port": 443}]}});
        let other =
            json!({"spec": {"type": "ClusterIP", "ports": [{"name": "https", "port": 8443}]}});
        let external = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
        let slice = |ready: bool, port: &str| {
            json!({
                "ports": [{"name": port, "port": 6443}],
                "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}],
            })
        };
        type Case<'a> = (Option<&'a Value>, Vec<Value>, Option<(&'a str, &'a str)>);
        let cases: [Case<'_>; 8] = [
            (
                None,
                vec![],
                Some(("ServiceNotFound", "service/api in \"shop\" is not present")),
            ),
            (
                Some(&other),
                vec![],
                Some((
                    "ServicePortError",
                    "service/api in \"shop\" is not listening on port 443",
                )),
            ),
            (
                Some(&service),
                vec![],
                Some((
                    "EndpointsNotFound",
                    "cannot find endpointslices for service/api in \"shop\"",
                )),
            ),
            (
                Some(&service),
                vec![slice(false, "https")],
                Some((
                    "MissingEndpoints",
                    "endpointslices for service/api in \"shop\" have no addresses with port name \"https\"",
                )),
            ),
            (
                Some(&service),
                vec![slice(true, "http")],
                Some((
                    "MissingEndpoints",
                    "endpointslices for service/api in \"shop\" have no addresses with port name \"https\"",
                )),
            ),
            (Some(&service), vec![slice(true, "https")], None),
            (
                Some(&service),
                vec![json!({"ports": [{"name": "https", "port": 1}], "endpoints": [{}]})],
                None,
            ),
            (Some(&external), vec![], None),
        ];
        for (service, slices, expected) in cases {
            let found = of_service(&wanted(), service, &slices);
            let found = found.as_ref().map(|v| (v.reason, v.message.as_str()));
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_condition_keeps_the_time_of_its_last_transition() {
        let first = Verdict::passed()
            .condition(None, "t1")
            .expect("a first one");
        assert_eq!(first["lastTransitionTime"], "t1");
        assert_eq!(Verdict::passed().condition(Some(&first), "t2"), None);
        let failed = Verdict::failed("x".to_owned());
        let second = failed.condition(Some(&first), "t2").expect("another");
        assert_eq!(
            (&second["status"], &second["lastTransitionTime"]),
            (&"False".into(), &"t2".into())
        );
        let third = Verdict::failed("y".to_owned())
            .condition(Some(&second), "t3")
            .expect("another");
        assert_eq!(
            (&third["message"], &third["lastTransitionTime"]),
            (&"y".into(), &"t2".into())
        );
    }
}
