//! The flags about what requests may do, and what they say of the server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgAction, Args};
use gantry_apiserver::{
    AbacPolicy, Authorization, Config, ConfigFile, ReviewVersion, WebhookAuthorization,
    parse_abac_policies, parse_authorization_config,
};

use super::values;
use crate::failure::{Exit, Failure, Result};

#[derive(Debug, Args)]
#[command(next_help_heading = "Authorization and admission")]
pub struct AuthorizationFlags {
    /// How requests are authorized, in this order: Node, RBAC, Webhook, ABAC, AlwaysAllow, AlwaysDeny
    /// [default: Node,RBAC]
    #[arg(long, value_name = "MODES", value_delimiter = ',', action = ArgAction::Append)]
    authorization_mode: Vec<String>,
    /// An AuthorizationConfiguration, in place of the mode: authorizers in their order, among them any
    /// number of webhooks. Read again when it changes
    #[arg(long, value_name = "FILE")]
    authorization_config: Option<PathBuf>,
    /// Policies of ABAC, a JSON object a line
    #[arg(long, value_name = "FILE")]
    authorization_policy_file: Option<PathBuf>,
    /// A kubeconfig: the server that mode Webhook asks
    #[arg(long, value_name = "FILE")]
    authorization_webhook_config_file: Option<PathBuf>,
    /// The version of the SubjectAccessReviews that it is asked by: v1 or v1beta1 [default: v1beta1]
    #[arg(long, value_name = "VERSION", value_parser = ["v1", "v1beta1"])]
    authorization_webhook_version: Option<String>,
    /// How long it is remembered what the webhook allowed; 0 never [default: 5m0s]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    authorization_webhook_cache_authorized_ttl: Option<Duration>,
    /// How long it is remembered what it did not allow; 0 never [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    authorization_webhook_cache_unauthorized_ttl: Option<Duration>,
}

fn read(flag: &str, path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| {
        Failure::new(
            Exit::Failure,
            format!("{flag}: cannot read {}: {e}", path.display()),
        )
    })
}

impl AuthorizationFlags {
    /// The authorizers, and the file of them that is to be followed.
    pub fn config(&self) -> Result<(Vec<Authorization>, Option<ConfigFile>)> {
        let policies = self.policies()?;
        if let Some(path) = &self.authorization_config {
            let flag = "--authorization-config";
            if !self.authorization_mode.is_empty() || self.webhook_flag().is_some() {
                return Err(Failure::usage(format!(
                    "{flag} cannot be given together with --authorization-mode or --authorization-webhook-*"
                )));
            }
            let text = read(flag, path)?;
            let modes = parse_authorization_config(&text, policies.as_deref())
                .map_err(|why| Failure::usage(format!("{flag}: {}: {why}", path.display())))?;
            let abac = modes.iter().any(|m| matches!(m, Authorization::Abac(_)));
            if policies.is_some() && !abac {
                return Err(Failure::usage(
                    "--authorization-policy-file is for an authorizer of type ABAC, and --authorization-config names none",
                ));
            }
            return Ok((modes, Some(ConfigFile::new(path, &text))));
        }
        let mut modes: Vec<Authorization> = vec![];
        for name in &self.authorization_mode {
            let mode = self.mode(name, policies.as_deref())?;
            if modes.iter().any(|m| m.name() == mode.name()) {
                return Err(Failure::usage(format!(
                    "--authorization-mode has mode {name} specified more than once"
                )));
            }
            modes.push(mode);
        }
        let has = |name: &str| modes.iter().any(|m| m.name() == name);
        if policies.is_some() && !has("ABAC") {
            return Err(Failure::usage(
                "--authorization-policy-file is for --authorization-mode ABAC, which is not given",
            ));
        }
        if let Some(flag) = self.webhook_flag()
            && !has("Webhook")
        {
            return Err(Failure::usage(format!(
                "{flag} is for --authorization-mode Webhook, which is not given"
            )));
        }
        if modes.is_empty() {
            return Ok((Config::default().authorization, None));
        }
        Ok((modes, None))
    }

    fn mode(&self, name: &str, policies: Option<&[AbacPolicy]>) -> Result<Authorization> {
        Ok(match name {
            "Node" => Authorization::Node,
            "RBAC" => Authorization::Rbac,
            "AlwaysAllow" => Authorization::AlwaysAllow,
            "AlwaysDeny" => Authorization::AlwaysDeny,
            "ABAC" => Authorization::Abac(
                policies
                    .ok_or_else(|| {
                        Failure::usage(
                            "--authorization-mode ABAC needs --authorization-policy-file",
                        )
                    })?
                    .into(),
            ),
            "Webhook" => {
                let file = self.authorization_webhook_config_file.clone();
                let mut hook = WebhookAuthorization::new(file.ok_or_else(|| {
                    Failure::usage(
                        "--authorization-mode Webhook needs --authorization-webhook-config-file",
                    )
                })?);
                if self.authorization_webhook_version.as_deref() == Some("v1") {
                    hook.spoken = ReviewVersion::V1;
                }
                let kept = |given: Option<Duration>, default| match given {
                    None => default,
                    Some(given) => Some(given).filter(|g| !g.is_zero()),
                };
                hook.allowed_for = kept(
                    self.authorization_webhook_cache_authorized_ttl,
                    hook.allowed_for,
                );
                hook.refused_for = kept(
                    self.authorization_webhook_cache_unauthorized_ttl,
                    hook.refused_for,
                );
                Authorization::Webhook(Box::new(hook))
            }
            other => {
                return Err(Failure::usage(format!(
                    "--authorization-mode: {other:?} is not a valid mode"
                )));
            }
        })
    }

    fn policies(&self) -> Result<Option<Vec<AbacPolicy>>> {
        let Some(path) = &self.authorization_policy_file else {
            return Ok(None);
        };
        let flag = "--authorization-policy-file";
        let policies = parse_abac_policies(&read(flag, path)?)
            .map_err(|why| Failure::usage(format!("{flag}: {}: {why}", path.display())))?;
        Ok(Some(policies))
    }

    /// A flag about a webhook that was given, if any.
    fn webhook_flag(&self) -> Option<&'static str> {
        let given = [
            (
                self.authorization_webhook_config_file.is_some(),
                "--authorization-webhook-config-file",
            ),
            (
                self.authorization_webhook_version.is_some(),
                "--authorization-webhook-version",
            ),
            (
                self.authorization_webhook_cache_authorized_ttl.is_some(),
                "--authorization-webhook-cache-authorized-ttl",
            ),
            (
                self.authorization_webhook_cache_unauthorized_ttl.is_some(),
                "--authorization-webhook-cache-unauthorized-ttl",
            ),
        ];
        given
            .iter()
            .find(|(given, _)| *given)
            .map(|(_, flag)| *flag)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn config(args: &[&str]) -> std::result::Result<Vec<Authorization>, String> {
        let all = ["gantry", "apiserver"].iter().chain(args);
        match Cli::try_parse_from(all).map_err(|e| e.to_string())?.command {
            Command::Apiserver(args) => match args.authorization.config() {
                Ok((modes, _)) => Ok(modes),
                Err(e) => Err(e.to_string()),
            },
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn modes_are_read_in_their_order() {
        let names = |args: &[&str]| {
            config(args).map(|m| m.iter().map(Authorization::name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]), Ok(vec!["Node", "RBAC"]));
        assert_eq!(
            names(&["--authorization-mode=RBAC,AlwaysAllow"]),
            Ok(vec!["RBAC", "AlwaysAllow"])
        );
        let hook = config(&[
            "--authorization-mode=Webhook",
            "--authorization-webhook-config-file=/k",
            "--authorization-webhook-cache-authorized-ttl=0",
            "--authorization-webhook-version=v1",
        ])
        .expect("read");
        let [Authorization::Webhook(hook)] = &hook[..] else {
            unreachable!("one was asked for");
        };
        assert_eq!((hook.allowed_for, hook.spoken), (None, ReviewVersion::V1));
        assert_eq!(hook.refused_for, Some(Duration::from_secs(30)));
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for (args, words) in [
            (&["--authorization-mode=RBAC,RBAC"][..], "more than once"),
            (&["--authorization-mode=Rbac"], "not a valid mode"),
            (
                &["--authorization-mode=ABAC"],
                "needs --authorization-policy-file",
            ),
            (
                &["--authorization-mode=Webhook"],
                "needs --authorization-webhook-config-file",
            ),
            (
                &["--authorization-webhook-version=v1"],
                "for --authorization-mode Webhook",
            ),
            (
                &["--authorization-policy-file=/no/such"],
                "cannot read /no/such",
            ),
            (
                &["--authorization-config=/x", "--authorization-mode=RBAC"],
                "cannot be given together",
            ),
        ] {
            let said = config(args).expect_err("refused");
            assert!(said.contains(words), "{said}");
        }
    }
}
