//! A proposal in words.

use gantry_hub::adopt::obstacles::Obstacle;

use super::Proposal;
use crate::output::{Tone, paint};

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// One workload: what it becomes, what is written, what is in the way.
pub fn said(proposal: &Proposal, color: bool) -> String {
    let mut lines = Vec::new();
    let total: usize = proposal.instances.values().sum();
    let group = proposal.group.metadata.name.as_deref().unwrap_or_default();
    if proposal.possible() {
        let cells: Vec<String> = proposal
            .instances
            .iter()
            .map(|(c, n)| format!("{c} {n}"))
            .collect();
        lines.push(format!(
            "{} {} {} app {} and group {group}: {} ({}), 0 restarted",
            paint("✓", Tone::Good, color),
            proposal.object,
            if proposal.again {
                "goes back to"
            } else {
                "becomes"
            },
            proposal.group.spec.app,
            count(total, "instance"),
            cells.join(", "),
        ));
        let sets = match proposal.replica_sets {
            0 => String::new(),
            n => format!(
                "; the Deployment and its {} are deleted, the instances are not",
                count(n, "ReplicaSet")
            ),
        };
        lines.push(format!(
            "    {} on the member{sets}",
            count(proposal.writes, "write")
        ));
        for service in &proposal.services {
            let endpoints = count(service.endpoints, "endpoint");
            lines.push(if service.taken {
                format!("    Service/{}: kept by the group from now on; {endpoints} before and after", service.name)
            } else {
                format!("    Service/{}: left alone, it selects others' pods too; {endpoints} before and after", service.name)
            });
        }
        if proposal.services.iter().all(|s| !s.taken) && !proposal.app.spec.ports.is_empty() {
            lines.push(format!("    Service/{group}: made new"));
        }
    } else {
        lines.push(format!(
            "{} {} is not adopted",
            paint("✗", Tone::Bad, color),
            proposal.object
        ));
    }
    let mut told = |title: &str, fatal: bool| {
        let some: Vec<&Obstacle> = proposal
            .obstacles
            .iter()
            .filter(|o| o.fatal == fatal)
            .collect();
        if !some.is_empty() {
            lines.push(format!("  {title}:"));
        }
        for obstacle in some {
            lines.push(format!(
                "    {}: {} → {}",
                obstacle.field, obstacle.why, obstacle.remedy
            ));
        }
    };
    told("in the way", true);
    if proposal.possible() {
        told("to know", false);
        if !proposal.left.is_empty() {
            lines.push("  not carried over:".to_owned());
            lines.extend(proposal.left.iter().map(|left| format!("    {left}")));
        }
    }
    lines.join("\n") + "\n"
}

/// All of them in one line.
pub fn summary(proposals: &[Proposal], dry_run: bool) -> String {
    let possible: Vec<&Proposal> = proposals.iter().filter(|p| p.possible()).collect();
    let instances: usize = possible.iter().flat_map(|p| p.instances.values()).sum();
    let writes: usize = possible.iter().map(|p| p.writes).sum();
    format!(
        "{} of {} can be adopted: {}, {}, 0 restarts{}",
        possible.len(),
        count(proposals.len(), "workload"),
        count(instances, "instance"),
        count(writes, "write"),
        if dry_run {
            "; nothing has been changed"
        } else {
            ""
        }
    )
}
