//! Asking one webhook: whether it is to be asked, the call, and what a patch makes of an object.

use std::sync::Arc;

use gantry_machinery::{
    patch::{self, Unpatched},
    policy::Input,
    resource::Resource,
    status::Failure,
};
use serde_json::Value;

use super::{
    super::{
        asking::Asking,
        attributes::{Attributes, Gvk, Gvr},
        authorizer::Asker,
        matching::{Found, Target},
        policies::question,
        review::{self, Answer, Asked, Verdict},
    },
    configured::Hook,
};
use crate::{api::Cx, convert, errors, registry::Entry, rules};

/// Why a webhook has not said yes.
#[derive(Debug)]
pub enum Trouble {
    /// It could not be asked, or its answer is none: what that means is up to `failurePolicy`.
    Call(String),
    /// It refused.
    Denied(Failure),
    /// The request fails whatever the policy.
    Failed(Failure),
}

/// The objects of a request, as one webhook or policy is to see them.
pub struct Seen {
    pub asked: Asked,
    /// The version they are converted to, where that is another one.
    pub other: Option<Arc<Entry>>,
    pub object: Option<Value>,
    pub old: Option<Value>,
}

/// How rules cover a request, if they do.
pub fn covered(
    asking: &Asking,
    matching: &super::super::matching::Matching,
) -> Option<(Asked, Option<Arc<Entry>>)> {
    let at = &asking.at;
    let target = Target::of(
        at.operation,
        &at.entry.resource,
        &at.resource,
        &at.subresource,
    );
    match matching.covers(&target, &asking.equivalents, &at.name)? {
        Found::Itself => Some((
            Asked {
                resource: at.resource.clone(),
                kind: at.kind.clone(),
            },
            None,
        )),
        Found::Equivalent(i) => {
            let entry = asking.others.get(i)?.clone();
            let asked = Asked {
                resource: Gvr::of(&entry),
                kind: Gvk::of(&entry, &at.subresource),
            };
            let same = asked.kind == at.kind;
            Some((asked, (!same).then_some(entry)))
        }
    }
}

/// The objects of the request in the version that a webhook or policy asks for.
pub async fn see(
    cx: &Cx,
    at: &Attributes,
    asked: Asked,
    other: Option<Arc<Entry>>,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<Seen, Failure> {
    let mut seen = Seen {
        asked,
        object: None,
        old: None,
        other,
    };
    for (from, to) in [(object, &mut seen.object), (old, &mut seen.old)] {
        let Some(from) = from else { continue };
        *to = Some(match &seen.other {
            None => super::super::attributes::with_kind(from.clone(), &at.kind),
            Some(entry) => {
                let (here, there) = (&at.entry.resource, &entry.resource);
                convert::between(&cx.api, from.clone(), here, there).await?
            }
        });
    }
    Ok(seen)
}

/// The objects as a webhook sees them, when it is to be asked about them at all.
pub async fn relevant(
    cx: &Cx,
    asking: &Asking,
    hook: &Hook,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<Option<Seen>, Failure> {
    let at = &asking.at;
    let Some((asked, other)) = covered(asking, &hook.matching) else {
        return Ok(None);
    };
    if !asking.selects_namespace(cx, &hook.matching, object)?
        || !hook.matching.selects_object(object, old)
    {
        return Ok(None);
    }
    let seen = see(cx, at, asked, other, object, old).await?;
    if hook.conditions.is_empty() {
        return Ok(Some(seen));
    }
    // Conditions are told of the resource that the request names.
    let request = review::parts(
        at,
        &Asked {
            resource: at.resource.clone(),
            kind: seen.asked.kind.clone(),
        },
    );
    let met = hook.conditions.met(&Input {
        object: seen.object.as_ref().unwrap_or(&Value::Null),
        old: seen.old.as_ref().unwrap_or(&Value::Null),
        params: &Value::Null,
        request: &request,
        namespace: &Value::Null,
        authorizer: &Asker {
            api: &cx.api,
            user: &at.user,
        },
        resource: question(asking),
    });
    match met {
        Ok(true) => Ok(Some(seen)),
        Ok(false) => Ok(None),
        Err(_) if !hook.fails => Ok(None),
        Err(why) => Err(errors::forbidden(&at.entry.resource, &at.name, &why)),
    }
}

/// Asks a webhook.
pub async fn ask(
    hook: &Hook,
    at: &Attributes,
    seen: &Seen,
    mutating: bool,
) -> Result<Answer, Trouble> {
    if at.dry_run {
        match hook.dry_run {
            Some(true) => {}
            Some(false) => return Err(Trouble::Failed(review::no_dry_run(&hook.name))),
            None => return Err(Trouble::Call("Webhook SideEffects is nil".to_owned())),
        }
    }
    let Some(spoken) = hook.spoken else {
        return Err(Trouble::Call(
            "webhook does not accept known AdmissionReview versions (v1, v1beta1)".to_owned(),
        ));
    };
    let uid = crate::object::uid();
    let (object, old) = (seen.object.as_ref(), seen.old.as_ref());
    let request = review::request(spoken, &uid, at, &seen.asked, object, old);
    let caller = hook
        .caller
        .as_ref()
        .map_err(|e| Trouble::Call(format!("could not get REST client: {e}")))?;
    let body = caller
        .post(request.to_string().into(), hook.timeout, true)
        .await
        .map_err(|e| Trouble::Call(format!("failed to call webhook: {e}")))?;
    review::answer(&hook.name, spoken, &uid, mutating, &body)
        .map_err(|why| Trouble::Call(format!("received invalid webhook response: {why}")))
}

/// The object of a request after a webhook's patch; `None` when it stays as it is.
pub async fn patched(
    cx: &Cx,
    at: &Attributes,
    hook: &Hook,
    seen: &Seen,
    patch: &[u8],
) -> Result<Option<Value>, Failure> {
    let operations: Vec<Value> =
        serde_json::from_slice(patch).map_err(|e| review::internal(&e.to_string()))?;
    if operations.is_empty() {
        return Ok(None);
    }
    let Some(object) = &seen.object else {
        return Err(review::internal(&format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
            hook.name
        )));
    };
    let new = patch::operations(object, &operations).map_err(|unpatched| {
        review::internal(&match unpatched {
            Unpatched::TestFailed => "testing value failed: test failed".to_owned(),
            Unpatched::Wrong(why) => why,
        })
    })?;
    settled(cx, at, seen, object, new).await
}

/// A changed object as the kind it is again, in the version of the request; `None` when nothing
/// has changed.
pub async fn settled(
    cx: &Cx,
    at: &Attributes,
    seen: &Seen,
    before: &Value,
    mut new: Value,
) -> Result<Option<Value>, Failure> {
    let resource: &Resource = match &seen.other {
        Some(entry) => &entry.resource,
        None => &at.entry.resource,
    };
    if at.whole() {
        rules::normalize(resource, &mut new)
            .map_err(|failure| review::internal(&failure.message))?;
    }
    if new == *before {
        return Ok(None);
    }
    if at.whole() {
        rules::default(resource, &mut new, seen.old.as_ref());
    }
    if let Some(entry) = &seen.other {
        new = convert::between(&cx.api, new, &entry.resource, &at.entry.resource).await?;
    }
    Ok(Some(new))
}

impl Answer {
    /// The patch, when there is one, or the refusal.
    pub fn outcome(self) -> Result<Option<Vec<u8>>, Trouble> {
        match self.verdict {
            Verdict::Allowed => Ok(None),
            Verdict::Patched(patch) => Ok(Some(patch)),
            Verdict::Denied(failure) => Err(Trouble::Denied(*failure)),
        }
    }
}
