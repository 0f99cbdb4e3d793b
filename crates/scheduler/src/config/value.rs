//! A JSON value with the path that leads to it, so that every complaint names its place.

use super::ConfigError;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;

/// A place in a configuration, there or not.
pub struct Node<'a> {
    value: Option<&'a Value>,
    path: String,
}

impl<'a> Node<'a> {
    pub fn root(value: &'a Value) -> Self {
        Self {
            value: Some(value),
            path: String::new(),
        }
    }

    /// A field; `null` is as good as absent.
    pub fn get(&self, field: &str) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        Self {
            value: self
                .value
                .and_then(|v| v.get(field))
                .filter(|v| !v.is_null()),
            path: format!("{}{dot}{field}", self.path),
        }
    }

    pub const fn is_there(&self) -> bool {
        self.value.is_some()
    }

    pub fn wrong(&self, problem: impl Into<String>) -> ConfigError {
        ConfigError {
            path: self.path.clone(),
            problem: problem.into(),
        }
    }

    /// Complains of fields that are not among these.
    pub fn only(&self, known: &[&str]) -> Result<(), ConfigError> {
        let Some(value) = self.value else {
            return Ok(());
        };
        let Value::Object(fields) = value else {
            return Err(self.wrong("must be an object"));
        };
        match fields.keys().find(|k| !known.contains(&k.as_str())) {
            Some(field) => Err(self.get_any(field).wrong(format!(
                "there is no such field; there are {}",
                known.join(", ")
            ))),
            None => Ok(()),
        }
    }

    /// As [`Node::get`], for a field whose value does not matter.
    fn get_any(&self, field: &str) -> Self {
        Self {
            value: None,
            path: self.get(field).path,
        }
    }

    pub fn text(&self) -> Result<Option<&'a str>, ConfigError> {
        match self.value {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong("must be a string")),
        }
    }

    pub fn number(&self) -> Result<Option<i64>, ConfigError> {
        match self.value {
            None => Ok(None),
            Some(value) => value
                .as_i64()
                .map(Some)
                .ok_or_else(|| self.wrong("must be a whole number")),
        }
    }

    pub fn number_in(&self, from: i64, to: i64) -> Result<Option<i64>, ConfigError> {
        match self.number()? {
            Some(n) if n < from || n > to => Err(self.wrong(format!("must be {from} to {to}"))),
            other => Ok(other),
        }
    }

    pub fn flag(&self) -> Result<Option<bool>, ConfigError> {
        match self.value {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong("must be true or false")),
        }
    }

    pub fn list(&self) -> Result<Vec<Self>, ConfigError> {
        match self.value {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => Ok(list
                .iter()
                .enumerate()
                .map(|(at, value)| Self {
                    value: Some(value),
                    path: format!("{}[{at}]", self.path),
                })
                .collect()),
            Some(_) => Err(self.wrong("must be a list")),
        }
    }

    pub fn texts(&self) -> Result<Vec<String>, ConfigError> {
        let mut texts = Vec::new();
        for node in self.list()? {
            let text = node.text()?.ok_or_else(|| node.wrong("must be a string"))?;
            texts.push(text.to_owned());
        }
        Ok(texts)
    }

    /// A duration such as `15s` or `1m30s`.
    pub fn duration(&self, default: Duration) -> Result<Duration, ConfigError> {
        let Some(text) = self.text()? else {
            return Ok(default);
        };
        let wrong = || self.wrong("must be a duration above zero, such as 15s");
        let parsed: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
        let parsed = parsed.unsigned_abs();
        if parsed.is_zero() || text.starts_with('-') {
            return Err(wrong());
        }
        Ok(parsed)
    }

    /// An object of the Kubernetes API.
    pub fn object<T: DeserializeOwned>(&self) -> Result<Option<T>, ConfigError> {
        self.value
            .map(|value| {
                serde_json::from_value(value.clone()).map_err(|e| self.wrong(e.to_string()))
            })
            .transpose()
    }
}
