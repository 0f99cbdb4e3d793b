//! How often configuration files were read again, under Kubernetes' names.

use std::{
    sync::OnceLock,
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;

use super::text::{Text, labels};

/// Which file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    Authentication,
    Authorization,
    Encryption,
}

impl Of {
    pub const ALL: [Of; 3] = [Of::Authentication, Of::Authorization, Of::Encryption];

    pub fn name(self) -> &'static str {
        match self {
            Of::Authentication => "authentication",
            Of::Authorization => "authorization",
            Of::Encryption => "encryption",
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Series {
    /// Number and time, in seconds since 1970.
    succeeded: Option<(u64, f64)>,
    failed: Option<(u64, f64)>,
    /// Of the configuration in force.
    digest: String,
}

#[derive(Default)]
pub struct Reloads {
    /// As the label `apiserver_id_hash` has it.
    server: OnceLock<String>,
    series: [Mutex<Series>; 3],
}

impl Reloads {
    /// What the server is called in the metrics.
    pub fn name(&self, server: String) {
        let _ = self.server.set(server);
    }

    /// A configuration came into force when the server started.
    pub fn started(&self, of: Of, digest: &str) {
        digest.clone_into(&mut self.series[of as usize].lock().digest);
    }

    /// A configuration came into force.
    pub fn succeeded(&self, of: Of, digest: &str) {
        let mut series = self.series[of as usize].lock();
        series.succeeded = Some(once_more(series.succeeded));
        digest.clone_into(&mut series.digest);
    }

    /// A file that changed could not be read or used.
    pub fn failed(&self, of: Of) {
        let mut series = self.series[of as usize].lock();
        series.failed = Some(once_more(series.failed));
    }
}

fn once_more(before: Option<(u64, f64)>) -> (u64, f64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let n = before.map_or(0, |(n, _)| n);
    (n + 1, now.unwrap_or_default().as_secs_f64())
}

/// Writes the metrics of files that are watched.
pub fn write(text: &mut Text, metrics: &Reloads) {
    let server = metrics.server.get().map_or("", String::as_str);
    for of in Of::ALL {
        let series = metrics.series[of as usize].lock().clone();
        if series.digest.is_empty() {
            continue;
        }
        let base = format!("apiserver_{}_config_controller", of.name());
        let outcomes = [("failure", series.failed), ("success", series.succeeded)];
        let each = |name: &str, kind: &str, help: &str, text: &mut Text, time: bool| {
            text.about(name, kind, help);
            for (status, told) in outcomes {
                let Some((n, at)) = told else { continue };
                let with = labels(&[("apiserver_id_hash", server), ("status", status)]);
                match time {
                    true => text.put(name, &with, at),
                    false => text.put(name, &with, n),
                }
            }
        };
        each(
            &format!("{base}_automatic_reloads_total"),
            "counter",
            "[BETA] How often the configuration was read again, by outcome.",
            text,
            false,
        );
        each(
            &format!("{base}_automatic_reload_last_timestamp_seconds"),
            "gauge",
            "[BETA] When the configuration was read again last, by outcome.",
            text,
            true,
        );
        let name = format!("{base}_last_config_info");
        text.about(
            &name,
            "gauge",
            "[ALPHA] The configuration in force, by the digest of its file.",
        );
        let pairs = [("apiserver_id_hash", server), ("hash", &series.digest)];
        text.put(&name, &labels(&pairs), 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Reloads::default();
        metrics.name("sha256:1".to_owned());
        metrics.started(Of::Authorization, "sha256:2");
        metrics.succeeded(Of::Authorization, "sha256:3");
        metrics.succeeded(Of::Authorization, "sha256:4");
        let mut text = Text::default();
        write(&mut text, &metrics);
        let text = text.into_string();
        for line in [
            r#"apiserver_authorization_config_controller_automatic_reloads_total{apiserver_id_hash="sha256:1",status="success"} 2"#,
            r#"apiserver_authorization_config_controller_last_config_info{apiserver_id_hash="sha256:1",hash="sha256:4"} 1"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line}: {text}");
        }
        assert!(!text.contains("failure") && !text.contains("authentication"));
    }
}
