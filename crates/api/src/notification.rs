//! `Notification`: who is told of what happens, over a webhook.

#![expect(
    clippy::duplicated_attributes,
    reason = "clippy takes the type of two printer columns for one attribute"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{gate::SecretKey, span::Span};

/// Where something is sent, when, and in which form.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gantry.dev",
    version = "v1alpha1",
    kind = "Notification",
    plural = "notifications",
    shortname = "notify",
    namespaced,
    status = "NotificationStatus",
    category = "gantry",
    derive = "PartialEq",
    doc = "A Notification tells a webhook of what happens in its namespace; in the namespace gantry-system, of what happens in the whole fleet. It sends CloudEvents, or messages to chat tools.",
    printcolumn(name = "Format", type_ = "string", json_path = ".spec.format"),
    printcolumn(name = "Delivered", type_ = "integer", json_path = ".status.delivered"),
    printcolumn(name = "Dead", type_ = "integer", json_path = ".status.dead"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message")
)]
#[serde(rename_all = "camelCase")]
pub struct NotificationSpec {
    /// The URL. Those of chat tools hold a token: give them by `urlFrom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = "^https?://"))]
    pub url: Option<String>,
    /// Key of a Secret in the same namespace with the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_from: Option<SecretKey>,
    /// Key of a Secret in the same namespace that deliveries are signed with: for CloudEvents as Standard Webhooks
    /// say (`whsec_` and base64, or any text), for DingTalk and Feishu as these say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<SecretKey>,
    /// In which form.
    #[serde(default)]
    pub format: Format,
    /// Of what. None given: of everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub events: Vec<EventFilter>,
    /// The text of messages to chat tools, with `{{verb}}`, `{{kind}}`, `{{tenant}}`, `{{name}}`, `{{who}}`,
    /// `{{outcome}}`, `{{why}}`, `{{message}}`, `{{duration}}` and `{{at}}`. Default: one line with all that is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub template: String,
    /// How long an answer may take.
    #[serde(default = "ten_seconds")]
    pub timeout: Span,
    /// For how long a delivery is tried again, with growing pauses, before it counts as dead.
    #[serde(default = "a_day")]
    pub retry_for: Span,
    /// Stand still: what happens meanwhile is not told.
    #[serde(default)]
    pub paused: bool,
}

fn ten_seconds() -> Span {
    Span::seconds(10)
}

fn a_day() -> Span {
    Span::minutes(24 * 60)
}

/// The form of what is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Format {
    /// CloudEvents 1.0, structured JSON, with the record as data.
    #[default]
    CloudEvents,
    /// An incoming webhook of Slack (and of what takes the same: Mattermost, Rocket.Chat).
    Slack,
    /// A robot of DingTalk.
    DingTalk,
    /// A bot of Feishu or Lark.
    Feishu,
    /// A robot of WeCom.
    WeCom,
}

/// Of what is told: what fits everything that is given here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventFilter {
    /// Kinds of objects: Release, Group …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 63)))]
    pub kinds: Vec<String>,
    /// Verbs: release, scale, pause, approve …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 32)))]
    pub verbs: Vec<String>,
    /// Outcomes: running (it begins), succeeded, rolled-back, aborted, failed, done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 32)))]
    pub outcomes: Vec<String>,
    /// Groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 253)))]
    pub groups: Vec<String>,
}

/// What came of what was sent. Counts begin anew when the hub does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotificationStatus {
    /// `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Deliveries that were taken.
    #[serde(default)]
    pub delivered: i64,
    /// Deliveries that wait, or are tried again.
    #[serde(default)]
    pub waiting: i64,
    /// Deliveries given up on.
    #[serde(default)]
    pub dead: i64,
    /// When something was last taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_delivered: Option<Time>,
    /// The newest deliveries given up on, twenty at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dead_letters: Vec<DeadLetter>,
    /// `Ready`: the last delivery was taken, or none has been tried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// What is wrong, in one line; empty when nothing is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// A delivery given up on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// Id of the event, which is that of its record.
    pub id: String,
    /// What it was about, in a few words.
    pub about: String,
    /// How often it was tried.
    pub tries: i32,
    /// Why the last try failed.
    pub message: String,
    /// When it was given up on.
    pub at: Time,
}
