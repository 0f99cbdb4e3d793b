//! DenyServiceExternalIPs: nobody draws the traffic of an address to a Service by naming it.

use serde_json::Value;

/// New addresses are refused; those that were there may stay.
pub fn external(service: &Value, old: Option<&Value>) -> Result<(), &'static str> {
    let addresses = |service: &Value| -> Vec<Value> {
        let all = service.pointer("/spec/externalIPs");
        all.and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let before = old.map(addresses).unwrap_or_default();
    match addresses(service).iter().all(|a| before.contains(a)) {
        true => Ok(()),
        false => Err("Use of external IPs is denied by admission control."),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_may_go_and_stay_and_not_come() {
        let service = |all: &[&str]| json!({"spec": {"externalIPs": all}});
        for (now, before, allowed) in [
            (service(&[]), None, true),
            (json!({"spec": {}}), Some(service(&["1.1.1.1"])), true),
            (service(&["1.1.1.1"]), None, false),
            (
                service(&["1.1.1.1"]),
                Some(service(&["2.2.2.2", "1.1.1.1"])),
                true,
            ),
            (
                service(&["1.1.1.1", "3.3.3.3"]),
                Some(service(&["1.1.1.1"])),
                false,
            ),
        ] {
            assert_eq!(external(&now, before.as_ref()).is_ok(), allowed, "{now}");
        }
    }
}
