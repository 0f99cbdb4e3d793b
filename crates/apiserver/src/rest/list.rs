//! Reading many objects, from one consistent snapshot.

use std::sync::{Arc, atomic::Ordering};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use gantry_machinery::{
    protobuf::{self, Encoder},
    resource::Resource,
    status::Failure,
};
use gantry_store::{ReadError, Snapshot, Stored};
use serde_json::{Value, json};

use super::get;
use crate::{
    api::{Api, Cx},
    chunks::Chunks,
    errors,
    object::{self, View},
    registry::Entry,
    request::Query,
    respond::{self, Form, Media, Reply},
    rules::{Fields, Labels},
};

/// What a list or watch is narrowed to.
#[derive(Default)]
pub struct Filter {
    pub labels: Option<Labels>,
    pub fields: Option<Fields>,
    /// Store names begin with this: `ns/`, or nothing.
    pub prefix: String,
    /// The one object that the field selector leaves, by its store name.
    pub only: Option<String>,
    /// Whether objects are looked into: fields of custom resources are those of the version that is
    /// asked for, while what is stored may be in another, or older than the definition.
    pub inside: bool,
}

impl Filter {
    pub fn parse(cx: &Cx) -> Result<Filter, Failure> {
        let labels = match cx.query.text("labelSelector") {
            "" => None,
            text => Some(Labels::parse(text)?),
        };
        let fields = match cx.query.text("fieldSelector") {
            "" => None,
            text => {
                let fields = Fields::parse(text)?;
                fields.check(cx.resource())?;
                Some(fields)
            }
        };
        let namespaced = cx.resource().namespaced();
        let mut prefix = String::new();
        if namespaced && !cx.target.namespace.is_empty() {
            prefix = format!("{}/", cx.target.namespace);
        }
        let mut only = None;
        // `GET …/pods/x?watch=1` watches one object.
        let named = (!cx.target.name.is_empty()).then(|| cx.target.name.clone());
        let exact = fields
            .as_ref()
            .and_then(|f| f.exact("metadata.name"))
            .map(str::to_owned);
        if let Some(name) = named.or(exact) {
            if !namespaced {
                only = Some(name);
            } else if !prefix.is_empty() {
                only = Some(format!("{prefix}{name}"));
            }
        }
        let custom = cx.resource().custom.is_some();
        let inside = custom && fields.as_ref().is_some_and(Fields::look_inside);
        Ok(Filter {
            labels,
            fields,
            prefix,
            only,
            inside,
        })
    }

    /// Whether anything but the namespace narrows.
    pub fn selects(&self) -> bool {
        self.labels.is_some() || self.fields.is_some()
    }

    /// Those that are selected.
    pub async fn choose(
        &self,
        api: &Api,
        entry: &Entry,
        all: impl Iterator<Item = &Arc<Stored>>,
    ) -> Result<Vec<Arc<Stored>>, Failure> {
        let all = all.filter(|stored| self.matches(entry, stored));
        let mut chosen: Vec<Arc<Stored>> = all.cloned().collect();
        let Some(fields) = self.fields.as_ref().filter(|_| self.inside) else {
            return Ok(chosen);
        };
        let mut selected = Vec::with_capacity(chosen.len());
        // As many as a webhook converts at once, where one has to.
        for part in chosen.chunks(PART) {
            for whole in get::all(api, entry, part).await? {
                selected.push(fields.select(&entry.resource, &object::parse(&whole)?));
            }
        }
        let mut selected = selected.into_iter();
        chosen.retain(|_| selected.next().unwrap_or_default());
        Ok(chosen)
    }

    /// Whether a stored object is selected, as far as it tells without being converted.
    pub fn matches(&self, entry: &Entry, stored: &Stored) -> bool {
        let name = &*stored.key.name;
        if !name.starts_with(&self.prefix) || self.only.as_ref().is_some_and(|o| o != name) {
            return false;
        }
        if !self.selects() {
            return true;
        }
        let labels = match &self.labels {
            Some(labels) => {
                let view = View::get(entry, stored);
                labels.matches(|k| view.label(k))
            }
            None => true,
        };
        labels
            && self
                .fields
                .as_ref()
                .filter(|_| !self.inside)
                .is_none_or(|fields| {
                    let (namespace, bare) = match name.split_once('/') {
                        Some((namespace, bare)) if entry.resource.namespaced() => (namespace, bare),
                        _ => ("", name),
                    };
                    fields.matches(|path| match path {
                        "metadata.name" => Some(bare),
                        "metadata.namespace" => Some(namespace),
                        path => View::get(entry, stored).field(path),
                    })
                })
    }
}

/// The name that a field selector narrows a list to, for authorization.
pub fn selected_name(query: &Query) -> Option<String> {
    let text = query.text("fieldSelector");
    if text.is_empty() {
        return None;
    }
    Fields::parse(text)
        .ok()?
        .exact("metadata.name")
        .map(str::to_owned)
}

/// Fields that a field selector wants to have a value, with these.
pub fn selected_fields(query: &Query) -> Vec<(String, String)> {
    Fields::parse(query.text("fieldSelector")).map_or(vec![], |fields| fields.equalities())
}

/// Where a limited list goes on.
struct Continue {
    /// Of the state that is listed; `None` for the newest there is, once that one is gone.
    revision: Option<u64>,
    /// The store name of the last object sent.
    after: String,
}

impl Continue {
    fn encode(&self) -> String {
        let version = self.revision.map_or_else(|| json!(-1), Value::from);
        let token = json!({"v": "meta.k8s.io/v1", "rv": version, "start": self.after});
        URL_SAFE_NO_PAD.encode(token.to_string())
    }

    fn decode(text: &str) -> Result<Continue, Failure> {
        let bad = |why: String| {
            errors::bad_request(format!(
                "invalid continue token: continue key is not valid: {why}"
            ))
        };
        let bytes = URL_SAFE_NO_PAD
            .decode(text.trim_end_matches('='))
            .map_err(|e| bad(e.to_string()))?;
        let token: Value = serde_json::from_slice(&bytes).map_err(|_| {
            let first = bytes.first().copied().unwrap_or_default();
            bad(format!(
                "invalid character '\\u{first:04x}' looking for beginning of value"
            ))
        })?;
        match (token.get("rv").and_then(Value::as_i64), token.get("start")) {
            (Some(version), Some(Value::String(after))) => Ok(Continue {
                revision: u64::try_from(version).ok(),
                after: after.clone(),
            }),
            _ => Err(bad("unrecognized encoded version".to_owned())),
        }
    }
}

/// `resourceVersion` and `resourceVersionMatch`, checked as Kubernetes checks ListOptions.
fn check_options(cx: &Cx, watch: bool) -> Result<(), Failure> {
    let version = cx.query.text("resourceVersion");
    let how = cx.query.text("resourceVersionMatch");
    let initial = cx
        .query
        .get("sendInitialEvents")
        .is_some_and(|v| !v.is_empty());
    let refuse = |field: &str, reason: &str, message: String| {
        Err(errors::invalid_options(
            "ListOptions",
            field,
            reason,
            message,
        ))
    };
    let forbid =
        |field: &str, why: &str| refuse(field, "FieldValueForbidden", format!("Forbidden: {why}"));
    if initial {
        if !watch {
            return forbid(
                "sendInitialEvents",
                "sendInitialEvents is forbidden for list",
            );
        }
        if how != "NotOlderThan" {
            return forbid(
                "resourceVersionMatch",
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            );
        }
        return Ok(());
    }
    if how.is_empty() {
        return Ok(());
    }
    if watch {
        return forbid(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        );
    }
    if version.is_empty() {
        return forbid(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        );
    }
    if !cx.query.text("continue").is_empty() {
        return forbid(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden when continue is provided",
        );
    }
    if !matches!(how, "Exact" | "NotOlderThan") {
        return refuse(
            "resourceVersionMatch",
            "FieldValueNotSupported",
            format!(
                "Unsupported value: {how:?}: supported values: \"Exact\", \"NotOlderThan\", \"\""
            ),
        );
    }
    if how == "Exact" && version == "0" {
        return forbid(
            "resourceVersionMatch",
            "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        );
    }
    Ok(())
}

pub fn check_watch_options(cx: &Cx) -> Result<(), Failure> {
    check_options(cx, true)
}

const TOO_OLD_TO_CONTINUE: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// The state that the request asks for.
async fn snapshot(cx: &Cx, next: Option<&Continue>) -> Result<Snapshot, Failure> {
    let bucket = &cx.entry.bucket;
    let at = |revision: u64| {
        let oldest = cx.api.aged.load(Ordering::Relaxed);
        let given = match revision < oldest {
            true => Err(ReadError::Compacted { oldest }),
            false => cx.store().snapshot_at(bucket, revision),
        };
        given.map_err(|e| match e {
            ReadError::Compacted { .. } => match next {
                Some(next) => {
                    let mut failure = errors::expired(TOO_OLD_TO_CONTINUE);
                    let newest = Continue {
                        revision: None,
                        after: next.after.clone(),
                    };
                    failure.resume = Some(newest.encode().into());
                    failure
                }
                None => errors::expired("The resourceVersion for the provided list is too old."),
            },
            ReadError::Future { newest } => errors::version_too_large(revision, newest),
        })
    };
    if let Some(next) = next {
        return match next.revision {
            Some(revision) => at(revision),
            None => Ok(cx.store().snapshot(bucket)),
        };
    }
    let text = cx.query.text("resourceVersion");
    let wanted = get::parse_version(text)
        .map_err(|f| errors::bad_request(format!("invalid resource version: {}", f.message)))?;
    let how = cx.query.text("resourceVersionMatch");
    let limited = cx.query.integer("limit")?.is_some_and(|l| l > 0);
    if how == "Exact" || (how.is_empty() && wanted > 0 && limited) {
        return at(wanted);
    }
    get::reached(cx.store(), wanted).await?;
    Ok(cx.store().snapshot(bucket))
}

/// The objects of one page.
pub struct Page {
    pub items: Vec<Arc<Stored>>,
    pub revision: u64,
    next: Option<String>,
    remaining: Option<u64>,
}

impl Page {
    fn go_on_after(&mut self, last: Option<&Arc<Stored>>) {
        let next = Continue {
            revision: Some(self.revision),
            after: last.map(|s| s.key.name.to_string()).unwrap_or_default(),
        };
        self.next = Some(next.encode());
    }
}

/// How many objects are converted together.
pub const PART: usize = 500;

/// Collects what a list shows.
pub async fn collect(cx: &Cx) -> Result<Page, Failure> {
    let filter = Filter::parse(cx)?;
    check_options(cx, false)?;
    let limit = cx.query.integer("limit")?.unwrap_or(0);
    cx.query.integer("timeoutSeconds")?;
    let token = match cx.query.text("continue") {
        "" => None,
        text => Some(Continue::decode(text)?),
    };
    let version = cx.query.text("resourceVersion");
    if token.is_some() && !matches!(version, "" | "0") {
        return Err(errors::bad_request(
            "specifying resource version is not allowed when using continue",
        ));
    }
    // From the cache, as Kubernetes calls it, the limit does not count.
    let unlimited = limit <= 0 || (token.is_none() && version == "0");
    let snapshot = snapshot(cx, token.as_ref()).await?;
    let revision = snapshot.revision();
    let after = token.as_ref().map(|t| t.after.as_str());
    let mut page = Page {
        items: vec![],
        revision,
        next: None,
        remaining: None,
    };
    if let Some(only) = &filter.only {
        let there = snapshot.get(only).into_iter();
        page.items = filter.choose(&cx.api, &cx.entry, there).await?;
        return Ok(page);
    }
    let mut range = snapshot.range(&filter.prefix, after);
    if filter.inside {
        let mut all = filter.choose(&cx.api, &cx.entry, range).await?;
        if let Ok(limit) = usize::try_from(limit)
            && !unlimited
            && all.len() > limit
        {
            all.truncate(limit);
            page.go_on_after(all.last());
        }
        page.items = all;
        return Ok(page);
    }
    while let Some(stored) = range.next() {
        if !filter.matches(&cx.entry, stored) {
            continue;
        }
        if !unlimited && page.items.len() as i64 == limit {
            let last = page.items.last().cloned();
            page.go_on_after(last.as_ref());
            if !filter.selects() {
                page.remaining = Some(1 + range.count() as u64);
            }
            return Ok(page);
        }
        page.items.push(stored.clone());
    }
    Ok(page)
}

pub async fn list(cx: &mut Cx) -> Result<Reply, Failure> {
    let page = collect(cx).await?;
    render(cx, page).await
}

fn list_meta(page: &Page) -> Value {
    let mut meta = json!({"resourceVersion": page.revision.to_string()});
    if let Some(next) = &page.next {
        meta["continue"] = next.clone().into();
    }
    if let Some(remaining) = page.remaining {
        meta["remainingItemCount"] = remaining.into();
    }
    meta
}

fn list_head(resource: &Resource, meta: &Value) -> String {
    format!(
        "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{meta},\"items\":[",
        resource.list_kind,
        resource.api_version()
    )
}

pub async fn render(cx: &Cx, page: Page) -> Result<Reply, Failure> {
    let entry = &cx.entry;
    let meta = list_meta(&page);
    let whole = get::all(&cx.api, entry, &page.items).await?;
    if cx.output.media == Media::Protobuf && cx.output.form != Form::Partial {
        return messages(cx, &whole, &meta);
    }
    let chunks = match cx.output.form {
        Form::Partial => {
            return Err(Failure::new(
                406,
                "NotAcceptable",
                format!(
                    "you requested PartialObjectMetadata, but the requested object is a list (*core.{})",
                    entry.resource.list_kind
                ),
            ));
        }
        Form::Table(include) => {
            let items: Vec<Value> = whole
                .iter()
                .map(|bytes| object::parse(bytes))
                .collect::<Result<_, _>>()?;
            let table = respond::table(cx.output, entry, &items, include, meta, true);
            return respond::encoded(cx.output, 200, table.to_string().into());
        }
        Form::PartialList => {
            let head = format!(
                "{{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"{}\",\"metadata\":{meta},\"items\":[",
                cx.output.meta_version
            );
            let partial: Vec<Bytes> = whole
                .iter()
                .map(|bytes| respond::partial(cx, bytes))
                .collect::<Result<_, _>>()?;
            Chunks::list(&head, partial, 0)
        }
        Form::Object => {
            if entry.resource.custom.is_some() {
                let mut meta = meta;
                if meta.get("continue").is_none() {
                    // As Kubernetes writes the lists of custom resources.
                    meta["continue"] = "".into();
                }
                let head = list_head(&entry.resource, &meta);
                Chunks::list(&head, whole, 0)
            } else {
                let head = list_head(&entry.resource, &meta);
                // Items of built-in lists carry no kind and apiVersion.
                Chunks::list(&head, whole, entry.served_head.len())
            }
        }
    };
    if cx.output.media == Media::Yaml {
        let whole: Vec<u8> = chunks.flatten().collect();
        return respond::encoded(cx.output, 200, whole.into());
    }
    Ok(respond::chunks(200, respond::JSON, chunks))
}

/// The list in protobuf.
fn messages(cx: &Cx, whole: &[Bytes], meta: &Value) -> Result<Reply, Failure> {
    let resource = cx.resource();
    let partial = cx.output.form == Form::PartialList;
    let list = if partial {
        protobuf::List::of(cx.output.meta_version, "PartialObjectMetadataList")
    } else {
        protobuf::List::of(&resource.api_version(), &resource.list_kind)
    };
    let list = list
        .ok_or_else(|| errors::internal(format_args!("{} has no protobuf", resource.list_kind)))?;
    let mut encoder = Encoder::new();
    let size: usize = whole.iter().map(Bytes::len).sum();
    let mut items = Vec::with_capacity(size);
    for bytes in whole {
        let part;
        let mut bytes = bytes;
        if partial {
            part = respond::partial(cx, bytes)?;
            bytes = &part;
        }
        encoder
            .item(&list, bytes, &mut items)
            .map_err(errors::internal)?;
    }
    let head = encoder
        .list_head(&list, meta.to_string().as_bytes(), items.len())
        .map_err(errors::internal)?;
    let tail = Bytes::from_static(&protobuf::ENVELOPE_TAIL);
    let chunks = [head.into(), items.into(), tail].into();
    Ok(respond::chunks(200, protobuf::MEDIA_TYPE, chunks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continue_tokens_survive_the_round_trip() {
        for revision in [Some(7), None] {
            let after = "a/b".to_owned();
            let token = Continue { revision, after }.encode();
            let back = Continue::decode(&token).expect("valid");
            assert_eq!((back.revision, back.after.as_str()), (revision, "a/b"));
        }
        assert!(Continue::decode("nonsense").is_err());
    }
}
