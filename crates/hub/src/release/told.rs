//! What of a status only tells, and what decides. Pure.
//!
//! What decides is written down before anything follows from it, whatever it costs. What only tells (counts, times,
//! how far an instance is) may wait for a moment as long as nothing is done: what comes meanwhile goes into the same
//! write. A hub that dies in that moment looks at the instances again, and their clocks start so much later.

use std::{borrow::Cow, sync::Arc};

use gantry_api::{
    Release, ReleaseStatus,
    release::{Doing, Phase},
};
use jiff::{SignedDuration, Timestamp};

/// For so long what only tells may wait.
pub const PACE: SignedDuration = SignedDuration::from_secs(1);

/// What a release's status would tell and is not written down yet; in memory, and may be lost.
#[derive(Clone, Debug, Default)]
pub struct Told {
    written: Option<Timestamp>,
    kept: Option<Arc<Kept>>,
}

#[derive(Debug)]
struct Kept {
    uid: Option<String>,
    base: Option<ReleaseStatus>,
    status: ReleaseStatus,
}

impl Told {
    /// The release, with what its status would tell.
    pub fn release<'a>(&self, release: &'a Release) -> Cow<'a, Release> {
        let kept = self.kept.as_ref();
        match kept.filter(|k| k.uid == release.metadata.uid && k.base == release.status) {
            Some(kept) => Cow::Owned(Release {
                status: Some(kept.status.clone()),
                ..release.clone()
            }),
            None => Cow::Borrowed(release),
        }
    }

    /// Until when writing `status` down may wait, as long as nothing is done; `pace` after the last time.
    pub fn waits(
        &self,
        release: &Release,
        status: &ReleaseStatus,
        pace: SignedDuration,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let before = release.status.as_ref()?;
        // A clock that was set back makes nothing wait for long.
        let due = self.written.filter(|at| *at <= now)? + pace;
        (now < due && before != status && only_told(before, status)).then_some(due)
    }

    /// `status` is not written down for now.
    pub fn keep(&mut self, release: &Release, status: ReleaseStatus) {
        self.kept = Some(Arc::new(Kept {
            uid: release.metadata.uid.clone(),
            base: release.status.clone(),
            status,
        }));
    }

    /// The status says all that there is to tell; it was `written` just now, or needed no write.
    pub fn said(&mut self, written: Option<Timestamp>) {
        self.written = written.or(self.written);
        self.kept = None;
    }
}

/// Whether the difference only tells. Who is under way is a decision; how far, and that it is back, are not.
pub fn only_told(before: &ReleaseStatus, after: &ReleaseStatus) -> bool {
    let known = |name: &str, failed: bool| {
        let mut all = before.working.iter();
        all.any(|w| w.name == name && (!failed || w.doing == Doing::Failed))
    };
    let mut working = after.working.iter();
    working.all(|w| known(&w.name, w.doing == Doing::Failed)) && decides(before) == decides(after)
}

fn decides(status: &ReleaseStatus) -> ReleaseStatus {
    let mut status = ReleaseStatus {
        message: String::new(),
        progress: Default::default(),
        instances: Default::default(),
        working: Vec::new(),
        steps: Vec::new(),
        ..status.clone()
    };
    for batch in &mut status.batches {
        batch.updated = 0;
        batch.times = None;
    }
    status
}

/// Whether an Event tells of it: another phase, or another reason to wait or to stand still.
pub fn event(before: &ReleaseStatus, after: &ReleaseStatus) -> bool {
    if before.phase != after.phase || before.halt != after.halt {
        return true;
    }
    let waits = match after.phase {
        Phase::Pending | Phase::Queued | Phase::Paused | Phase::RollingBack => true,
        Phase::Gate => after.waiting_since.is_some(),
        _ => false,
    };
    waits && before.reason != after.reason
}

#[cfg(test)]
mod tests {
    use gantry_api::{
        ReleaseSpec,
        release::{BatchState, BatchStatus, Failure, WorkingInstance},
    };
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn status() -> ReleaseStatus {
        let at_work = |name: &str| WorkingInstance {
            name: name.into(),
            doing: Doing::Draining,
            ..WorkingInstance::default()
        };
        ReleaseStatus {
            phase: Phase::Batch,
            working: vec![at_work("a"), at_work("b")],
            batches: vec![BatchStatus::default()],
            ..ReleaseStatus::default()
        }
    }

    #[test]
    fn what_tells_and_what_decides() {
        type Change = fn(&mut ReleaseStatus);
        let cases: [(&str, bool, Change); 11] = [
            ("nothing", true, |_| {}),
            ("message", true, |s| s.message = "3 of 4".into()),
            ("counts", true, |s| s.instances.out = 1),
            ("a step further", true, |s| {
                s.working[0].doing = Doing::Updating
            }),
            ("back in service", true, |s| s.working.truncate(1)),
            ("a batch's count", true, |s| s.batches[0].updated = 3),
            ("another is chosen", false, |s| {
                s.working[1].name = "c".into()
            }),
            ("given up on", false, |s| s.working[1].doing = Doing::Failed),
            ("a failure", false, |s| {
                s.failures.push(Failure {
                    instance: "a".into(),
                    cell: "x".into(),
                    batch: 1,
                    message: String::new(),
                    at: Time(Timestamp::UNIX_EPOCH),
                    retry: 0,
                })
            }),
            ("a batch is done", false, |s| {
                s.batches[0].state = BatchState::Done
            }),
            ("another reason", false, |s| s.reason = "Interval".into()),
        ];
        for (what, tells, change) in cases {
            let mut after = status();
            change(&mut after);
            assert_eq!(only_told(&status(), &after), tells, "{what}");
        }
    }

    #[test]
    fn what_waits_is_seen_and_goes_with_the_next() {
        let at = |millis| Timestamp::from_millisecond(millis).unwrap();
        let mut release = Release::new("r", ReleaseSpec::default());
        release.status = Some(status());
        let mut further = status();
        further.working[0].doing = Doing::Updating;
        let mut told = Told::default();
        assert_eq!(
            told.waits(&release, &further, PACE, at(0)),
            None,
            "never written"
        );
        told.said(Some(at(0)));
        assert_eq!(told.waits(&release, &further, PACE, at(10)), Some(at(1000)));
        told.keep(&release, further.clone());
        assert_eq!(told.release(&release).status, Some(further.clone()));
        // A button is pressed: the status is the same.
        release.spec.paused = true;
        assert_eq!(told.release(&release).status, Some(further.clone()));
        assert_eq!(
            told.waits(&release, &further, PACE, at(1000)),
            None,
            "long enough"
        );
        assert_eq!(
            told.waits(&release, &further, PACE, at(-5)),
            None,
            "a clock set back"
        );
        // Another hub has written: what was kept is of no use.
        let mut other = status();
        other.message = "other".into();
        release.status = Some(other.clone());
        assert_eq!(told.release(&release).status, Some(other));
        told.said(Some(at(1001)));
        release.status = Some(status());
        assert_eq!(told.release(&release).status, Some(status()));
    }

    #[test]
    fn events_tell_of_phases_and_of_what_is_waited_for() {
        use Phase::*;
        for (before, after, told) in [
            ((Planning, "Recording"), (Planning, "PlanFrozen"), false),
            ((Planning, "PlanFrozen"), (Bastion, "Updating"), true),
            ((Gate, "BatchDone"), (Gate, "Interval"), false),
            ((Pending, "Missing"), (Pending, "Frozen"), true),
            ((Paused, "Button"), (Paused, "LineStopped"), true),
            (
                (RollingBack, "Requested"),
                (RollingBack, "LineStopped"),
                true,
            ),
            ((Batch, "Updating"), (Succeeded, "Done"), true),
        ] {
            let of = |(phase, reason): (Phase, &str)| ReleaseStatus {
                phase,
                reason: reason.into(),
                ..ReleaseStatus::default()
            };
            assert_eq!(event(&of(before), &of(after)), told, "{before:?} {after:?}");
        }
    }
}
