//! What is wrong with a file of configuration, field by field, in Kubernetes' words.

/// All that was found so far.
#[derive(Default)]
pub struct Wrong(Vec<String>);

impl Wrong {
    pub fn say(&mut self, what: String) {
        self.0.push(what);
    }

    pub fn required(&mut self, field: &str, why: &str) {
        let why = if why.is_empty() {
            ""
        } else {
            &format!(": {why}")
        };
        self.say(format!("{field}: Required value{why}"));
    }

    pub fn invalid(&mut self, field: &str, value: &str, why: &str) {
        self.say(format!("{field}: Invalid value: {value:?}: {why}"));
    }

    pub fn duplicate(&mut self, field: &str, value: &str) {
        self.say(format!("{field}: Duplicate value: {value:?}"));
    }

    pub fn unsupported(&mut self, field: &str, value: &str, known: &[&str]) {
        let known: Vec<String> = known.iter().map(|k| format!("{k:?}")).collect();
        self.say(format!(
            "{field}: Unsupported value: {value:?}: supported values: {}",
            known.join(", ")
        ));
    }

    /// # Errors
    /// Something is wrong: all of it.
    pub fn end(self) -> Result<(), String> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(self.0.join("; ")),
        }
    }
}
