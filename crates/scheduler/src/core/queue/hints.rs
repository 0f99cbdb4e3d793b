//! What may help a line that is parked: kube-scheduler's queueing hints.

use crate::core::class::ClassId;
use crate::core::cluster::Event;
use crate::core::diagnosis::{Diagnosis, Reason};

/// What may help a parked line: kube-scheduler's queueing hints, by event.
#[derive(Clone, Copy)]
pub(super) enum Hint {
    NodeAdded,
    NodeRemoved,
    NodeLabels,
    NodeTaints,
    NodeAllocatable,
    PodPlaced,
    RoomFreed,
    NeighbourGone,
    Namespace,
    Claim,
    Device,
    Measured,
    Rules,
    Gang,
}

pub(super) const HINTS: usize = 14;

pub(super) fn bits(hints: u16) -> impl Iterator<Item = usize> {
    (0..HINTS).filter(move |hint| hints & (1 << hint) != 0)
}

/// The hints that an event gives, with the class of the pod that came or went where that matters.
pub(super) fn hints_of(event: Event) -> [Option<(Hint, Option<ClassId>)>; 2] {
    let one = |hint| [Some((hint, None)), None];
    match event {
        Event::NodeAdded => one(Hint::NodeAdded),
        Event::NodeRemoved => one(Hint::NodeRemoved),
        Event::NodeLabels => one(Hint::NodeLabels),
        Event::NodeTaints => one(Hint::NodeTaints),
        Event::NodeAllocatable => one(Hint::NodeAllocatable),
        Event::PodPlaced(pod) => [Some((Hint::PodPlaced, Some(pod))), None],
        Event::PodRemoved(pod) => [
            Some((Hint::RoomFreed, None)),
            Some((Hint::NeighbourGone, Some(pod))),
        ],
        Event::Namespace => one(Hint::Namespace),
        Event::Claim => one(Hint::Claim),
        Event::Device => one(Hint::Device),
        Event::Measured => one(Hint::Measured),
        Event::Rules => one(Hint::Rules),
        Event::Gang => one(Hint::Gang),
    }
}

/// The hints that may help a pod that was refused for these reasons.
pub(super) fn hints(diagnosis: &Diagnosis) -> u16 {
    use Hint as H;
    let mut hints = 0;
    let mut add =
        |list: &[Hint]| hints |= list.iter().fold(0, |bits, hint| bits | 1 << *hint as u16);
    let mut claims = false;
    for reason in diagnosis.reasons.keys() {
        match reason {
            Reason::NodeUnschedulable | Reason::UntoleratedTaint => add(&[H::NodeTaints]),
            Reason::NodeNotNamed => {}
            Reason::NodeAffinity
            | Reason::AddedAffinity
            | Reason::Policy(_)
            | Reason::SetApart(_) => add(&[H::NodeLabels]),
            Reason::PoolQuota(..) => add(&[H::RoomFreed, H::NodeLabels]),
            Reason::Ports
            | Reason::TooManyPods
            | Reason::InsufficientCpu
            | Reason::InsufficientMemory
            | Reason::InsufficientStorage
            | Reason::Insufficient(_) => add(&[H::NodeAllocatable, H::RoomFreed]),
            Reason::Numa(_) => add(&[H::NodeAllocatable, H::RoomFreed]),
            Reason::Hot(_) => add(&[H::Measured, H::NodeAllocatable, H::RoomFreed]),
            Reason::SpreadLabel | Reason::Undeclared(_) => add(&[H::NodeLabels]),
            Reason::Spread => {
                add(&[
                    H::NodeLabels,
                    H::NodeTaints,
                    H::NodeRemoved,
                    H::PodPlaced,
                    H::NeighbourGone,
                    H::Namespace,
                ]);
            }
            Reason::Affinity => add(&[H::NodeLabels, H::PodPlaced, H::Namespace]),
            Reason::AntiAffinity | Reason::ExistingAntiAffinity => {
                add(&[H::NodeLabels, H::NeighbourGone, H::Namespace]);
            }
            Reason::DiskInUse | Reason::ExclusiveClaim | Reason::VolumeLimit => {
                add(&[H::RoomFreed, H::Claim])
            }
            Reason::VolumeAffinity
            | Reason::NoVolumeToBind
            | Reason::NoStorage
            | Reason::VolumeZone => add(&[H::NodeLabels, H::Claim]),
            Reason::UnboundClaim
            | Reason::MissingClaim(_)
            | Reason::EphemeralClaim(_)
            | Reason::ForeignClaim(_)
            | Reason::LostClaim(..)
            | Reason::LeavingClaim(_)
            | Reason::MissingVolume(_) => {
                claims = true;
                add(&[H::Claim]);
            }
            // A node may come to have itself what devices serve.
            Reason::Devices(_) => add(&[H::NodeLabels, H::NodeAllocatable, H::Device]),
            Reason::DevicesBlocked(_) => {
                claims = true;
                add(&[H::Device]);
            }
            Reason::NoPodGroup(_) | Reason::GangIncomplete(..) => {
                claims = true;
                add(&[H::Gang]);
            }
            Reason::OverQuota(..) | Reason::NothingToBorrow(..) => {
                claims = true;
                add(&[H::RoomFreed]);
            }
        }
    }
    if !claims {
        add(&[H::NodeAdded]);
    }
    // Whatever held yesterday may hold no more.
    add(&[H::Rules]);
    hints
}
