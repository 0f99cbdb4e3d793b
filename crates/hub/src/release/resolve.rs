//! Tags to digests: which images of a change have to be resolved before its revision is written down, and
//! what is made of the registry's answers. An image that was resolved is `name:tag@sha256:…`: it stays the
//! same wherever the tag moves to.

use gantry_api::{
    ReleaseStatus, RevisionChange,
    release::ResolvedImage,
    strategy::{ResolveTags, StrategySpec},
};

use super::{
    World,
    gate::{Answer, Ask, Question},
    promote,
};

/// What came of it.
pub(super) enum Resolved {
    /// The change with what was resolved in it.
    Change(Box<RevisionChange>),
    /// To be asked first.
    Asks(Vec<Ask>, String),
    /// It has to be resolved and cannot be.
    Fail(String),
}

/// `change`, with tags resolved as `strategy` says. Answers are written down in `status.images`. What is
/// promoted is taken as it is: asked for anew, a tag may mean something else by now.
pub(super) fn change(
    world: &World<'_>,
    strategy: &StrategySpec,
    change: &RevisionChange,
    status: &mut ReleaseStatus,
) -> Resolved {
    let rule = strategy.resolve_tags.unwrap_or_default();
    if let Some(promoted) = &status.promoted {
        let unpinned = promote::unpinned(change);
        if rule == ResolveTags::Required && !unpinned.is_empty() {
            return Resolved::Fail(format!(
                "{} carries no digest in {}, so that the same cannot be brought: release it there with its tag resolved",
                unpinned.join(", "),
                promoted.from
            ));
        }
        return Resolved::Change(Box::new(change.clone()));
    }
    if rule == ResolveTags::Never || change.to.is_some() {
        return Resolved::Change(Box::new(change.clone()));
    }
    let mut images: Vec<&String> = change.image.iter().chain(change.images.values()).collect();
    images.retain(|i| !i.contains("@sha256:"));
    images.sort();
    images.dedup();
    let mut asks = Vec::new();
    for image in images {
        if status.images.iter().any(|known| known.image == *image) {
            continue;
        }
        let release = &world.release.metadata;
        let owner = release.uid.as_ref().or(release.name.as_ref());
        let id = format!("{}/image {image}", owner.map_or("", String::as_str));
        match world.answers.get(&id) {
            Some(Answer::Digest(Ok(digest))) => status.images.push(ResolvedImage {
                image: image.clone(),
                resolved: Some(format!("{image}@{digest}")),
                message: String::new(),
            }),
            Some(Answer::Digest(Err(why))) if rule == ResolveTags::Required => {
                return Resolved::Fail(format!(
                    "image {image} has to be resolved to a digest and cannot be: {why}"
                ));
            }
            Some(Answer::Digest(Err(why))) => status.images.push(ResolvedImage {
                image: image.clone(),
                resolved: None,
                message: format!("{image} keeps its tag: {why}"),
            }),
            _ => asks.push(Ask {
                id,
                token: None,
                question: Question::Digest {
                    image: image.clone(),
                },
            }),
        }
    }
    if !asks.is_empty() {
        let message = format!("asks registries for the digests of {} images", asks.len());
        return Resolved::Asks(asks, message);
    }
    let mut resolved = change.clone();
    let pin = |image: &mut String| {
        let known = status.images.iter().find(|known| known.image == *image);
        if let Some(pinned) = known.and_then(|k| k.resolved.clone()) {
            *image = pinned;
        }
    };
    resolved.image.iter_mut().for_each(pin);
    resolved.images.values_mut().for_each(pin);
    Resolved::Change(Box::new(resolved))
}

/// What could not be resolved, for the message of a release; empty where all was.
pub(super) fn told(status: &ReleaseStatus) -> String {
    let kept = status.images.iter().filter(|i| i.resolved.is_none());
    let promoted = status.promoted.iter().flat_map(|p| {
        let tags = promote::unpinned(&p.change).into_iter();
        tags.map(|image| format!("{image} carries no digest: its tag may have moved since"))
    });
    kept.map(|i| i.message.clone())
        .chain(promoted)
        .map(|what| format!("; {what}"))
        .collect()
}
