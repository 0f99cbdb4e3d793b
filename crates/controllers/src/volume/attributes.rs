//! Protection of VolumeAttributesClasses: one stays while a claim or a volume names it.
//!
//! Behaviour is that of the `volumeattributesclass-protection-controller` of Kubernetes 1.36.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::protect::set_finalizer;
use crate::model::volume::{AttributesClass, Claim, Volume, attributes_index};
use crate::model::{Key, Watched};
use crate::runtime::{ApiError, Context, Controller, Outcome, Queue, controller};

const FINALIZER: &str = "kubernetes.io/vac-protection";

struct Classes(Context);

pub fn start_attributes_protection(
    context: &Context,
    workers: usize,
) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue: Arc<Queue<Key>> = Arc::default();
    let informers = &context.informers;
    let added = queue.clone();
    informers.attributes_classes.on_change(move |_, new| {
        if let Some(class) = new {
            added.add(class.metadata.key());
        }
    });
    // Only one that nobody names any more is let go.
    let let_go = |queue: &Queue<Key>, before: Vec<&str>, now: &[&str]| {
        for name in before.into_iter().filter(|name| !now.contains(name)) {
            queue.add(Key::new("", name));
        }
    };
    let into = queue.clone();
    informers.claims.on_change(move |old, new| {
        let (old, new) = (old.map(of_claim), new.map(of_claim));
        let_go(&into, old.unwrap_or_default(), &new.unwrap_or_default());
    });
    let into = queue.clone();
    informers.volumes.on_change(move |old, new| {
        let (old, new) = (old.map(of_volume), new.map(of_volume));
        let_go(&into, old.unwrap_or_default(), &new.unwrap_or_default());
    });
    let controller = Arc::new(Classes(context.clone()));
    let stop = context.stop.clone();
    move |tasks| controller::spawn(controller, &queue, workers, tasks, &stop)
}

fn of_claim(claim: &Arc<Claim>) -> Vec<&str> {
    claim.attributes().collect()
}

fn of_volume(volume: &Arc<Volume>) -> Vec<&str> {
    let name = volume.spec.volume_attributes_class_name.as_deref();
    name.into_iter().collect()
}

/// What becomes of the finalizer; `None`: it stays as it is.
fn wanted(class: &AttributesClass, used: bool) -> Option<bool> {
    let meta = &class.metadata;
    match (meta.deleted.is_some(), meta.has_finalizer(FINALIZER)) {
        (false, false) => Some(true),
        (true, true) if !used => Some(false),
        _ => None,
    }
}

impl Controller for Classes {
    fn name(&self) -> &'static str {
        "volumeattributesclass-protection-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let informers = &self.0.informers;
        let Some(class) = informers.attributes_classes.get(key) else {
            return Ok(Outcome::Done);
        };
        let index = attributes_index(&key.name);
        let used = informers.claims.count_indexed(&index) + informers.volumes.count_indexed(&index);
        if let Some(wanted) = wanted(&class, used > 0) {
            let kind = &AttributesClass::KIND;
            set_finalizer(&self.0, kind, &class.metadata, FINALIZER, wanted).await?;
        }
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case::new(false, false, false, Some(true))]
    #[case::held(false, true, false, None)]
    #[case::leaves_in_use(true, true, true, None)]
    #[case::leaves(true, true, false, Some(false))]
    #[case::leaves_for_somebody_else(true, false, false, None)]
    fn finalizers(
        #[case] leaving: bool,
        #[case] held: bool,
        #[case] used: bool,
        #[case] expected: Option<bool>,
    ) {
        let finalizers = if held { vec![FINALIZER] } else { vec![] };
        let deleted = leaving.then_some("2026-01-01T00:00:00Z");
        let class: AttributesClass = serde_json::from_value(
            json!({"metadata": {"finalizers": finalizers, "deletionTimestamp": deleted}}),
        )
        .unwrap();
        assert_eq!(wanted(&class, used), expected);
    }
}
