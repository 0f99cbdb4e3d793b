//! Flags of kube-apiserver that are accepted, so that what starts one can start this, and have no
//! effect. Each that is given is told of on standard error.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

/// Why a flag has no effect.
#[derive(Debug, Clone, Copy)]
enum Why {
    Etcd,
    /// The part that it tunes works in another way here, or has nothing to tune.
    Moot,
    /// It asks for something that is not offered.
    Absent,
}

impl Why {
    fn text(self) -> &'static str {
        match self {
            Etcd => "objects are kept in a store of its own, not in etcd",
            Moot => "there is nothing here that it would tune",
            Absent => "what it asks for is not offered",
        }
    }
}

use Why::{Absent, Etcd, Moot};

const VALUES: &[(&str, Why)] = &[
    ("etcd-cafile", Etcd),
    ("etcd-certfile", Etcd),
    ("etcd-count-metric-poll-period", Etcd),
    ("etcd-db-metric-poll-interval", Etcd),
    ("etcd-healthcheck-timeout", Etcd),
    ("etcd-keyfile", Etcd),
    ("etcd-prefix", Etcd),
    ("etcd-readycheck-timeout", Etcd),
    ("etcd-servers", Etcd),
    ("etcd-servers-overrides", Etcd),
    ("lease-reuse-duration-seconds", Etcd),
    ("storage-backend", Etcd),
    ("storage-media-type", Etcd),
    ("default-watch-cache-size", Moot),
    ("watch-cache-sizes", Moot),
    ("delete-collection-workers", Moot),
    ("apiserver-count", Moot),
    ("endpoint-reconciler-type", Moot),
    ("goaway-chance", Moot),
    ("http2-max-streams-per-connection", Moot),
    ("livez-grace-period", Moot),
    ("log-flush-frequency", Moot),
    ("log-json-info-buffer-size", Moot),
    ("log-json-split-stream", Moot),
    ("log-text-info-buffer-size", Moot),
    ("log-text-split-stream", Moot),
    ("logging-format", Moot),
    ("min-request-timeout", Moot),
    ("request-timeout", Moot),
    ("shutdown-delay-duration", Moot),
    ("shutdown-watch-termination-grace-period", Moot),
    ("v", Moot),
    ("vmodule", Moot),
    ("allow-metric-labels", Moot),
    ("allow-metric-labels-manifest", Moot),
    ("disabled-metrics", Moot),
    ("show-hidden-metrics-for-version", Moot),
    ("emulated-version", Moot),
    ("min-compatibility-version", Moot),
    ("max-connection-bytes-per-sec", Moot),
    ("audit-log-batch-buffer-size", Moot),
    ("audit-log-batch-max-size", Moot),
    ("audit-log-batch-max-wait", Moot),
    ("audit-log-batch-throttle-burst", Moot),
    ("audit-log-batch-throttle-qps", Moot),
    ("audit-log-truncate-max-batch-size", Moot),
    ("audit-log-truncate-max-event-size", Moot),
    ("audit-log-version", Moot),
    ("audit-webhook-batch-buffer-size", Absent),
    ("audit-webhook-batch-max-size", Absent),
    ("audit-webhook-batch-max-wait", Absent),
    ("audit-webhook-batch-throttle-burst", Absent),
    ("audit-webhook-batch-throttle-qps", Absent),
    ("audit-webhook-config-file", Absent),
    ("audit-webhook-initial-backoff", Absent),
    ("audit-webhook-mode", Absent),
    ("audit-webhook-truncate-max-batch-size", Absent),
    ("audit-webhook-truncate-max-event-size", Absent),
    ("audit-webhook-version", Absent),
    ("kubernetes-service-node-port", Absent),
    ("kubelet-timeout", Absent),
    ("peer-advertise-ip", Absent),
    ("peer-advertise-port", Absent),
    ("peer-ca-file", Absent),
    ("tracing-config-file", Absent),
    ("debug-socket-path", Absent),
    ("external-hostname", Absent),
];

const SWITCHES: &[(&str, Why)] = &[
    ("watch-cache", Moot),
    ("enable-garbage-collector", Moot),
    ("audit-log-batch-throttle-enable", Moot),
    ("audit-log-compress", Absent),
    ("audit-log-truncate-enabled", Moot),
    ("audit-webhook-batch-throttle-enable", Absent),
    ("audit-webhook-truncate-enabled", Absent),
    ("contention-profiling", Absent),
    ("profiling", Absent),
    ("enable-aggregator-routing", Absent),
    ("enable-logs-handler", Absent),
    ("enable-priority-and-fairness", Moot),
    ("permit-address-sharing", Moot),
    ("permit-port-sharing", Moot),
    ("shutdown-send-retry-after", Moot),
    ("service-account-lookup", Moot),
    ("unsupported-kube-api-over-localhost", Absent),
    ("coordinated-leadership-lease-duration", Absent),
];

/// The flags of the tables that were given.
#[derive(Debug, Clone, Default)]
pub struct Unused(Vec<(&'static str, Why)>);

impl Unused {
    /// A line for each flag that was given in vain.
    pub fn notes(&self) -> Vec<String> {
        self.0
            .iter()
            .map(|(name, why)| format!("--{name} is not used: {}", why.text()))
            .collect()
    }
}

impl Args for Unused {
    fn augment_args(mut command: Command) -> Command {
        for (name, _) in VALUES {
            command = command.arg(
                Arg::new(*name)
                    .long(*name)
                    .hide(true)
                    .action(ArgAction::Append)
                    .allow_hyphen_values(true),
            );
        }
        for (name, _) in SWITCHES {
            command = command.arg(
                Arg::new(*name)
                    .long(*name)
                    .hide(true)
                    .action(ArgAction::Append)
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true"),
            );
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Unused {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Unused, clap::Error> {
        Ok(Unused(
            VALUES
                .iter()
                .chain(SWITCHES)
                .filter(|(name, _)| matches.contains_id(name))
                .copied()
                .collect(),
        ))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Unused::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::{Cli, Command};

    fn notes(args: &[&str]) -> Result<Vec<String>, String> {
        let all = ["gantry", "apiserver"].iter().chain(args);
        match Cli::try_parse_from(all).map_err(|e| e.to_string())?.command {
            Command::Apiserver(args) => Ok(args.unused.notes()),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn what_has_no_effect_is_said() {
        let said = notes(&[
            "--etcd-servers=http://127.0.0.1:2379",
            "--profiling=false",
            "--v=2",
        ])
        .expect("accepted");
        assert_eq!(
            said,
            [
                "--etcd-servers is not used: objects are kept in a store of its own, not in etcd",
                "--v is not used: there is nothing here that it would tune",
                "--profiling is not used: what it asks for is not offered",
            ]
        );
        assert_eq!(notes(&["--secure-port", "0"]).expect("accepted").len(), 0);
    }

    #[test]
    fn an_unknown_flag_is_refused_by_name() {
        let said = notes(&["--no-such-flag=1"]).expect_err("refused");
        assert!(said.contains("--no-such-flag"), "{said}");
        // What a server without an insecure port does not have, test set-ups must not find.
        assert!(notes(&["--insecure-port=0"]).is_err());
    }
}
