//! Which pod a node under pressure evicts first, and in which words (`pkg/kubelet/eviction/helpers.go`).

use crate::scenario::Pressure;
use std::cmp::Ordering;

/// Pods of this priority and above are the system's own: they are not evicted.
pub const CRITICAL: i32 = 2_000_000_000;

/// A pod that may be evicted.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing<T> {
    /// Which.
    pub pod: T,
    /// Its name, where nothing else decides.
    pub name: String,
    /// Its priority.
    pub priority: i32,
    /// Bytes of memory that it uses.
    pub usage: f64,
    /// Bytes of memory that it asks for.
    pub request: f64,
}

/// The one to be evicted first. For memory: those above their requests before those below, then the lower
/// priority, then the one further above. Of disks and process ids no usage is simulated: the lower
/// priority, then the name.
pub fn first<T>(standings: Vec<Standing<T>>, what: Pressure) -> Option<Standing<T>> {
    let above = |it: &Standing<T>| it.usage - it.request;
    let order = |a: &Standing<T>, b: &Standing<T>| {
        let memory = |order: Ordering| match what {
            Pressure::Memory => order,
            Pressure::Disk | Pressure::Pids => Ordering::Equal,
        };
        memory((above(b) > 0.0).cmp(&(above(a) > 0.0)))
            .then(a.priority.cmp(&b.priority))
            .then_with(|| memory(above(b).total_cmp(&above(a))))
            .then_with(|| a.name.cmp(&b.name))
    };
    let candidates = standings.into_iter().filter(|it| it.priority < CRITICAL);
    candidates.min_by(order)
}

/// The node's word for what it is short of.
#[must_use]
pub fn resource(what: Pressure) -> &'static str {
    match what {
        Pressure::Memory => "memory",
        Pressure::Disk => "ephemeral-storage",
        Pressure::Pids => "pids",
    }
}

/// Why a pod was evicted. The threshold is a kubelet's default one, what was left of it made up.
#[must_use]
pub fn message(what: Pressure, containers: &[(&str, f64, f64)]) -> String {
    let resource = resource(what);
    let mut text = format!("The node was low on resource: {resource}. ");
    if what == Pressure::Memory {
        text += "Threshold quantity: 100Mi, available: 64Mi. ";
        for (name, usage, request) in containers
            .iter()
            .filter(|(_, usage, request)| usage > request)
        {
            text += &format!(
                "Container {name} was using {:.0}Ki, request is {}, has larger consumption of {resource}. ",
                usage / 1024.0,
                if *request > 0.0 {
                    format!("{:.0}Ki", request / 1024.0)
                } else {
                    "0".into()
                },
            );
        }
    }
    text
}

/// Whether a node under these pressures lets a pod in, by its class of service.
///
/// # Errors
/// The message of the rejection.
pub fn admits(pressures: [bool; 3], best_effort: bool, priority: i32) -> Result<(), String> {
    let [memory, disk, pids] = pressures;
    if priority >= CRITICAL || !(disk || pids || (memory && best_effort)) {
        return Ok(());
    }
    let all = [
        (memory, "MemoryPressure"),
        (disk, "DiskPressure"),
        (pids, "PIDPressure"),
    ];
    let names: Vec<&str> = all
        .iter()
        .filter(|(holds, _)| *holds)
        .map(|(_, name)| *name)
        .collect();
    Err(format!(
        "Pod was rejected: The node had condition: [{}]. ",
        names.join(" ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(name: &str, priority: i32, usage: f64, request: f64) -> Standing<()> {
        Standing {
            pod: (),
            name: name.into(),
            priority,
            usage,
            request,
        }
    }

    #[test]
    fn the_order_is_the_kubelets() {
        let all = vec![
            standing("frugal", 0, 1.0, 5.0),
            standing("greedy", 100, 9.0, 2.0),
            standing("greedier", 100, 12.0, 2.0),
            standing("important", 1000, 50.0, 2.0),
            standing("system", CRITICAL, 500.0, 2.0),
        ];
        let mut order = vec![];
        let mut left = all.clone();
        while let Some(next) = first(left.clone(), Pressure::Memory) {
            left.retain(|it| it.name != next.name);
            order.push(next.name);
        }
        assert_eq!(order, ["greedier", "greedy", "important", "frugal"]);
        assert_eq!(first(all, Pressure::Disk).unwrap().name, "frugal");
    }

    #[test]
    fn under_memory_pressure_only_best_effort_stays_out() {
        assert!(admits([true, false, false], true, 0).is_err());
        assert!(admits([true, false, false], false, 0).is_ok());
        assert!(admits([false, true, false], false, 0).is_err());
        assert!(admits([true, true, true], true, CRITICAL).is_ok());
        let told = admits([true, false, true], false, 0).unwrap_err();
        assert!(told.ends_with("[MemoryPressure PIDPressure]. "), "{told}");
    }
}
