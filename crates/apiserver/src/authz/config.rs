//! The file of `--authorization-config`: AuthorizationConfiguration of `apiserver.config.k8s.io`.

use std::{path::PathBuf, time::Duration};

use gantry_machinery::{
    access::{About, Expression},
    validation::dns1123_subdomain,
};
use serde::Deserialize;

use super::{Authorization, WebhookAuthorization, abac::Policy, review::Spoken};
use crate::wrong::Wrong;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    authorizers: Vec<Part>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    name: String,
    webhook: Option<Hook>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Hook {
    #[serde(rename = "authorizedTTL")]
    authorized_ttl: Option<String>,
    cache_authorized_requests: Option<bool>,
    #[serde(rename = "unauthorizedTTL")]
    unauthorized_ttl: Option<String>,
    cache_unauthorized_requests: Option<bool>,
    timeout: Option<String>,
    #[serde(default)]
    subject_access_review_version: String,
    #[serde(default)]
    match_condition_subject_access_review_version: String,
    #[serde(default)]
    failure_policy: String,
    connection_info: Option<Connection>,
    #[serde(default)]
    match_conditions: Vec<Condition>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Connection {
    #[serde(rename = "type", default)]
    kind: String,
    kube_config_file: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    #[serde(default)]
    expression: String,
}

const KINDS: [&str; 6] = [
    "ABAC",
    "AlwaysAllow",
    "AlwaysDeny",
    "Node",
    "RBAC",
    "Webhook",
];
const CONDITIONS: usize = 64;

/// The authorizers of a file, in their order; `policies` are those of `--authorization-policy-file`.
///
/// # Errors
/// Everything that is wrong with it, by field.
pub fn parse(text: &str, policies: Option<&[Policy]>) -> Result<Vec<Authorization>, String> {
    let file: File = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
    let known = ["v1", "v1beta1", "v1alpha1"]
        .iter()
        .any(|v| file.api_version == format!("apiserver.config.k8s.io/{v}"));
    if !known || file.kind != "AuthorizationConfiguration" {
        return Err(format!(
            "{} of {} is not an AuthorizationConfiguration of apiserver.config.k8s.io",
            file.kind, file.api_version
        ));
    }
    let mut wrong = Wrong::default();
    let mut all: Vec<Authorization> = vec![];
    let mut names: Vec<String> = vec![];
    if file.authorizers.is_empty() {
        wrong.required(
            "authorizers",
            "at least one authorization mode must be defined",
        );
    }
    for (i, part) in file.authorizers.into_iter().enumerate() {
        let here = format!("authorizers[{i}]");
        let kind = part.kind.as_str();
        if kind.is_empty() {
            wrong.required(&format!("{here}.type"), "");
            continue;
        }
        if !KINDS.contains(&kind) {
            wrong.unsupported(&format!("{here}.type"), kind, &KINDS);
            continue;
        }
        if kind != "Webhook" && all.iter().any(|a| a.name() == kind) {
            wrong.duplicate(&format!("{here}.type"), kind);
            continue;
        }
        if part.name.is_empty() {
            wrong.required(&format!("{here}.name"), "");
        } else if names.contains(&part.name) {
            wrong.duplicate(&format!("{here}.name"), &part.name);
        } else if let Some(fault) = dns1123_subdomain(&part.name).first() {
            let fault = format!("authorizer name is invalid: {fault}");
            wrong.invalid(&format!("{here}.name"), &part.name, &fault);
        }
        names.push(part.name.clone());
        let at = format!("{here}.webhook");
        match (kind, part.webhook) {
            ("Webhook", None) => wrong.required(&at, "required when type=Webhook"),
            ("Webhook", Some(hook)) => {
                let hook = webhook(part.name, hook, &at, &mut wrong);
                all.push(Authorization::Webhook(Box::new(hook)));
            }
            (_, Some(_)) => {
                wrong.invalid(&at, "non-null", "may only be specified when type=Webhook");
            }
            ("ABAC", None) => match policies {
                Some(policies) => all.push(Authorization::Abac(policies.into())),
                None => wrong.say(format!(
                    "{here}.type: ABAC needs --authorization-policy-file"
                )),
            },
            ("Node", None) => all.push(Authorization::Node),
            ("RBAC", None) => all.push(Authorization::Rbac),
            ("AlwaysAllow", None) => all.push(Authorization::AlwaysAllow),
            _ => all.push(Authorization::AlwaysDeny),
        }
    }
    wrong.end()?;
    Ok(all)
}

fn webhook(name: String, hook: Hook, at: &str, wrong: &mut Wrong) -> WebhookAuthorization {
    let field = |name: &str| format!("{at}.{name}");
    let mut duration = |name: &str, given: Option<String>, default: Option<u64>| {
        let path = field(name);
        let read = match given.as_deref() {
            None | Some("" | "0" | "0s") => default.map(Duration::from_secs),
            Some(text) => match text.parse::<jiff::SignedDuration>() {
                Ok(read) => match Duration::try_from(read) {
                    Ok(read) => Some(read),
                    Err(_) => {
                        wrong.invalid(&path, text, "must be > 0s");
                        return Duration::ZERO;
                    }
                },
                Err(_) => {
                    wrong.invalid(&path, text, "must be a duration such as 30s");
                    return Duration::ZERO;
                }
            },
        };
        match read {
            Some(read) => read,
            None => {
                wrong.required(&path, "");
                Duration::ZERO
            }
        }
    };
    let allowed_for = duration("authorizedTTL", hook.authorized_ttl, Some(300));
    let refused_for = duration("unauthorizedTTL", hook.unauthorized_ttl, Some(30));
    let timeout = duration("timeout", hook.timeout, None);
    if timeout > Duration::from_secs(30) {
        let given = format!("{}s", timeout.as_secs_f64());
        wrong.invalid(&field("timeout"), &given, "must be > 0s and <= 30s");
    }
    let version = hook.subject_access_review_version.as_str();
    let spoken = match version {
        "v1beta1" => Spoken::V1beta1,
        _ => Spoken::V1,
    };
    match version {
        "v1" | "v1beta1" => {}
        "" => wrong.required(&field("subjectAccessReviewVersion"), ""),
        other => wrong.unsupported(
            &field("subjectAccessReviewVersion"),
            other,
            &["v1", "v1beta1"],
        ),
    }
    let conditioned = field("matchConditionSubjectAccessReviewVersion");
    match hook.match_condition_subject_access_review_version.as_str() {
        "" if hook.match_conditions.is_empty() => {}
        "" => wrong.required(&conditioned, "required if match conditions are specified"),
        "v1" => {}
        other => wrong.unsupported(&conditioned, other, &["v1"]),
    }
    match hook.failure_policy.as_str() {
        "NoOpinion" | "Deny" => {}
        "" => wrong.required(&field("failurePolicy"), ""),
        other => wrong.unsupported(&field("failurePolicy"), other, &["NoOpinion", "Deny"]),
    }
    let info = hook.connection_info.unwrap_or_default();
    let kubeconfig = connection(info, &field("connectionInfo"), wrong);
    WebhookAuthorization {
        name,
        kubeconfig,
        spoken,
        timeout,
        allowed_for: Some(allowed_for).filter(|_| hook.cache_authorized_requests != Some(false)),
        refused_for: Some(refused_for).filter(|_| hook.cache_unauthorized_requests != Some(false)),
        denies_on_failure: hook.failure_policy == "Deny",
        conditions: conditions(&hook.match_conditions, &field("matchConditions"), wrong),
    }
}

fn connection(info: Connection, at: &str, wrong: &mut Wrong) -> PathBuf {
    let (kind, path) = (format!("{at}.type"), format!("{at}.kubeConfigFile"));
    let file = info.kube_config_file.unwrap_or_default();
    match info.kind.as_str() {
        "" => wrong.required(&kind, ""),
        "InClusterConfig" => wrong.invalid(
            &kind,
            "InClusterConfig",
            "an API server cannot ask itself; use KubeConfigFile",
        ),
        "KubeConfigFile" => {
            let found = PathBuf::from(&file);
            if file.is_empty() {
                wrong.required(&path, "");
            } else if !found.is_absolute() {
                wrong.invalid(&path, &file, "must be an absolute path");
            } else {
                match std::fs::metadata(&found) {
                    Err(e) => wrong.invalid(&path, &file, &format!("error loading file: {e}")),
                    Ok(meta) if !meta.is_file() => {
                        wrong.invalid(&path, &file, "must be a regular file");
                    }
                    Ok(_) => {}
                }
            }
        }
        other => wrong.unsupported(&kind, other, &["InClusterConfig", "KubeConfigFile"]),
    }
    file.into()
}

fn conditions(given: &[Condition], at: &str, wrong: &mut Wrong) -> Vec<Expression> {
    if given.len() > CONDITIONS {
        wrong.say(format!(
            "{at}: Too many: {}: must have at most {CONDITIONS} items",
            given.len()
        ));
        return vec![];
    }
    let mut all: Vec<Expression> = vec![];
    for (i, condition) in given.iter().enumerate() {
        let here = format!("{at}[{i}].expression");
        let text = condition.expression.as_str();
        if text.trim().is_empty() {
            wrong.required(&here, "");
        } else if given[..i].iter().any(|c| c.expression == text) {
            wrong.duplicate(&here, text);
        } else {
            match Expression::condition(About::Review, text) {
                Ok(expression) => all.push(expression),
                Err(why) => wrong.invalid(&here, text, &why),
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(kubeconfig: &str) -> String {
        format!(
            "
apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers:
- type: Webhook
  name: first.example
  webhook:
    authorizedTTL: 1m
    cacheUnauthorizedRequests: false
    timeout: 3s
    subjectAccessReviewVersion: v1
    matchConditionSubjectAccessReviewVersion: v1
    failurePolicy: Deny
    connectionInfo:
      type: KubeConfigFile
      kubeConfigFile: {kubeconfig}
    matchConditions:
    - expression: has(request.resourceAttributes)
- type: Node
  name: node
- type: RBAC
  name: rbac
"
        )
    }

    #[test]
    fn a_file_is_read() {
        let here = tempfile::NamedTempFile::new().expect("a file");
        let all = parse(&file(&here.path().display().to_string()), None).expect("understood");
        let names: Vec<&str> = all.iter().map(Authorization::name).collect();
        assert_eq!(names, ["Webhook", "Node", "RBAC"]);
        let Authorization::Webhook(hook) = &all[0] else {
            unreachable!("the first is one");
        };
        assert_eq!(hook.name, "first.example");
        assert_eq!(hook.timeout, Duration::from_secs(3));
        assert_eq!(hook.allowed_for, Some(Duration::from_secs(60)));
        assert_eq!(hook.refused_for, None);
        assert!(hook.denies_on_failure);
        assert_eq!(hook.conditions[0].text, "has(request.resourceAttributes)");
    }

    #[test]
    fn what_is_wrong_is_said_by_field() {
        let here = tempfile::NamedTempFile::new().expect("a file");
        let good = file(&here.path().display().to_string());
        for (from, to, words) in [
            ("/v1\n", "/v9\n", "is not an AuthorizationConfiguration"),
            ("authorizers:", "authorisers:", "authorisers"),
            (
                "type: Node",
                "type: Nod",
                "authorizers[1].type: Unsupported value: \"Nod\"",
            ),
            (
                "type: Node",
                "type: RBAC",
                "authorizers[2].type: Duplicate value: \"RBAC\"",
            ),
            (
                "type: Node",
                "type: ABAC",
                "authorizers[1].type: ABAC needs --authorization-policy-file",
            ),
            (
                "name: node",
                "name: rbac",
                "authorizers[2].name: Duplicate value",
            ),
            (
                "name: node",
                "name: A_B",
                "authorizers[1].name: Invalid value: \"A_B\": authorizer name is invalid",
            ),
            (
                "timeout: 3s",
                "timeout: 31s",
                "authorizers[0].webhook.timeout: Invalid value",
            ),
            (
                "timeout: 3s",
                "timeout: -3s",
                "authorizers[0].webhook.timeout: Invalid value: \"-3s\": must be > 0s",
            ),
            (
                "timeout: 3s",
                "timeout: soon",
                "authorizers[0].webhook.timeout: Invalid value: \"soon\"",
            ),
            (
                "    timeout: 3s\n",
                "",
                "authorizers[0].webhook.timeout: Required value",
            ),
            (
                "ReviewVersion: v1\n    matchC",
                "ReviewVersion: v2\n    matchC",
                "authorizers[0].webhook.subjectAccessReviewVersion: Unsupported value: \"v2\"",
            ),
            (
                "    matchConditionSubjectAccessReviewVersion: v1\n",
                "",
                "matchConditionSubjectAccessReviewVersion: Required value: required if match conditions are specified",
            ),
            (
                "Policy: Deny",
                "Policy: Fail",
                "failurePolicy: Unsupported value: \"Fail\": supported values: \"NoOpinion\", \"Deny\"",
            ),
            (
                "type: KubeConfigFile",
                "type: InClusterConfig",
                "connectionInfo.type: Invalid value: \"InClusterConfig\"",
            ),
            (
                "kubeConfigFile: /",
                "kubeConfigFile: x/",
                "must be an absolute path",
            ),
            (
                "has(request.resourceAttributes)",
                "request.user",
                "authorizers[0].webhook.matchConditions[0].expression: Invalid value: \"request.user\": must evaluate to bool but got string",
            ),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good, "{from}");
            let said = parse(&bad, None).expect_err(to);
            assert!(said.contains(words), "{said}\nlacks {words}");
        }
    }
}
