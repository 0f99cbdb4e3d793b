//! Leader election by a Lease: of several processes that do the same work, one does it.

mod plan;

use std::time::{Duration, Instant};

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

pub use self::plan::Timing;
use self::plan::{Seen, claim, released};
use crate::failure::{Exit, Failure, Result};

/// The flags of Kubernetes' components for it.
#[derive(Debug, Args)]
pub struct Election {
    /// Only run while holding the lease, so that several processes can be started
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1,
        default_missing_value = "true", value_name = "BOOL")]
    leader_elect: bool,
    /// Namespace of the lease
    #[arg(long, default_value = "kube-system", value_name = "NAME")]
    leader_elect_resource_namespace: String,
    /// Name of the lease; default: that of the part
    #[arg(long, value_name = "NAME")]
    leader_elect_resource_name: Option<String>,
    /// Without renewal for this long, another takes over
    #[arg(long, default_value = "15s", value_parser = duration, value_name = "DURATION")]
    leader_elect_lease_duration: Duration,
    /// Without having renewed for this long, the leader stops
    #[arg(long, default_value = "10s", value_parser = duration, value_name = "DURATION")]
    leader_elect_renew_deadline: Duration,
    /// How often the lease is looked at and renewed
    #[arg(long, default_value = "2s", value_parser = duration, value_name = "DURATION")]
    leader_elect_retry_period: Duration,
}

/// Reads `15s`, `1m30s` or `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let told = |_| format!("{text:?} is no duration: write 15s, 1m30s or 500ms");
    let span: jiff::SignedDuration = text.parse().map_err(told)?;
    Duration::try_from(span).map_err(|_| format!("{text:?} is negative"))
}

impl Election {
    /// As a file says, in place of the flags.
    pub fn configured(on: bool, namespace: String, name: String, timing: Timing) -> Self {
        Election {
            leader_elect: on,
            leader_elect_resource_namespace: namespace,
            leader_elect_resource_name: Some(name),
            leader_elect_lease_duration: timing.lease,
            leader_elect_renew_deadline: timing.renew_deadline,
            leader_elect_retry_period: timing.retry,
        }
    }

    /// The times, where they can work.
    pub fn timing(&self) -> Result<Timing> {
        let timing = Timing {
            lease: self.leader_elect_lease_duration,
            renew_deadline: self.leader_elect_renew_deadline,
            retry: self.leader_elect_retry_period,
        };
        let told = |flag: &str, than: &str| {
            Err(Failure::usage(format!(
                "--leader-elect-{flag} must be longer than --leader-elect-{than}"
            )))
        };
        match () {
            () if timing.lease <= timing.renew_deadline => told("lease-duration", "renew-deadline"),
            () if timing.renew_deadline <= timing.retry => told("renew-deadline", "retry-period"),
            () if timing.retry.is_zero() => Err(Failure::usage(
                "--leader-elect-retry-period must be longer than 0s",
            )),
            () if timing.lease < Duration::from_secs(1) => Err(Failure::usage(
                "--leader-elect-lease-duration must be at least 1s: a Lease counts whole seconds",
            )),
            () => Ok(timing),
        }
    }

    /// Runs `work` once this process leads, and as long as it does. Whoever waits is told by `say`.
    ///
    /// # Errors
    /// Those of `work`; and when the lease is lost, for then another may have begun already.
    pub async fn lead<F>(
        self,
        name: &str,
        client: Client,
        stop: CancellationToken,
        say: impl Fn(String) -> Result<()>,
        work: impl FnOnce(CancellationToken) -> F,
    ) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        if !self.leader_elect {
            return work(stop).await;
        }
        let timing = self.timing()?;
        let name = self
            .leader_elect_resource_name
            .unwrap_or_else(|| name.to_owned());
        let leases = Api::namespaced(client, &self.leader_elect_resource_namespace);
        let mut candidate = Candidate::new(leases, name, timing);
        let mut told = None;
        loop {
            match candidate.attempt().await {
                Ok(None) => break,
                Ok(Some(leader)) => {
                    if told.as_ref() != Some(&leader) {
                        say(format!("{leader} leads; waiting for its lease."))?;
                        told = Some(leader);
                    }
                }
                Err(error) => tracing::warn!(
                    lease = candidate.name,
                    error = &error as &dyn std::error::Error,
                    "cannot read or write the lease; trying again"
                ),
            }
            tokio::select! {
                () = tokio::time::sleep(timing.retry) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
        say(format!("Leading as {}.", candidate.me))?;
        let working = stop.child_token();
        let work = work(working.clone());
        tokio::pin!(work);
        let result = tokio::select! {
            result = &mut work => result,
            () = candidate.keep() => {
                // No further write may leave this process: what is under way is dropped.
                return Err(Failure::new(
                    Exit::Failure,
                    format!("the lease {} is lost: another process may lead now", candidate.name),
                )
                .hint("start it again to wait for its turn"));
            }
        };
        candidate.release().await;
        result
    }
}

struct Candidate {
    leases: Api<Lease>,
    name: String,
    me: String,
    timing: Timing,
    seen: Option<Seen>,
    held: Option<Lease>,
}

impl Candidate {
    fn new(leases: Api<Lease>, name: String, timing: Timing) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let id = std::process::id();
        let since = Timestamp::now().as_microsecond();
        Candidate {
            leases,
            name,
            me: format!("{}_{id}_{since:x}", host.trim()),
            timing,
            seen: None,
            held: None,
        }
    }

    /// Tries to get or keep the lease once: `None` where it is ours, or who has it.
    async fn attempt(&mut self) -> Result<Option<String>, kube::Error> {
        let lease = self.leases.get_opt(&self.name).await?;
        let now = Instant::now();
        if let Some(lease) = &lease {
            let spec = lease.spec.clone().unwrap_or_default();
            self.seen = Some(Seen::after(self.seen.take(), &spec, now));
        } else {
            self.seen = None;
        }
        let wall = Timestamp::now();
        let Some(spec) = claim(&self.me, self.seen.as_ref(), self.timing, now, wall) else {
            let spec = lease.and_then(|l| l.spec).unwrap_or_default();
            return Ok(Some(spec.holder_identity.unwrap_or_default()));
        };
        self.write(lease, spec).await.map(|()| None)
    }

    /// Written on what was read: who comes second gets a conflict.
    async fn write(&mut self, lease: Option<Lease>, spec: LeaseSpec) -> Result<(), kube::Error> {
        let params = PostParams::default();
        let written = match lease {
            Some(mut lease) => {
                lease.spec = Some(spec);
                self.leases.replace(&self.name, &params, &lease).await?
            }
            None => {
                let lease = Lease {
                    metadata: ObjectMeta {
                        name: Some(self.name.clone()),
                        ..ObjectMeta::default()
                    },
                    spec: Some(spec),
                };
                self.leases.create(&params, &lease).await?
            }
        };
        let spec = written.spec.clone().unwrap_or_default();
        self.seen = Some(Seen::after(self.seen.take(), &spec, Instant::now()));
        self.held = Some(written);
        Ok(())
    }

    /// Renews until that has not been possible for the renew deadline, or another leads.
    async fn keep(&mut self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.timing.retry).await;
            let left = self.timing.renew_deadline.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.attempt()).await {
                Ok(Ok(None)) => renewed = Instant::now(),
                Ok(Ok(Some(leader))) => {
                    tracing::error!(lease = self.name, leader, "another has taken the lease");
                    return;
                }
                Ok(Err(error)) => tracing::warn!(
                    lease = self.name,
                    error = &error as &dyn std::error::Error,
                    "cannot renew the lease; trying again"
                ),
                Err(_) => {}
            }
            if renewed.elapsed() >= self.timing.renew_deadline {
                return;
            }
        }
    }

    /// Leaves the lease to others at once. That it fails does no harm: they wait then.
    async fn release(&mut self) {
        let Some(lease) = self.held.take() else {
            return;
        };
        let Some(spec) = &lease.spec else { return };
        let spec = released(spec, Timestamp::now());
        let limit = self.timing.retry;
        let writing = self.write(Some(lease), spec);
        if let Ok(Err(error)) = tokio::time::timeout(limit, writing).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "lease not released"
            );
        }
    }
}
