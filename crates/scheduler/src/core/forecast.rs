//! How many more pods of a class would fit: placed one by one as they would be, and taken back.

use super::class::ClassId;
use super::cluster::Cluster;
use super::diagnosis::Diagnosis;
use super::explain::Resource;
use std::sync::Arc;

/// What the cluster has left for a class.
#[derive(Clone, Debug)]
pub struct Forecast {
    /// So many more fit; at least, if `bounded`.
    pub more: usize,
    /// It was not tried further.
    pub bounded: bool,
    /// Why no further one fits.
    pub ends: Option<Diagnosis>,
    /// The resource of which the allowed nodes hold the fewest further pods, as things stand.
    pub binding: Option<Resource>,
}

impl Cluster {
    /// Tries how many more pods of a class fit, up to `most`. The cluster is as before afterwards.
    pub fn forecast(&mut self, class: ClassId, most: usize) -> Forecast {
        let before = self.events.len();
        let binding = self.binding_resource(class);
        let mut uids: Vec<Arc<str>> = Vec::new();
        while uids.len() < most {
            let Some(node) = self.choose(class) else {
                break;
            };
            let uid: Arc<str> = format!("forecast/{}", uids.len()).into();
            self.commit(&uid, class, node);
            self.events.truncate(before);
            uids.push(uid);
        }
        let bounded = uids.len() == most;
        let ends = (!bounded).then(|| self.diagnose(class));
        for uid in uids.iter().rev() {
            self.uncommit(uid);
        }
        self.events.truncate(before);
        Forecast {
            more: uids.len(),
            bounded,
            ends,
            binding,
        }
    }
}
