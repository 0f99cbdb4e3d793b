//! The rules of a definition: well formed, compiling, and affordable whatever the objects are.

use serde_json::Value as Json;

use super::{Rules, compile, declare};
use crate::{
    cel::Decl,
    crd::causes::{forbidden, invalid, invalid_text, not_supported, required},
    crd::structural::{each_child_of, text},
    status::Cause,
};

/// What one expression may cost, summed over all places in an object that it may run for.
const MOST_FOR_ONE: u64 = 10_000_000;
/// What all expressions of a schema may cost together.
const MOST_FOR_ALL: u64 = 100_000_000;
/// How many of the most expensive are named.
const NAMED: usize = 4;

/// What the expressions of a schema cost together.
#[derive(Default)]
struct Total {
    sum: u64,
    expensive: Vec<(u64, String)>,
}

impl Total {
    fn observe(&mut self, field: String, cost: u64) {
        self.sum = self.sum.saturating_add(cost);
        if cost == 0 {
            return;
        }
        self.expensive.push((cost, field));
        self.expensive
            .sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
        self.expensive.truncate(NAMED);
    }
}

/// Where a node stands: how often there can be one in an object (`None`: no bound declared), and
/// the list or map above it whose items have no identity.
#[derive(Clone)]
struct Place {
    most: Option<u64>,
    uncorrelatable: Option<String>,
    resource: bool,
}

/// The faults of all rules in a schema that stands at `path`.
pub(in crate::crd) fn check(schema: &Json, path: &str) -> Vec<Cause> {
    let place = Place {
        most: Some(1),
        uncorrelatable: None,
        resource: true,
    };
    let (mut faults, mut total) = (Vec::new(), Total::default());
    node(schema, path, &place, &mut total, &mut faults);
    if total.sum > MOST_FOR_ALL {
        for (_, field) in &total.expensive {
            faults.push(forbidden(
                field,
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema",
            ));
        }
        faults.push(forbidden(
            path,
            &too_costly(
                "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema",
                total.sum,
                MOST_FOR_ALL,
            ),
        ));
    }
    faults
}

fn node(schema: &Json, path: &str, place: &Place, total: &mut Total, faults: &mut Vec<Cause>) {
    each_child_of(schema, path, |child, child_path| {
        let number = |name: &str| schema.get(name).and_then(Json::as_u64);
        let list = text(schema, "type") == "array";
        let map = !list
            && schema
                .get("additionalProperties")
                .is_some_and(Json::is_object);
        let times = match (list, map) {
            (true, _) => number("maxItems"),
            (_, true) => number("maxProperties"),
            _ => Some(1),
        };
        let loses_identity = (list && text(schema, "x-kubernetes-list-type") != "map")
            || text(schema, "x-kubernetes-map-type") == "atomic";
        let below = Place {
            most: place
                .most
                .zip(times)
                .map(|(most, times)| most.saturating_mul(times)),
            uncorrelatable: place
                .uncorrelatable
                .clone()
                .or_else(|| loses_identity.then(|| path.to_owned())),
            resource: false,
        };
        node(child, &child_path, &below, total, faults);
    });
    let rules = schema
        .get("x-kubernetes-validations")
        .and_then(Json::as_array);
    let Some(rules) = rules.filter(|r| !r.is_empty()) else {
        return;
    };
    let mut form = Vec::new();
    for (i, rule) in rules.iter().enumerate() {
        let at = format!("{path}.x-kubernetes-validations[{i}]");
        well_formed(schema, rule, &at, &mut form);
    }
    if !form.is_empty() {
        faults.extend(form);
        return;
    }
    let embedded = schema.get("x-kubernetes-embedded-resource") == Some(&Json::Bool(true));
    let Some(compiled) = compile(schema, place.resource || embedded) else {
        return;
    };
    for (i, rule) in rules.iter().enumerate() {
        let at = format!("{path}.x-kubernetes-validations[{i}]");
        one(&compiled, i, rule, &at, place, total, faults);
    }
}

fn one(
    compiled: &Rules,
    i: usize,
    source: &Json,
    at: &str,
    place: &Place,
    total: &mut Total,
    faults: &mut Vec<Cause>,
) {
    let Some(rule) = compiled.list.get(i) else {
        return;
    };
    let decl: &Decl = &compiled.decl;
    let variables = [("self", decl), ("oldSelf", decl)];
    let rule_field = format!("{at}.rule");
    let message_field = format!("{at}.messageExpression");
    if let Ok(program) = &rule.program {
        let most = place
            .most
            .unwrap_or(declare::MOST_BYTES / (decl.least_bytes + 1));
        let cost = program.estimate(&variables).most.saturating_mul(most);
        if cost > MOST_FOR_ONE {
            let detail = too_costly("estimated rule cost", cost, MOST_FOR_ONE);
            faults.push(forbidden(&rule_field, &detail));
        }
        total.observe(rule_field.clone(), cost);
    }
    if let Err(detail) = &rule.program {
        faults.push(invalid_text(&rule_field, &printed(source), detail));
    }
    match &rule.message_program {
        Some(Err(detail)) => faults.push(invalid_text(&message_field, &printed(source), detail)),
        Some(Ok(program)) => {
            let cost = program.estimate(&variables).most;
            if cost > MOST_FOR_ONE {
                let detail = too_costly("estimated messageExpression cost", cost, MOST_FOR_ONE);
                faults.push(forbidden(&message_field, &detail));
            }
            total.observe(message_field, cost);
        }
        None => {}
    }
    if rule.uses_old {
        if let Some(above) = &place.uncorrelatable {
            faults.push(invalid(
                &rule_field,
                &Json::from(text(source, "rule")),
                &format!(
                    "oldSelf cannot be used on the uncorrelatable portion of the schema within {above}"
                ),
            ));
        }
    } else if let Some(optional) = source.get("optionalOldSelf").filter(|v| v.is_boolean())
        && rule.program.is_ok()
    {
        faults.push(invalid(
            &format!("{at}.optionalOldSelf"),
            optional,
            "may not be set if oldSelf is not used in rule",
        ));
    }
}

fn well_formed(schema: &Json, rule: &Json, at: &str, faults: &mut Vec<Cause>) {
    const REASONS: [&str; 4] = [
        "FieldValueDuplicate",
        "FieldValueForbidden",
        "FieldValueInvalid",
        "FieldValueRequired",
    ];
    let broken = |text: &str| text.contains(['\n', '\r']);
    let (expression, message) = (text(rule, "rule"), text(rule, "message"));
    if expression.trim().is_empty() {
        faults.push(required(&format!("{at}.rule"), "rule is not specified"));
    } else if !message.is_empty() && message.trim().is_empty() {
        let detail = "message must be non-empty if specified";
        faults.push(invalid(
            &format!("{at}.message"),
            &Json::from(message),
            detail,
        ));
    } else if broken(message.trim()) {
        let detail = "message must not contain line breaks";
        faults.push(invalid(
            &format!("{at}.message"),
            &Json::from(message),
            detail,
        ));
    } else if broken(expression.trim()) && message.trim().is_empty() {
        let detail = "message must be specified if rule contains line breaks";
        faults.push(required(&format!("{at}.message"), detail));
    }
    let message = text(rule, "messageExpression");
    if !message.is_empty() && message.trim().is_empty() {
        let detail = "messageExpression must be non-empty if specified";
        faults.push(required(&format!("{at}.messageExpression"), detail));
    }
    if let Some(reason) = rule.get("reason").and_then(Json::as_str)
        && !REASONS.contains(&reason)
    {
        faults.push(not_supported(
            &format!("{at}.reason"),
            &Json::from(reason),
            &REASONS.map(str::to_owned),
        ));
    }
    let path = text(rule, "fieldPath");
    let field = format!("{at}.fieldPath");
    let mut wrong = |detail: &str| faults.push(invalid(&field, &Json::from(path), detail));
    if !path.is_empty() && path.trim().is_empty() {
        wrong("fieldPath must be non-empty if specified");
    }
    if broken(path) {
        wrong("fieldPath must not contain line breaks");
    }
    if !path.is_empty() && !leads_to_field(schema, path) {
        wrong("fieldPath must be a valid path");
    }
}

/// Whether `.a['b'].c` names a field below a schema.
fn leads_to_field(schema: &Json, path: &str) -> bool {
    let (mut rest, mut at) = (path, schema);
    while !rest.is_empty() {
        let name = if let Some(after) = rest.strip_prefix("['") {
            let Some((name, after)) = after.split_once("']") else {
                return false;
            };
            rest = after;
            name
        } else if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            rest = &after[end..];
            &after[..end]
        } else {
            return false;
        };
        let next = match at.get("properties") {
            Some(properties) => properties.get(name),
            None => at.get("additionalProperties").filter(|a| a.is_object()),
        };
        match next {
            Some(next) => at = next,
            None => return false,
        }
    }
    true
}

fn too_costly(what: &str, cost: u64, most: u64) -> String {
    let factor = cost as f64 / most as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

/// A rule as Go prints its own type of it.
fn printed(rule: &Json) -> String {
    let quoted = |name: &str| {
        let json = Json::from(text(rule, name)).to_string();
        json.replace('<', "\\u003c")
            .replace('>', "\\u003e")
            .replace('&', "\\u0026")
    };
    let plain = |name: &str| rule.get(name).unwrap_or(&Json::Null).to_string();
    format!(
        "{{\"Rule\":{},\"Message\":{},\"MessageExpression\":{},\"Reason\":{},\"FieldPath\":{},\"OptionalOldSelf\":{}}}",
        quoted("rule"),
        quoted("message"),
        quoted("messageExpression"),
        plain("reason"),
        quoted("fieldPath"),
        plain("optionalOldSelf"),
    )
}
