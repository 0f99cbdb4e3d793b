//! Names from an audit log of the hub's API server. Kubernetes keeps none of whoever deletes an object or writes
//! to its `scale`; its audit log does. What the log says is matched by the object's UID, so that a name is either
//! the right one or missing.

use std::collections::VecDeque;

use gantry_records::{Record, Verb, Who};
use jiff::Timestamp;
use serde_json::Value;

use super::observed::{version, via};

/// An audit policy that records what is needed here and nothing else.
pub const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
omitManagedFields: true
rules:
- level: RequestResponse
  verbs: [delete, deletecollection]
  resources: [{group: gantry.dev}]
- level: RequestResponse
  verbs: [update, patch]
  resources: [{group: gantry.dev, resources: ['*/scale']}]
- level: None
";

/// Entries that are kept for a record to come: a Group may be a long time in going.
const KEPT: usize = 10_000;

/// What a request has done.
#[derive(Clone, Debug, PartialEq)]
enum Did {
    Deleted,
    Scaled {
        replicas: i64,
        /// The object's version then.
        version: u64,
    },
}

/// One request that succeeded, for one object.
#[derive(Clone, Debug, PartialEq)]
struct Said {
    uid: String,
    did: Did,
    at: Timestamp,
    who: Who,
}

/// What the log has said and no record has asked for yet.
#[derive(Debug, Default)]
pub struct Trail {
    said: VecDeque<Said>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What an event of the log says; nothing for most.
fn parse(event: &Value) -> Vec<Said> {
    let reference = &event["objectRef"];
    let code = event["responseStatus"]["code"].as_i64().unwrap_or(0);
    if event["stage"] != "ResponseComplete"
        || reference["apiGroup"] != gantry_api::GROUP
        || !(200..300).contains(&code)
        // A dry run does nothing.
        || text(&event["requestURI"]).contains("dryRun=")
    {
        return Vec::new();
    }
    let Ok(at) = text(&event["requestReceivedTimestamp"]).parse() else {
        return Vec::new();
    };
    // Who acts as another is recorded as that other, as the stamps do.
    let user = match &event["impersonatedUser"] {
        Value::Null => &event["user"],
        user => user,
    };
    let groups = user["groups"].as_array().into_iter().flatten();
    let agent = text(&event["userAgent"]);
    let who = Who {
        user: text(&user["username"]),
        groups: groups
            .filter_map(|g| g.as_str().map(str::to_owned))
            .collect(),
        via: via(agent.split(['/', ' ']).next().unwrap_or_default()),
    };
    let answer = &event["responseObject"];
    let said = |uid: &Value, did: Did| {
        let uid = uid.as_str().filter(|uid| !uid.is_empty())?.to_owned();
        Some(Said {
            uid,
            did,
            at,
            who: who.clone(),
        })
    };
    match (event["verb"].as_str(), reference["subresource"].as_str()) {
        (Some("delete"), None | Some("")) => {
            // The object where it goes later, else a Status.
            let object = said(&answer["metadata"]["uid"], Did::Deleted);
            let status = || said(&answer["details"]["uid"], Did::Deleted);
            let named = || said(&event["responseStatus"]["details"]["uid"], Did::Deleted);
            object.or_else(status).or_else(named).into_iter().collect()
        }
        (Some("deletecollection"), None | Some("")) => {
            let items = answer["items"].as_array().into_iter().flatten();
            items
                .filter_map(|item| said(&item["metadata"]["uid"], Did::Deleted))
                .collect()
        }
        (Some("update" | "patch"), Some("scale")) => {
            let scaled = Did::Scaled {
                replicas: answer["spec"]["replicas"].as_i64().unwrap_or(0),
                version: version(answer["metadata"]["resourceVersion"].as_str()),
            };
            said(&answer["metadata"]["uid"], scaled)
                .into_iter()
                .collect()
        }
        _ => Vec::new(),
    }
}

impl Trail {
    /// Takes a line of the log.
    pub fn hear(&mut self, line: &[u8]) {
        let Ok(event) = serde_json::from_slice(line) else {
            return;
        };
        self.said.extend(parse(&event));
        while self.said.len() > KEPT {
            self.said.pop_front();
        }
    }

    /// Whether the log may say more of this record than the object did.
    pub fn asks(record: &Record) -> bool {
        record.who.user.is_empty() && matches!(record.verb, Verb::Delete | Verb::Go | Verb::Scale)
    }

    /// Puts the name into a record of an object as it was seen at this version; whether there was one.
    pub fn name(&mut self, record: &mut Record, seen: u64) -> bool {
        let of_it = |said: &Said| said.uid == record.object.uid;
        let after = record.after.as_ref().and_then(|a| a["replicas"].as_i64());
        let index = if record.verb == Verb::Scale {
            // The last that led to what was seen: several may have been seen as one.
            let led = |said: &Said| matches!(said.did, Did::Scaled { replicas, version } if Some(replicas) == after && version <= seen);
            self.said.iter().rposition(|s| of_it(s) && led(s))
        } else {
            // The first: the others found it going.
            let mut all = self.said.iter();
            all.position(|s| of_it(s) && s.did == Did::Deleted)
        };
        let Some(said) = index.and_then(|i| self.said.get(i)).cloned() else {
            return false;
        };
        // What led to it is over, and all that there was of what is deleted.
        let over = |other: &Said| match (&said.did, &other.did) {
            (Did::Deleted, _) => true,
            (
                Did::Scaled { version, .. },
                Did::Scaled {
                    version: before, ..
                },
            ) => before <= version,
            _ => false,
        };
        self.said
            .retain(|other| other.uid != said.uid || !over(other));
        // The owner's entry of a write to `scale` bears no time: the record has one of another write. Its id stays.
        if record.verb == Verb::Scale {
            record.at = said.at;
        }
        record.who = said.who;
        true
    }
}

#[cfg(test)]
pub(super) mod tests {
    use gantry_records::{Object, Outcome, Via};
    use serde_json::json;

    use super::*;

    fn event(verb: &str, subresource: &str, answer: Value) -> Value {
        json!({
            "stage": "ResponseComplete", "verb": verb, "requestURI": "/apis/gantry.dev/v1alpha1/x",
            "user": {"username": "dan", "groups": ["staff"]}, "userAgent": "kubectl/v1.36.0 (linux/amd64) kubernetes/1",
            "objectRef": {"resource": "groups", "apiGroup": "gantry.dev", "subresource": subresource},
            "responseStatus": {"code": 200}, "responseObject": answer,
            "requestReceivedTimestamp": "2026-11-21T08:00:00.500000Z",
        })
    }

    /// A record of a Group that nobody's name is on yet.
    pub fn record(verb: Verb, uid: &str, at: &str, after: Option<Value>) -> Record {
        Record {
            id: gantry_records::id::of(Timestamp::UNIX_EPOCH, 1, &["x"]),
            at: at.parse().unwrap(),
            who: Who::default(),
            verb,
            object: Object {
                kind: "Group".into(),
                namespace: "shop".into(),
                name: "cart".into(),
                group: String::new(),
                uid: uid.into(),
            },
            why: String::new(),
            before: None,
            after,
            outcome: Outcome::Done,
            message: String::new(),
            started: None,
            finished: None,
        }
    }

    #[test]
    fn a_record_gets_the_name_of_the_request_that_it_is_of_and_of_no_other() {
        let at = "2026-11-21T08:00:00Z";
        let scale = |replicas: i64, version: &str| json!({"metadata": {"uid": "u", "resourceVersion": version}, "spec": {"replicas": replicas}});
        let three = Some(json!({"replicas": 3}));
        let with = |mut event: Value, field: &str, value: Value| {
            event[field] = value;
            event
        };
        let gone = json!({"kind": "Status", "details": {"uid": "u"}});
        let going = json!({"kind": "Group", "metadata": {"uid": "u"}});
        let list = json!({"items": [{"metadata": {"uid": "a"}}, {"metadata": {"uid": "u"}}]});
        let delete = || event("delete", "", gone.clone());
        let cases = [
            (
                "scale",
                event("patch", "scale", scale(3, "7")),
                record(Verb::Scale, "u", at, three.clone()),
                true,
            ),
            (
                "to another number",
                event("patch", "scale", scale(4, "7")),
                record(Verb::Scale, "u", at, three.clone()),
                false,
            ),
            (
                "that came after",
                event("patch", "scale", scale(3, "8")),
                record(Verb::Scale, "u", at, three.clone()),
                false,
            ),
            (
                "of another object",
                event("patch", "scale", scale(3, "7")),
                record(Verb::Scale, "v", at, three.clone()),
                false,
            ),
            (
                "not of scale",
                event("patch", "status", scale(3, "7")),
                record(Verb::Scale, "u", at, three),
                false,
            ),
            (
                "delete",
                delete(),
                record(Verb::Delete, "u", at, None),
                true,
            ),
            ("a switch", delete(), record(Verb::Go, "u", at, None), true),
            (
                "that goes later",
                event("delete", "", going),
                record(Verb::Delete, "u", at, None),
                true,
            ),
            (
                "of many",
                event("deletecollection", "", list),
                record(Verb::Delete, "u", at, None),
                true,
            ),
            (
                "refused",
                with(delete(), "responseStatus", json!({"code": 403})),
                record(Verb::Delete, "u", at, None),
                false,
            ),
            (
                "dry",
                with(delete(), "requestURI", json!("/x?dryRun=All")),
                record(Verb::Delete, "u", at, None),
                false,
            ),
            (
                "begun",
                with(delete(), "stage", json!("RequestReceived")),
                record(Verb::Delete, "u", at, None),
                false,
            ),
            (
                "no name",
                with(delete(), "responseObject", json!({})),
                record(Verb::Delete, "u", at, None),
                false,
            ),
        ];
        for (what, event, mut record, named) in cases {
            let mut trail = Trail::default();
            trail.hear(event.to_string().as_bytes());
            trail.hear(b"no JSON");
            assert!(Trail::asks(&record), "{what}");
            assert_eq!(trail.name(&mut record, 7), named, "{what}");
            if named {
                assert_eq!(
                    (record.who.user.as_str(), record.who.via),
                    ("dan", Via::Kubectl),
                    "{what}"
                );
                let asked = "2026-11-21T08:00:00.5Z".parse::<Timestamp>().unwrap();
                assert_eq!(record.at == asked, record.verb == Verb::Scale, "{what}");
                assert!(
                    !Trail::asks(&record) && !trail.name(&mut record, 7),
                    "{what}: once"
                );
            }
        }
        // Of several to the same number each record has its own, and what was seen as one the last.
        let scaled = |by: &str, replicas: i64, version: &str| {
            with(
                event("patch", "scale", scale(replicas, version)),
                "user",
                json!({"username": by}),
            )
        };
        let mut trail = Trail::default();
        for event in [
            scaled("ann", 3, "3"),
            scaled("bob", 2, "4"),
            scaled("cid", 3, "5"),
            scaled("dan", 2, "6"),
            scaled("eve", 3, "7"),
        ] {
            trail.hear(event.to_string().as_bytes());
        }
        for (seen, replicas, by) in [(3, 3, "ann"), (4, 2, "bob"), (u64::MAX, 3, "eve")] {
            let mut record = record(Verb::Scale, "u", at, Some(json!({"replicas": replicas})));
            assert!(
                trail.name(&mut record, seen) && record.who.user == by,
                "{seen}: {record:?}"
            );
        }
        assert!(trail.said.is_empty());
        // Who acts as another.
        let other = with(delete(), "impersonatedUser", json!({"username": "eve"}));
        let mut trail = Trail::default();
        trail.hear(other.to_string().as_bytes());
        let mut deleted = record(Verb::Delete, "u", at, None);
        assert!(trail.name(&mut deleted, 7) && deleted.who.user == "eve");
    }
}
