//! How much of the past a cluster keeps.

use std::time::Duration;

use clap::Args;

use super::apiserver::values;

/// Bounds of what is kept of superseded versions. Whatever is reached first counts.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "History")]
pub struct History {
    /// How often superseded versions are compacted: a list or watch may begin up to two intervals
    /// ago, from before it is answered 410 Expired; 0 leaves it to the other bounds
    #[arg(long, value_name = "DURATION", default_value = "5m0s", value_parser = values::duration)]
    pub etcd_compaction_interval: Duration,
    /// The most changes kept of one resource
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub history_events: usize,
    /// The most memory that superseded versions take in a cluster, such as 64Mi
    #[arg(long, value_name = "SIZE", default_value = "128Mi", value_parser = values::bytes)]
    pub history_bytes: usize,
}

impl History {
    pub fn options(&self) -> gantry_store::Options {
        gantry_store::Options {
            history_age: match self.etcd_compaction_interval {
                Duration::ZERO => Duration::MAX,
                interval => interval.saturating_mul(2),
            },
            history_events: self.history_events,
            history_bytes: self.history_bytes,
            ..gantry_store::Options::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        history: History,
    }

    fn options(args: &[&str]) -> gantry_store::Options {
        let line = ["x"].iter().chain(args);
        Line::try_parse_from(line)
            .expect("accepted")
            .history
            .options()
    }

    #[test]
    fn the_defaults_are_the_stores_own() {
        let (given, own) = (options(&[]), gantry_store::Options::default());
        assert_eq!(given.history_age, own.history_age);
        assert_eq!(given.history_events, own.history_events);
        assert_eq!(given.history_bytes, own.history_bytes);
    }

    #[test]
    fn bounds_are_taken_from_the_flags() {
        let given = options(&[
            "--etcd-compaction-interval=90s",
            "--history-events=7",
            "--history-bytes=2Mi",
        ]);
        assert_eq!(given.history_age, Duration::from_secs(180));
        assert_eq!(given.history_events, 7);
        assert_eq!(given.history_bytes, 2 << 20);
        let given = options(&["--etcd-compaction-interval=0"]);
        assert_eq!(given.history_age, Duration::MAX);
    }
}
