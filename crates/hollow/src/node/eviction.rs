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
    /// Bytes that it uses.
    pub usage: f64,
    /// Bytes that it asks for.
    pub request: f64,
}

/// A container of a pod that is evicted.
#[derive(Clone, Debug, PartialEq)]
pub struct Share<'a> {
    /// Its name.
    pub name: &'a str,
    /// Bytes that it uses.
    pub usage: f64,
    /// Bytes that it asks for.
    pub request: f64,
    /// The same, as its spec has it.
    pub written: Option<&'a str>,
}

/// What is left of something on a node, and how much it wants to keep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Left {
    /// Bytes below which it evicts pods.
    pub threshold: f64,
    /// Bytes that are left.
    pub available: f64,
}

impl Left {
    /// What is left of memory: a kubelet keeps 100 Mi (`memory.available<100Mi`).
    #[must_use]
    pub fn of_memory(capacity: f64, used: f64) -> Self {
        Self {
            threshold: 104_857_600.0,
            available: (capacity - used).max(0.0),
        }
    }

    /// What is left of the disk: a kubelet keeps a tenth (`nodefs.available<10%`).
    #[must_use]
    pub fn of_disk(capacity: f64, used: f64) -> Self {
        Self {
            threshold: capacity / 10.0,
            available: (capacity - used).max(0.0),
        }
    }

    /// Whether pods have to go.
    #[must_use]
    pub fn short(&self) -> bool {
        self.available < self.threshold
    }
}

/// The one to be evicted first: those above their requests before those below, then the lower priority, then
/// the one further above. Of process ids no usage is simulated: the lower priority, then the name.
pub fn first<T>(standings: Vec<Standing<T>>, what: Pressure) -> Option<Standing<T>> {
    let above = |it: &Standing<T>| it.usage - it.request;
    let order = |a: &Standing<T>, b: &Standing<T>| {
        let memory = |order: Ordering| match what {
            Pressure::Memory | Pressure::Disk => order,
            Pressure::Pids => Ordering::Equal,
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

/// Why a pod was evicted. Of what is left nothing is said where it is not known.
#[must_use]
pub fn message(what: Pressure, left: Option<Left>, containers: &[Share<'_>]) -> String {
    let resource = resource(what);
    let mut text = format!("The node was low on resource: {resource}. ");
    if let Some(left) = left {
        text += &format!(
            "Threshold quantity: {}, available: {}. ",
            kibibytes(left.threshold),
            kibibytes(left.available)
        );
    }
    for it in containers.iter().filter(|it| it.usage > it.request) {
        text += &format!(
            "Container {} was using {}, request is {}, has larger consumption of {resource}. ",
            it.name,
            kibibytes(it.usage),
            it.written.unwrap_or("0"),
        );
    }
    text
}

/// Why a pod was evicted whose container uses more of the disk than it may.
#[must_use]
pub fn overdrawn(container: &str, limit: &str) -> String {
    format!("Container {container} exceeded its local ephemeral storage limit \"{limit}\". ")
}

/// Why a pod was evicted whose containers together use more of the disk than they may.
#[must_use]
pub fn overdrawn_in_all(limit: f64) -> String {
    format!(
        "Pod ephemeral local storage usage exceeds the total limit of containers {}. ",
        kibibytes(limit)
    )
}

/// Bytes as Kubernetes writes quantities of them.
#[expect(
    clippy::cast_possible_truncation,
    reason = "bytes of a machine, far below 2^53"
)]
fn kibibytes(bytes: f64) -> String {
    let bytes = bytes.round() as i64;
    for (unit, size) in [("Gi", 1i64 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)] {
        if bytes >= size && bytes % size == 0 {
            return format!("{}{unit}", bytes / size);
        }
    }
    match bytes {
        1024.. => format!("{}Ki", bytes / 1024),
        _ => bytes.to_string(),
    }
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
        assert_eq!(first(all, Pressure::Pids).unwrap().name, "frugal");
    }

    #[test]
    fn a_kubelet_keeps_some_of_each() {
        let cases = [
            (Left::of_memory(8e9, 7.8e9), false),
            (Left::of_memory(8e9, 7.9e9), true),
            (Left::of_memory(8e9, 9e9), true),
            (Left::of_disk(100e9, 89e9), false),
            (Left::of_disk(100e9, 91e9), true),
        ];
        for (left, short) in cases {
            assert_eq!(left.short(), short, "{left:?}");
        }
    }

    #[test]
    fn messages_are_the_kubelets() {
        let share = |usage: f64, request: f64, written| Share {
            name: "app",
            usage,
            request,
            written,
        };
        let left = Some(Left {
            threshold: 104_857_600.0,
            available: 51_200_000.0,
        });
        let gibi = 1_073_741_824.0;
        assert_eq!(
            message(
                Pressure::Memory,
                left,
                &[
                    share(3.0 * gibi + 512.0, gibi, Some("1024Mi")),
                    share(1.0, 2.0, None)
                ]
            ),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50000Ki. \
             Container app was using 3145728Ki, request is 1024Mi, has larger consumption of memory. "
        );
        assert_eq!(
            message(Pressure::Pids, None, &[]),
            "The node was low on resource: pids. "
        );
        assert_eq!(
            overdrawn_in_all(2.0 * gibi),
            "Pod ephemeral local storage usage exceeds the total limit of containers 2Gi. "
        );
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
