//! What was last seen of every object, and what follows from the difference to what is seen now.

use std::collections::{HashMap, HashSet};

use gantry_records::{Entry, Object, Outcome, Record, Seen, SeenChange, Verb, Via, Who, id};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    deeds::{self, Deed},
    observed::Observed,
};

/// Compares what is seen with what was seen.
#[derive(Debug, Default)]
pub struct Ledger {
    now: HashMap<String, Seen>,
    /// While it is not known what earlier runs had seen: what was seen first, for when it is.
    first: Option<HashMap<String, Observed>>,
}

impl Ledger {
    /// A ledger that does not know yet what earlier runs had seen; see [`baseline`](Self::baseline).
    pub fn new() -> Self {
        Self {
            now: HashMap::new(),
            first: Some(HashMap::new()),
        }
    }

    /// An object is there, new or changed.
    pub fn see(&mut self, observed: Observed) -> Option<Entry> {
        let uid = observed.object.uid.clone();
        let before = self.now.get(&uid);
        // Heard late: what came after it has been looked at.
        if before.is_some_and(|b| b.generation > observed.generation) {
            return None;
        }
        if before.is_none()
            && let Some(first) = &mut self.first
        {
            self.now.insert(uid.clone(), seen(&observed, None));
            first.insert(uid, observed);
            return None;
        }
        let entry = difference(before, &observed)?;
        if let Some(SeenChange::Is(seen)) = &entry.seen {
            self.now.insert(uid, seen.clone());
        }
        Some(entry)
    }

    /// An object is gone, at a time that is told by nobody: `now`.
    pub fn gone(&mut self, uid: &str, now: Timestamp) -> Option<Entry> {
        self.now.remove(uid).map(|seen| end(&seen, now))
    }

    /// All objects of a kind.
    pub fn listed(&mut self, kind: &str, objects: Vec<Observed>, now: Timestamp) -> Vec<Entry> {
        let there: HashSet<String> = objects.iter().map(|o| o.object.uid.clone()).collect();
        let missing = self
            .now
            .iter()
            .filter(|(uid, seen)| seen.object.kind == kind && !there.contains(uid.as_str()));
        let mut missing: Vec<String> = missing.map(|(uid, _)| uid.clone()).collect();
        missing.sort();
        let mut entries: Vec<Entry> = missing
            .iter()
            .filter_map(|uid| self.gone(uid, now))
            .collect();
        entries.extend(objects.into_iter().filter_map(|o| self.see(o)));
        entries
    }

    /// What earlier runs had seen. To be called when all `kinds` have been listed, so that what is missing is gone.
    pub fn baseline(&mut self, base: &[Seen], kinds: &[&str], now: Timestamp) -> Vec<Entry> {
        let Some(first) = self.first.take() else {
            return Vec::new();
        };
        let base: HashMap<&str, &Seen> = base.iter().map(|s| (s.object.uid.as_str(), s)).collect();
        let mut entries = Vec::new();
        let mut gone: Vec<&&Seen> = base
            .values()
            .filter(|s| {
                kinds.contains(&s.object.kind.as_str()) && !first.contains_key(&s.object.uid)
            })
            .collect();
        gone.sort_by_key(|s| &s.object.uid);
        entries.extend(gone.into_iter().map(|seen| end(seen, now)));
        let mut first: Vec<Observed> = first.into_values().collect();
        first.sort_by_key(|o| (o.changed, o.object.uid.clone()));
        for observed in first {
            let uid = observed.object.uid.as_str();
            let before = base.get(uid).copied();
            if let (Some(before), Some(seen)) = (before, self.now.get_mut(uid)) {
                // Who made it is known from then.
                let creator = before.state["creator"].clone();
                if !creator.is_null() {
                    seen.state["creator"] = creator;
                }
            }
            let Some(mut entry) = difference(before, &observed) else {
                continue;
            };
            // What has been seen since is newer, and may have been written already.
            entry.seen = self.now.get(uid).cloned().map(SeenChange::Is);
            entries.push(entry);
        }
        entries
    }
}

/// Who made an object, where that is known.
fn creator(observed: &Observed) -> Value {
    let made = observed.stamp.as_ref().filter(|s| s.from.is_empty());
    made.map_or(
        Value::Null,
        |s| json!({"user": s.by, "groups": s.groups, "via": observed.via}),
    )
}

fn seen(observed: &Observed, before: Option<&Seen>) -> Seen {
    let creator = match before.map(|b| b.state["creator"].clone()) {
        Some(known) if !known.is_null() => known,
        _ => creator(observed),
    };
    Seen {
        object: observed.object.clone(),
        generation: observed.generation,
        state: observed.state(&creator),
    }
}

fn record(at: Timestamp, generation: i64, who: Who, deed: Deed, object: &Object) -> Record {
    let parts = [object.uid.as_str(), deed.verb.as_str(), deed.part.as_str()];
    Record {
        id: id::of(at, generation, &parts),
        at,
        who,
        verb: deed.verb,
        object: object.clone(),
        why: deed.why,
        before: deed.before,
        after: deed.after,
        outcome: Outcome::Done,
        message: String::new(),
        started: None,
        finished: None,
    }
}

/// The records that the difference is, and what is seen now; `None` where nothing differs that matters.
fn difference(before: Option<&Seen>, observed: &Observed) -> Option<Entry> {
    let now = seen(observed, before);
    if before.is_some_and(|b| b.state == now.state) {
        return None;
    }
    let object = &observed.object;
    let mut records = Vec::new();
    let run_before = before.map(|b| &b.state["run"]).unwrap_or(&Value::Null);
    let run = observed.run.as_ref().unwrap_or(&Value::Null);
    match before {
        None => {
            let mut deed = deeds::made(&object.kind, &observed.spec);
            if deed.why.is_empty() && observed.generation == 1 {
                deed.why = observed.note.clone();
            }
            let at = observed.created;
            let who = who_made(&now);
            let mut made = record(at, 1, who, deed, object);
            if observed.run.is_some() {
                put_run(&mut made, run);
            }
            records.push(made);
            // What has been pressed before it was first seen.
            let plain = json!({"retry": 0});
            for deed in deeds::changed(&object.kind, &plain, &observed.spec, false) {
                if object.kind == "Release" && deed.verb != Verb::Change {
                    records.push(pressed(observed, before, deed));
                }
            }
        }
        Some(before) => {
            let by_hub = observed.via == Via::Hub;
            let spec = &before.state["spec"];
            for deed in deeds::changed(&object.kind, spec, &observed.spec, by_hub) {
                records.push(pressed(observed, Some(before), deed));
            }
            if run_before != run && !run.is_null() && is_over(run) && !is_over(run_before) {
                let deed = deeds::made(&object.kind, &observed.spec);
                let mut made = record(observed.created, 1, who_made(&now), deed, object);
                put_run(&mut made, run);
                records.push(made);
            }
        }
    }
    let known = run_before["overrides"].as_array().map_or(0, Vec::len);
    let overrides = run["overrides"].as_array().into_iter().flatten();
    for (n, what) in overrides.enumerate().skip(known) {
        let text = |key: &str| what[key].as_str().unwrap_or_default().to_owned();
        let at = text("at").parse().unwrap_or(observed.changed);
        let who = Who {
            user: text("by"),
            groups: vec![],
            via: Via::Hub,
        };
        let deed = Deed {
            verb: Verb::Override,
            part: n.to_string(),
            why: text("reason"),
            before: None,
            after: Some(json!({"what": what["what"]})),
            by: None,
        };
        records.push(record(at, observed.generation, who, deed, object));
    }
    Some(Entry {
        records,
        seen: Some(SeenChange::Is(now)),
    })
}

/// A change of the spec.
fn pressed(observed: &Observed, before: Option<&Seen>, mut deed: Deed) -> Record {
    let fresh = |key: &str| {
        before
            .map(|b| &b.state[key])
            .unwrap_or(&Value::Null)
            .clone()
    };
    let stamp = observed.stamp.as_ref().filter(|s| {
        let old = fresh("stamp");
        // The same stamp as before is that of the change before: this one came by another way (`scale`).
        old["from"] != json!(s.from) || old["by"] != json!(s.by)
    });
    let (user, groups) = match (&deed.by, stamp) {
        (Some((by, groups)), stamp) if stamp.is_none_or(|s| s.by != *by) => {
            (by.clone(), groups.clone())
        }
        (_, Some(stamp)) => (stamp.by.clone(), stamp.groups.clone()),
        (Some((by, groups)), None) => (by.clone(), groups.clone()),
        (None, None) => Default::default(),
    };
    let who = Who {
        user,
        groups,
        via: observed.via,
    };
    if deed.why.is_empty() && fresh("note") != json!(observed.note) {
        deed.why = observed.note.clone();
    }
    record(
        observed.changed,
        observed.generation,
        who,
        deed,
        &observed.object,
    )
}

fn who_made(seen: &Seen) -> Who {
    if let Ok(who) = serde_json::from_value(seen.state["creator"].clone()) {
        return who;
    }
    // Nobody has stamped it. What a release says of itself is better than nothing.
    let said = seen.state["spec"]["requestedBy"].as_str();
    Who {
        user: said.unwrap_or_default().to_owned(),
        ..Who::default()
    }
}

fn is_over(run: &Value) -> bool {
    matches!(
        run["phase"].as_str(),
        Some("Succeeded" | "RolledBack" | "Aborted" | "Failed")
    )
}

/// Where a release stands, into its record.
fn put_run(record: &mut Record, run: &Value) {
    let time = |key: &str| run[key].as_str().and_then(|t| t.parse().ok());
    record.outcome = match run["phase"].as_str() {
        Some("Succeeded") => Outcome::Succeeded,
        Some("RolledBack") => Outcome::RolledBack,
        Some("Aborted") => Outcome::Aborted,
        Some("Failed") => Outcome::Failed,
        _ => Outcome::Running,
    };
    record.started = time("started");
    if record.outcome != Outcome::Running {
        record.finished = time("finished");
        record.message = run["message"].as_str().unwrap_or_default().to_owned();
    }
}

/// An object is gone.
fn end(seen: &Seen, now: Timestamp) -> Entry {
    let object = &seen.object;
    let mut records = Vec::new();
    let run = &seen.state["run"];
    if !run.is_null() && !is_over(run) {
        let deed = deeds::made(&object.kind, &seen.state["spec"]);
        let made = seen.state["created"].as_str().and_then(|t| t.parse().ok());
        let mut record = record(made.unwrap_or(now), 1, who_made(seen), deed, object);
        put_run(&mut record, run);
        record.outcome = Outcome::Unknown;
        record.message = "it was deleted before it had ended".to_owned();
        record.finished = Some(now);
        records.push(record);
    }
    let mut deed = deeds::unmade(&object.kind, &seen.state["spec"]);
    let mut who = Who::default();
    if let Some(note) = seen.state["deleteNote"].as_str() {
        // Announced, and stamped with the announcement.
        deed.why = note.to_owned();
        who.user = seen.state["stamp"]["by"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        who.groups =
            serde_json::from_value(seen.state["stamp"]["groups"].clone()).unwrap_or_default();
        who.via = Via::Cli;
    }
    records.push(record(now, seen.generation, who, deed, object));
    Entry {
        records,
        seen: Some(SeenChange::Gone(object.uid.clone())),
    }
}
