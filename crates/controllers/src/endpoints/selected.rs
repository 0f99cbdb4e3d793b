//! The pods that Services select, for whoever tells of them.

use std::sync::Arc;
use std::time::Duration;

use crate::endpointslice::plan::matters;
use crate::model::network::Service;
use crate::model::{Key, Pod};
use crate::runtime::membership::Membership;
use crate::runtime::{Context, Queue};
use crate::selector::Selector;

/// The pods of each Service, as they come and go.
#[derive(Default)]
pub struct Selected(Membership);

impl Selected {
    /// Has a Service looked at again when a pod of it changes; changes that come within `batch` together.
    pub fn follow(context: &Context, queue: &Arc<Queue<Key>>, batch: Duration) -> Arc<Self> {
        let selected = Arc::new(Selected::default());
        let (queue, known) = (queue.clone(), selected.clone());
        context.informers.pods.on_change(move |old, new| {
            let same = matches!((old, new), (Some(o), Some(n)) if !matters(o, n));
            if !same {
                known
                    .0
                    .pod_changed(old, new, |service| queue.add_after(service.clone(), batch));
            }
        });
        selected
    }

    /// The pods of a Service; nothing of one that is gone, or whose endpoints are not told by its pods.
    pub fn pods(
        &self,
        context: &Context,
        key: &Key,
        service: Option<&Service>,
    ) -> Option<Vec<Arc<Pod>>> {
        let selector = service
            .filter(|s| s.spec.kind != "ExternalName")
            .and_then(|s| s.spec.selector.clone())
            .filter(|labels| !labels.is_empty());
        let Some(selector) = selector else {
            self.0.forget(key);
            return None;
        };
        let pods = &context.informers.pods;
        let selector = Selector::of_labels(selector);
        self.0
            .select(key, &selector, || pods.in_namespace(&key.namespace));
        let members = self.0.members(key);
        Some(members.iter().filter_map(|pod| pods.get(pod)).collect())
    }
}
