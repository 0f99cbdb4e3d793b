//! The flags about the audit log.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use gantry_apiserver::{AuditConfig, AuditLogFile, AuditPolicy};

use crate::failure::{Exit, Failure, Result};

#[derive(Debug, Args)]
#[command(next_help_heading = "Audit")]
pub struct AuditFlags {
    /// What is recorded of which request: a Policy of audit.k8s.io
    #[arg(long, value_name = "FILE")]
    audit_policy_file: Option<PathBuf>,
    /// Where events are written, a JSON line each; - is standard output
    #[arg(long, value_name = "FILE")]
    audit_log_path: Option<PathBuf>,
    /// Megabytes after which another file is begun; 0 is 100
    #[arg(long, value_name = "MB", default_value_t = 0)]
    audit_log_maxsize: u64,
    /// How many files are kept beside the current one; 0 is all
    #[arg(long, value_name = "N", default_value_t = 0)]
    audit_log_maxbackup: usize,
    /// How many days they are kept; 0 is for ever
    #[arg(long, value_name = "DAYS", default_value_t = 0)]
    audit_log_maxage: u64,
    /// The form of events; only json is offered
    #[arg(long, value_name = "FORM", default_value = "json", value_parser = ["json"])]
    audit_log_format: String,
    /// Whether requests wait for the log: they do when it is far behind, in every mode
    #[arg(long, value_name = "MODE", default_value = "blocking", value_parser = ["batch", "blocking", "blocking-strict"])]
    audit_log_mode: String,
}

impl AuditFlags {
    /// What is said to be recorded; a part that is missing is told of.
    pub fn notes(&self) -> Vec<String> {
        match (&self.audit_policy_file, &self.audit_log_path) {
            (None, Some(_)) => vec![
                "no audit policy file provided, no events will be recorded for the log".to_owned(),
            ],
            (Some(_), None) => {
                vec!["--audit-policy-file is not used: --audit-log-path is not given".to_owned()]
            }
            _ => vec![],
        }
    }

    pub fn config(&self) -> Result<Option<AuditConfig>> {
        let (Some(policy), Some(path)) = (&self.audit_policy_file, &self.audit_log_path) else {
            return Ok(None);
        };
        let text = std::fs::read_to_string(policy).map_err(|e| {
            Failure::new(
                Exit::Failure,
                format!("--audit-policy-file: cannot read {}: {e}", policy.display()),
            )
        })?;
        let policy = AuditPolicy::parse(&text).map_err(|why| {
            Failure::usage(format!("--audit-policy-file: {}: {why}", policy.display()))
        })?;
        let megabytes = match self.audit_log_maxsize {
            0 => 100,
            size => size,
        };
        Ok(Some(AuditConfig {
            policy,
            file: AuditLogFile {
                path: path.clone(),
                max_bytes: megabytes.saturating_mul(1 << 20),
                max_backups: self.audit_log_maxbackup,
                max_age: (self.audit_log_maxage > 0)
                    .then(|| Duration::from_secs(self.audit_log_maxage.saturating_mul(86_400))),
            },
        }))
    }
}
