//! What people ask of a Group's instances, as its spec holds it, and where a scaling ends that is given up: for whoever
//! takes such wishes down.

use gantry_api::{GroupStatus, group::InstanceWish};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What is asked for an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// No traffic until it is put back.
    PullOut,
    /// Traffic again.
    PutBack,
    /// A new pod of the same name.
    Restart,
}

impl Verb {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::PullOut, Self::PutBack, Self::Restart];

    /// Its name in commands and URLs.
    pub fn name(self) -> &'static str {
        match self {
            Self::PullOut => "pull-out",
            Self::PutBack => "put-back",
            Self::Restart => "restart",
        }
    }

    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|v| v.name() == name)
    }
}

/// The wishes of a spec with one verb for these instances added or taken back.
pub fn wished(
    now: &[InstanceWish],
    names: &[String],
    verb: Verb,
    (by, reason): (&str, &str),
    at: Timestamp,
) -> Vec<InstanceWish> {
    let mut all = now.to_vec();
    for name in names {
        let old = all
            .iter()
            .position(|w| w.name == *name)
            .map(|i| all.remove(i));
        let mut wish = InstanceWish {
            name: name.clone(),
            by: by.to_owned(),
            reason: reason.to_owned(),
            ..old.unwrap_or_default()
        };
        match verb {
            Verb::PullOut => wish.out_of_service = true,
            Verb::Restart => wish.restart_before = Some(Time(at)),
            // A number that was removed or moved may be used again.
            Verb::PutBack => {
                (wish.out_of_service, wish.remove) = (false, false);
                (wish.to, wish.to_node) = (None, None);
            }
        }
        // A restart that is wished for stays; an entry that wishes nothing goes.
        if wishes_something(&wish) {
            all.push(wish);
        }
    }
    all
}

/// Whether an entry wishes anything.
pub fn wishes_something(wish: &InstanceWish) -> bool {
    let goes = wish.remove || wish.to.is_some() || wish.to_node.is_some();
    goes || wish.out_of_service || wish.restart_before.is_some()
}

/// What a scaling to `wish` that is given up goes back to: going up, the instances that are in service; going
/// down, those that still exist. `None` where it has come through.
pub fn given_up(wish: i32, status: &GroupStatus) -> Option<i32> {
    if status.replicas > wish {
        Some(status.replicas)
    } else {
        Some(status.in_service).filter(|n| *n < wish)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_added_and_taken_back() {
        let mut wishes = Vec::new();
        let mut go = |verb: Verb, names: &[&str]| {
            let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
            let who = ("alice", "slow");
            wishes = wished(&wishes, &names, verb, who, Timestamp::UNIX_EPOCH);
            wishes
                .iter()
                .map(|w| {
                    let renew = w.restart_before.is_some();
                    format!("{} {} {renew}", w.name, w.out_of_service)
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(
            go(Verb::PullOut, &["a", "b"]),
            ["a true false", "b true false"]
        );
        assert_eq!(go(Verb::Restart, &["a"]), ["b true false", "a true true"]);
        assert_eq!(go(Verb::PutBack, &["b", "a"]), ["a false true"]);
        // A pod that is to go may be restarted until it does; put back, it stays.
        let going = InstanceWish {
            name: "a".to_owned(),
            to: Some("sh-b".to_owned()),
            ..InstanceWish::default()
        };
        let after = |verb| {
            let names = ["a".to_owned()];
            wished(
                std::slice::from_ref(&going),
                &names,
                verb,
                ("", ""),
                Timestamp::UNIX_EPOCH,
            )
        };
        assert_eq!(after(Verb::Restart)[0].to, going.to);
        assert_eq!(after(Verb::PutBack), []);
        assert_eq!(Verb::named("put-back"), Some(Verb::PutBack));
        assert_eq!(Verb::named("move"), None);
    }

    #[test]
    fn giving_up_goes_back_to_what_is_there() {
        for (wish, replicas, in_service, want) in [
            (9, 9, 6, Some(6)),
            (6, 8, 8, Some(8)),
            (6, 8, 5, Some(8)),
            (6, 6, 6, None),
            (9, 7, 7, Some(7)),
        ] {
            let status = GroupStatus {
                replicas,
                in_service,
                ..GroupStatus::default()
            };
            assert_eq!(
                given_up(wish, &status),
                want,
                "{wish} {replicas} {in_service}"
            );
        }
    }
}
