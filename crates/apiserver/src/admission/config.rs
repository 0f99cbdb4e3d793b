//! Reads an `AdmissionConfiguration`: what is set of admission plugins from a file.

use std::io;

use gantry_machinery::pod_security;
use serde::Deserialize;
use serde_json::Value;

use super::plugins;

/// What is set of plugins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PluginSettings {
    pub pod_security: pod_security::Configuration,
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
        if name != "PodSecurity" {
            return Err(format!(
                "{field}: nothing can be set of {name} here; of PodSecurity it can"
            ));
        }
        settings.pod_security = pod_security::Configuration::read(&value)
            .map_err(|why| format!("{field}.configuration: {why}"))?;
    }
    Ok(settings)
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
    fn what_is_wrong_is_named() {
        for (plugins, said) in [
            ("[{name: Nope}]", "plugins[0].name: \"Nope\""),
            (
                "[{name: PodSecurity}, {name: PodSecurity}]",
                "plugins[1].name",
            ),
            (
                "[{name: EventRateLimit, configuration: {a: 1}}]",
                "nothing can be set of EventRateLimit",
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
