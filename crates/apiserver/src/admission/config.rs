//! Reads an `AdmissionConfiguration`: what is set of admission plugins from a file.

use std::{collections::BTreeMap, io};

use gantry_machinery::pod_security;
use serde::Deserialize;
use serde_json::Value;

use super::{EventLimit, LimitOn, Tolerations, plugins};

/// What is set of plugins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PluginSettings {
    pub pod_security: pod_security::Configuration,
    /// Of EventRateLimit.
    pub event_limits: Vec<EventLimit>,
    /// Of PodNodeSelector: labels that pods may choose nodes by, of namespaces, and under
    /// `clusterDefaultNodeSelector` those that pods get where their namespace says nothing.
    pub node_selectors: BTreeMap<String, String>,
    /// Of PodTolerationRestriction.
    pub tolerations: Tolerations,
    /// Of DefaultTolerationSeconds: how long pods stay on a node that is not ready and on one that is not
    /// reachable, in seconds, where they say nothing; 300 where this says nothing.
    pub toleration_seconds: (Option<i64>, Option<i64>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    api_version: String,
    kind: String,
    #[serde(default)]
    plugins: Vec<Plugin>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Plugin {
    name: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    configuration: Value,
}

/// Reads it from YAML or JSON; `file` reads a plugin's own file, by the path as it is written.
///
/// # Errors
/// What is wrong or not offered, with its field.
pub fn parse(
    text: &str,
    file: impl Fn(&str) -> io::Result<String>,
) -> Result<PluginSettings, String> {
    let written: Written = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
    let version = written.api_version.strip_prefix("apiserver.config.k8s.io/");
    if version != Some("v1") || written.kind != "AdmissionConfiguration" {
        return Err(format!(
            "{} {} is not an AdmissionConfiguration of apiserver.config.k8s.io/v1",
            written.api_version, written.kind
        ));
    }
    let mut settings = PluginSettings::default();
    for (at, plugin) in written.plugins.iter().enumerate() {
        let field = format!("plugins[{at}]");
        let name = plugin.name.as_str();
        if plugins::plugin(name).is_none() {
            return Err(format!("{field}.name: {name:?} is not an admission plugin"));
        }
        if written.plugins[..at].iter().any(|p| p.name == name) {
            return Err(format!("{field}.name: {name} stands there twice"));
        }
        let value = match (plugin.path.as_str(), &plugin.configuration) {
            ("", Value::Null) => continue,
            ("", value) => value.clone(),
            (_, Value::Object(_)) => {
                return Err(format!("{field}: either path or configuration, not both"));
            }
            (path, _) => {
                let text =
                    file(path).map_err(|e| format!("{field}.path: cannot read {path}: {e}"))?;
                serde_saphyr::from_str(&text).map_err(|e| format!("{field}.path: {path}: {e}"))?
            }
        };
        let set = match name {
            "PodSecurity" => {
                pod_security::Configuration::read(&value).map(|read| settings.pod_security = read)
            }
            "EventRateLimit" => event_limits(&value).map(|read| settings.event_limits = read),
            "PodNodeSelector" => serde_json::from_value(value)
                .map(|NodeSelectors { all }| settings.node_selectors = all)
                .map_err(|e| e.to_string()),
            "PodTolerationRestriction" => {
                tolerations(&value).map(|read| settings.tolerations = read)
            }
            _ => {
                return Err(format!("{field}: nothing can be set of {name}"));
            }
        };
        set.map_err(|why| format!("{field}.configuration: {why}"))?;
    }
    Ok(settings)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeSelectors {
    #[serde(rename = "podNodeSelectorPluginConfig")]
    all: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenLimits {
    api_version: String,
    kind: String,
    #[serde(default)]
    limits: Vec<WrittenLimit>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenLimit {
    r#type: String,
    qps: u32,
    burst: u32,
    #[serde(default)]
    cache_size: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenTolerations {
    api_version: String,
    kind: String,
    #[serde(default)]
    default: Vec<Value>,
    #[serde(default)]
    whitelist: Vec<Value>,
}

/// Refuses what is not a `Configuration` of this plugin's group.
fn configuration(version: &str, kind: &str, group: &str) -> Result<(), String> {
    let known = version.strip_prefix(group);
    match matches!(known, Some("/v1alpha1")) && kind == "Configuration" {
        true => Ok(()),
        false => Err(format!(
            "{version} {kind} is not a Configuration of {group}/v1alpha1"
        )),
    }
}

/// How many keys a limit remembers that does not say.
const KEYS: usize = 4096;

fn event_limits(value: &Value) -> Result<Vec<EventLimit>, String> {
    let written = WrittenLimits::deserialize(value).map_err(|e| e.to_string())?;
    let group = "eventratelimit.admission.k8s.io";
    configuration(&written.api_version, &written.kind, group)?;
    if written.limits.is_empty() {
        return Err("limits: there must be at least one".to_owned());
    }
    let all = written.limits.iter().enumerate();
    all.map(|(i, limit)| {
        let on = match limit.r#type.as_str() {
            "Server" => LimitOn::Server,
            "Namespace" => LimitOn::Namespace,
            "User" => LimitOn::User,
            "SourceAndObject" => LimitOn::SourceAndObject,
            other => {
                return Err(format!(
                    "limits[{i}].type: {other:?} is not Server, Namespace, User or SourceAndObject"
                ));
            }
        };
        for (field, number) in [("qps", limit.qps), ("burst", limit.burst)] {
            if number == 0 {
                return Err(format!("limits[{i}].{field}: must be more than 0"));
            }
        }
        let keys = match limit.cache_size {
            0 => KEYS,
            size => size,
        };
        Ok(EventLimit {
            on,
            qps: limit.qps,
            burst: limit.burst,
            keys,
        })
    })
    .collect()
}

fn tolerations(value: &Value) -> Result<Tolerations, String> {
    let written = WrittenTolerations::deserialize(value).map_err(|e| e.to_string())?;
    let group = "podtolerationrestriction.admission.k8s.io";
    configuration(&written.api_version, &written.kind, group)?;
    Ok(Tolerations {
        default: written.default,
        allowed: written.whitelist,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: &str) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }

    const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\n";

    #[test]
    fn pod_security_is_set_there_or_in_a_file_of_its_own() {
        let own = "apiVersion: pod-security.admission.config.k8s.io/v1\nkind: PodSecurityConfiguration\nexemptions: {namespaces: [infra]}\n";
        let inline = format!(
            "{HEAD}plugins:\n- name: PodSecurity\n  configuration:\n    {}",
            own.replace('\n', "\n    ")
        );
        let there = parse(&inline, none).expect("read");
        assert_eq!(there.pod_security.namespaces, ["infra"]);
        let apart = format!("{HEAD}plugins: [{{name: PodSecurity, path: ps.yaml}}]");
        let read = |path: &str| match path {
            "ps.yaml" => Ok(own.to_owned()),
            _ => none(path),
        };
        assert_eq!(parse(&apart, read), Ok(there));
        assert_eq!(parse(HEAD, none), Ok(PluginSettings::default()));
    }

    #[test]
    fn what_other_plugins_are_told() {
        let text = format!(
            "{HEAD}plugins:
- name: EventRateLimit
  configuration:
    apiVersion: eventratelimit.admission.k8s.io/v1alpha1
    kind: Configuration
    limits: [{{type: Namespace, qps: 50, burst: 100, cacheSize: 2000}}, {{type: Server, qps: 1, burst: 2}}]
- name: PodNodeSelector
  configuration:
    podNodeSelectorPluginConfig: {{clusterDefaultNodeSelector: a=b}}
- name: PodTolerationRestriction
  configuration:
    apiVersion: podtolerationrestriction.admission.k8s.io/v1alpha1
    kind: Configuration
    default: [{{operator: Exists}}]
"
        );
        let read = parse(&text, none).expect("read");
        let limits: Vec<_> = read
            .event_limits
            .iter()
            .map(|l| (l.on, l.qps, l.burst, l.keys))
            .collect();
        assert_eq!(
            limits,
            [
                (LimitOn::Namespace, 50, 100, 2000),
                (LimitOn::Server, 1, 2, 4096)
            ]
        );
        assert_eq!(read.node_selectors["clusterDefaultNodeSelector"], "a=b");
        assert_eq!(read.tolerations.default.len(), 1);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (plugins, said) in [
            ("[{name: Nope}]", "plugins[0].name: \"Nope\""),
            (
                "[{name: PodSecurity}, {name: PodSecurity}]",
                "plugins[1].name",
            ),
            (
                "[{name: AlwaysPullImages, configuration: {a: 1}}]",
                "nothing can be set of AlwaysPullImages",
            ),
            (
                "[{name: EventRateLimit, configuration: {apiVersion: eventratelimit.admission.k8s.io/v1alpha1, kind: Configuration, limits: [{type: All, qps: 1, burst: 1}]}}]",
                "plugins[0].configuration: limits[0].type: \"All\"",
            ),
            (
                "[{name: PodTolerationRestriction, configuration: {apiVersion: v1, kind: Configuration}}]",
                "v1 Configuration is not a Configuration of podtolerationrestriction",
            ),
            (
                "[{name: PodSecurity, path: gone}]",
                "plugins[0].path: cannot read gone",
            ),
            (
                "[{name: PodSecurity, configuration: {kind: X, apiVersion: v1}}]",
                "plugins[0].configuration: apiVersion",
            ),
            ("[{nam: x}]", "unknown field"),
        ] {
            let why = parse(&format!("{HEAD}plugins: {plugins}"), none).expect_err("refused");
            assert!(why.contains(said), "{why}");
        }
        let why = parse("apiVersion: v1\nkind: Pod\n", none).expect_err("refused");
        assert!(why.contains("v1 Pod is not"), "{why}");
    }
}
