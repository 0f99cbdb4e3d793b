//! Admission: whether a node has room for a pod, counted and worded as the kubelet does.

use crate::{
    object::{Amounts, parse_quantity},
    pod::{Failure, Held, Refusal},
};
use std::collections::BTreeMap;

/// How the message of a pod begins that was not let in.
pub const REJECTED: &str = "Pod was rejected: ";

/// What a node offers and what its pods have taken.
#[derive(Clone, Debug, Default)]
pub struct Room {
    offered: Amounts,
    taken: Amounts,
    pods: i64,
}

impl Room {
    /// Takes over what the node's status offers.
    pub fn offer(&mut self, allocatable: &BTreeMap<String, String>) {
        self.offered = allocatable
            .iter()
            .filter_map(|(name, text)| Some((name.clone(), parse_quantity(name, text)?)))
            .collect();
    }

    /// Counts a pod in, whether it fits or not: one that runs already does.
    pub fn add(&mut self, requests: &Amounts) {
        self.pods += 1;
        for (name, amount) in requests {
            *self.taken.entry(name.clone()).or_default() += amount;
        }
    }

    /// Counts a pod out.
    pub fn remove(&mut self, requests: &Amounts) {
        self.pods -= 1;
        for (name, amount) in requests {
            *self.taken.entry(name.clone()).or_default() -= amount;
        }
    }

    /// Counts a pod that is there with other requests, if there is room for them.
    ///
    /// # Errors
    /// Why not, in the words of a kubelet's allocation manager.
    pub fn resize(&mut self, before: &Amounts, after: &Amounts) -> Result<(), Held> {
        let of = |amounts: &Amounts, name: &str| amounts.get(name).copied().unwrap_or(0);
        let resizable = ["memory", "cpu"];
        let beyond = resizable
            .into_iter()
            .find(|name| of(after, name) > of(&self.offered, name));
        if let Some(name) = beyond {
            let (requested, capacity) = (of(after, name), of(&self.offered, name));
            return Err(Held {
                refusal: Refusal::Infeasible,
                message: format!(
                    "Node didn't have enough capacity: {name}, requested: {requested}, capacity: {capacity}"
                )
                .into(),
            });
        }
        self.remove(before);
        if let Err(failure) = self.admit(after) {
            self.add(before);
            let message = failure.message.trim_start_matches(REJECTED).into();
            return Err(Held {
                refusal: Refusal::Deferred,
                message,
            });
        }
        Ok(())
    }

    /// Counts a pod in if it fits.
    ///
    /// # Errors
    /// The failure a kubelet reports for the first resource that is short.
    pub fn admit(&mut self, requests: &Amounts) -> Result<(), Failure> {
        let short = |name: &str, requested: i64, used: i64| {
            let capacity = self.offered.get(name).copied().unwrap_or(0);
            // What a node does not have at all is not its business: it may be served by devices.
            let elsewhere = capacity <= 0 && name.contains('/');
            (requested > 0 && requested > capacity - used && !elsewhere).then(|| Failure {
                reason: format!("OutOf{name}").into(),
                message: format!(
                    "{REJECTED}Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
                )
                .into(),
            })
        };
        let used = |name: &str| self.taken.get(name).copied().unwrap_or(0);
        let first = ["cpu", "memory", "ephemeral-storage"];
        let rest = requests
            .keys()
            .map(String::as_str)
            .filter(|name| !first.contains(name));
        let failure = short("pods", 1, self.pods).or_else(|| {
            first
                .into_iter()
                .chain(rest)
                .find_map(|name| short(name, requests.get(name).copied().unwrap_or(0), used(name)))
        });
        match failure {
            Some(failure) => Err(failure),
            None => {
                self.add(requests);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_resources_are_granted_deferred_or_never_possible() {
        let mut room = Room::default();
        let offered = [("cpu", "4"), ("memory", "8Gi"), ("pods", "1")];
        room.offer(
            &offered
                .map(|(name, text)| (name.to_owned(), text.to_owned()))
                .into(),
        );
        let ask = |cpu: i64, gibibytes: i64| {
            Amounts::from([
                ("cpu".to_owned(), cpu),
                ("memory".to_owned(), gibibytes << 30),
            ])
        };
        room.add(&ask(1000, 1));
        let mut room = Room { pods: 1, ..room };
        room.taken.insert("cpu".into(), 3000);
        let cases = [
            (ask(2000, 1), Ok(())),
            (
                ask(2100, 1),
                Err((
                    Refusal::Deferred,
                    "Node didn't have enough resource: cpu, requested: 2100, used: 2000, capacity: 4000",
                )),
            ),
            (
                ask(5000, 1),
                Err((
                    Refusal::Infeasible,
                    "Node didn't have enough capacity: cpu, requested: 5000, capacity: 4000",
                )),
            ),
            (
                ask(5000, 9),
                Err((
                    Refusal::Infeasible,
                    "Node didn't have enough capacity: memory, requested: 9663676416, capacity: 8589934592",
                )),
            ),
        ];
        for (after, wanted) in cases {
            let mut room = room.clone();
            let answer = room.resize(&ask(1000, 1), &after);
            let wanted = wanted.map_err(|(refusal, text)| Held {
                refusal,
                message: text.into(),
            });
            assert_eq!(answer, wanted, "{after:?}");
            let taken = if answer.is_ok() { 4000 } else { 3000 };
            assert_eq!((room.taken["cpu"], room.pods), (taken, 1), "{after:?}");
        }
    }

    #[test]
    fn refuses_in_the_kubelets_words() {
        let mut room = Room::default();
        let offered = [("cpu", "4"), ("memory", "8Gi"), ("pods", "3")];
        room.offer(
            &offered
                .map(|(name, text)| (name.to_owned(), text.to_owned()))
                .into(),
        );
        let ask = |cpu: i64| Amounts::from([("cpu".to_owned(), cpu)]);
        assert_eq!(room.admit(&ask(3900)), Ok(()));
        let failure = room.admit(&ask(1000)).unwrap_err();
        assert_eq!(&*failure.reason, "OutOfcpu");
        assert_eq!(
            &*failure.message,
            "Pod was rejected: Node didn't have enough resource: cpu, requested: 1000, used: 3900, capacity: 4000"
        );
        assert_eq!(room.admit(&ask(100)), Ok(()));
        assert_eq!(room.admit(&ask(0)), Ok(()));
        assert_eq!(&*room.admit(&ask(0)).unwrap_err().reason, "OutOfpods");
        room.remove(&ask(3900));
        assert_eq!(room.admit(&ask(1000)), Ok(()));
        let gpu = Amounts::from([("example.com/gpu".to_owned(), 1)]);
        room.remove(&ask(1000));
        assert_eq!(room.admit(&gpu), Ok(()), "served by devices, if at all");
        room.remove(&gpu);
        room.offered.insert("example.com/gpu".into(), 1);
        assert_eq!(room.admit(&gpu), Ok(()));
        room.remove(&ask(0));
        assert_eq!(
            &*room.admit(&gpu).unwrap_err().reason,
            "OutOfexample.com/gpu"
        );
    }
}
