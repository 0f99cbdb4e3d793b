//! The form of a release: from its fields to a release, and what they are before anybody has touched them.

use std::str::FromStr;

use gantry_api::{
    CountOrPercent, Group, ReleaseSpec, Span,
    revision::{ConfigFile, RevisionChange},
    strategy::{Accept, OnFailure, Pause, StrategyChoice, WithinBatch},
};
use k8s_openapi::api::core::v1::EnvVar;
use kube::ResourceExt;

use crate::{error::Fail, view::Params};

/// The release that a form asks for.
///
/// # Errors
/// Which field is wrong, and how to write it.
pub fn wish(group: &Group, form: &Params, by: &str) -> Result<ReleaseSpec, Fail> {
    let mut revision = RevisionChange::default();
    let to = form.get("to");
    if !to.is_empty() {
        revision.to = Some(read(form, "to", "a revision's number")?);
    } else {
        let current = group
            .status
            .as_ref()
            .and_then(|s| s.current.as_ref())
            .map(|c| c.image.as_str());
        let image = form.get("image");
        revision.image =
            Some(image.to_owned()).filter(|i| !i.is_empty() && Some(i.as_str()) != current);
        for line in form
            .text("env")
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty())
        {
            let Some((name, value)) = line.split_once('=') else {
                return Err(Fail::Bad(format!(
                    "environment: {line:?} is not NAME=VALUE"
                )));
            };
            revision.env.push(EnvVar {
                name: name.trim().to_owned(),
                value: Some(value.to_owned()),
                ..EnvVar::default()
            });
        }
        revision.unset_env = form
            .get("unset")
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        let path = form.get("path");
        if !path.is_empty() {
            if !path.starts_with('/') {
                return Err(Fail::Bad("file: its path begins with /".to_owned()));
            }
            revision.config.push(ConfigFile {
                path: path.to_owned(),
                text: form.text("file"),
            });
        }
    }
    Ok(ReleaseSpec {
        group: group.name_any(),
        revision,
        strategy: strategy(group, form)?,
        note: form.get("note").to_owned(),
        requested_by: by.to_owned(),
        ..ReleaseSpec::default()
    })
}

fn read<T: FromStr>(form: &Params, field: &str, what: &str) -> Result<T, Fail> {
    let text = form.get(field);
    text.parse()
        .map_err(|_| Fail::Bad(format!("{field}: {text:?} is not {what}")))
}

/// A field that may be empty.
fn maybe<T: FromStr>(form: &Params, field: &str, what: &str) -> Result<Option<T>, Fail> {
    if form.get(field).is_empty() {
        Ok(None)
    } else {
        read(form, field, what).map(Some)
    }
}

fn strategy(group: &Group, form: &Params) -> Result<Option<StrategyChoice>, Fail> {
    match form.get("strategy") {
        "" | "group" => return Ok(None),
        "inline" => {}
        name => {
            return Ok(Some(StrategyChoice {
                name: Some(name.to_owned()),
                inline: None,
            }));
        }
    }
    let count = "a count or percentage, such as 3 or 10%";
    let span = "a length of time, such as 90s or 5m";
    let mut spec = group
        .spec
        .strategy
        .as_ref()
        .and_then(|s| s.inline.clone())
        .unwrap_or_default();
    if let Some(n) = maybe(form, "bastion", "a number")? {
        spec.bastion.instances = n;
    }
    spec.bastion.accept = if form.get("accept") == "Auto" {
        Accept::Auto
    } else {
        Accept::Manual
    };
    let sizes: Result<Vec<CountOrPercent>, _> = form
        .get("sizes")
        .split([' ', ','])
        .filter(|t| !t.is_empty())
        .map(str::parse)
        .collect();
    spec.batches.sizes = sizes.map_err(|e| Fail::Bad(format!("sizes: {e}")))?;
    spec.pause = match form.get("pause") {
        "Never" => Pause::Never,
        "AfterBastion" => Pause::AfterBastion,
        _ => Pause::EachBatch,
    };
    spec.max_unavailable = maybe(form, "max", count)?;
    spec.failure_tolerance = maybe(form, "tolerance", count)?.unwrap_or(CountOrPercent::Count(0));
    spec.interval = maybe(form, "interval", span)?.unwrap_or_default();
    spec.min_ready = maybe(form, "warm", span)?.unwrap_or_default();
    if let Some(deadline) = maybe::<Span>(form, "deadline", span)? {
        spec.deadlines.instance = deadline;
    }
    spec.cells_at_once = maybe(form, "atonce", "a number")?;
    spec.cell_order = form
        .get("order")
        .split([' ', ','])
        .filter(|t| !t.is_empty())
        .map(str::to_owned)
        .collect();
    spec.on_failure = if form.get("failure") == "Rollback" {
        OnFailure::Rollback
    } else {
        OnFailure::Pause
    };
    spec.within_batch = if form.get("within") == "LockStep" {
        WithinBatch::LockStep
    } else {
        WithinBatch::SlidingWindow
    };
    Ok(Some(StrategyChoice {
        name: None,
        inline: Some(spec),
    }))
}

/// The form before anybody has touched it: as the Group's own strategy says.
pub fn defaults(group: &Group, params: &Params) -> Params {
    let mut all = params.0.clone();
    let mut put = |name: &str, value: String| {
        if !all.iter().any(|(k, _)| k == name) {
            all.push((name.to_owned(), value));
        }
    };
    let current = group.status.as_ref().and_then(|s| s.current.as_ref());
    put(
        "image",
        current.map_or(group.spec.revision.image.clone(), |c| c.image.clone()),
    );
    let choice = group.spec.strategy.as_ref();
    let spec = choice.and_then(|s| s.inline.clone()).unwrap_or_default();
    put("strategy", "group".to_owned());
    put("bastion", spec.bastion.instances.to_string());
    put(
        "accept",
        if spec.bastion.accept == Accept::Auto {
            "Auto"
        } else {
            "Manual"
        }
        .to_owned(),
    );
    let sizes: Vec<String> = spec.batches.sizes.iter().map(ToString::to_string).collect();
    put("sizes", sizes.join(", "));
    let pause = match spec.pause {
        Pause::Never => "Never",
        Pause::AfterBastion => "AfterBastion",
        Pause::EachBatch => "EachBatch",
    };
    put("pause", pause.to_owned());
    put(
        "max",
        spec.max_unavailable
            .map(|m| m.to_string())
            .unwrap_or_default(),
    );
    put("tolerance", spec.failure_tolerance.to_string());
    let long = |span: Span| {
        if span == Span::default() {
            String::new()
        } else {
            span.to_string()
        }
    };
    put("interval", long(spec.interval));
    put("warm", long(spec.min_ready));
    put("deadline", spec.deadlines.instance.to_string());
    put(
        "failure",
        if spec.on_failure == OnFailure::Rollback {
            "Rollback"
        } else {
            "Pause"
        }
        .to_owned(),
    );
    put(
        "within",
        if spec.within_batch == WithinBatch::LockStep {
            "LockStep"
        } else {
            "SlidingWindow"
        }
        .to_owned(),
    );
    put("order", spec.cell_order.join(", "));
    Params(all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn group() -> Group {
        serde_json::from_value(json!({
            "apiVersion": "gantry.dev/v1alpha1", "kind": "Group", "metadata": {"name": "cart", "namespace": "shop"},
            "spec": {"app": "cart", "placement": {"cells": []}, "revision": {"image": "cart:1"}},
            "status": {"current": {"revision": 1, "image": "cart:1"}},
        }))
        .unwrap()
    }

    #[test]
    fn a_form_becomes_a_release() {
        let form = Params::parse(
            "image=cart%3A2&env=A%3D1%0D%0AB%3Dx%3Dy&unset=C+D&strategy=inline&bastion=2&accept=Auto&sizes=1%2C+50%25&pause=Never\
             &max=3&tolerance=10%25&interval=30s&failure=Rollback&within=LockStep&atonce=1&order=b+a&note=why",
        );
        let spec = wish(&group(), &form, "ann").unwrap();
        assert_eq!(spec.revision.image.as_deref(), Some("cart:2"));
        assert_eq!(spec.revision.env[1].value.as_deref(), Some("x=y"));
        assert_eq!(spec.revision.unset_env, ["C", "D"]);
        let strategy = spec.strategy.unwrap().inline.unwrap();
        assert_eq!(
            strategy.batches.sizes,
            [CountOrPercent::Count(1), CountOrPercent::Percent(50)]
        );
        assert_eq!(
            (strategy.bastion.instances, strategy.cells_at_once),
            (2, Some(1))
        );
        assert_eq!(
            (spec.requested_by.as_str(), spec.note.as_str()),
            ("ann", "why")
        );
        // The image that runs already is no change; a revision to go back to is all there is.
        assert_eq!(
            wish(&group(), &Params::parse("image=cart%3A1"), "")
                .unwrap()
                .revision
                .image,
            None
        );
        let back = wish(&group(), &Params::parse("to=3&image=x&env=A%3D1"), "").unwrap();
        assert!(back.revision.to == Some(3) && !back.revision.has_changes());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (form, field) in [
            ("to=x", "to:"),
            ("env=A", "environment:"),
            ("path=etc&file=x", "file:"),
            ("strategy=inline&sizes=ten", "sizes:"),
            ("strategy=inline&interval=5", "interval:"),
            ("strategy=inline&max=-1", "max:"),
        ] {
            let fail = wish(&group(), &Params::parse(form), "").unwrap_err();
            assert!(
                fail.detail().starts_with(field),
                "{form}: {}",
                fail.detail()
            );
        }
    }
}
