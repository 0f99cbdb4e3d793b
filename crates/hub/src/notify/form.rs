//! The forms of a message: CloudEvents, and what chat tools take.

use gantry_api::{NotificationSpec, notification::Format};
use gantry_records::{Outcome, Record};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{event_id, sign};

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The URL, with whatever the receiver wants in it.
    pub url: String,
    /// Headers beside the length.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: String,
}

/// The message for one try, `now`: signatures hold the time.
pub fn message(
    spec: &NotificationSpec,
    url: &str,
    key: Option<&str>,
    record: &Record,
    now: Timestamp,
) -> Message {
    let text = || text(&spec.template, record);
    let (seconds, mut url) = (now.as_second(), url.to_owned());
    let body = match spec.format {
        Format::CloudEvents => cloud_event(record),
        Format::Slack => json!({"text": text()}),
        Format::DingTalk => {
            if let Some(key) = key {
                let ms = now.as_millisecond();
                let mut query = form_urlencoded::Serializer::new(String::new());
                query.append_pair("timestamp", &ms.to_string());
                query.append_pair("sign", &sign::ding_talk(key, ms));
                url.push(if url.contains('?') { '&' } else { '?' });
                url.push_str(&query.finish());
            }
            json!({"msgtype": "text", "text": {"content": text()}})
        }
        Format::Feishu => {
            let mut body = json!({"msg_type": "text", "content": {"text": text()}});
            if let Some(key) = key {
                body["timestamp"] = json!(seconds.to_string());
                body["sign"] = json!(sign::feishu(key, seconds));
            }
            body
        }
        Format::WeCom => json!({"msgtype": "text", "text": {"content": text()}}),
    }
    .to_string();
    let mut headers = vec![];
    if spec.format == Format::CloudEvents {
        let id = event_id(record);
        headers.push((
            "content-type",
            "application/cloudevents+json; charset=utf-8".to_owned(),
        ));
        if let Some(key) = key {
            headers.push((
                "webhook-signature",
                sign::standard(key, &id, seconds, &body),
            ));
        }
        headers.push(("webhook-timestamp", seconds.to_string()));
        headers.push(("webhook-id", id));
    } else {
        headers.push(("content-type", "application/json; charset=utf-8".to_owned()));
    }
    Message { url, headers, body }
}

/// A record as a CloudEvent (version 1.0, structured JSON).
fn cloud_event(record: &Record) -> Value {
    let object = &record.object;
    let kind = object.kind.to_lowercase();
    let what = match record.outcome {
        Outcome::Done => record.verb.as_str(),
        Outcome::Running => "started",
        outcome => outcome.as_str(),
    };
    let scope = if object.namespace.is_empty() {
        String::new()
    } else {
        format!("{}/", object.namespace)
    };
    json!({
        "specversion": "1.0",
        "id": event_id(record),
        "source": "/gantry/hub",
        "type": format!("dev.gantry.{kind}.{what}"),
        "subject": format!("{scope}{kind}/{}", object.name),
        "time": record.finished.unwrap_or(record.at),
        "datacontenttype": "application/json",
        "data": record,
    })
}

/// The text for people. What stands for something in a template is put in once: what is put in is not looked
/// through again.
fn text(template: &str, record: &Record) -> String {
    if template.is_empty() {
        return line(record);
    }
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        text.push_str(before);
        let Some((name, after)) = after.split_once("}}") else {
            text.push_str("{{");
            rest = after;
            continue;
        };
        match value(name.trim(), record) {
            Some(value) => text.push_str(&value),
            None => {
                text.push_str("{{");
                text.push_str(name);
                text.push_str("}}");
            }
        }
        rest = after;
    }
    text.push_str(rest);
    text
}

fn value(name: &str, record: &Record) -> Option<String> {
    let object = &record.object;
    Some(match name {
        "verb" => record.verb.to_string(),
        "kind" => object.kind.clone(),
        "tenant" => object.namespace.clone(),
        "name" => object.name.clone(),
        "group" => object.group.clone(),
        "who" => who(record),
        "outcome" => record.outcome.to_string(),
        "why" => record.why.clone(),
        "message" => record.message.clone(),
        "at" => record.at.to_string(),
        "duration" => duration(record).unwrap_or_default(),
        _ => return None,
    })
}

fn who(record: &Record) -> String {
    if record.who.user.is_empty() {
        "somebody".to_owned()
    } else {
        record.who.user.clone()
    }
}

fn duration(record: &Record) -> Option<String> {
    let seconds = record.duration_ms()? / 1000;
    let seconds = u64::try_from(seconds).unwrap_or_default();
    Some(gantry_api::Span::seconds(seconds).to_string())
}

/// All that is known, in one line.
fn line(record: &Record) -> String {
    let object = &record.object;
    let scope = if object.namespace.is_empty() {
        String::new()
    } else {
        format!("{}/", object.namespace)
    };
    let what = format!("{} {scope}{}", object.kind, object.name);
    let mut line = match record.outcome {
        Outcome::Done => format!("{what}: {} by {}", record.verb, who(record)),
        Outcome::Running => format!("{what}: started by {}", who(record)),
        outcome => format!("{what}: {outcome}"),
    };
    if let Some(duration) = duration(record) {
        line.push_str(&format!(" after {duration}"));
    }
    for more in [&record.message, &record.why] {
        if !more.is_empty() {
            line.push_str(&format!(" · {more}"));
        }
    }
    line
}

/// Whether the receiver has taken it, by its answer: chat tools answer 200 to what they refuse.
///
/// # Errors
/// Why it has not.
pub fn taken(format: Format, status: u16, body: &[u8]) -> Result<(), String> {
    let told: String = String::from_utf8_lossy(body).chars().take(200).collect();
    if !(200..300).contains(&status) {
        return Err(format!("it answers {status}: {told}"));
    }
    let code = match format {
        Format::CloudEvents | Format::Slack => return Ok(()),
        Format::DingTalk | Format::WeCom => "errcode",
        Format::Feishu => "code",
    };
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    match answer[code]
        .as_i64()
        .or_else(|| answer["StatusCode"].as_i64())
    {
        Some(0) => Ok(()),
        _ => Err(format!("it answers: {told}")),
    }
}
