//! Why a gang waits: how many of its members find nodes together, and what is in the way of the next.

use super::Explanation;
use crate::core::class::ClassId;
use crate::core::cluster::Cluster;
use crate::core::gang::GangId;
use std::sync::Arc;

/// A gang that is complete, as it would be placed now.
#[derive(Clone, Debug)]
pub struct GangExplanation {
    /// Members that it needs, and that have a node or would find one.
    pub need: usize,
    pub fit: usize,
    /// The first that finds none once the others have theirs.
    pub refused: Option<Explanation>,
}

impl Cluster {
    /// Explains a gang by placing its waiting members one after another and taking them off again.
    pub fn explain_gang(&mut self, id: GangId, members: &[(Arc<str>, ClassId)]) -> GangExplanation {
        let gang = self.gang(id);
        let before = self.events.len();
        let mut explanation = GangExplanation {
            need: gang.min.unwrap_or(1),
            fit: gang.placed,
            refused: None,
        };
        let mut placed: Vec<&Arc<str>> = Vec::new();
        for (uid, class) in members {
            if let Some(node) = self.choose(*class) {
                self.commit(uid, *class, node);
                placed.push(uid);
            } else if explanation.refused.is_none() {
                explanation.refused = Some(self.explain(*class));
            }
        }
        explanation.fit += placed.len();
        for uid in placed.into_iter().rev() {
            self.uncommit(uid);
        }
        self.events.truncate(before);
        explanation
    }
}
