//! Reading the devices of a class of nodes.

use super::values::{extended, name, number};
use crate::{options::Devices, yaml::Field};
use std::collections::BTreeMap;

/// Devices of one ResourceSlice at most: a node's devices of a driver stay within one.
const MOST: u32 = 128;

pub(super) fn devices(field: &Field<'_>) -> Vec<Devices> {
    let mut all: Vec<Devices> = vec![];
    for it in field.list() {
        let Some(devices) = one(&it) else { continue };
        let same =
            |other: &Devices| (&other.driver, &other.name) == (&devices.driver, &devices.name);
        if all.iter().any(same) {
            it.wrong("the driver has other devices of that name: give these a name of their own");
        }
        all.push(devices);
    }
    all
}

fn one(field: &Field<'_>) -> Option<Devices> {
    let map = field.map(&[
        "driver",
        "name",
        "count",
        "attributes",
        "capacity",
        "shared",
    ]);
    let driver = map
        .need("driver", "who offers them, such as gpu.example.com")
        .and_then(|it| it.read(name));
    let count = |text: &str| {
        number(text).and_then(|it| match it {
            1..=MOST => Ok(it),
            _ => Err(format!("{it} is not between 1 and {MOST}")),
        })
    };
    let yes = |text: &str| match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    };
    let capacity = map.get("capacity").map(|it| {
        let entries = it.entries();
        told(
            it,
            entries
                .iter()
                .filter_map(|(key, value)| Some((*key, value.read(extended)?))),
        )
    });
    let attributes = map.get("attributes").map(|it| {
        let entries = it.entries();
        told(
            it,
            entries
                .iter()
                .filter_map(|(key, value)| Some((*key, value.word()?.to_owned()))),
        )
    });
    Some(Devices {
        name: map.read("name", name).unwrap_or_else(|| "device".into()),
        count: map.read("count", count).unwrap_or(1),
        attributes: attributes.unwrap_or_default(),
        capacity: capacity.unwrap_or_default(),
        shared: map.read("shared", yes).unwrap_or(false),
        driver: driver?,
    })
}

/// Values by names that drivers may give.
fn told<'a>(
    field: &Field<'_>,
    entries: impl Iterator<Item = (&'a str, String)>,
) -> BTreeMap<String, String> {
    let word = |text: &str| {
        let mut chars = text.chars();
        let first = chars
            .next()
            .is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        first && text.len() <= 32 && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let mut all = BTreeMap::new();
    for (key, value) in entries {
        let (domain, bare) = key
            .split_once('/')
            .map_or((None, key), |(d, n)| (Some(d), n));
        if !word(bare) || domain.is_some_and(|domain| name(domain).is_err()) {
            field.wrong(format!(
                "{key:?} is no name of an attribute: want a letter, letters, digits and '_', after DOMAIN/ if it is not the driver's"
            ));
        }
        all.insert(key.to_owned(), value);
    }
    all
}
