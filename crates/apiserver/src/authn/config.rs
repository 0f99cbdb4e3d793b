//! The file of `--authentication-config`: AuthenticationConfiguration of `apiserver.config.k8s.io`.
//!
//! What needs CEL (expressions) is refused, not passed over.

use serde::Deserialize;

use super::{
    Anonymous,
    oidc::{ALGORITHMS, Claim, Issuer},
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    jwt: Vec<Jwt>,
    anonymous: Option<AnonymousPart>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AnonymousPart {
    enabled: bool,
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    path: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Jwt {
    issuer: IssuerPart,
    #[serde(default)]
    claim_validation_rules: Vec<ClaimRule>,
    claim_mappings: Mappings,
    #[serde(default)]
    user_validation_rules: Vec<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct IssuerPart {
    url: String,
    #[serde(rename = "discoveryURL")]
    discovery_url: Option<String>,
    certificate_authority: Option<String>,
    #[serde(default)]
    audiences: Vec<String>,
    #[serde(default)]
    audience_match_policy: String,
    #[serde(default)]
    egress_selector_type: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ClaimRule {
    #[serde(default)]
    claim: String,
    #[serde(default)]
    required_value: String,
    #[serde(default)]
    expression: String,
    #[serde(default)]
    #[expect(dead_code, reason = "belongs to expressions, which are refused")]
    message: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mappings {
    username: Mapping,
    #[serde(default)]
    groups: Mapping,
    #[serde(default)]
    uid: Mapping,
    #[serde(default)]
    extra: Vec<serde_json::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mapping {
    #[serde(default)]
    claim: String,
    prefix: Option<String>,
    #[serde(default)]
    expression: String,
}

/// Issuers and the say about anonymous requests, or what is wrong with the file.
pub fn parse(text: &str) -> Result<(Vec<Issuer>, Option<Anonymous>), String> {
    let file: File = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
    let known = ["v1", "v1beta1", "v1alpha1"]
        .iter()
        .any(|v| file.api_version == format!("apiserver.config.k8s.io/{v}"));
    if !known || file.kind != "AuthenticationConfiguration" {
        return Err(format!(
            "{} of {} is not an AuthenticationConfiguration of apiserver.config.k8s.io",
            file.kind, file.api_version
        ));
    }
    let mut issuers: Vec<Issuer> = vec![];
    for (i, jwt) in file.jwt.into_iter().enumerate() {
        let issuer = issuer(jwt).map_err(|why| format!("jwt[{i}].{why}"))?;
        if issuers.iter().any(|other| other.url == issuer.url) {
            return Err(format!(
                "jwt[{i}].issuer.url: Duplicate value: {:?}",
                issuer.url
            ));
        }
        issuers.push(issuer);
    }
    let anonymous = match file.anonymous {
        None => None,
        Some(part) if !part.enabled && !part.conditions.is_empty() => {
            return Err(
                "anonymous.conditions: enabled should be set to true when conditions are defined"
                    .to_owned(),
            );
        }
        Some(part) if !part.enabled => Some(Anonymous::Never),
        Some(part) if part.conditions.is_empty() => Some(Anonymous::Always),
        Some(part) => Some(Anonymous::Paths(
            part.conditions.into_iter().map(|c| c.path).collect(),
        )),
    };
    Ok((issuers, anonymous))
}

const NO_CEL: &str = "CEL expressions are not offered";

fn issuer(jwt: Jwt) -> Result<Issuer, String> {
    let part = jwt.issuer;
    if !jwt.user_validation_rules.is_empty() {
        return Err(format!("userValidationRules: {NO_CEL}"));
    }
    if !jwt.claim_mappings.extra.is_empty() {
        return Err(format!("claimMappings.extra: {NO_CEL}"));
    }
    if !part.egress_selector_type.is_empty() {
        return Err("issuer.egressSelectorType: egress selection is not offered".to_owned());
    }
    match part.audience_match_policy.as_str() {
        "" if part.audiences.len() > 1 => {
            return Err(
                "issuer.audienceMatchPolicy: must be MatchAny for multiple audiences".to_owned(),
            );
        }
        "" | "MatchAny" => {}
        other => {
            return Err(format!(
                "issuer.audienceMatchPolicy: Unsupported value: {other:?}"
            ));
        }
    }
    let mut required = std::collections::BTreeMap::new();
    for (i, rule) in jwt.claim_validation_rules.into_iter().enumerate() {
        if !rule.expression.is_empty() {
            return Err(format!("claimValidationRules[{i}].expression: {NO_CEL}"));
        }
        if rule.claim.is_empty() {
            return Err(format!("claimValidationRules[{i}]: claim is required"));
        }
        required.insert(rule.claim, rule.required_value);
    }
    let mapping = |mapping: Mapping, what: &str| -> Result<Option<Claim>, String> {
        if !mapping.expression.is_empty() {
            return Err(format!("claimMappings.{what}.expression: {NO_CEL}"));
        }
        if mapping.claim.is_empty() {
            return Ok(None);
        }
        // Kubernetes wants the prefix said, be it the empty one.
        let prefix = mapping.prefix.ok_or_else(|| {
            format!("claimMappings.{what}.prefix: prefix is required when claim is set")
        })?;
        Ok(Some(Claim {
            name: mapping.claim,
            prefix,
        }))
    };
    let uid = jwt.claim_mappings.uid;
    if !uid.expression.is_empty() {
        return Err(format!("claimMappings.uid.expression: {NO_CEL}"));
    }
    Ok(Issuer {
        url: part.url,
        discovery_url: part.discovery_url.filter(|u| !u.is_empty()),
        ca_pem: part.certificate_authority.filter(|c| !c.is_empty()),
        audiences: part.audiences,
        algorithms: ALGORITHMS.map(str::to_owned).to_vec(),
        username: mapping(jwt.claim_mappings.username, "username")?
            .ok_or("claimMappings.username: claim or expression is required")?,
        groups: mapping(jwt.claim_mappings.groups, "groups")?,
        uid_claim: Some(uid.claim).filter(|c| !c.is_empty()),
        required,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r"
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer:
    url: https://issuer.test
    audiences: [me, you]
    audienceMatchPolicy: MatchAny
  claimValidationRules:
  - {claim: hd, requiredValue: x}
  claimMappings:
    username: {claim: sub, prefix: 'o:'}
    groups: {claim: roles, prefix: ''}
    uid: {claim: id}
anonymous:
  enabled: true
  conditions:
  - path: /healthz
";

    #[test]
    fn a_file_is_read() {
        let (issuers, anonymous) = parse(GOOD).expect("understood");
        assert_eq!(issuers[0].audiences, ["me", "you"]);
        assert_eq!(issuers[0].username.prefix, "o:");
        assert_eq!(issuers[0].uid_claim.as_deref(), Some("id"));
        assert_eq!(
            anonymous,
            Some(Anonymous::Paths(vec!["/healthz".to_owned()]))
        );
    }

    #[test]
    fn what_is_not_offered_or_wrong_is_refused() {
        for (from, to) in [
            ("prefix: 'o:'", "prefix: 'o:', expression: claims.sub"),
            (", prefix: 'o:'", ""),
            ("    audienceMatchPolicy: MatchAny\n", ""),
            ("/v1\n", "/v9\n"),
            ("jwt:", "jwts:"),
            ("enabled: true", "enabled: false"),
        ] {
            let bad = GOOD.replace(from, to);
            assert_ne!(bad, GOOD);
            assert!(parse(&bad).is_err(), "{bad}");
        }
    }
}
