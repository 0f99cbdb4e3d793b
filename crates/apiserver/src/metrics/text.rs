//! `/metrics` in Prometheus' text format.

use std::{
    fmt::{Display, Write},
    sync::{Arc, atomic::Ordering},
};

use super::{Histogram, Labels, process};
use crate::{
    api::Api,
    respond::{self, Reply},
};

const MEDIA: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Default)]
pub struct Text(String);

/// Escapes a label's value.
fn quoted(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// `a="x",b="y"`
pub fn labels(pairs: &[(&str, &str)]) -> String {
    let all: Vec<String> = pairs
        .iter()
        .map(|(k, v)| format!("{k}=\"{}\"", quoted(v)))
        .collect();
    all.join(",")
}

impl Text {
    pub fn about(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub fn put(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            labels => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }

    #[cfg(test)]
    pub fn into_string(self) -> String {
        self.0
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.about(name, kind, help);
        self.put(name, "", value);
    }

    pub fn histogram<const N: usize>(&mut self, name: &str, labels: &str, of: &Histogram<N>) {
        let mut count = 0;
        for (bound, n) in of.bounds.iter().zip(&of.counts) {
            count += n.load(Ordering::Relaxed);
            let with = format!("{labels},le=\"{bound}\"");
            self.put(&format!("{name}_bucket"), &with, count);
        }
        count += of.beyond.load(Ordering::Relaxed);
        self.put(
            &format!("{name}_bucket"),
            &format!("{labels},le=\"+Inf\""),
            count,
        );
        let sum = of.sum.load(Ordering::Relaxed) as f64 / of.scale;
        self.put(&format!("{name}_sum"), labels, sum);
        self.put(&format!("{name}_count"), labels, count);
    }
}

fn of_series(l: &Labels, more: &[(&str, &str)]) -> String {
    let (group, version, resource, sub, path, verb, scope, _) = l.key();
    // As kube-apiserver has it: paths of their own are shown as subresources.
    let path = match path {
        "" => sub.to_owned(),
        path => format!("/{path}"),
    };
    let mut pairs = vec![
        ("component", "apiserver"),
        ("group", group),
        ("resource", resource),
        ("scope", scope),
        ("subresource", &path),
        ("verb", verb),
        ("version", version),
    ];
    pairs.extend(more);
    pairs.sort_unstable();
    labels(&pairs)
}

/// Answers `/metrics` and `/metrics/slis`; `None` for other paths.
pub fn serve(api: &Arc<Api>, path: &str) -> Option<Reply> {
    let text = match path.trim_end_matches('/') {
        "/metrics" => all(api),
        "/metrics/slis" => health(api),
        _ => return None,
    };
    Some(respond::bytes(200, MEDIA, text))
}

fn health(api: &Api) -> String {
    let mut text = Text(String::new());
    let name = "kubernetes_healthcheck";
    text.about(
        name,
        "gauge",
        "[STABLE] Whether a health check passes (1) or fails (0).",
    );
    let stopping = api.stop.is_cancelled();
    for kind in ["healthz", "livez", "readyz"] {
        for check in crate::health::CHECKS {
            text.put(name, &labels(&[("name", check), ("type", kind)]), 1);
        }
    }
    let passes = u8::from(!stopping);
    text.put(
        name,
        &labels(&[("name", "shutdown"), ("type", "readyz")]),
        passes,
    );
    text.0
}

fn all(api: &Arc<Api>) -> String {
    let mut text = Text(String::with_capacity(64 * 1024));
    requests(&mut text, api);
    super::admission::write(&mut text, &api.metrics.admission);
    super::authorization::write(&mut text, &api.authorizer.metrics);
    super::reload::write(&mut text, &api.metrics.reloads);
    flow(&mut text, api);
    aggregation(&mut text, api);
    storage(&mut text, api);
    build(&mut text, api);
    system(&mut text);
    text.0
}

fn requests(text: &mut Text, api: &Api) {
    let metrics = &api.metrics;
    let all = metrics.sorted();
    let name = "apiserver_request_total";
    text.about(
        name,
        "counter",
        "[STABLE] Requests by verb, dry run, resource, scope and status.",
    );
    for series in &all {
        let mut codes = series.codes.lock().clone();
        codes.sort_unstable();
        for (code, n) in codes {
            let code = code.to_string();
            let more = [("code", code.as_str()), ("dry_run", series.labels.dry_run)];
            text.put(name, &of_series(&series.labels, &more), n);
        }
    }
    let name = "apiserver_request_duration_seconds";
    text.about(
        name,
        "histogram",
        "[STABLE] Seconds from a request to its answer.",
    );
    for series in &all {
        let with = of_series(&series.labels, &[("dry_run", series.labels.dry_run)]);
        text.histogram(name, &with, &series.seconds);
    }
    let name = "apiserver_response_sizes";
    text.about(name, "histogram", "[STABLE] Bytes of an answer.");
    for series in all.iter().filter(|s| s.labels.verb != "WATCH") {
        text.histogram(name, &of_series(&series.labels, &[]), &series.bytes);
    }
    let name = "apiserver_longrunning_requests";
    text.about(name, "gauge", "[STABLE] Long-running requests under way.");
    let watches = || all.iter().filter(|s| s.labels.verb == "WATCH");
    for series in watches() {
        let n = series.running.load(Ordering::Relaxed);
        text.put(name, &of_series(&series.labels, &[]), n);
    }
    let name = "apiserver_watch_events_total";
    text.about(name, "counter", "[ALPHA] Events sent to watches.");
    let mut events: Vec<(String, u64)> = vec![];
    for series in watches() {
        let (group, version, resource, ..) = series.labels.key();
        let with = labels(&[
            ("group", group),
            ("resource", resource),
            ("version", version),
        ]);
        let n = series.events.load(Ordering::Relaxed);
        match events.iter_mut().find(|(w, _)| *w == with) {
            Some((_, sum)) => *sum += n,
            None => events.push((with, n)),
        }
    }
    for (with, n) in events {
        text.put(name, &with, n);
    }
    let name = "apiserver_current_inflight_requests";
    text.about(
        name,
        "gauge",
        "[STABLE] Requests under way, long-running ones left out.",
    );
    for (kind, n) in [
        ("mutating", &metrics.writing),
        ("readOnly", &metrics.reading),
    ] {
        let n = n.load(Ordering::Relaxed);
        text.put(name, &labels(&[("request_kind", kind)]), n);
    }
    text.one(
        "apiserver_tls_handshake_errors_total",
        "counter",
        "[ALPHA] Requests dropped with a 'TLS handshake error from'.",
        metrics.tls_errors.load(Ordering::Relaxed),
    );
}

fn flow(text: &mut Text, api: &Api) {
    let tallies = api.flow.tallies();
    let name = "apiserver_flowcontrol_dispatched_requests_total";
    text.about(name, "counter", "[BETA] Requests let in.");
    for (schema, level, tally) in &tallies {
        let with = labels(&[("flow_schema", schema), ("priority_level", level)]);
        text.put(name, &with, tally.dispatched.load(Ordering::Relaxed));
    }
    let name = "apiserver_flowcontrol_rejected_requests_total";
    text.about(name, "counter", "[BETA] Requests turned away.");
    for (schema, level, tally) in &tallies {
        for (reason, n) in [
            ("queue-full", &tally.queue_full),
            ("concurrency-limit", &tally.no_seat),
            ("time-out", &tally.timed_out),
        ] {
            let n = n.load(Ordering::Relaxed);
            if n > 0 {
                let pairs = [
                    ("flow_schema", schema.as_str()),
                    ("priority_level", level),
                    ("reason", reason),
                ];
                text.put(name, &labels(&pairs), n);
            }
        }
    }
    let levels = api.flow.levels();
    let limited = || levels.iter().filter(|l| l.seats.is_some());
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&crate::flow::Level) -> usize| {
        text.about(name, "gauge", help);
        for level in limited() {
            text.put(
                name,
                &labels(&[("priority_level", &level.name)]),
                value(level),
            );
        }
    };
    gauge(
        "apiserver_flowcontrol_nominal_limit_seats",
        "[BETA] Seats that a priority level has.",
        &|l| l.bounds.nominal,
    );
    gauge(
        "apiserver_flowcontrol_lower_limit_seats",
        "[ALPHA] Seats that a priority level keeps when others borrow.",
        &|l| l.bounds.least,
    );
    gauge(
        "apiserver_flowcontrol_upper_limit_seats",
        "[ALPHA] Seats that a priority level may come to by borrowing.",
        &|l| l.bounds.most,
    );
    gauge(
        "apiserver_flowcontrol_current_limit_seats",
        "[ALPHA] Seats that a priority level has now.",
        &|l| l.seats.as_ref().map_or(0, |s| s.limit()),
    );
    gauge(
        "apiserver_flowcontrol_current_executing_seats",
        "[BETA] Seats of a priority level that are taken.",
        &|l| l.seats.as_ref().map_or(0, |s| s.taken()),
    );
    gauge(
        "apiserver_flowcontrol_current_inqueue_requests",
        "[BETA] Requests of a priority level that wait.",
        &|l| l.seats.as_ref().map_or(0, |s| s.waiting()),
    );
}

fn aggregation(text: &mut Text, api: &Api) {
    let name = "aggregator_unavailable_apiservice";
    text.about(
        name,
        "gauge",
        "[ALPHA] Whether an APIService is unavailable (1) or not (0).",
    );
    let state = api.aggregator.state();
    let mut all: Vec<_> = state.remotes().collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    for known in all {
        let value = u8::from(!known.available);
        text.put(name, &labels(&[("name", &known.name)]), value);
    }
    let name = "aggregator_unavailable_apiservice_total";
    text.about(
        name,
        "counter",
        "[ALPHA] How often an APIService became unavailable, by reason.",
    );
    for (service, reason, n) in api.aggregator.failures() {
        let with = labels(&[("name", &service), ("reason", reason)]);
        text.put(name, &with, n);
    }
}

fn storage(text: &mut Text, api: &Api) {
    let registry = api.registry.read().clone();
    let versions = registry.groups.iter().flat_map(|g| &g.versions);
    let stored: Vec<_> = versions
        .flat_map(|(_, entries)| entries)
        .filter(|e| e.native() && e.resource.allows("list"))
        .collect();
    let name = "apiserver_storage_objects";
    text.about(name, "gauge", "[STABLE] Stored objects by kind.");
    for entry in &stored {
        let resource = entry.resource.qualified();
        let n = api.store.count(&entry.bucket);
        text.put(name, &labels(&[("resource", &resource)]), n);
    }
    let name = "apiserver_resource_objects";
    text.about(name, "gauge", "[ALPHA] Stored objects by group and kind.");
    for entry in &stored {
        let r = &entry.resource;
        let n = api.store.count(&entry.bucket);
        text.put(
            name,
            &labels(&[("group", &r.group), ("resource", &r.plural)]),
            n,
        );
    }
    // There is no etcd: what the store counts has names of its own.
    let stats = api.store.stats();
    for (name, kind, help, value) in [
        (
            "gantry_store_revision",
            "gauge",
            "Newest committed revision.",
            stats.revision,
        ),
        (
            "gantry_store_writes_total",
            "counter",
            "Writes committed.",
            stats.writes,
        ),
        (
            "gantry_store_commits_total",
            "counter",
            "Batches of writes made durable together.",
            stats.commits,
        ),
        (
            "gantry_store_failures_total",
            "counter",
            "Transactions that failed.",
            stats.failures,
        ),
        (
            "gantry_store_history_events",
            "gauge",
            "Events that a watch can still be given.",
            stats.history_events as u64,
        ),
        (
            "gantry_store_history_bytes",
            "gauge",
            "Bytes that the history holds.",
            stats.history_bytes as u64,
        ),
        (
            "gantry_store_unfolded_writes",
            "gauge",
            "Writes that the journal holds and the store's file does not.",
            stats.unfolded as u64,
        ),
        (
            "gantry_store_journal_bytes",
            "gauge",
            "Bytes of the disk that the journal takes for them.",
            stats.journal_bytes,
        ),
    ] {
        text.one(name, kind, help, value);
    }
}

fn build(text: &mut Text, api: &Api) {
    let v = &api.config.version;
    let platform = format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH);
    let name = "kubernetes_build_info";
    text.about(name, "gauge", "[ALPHA] What was built, and how.");
    let with = labels(&[
        ("build_date", &v.build_date),
        ("compiler", "rustc"),
        ("git_commit", &v.git_commit),
        ("git_tree_state", "clean"),
        ("git_version", &v.git_version),
        ("go_version", ""),
        ("major", &v.major),
        ("minor", &v.minor),
        ("platform", &platform),
    ]);
    text.put(name, &with, 1);
}

fn system(text: &mut Text) {
    let Some(process) = process::read() else {
        return;
    };
    text.one(
        "process_cpu_seconds_total",
        "counter",
        "Total user and system CPU time spent in seconds.",
        process.cpu_seconds,
    );
    for (name, help, value) in [
        (
            "process_max_fds",
            "Maximum number of open file descriptors.",
            process.most_files,
        ),
        (
            "process_open_fds",
            "Number of open file descriptors.",
            process.open_files,
        ),
        (
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            process.resident_bytes,
        ),
        (
            "process_virtual_memory_bytes",
            "Virtual memory size in bytes.",
            process.virtual_bytes,
        ),
        ("process_threads", "Number of threads.", process.threads),
    ] {
        text.one(name, "gauge", help, value);
    }
    text.one(
        "process_start_time_seconds",
        "gauge",
        "Start time of the process since unix epoch in seconds.",
        process.start_seconds,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_labels_are_escaped() {
        assert_eq!(
            labels(&[("a", "x\"\\\n"), ("b", "")]),
            r#"a="x\"\\\n",b="""#
        );
    }

    #[test]
    fn buckets_of_a_histogram_add_up() {
        let histogram = Histogram::new(&super::super::SECONDS, 1e6);
        for micros in [1_000, 5_000, 5_001, 90_000_000] {
            histogram.observe(micros);
        }
        let mut text = Text(String::new());
        text.histogram("h", "a=\"b\"", &histogram);
        for line in [
            "h_bucket{a=\"b\",le=\"0.005\"} 2",
            "h_bucket{a=\"b\",le=\"0.025\"} 3",
            "h_bucket{a=\"b\",le=\"1\"} 3",
            "h_bucket{a=\"b\",le=\"60\"} 3",
            "h_bucket{a=\"b\",le=\"+Inf\"} 4",
            "h_count{a=\"b\"} 4",
            "h_sum{a=\"b\"} 90.011001",
        ] {
            assert!(text.0.lines().any(|l| l == line), "{line}: {}", text.0);
        }
    }
}
