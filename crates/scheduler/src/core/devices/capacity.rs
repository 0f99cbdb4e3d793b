//! Parts of devices (KEP-5075): a device that allows several allocations is given away by its capacity, by the rules that
//! its driver sets for each of them. Of any other device a request may only ask how large it has to be.

use super::DeviceKey;
use gantry_machinery::quantity::{Form, Quantity};
use k8s_openapi::api::resource::v1 as k8s;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

/// Amounts by the name of the capacity.
pub(super) type Amounts = BTreeMap<String, Quantity>;

/// Reads amounts; what is no quantity counts as nothing.
pub(super) fn amounts(all: Option<&BTreeMap<String, Text>>) -> Amounts {
    let all = all.into_iter().flatten();
    all.map(|(name, text)| {
        let amount = Quantity::parse(&text.0).unwrap_or(Quantity::ZERO);
        (name.clone(), amount)
    })
    .collect()
}

/// What of a capacity may be asked for.
#[derive(Clone, Debug, PartialEq)]
enum Sizes {
    Any,
    /// One of these, rising.
    Of(Vec<Quantity>),
    Range {
        min: Quantity,
        max: Option<Quantity>,
        step: Option<Quantity>,
    },
}

/// One capacity of a device.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Capacity {
    whole: Quantity,
    default: Option<Quantity>,
    sizes: Sizes,
}

impl Capacity {
    fn compile(of: &k8s::DeviceCapacity) -> Self {
        let read = |text: &Text| Quantity::parse(&text.0).unwrap_or(Quantity::ZERO);
        let policy = of.request_policy.as_ref();
        let range = policy.and_then(|p| p.valid_range.as_ref());
        let values = policy.and_then(|p| p.valid_values.as_ref());
        let sizes = match (range, values) {
            (Some(range), _) => Sizes::Range {
                min: read(&range.min),
                max: range.max.as_ref().map(read),
                step: range.step.as_ref().map(read),
            },
            (None, Some(values)) if !values.is_empty() => {
                Sizes::Of(values.iter().map(read).collect())
            }
            _ => Sizes::Any,
        };
        Self {
            whole: read(&of.value),
            default: policy.and_then(|p| p.default.as_ref()).map(read),
            sizes,
        }
    }

    /// What is taken for a request: rounded up to what may be had; all of it, or the default, for none. `None` if what
    /// comes out may not be had.
    fn take(&self, wanted: Option<Quantity>) -> Option<Quantity> {
        let Some(wanted) = wanted else {
            return Some(self.default.unwrap_or(self.whole));
        };
        let taken = match &self.sizes {
            Sizes::Any => wanted,
            Sizes::Of(sizes) => *sizes.iter().find(|size| wanted <= **size)?,
            Sizes::Range { min, max, step } => {
                let taken = match step {
                    _ if wanted < *min => *min,
                    Some(step) if step.value() > 0 => {
                        let over = wanted.value().saturating_sub(min.value());
                        let steps = over / step.value() + i64::from(over % step.value() != 0);
                        let taken = steps.saturating_mul(step.value());
                        Quantity::from_integer(min.value().saturating_add(taken), Form::BinarySi)
                    }
                    _ => wanted,
                };
                if max.is_some_and(|max| taken > max) {
                    return None;
                }
                taken
            }
        };
        Some(taken)
    }
}

/// All capacities of a device.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Capacities(BTreeMap<String, Capacity>);

impl Capacities {
    pub fn compile(device: &k8s::Device) -> Self {
        let all = device.capacity.iter().flatten();
        Self(
            all.map(|(name, of)| (name.clone(), Capacity::compile(of)))
                .collect(),
        )
    }

    /// What a request takes of the device beside what is taken of it. `None` if it cannot have that.
    pub fn take<'a>(
        &self,
        wanted: &Amounts,
        beside: impl Iterator<Item = &'a Amounts> + Clone,
    ) -> Option<Amounts> {
        if wanted.keys().any(|name| !self.0.contains_key(name)) {
            return None;
        }
        let mut all = Amounts::new();
        for (name, capacity) in &self.0 {
            let taken = capacity.take(wanted.get(name).copied())?;
            let others = beside.clone().filter_map(|other| other.get(name));
            let sum = others.fold(taken, |sum, more| sum.saturating_add(*more));
            if sum > capacity.whole {
                return None;
            }
            all.insert(name.clone(), taken);
        }
        Some(all)
    }
}

/// A device that a claim has: all of it, or a share.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Held {
    pub key: DeviceKey,
    pub share: Option<Amounts>,
}

/// Devices that are given away.
#[derive(Default)]
pub(super) struct Taken {
    whole: FxHashMap<DeviceKey, u32>,
    /// How many have a share, and of how much.
    shares: FxHashMap<DeviceKey, (u32, Amounts)>,
}

impl Taken {
    pub fn add(&mut self, all: &[Held]) {
        for held in all {
            let Some(share) = &held.share else {
                *self.whole.entry(held.key).or_default() += 1;
                continue;
            };
            let (users, amounts) = self.shares.entry(held.key).or_default();
            *users += 1;
            for (name, amount) in share {
                let sum = amounts.entry(name.clone()).or_insert(Quantity::ZERO);
                *sum = sum.saturating_add(*amount);
            }
        }
    }

    pub fn remove(&mut self, all: &[Held]) {
        for held in all {
            let Some(share) = &held.share else {
                if let Some(count) = self.whole.get_mut(&held.key) {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        self.whole.remove(&held.key);
                    }
                }
                continue;
            };
            if let Some((users, amounts)) = self.shares.get_mut(&held.key) {
                *users = users.saturating_sub(1);
                for (name, amount) in share {
                    if let Some(sum) = amounts.get_mut(name) {
                        *sum = sum.saturating_sub(*amount);
                    }
                }
                if *users == 0 {
                    self.shares.remove(&held.key);
                }
            }
        }
    }

    /// Whether somebody has all of it.
    pub fn whole(&self, key: DeviceKey) -> bool {
        self.whole.contains_key(&key)
    }

    /// What is given away of it in shares; `None` if nothing is.
    pub fn share(&self, key: DeviceKey) -> Option<&Amounts> {
        self.shares.get(&key).map(|(_, amounts)| amounts)
    }

    /// Whether somebody has some of it, or all.
    pub fn any(&self, key: DeviceKey) -> bool {
        self.whole(key) || self.shares.contains_key(&key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn range(min: &str, max: Option<&str>, step: Option<&str>) -> Value {
        json!({"default": "2", "validRange": {"min": min, "max": max, "step": step}})
    }

    #[rstest]
    #[case::no_rule(Value::Null, Some("3"), Some("3"))]
    #[case::no_rule_no_request(Value::Null, None, Some("10"))]
    #[case::default(json!({"default": "2"}), None, Some("2"))]
    #[case::default_beside(json!({"default": "2"}), Some("5"), Some("5"))]
    #[case::rounded_up(json!({"default": "2", "validValues": ["2", "4", "8"]}), Some("3"), Some("4"))]
    #[case::exact(json!({"default": "2", "validValues": ["2", "4", "8"]}), Some("8"), Some("8"))]
    #[case::above_all(json!({"default": "2", "validValues": ["2", "4", "8"]}), Some("9"), None)]
    #[case::below_the_range(range("2", None, None), Some("1"), Some("2"))]
    #[case::in_the_range(range("2", Some("6"), None), Some("5"), Some("5"))]
    #[case::above_the_range(range("2", Some("6"), None), Some("7"), None)]
    #[case::by_steps(range("2", Some("9"), Some("3")), Some("3"), Some("5"))]
    #[case::on_a_step(range("2", Some("9"), Some("3")), Some("8"), Some("8"))]
    #[case::past_the_last_step(range("2", Some("9"), Some("3")), Some("9"), None)]
    #[case::more_than_there_is(Value::Null, Some("11"), None)]
    fn requests_are_rounded_up_to_what_may_be_had(
        #[case] policy: Value,
        #[case] wanted: Option<&str>,
        #[case] want: Option<&str>,
    ) {
        let mut device = json!({"name": "d", "capacity": {"c": {"value": "10"}}});
        if !policy.is_null() {
            device["capacity"]["c"]["requestPolicy"] = policy;
        }
        let capacities = Capacities::compile(&serde_json::from_value(device).unwrap());
        let read = |text: &str| Quantity::parse(text).unwrap();
        let wanted: Amounts = wanted
            .map(|w| ("c".to_owned(), read(w)))
            .into_iter()
            .collect();
        let taken = capacities.take(&wanted, std::iter::empty());
        let want = want.map(|w| [("c".to_owned(), read(w))].into());
        assert_eq!(taken, want);
    }

    #[test]
    fn shares_add_up_to_the_whole_and_are_given_back() {
        let device = json!({"name": "d", "capacity": {"c": {"value": "10"}, "e": {"value": "1", "requestPolicy": {"default": "0"}}}});
        let capacities = Capacities::compile(&serde_json::from_value(device).unwrap());
        let mut symbols = crate::core::symbols::Symbols::default();
        let key = ["a", "b", "d"].map(|name| symbols.intern(name));
        let key = (key[0], key[1], key[2]);
        let wanted: Amounts = [("c".to_owned(), Quantity::parse("4").unwrap())].into();
        let mut taken = Taken::default();
        let mut all = Vec::new();
        for _ in 0..2 {
            let share = capacities.take(&wanted, taken.share(key).into_iter());
            let held = Held { key, share };
            assert!(held.share.is_some());
            taken.add(std::slice::from_ref(&held));
            all.push(held);
        }
        assert!(taken.any(key) && !taken.whole(key));
        assert_eq!(capacities.take(&wanted, taken.share(key).into_iter()), None);
        taken.remove(&all[..1]);
        assert!(
            capacities
                .take(&wanted, taken.share(key).into_iter())
                .is_some()
        );
        taken.remove(&all[1..]);
        assert!(!taken.any(key));
        // What the device does not have cannot be asked of it.
        let unknown: Amounts = [("f".to_owned(), Quantity::ZERO)].into();
        assert_eq!(capacities.take(&unknown, std::iter::empty()), None);
    }
}
