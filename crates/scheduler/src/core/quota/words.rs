//! Quotas in words: what is wrong with them, what is used, and why there is no place.

use super::{Quotas, Verdict, of};
use crate::core::explain::Resource;
use crate::core::symbols::{Symbol, Symbols};
use std::collections::BTreeMap;

impl Quotas {
    /// What is wrong with how quotas stand to each other, by name; in words.
    #[must_use]
    pub fn problems(&self, symbols: &Symbols) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut children: BTreeMap<(u32, Symbol), i64> = BTreeMap::new();
        for quota in &self.all {
            let mut tell = |why: String| {
                let name = format!(
                    "{}/{}",
                    symbols.text(quota.namespace),
                    symbols.text(quota.name)
                );
                problems.push((name, why));
            };
            for (resource, min) in &quota.min {
                if of(&quota.max, *resource).is_some_and(|max| max < *min) {
                    let name = symbols.text(*resource);
                    tell(format!("spec.max[{name}] is below spec.min[{name}]"));
                }
                if let Some(parent) = quota.parent {
                    *children.entry((parent, *resource)).or_default() += min;
                }
            }
            if let (Some(parent), None) = (quota.parent_name, quota.parent) {
                tell(format!("its parent {} is not there", symbols.text(parent)));
            }
        }
        for ((parent, resource), sum) in children {
            let quota = &self.all[parent as usize];
            if of(&quota.min, resource).unwrap_or(0) < sum {
                let name = format!(
                    "{}/{}",
                    symbols.text(quota.namespace),
                    symbols.text(quota.name)
                );
                let resource = symbols.text(resource);
                let why = format!("guarantees less {resource} than the quotas below it together");
                problems.push((name, why));
            }
        }
        problems
    }

    /// Namespace, name, and what is used, of every quota.
    pub fn usage<'a>(
        &'a self,
        symbols: &'a Symbols,
    ) -> impl Iterator<Item = (&'a str, &'a str, BTreeMap<&'a str, i64>)> {
        self.all.iter().map(move |quota| {
            let used = quota.used.iter();
            let used = used.map(|(resource, amount)| (symbols.text(*resource), *amount));
            let (namespace, name) = (symbols.text(quota.namespace), symbols.text(quota.name));
            (namespace, name, used.collect())
        })
    }

    /// What to do about a verdict, if there is so much too little of what is asked for.
    #[must_use]
    pub fn advice(&self, verdict: Verdict, missing: i64, wanted: i64, symbols: &Symbols) -> String {
        let (at, resource, bound) = match verdict {
            Verdict::Over(at, resource) => (at, resource, "max"),
            Verdict::NothingToBorrow(at, resource) => (at, resource, "min"),
            Verdict::Guaranteed | Verdict::Borrows => return String::new(),
        };
        let (quota, name) = (&self.all[at as usize], symbols.text(resource));
        let used = of(&quota.used, resource).unwrap_or(0);
        let quota = symbols.text(quota.name);
        let figure = |amount: i64| amount_text(name, amount);
        let mut ways = Vec::new();
        if missing < wanted {
            ways.push(format!("request {} less {name}", figure(missing)));
        }
        if used >= missing {
            ways.push(format!("free {} {name} in quota {quota}", figure(missing)));
        }
        let raised = figure(used + wanted);
        ways.push(format!(
            "raise {bound} of {name} of quota {quota} to {raised}"
        ));
        ways.join(", or ")
    }

    /// The figures behind a verdict, in words.
    #[must_use]
    pub fn word(&self, verdict: Verdict, symbols: &Symbols) -> String {
        let figure = |resource: Symbol, amount: i64| amount_text(symbols.text(resource), amount);
        match verdict {
            Verdict::Guaranteed => "is guaranteed".to_owned(),
            Verdict::Borrows => "borrows".to_owned(),
            Verdict::Over(at, resource) => {
                let quota = &self.all[at as usize];
                let used = of(&quota.used, resource).unwrap_or(0);
                let max = of(&quota.max, resource).unwrap_or(0);
                format!(
                    "pod would exceed quota {}: {} of at most {} {} are used",
                    symbols.text(quota.name),
                    figure(resource, used),
                    figure(resource, max),
                    symbols.text(resource)
                )
            }
            Verdict::NothingToBorrow(at, resource) => {
                let quota = &self.all[at as usize];
                let (used, all) = self.of_tree(at, resource);
                format!(
                    "pod would exceed what quota {} guarantees, and there is nothing to borrow: {} of {} {} of all \
                     quotas are used",
                    symbols.text(quota.name),
                    figure(resource, used),
                    figure(resource, all),
                    symbols.text(resource)
                )
            }
        }
    }
}

/// An amount as it is written in quotas.
#[must_use]
pub fn amount_text(resource: &str, amount: i64) -> String {
    match resource {
        "cpu" => Resource::Cpu.amount(amount),
        "memory" => Resource::Memory.amount(amount),
        _ => amount.to_string(),
    }
}
