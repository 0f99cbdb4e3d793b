//! Mutation goes in rounds: when a policy or a webhook changed the object, those that were asked
//! before it and want to know are asked once more.

use serde_json::Value;

/// What is remembered between the two rounds.
#[derive(Default)]
pub struct Rounds {
    pub policies: Part,
    pub hooks: Part,
    /// Somebody changed the object: there is a second round.
    pub repeat: bool,
    pub second: bool,
}

/// The same of policies or of webhooks, by keys.
#[derive(Default)]
pub struct Part {
    /// Those that were asked and want to hear of later changes.
    invoked: Vec<String>,
    /// Those that are asked in the second round.
    due: Vec<String>,
    /// The object as the last of them left it.
    last: Option<Value>,
}

impl Part {
    /// A round begins with this object.
    pub fn begin(&mut self, second: bool, object: Option<&Value>) {
        if second && !self.invoked.is_empty() && self.last.as_ref() != object {
            // Others changed it after them.
            self.changed();
        }
    }

    /// One of them changed the object.
    pub fn changed(&mut self) {
        self.due.append(&mut self.invoked);
    }

    /// One was asked that wants to hear of later changes.
    pub fn invoked(&mut self, key: &str) {
        self.invoked.push(key.to_owned());
    }

    pub fn is_due(&self, key: &str) -> bool {
        self.due.iter().any(|k| k == key)
    }

    /// A round has ended with this object.
    pub fn end(&mut self, object: Option<&Value>) {
        if !self.invoked.is_empty() {
            self.last = object.cloned();
        }
    }
}
