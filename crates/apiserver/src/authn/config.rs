//! The file of `--authentication-config`: AuthenticationConfiguration of `apiserver.config.k8s.io`.

use gantry_machinery::{
    access::{About, Expression},
    validation::qualified_path,
};
use serde::Deserialize;

use super::{
    Anonymous,
    oidc::{ALGORITHMS, Claim, Issuer, Rule},
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
    user_validation_rules: Vec<UserRule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct IssuerPart {
    #[serde(default)]
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
    message: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UserRule {
    #[serde(default)]
    expression: String,
    #[serde(default)]
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
    extra: Vec<ExtraMapping>,
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

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ExtraMapping {
    #[serde(default)]
    key: String,
    #[serde(default)]
    value_expression: String,
}

/// Most issuers.
const ISSUERS: usize = 64;

/// Issuers and the say about anonymous requests, or what is wrong with the file. `own` are the issuers
/// of ServiceAccount tokens, whose names no other may have.
pub fn parse(text: &str, own: &[String]) -> Result<(Vec<Issuer>, Option<Anonymous>), String> {
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
    if file.jwt.len() > ISSUERS {
        return Err(format!(
            "jwt: Too many: {}: must have at most {ISSUERS} items",
            file.jwt.len()
        ));
    }
    let mut issuers: Vec<Issuer> = vec![];
    for (i, jwt) in file.jwt.into_iter().enumerate() {
        let issuer = issuer(jwt, own).map_err(|why| format!("jwt[{i}].{why}"))?;
        if issuers.iter().any(|other| other.url == issuer.url) {
            return Err(format!(
                "jwt[{i}].issuer.url: Duplicate value: {:?}",
                issuer.url
            ));
        }
        if let Some(url) = &issuer.discovery_url
            && issuers
                .iter()
                .any(|o| o.discovery_url.as_ref() == Some(url))
        {
            return Err(format!(
                "jwt[{i}].issuer.discoveryURL: Duplicate value: {url:?}"
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

fn issuer(jwt: Jwt, own: &[String]) -> Result<Issuer, String> {
    place(&jwt.issuer, own)?;
    let mappings = jwt.claim_mappings;
    let rules = claim_rules(jwt.claim_validation_rules)?;
    let username = mapping(mappings.username, "username")?
        .ok_or("claimMappings.username: Required value: claim or expression is required")?;
    let groups = mapping(mappings.groups, "groups")?;
    let uid = uid(mappings.uid)?;
    let extra = extra(mappings.extra)?;
    if let Claim::Expression(name) = &username
        && name.selects("email")
    {
        let verified = |e: &Expression| e.selects("email_verified");
        let by_rule = rules.1.iter().any(|r| verified(&r.expression));
        if !verified(name) && !by_rule && !extra.iter().any(|(_, e)| verified(e)) {
            return Err(format!(
                "claimMappings.username.expression: Invalid value: {:?}: claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression",
                name.text
            ));
        }
    }
    let part = jwt.issuer;
    Ok(Issuer {
        url: part.url,
        discovery_url: part.discovery_url.filter(|u| !u.is_empty()),
        ca_pem: part.certificate_authority.filter(|c| !c.is_empty()),
        audiences: part.audiences,
        algorithms: ALGORITHMS.map(str::to_owned).to_vec(),
        username,
        groups,
        uid,
        extra,
        required: rules.0,
        claim_rules: rules.1,
        user_rules: user_rules(jwt.user_validation_rules)?,
    })
}

/// Checks what is said of the issuer itself.
fn place(part: &IssuerPart, own: &[String]) -> Result<(), String> {
    if part.url.is_empty() {
        return Err("issuer.url: Required value".to_owned());
    }
    if own.contains(&part.url) {
        return Err(format!(
            "issuer.url: Invalid value: {:?}: URL must not overlap with disallowed issuers: [{}]",
            part.url,
            own.join(" ")
        ));
    }
    https(&part.url, "issuer.url")?;
    if let Some(url) = part.discovery_url.as_ref().filter(|u| !u.is_empty()) {
        if url.trim_end_matches('/') == part.url.trim_end_matches('/') {
            return Err(format!(
                "issuer.discoveryURL: Invalid value: {url:?}: discoveryURL must be different from URL"
            ));
        }
        https(url, "issuer.discoveryURL")?;
    }
    if !part.egress_selector_type.is_empty() {
        return Err("issuer.egressSelectorType: egress selection is not offered".to_owned());
    }
    if part.audiences.is_empty() {
        return Err(
            "issuer.audiences: Required value: at least one issuer.audiences is required"
                .to_owned(),
        );
    }
    for (i, audience) in part.audiences.iter().enumerate() {
        if audience.is_empty() {
            return Err(format!("issuer.audiences[{i}]: Required value"));
        }
        if part.audiences[..i].contains(audience) {
            return Err(format!(
                "issuer.audiences[{i}]: Duplicate value: {audience:?}"
            ));
        }
    }
    match part.audience_match_policy.as_str() {
        "" if part.audiences.len() > 1 => Err(
            "issuer.audienceMatchPolicy: Invalid value: \"\": audienceMatchPolicy must be MatchAny for multiple audiences"
                .to_owned(),
        ),
        "" | "MatchAny" => Ok(()),
        other => Err(format!(
            "issuer.audienceMatchPolicy: Invalid value: {other:?}: audienceMatchPolicy must be MatchAny"
        )),
    }
}

fn https(url: &str, field: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("{field}: Invalid value: {url:?}: {why}"));
    let Some(rest) = url.strip_prefix("https://") else {
        return wrong("URL scheme must be https");
    };
    if rest.contains('#') {
        return wrong("URL must not contain a fragment");
    }
    if rest.contains('?') {
        return wrong("URL must not contain a query");
    }
    match url.parse::<http::Uri>() {
        Err(e) => wrong(&e.to_string()),
        Ok(uri) if uri.authority().is_some_and(|a| a.as_str().contains('@')) => {
            wrong("URL must not contain a username or password")
        }
        Ok(_) => Ok(()),
    }
}

type Required = std::collections::BTreeMap<String, String>;

fn claim_rules(given: Vec<ClaimRule>) -> Result<(Required, Vec<Rule>), String> {
    let (mut required, mut rules) = (Required::new(), vec![]);
    for (i, rule) in given.into_iter().enumerate() {
        let at = format!("claimValidationRules[{i}]");
        match (rule.claim.is_empty(), rule.expression.is_empty()) {
            (false, false) => {
                return Err(format!(
                    "{at}: Invalid value: {:?}: claim and expression can't both be set",
                    rule.claim
                ));
            }
            (true, true) => {
                return Err(format!(
                    "{at}: Required value: claim or expression is required"
                ));
            }
            (false, true) => {
                if !rule.message.is_empty() {
                    return Err(format!(
                        "{at}.message: Invalid value: {:?}: may not be specified when claim is set",
                        rule.message
                    ));
                }
                if required.contains_key(&rule.claim) {
                    return Err(format!("{at}.claim: Duplicate value: {:?}", rule.claim));
                }
                required.insert(rule.claim, rule.required_value);
            }
            (true, false) => {
                if !rule.required_value.is_empty() {
                    return Err(format!(
                        "{at}.requiredValue: Invalid value: {:?}: may not be specified when expression is set",
                        rule.required_value
                    ));
                }
                let compiled = compile_rule(About::Claims, rule.expression, rule.message, &rules);
                rules.push(compiled.map_err(|why| format!("{at}.expression: {why}"))?);
            }
        }
    }
    Ok((required, rules))
}

fn user_rules(given: Vec<UserRule>) -> Result<Vec<Rule>, String> {
    let mut rules = vec![];
    for (i, rule) in given.into_iter().enumerate() {
        let at = format!("userValidationRules[{i}].expression");
        if rule.expression.is_empty() {
            return Err(format!("{at}: Required value"));
        }
        let compiled = compile_rule(About::User, rule.expression, rule.message, &rules);
        rules.push(compiled.map_err(|why| format!("{at}: {why}"))?);
    }
    Ok(rules)
}

fn compile_rule(
    about: About,
    text: String,
    message: String,
    before: &[Rule],
) -> Result<Rule, String> {
    if before.iter().any(|r| r.expression.text == text) {
        return Err(format!("Duplicate value: {text:?}"));
    }
    let expression = Expression::condition(about, &text)
        .map_err(|why| format!("Invalid value: {text:?}: {why}"))?;
    Ok(Rule {
        expression,
        message,
    })
}

fn compiled(text: &str, field: &str) -> Result<Expression, String> {
    Expression::compile(About::Claims, text)
        .map_err(|why| format!("{field}: Invalid value: {text:?}: {why}"))
}

fn mapping(mapping: Mapping, what: &str) -> Result<Option<Claim>, String> {
    let at = format!("claimMappings.{what}");
    match (mapping.claim.is_empty(), mapping.expression.is_empty()) {
        (true, true) => Ok(None),
        (false, false) => Err(format!(
            "{at}: Invalid value: \"\": claim and expression can't both be set"
        )),
        (true, false) => match mapping.prefix {
            Some(prefix) => Err(format!(
                "{at}.prefix: Invalid value: {prefix:?}: may not be specified when expression is set"
            )),
            None => {
                let expression = compiled(&mapping.expression, &format!("{at}.expression"))?;
                Ok(Some(Claim::Expression(expression)))
            }
        },
        // Kubernetes wants the prefix said, be it the empty one.
        (false, true) => match mapping.prefix {
            None => Err(format!(
                "{at}.prefix: Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing"
            )),
            Some(prefix) => Ok(Some(Claim::Named {
                name: mapping.claim,
                prefix,
            })),
        },
    }
}

fn uid(mapping: Mapping) -> Result<Option<Claim>, String> {
    let at = "claimMappings.uid";
    if mapping.prefix.is_some() {
        return Err(format!("{at}.prefix: unknown field"));
    }
    match (mapping.claim.is_empty(), mapping.expression.is_empty()) {
        (true, true) => Ok(None),
        (false, false) => Err(format!(
            "{at}: Invalid value: \"\": claim and expression can't both be set"
        )),
        (true, false) => {
            let expression = compiled(&mapping.expression, &format!("{at}.expression"))?;
            Ok(Some(Claim::Expression(expression)))
        }
        (false, true) => Ok(Some(Claim::Named {
            name: mapping.claim,
            prefix: String::new(),
        })),
    }
}

fn extra(given: Vec<ExtraMapping>) -> Result<Vec<(String, Expression)>, String> {
    let mut all: Vec<(String, Expression)> = vec![];
    for (i, mapping) in given.into_iter().enumerate() {
        let at = format!("claimMappings.extra[{i}]");
        let key = mapping.key;
        let wrong = |why: &str| Err(format!("{at}.key: Invalid value: {key:?}: {why}"));
        if let Some(fault) = qualified_path(&key).first() {
            return wrong(fault);
        }
        if key != key.to_lowercase() {
            return wrong("must be lowercase");
        }
        let domain = key.split('/').next().unwrap_or_default();
        let reserved = ["kubernetes.io", "k8s.io"];
        if reserved
            .iter()
            .any(|r| domain == *r || domain.ends_with(&format!(".{r}")))
        {
            return wrong(
                "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use",
            );
        }
        if all.iter().any(|(k, _)| *k == key) {
            return Err(format!("{at}.key: Duplicate value: {key:?}"));
        }
        let field = format!("{at}.valueExpression");
        if mapping.value_expression.is_empty() {
            return Err(format!("{field}: Required value"));
        }
        let expression = compiled(&mapping.value_expression, &field)?;
        all.push((key, expression));
    }
    Ok(all)
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
        let (issuers, anonymous) = parse(GOOD, &[]).expect("understood");
        assert_eq!(issuers[0].audiences, ["me", "you"]);
        let named = |name: &str, prefix: &str| Claim::Named {
            name: name.to_owned(),
            prefix: prefix.to_owned(),
        };
        assert_eq!(issuers[0].username, named("sub", "o:"));
        assert_eq!(issuers[0].uid, Some(named("id", "")));
        assert_eq!(
            anonymous,
            Some(Anonymous::Paths(vec!["/healthz".to_owned()]))
        );
    }

    const EXPRESSIONS: &str = r"
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer: {url: 'https://one.test', audiences: [me]}
  claimValidationRules:
  - {expression: 'claims.email_verified == true', message: unverified}
  claimMappings:
    username: {expression: 'claims.email'}
    groups: {expression: 'claims.roles'}
    uid: {expression: 'claims.sub'}
    extra:
    - {key: 'example.com/tenant', valueExpression: 'claims.tenant'}
  userValidationRules:
  - {expression: '!user.username.startsWith(\'system:\')', message: reserved}
- issuer: {url: 'https://two.test', discoveryURL: 'https://two.test/d', audiences: [me]}
  claimMappings:
    username: {claim: sub, prefix: ''}
";

    fn bad(good: &str, from: &str, to: &str) -> String {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        parse(&bad, &["https://own.test".to_owned()]).expect_err(to)
    }

    #[test]
    fn expressions_are_read() {
        // Of YAML's quotes.
        let text = EXPRESSIONS.replace("\\'", "''");
        let (issuers, _) = parse(&text, &[]).expect("understood");
        assert_eq!(issuers.len(), 2);
        assert!(matches!(&issuers[0].username, Claim::Expression(e) if e.text == "claims.email"));
        assert_eq!(issuers[0].claim_rules[0].message, "unverified");
        assert_eq!(issuers[0].extra[0].0, "example.com/tenant");
        for (from, to, words) in [
            (
                "{expression: 'claims.email'}",
                "{expression: 'claims.email', claim: sub}",
                "jwt[0].claimMappings.username: Invalid value: \"\": claim and expression can't both be set",
            ),
            (
                "{expression: 'claims.email'}",
                "{expression: 'claims.email', prefix: x}",
                "username.prefix: Invalid value",
            ),
            (
                "{expression: 'claims.email'}",
                "{expression: 'claims.email +'}",
                "username.expression: Invalid value: \"claims.email +\": compilation failed",
            ),
            (
                "claims.email_verified == true",
                "claims.sub == \"x\"",
                "claims.email_verified must be used",
            ),
            (
                "claims.email_verified == true",
                "claims.email_verified",
                "jwt[0].claimValidationRules[0].expression: Invalid value: \"claims.email_verified\": must evaluate to bool",
            ),
            (
                "example.com/tenant",
                "tenant",
                "extra[0].key: Invalid value: \"tenant\": must be a domain-prefixed path",
            ),
            (
                "example.com/tenant",
                "x.k8s.io/tenant",
                "are reserved for Kubernetes use",
            ),
            (
                "example.com/tenant",
                "example.com/Tenant",
                "must be lowercase",
            ),
            (
                "https://two.test'",
                "https://one.test'",
                "jwt[1].issuer.url: Duplicate value",
            ),
            (
                "https://two.test'",
                "https://own.test'",
                "URL must not overlap with disallowed issuers",
            ),
            (
                "https://two.test'",
                "http://two.test'",
                "URL scheme must be https",
            ),
            (
                "https://two.test'",
                "https://a:b@two.test'",
                "must not contain a username",
            ),
            (
                "https://two.test/d",
                "https://two.test/",
                "discoveryURL must be different from URL",
            ),
            (
                "user.username",
                "claims.username",
                "userValidationRules[0].expression: Invalid value",
            ),
        ] {
            let said = bad(&text, from, to);
            assert!(said.contains(words), "{said}\nlacks {words}");
        }
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for (from, to) in [
            ("prefix: 'o:'", "prefix: 'o:', expression: claims.sub"),
            ("url: https://issuer.test", "url: https://issuer.test#f"),
            ("audiences: [me, you]", "audiences: [me, me]"),
            ("requiredValue: x", "requiredValue: x, message: no"),
            (", prefix: 'o:'", ""),
            ("    audienceMatchPolicy: MatchAny\n", ""),
            ("/v1\n", "/v9\n"),
            ("jwt:", "jwts:"),
            ("enabled: true", "enabled: false"),
        ] {
            let bad = GOOD.replace(from, to);
            assert_ne!(bad, GOOD);
            assert!(parse(&bad, &[]).is_err(), "{bad}");
        }
    }
}
