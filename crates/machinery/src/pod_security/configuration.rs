//! What an administrator says of pod security for the whole cluster: what holds where a namespace says
//! nothing, and whom it does not concern.

use serde::Deserialize;
use serde_json::Value;

use super::{
    LevelVersion,
    policy::{self, Policy},
};

/// A `PodSecurityConfiguration`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Holds where the labels of a namespace say nothing.
    pub defaults: Policy,
    /// Users whose requests are not looked at.
    pub usernames: Vec<String>,
    /// Pods of these RuntimeClasses are not looked at.
    pub runtime_classes: Vec<String>,
    /// Nor is what is in these namespaces.
    pub namespaces: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    api_version: String,
    kind: String,
    #[serde(default)]
    defaults: Defaults,
    #[serde(default)]
    exemptions: Exemptions,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Defaults {
    enforce: String,
    enforce_version: String,
    audit: String,
    audit_version: String,
    warn: String,
    warn_version: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Exemptions {
    usernames: Vec<String>,
    runtime_classes: Vec<String>,
    namespaces: Vec<String>,
}

const GROUP: &str = "pod-security.admission.config.k8s.io/";

impl Configuration {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong, with its field.
    pub fn read(value: &Value) -> Result<Configuration, String> {
        let written: Written = serde_json::from_value(value.clone()).map_err(|e| e.to_string())?;
        let version = written.api_version.strip_prefix(GROUP);
        if !matches!(version, Some("v1" | "v1beta1" | "v1alpha1")) {
            return Err(format!(
                "apiVersion: {:?} is not {GROUP}v1",
                written.api_version
            ));
        }
        if written.kind != "PodSecurityConfiguration" {
            return Err(format!(
                "kind: {:?} is not PodSecurityConfiguration",
                written.kind
            ));
        }
        let Defaults {
            enforce,
            enforce_version,
            audit,
            audit_version,
            warn,
            warn_version,
        } = written.defaults;
        for (list, names) in [
            ("usernames", &written.exemptions.usernames),
            ("runtimeClasses", &written.exemptions.runtime_classes),
            ("namespaces", &written.exemptions.namespaces),
        ] {
            for (at, name) in names.iter().enumerate() {
                let field = format!("exemptions.{list}[{at}]");
                if name.is_empty() {
                    return Err(format!("{field}: must not be empty"));
                }
                if names[..at].contains(name) {
                    return Err(format!("{field}: {name:?} stands there twice"));
                }
            }
        }
        Ok(Configuration {
            defaults: Policy {
                enforce: mode("enforce", &enforce, &enforce_version)?,
                audit: mode("audit", &audit, &audit_version)?,
                warn: mode("warn", &warn, &warn_version)?,
            },
            usernames: written.exemptions.usernames,
            runtime_classes: written.exemptions.runtime_classes,
            namespaces: written.exemptions.namespaces,
        })
    }
}

fn mode(name: &str, level: &str, version: &str) -> Result<LevelVersion, String> {
    let mut of = policy::OPEN;
    if !level.is_empty() {
        of.level = policy::level(level).ok_or_else(|| {
            format!("defaults.{name}: {level:?} must be one of privileged, baseline, restricted")
        })?;
    }
    if !version.is_empty() {
        of.version = policy::version(version).ok_or_else(|| {
            format!("defaults.{name}-version: {version:?} must be \"latest\" or \"v1.x\"")
        })?;
    }
    Ok(of)
}

#[cfg(test)]
mod tests {
    use super::super::{Level, Version};
    use super::*;
    use serde_json::json;

    fn with(rest: Value) -> Result<Configuration, String> {
        let mut value = json!({
            "apiVersion": "pod-security.admission.config.k8s.io/v1",
            "kind": "PodSecurityConfiguration",
        });
        for (key, part) in rest.as_object().into_iter().flatten() {
            value[key] = part.clone();
        }
        Configuration::read(&value)
    }

    #[test]
    fn defaults_and_exemptions_are_read() {
        assert_eq!(with(json!({})), Ok(Configuration::default()));
        let read = with(json!({
            "defaults": {"enforce": "baseline", "enforce-version": "v1.30", "warn": "restricted"},
            "exemptions": {"usernames": ["ann"], "runtimeClasses": ["kata"], "namespaces": ["kube-system"]},
        }))
        .expect("read");
        assert_eq!(read.defaults.enforce.level, Level::Baseline);
        assert_eq!(read.defaults.enforce.version, Version::Minor(30));
        assert_eq!(read.defaults.warn.level, Level::Restricted);
        assert_eq!(read.defaults.audit, policy::OPEN);
        assert_eq!(read.namespaces, ["kube-system"]);
        // A namespace's labels go before, and what they leave open stays.
        let labels = json!({"pod-security.kubernetes.io/enforce": "privileged"});
        let policy = Policy::of(&json!({"metadata": {"labels": labels}}), &read.defaults);
        assert_eq!(policy.enforce.level, Level::Privileged);
        assert_eq!(policy.enforce.version, Version::Minor(30));
        assert_eq!(policy.warn.level, Level::Restricted);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (rest, said) in [
            (json!({"kind": "Pod"}), "kind: \"Pod\""),
            (json!({"apiVersion": "v1"}), "apiVersion: \"v1\""),
            (
                json!({"defaults": {"enforce": "strict"}}),
                "defaults.enforce: \"strict\"",
            ),
            (
                json!({"defaults": {"warn-version": "1.30"}}),
                "defaults.warn-version: \"1.30\"",
            ),
            (
                json!({"defaults": {"forbid": "x"}}),
                "unknown field `forbid`",
            ),
            (
                json!({"exemptions": {"namespaces": ["a", "a"]}}),
                "exemptions.namespaces[1]: \"a\"",
            ),
            (
                json!({"exemptions": {"usernames": [""]}}),
                "exemptions.usernames[0]",
            ),
        ] {
            let why = with(rest).expect_err("refused");
            assert!(why.contains(said), "{why}");
        }
    }
}
