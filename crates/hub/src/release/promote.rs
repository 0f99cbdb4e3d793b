//! Promotion: whether what a Group runs may go on to the next environment, and what that changes.
//!
//! An App lists its environments in order. A release with `spec.promote` brings what a Group in the
//! environment right before its own runs: the same images with the same digests. It is refused where
//! that Group is not settled on what it is to give (a release under way, one that was aborted, failed or
//! taken back), and where environments would be left out; unless someone overrides that by name and with
//! a reason, which the status records. What was let through is frozen in `status.promoted`: whatever
//! becomes of the other Group afterwards, this release brings what was looked at.

use gantry_api::{
    App, Group, Release, ReleaseStatus, RevisionChange, RevisionSpec,
    promotion::{Environment, Part, Promote, Promoted},
    release::{Override, Phase},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::World;

/// The Group that a promotion comes from, as far as it matters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Origin {
    /// Its App.
    pub app: String,
    /// Its environment.
    pub environment: String,
    /// The revision it is on: number and what was asked for.
    pub current: Option<(i64, RevisionSpec)>,
    /// Why it cannot be said to have succeeded with that; `None` where it can.
    pub unsettled: Option<Unsettled>,
}

/// Why a Group has not succeeded with the revision it is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsettled {
    /// In one line.
    pub why: String,
    /// Whether it is back on a revision that had succeeded before: then that one, named by number, may
    /// be promoted.
    pub back: bool,
}

/// How `group` stands, by its releases. `spec` is that of its current revision.
pub fn origin(group: &Group, releases: &[&Release], spec: Option<RevisionSpec>) -> Origin {
    let current = group.status.as_ref().and_then(|s| s.current.as_ref());
    Origin {
        app: group.spec.app.clone(),
        environment: group.spec.environment.clone(),
        current: current.map(|c| c.revision).zip(spec),
        unsettled: unsettled(releases),
    }
}

/// The last release of a Group that has touched it decides.
fn unsettled(releases: &[&Release]) -> Option<Unsettled> {
    let status = |r: &Release| r.status.clone().unwrap_or_default();
    let name = |r: &Release| r.metadata.name.clone().unwrap_or_default();
    if let Some(running) = releases.iter().find(|r| status(r).phase.is_active()) {
        return Some(Unsettled {
            why: format!(
                "release {} has not ended ({})",
                name(running),
                status(running).phase.as_str()
            ),
            back: false,
        });
    }
    let last = releases
        .iter()
        .filter(|r| status(r).started.is_some())
        .max_by_key(|r| status(r).started.map(|t| t.0))?;
    let verb = match status(last).phase {
        Phase::Aborted => "was aborted",
        Phase::Failed => "failed",
        Phase::RolledBack => "was rolled back",
        _ => return None,
    };
    Some(Unsettled {
        why: format!("release {} {verb}", name(last)),
        back: status(last).phase == Phase::RolledBack,
    })
}

/// The change that a release makes: what it says, or what it is promoted from. Writes down what was let
/// through, and what was overridden. `Err` says why it is refused.
pub(super) fn change(
    world: &World<'_>,
    app: &App,
    group: &Group,
    base: &RevisionSpec,
    status: &mut ReleaseStatus,
    now: Timestamp,
) -> Result<RevisionChange, String> {
    let spec = &world.release.spec;
    let Some(promote) = &spec.promote else {
        if let Some(refusal) = only_promoted(app, group, &spec.revision, base) {
            if spec.emergency.is_none() {
                return Err(refusal);
            }
            super::line::record(world.release, status, [refusal], now);
        }
        return Ok(spec.revision.clone());
    };
    if let Some(promoted) = &status.promoted {
        return Ok(promoted.change.clone());
    }
    let (promoted, overridden) = look(world, app, group, promote)?;
    if let Some(over) = &promote.overriding {
        for what in overridden {
            status.overrides.push(Override {
                what,
                by: over.by.clone(),
                reason: over.reason.clone(),
                at: Time(now),
            });
        }
    }
    let change = promoted.change.clone();
    status.promoted = Some(promoted);
    Ok(change)
}

/// New images in an environment that takes them by promotion alone.
fn only_promoted(
    app: &App,
    group: &Group,
    change: &RevisionChange,
    base: &RevisionSpec,
) -> Option<String> {
    let environments = &app.spec.environments;
    let environment = &group.spec.environment;
    let strict = environments
        .iter()
        .any(|e| e.name == *environment && e.only_promoted);
    // A revision that the Group has had came here by the same rule.
    let next = change.apply(base);
    let brings = next.image != base.image || next.images != base.images;
    (strict && change.to.is_none() && brings).then(|| {
        format!("environment {environment} takes new images by promotion only (spec.promote)")
    })
}

/// What would be promoted, and what stands against it that is overridden.
fn look(
    world: &World<'_>,
    app: &App,
    group: &Group,
    promote: &Promote,
) -> Result<(Promoted, Vec<String>), String> {
    let from = &promote.from;
    let origin = world
        .origin
        .as_ref()
        .ok_or_else(|| format!("promote.from: group {from} does not exist"))?;
    if origin.app != group.spec.app {
        return Err(format!(
            "promote.from: group {from} is of app {}, and {} of app {}",
            origin.app, world.release.spec.group, group.spec.app
        ));
    }
    let Some((revision, spec)) = &origin.current else {
        return Err(format!("promote.from: group {from} is on no revision yet"));
    };
    if let Some(wanted) = promote.revision.filter(|n| n != revision) {
        return Err(format!(
            "promote.revision: group {from} is on revision {revision}, not on {wanted}"
        ));
    }
    let mut against: Vec<String> = Vec::new();
    against.extend(order(
        &app.spec.environments,
        &origin.environment,
        &group.spec.environment,
    )?);
    if let Some(unsettled) = &origin.unsettled
        && !(unsettled.back && promote.revision.is_some())
    {
        let hint = if unsettled.back {
            format!(
                ": it runs revision {revision} again; say promote.revision: {revision} if that is meant"
            )
        } else {
            String::new()
        };
        against.push(format!("{from}: {}{hint}", unsettled.why));
    }
    if promote.overriding.is_none() && !against.is_empty() {
        return Err(against.join("; "));
    }
    let promoted = Promoted {
        from: from.clone(),
        environment: origin.environment.clone(),
        revision: *revision,
        change: bring(spec, &promote.with),
    };
    Ok((promoted, against))
}

/// What is wrong with going from one environment to another: `Err` cannot be overridden.
fn order(environments: &[Environment], from: &str, to: &str) -> Result<Option<String>, String> {
    let names: Vec<&str> = environments.iter().map(|e| e.name.as_str()).collect();
    let listed = || names.join(" → ");
    if names.is_empty() {
        return Err("the app lists no environments (spec.environments)".to_owned());
    }
    let place = |name: &str| {
        names.iter().position(|n| *n == name).ok_or_else(|| {
            let name = if name.is_empty() { "\"\"" } else { name };
            format!("environment {name} is none of the app's: {}", listed())
        })
    };
    let (from_at, to_at) = (place(from)?, place(to)?);
    if to_at == from_at + 1 {
        return Ok(None);
    }
    let why = if to_at <= from_at {
        format!("{to} does not come after {from}")
    } else {
        format!("{to} comes after {}, not after {from}", names[to_at - 1])
    };
    Ok(Some(format!("{why}: {}", listed())))
}

/// The change that brings the images of `spec`, and the parts that are asked for.
fn bring(spec: &RevisionSpec, with: &[Part]) -> RevisionChange {
    let mut change = RevisionChange {
        image: Some(spec.image.clone()),
        images: spec.images.clone(),
        ..RevisionChange::default()
    };
    for part in with {
        match part {
            Part::Env => change.env.clone_from(&spec.env),
            Part::Config => change.config.clone_from(&spec.config),
            Part::Resources => change.resources.clone_from(&spec.resources),
            Part::Probes => change.probes.clone_from(&spec.probes),
            Part::Command => {
                change.command = Some(spec.command.clone());
                change.args = Some(spec.args.clone());
            }
        }
    }
    change
}

/// Images of a promoted change that carry no digest: what is meant by their tags may have changed.
pub(super) fn unpinned(change: &RevisionChange) -> Vec<&str> {
    change
        .image
        .iter()
        .chain(change.images.values())
        .filter(|i| !i.contains("@sha256:"))
        .map(String::as_str)
        .collect()
}

#[cfg(test)]
mod tests {
    use gantry_api::{
        promotion::PromoteOverride, release::Emergency, revision::RevisionRef,
        strategy::ResolveTags,
    };

    use super::*;
    use crate::release::tests::{Case, case};
    use crate::{action::Action, release::Step};

    fn promoted(change: impl FnOnce(&mut Case)) -> Step {
        let mut case = case(RevisionChange::default());
        case.app.spec.environments = ["dev", "test", "prod"]
            .map(|name| Environment {
                name: name.into(),
                only_promoted: name == "prod",
            })
            .to_vec();
        case.group.spec.environment = "prod".into();
        case.release.spec.promote = Some(Promote {
            from: "cart-test".into(),
            ..Promote::default()
        });
        case.origin = Some(Origin {
            app: "cart".into(),
            environment: "test".into(),
            current: Some((
                7,
                RevisionSpec {
                    image: "cart:2@sha256:aa".into(),
                    args: vec!["--test".into()],
                    ..RevisionSpec::default()
                },
            )),
            unsettled: None,
        });
        change(&mut case);
        case.plan()
    }

    fn origin_of(case: &mut Case) -> &mut Origin {
        case.origin.as_mut().unwrap()
    }

    fn promote_of(case: &mut Case) -> &mut Promote {
        case.release.spec.promote.as_mut().unwrap()
    }

    fn unsettled(back: bool) -> Option<Unsettled> {
        Some(Unsettled {
            why: "release cart-test-7 was rolled back".into(),
            back,
        })
    }

    #[test]
    fn the_same_digest_goes_through() {
        let step = promoted(|case| case.strategy.resolve_tags = Some(ResolveTags::Required));
        let [Action::CreateRevision(revision)] = &step.actions[..] else {
            panic!("{step:?}")
        };
        assert_eq!(revision.spec.image, "cart:2@sha256:aa");
        assert!(
            revision.spec.args.is_empty(),
            "each environment has its own"
        );
        assert!(step.asks.is_empty(), "nothing is resolved anew");
        let frozen = step.status.promoted.unwrap();
        assert_eq!((frozen.from.as_str(), frozen.revision), ("cart-test", 7));

        let step = promoted(|case| promote_of(case).with = vec![Part::Command]);
        let [Action::CreateRevision(revision)] = &step.actions[..] else {
            panic!("{step:?}")
        };
        assert_eq!(revision.spec.args, ["--test"]);
    }

    #[test]
    fn what_was_let_through_stays() {
        let first = promoted(|_| {}).status;
        let step = promoted(|case| {
            case.release.status = Some(first.clone());
            origin_of(case).unsettled = unsettled(false);
            origin_of(case).current = None;
        });
        assert_eq!(step.status.promoted, first.promoted);
        assert_eq!(
            step.status.phase,
            Phase::Planning,
            "{}",
            step.status.message
        );
    }

    #[test]
    fn refusals_name_what_stands_against_it() {
        type Change = fn(&mut Case);
        let cases: &[(Change, &str)] = &[
            (
                |c| c.origin = None,
                "promote.from: group cart-test does not exist",
            ),
            (|c| origin_of(c).app = "web".into(), "is of app web"),
            (|c| origin_of(c).current = None, "is on no revision yet"),
            (
                |c| promote_of(c).revision = Some(6),
                "is on revision 7, not on 6",
            ),
            (
                |c| origin_of(c).environment = "dev".into(),
                "prod comes after test, not after dev: dev → test → prod",
            ),
            (
                |c| origin_of(c).environment = "prod".into(),
                "prod does not come after prod",
            ),
            (
                |c| origin_of(c).environment = "lab".into(),
                "environment lab is none of the app's: dev → test → prod",
            ),
            (
                |c| c.app.spec.environments.clear(),
                "the app lists no environments",
            ),
            (
                |c| origin_of(c).unsettled = unsettled(false),
                "cart-test: release cart-test-7 was rolled back",
            ),
            (
                |c| origin_of(c).unsettled = unsettled(true),
                "it runs revision 7 again; say promote.revision: 7",
            ),
            (
                |c| {
                    c.release.spec.promote = None;
                    c.release.spec.revision.image = Some("cart:9".into());
                },
                "environment prod takes new images by promotion only",
            ),
            (
                |c| {
                    c.strategy.resolve_tags = Some(ResolveTags::Required);
                    origin_of(c).current = Some((
                        7,
                        RevisionSpec {
                            image: "cart:2".into(),
                            ..RevisionSpec::default()
                        },
                    ));
                },
                "cart:2 carries no digest",
            ),
        ];
        for (change, why) in cases {
            let status = promoted(change).status;
            assert_eq!(status.phase, Phase::Failed, "{why}: {}", status.message);
            assert!(status.message.contains(why), "{why}: {}", status.message);
        }
    }

    #[test]
    fn overriding_is_recorded_and_an_emergency_too() {
        let status = promoted(|case| {
            origin_of(case).environment = "dev".into();
            origin_of(case).unsettled = unsettled(false);
            promote_of(case).overriding = Some(PromoteOverride {
                reason: "hotfix".into(),
                by: "erin".into(),
            });
        })
        .status;
        assert_eq!(status.phase, Phase::Planning, "{}", status.message);
        let recorded: Vec<(&str, &str)> = status
            .overrides
            .iter()
            .map(|o| (o.by.as_str(), o.what.as_str()))
            .collect();
        assert_eq!(
            recorded,
            [
                (
                    "erin",
                    "prod comes after test, not after dev: dev → test → prod"
                ),
                ("erin", "cart-test: release cart-test-7 was rolled back"),
            ]
        );
        let status = promoted(|case| {
            case.release.spec.promote = None;
            case.release.spec.revision.image = Some("cart:9".into());
            case.release.spec.emergency = Some(Emergency {
                reason: "fire".into(),
                by: "erin".into(),
                gates: Vec::new(),
            });
        })
        .status;
        assert_eq!(status.phase, Phase::Planning, "{}", status.message);
        assert_eq!(status.overrides.len(), 1);
        // Going back to what the Group has had is no news.
        let status = promoted(|case| {
            case.release.spec.promote = None;
            case.release.spec.revision.env = vec![k8s_openapi::api::core::v1::EnvVar {
                name: "A".into(),
                ..Default::default()
            }];
        })
        .status;
        assert_eq!(status.phase, Phase::Planning, "{}", status.message);
    }

    #[test]
    fn a_group_back_on_what_succeeded_gives_that_by_number() {
        let status = promoted(|case| {
            origin_of(case).unsettled = unsettled(true);
            promote_of(case).revision = Some(7);
        })
        .status;
        assert_eq!(status.phase, Phase::Planning, "{}", status.message);
    }

    #[test]
    fn the_last_release_that_touched_a_group_decides() {
        let release = |name: &str, phase: Phase, started: Option<i64>| {
            let mut release = Release::new(name, gantry_api::ReleaseSpec::default());
            release.status = Some(ReleaseStatus {
                phase,
                started: started.map(|s| Time(Timestamp::from_second(s).unwrap())),
                ..ReleaseStatus::default()
            });
            release
        };
        let mut group = Group::new("cart-test", gantry_api::GroupSpec::default());
        group.status.get_or_insert_default().current = Some(RevisionRef {
            revision: 3,
            ..RevisionRef::default()
        });
        for (releases, why) in [
            (vec![], None),
            (vec![release("a", Phase::Succeeded, Some(1))], None),
            (
                vec![
                    release("a", Phase::Succeeded, Some(1)),
                    release("b", Phase::Batch, Some(2)),
                ],
                Some("release b has not ended (Batch)"),
            ),
            (
                vec![
                    release("a", Phase::Aborted, Some(1)),
                    release("b", Phase::Succeeded, Some(2)),
                    release("c", Phase::Failed, None),
                    release("d", Phase::Pending, None),
                ],
                None,
            ),
            (
                vec![
                    release("a", Phase::Succeeded, Some(1)),
                    release("b", Phase::Aborted, Some(2)),
                ],
                Some("release b was aborted"),
            ),
        ] {
            let list: Vec<&Release> = releases.iter().collect();
            let origin = origin(&group, &list, Some(RevisionSpec::default()));
            assert_eq!(origin.unsettled.map(|u| u.why).as_deref(), why);
            assert_eq!(origin.current.unwrap().0, 3);
        }
    }
}
