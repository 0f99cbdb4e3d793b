//! Rollback by an annotation, as `extensions/v1beta1` asked for it. That API is gone; the annotation
//! still counts.

use super::plan::{
    Action, Event, NOT_HANDED_ON, Plan, ROLLBACK_TO, Step, TEMPLATE_HASH, same_template,
};
use crate::model::Labels;
use crate::model::workload::{Deployment, DeploymentStatus};

const NOT_FOUND: &str = "DeploymentRollbackRevisionNotFound";

/// The revision that a Deployment is to be rolled back to.
pub(super) fn asked_for(deployment: &Deployment) -> Option<i64> {
    deployment
        .metadata
        .annotations
        .get(ROLLBACK_TO)?
        .parse()
        .ok()
}

enum Found {
    Done(Action, Event),
    Nothing(Event),
}

impl Step<'_> {
    /// Gives the Deployment the template of a revision; the rollout is another step's.
    pub(super) fn roll_back(self, to: i64, status: DeploymentStatus) -> Plan {
        let found = self.look_up(to);
        let mut plan = self.plan(status);
        match found {
            Found::Done(action, event) => {
                plan.actions.push(action);
                plan.events.push(event);
            }
            Found::Nothing(warning) => {
                plan.actions.push(Action::RollBack(None));
                plan.warning = Some(warning);
            }
        }
        plan
    }

    fn look_up(&self, to: i64) -> Found {
        let deployment = self.world.deployment;
        let name = &deployment.metadata.name;
        let to = if to == 0 { self.last_but_one() } else { to };
        if to == 0 {
            return Found::Nothing((NOT_FOUND, "Unable to find last revision.".into()));
        }
        let Some(back) = self.all().find(|s| s.revision() == to) else {
            let message = "Unable to find the revision to rollback to.";
            return Found::Nothing((NOT_FOUND, message.into()));
        };
        let other = back
            .set
            .as_ref()
            .filter(|set| !same_template(&set.spec.template, &deployment.spec.template));
        let Some(set) = other else {
            let message = format!(
                "The rollback revision contains the same template as current deployment \"{name}\""
            );
            return Found::Nothing(("DeploymentRollbackTemplateUnchanged", message));
        };
        let mut template = (*set.spec.template).clone();
        if let Some(labels) = template
            .pointer_mut("/metadata/labels")
            .and_then(|l| l.as_object_mut())
        {
            labels.remove(TEMPLATE_HASH);
        }
        let own = |key: &&str| NOT_HANDED_ON.contains(key);
        let kept = deployment.metadata.annotations.iter();
        let annotations: Labels = kept
            .filter(|(k, _)| own(k) && *k != ROLLBACK_TO)
            .chain(set.metadata.annotations.iter().filter(|(k, _)| !own(k)))
            .collect();
        Found::Done(
            Action::RollBack(Some((template, annotations))),
            (
                "DeploymentRollback",
                format!("Rolled back deployment \"{name}\" to revision {to}"),
            ),
        )
    }

    fn last_but_one(&self) -> i64 {
        let mut revisions: Vec<i64> = self.all().map(|s| s.revision()).collect();
        revisions.sort_unstable();
        revisions.into_iter().rev().nth(1).unwrap_or(0)
    }
}
