//! Device selectors: CEL over `device.driver`, `device.attributes` and `device.capacity`, as
//! `staging/src/k8s.io/dynamic-resource-allocation/cel` of Kubernetes has them.

use gantry_machinery::cel::device::{self, MOST_COST};
use gantry_machinery::cel::{Fault, Lazy, Program, Type, Value};
use gantry_machinery::quantity::Quantity;
use k8s_openapi::api::resource::v1 as k8s;
use std::collections::BTreeMap;

/// Reads a selector.
///
/// # Errors
/// What is wrong with it.
pub(super) fn compile(expression: &str) -> Result<Program, String> {
    let program = device::compile(expression).map_err(|e| e.to_string())?;
    match program.result() {
        Type::Bool | Type::Dyn => Ok(program),
        other => Err(format!("must evaluate to bool, not {other}")),
    }
}

/// A value of a device.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Plain {
    Bool(bool),
    Int(i64),
    Text(String),
    Version(String),
    Quantity(Quantity),
    List(Vec<Plain>),
}

impl Plain {
    fn attribute(of: &k8s::DeviceAttribute) -> Option<Self> {
        let list = |all: Vec<Self>| Some(Self::List(all));
        None.or_else(|| of.bool.map(Self::Bool))
            .or_else(|| of.int.map(Self::Int))
            .or_else(|| of.string.clone().map(Self::Text))
            .or_else(|| of.version.clone().map(Self::Version))
            .or_else(|| list(of.bools.as_ref()?.iter().copied().map(Self::Bool).collect()))
            .or_else(|| list(of.ints.as_ref()?.iter().copied().map(Self::Int).collect()))
            .or_else(|| {
                list(
                    of.strings
                        .as_ref()?
                        .iter()
                        .cloned()
                        .map(Self::Text)
                        .collect(),
                )
            })
            .or_else(|| {
                let versions = of.versions.as_ref()?.iter().cloned();
                list(versions.map(Self::Version).collect())
            })
    }

    pub(super) const fn is_list(&self) -> bool {
        matches!(self, Self::List(_))
    }

    fn value<'a>(&self) -> Value<'a> {
        match self {
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::Int(*value),
            Self::Text(text) => Value::text(text.clone()),
            Self::Version(text) => {
                Value::version(text).unwrap_or_else(|| Value::text(text.clone()))
            }
            Self::Quantity(quantity) => Value::Quantity(*quantity),
            Self::List(items) => Value::list(items.iter().map(Self::value).collect()),
        }
    }
}

/// Values by domain and name. A domain of which there is nothing is empty, not missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Domains(BTreeMap<String, BTreeMap<String, Plain>>);

impl Domains {
    /// Names without a domain are the driver's.
    fn put(&mut self, driver: &str, name: &str, value: Plain) {
        let (domain, name) = name.split_once('/').unwrap_or((driver, name));
        let domain = self.0.entry(domain.to_owned()).or_default();
        domain.insert(name.to_owned(), value);
    }

    /// An attribute by its full name.
    pub(super) fn find(&self, name: &str) -> Option<&Plain> {
        let (domain, name) = name.split_once('/')?;
        self.0.get(domain)?.get(name)
    }
}

impl<'a> Lazy<'a> for Domains {
    fn get(&self, name: &str) -> Option<Result<Value<'a>, Fault>> {
        let there = self.0.get(name).into_iter().flatten();
        let map = Value::map(there.map(|(name, value)| (name.clone(), value.value())));
        Some(Ok(map))
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

/// What selectors see of a device.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seen {
    driver: String,
    pub(super) attributes: Domains,
    capacity: Domains,
    shared: bool,
}

impl Seen {
    pub(super) fn of(driver: &str, device: &k8s::Device) -> Self {
        let mut seen = Self {
            driver: driver.to_owned(),
            shared: device.allow_multiple_allocations == Some(true),
            ..Self::default()
        };
        for (name, attribute) in device.attributes.iter().flatten() {
            if let Some(value) = Plain::attribute(attribute) {
                seen.attributes.put(driver, name, value);
            }
        }
        for (name, capacity) in device.capacity.iter().flatten() {
            if let Ok(value) = Quantity::parse(&capacity.value.0) {
                seen.capacity.put(driver, name, Plain::Quantity(value));
            }
        }
        seen
    }

    /// Whether a selector selects the device.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub(super) fn selected(&self, program: &Program) -> Result<bool, String> {
        let seen = Value::map([
            ("driver".to_owned(), Value::text(self.driver.clone())),
            ("attributes".to_owned(), Value::Lazy(&self.attributes)),
            ("capacity".to_owned(), Value::Lazy(&self.capacity)),
            (
                "allowMultipleAllocations".to_owned(),
                Value::Bool(self.shared),
            ),
        ]);
        match program.eval(&[("device", seen)], MOST_COST).0 {
            Ok(Value::Bool(selected)) => Ok(selected),
            Ok(other) => Err(format!("must evaluate to bool, not {}", other.type_name())),
            Err(fault) => Err(fault.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case("device.driver == 'gpu.example.com'", Ok(true))]
    #[case("device.driver == 'other'", Ok(false))]
    #[case("device.attributes['gpu.example.com'].model == 'a100'", Ok(true))]
    #[case("device.attributes['gpu.example.com'].cores > 40", Ok(true))]
    #[case("device.attributes['numa.io'].node == 1", Ok(true))]
    #[case("device.attributes['gpu.example.com'].ecc", Ok(true))]
    #[case(
        "device.attributes['gpu.example.com'].version.isGreaterThan(semver('1.9.0'))",
        Ok(true)
    )]
    #[case("device.attributes['gpu.example.com'].version.major() == 2", Ok(false))]
    #[case(
        "device.capacity['gpu.example.com'].memory.compareTo(quantity('40Gi')) >= 0",
        Ok(true)
    )]
    #[case(
        "device.capacity['gpu.example.com'].memory.isGreaterThan(quantity('100Gi'))",
        Ok(false)
    )]
    #[case("has(device.attributes['elsewhere.io'].node)", Ok(false))]
    #[case("has(device.attributes['numa.io'].node)", Ok(true))]
    #[case(
        "'numa.io' in device.attributes && !('elsewhere.io' in device.attributes)",
        Ok(true)
    )]
    #[case(
        "device.attributes['elsewhere.io'].node == 1",
        Err("no such key: node")
    )]
    fn selectors_see_what_kubernetes_lets_them(
        #[case] expression: &str,
        #[case] want: Result<bool, &str>,
    ) {
        let device: k8s::Device = serde_json::from_value(json!({
            "name": "d",
            "attributes": {
                "model": {"string": "a100"}, "cores": {"int": 80}, "ecc": {"bool": true},
                "gpu.example.com/version": {"version": "1.10.2"}, "numa.io/node": {"int": 1},
            },
            "capacity": {"memory": {"value": "80Gi"}},
        }))
        .unwrap();
        let seen = Seen::of("gpu.example.com", &device);
        let program = compile(expression).unwrap();
        let got = seen.selected(&program);
        assert_eq!(got, want.map_err(str::to_owned), "{expression}");
    }

    #[rstest]
    #[case("device.name == 'x'", "undefined field")]
    #[case("'text'", "must evaluate to bool")]
    fn what_is_no_selector_is_refused(#[case] expression: &str, #[case] want: &str) {
        let got = compile(expression).expect_err("no selector");
        assert!(got.contains(want), "{got}");
    }
}
